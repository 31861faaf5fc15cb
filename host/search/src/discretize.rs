//! From probabilities to one network that meets every limit: the likeliest one, repaired on exact
//! costs where it does not.
//!
//! Must not know: training.

use jaq_cost::{CostModel, Demand, Figure, LimitError, Limits, ModelError, NetworkCost, plan};

use crate::objective::{Objective, Probabilities};
use crate::space::{Choice, Space};

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Infeasible {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(
        "no network of the space `{space}` meets the limits; the one that takes least: {}", list(.misses)
    )]
    Limits { space: String, misses: Vec<LimitError> },
}

fn list(misses: &[LimitError]) -> String {
    misses.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Options whose probabilities differ by less than this factor are a matter of indifference to
/// the search.
const INDIFFERENT: f64 = 10.0;

/// A network with what it takes.
#[derive(Clone, Debug)]
pub struct Priced {
    /// Which.
    pub choice: Choice,
    /// Predicted cost, by layer.
    pub cost: NetworkCost,
    /// What is held against the limits.
    pub demand: Demand,
}

/// Prices and repairs choices.
pub struct Discretizer<'a, M> {
    space: &'a Space,
    model: &'a M,
    objective: &'a Objective,
    limits: &'a Limits,
}

impl<'a, M: CostModel> Discretizer<'a, M> {
    /// For a space on a target under limits.
    pub fn new(
        space: &'a Space,
        model: &'a M,
        objective: &'a Objective,
        limits: &'a Limits,
    ) -> Self {
        Discretizer { space, model, objective, limits }
    }

    /// Exact cost and planned arena of a choice.
    pub fn price(&self, choice: &Choice) -> Result<Priced, ModelError> {
        let network = self.space.network(choice);
        let cost = self.model.network(&network)?;
        let demand = Demand::of(&network, &cost.total, self.arena(choice));
        Ok(Priced { choice: choice.clone(), cost, demand })
    }

    /// Planned arena in bytes; 0 on targets without kernels.
    fn arena(&self, choice: &Choice) -> u32 {
        let network = self.space.network(choice);
        let kernels: Option<Vec<_>> =
            network.shapes().iter().map(|layer| self.model.kernel(layer)).collect();
        kernels.map_or(0, |kernels| plan(&network, &kernels).schedule.arena_bytes)
    }

    /// How far a choice is above its limits, as a sum of shares. The arena is planned only if
    /// `ram` says so: it costs more than all other figures together.
    fn excess(&self, choice: &Choice, ram: bool) -> f64 {
        let over = |figure: f64, limit: Option<f64>| {
            limit.map_or(0.0, |limit| (figure / limit.max(1e-12) - 1.0).max(0.0))
        };
        let terms = self.objective.terms.iter().map(|term| {
            let limit = match term.figure {
                Figure::Work => self.limits.instructions,
                Figure::Flash => self.limits.flash_bytes.map(|b| b as f64),
                Figure::Latency => self.limits.latency_s,
                Figure::Energy => self.limits.energy_pj,
            };
            over(term.costs.of(self.space, choice) + term.constant, limit)
        });
        let arena = || f64::from(self.arena(choice));
        let limit = self.limits.ram_bytes.map(|b| b as f64);
        terms.sum::<f64>() + if ram { over(arena(), limit) } else { 0.0 }
    }

    /// Every network that differs in one operator or one width.
    fn neighbours(&self, choice: &Choice) -> Vec<Choice> {
        let mut all = Vec::new();
        for (s, section) in self.space.sections.iter().enumerate() {
            for o in (0..section.operators.len()).filter(|o| *o != choice.operators[s]) {
                let mut other = choice.clone();
                other.operators[s] = o;
                all.push(other);
            }
        }
        for (g, gene) in self.space.genes.iter().enumerate() {
            for w in (0..gene.options.len()).filter(|w| *w != choice.widths[g]) {
                let mut other = choice.clone();
                other.widths[g] = w;
                all.push(other);
            }
        }
        all
    }

    fn misses(&self, choice: &Choice) -> Result<Vec<LimitError>, ModelError> {
        Ok(self.limits.check(&self.price(choice)?.demand))
    }

