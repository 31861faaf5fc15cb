//! Random search and evolution over the networks that meet the limits.
//!
//! Evolution keeps a population, and makes each new network of two of its better half by drawing
//! every operator and width from one of them, then changing a few: as in single-path one-shot
//! search (Guo et al., ECCV 2020). Networks are drawn, changed and repaired within the limits, so
//! that none is judged in vain, and none is judged twice.
//!
//! A killed search goes on: what is drawn next depends on the seed and on the trials alone.
//!
//! Must not know: how accuracy is had.

use std::collections::HashSet;

use jaq_cost::{CostModel, Limits, ModelError};
use serde::{Deserialize, Serialize};

use crate::discretize::{Discretizer, Infeasible, Priced};
use crate::objective::Probabilities;
use crate::rng::{Purpose, Rng};
use crate::space::{Choice, Space};

/// A network and what is known of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Which; genes that it does not use are at their first option.
    pub choice: Choice,
    /// Accuracy by the supernet, 0..1.
    pub accuracy: f64,
}

/// The best of some trials, the first of equals.
pub fn best(trials: &[Trial]) -> Option<&Trial> {
    trials.iter().rev().max_by(|a, b| a.accuracy.total_cmp(&b.accuracy))
}

/// Draws networks within limits.
pub struct Drawer<'a, M> {
    space: &'a Space,
    limits: &'a Limits,
    discretizer: &'a Discretizer<'a, M>,
}

/// Networks drawn before one is repaired instead.
const DRAWS: usize = 60;
/// Where a limit on work is set, random networks take at least this share of it: what is far
/// below is cheap to find and seldom good.
const SPENT: f64 = 0.8;

impl<'a, M: CostModel> Drawer<'a, M> {
    /// Of a space, within the limits that the discretizer repairs to.
    pub fn new(space: &'a Space, limits: &'a Limits, discretizer: &'a Discretizer<'a, M>) -> Self {
        Drawer { space, limits, discretizer }
    }

    /// The network if it meets the limits, else one near it that does.
    pub fn repaired(&self, choice: &Choice) -> Result<Priced, Infeasible> {
        let priced = self.discretizer.price(choice)?;
        if self.limits.check(&priced.demand).is_empty() {
            return Ok(priced);
        }
        self.discretizer.choose(&Probabilities::certain(self.space, choice))
    }

    /// A network drawn evenly among those that meet the limits and spend most of a limit on work.
    /// Where such are rare, the last one drawn is repaired.
    pub fn random(&self, rng: &mut Rng) -> Result<Priced, Infeasible> {
        let mut choice = self.any(rng);
        for _ in 0..DRAWS {
            let priced = self.discretizer.price(&choice)?;
            if self.limits.check(&priced.demand).is_empty() && self.spends(&priced)? {
                return Ok(priced);
            }
            choice = self.any(rng);
        }
        self.repaired(&choice)
    }

    fn any(&self, rng: &mut Rng) -> Choice {
        let choice = Choice {
            operators: self.space.sections.iter().map(|s| rng.below(s.operators.len())).collect(),
            widths: self.space.genes.iter().map(|g| rng.below(g.options.len())).collect(),
        };
        self.space.canonical(&choice)
    }

    fn spends(&self, priced: &Priced) -> Result<bool, ModelError> {
        let share = |figure: Option<f64>, limit: Option<f64>| Some(figure? / limit?);
        let work = share(priced.demand.instructions, self.limits.instructions);
        let time = share(priced.demand.latency_s, self.limits.latency_s);
        Ok(work.into_iter().chain(time).reduce(f64::max).is_none_or(|share| share >= SPENT))
    }
}

/// What a search by trials failed of, beside what the accuracy did.
pub type Outcome<E> = Result<Vec<Trial>, E>;

