//! Stage 1: the co-search. Weights and architecture learn in turns on the two halves of the
//! training images: weights by cross-entropy along drawn paths, the probabilities of operators
//! and widths by the whole objective ([`crate::objective`]), and beside them the hardware
//! ([`crate::hardware`]) where there is a choice of it. The likeliest network that meets every
//! limit is the result.
//!
//! The first epochs train weights alone, without quantizers: a supernet that knows nothing would
//! judge widths by noise. Killed at any moment, a search resumes to the same bytes.
//!
//! Must not know: how costs are predicted, what becomes of the result.

mod timing;

use std::time::Instant;

use jaq_cost::{CostModel, Demand, Limits, ModelError, NetworkCost};
use jaq_network::Network;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, Values, fingerprint};
use crate::csq::{Csq, Ranking};
use crate::data::{Augment, Batches, Dataset};
use crate::discretize::{Discretizer, Infeasible, Priced};
use crate::hardware::{Designs, Method, Side, choose_hardware};
use crate::objective::{CostWeights, Duals, Objective, Probabilities};
use crate::ops::Backend;
use crate::ops::candle::Candle;
use crate::optim::{Optimizer, Rule, Schedule, clip};
use crate::retrain::{Control, Library, Recent, TrainError, on_threads, right};
use crate::rng::{Purpose, Rng};
use crate::space::{Choice, Space};
use crate::supernet::{Mixture, Pass, Supernet};

pub use timing::Timing;

/// Settings of a search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SearchConfig {
    /// Passes over the weights' half before widths and operators are searched.
    pub warmup_epochs: u64,
    /// Passes over the weights' half while they are.
    pub epochs: u64,
    /// Train on no more images than this.
    pub images: Option<usize>,
    /// Images of a step.
    pub batch: usize,
    /// Highest learning rate of the weights (AdamW).
    pub rate: f32,
    /// Decoupled weight decay of the weights.
    pub weight_decay: f32,
    /// Learning rate of the architecture (Adam).
    pub architecture_rate: f32,
    /// Temperature of the Gumbel-softmax, first and last; it falls geometrically.
    pub temperature: [f32; 2],
    /// Weights of the cost terms.
    pub cost: CostWeights,
    /// How hardware is searched, where there is a space of it.
    pub hardware: Method,
    /// Quantize only the most important channels while searching; `None` is all of them.
    pub csq: Option<Csq>,
    /// Label smoothing.
    pub smoothing: f32,
    /// Alterations of training images.
    pub augment: Augment,
    /// Seed of everything random.
    pub seed: u64,
    /// Operators of a section that run in a step.
    #[serde(skip_serializing_if = "is_drawn")]
    pub mixture: Mixture,
    /// Threads; 0 for as many as there are.
    pub threads: usize,
    /// What computes. No part of what a checkpoint must agree in.
    #[serde(skip)]
    pub library: Library,
}

fn is_drawn(mixture: &Mixture) -> bool {
    *mixture == Mixture::Drawn
}

impl Default for SearchConfig {
    fn default() -> Self {
        SearchConfig {
            warmup_epochs: 5,
            epochs: 6,
            images: None,
            batch: 64,
            rate: 3e-3,
            weight_decay: 0.02,
            architecture_rate: 0.02,
            temperature: [2.0, 0.4],
            cost: CostWeights::default(),
            hardware: Method::Exact,
            csq: None,
            smoothing: 0.0,
            augment: Augment::default(),
            seed: 1,
            mixture: Mixture::default(),
            threads: 0,
            library: Library::default(),
        }
    }
}

impl SearchConfig {
    /// A budget of seconds: tests, and a first look at whether a board and a space go together.
    pub fn small() -> SearchConfig {
        SearchConfig {
            warmup_epochs: 1,
            epochs: 4,
            images: Some(512),
            batch: 32,
            architecture_rate: 0.15,
            ..SearchConfig::default()
        }
    }
}

