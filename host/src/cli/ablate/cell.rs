//! One cell of an experiment: a method on a seed within limits, from the search to the accuracy of
//! the packed model on the integer engine. Everything lies in the cell's folder; what is there is
//! not made again.

use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use anyhow::Result;
use jaq_cost::{Demand, Limits};
use jaq_deploy::engine::Engine;
use jaq_network::{Bits, Network, TrainedNetwork};
use jaq_search::baselines::{
    self, Drawer, Images, Judge, JudgeConfig, Trial, evolution, halved, random,
};
use jaq_search::checkpoint::Values;
use jaq_search::cosearch::{Begin, Found, SearchConfig, SearchError, search_from};
use jaq_search::csq::{Csq, Rank};
use jaq_search::discretize::{Discretizer, Infeasible};
use jaq_search::objective::Objective;
use jaq_search::retrain::{Mode, Start};
use serde::{Deserialize, Serialize};

use super::super::eval::top1;
use super::super::export::pack_for;
use super::super::progress::Bar;
use super::super::retrain::one;
use super::lab::{Lab, TOOL, peak_bytes};
use crate::report::percent;

/// A way to find a network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// Architecture and widths together, by gradients: the method of the house.
    CoSearch,
    /// The best of networks drawn at random, by a supernet.
    Random,
    /// The best of bred networks, by the same supernet.
    Evolution,
    /// Operators at W4A4 first, then widths.
    Sequential,
    /// Operators at one width.
    Uniform(Bits),
    /// The co-search with part of the channels quantized.
    Csq { percent: u8, rank: Rank },
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Method::CoSearch => f.write_str("co-search"),
            Method::Random => f.write_str("random"),
            Method::Evolution => f.write_str("evolution"),
            Method::Sequential => f.write_str("sequential"),
            Method::Uniform(bits) => write!(f, "uniform{}", bits.get()),
            Method::Csq { percent, rank: Rank::Scale } => write!(f, "csq{percent}"),
            Method::Csq { percent, rank: Rank::Random } => write!(f, "csq-random{percent}"),
        }
    }
}

impl FromStr for Method {
    type Err = String;
    fn from_str(text: &str) -> Result<Method, String> {
        let share = |digits: &str, rank| {
            let percent = digits.parse().ok().filter(|percent| (1..=100).contains(percent))?;
            Some(Method::Csq { percent, rank })
        };
        let found = match text {
            "co-search" => Some(Method::CoSearch),
            "random" => Some(Method::Random),
            "evolution" => Some(Method::Evolution),
            "sequential" => Some(Method::Sequential),
            _ => None,
        };
        let uniform = || {
            let bits: u8 = text.strip_prefix("uniform")?.parse().ok()?;
            [Bits::B2, Bits::B3, Bits::B4, Bits::B8]
                .into_iter()
                .find(|b| b.get() == u32::from(bits))
                .map(Method::Uniform)
        };
        let csq = || match text.strip_prefix("csq-random") {
            Some(rest) => share(rest, Rank::Random),
            None => share(text.strip_prefix("csq")?, Rank::Scale),
        };
        found.or_else(uniform).or_else(csq).ok_or_else(|| {
            format!(
                "`{text}` is no method; wanted: co-search, random, evolution, sequential, uniform8, uniform4, uniform3, uniform2, csq<K> or csq-random<K> with K from 1 to 100 % of the channels"
            )
        })
    }
}

/// What is asked of a network beside the experiment's own limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Nothing more.
    Plain,
    /// Instructions of an inference.
    Instructions(u64),
    /// Milliseconds of an inference.
    LatencyMs(f64),
    /// Weight of work in the objective instead of a limit.
    WorkWeight(f64),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Plain => Ok(()),
            Target::Instructions(n) => write!(f, "i{n}"),
            Target::LatencyMs(ms) => write!(f, "{ms}ms"),
            Target::WorkWeight(weight) => write!(f, "w{weight}"),
        }
    }
}

/// A cell's place in the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    pub method: Method,
    pub seed: u64,
    pub target: Target,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.method)?;
        if self.target != Target::Plain {
            write!(f, "-{}", self.target)?;
        }
        write!(f, "-seed{}", self.seed)
    }
}

/// What came of a cell.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub method: String,
    pub target: String,
    pub seed: u64,
    /// Why there is no network, where there is none; every figure below is then absent.
    pub problem: Option<String>,
    pub figures: Option<Figures>,
    pub images: Images,
}