/// Judges `count` networks drawn at random; goes on after `known` ones. `judged` hears of every
/// new one.
pub fn random<M: CostModel, E: From<Infeasible>>(
    drawer: &Drawer<'_, M>,
    count: usize,
    seed: u64,
    known: Vec<Trial>,
    mut accuracy: impl FnMut(&Choice) -> Result<f64, E>,
    mut judged: impl FnMut(&[Trial]) -> Result<(), E>,
) -> Outcome<E> {
    let mut trials = Trials::new(drawer.space, known);
    while trials.all.len() < count {
        let mut rng = trials.stream(seed);
        let mut draw = || drawer.random(&mut rng).map(|priced| priced.choice);
        let choice = trials.unseen(&mut draw)?;
        trials.add(choice, &mut accuracy)?;
        judged(&trials.all)?;
    }
    Ok(trials.all)
}

/// Judges `count` networks, a third of them drawn at random, the others bred; goes on after
/// `known` ones.
pub fn evolution<M: CostModel, E: From<Infeasible>>(
    drawer: &Drawer<'_, M>,
    count: usize,
    seed: u64,
    known: Vec<Trial>,
    mut accuracy: impl FnMut(&Choice) -> Result<f64, E>,
    mut judged: impl FnMut(&[Trial]) -> Result<(), E>,
) -> Outcome<E> {
    let first = (count / 3).max(2);
    let mut trials = Trials::new(drawer.space, known);
    while trials.all.len() < count {
        let mut rng = trials.stream(seed);
        let choice = if trials.all.len() < first {
            trials.unseen(&mut || drawer.random(&mut rng).map(|priced| priced.choice))?
        } else {
            let mut parents: Vec<&Trial> = trials.all.iter().collect();
            parents.sort_by(|a, b| b.accuracy.total_cmp(&a.accuracy));
            parents.truncate((first / 2).max(2));
            let mut breed = || {
                let [a, b] = [0; 2].map(|_| &parents[rng.below(parents.len())].choice);
                let child = child(drawer.space, a, b, &mut rng);
                drawer.repaired(&child).map(|priced| priced.choice)
            };
            trials.unseen(&mut breed)?
        };
        trials.add(choice, &mut accuracy)?;
        judged(&trials.all)?;
    }
    Ok(trials.all)
}

/// Chance that an operator or a width of a child is drawn anew.
const CHANGE: f32 = 0.1;

fn child(space: &Space, a: &Choice, b: &Choice, rng: &mut Rng) -> Choice {
    let mut pick = |a: usize, b: usize, options: usize| {
        let inherited = if rng.below(2) == 0 { a } else { b };
        if rng.unit() < CHANGE { rng.below(options) } else { inherited }
    };
    let operators = a.operators.iter().zip(&b.operators).zip(&space.sections);
    let operators = operators.map(|((a, b), s)| pick(*a, *b, s.operators.len())).collect();
    let widths = a.widths.iter().zip(&b.widths).zip(&space.genes);
    let widths = widths.map(|((a, b), g)| pick(*a, *b, g.options.len())).collect();
    space.canonical(&Choice { operators, widths })
}

/// What was judged so far.
struct Trials<'a> {
    space: &'a Space,
    all: Vec<Trial>,
    seen: HashSet<Choice>,
}

/// Draws of what was seen before until it is judged again after all: the space may be spent.
const REPEATS: usize = 50;

impl<'a> Trials<'a> {
    fn new(space: &'a Space, known: Vec<Trial>) -> Self {
        let seen = known.iter().map(|trial| trial.choice.clone()).collect();
        Trials { space, all: known, seen }
    }

    fn stream(&self, seed: u64) -> Rng {
        Rng::at(seed, Purpose::Trials, self.all.len() as u64)
    }

    fn unseen(
        &self,
        draw: &mut impl FnMut() -> Result<Choice, Infeasible>,
    ) -> Result<Choice, Infeasible> {
        let mut choice = self.space.canonical(&draw()?);
        for _ in 0..REPEATS {
            if !self.seen.contains(&choice) {
                break;
            }
            choice = self.space.canonical(&draw()?);
        }
        Ok(choice)
    }

    fn add<E>(
        &mut self,
        choice: Choice,
        accuracy: &mut impl FnMut(&Choice) -> Result<f64, E>,
    ) -> Result<(), E> {
        let accuracy = accuracy(&choice)?;
        self.seen.insert(choice.clone());
        self.all.push(Trial { choice, accuracy });
        Ok(())
    }
}
