//! Searches of seconds on a small space: what they share, keep to, and go on from.

use std::collections::HashSet;

use super::*;
use crate::cosearch::search;
use crate::discretize::{Discretizer, Infeasible};
use crate::objective::tests::Toy;
use crate::objective::{CostWeights, Objective};
use crate::space::tests::small_space;

fn data() -> Dataset {
    crate::data::subset::open().unwrap().reduced(256, 50)
}

fn config() -> SearchConfig {
    SearchConfig { warmup_epochs: 1, epochs: 2, ..SearchConfig::small() }
}

fn control<'a>(
    progress: &'a mut (dyn FnMut(&SearchProgress) + Send),
) -> Control<'a, SearchProgress> {
    Control { progress, folder: None, stop_after: None }
}

const MODEL: Toy = Toy { dear: 1.0 };

fn limits(space: &Space) -> Limits {
    let free = Objective::new(space, &MODEL, &Limits::default(), CostWeights::default()).unwrap();
    let usual = free.terms[0].reference;
    Limits { instructions: Some(usual), ..Limits::default() }
}

#[test]
fn a_shared_warm_up_gives_the_same_bytes() {
    let (space, data, config) = (small_space(), data(), config());
    let limits = limits(&space);
    let alone = search(&space, &data, &MODEL, &limits, &config, control(&mut |_| ())).unwrap();
    let warm = warm_up(&space, &data, &config, control(&mut |_| ())).unwrap();
    let begin = Begin::Warm(&warm);
    let shared =
        search_from(&space, &data, &MODEL, &limits, &config, begin, control(&mut |_| ())).unwrap();
    assert_eq!((shared.values, shared.choice), (alone.values, alone.choice));
    assert_eq!(shared.probabilities, alone.probabilities);
    // A supernet that is not searched stays even, and is another one.
    let even = even_supernet(&space, &data, &config, begin, control(&mut |_| ())).unwrap();
    let logits: Vec<&String> =
        even.keys().filter(|n| n.ends_with(".operators") || n.ends_with(".widths")).collect();
    assert_eq!(logits.len(), space.sections.len() + space.genes.len());
    assert!(logits.iter().all(|name| even[*name].iter().all(|v| *v == 0.0)));
    assert_ne!(even, alone.supernet);
}

#[test]
fn one_width_and_two_stages_meet_the_limits() {
    let (space, data, config) = (small_space(), data(), config());
    let limits = limits(&space);
    let warm = warm_up(&space, &data, &config, control(&mut |_| ())).unwrap();
    let [first, _] = halved(&config);
    let bits = (Bits::B4, Bits::B4);
    let found = uniform(
        &space,
        bits.0,
        bits.1,
        &data,
        &MODEL,
        &limits,
        &first,
        Begin::Warm(&warm),
        control(&mut |_| ()),
    )
    .unwrap();
    assert_eq!(found.network, found.network.with_uniform_bits(bits.0, bits.1));
    assert_eq!(limits.check(&found.demand), []);
    let second =
        sequential(&space, &found, &data, &MODEL, &limits, &config, control(&mut |_| ())).unwrap();
    assert_eq!(limits.check(&second.demand), []);
    // The same operators, with other widths.
    assert_eq!(second.network.with_uniform_bits(bits.0, bits.1), found.network);
    let widths: HashSet<Option<Bits>> =
        second.network.layers.iter().map(|layer| layer.weight_bits).collect();
    assert!(widths.len() > 1, "{widths:?}");
}

/// Trials with an accuracy that is known: the share of genes and operators at their last option.
#[test]
fn trials_meet_the_limits_go_on_and_get_better() {
    let space = small_space();
    let limits = limits(&space);
    let objective = Objective::new(&space, &MODEL, &limits, CostWeights::default()).unwrap();
    let discretizer = Discretizer::new(&space, &MODEL, &objective, &limits);
    let drawer = Drawer::new(&space, &limits, &discretizer);
    let worth = |choice: &Choice| -> Result<f64, Infeasible> {
        let used: Vec<usize> = space
            .templates(choice)
            .flat_map(|t| t.weight.into_iter().chain([t.activation]))
            .collect();
        let last = |g: &&usize| choice.widths[**g] + 1 == space.genes[**g].options.len();
        Ok(used.iter().filter(last).count() as f64 / used.len() as f64)
    };
    let nothing = |_: &[Trial]| Ok::<(), Infeasible>(());
    let drawn = random(&drawer, 40, 5, Vec::new(), worth, nothing).unwrap();
    let bred = evolution(&drawer, 40, 5, Vec::new(), worth, nothing).unwrap();
    for trials in [&drawn, &bred] {
        assert_eq!(trials.len(), 40);
        assert_eq!(trials.iter().map(|t| &t.choice).collect::<HashSet<_>>().len(), 40);
        for trial in trials.iter() {
            let demand = discretizer.price(&trial.choice).unwrap().demand;
            assert_eq!(limits.check(&demand), []);
        }
    }
    let top = |trials: &[Trial]| trials::best(trials).unwrap().accuracy;
    assert!(top(&bred) > top(&drawn), "{} {}", top(&bred), top(&drawn));
    for (whole, go_on) in [(&drawn, true), (&bred, false)] {
        let known = whole[..17].to_vec();
        let rest = match go_on {
            true => random(&drawer, 40, 5, known, worth, nothing),
            false => evolution(&drawer, 40, 5, known, worth, nothing),
        };
        assert_eq!(*whole, rest.unwrap());
    }
}

/// The judge sees what the supernet trained: its opinion is far above chance, repeats, and
/// depends on the network.
#[test]
fn the_judge_knows_more_than_chance() {
    let space = small_space();
    let data = crate::data::subset::open().unwrap().reduced(768, 50);
    let config = SearchConfig { images: None, epochs: 6, ..config() };
    let even = even_supernet(&space, &data, &config, Begin::Fresh, control(&mut |_| ())).unwrap();
    let judge = Judge::new(&space, &data, &even, &config, &JudgeConfig::default());
    assert_eq!(judge.images(), 256 + 384);
    let wide = Choice {
        operators: vec![0; space.sections.len()],
        widths: space.genes.iter().map(|g| g.options.len() - 1).collect(),
    };
    let narrow = Choice { widths: vec![0; space.genes.len()], ..wide.clone() };
    let [first, again, other] = [&wide, &wide, &narrow].map(|c| judge.accuracy(c).unwrap());
    // Four standard deviations above chance.
    assert!(first > 0.17, "{first}");
    assert_eq!(first, again);
    assert_ne!(first, other);
}

#[test]
fn images_are_those_of_the_steps() {
    let (space, data, config) = (small_space(), data(), config());
    let mut steps = 0;
    let mut progress = |p: &SearchProgress| steps = p.step;
    even_supernet(&space, &data, &config, Begin::Fresh, control(&mut progress)).unwrap();
    let images = Images::of_search(&data, &config);
    assert_eq!(images.warm_up + images.weights, steps * config.batch as u64);
    assert_eq!(images.total(), images.warm_up + 2 * images.weights);
}