/// Figures of a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figures {
    /// Share of the test images classified right by the packed model, on the integer engine.
    pub accuracy: f64,
    /// The same with quantizers simulated.
    pub simulated: f64,
    pub test_images: usize,
    /// Predicted.
    pub instructions: f64,
    /// Predicted.
    pub latency_s: Option<f64>,
    pub weights_bytes: usize,
    pub arena_bytes: usize,
    pub mean_weight_bits: f64,
    /// Time of the search, what is shared with other cells left out; absent where it was resumed.
    pub search_seconds: Option<f64>,
    /// Highest resident memory of the process until the search ended; absent where it was resumed.
    pub search_peak_bytes: Option<u64>,
}

/// A network that a method found.
struct Chosen {
    network: Network,
    values: Values,
    demand: Demand,
    images: Images,
}

impl From<(Found, Images)> for Chosen {
    fn from((found, images): (Found, Images)) -> Chosen {
        let Found { network, values, demand, .. } = found;
        Chosen { network, values, demand, images }
    }
}

/// Runs a cell, unless its outcome lies there.
pub fn run(lab: &Lab, cell: &Cell) -> Result<Outcome> {
    let folder = format!("cells/{cell}");
    let file = format!("{folder}/outcome.json");
    if lab.run.has(&file) {
        return lab.run.read_json(&file, "ablate");
    }
    std::fs::create_dir_all(lab.run.join(&folder))?;
    let mut outcome = Outcome {
        method: cell.method.to_string(),
        target: cell.target.to_string(),
        seed: cell.seed,
        problem: None,
        figures: None,
        images: Images::default(),
    };
    match find(lab, cell, &folder) {
        Ok((chosen, seconds)) => {
            // The searched part of the process, before the retraining needs memory of its own.
            let peak = seconds.and_then(|_| peak_bytes());
            outcome.images = chosen.images;
            outcome.figures = Some(measure(lab, cell, &folder, &mut outcome.images, &chosen)?);
            if let Some(figures) = &mut outcome.figures {
                (figures.search_seconds, figures.search_peak_bytes) = (seconds, peak);
            }
        }
        Err(Failure::Infeasible(problem)) => outcome.problem = Some(problem.to_string()),
        Err(Failure::Other(error)) => return Err(error),
    }
    lab.run.write_json(&file, &outcome)?;
    Ok(outcome)
}

enum Failure {
    /// A finding, not an error: no network of this kind meets the limits.
    Infeasible(Infeasible),
    Other(anyhow::Error),
}

impl From<Infeasible> for Failure {
    fn from(problem: Infeasible) -> Failure {
        Failure::Infeasible(problem)
    }
}