    /// Steps to neighbours while a step lessens the excess, each time the one that gives most for
    /// the likelihood it costs.
    fn repair(&self, mut choice: Choice, p: &Probabilities) -> Result<Choice, ModelError> {
        let ram = |choice: &Choice| -> Result<bool, ModelError> {
            let misses = self.misses(choice)?;
            Ok(misses.iter().any(|m| m.what.starts_with("RAM")))
        };
        let mut with_ram = ram(&choice)?;
        loop {
            let excess = self.excess(&choice, with_ram);
            if excess <= 0.0 {
                let arena_too_large = ram(&choice)?;
                if !arena_too_large || with_ram {
                    return Ok(choice);
                }
                with_ram = true;
                continue;
            }
            let here = likelihood(p, &choice);
            let worth = |other: &Choice| {
                let gain = excess - self.excess(other, with_ram);
                let lost = (here - likelihood(p, other)).max(0.0);
                (gain > 1e-12).then(|| gain / (lost + 0.1))
            };
            let steps = self.neighbours(&choice).into_iter();
            let steps = steps.filter_map(|other| Some((worth(&other)?, other)));
            match steps.max_by(|a, b| a.0.total_cmp(&b.0)) {
                Some((_, better)) => choice = better,
                None => return Ok(choice),
            }
        }
    }

    /// The likeliest network where it meets the limits, else one near it that does; an error that
    /// names the limits which no network meets.
    pub fn choose(&self, p: &Probabilities) -> Result<Priced, Infeasible> {
        let repaired = self.repair(p.likeliest(), p)?;
        if self.misses(&repaired)?.is_empty() {
            return Ok(self.price(&self.spend(repaired, p)?)?);
        }
        // From the other end: what takes least of each figure.
        let mut last = Vec::new();
        for term in &self.objective.terms {
            let least = self.repair(term.costs.cheapest(self.space, &repaired), p)?;
            last = self.misses(&least)?;
            if last.is_empty() {
                return Ok(self.price(&self.approach(least, p)?)?);
            }
        }
        if let Some(misses) = self.first_unmet()? {
            last = misses;
        }
        Err(Infeasible::Limits { space: self.space.name.clone(), misses: last })
    }

    /// Limits that not even the network with the least of that figure meets.
    fn first_unmet(&self) -> Result<Option<Vec<LimitError>>, ModelError> {
        let some = Probabilities::uniform(self.space).likeliest();
        for term in &self.objective.terms {
            let what = match term.figure {
                Figure::Work => "instructions",
                Figure::Flash => "flash",
                Figure::Latency => "latency",
                Figure::Energy => "energy",
            };
            let misses = self.misses(&term.costs.cheapest(self.space, &some))?;
            if misses.iter().any(|m| m.what.starts_with(what)) {
                return Ok(Some(misses.into_iter().filter(|m| m.what.starts_with(what)).collect()));
            }
        }
        Ok(None)
    }

    /// Says before any training whether the limits are out of reach of the whole space.
    pub fn check(&self) -> Result<(), Infeasible> {
        self.choose(&Probabilities::uniform(self.space)).map(|_| ())
    }

    /// Steps to likelier neighbours that still meet the limits, the likeliest first.
    fn approach(&self, choice: Choice, p: &Probabilities) -> Result<Choice, ModelError> {
        self.climb(choice, |here, other| {
            let gain = likelihood(p, other) - likelihood(p, here);
            (gain > 1e-12).then_some(gain)
        })
    }

    /// Spends what a limit on work leaves on what the search hardly prefers less.
    ///
    /// A limit tilts all probabilities towards what is cheap until their mean meets it; of a
    /// search that is undecided the likeliest network then lies far below. This undoes the tilt:
    /// steps to neighbours of more work that still meet every limit, those first that give most
    /// work for the likelihood they cost ([`Self::repair`] in the other direction).
    fn spend(&self, choice: Choice, p: &Probabilities) -> Result<Choice, ModelError> {
        if !self.limits.on_work() {
            return Ok(choice);
        }
        let Some(work) = self.objective.terms.iter().find(|t| t.figure == Figure::Work) else {
            return Ok(choice);
        };
        self.climb(choice, |here, other| {
            let more = work.costs.of(self.space, other) - work.costs.of(self.space, here);
            let lost = (likelihood(p, here) - likelihood(p, other)).max(0.0);
            (more > 1e-9 && lost <= INDIFFERENT.ln()).then(|| more / (lost + 0.1))
        })
    }

