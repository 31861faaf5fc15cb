//! Tests of the co-search on small spaces.

use super::*;
use crate::csq::Rank;
use crate::objective::Costs;
use crate::objective::tests::Toy;
use crate::space::tests::small_space;
use jaq_network::Bits;
use std::path::Path;

fn data() -> Dataset {
    crate::data::subset::open().unwrap().reduced(256, 50)
}

fn run(
    model: &Toy,
    limits: &Limits,
    config: &SearchConfig,
    folder: Option<&Path>,
    stop_after: Option<u64>,
) -> Result<Found, SearchError> {
    let mut reports = 0;
    let mut progress = |_: &SearchProgress| reports += 1;
    let control = Control { progress: &mut progress, folder, stop_after };
    search(&small_space(), &data(), model, limits, config, control)
}

fn limited(instructions: f64) -> Limits {
    Limits { instructions: Some(instructions), ..Limits::default() }
}

#[test]
fn tighter_limits_give_cheaper_networks() {
    let config = SearchConfig::small();
    let work = |limit: f64| {
        let found = run(&Toy { dear: 1.0 }, &limited(limit), &config, None, None).unwrap();
        let work = found.demand.instructions.unwrap();
        assert!(work <= limit, "{work} above {limit}");
        found.network.validate().unwrap();
        (work, found.network)
    };
    let (space, model) = (small_space(), Toy { dear: 1.0 });
    let costs = Costs::build(&space, &model, jaq_cost::Figure::Work).unwrap();
    let cheapest = costs.cheapest(&space, &Probabilities::uniform(&space).likeliest());
    let (least, usual) =
        (costs.of(&space, &cheapest), costs.expected(&space, &Probabilities::uniform(&space)).0);
    let limit = |share: f64| 1000.0 + least + (usual - least) * share;
    let (loose, middle, tight) = (work(limit(2.0)), work(limit(0.3)), work(limit(0.1)));
    assert!(loose.0 > middle.0 && middle.0 > tight.0, "{} {} {}", loose.0, middle.0, tight.0);
    let mixed = |network: &Network| {
        let bits: std::collections::BTreeSet<Bits> =
            network.layers.iter().filter_map(|l| l.weight_bits).collect();
        bits.len() > 1
    };
    assert!(mixed(&loose.1) || mixed(&middle.1) || mixed(&tight.1));
}

#[test]
fn dear_widths_are_driven_out() {
    let mut config = SearchConfig::small();
    config.cost.work = 4.0;
    let twos = |dear: f64| {
        let found = run(&Toy { dear }, &Limits::default(), &config, None, None).unwrap();
        found.network.layers.iter().filter(|l| l.weight_bits == Some(Bits::B2)).count()
    };
    let (cheap, dear) = (twos(1.0), twos(30.0));
    assert!(cheap > 0 && dear == 0, "{cheap} layers of 2 bits, {dear} where these are dear");
}

#[test]
fn killed_search_resumes_to_the_same_bytes() {
    resumes(None);
}

#[test]
fn killed_search_with_csq_resumes_to_the_same_bytes() {
    // Between two rankings when it is killed.
    resumes(Some(Csq { refresh: 5, ..Csq::default() }));
}

#[test]
fn csq_changes_the_search_and_wrong_settings_are_named() {
    let trained = |csq| {
        let config = SearchConfig { epochs: 1, csq, ..SearchConfig::small() };
        run(&Toy { dear: 1.0 }, &Limits::default(), &config, None, None)
    };
    let csq = Csq { anneal: 1.0, ..Csq::default() };
    let all = trained(Some(Csq { keep: 1.0, ..csq })).unwrap().values;
    assert_eq!(all, trained(None).unwrap().values);
    let ranked = trained(Some(csq)).unwrap().values;
    assert_ne!(ranked, all);
    assert_ne!(ranked, trained(Some(Csq { rank: Rank::Random, ..csq })).unwrap().values);
    let error = trained(Some(Csq { keep: 2.0, ..csq })).unwrap_err().to_string();
    assert!(error.contains("csq") && error.contains("keep"), "{error}");
}

fn resumes(csq: Option<Csq>) {
    let config = SearchConfig { warmup_epochs: 1, epochs: 2, csq, ..SearchConfig::small() };
    let (model, limits) = (Toy { dear: 1.0 }, limited(1e5));
    let whole = run(&model, &limits, &config, None, None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    // 4 steps an epoch; each start ends two steps after the last checkpoint.
    for expected in [6, 10] {
        let stopped = run(&model, &limits, &config, Some(dir.path()), Some(6));
        match stopped {
            Err(SearchError::Train(TrainError::Stopped { step })) => assert_eq!(step, expected),
            other => panic!("{:?}", other.map(|f| f.choice)),
        }
    }
    let resumed = run(&model, &limits, &config, Some(dir.path()), None).unwrap();
    assert_eq!(resumed.values, whole.values);
    assert_eq!(resumed.probabilities, whole.probabilities);
    assert_eq!(resumed.choice, whole.choice);
    // Finished: nothing is trained again.
    let again = run(&model, &limits, &config, Some(dir.path()), Some(0)).unwrap();
    assert_eq!(again.values, whole.values);
    let other = SearchConfig { seed: 2, ..config };
    let error = run(&model, &limits, &other, Some(dir.path()), None).unwrap_err();
    assert!(error.to_string().contains("other settings"));
}

#[test]
fn impossible_limits_fail_before_training() {
    let config = SearchConfig::small();
    let error = run(&Toy { dear: 1.0 }, &limited(1e3), &config, None, Some(0)).unwrap_err();
    assert!(error.to_string().contains("instructions"), "{error}");
}

#[test]
fn all_operators_may_run_at_once() {
    let config = SearchConfig { epochs: 1, mixture: Mixture::Full, ..SearchConfig::small() };
    let found = run(&Toy { dear: 1.0 }, &Limits::default(), &config, None, None).unwrap();
    let drawn = SearchConfig { mixture: Mixture::Drawn, ..config };
    let other = run(&Toy { dear: 1.0 }, &Limits::default(), &drawn, None, None).unwrap();
    found.network.validate().unwrap();
    assert_ne!(found.probabilities, other.probabilities);
}

#[test]
fn libtorch_searches_as_well() {
    let config = SearchConfig { epochs: 1, library: Library::Tch, ..SearchConfig::small() };
    let found = run(&Toy { dear: 1.0 }, &Limits::default(), &config, None, None);
    match cfg!(feature = "tch") {
        true => found.unwrap().network.validate().unwrap(),
        false => assert!(found.unwrap_err().to_string().contains("--features tch")),
    }
}