/// How far a search is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchProgress {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Whether operators and widths are searched yet.
    pub warmup: bool,
    /// Mean cross-entropy of the last weight steps.
    pub loss: f64,
    /// Share of their images that were classified right.
    pub accuracy: f64,
    /// Expected work of a network drawn now: instructions, or cycles.
    pub work: f64,
    /// Its expected flash in bytes.
    pub flash_bytes: f64,
    /// Its expected latency in seconds, energy in picojoules, and the area of the hardware in
    /// square millimetres; 0 where they do not count.
    pub hardware: [f64; 3],
    /// Mean entropy of all distributions in bits: 0 when everything is decided.
    pub entropy: f64,
    /// Images a second.
    pub images_per_second: f64,
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The network.
    pub network: Network,
    /// Its place in the space.
    pub choice: Choice,
    /// Predicted cost, by layer.
    pub cost: NetworkCost,
    /// What was held against the limits.
    pub demand: Demand,
    /// Weights it inherits, by layer name.
    pub values: Values,
    /// All values of the supernet.
    pub supernet: Values,
    /// What the search believed in the end.
    pub probabilities: Probabilities,
    /// Time of the iterations that this process made.
    pub timing: Timing,
}

/// Why a search failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SearchError {
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Infeasible(#[from] Infeasible),
}

/// Searches `space` for a network for `data` on the target of `model`, within `limits`.
pub fn search<M: CostModel + Sync>(
    space: &Space,
    data: &Dataset,
    model: &M,
    limits: &Limits,
    config: &SearchConfig,
    control: Control<'_, SearchProgress>,
) -> Result<Found, SearchError> {
    search_from(space, data, model, limits, config, Begin::Fresh, control)
}

/// [`search`] that goes on from what was trained before.
pub fn search_from<M: CostModel + Sync>(
    space: &Space,
    data: &Dataset,
    model: &M,
    limits: &Limits,
    config: &SearchConfig,
    begin: Begin<'_>,
    control: Control<'_, SearchProgress>,
) -> Result<Found, SearchError> {
    let objective = Objective::new(space, model, limits, config.cost)?;
    let discretizer = Discretizer::new(space, model, &objective, limits);
    discretizer.check()?;
    let task = Task::of(&objective, limits, begin);
    let trained = train(space, data, task, config, control)?;
    let priced = discretizer.choose(&trained.probabilities)?;
    found(space, config, priced, trained)
}

/// Searches `space` for a network and `designs` for the accelerator that runs it; the second part
/// of the result is the accelerator's index.
pub fn search_with_hardware(
    space: &Space,
    data: &Dataset,
    designs: &Designs,
    limits: &Limits,
    config: &SearchConfig,
    begin: Begin<'_>,
    control: Control<'_, SearchProgress>,
) -> Result<(Found, usize), SearchError> {
    let reference = designs.reference(space)?;
    let objective = Objective::on_hardware(reference, limits, config.cost);
    designs.check(space, &objective, limits)?;
    let task = Task { designs: Some(designs), ..Task::of(&objective, limits, begin) };
    let trained = train(space, data, task, config, control)?;
    let (p, proposals) = (&trained.probabilities, &trained.proposals);
    let (priced, hardware) =
        choose_hardware(space, designs, &objective, limits, p, proposals, config.hardware)?;
    Ok((found(space, config, priced, trained)?, hardware))
}

fn found(
    space: &Space,
    config: &SearchConfig,
    priced: Priced,
    trained: Trained,
) -> Result<Found, SearchError> {
    let supernet = trained.state.values;
    let values = on_threads(config.threads, || {
        let net = Supernet::new(&Candle, space, config.seed);
        net.restore(&Candle, &supernet);
        net.inherit(&Candle, &priced.choice)
    })?;
    Ok(Found {
        network: space.network(&priced.choice),
        choice: priced.choice,
        cost: priced.cost,
        demand: priced.demand,
        values,
        supernet,
        probabilities: trained.probabilities,
        timing: trained.timing,
    })
}

/// What a supernet's training goes on from.
#[derive(Clone, Copy, Debug, Default)]
pub enum Begin<'a> {
    /// Fresh weights.
    #[default]
    Fresh,
    /// The end of a warm-up with the same settings ([`crate::baselines::warm_up`]); what the
    /// supernet has in another shape, because its space has other widths, starts fresh.
    Warm(&'a Checkpoint),
    /// The values of a network by layer name, as [`Found::values`], that has this place in the
    /// space.
    Network(&'a Choice, &'a Values),
}

impl Begin<'_> {
    /// For checkpoints: a resumed training must have begun from the same.
    fn fingerprint(&self) -> Option<u64> {
        match self {
            Begin::Fresh => None,
            Begin::Warm(state) => Some(fingerprint([Some(&state.values), None])),
            Begin::Network(_, values) => Some(fingerprint([Some(values), None])),
        }
    }
}

