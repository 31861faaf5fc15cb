//! Searches of seconds: what limits, prices and hardware do to the result, and resuming.

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

use crate::hardware::tests::{SIDES, few};

/// A search of a network with one of 36 accelerators.
fn with_hardware(
    limits: &Limits,
    config: &SearchConfig,
    folder: Option<&Path>,
    stop_after: Option<u64>,
) -> Result<(Found, usize), SearchError> {
    let space = small_space();
    let designs = Designs::new(&space, few(SIDES), &config.cost, limits);
    let mut progress = |_: &SearchProgress| {};
    let control = Control { progress: &mut progress, folder, stop_after };
    search_with_hardware(&space, &data(), &designs, limits, config, Begin::Fresh, control)
}

fn priced_by_edp(hardware: Method) -> SearchConfig {
    let cost = CostWeights { edp: 0.5, ..CostWeights::NONE };
    SearchConfig { epochs: 2, cost, hardware, ..SearchConfig::small() }
}

#[test]
fn hardware_moves_with_limits_and_prices() {
    let exact = priced_by_edp(Method::Exact);
    let cost = CostWeights { latency: 0.5, ..CostWeights::NONE };
    let config = SearchConfig { epochs: 1, cost, ..exact };
    let areas: Vec<f64> =
        (0..36).map(|h| few(SIDES).at(h).unwrap().prices().unwrap().area_mm2).collect();
    let least = areas.iter().copied().fold(f64::INFINITY, f64::min);
    let area = |limits: &Limits, config: &SearchConfig| {
        let (found, index) = with_hardware(limits, config, None, None).unwrap();
        assert_eq!(limits.check(&found.demand), []);
        assert_eq!(found.demand.area_mm2, Some(areas[index]));
        (areas[index], few(SIDES).at(index).unwrap().array)
    };
    // Whoever pays for time alone takes the large array; a tight area shrinks it.
    let (free, array) = area(&Limits::default(), &config);
    assert!(free > 1.1 * least, "{free} {least}");
    let tight = Limits { area_mm2: Some((free + least) / 2.0), ..Limits::default() };
    let (small, smaller) = area(&tight, &config);
    assert!(small <= (free + least) / 2.0);
    assert!(smaller.rows * smaller.columns <= array.rows * array.columns);
    // Dear area: the smallest of all.
    let dear = SearchConfig { cost: CostWeights { area: 5000.0, ..cost }, ..config.clone() };
    assert_eq!(area(&Limits::default(), &dear).0, least);
}

#[test]
fn latency_limits_give_faster_pairs() {
    let config = SearchConfig { cost: CostWeights::NONE, ..priced_by_edp(Method::Exact) };
    let (free, _) = with_hardware(&Limits::default(), &config, None, None).unwrap();
    let limit = free.demand.latency_s.unwrap() * 0.7;
    let limits = Limits { latency_s: Some(limit), ..Limits::default() };
    let (found, _) = with_hardware(&limits, &config, None, None).unwrap();
    assert!(found.demand.latency_s.unwrap() <= limit);
    let never = Limits { latency_s: Some(1e-9), ..Limits::default() };
    let error = with_hardware(&never, &config, None, Some(0)).unwrap_err().to_string();
    assert!(error.contains("latency"), "{error}");
}

#[test]
fn killed_search_with_generator_resumes_to_the_same_bytes() {
    let config = priced_by_edp(Method::Generator);
    let limits = Limits { latency_s: Some(1e-4), ..Limits::default() };
    let (whole, index) = with_hardware(&limits, &config, None, None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    match with_hardware(&limits, &config, Some(dir.path()), Some(10)) {
        Err(SearchError::Train(TrainError::Stopped { step: 10 })) => {}
        other => panic!("{:?}", other.map(|f| f.1)),
    }
    let (resumed, again) = with_hardware(&limits, &config, Some(dir.path()), None).unwrap();
    assert_eq!(resumed.probabilities, whole.probabilities);
    assert_eq!((resumed.choice, again), (whole.choice, index));
}