impl From<SearchError> for Failure {
    fn from(error: SearchError) -> Failure {
        match error {
            SearchError::Infeasible(problem @ Infeasible::Limits { .. }) => problem.into(),
            other => Failure::Other(other.into()),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Other(error)
    }
}

/// The method's network, and the time it took where nothing of it was there before.
fn find(lab: &Lab, cell: &Cell, folder: &str) -> Result<(Chosen, Option<f64>), Failure> {
    let mut config = lab.search(cell.seed);
    let mut limits = lab.limits.clone();
    match cell.target {
        Target::Plain => {}
        Target::Instructions(n) => {
            limits = limits.and(&Limits { instructions: Some(n as f64), ..Limits::default() });
        }
        Target::LatencyMs(ms) => {
            limits = limits.and(&Limits { latency_s: Some(ms / 1e3), ..Limits::default() });
        }
        Target::WorkWeight(weight) => config.cost.work = weight,
    }
    if let Method::Csq { percent, rank } = cell.method {
        let keep = f32::from(percent) / 100.0;
        config.csq = Some(Csq { keep, rank, ..Csq::default() });
    }
    let (space, data, model) = (&lab.space, &lab.data, &lab.model);
    let (images, part) = (lab.search_images(&config), format!("{folder}/search"));
    let fresh = !lab.run.has(&part);
    let warm = lab.warm(cell.seed)?;
    let begin = Begin::Warm(&warm);
    let even = match cell.method {
        Method::Random | Method::Evolution => Some(lab.even(cell.seed)?),
        _ => None,
    };
    let started = Instant::now();
    let uniform = |bits: Bits, config: &SearchConfig| -> Result<Found, Failure> {
        let found = lab.with_bar(&part, |control| {
            Ok(baselines::uniform(space, bits, bits, data, model, &limits, config, begin, control))
        })?;
        Ok(found?)
    };
    let chosen = match cell.method {
        Method::CoSearch | Method::Csq { .. } => {
            let found = lab.with_bar(&part, |control| {
                Ok(search_from(space, data, model, &limits, &config, begin, control))
            })?;
            (found?, images).into()
        }
        Method::Uniform(bits) => (uniform(bits, &config)?, images).into(),
        Method::Sequential => {
            let first = uniform(Bits::B4, &halved(&config)[0])?;
            let found = lab.with_bar(&format!("{folder}/second"), |control| {
                Ok(baselines::sequential(space, &first, data, model, &limits, &config, control))
            })?;
            (found?, images).into()
        }
        Method::Random | Method::Evolution => {
            trials(lab, cell, folder, &limits, &config, &even.unwrap_or_default())?
        }
    };
    Ok((chosen, fresh.then(|| started.elapsed().as_secs_f64())))
}

/// Random search and evolution: as many networks are judged as the images of the co-search's
/// architecture steps allow.
fn trials(
    lab: &Lab,
    cell: &Cell,
    folder: &str,
    limits: &Limits,
    config: &SearchConfig,
    even: &Values,
) -> Result<Chosen, Failure> {
    let (space, other) = (&lab.space, Failure::Other);
    let objective =
        Objective::new(space, &lab.model, limits, config.cost).map_err(|e| other(e.into()))?;
    let discretizer = Discretizer::new(space, &lab.model, &objective, limits);
    discretizer.check()?;
    let drawer = Drawer::new(space, limits, &discretizer);
    let judge = Judge::new(space, &lab.data, even, config, &JudgeConfig::default());
    let mut images = lab.search_images(config);
    let count = (images.architecture / judge.images().max(1)).max(2);
    let file = format!("{folder}/trials.json");
    std::fs::create_dir_all(lab.run.join(&format!("{folder}/search")))
        .map_err(|e| other(e.into()))?;
    let known: Vec<Trial> = match lab.run.has(&file) {
        true => lab.run.read_json(&file, "ablate")?,
        false => Vec::new(),
    };
    let bar = Bar::new(&cell.to_string(), count);
    let accuracy = |choice: &_| judge.accuracy(choice).map_err(|e| other(e.into()));
    let judged = |trials: &[Trial]| {
        let top = baselines::trials::best(trials).map_or(0.0, |t| t.accuracy);
        bar.step(trials.len() as u64, &format!("best {}", percent(top)));
        Ok(lab.run.write_json(&file, &trials)?)
    };
    let (count, seed) = (count as usize, cell.seed);
    let all = match cell.method {
        Method::Random => random(&drawer, count, seed, known, accuracy, judged)?,
        _ => evolution(&drawer, count, seed, known, accuracy, judged)?,
    };
    let best = baselines::trials::best(&all).map(|t| t.choice.clone());
    let choice = best.ok_or_else(|| other(anyhow::anyhow!("nothing was judged")))?;
    images.evaluation = judge.images() * all.len() as u64;
    images.architecture = 0;
    let values = baselines::inherit(space, even, &choice, config).map_err(|e| other(e.into()))?;
    let demand = discretizer.price(&choice).map_err(|e| other(e.into()))?.demand;
    Ok(Chosen { network: space.network(&choice), values, demand, images })
}

/// Retrains, packs and measures.
fn measure(
    lab: &Lab,
    cell: &Cell,
    folder: &str,
    images: &mut Images,
    chosen: &Chosen,
) -> Result<Figures> {
    let config = lab.retrain(cell.seed);
    images.retraining = lab.retrain_images(&config);
    let start = Start { values: Some(&chosen.values), teacher: None };
    let into = format!("{folder}/quantized");
    let (simulated, _) =
        one(&lab.run, &chosen.network, &lab.data, &into, Mode::Quantized, &config, start)?;
    let trained = TrainedNetwork::load(&lab.run.join(&into))?;
    let packed = pack_for(&lab.board, &trained, TOOL, &lab.terms.data, cell.seed)?;
    lab.run.write(&format!("{folder}/model.jaq"), &packed.bytes)?;
    let test = &lab.data.test;
    Ok(Figures {
        accuracy: top1(&Engine::new(&packed.bytes)?, test, test.len())?,
        simulated: simulated.top1,
        test_images: test.len(),
        instructions: chosen.demand.instructions.unwrap_or(0.0),
        latency_s: chosen.demand.latency_s,
        weights_bytes: packed.weights_bytes,
        arena_bytes: packed.arena_bytes,
        mean_weight_bits: chosen.network.mean_weight_bits(),
        search_seconds: None,
        search_peak_bytes: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_written_as_they_are_read() {
        for name in [
            "co-search",
            "random",
            "evolution",
            "sequential",
            "uniform8",
            "uniform3",
            "csq10",
            "csq100",
            "csq-random50",
        ] {
            assert_eq!(name.parse::<Method>().unwrap().to_string(), name);
        }
        for wrong in ["uniform5", "csq0", "csq101", "csq", "cosearch"] {
            assert!(wrong.parse::<Method>().unwrap_err().contains("co-search"), "{wrong}");
        }
    }
}