/// What a supernet is trained for.
pub(crate) struct Task<'a> {
    /// Guides operators and widths; without it they stay even.
    pub objective: Option<&'a Objective>,
    /// What the objective was made for.
    pub limits: &'a Limits,
    /// Where it starts.
    pub begin: Begin<'a>,
    /// Whether it ends with the warm-up.
    pub warm_up_only: bool,
    /// Accelerators that are searched beside.
    pub designs: Option<&'a Designs>,
}

impl<'a> Task<'a> {
    fn of(objective: &'a Objective, limits: &'a Limits, begin: Begin<'a>) -> Task<'a> {
        Task { objective: Some(objective), limits, begin, warm_up_only: false, designs: None }
    }
}

/// A trained supernet.
pub(crate) struct Trained {
    pub probabilities: Probabilities,
    pub state: Checkpoint,
    /// Configurations of the hardware, the most promising first.
    pub proposals: Vec<usize>,
    pub timing: Timing,
}

/// The two halves of the training images: for weights, for the architecture.
pub(crate) fn halves(data: &Dataset, config: &SearchConfig) -> (Vec<u32>, Vec<u32>) {
    let mut all: Vec<u32> = (0..data.train.len() as u32).collect();
    Rng::at(config.seed, Purpose::Order, u64::MAX).shuffle(&mut all);
    all.truncate(config.images.unwrap_or(all.len()));
    let architecture = all.split_off(all.len() / 2);
    (all, architecture)
}

/// What a checkpoint must agree in.
#[derive(Serialize)]
struct Settings<'a> {
    space: &'a str,
    genes: usize,
    data: &'a str,
    limits: &'a Limits,
    references: Vec<f64>,
    config: &'a SearchConfig,
    #[serde(skip_serializing_if = "Option::is_none")]
    begun: Option<u64>,
}

/// Trains a supernet on the tensor library that the settings name.
pub(crate) fn train(
    space: &Space,
    data: &Dataset,
    task: Task<'_>,
    config: &SearchConfig,
    control: Control<'_, SearchProgress>,
) -> Result<Trained, TrainError> {
    match config.library {
        Library::Embedded => {
            on_threads(config.threads, || run(&Candle, space, data, task, config, control))?
        }
        #[cfg(feature = "tch")]
        Library::Tch => {
            let torch = crate::ops::tch::Torch::new(crate::retrain::count(config.threads));
            run(&torch, space, data, task, config, control)
        }
        #[cfg(not(feature = "tch"))]
        Library::Tch => Err(TrainError::NoTorch),
    }
}