    /// Steps to neighbours that meet the limits while one is better, the best first.
    fn climb(
        &self,
        mut choice: Choice,
        better: impl Fn(&Choice, &Choice) -> Option<f64>,
    ) -> Result<Choice, ModelError> {
        loop {
            let mut steps: Vec<(f64, Choice)> = self
                .neighbours(&choice)
                .into_iter()
                .filter_map(|other| Some((better(&choice, &other)?, other)))
                .filter(|(_, other)| self.excess(other, false) <= 0.0)
                .collect();
            steps.sort_by(|a, b| b.0.total_cmp(&a.0));
            let mut next = None;
            for (_, other) in steps {
                if self.misses(&other)?.is_empty() {
                    next = Some(other);
                    break;
                }
            }
            match next {
                Some(other) => choice = other,
                None => return Ok(choice),
            }
        }
    }
}

/// Log-likelihood of a choice.
fn likelihood(p: &Probabilities, choice: &Choice) -> f64 {
    let rows = p.operators.iter().zip(&choice.operators).chain(p.widths.iter().zip(&choice.widths));
    rows.map(|(row, i)| row[*i].max(1e-12).ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::CostWeights;
    use crate::objective::tests::Toy;
    use crate::space::tests::{random_choice, space};

    fn sharp(space: &Space, seed: u64) -> Probabilities {
        let mut p = Probabilities::certain(space, &random_choice(space, seed));
        let uniform = Probabilities::uniform(space);
        let rows = p.operators.iter_mut().chain(&mut p.widths);
        for (row, flat) in rows.zip(uniform.operators.iter().chain(&uniform.widths)) {
            row.iter_mut().zip(flat).for_each(|(a, b)| *a = 0.8 * *a + 0.2 * b);
        }
        p
    }

    #[test]
    fn result_meets_every_limit_and_stays_near() {
        let (space, model) = (space(), Toy { dear: 1.0 });
        for seed in 0..10 {
            let p = sharp(&space, seed);
            let free = Limits::default();
            let objective = Objective::new(&space, &model, &free, CostWeights::default()).unwrap();
            let likeliest = Discretizer::new(&space, &model, &objective, &free).choose(&p).unwrap();
            assert_eq!(likeliest.choice, p.likeliest());
            let work = likeliest.demand.instructions.unwrap();
            for share in [0.95, 0.7, 0.5] {
                let limits = Limits {
                    instructions: Some(work * share),
                    flash_bytes: Some((likeliest.demand.flash_bytes as f64 * share) as u64),
                    ..Limits::default()
                };
                let objective =
                    Objective::new(&space, &model, &limits, CostWeights::default()).unwrap();
                let chosen = Discretizer::new(&space, &model, &objective, &limits).choose(&p);
                let Ok(chosen) = chosen else { continue };
                assert_eq!(limits.check(&chosen.demand), []);
                let exact = model.network(&space.network(&chosen.choice)).unwrap().total;
                assert_eq!(exact.instructions, chosen.demand.instructions);
            }
        }
    }

    #[test]
    fn a_limit_is_spent_where_the_search_is_undecided_and_only_there() {
        let (space, model) = (space(), Toy { dear: 1.0 });
        let uniform = Probabilities::uniform(&space);
        let free = Objective::new(&space, &model, &Limits::default(), CostWeights::default());
        let usual = free.unwrap().terms[0].reference;
        let limits = Limits { instructions: Some(usual), ..Limits::default() };
        let objective = Objective::new(&space, &model, &limits, CostWeights::default()).unwrap();
        let discretizer = Discretizer::new(&space, &model, &objective, &limits);
        let spent = discretizer.choose(&uniform).unwrap().demand.instructions.unwrap();
        assert!((0.9..=1.0).contains(&(spent / usual)), "{spent} of {usual}");

        let least = objective.terms[0].costs.cheapest(&space, &uniform.likeliest());
        let mut p = Probabilities::certain(&space, &least);
        let rows = p.operators.iter_mut().chain(&mut p.widths);
        for (row, flat) in rows.zip(uniform.operators.iter().chain(&uniform.widths)) {
            row.iter_mut().zip(flat).for_each(|(a, b)| *a = 0.9 * *a + 0.1 * b);
        }
        assert_eq!(discretizer.choose(&p).unwrap().choice, least);
    }

    #[test]
    fn impossible_limit_is_named() {
        let (space, model) = (space(), Toy { dear: 1.0 });
        let limits = Limits { instructions: Some(10.0), ..Limits::default() };
        let objective = Objective::new(&space, &model, &limits, CostWeights::default()).unwrap();
        let discretizer = Discretizer::new(&space, &model, &objective, &limits);
        let early = discretizer.check().unwrap_err().to_string();
        let late = discretizer.choose(&sharp(&space, 1)).unwrap_err().to_string();
        for message in [early, late] {
            assert!(message.contains("instructions") && message.contains("too much"), "{message}");
        }
    }
}