fn run<B: Backend>(
    b: &B,
    space: &Space,
    data: &Dataset,
    task: Task<'_>,
    config: &SearchConfig,
    control: Control<'_, SearchProgress>,
) -> Result<Trained, TrainError> {
    let (for_weights, for_architecture) = halves(data, config);
    let batches = |of: &[u32], epoch| {
        let (split, augment, seed) = (&data.train, config.augment, config.seed);
        let size = config.batch.max(1);
        Batches::shuffled(split, data.shape, of.to_vec(), size, augment, seed, epoch)
    };
    // Epochs of the two halves are numbered apart, so that they are altered differently.
    let epochs =
        |epoch: u64| (batches(&for_weights, 2 * epoch), batches(&for_architecture, 2 * epoch + 1));
    let per_epoch = epochs(0).0.len() as u64;
    if config.batch < 2 || per_epoch == 0 {
        let reason = format!("must be 2 to {} (half of the training images)", for_weights.len());
        return Err(TrainError::Setting { setting: "batch", reason });
    }
    if let Some(reason) = config.csq.and_then(|csq| csq.problem()) {
        return Err(TrainError::Setting { setting: "csq", reason });
    }
    let warmup = per_epoch * config.warmup_epochs;
    let steps = warmup + per_epoch * config.epochs;
    let end = if task.warm_up_only { warmup } else { steps };
    let references =
        |o: &Objective| o.terms.iter().map(|t| t.reference).chain(o.price.reference).collect();
    let settings = Settings {
        space: &space.name,
        genes: space.genes.len(),
        data: &data.name,
        limits: task.limits,
        references: task.objective.map(references).unwrap_or_default(),
        config,
        begun: task.begin.fingerprint(),
    };
    let file = control.folder.map(|folder| folder.join("checkpoint.safetensors"));
    let found = match &file {
        Some(file) => Checkpoint::load(file, &settings)?,
        None => None,
    };

    let net = Supernet::new(b, space, config.seed);
    let decay = config.weight_decay;
    let mut weights = Optimizer::new(Rule::Adam { beta1: 0.9, beta2: 0.99, weight_decay: decay });
    let mut architecture =
        Optimizer::new(Rule::Adam { beta1: 0.5, beta2: 0.999, weight_decay: 0.0 });
    let mut side = task.designs.map(|d| Side::new(b, d, space, config)).transpose()?;
    let mut duals = Duals::new(config.cost.limit, steps - warmup);
    let mut ranking = config.csq.map(|csq| Ranking::new(csq, config.seed));
    let mut checkpoint = found.unwrap_or_default();
    if checkpoint.step > 0 {
        if !net.restore(b, &checkpoint.values) || checkpoint.optimizers.len() < 2 {
            let path = file.clone().unwrap_or_default();
            let reason = "it is of another supernet".into();
            return Err(crate::checkpoint::CheckpointError::Damaged { path, reason }.into());
        }
        duals.restore(&checkpoint.values);
        if let Some(side) = &mut side {
            side.restore(b, &checkpoint.values, checkpoint.optimizers.get(2));
            checkpoint.optimizers.truncate(2);
        }
        if let Some(ranking) = &mut ranking {
            ranking.restore(&checkpoint.values);
        }
        architecture.state = checkpoint.optimizers.pop().unwrap_or_default();
        weights.state = checkpoint.optimizers.pop().unwrap_or_default();
    } else {
        match task.begin {
            Begin::Fresh => {}
            Begin::Warm(state) => {
                let taken = net.adopt(b, &state.values);
                checkpoint.step = state.step;
                weights.state = state.optimizers.first().cloned().unwrap_or_default();
                weights.state.retain(|name, _| taken.contains(name));
            }
            Begin::Network(choice, values) => net.place(b, choice, values),
        }
    }
    let weight_parameters = net.weights();
    let weight_vars: Vec<B::Var> = weight_parameters.iter().map(|p| p.var.clone()).collect();
    let parameters = net.architecture();
    let vars: Vec<B::Var> = parameters.iter().map(|p| p.var.clone()).collect();
    let schedule = Schedule::Cosine { warmup: 0.05 };
    let shape = data.shape;
    let tensor = |(images, labels): (Vec<f32>, Vec<u32>)| {
        let dims = [labels.len(), shape.c.into(), shape.h.into(), shape.w.into()];
        (b.tensor(&images, &dims), labels)
    };

    let mut seen = Recent::new();
    let (mut network_s, mut hardware_s) = (Vec::new(), Vec::new());
    let mut evaluation = None;
    let mut epoch = epochs(checkpoint.step / per_epoch);
    for (done, step) in (checkpoint.step..end).enumerate() {
        if control.stop_after.is_some_and(|stop| done as u64 >= stop) {
            return Err(TrainError::Stopped { step });
        }
        if step % per_epoch == 0 {
            epoch = epochs(step / per_epoch);
        }
        let index = (step % per_epoch) as usize;
        let searching = step >= warmup;
        let temperature = searching.then(|| {
            let t = (step - warmup) as f32 / (steps - warmup).max(1) as f32;
            config.temperature[0] * (config.temperature[1] / config.temperature[0]).powf(t)
        });
        if step == warmup {
            for path in net.sweep(b) {
                let (images, _) = tensor(epoch.0.get(0));
                net.forward(b, images, &path, Pass::Calibrate);
            }
        }

        if let (Some(ranking), true) = (&mut ranking, searching) {
            ranking.update(step - warmup, steps - warmup, || net.scales(b));
        }
        let marks = ranking.as_ref().map(Ranking::marks).unwrap_or_default();

        let started = Instant::now();
        let mut rng = Rng::at(config.seed, Purpose::Weights, step);
        let mut path = net.draw(b, &mut rng, Pass::Weights, config.mixture, temperature);
        path.channels = marks.clone();
        let (images, labels) = tensor(epoch.0.get(index));
        let logits = net.forward(b, images, &path, Pass::Weights);
        let right = right(&b.to_vec(&logits), &labels);
        let loss = b.cross_entropy(&logits, &labels, config.smoothing);
        let value = b.to_scalar(&loss);
        let mut grads = b.grad(loss, &weight_vars);
        if !value.is_finite() || !clip(&mut grads, 5.0).is_finite() {
            return Err(TrainError::Diverged { step, rate: config.rate });
        }
        let rate = config.rate * schedule.at(step, steps);
        weights.step(b, &weight_parameters, &grads, rate);
        seen.add(f64::from(value), right, labels.len());

        if let (true, Some(objective)) = (searching, task.objective) {
            let mut rng = Rng::at(config.seed, Purpose::Architecture, step);
            let mut path = net.draw(b, &mut rng, Pass::Architecture, config.mixture, temperature);
            path.channels = marks;
            let (images, labels) = tensor(epoch.1.get(index));
            let logits = net.forward(b, images, &path, Pass::Architecture);
            let task = b.cross_entropy(&logits, &labels, 0.0);
            let mut grads = b.grad(task, &vars);
            network_s.push(started.elapsed().as_secs_f64());
            let started = Instant::now();
            let p = net.probabilities(b);
            let t = (step - warmup) as f64 / (steps - warmup).max(1) as f64;
            let found = match &mut side {
                None => objective.evaluate(space, &p, &duals, None),
                Some(side) => side.step(b, objective, &p, &duals, t, step)?,
            };
            duals.observe(&found, &p, norm(&grads));
            let (_, cost) = found.with_limits(&duals);
            duals.ascend(&found);
            for (grad, cost) in grads.iter_mut().zip(cost.by_logits(&p)) {
                let grad = grad.get_or_insert_with(|| vec![0.0; cost.len()]);
                grad.iter_mut().zip(cost).for_each(|(g, c)| *g += c);
            }
            hardware_s.push(started.elapsed().as_secs_f64());
            evaluation = Some(found);
            if !clip(&mut grads, 5.0).is_finite() {
                let rate = config.architecture_rate;
                return Err(TrainError::Diverged { step, rate });
            }
            architecture.step(b, &parameters, &grads, config.architecture_rate);
        }

        if (step + 1) % per_epoch.min(20) == 0 || step + 1 == end {
            let trained = seen.report(step + 1, end);
            let p = net.probabilities(b);
            // In the warm-up nothing is decided yet.
            let expected = match (&evaluation, task.objective, task.designs) {
                (None, Some(o), None) => Some(o.evaluate(space, &p, &duals, None)),
                _ => None,
            };
            let expected = expected.as_ref().or(evaluation.as_ref());
            let figure = |i: usize| expected.map_or(0.0, |e| e.figures.get(i).map_or(0.0, |f| *f));
            let report = SearchProgress {
                step: trained.step,
                steps: end,
                warmup: !searching,
                loss: trained.loss,
                accuracy: trained.accuracy,
                work: figure(0),
                flash_bytes: figure(1),
                hardware: expected.map_or([0.0; 3], |e| e.hardware),
                entropy: entropy(&p),
                images_per_second: trained.images_per_second,
            };
            (control.progress)(&report);
            tracing::debug!(step, steps, loss = report.loss, work = report.work);
        }
        if (step + 1) % per_epoch == 0
            && let Some(file) = &file
        {
            checkpoint.step = step + 1;
            checkpoint.values = net.values(b);
            checkpoint.values.extend(ranking.iter().flat_map(Ranking::values));
            checkpoint.values.extend(duals.values());
            let mut optimizers = vec![&weights, &architecture];
            if let Some(side) = &side {
                checkpoint.values.extend(side.values(b));
                optimizers.extend(side.optimizer());
            }
            checkpoint.remember(&optimizers);
            checkpoint.save(file, &settings)?;
        }
    }
    checkpoint.step = end;
    checkpoint.values = net.values(b);
    checkpoint.remember(&[&weights, &architecture]);
    let probabilities = net.probabilities(b);
    let proposals = match (&side, task.objective) {
        (Some(side), Some(objective)) => side.proposals(b, objective, &probabilities, &duals)?,
        _ => Vec::new(),
    };
    let timing = Timing::of(&mut hardware_s, &mut network_s);
    Ok(Trained { probabilities, state: checkpoint, proposals, timing })
}

/// Euclidean norm of all gradients together.
fn norm(grads: &[Option<Vec<f32>>]) -> f64 {
    grads.iter().flatten().flatten().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt()
}

/// Mean entropy in bits of the distributions that have something to decide.
fn entropy(p: &Probabilities) -> f64 {
    let rows = p.operators.iter().chain(&p.widths).filter(|row| row.len() > 1);
    let bits = |row: &Vec<f64>| row.iter().map(|p| -p * p.max(1e-12).log2()).sum::<f64>();
    let (sum, count) = rows.fold((0.0, 0), |(sum, n), row| (sum + bits(row), n + 1));
    sum / f64::from(count.max(1))
}

#[cfg(test)]
mod tests;
