//! Stage 2: quantization-aware training of one network, and its twins: real-valued, and at
//! uniform widths.
//!
//! Weights are inherited (from the supernet, or from the real-valued twin) or fresh; the
//! real-valued twin or another network may teach, the first quantizer steps are those of least squared error on a batch, everything is
//! trained together, and at the end the running statistics are estimated anew with the final
//! weights. Killed at any moment, a retraining resumes to the same bytes.
//!
//! Must not know: how the network was found, integer kernels.

use std::path::Path;
use std::time::Instant;

use jaq_cost::ModelError;
use jaq_network::{Bits, Network, TrainedNetwork};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, CheckpointError, Values, fingerprint};
use crate::data::{Augment, Batches, Dataset, Split, plain};
use crate::ops::candle::{Candle, with_threads};
use crate::ops::{Backend, StepRule};
use crate::optim::{Optimizer, Rule, Schedule, clip};
use crate::subnet::{Phase, Subnet, SubnetError};

/// What is trained of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// The network without quantizers.
    Float,
    /// The network at its own widths.
    Quantized,
    /// The network with all weights and all tensors between layers at two widths.
    Uniform {
        /// Of the weights.
        weight: Bits,
        /// Of the tensors.
        activation: Bits,
    },
}

/// The tensor library that trains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Library {
    /// The embedded operators on candle.
    #[default]
    Embedded,
    /// libtorch, on a GPU where it finds one; needs the feature `tch`.
    Tch,
}

/// Settings of a retraining.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrainConfig {
    /// Passes over the training images.
    pub epochs: u64,
    /// Train on no more images than this.
    pub images: Option<usize>,
    /// Images of a step.
    pub batch: usize,
    /// How gradients become changes.
    pub rule: Rule,
    /// Highest learning rate.
    pub rate: f32,
    /// The learning rate over the training.
    pub schedule: Schedule,
    /// Label smoothing.
    pub smoothing: f32,
    /// Share of the loss that compares with the teacher, where there is one; 0..1.
    pub distillation: f32,
    /// Alterations of training images.
    pub augment: Augment,
    /// Seed of everything random.
    pub seed: u64,
    /// Threads; 0 for as many as there are. No part of what a checkpoint must agree in: results do
    /// not depend on it.
    #[serde(skip)]
    pub threads: usize,
    /// What computes. No part of what a checkpoint must agree in either.
    #[serde(skip)]
    pub library: Library,
    /// How the steps of tensors between layers learn.
    #[serde(skip_serializing_if = "is_lsq")]
    pub activations: StepRule,
    /// Of the epochs, so many last ones train a quantized network through the roundings of its
    /// exported integers, with fixed statistics ([`Phase::Integers`]).
    #[serde(skip_serializing_if = "is_zero")]
    pub integer_epochs: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn is_lsq(rule: &StepRule) -> bool {
    *rule == StepRule::Lsq
}

impl Default for RetrainConfig {
    fn default() -> Self {
        RetrainConfig {
            epochs: 14,
            images: None,
            batch: 32,
            rule: Rule::Adam { beta1: 0.9, beta2: 0.99, weight_decay: 0.02 },
            rate: 3e-3,
            schedule: Schedule::Cosine { warmup: 0.05 },
            smoothing: 0.05,
            distillation: 0.5,
            augment: Augment::default(),
            seed: 1,
            threads: 0,
            library: Library::default(),
            activations: StepRule::default(),
            integer_epochs: 0,
        }
    }
}

impl RetrainConfig {
    /// The usual settings: a network that starts from its trained real-valued twin needs fewer
    /// passes and smaller steps, the fewer the wider its integers are.
    pub fn usual(mode: Mode) -> RetrainConfig {
        let (epochs, rate) = match mode {
            Mode::Float => (14, 3e-3),
            Mode::Quantized => (10, 2e-3),
            Mode::Uniform { .. } => (3, 1e-3),
        };
        RetrainConfig { epochs, rate, ..RetrainConfig::default() }
    }

    /// Settings for a thorough training of many `epochs` on small colour or grey images of this
    /// height: the real-valued twin by SGD in one cycle, quantized networks from it by Adam.
    pub fn thorough(mode: Mode, epochs: u64, height: u16) -> RetrainConfig {
        let augment = Augment { shift: usize::from(height / 8), flip: true, cutout: 0 };
        let common =
            RetrainConfig { epochs, augment, batch: 128, smoothing: 0.0, ..Self::default() };
        match mode {
            Mode::Float => RetrainConfig {
                rule: Rule::Sgd { momentum: 0.9, nesterov: true, weight_decay: 5e-4 },
                rate: 0.2,
                schedule: Schedule::OneCycle { rise: 0.2 },
                ..common
            },
            _ => RetrainConfig { rate: 2e-3, ..common },
        }
    }

    /// A budget of seconds, for tests.
    pub fn small() -> RetrainConfig {
        RetrainConfig { epochs: 1, images: Some(512), ..RetrainConfig::default() }
    }
}

/// Where a retraining starts.
#[derive(Clone, Copy, Default)]
pub struct Start<'a> {
    /// Inherited values by layer name.
    pub values: Option<&'a Values>,
    /// The real-valued network that teaches.
    pub teacher: Option<Teacher<'a>>,
}

/// A network that teaches.
#[derive(Clone, Copy)]
pub struct Teacher<'a> {
    /// Its layers, where they are not those of the network that learns.
    pub network: Option<&'a Network>,
    /// Its values by layer name; running statistics that are not among them are estimated.
    pub values: &'a Values,
}

impl<'a> From<&'a Values> for Teacher<'a> {
    /// The network's own real-valued twin.
    fn from(values: &'a Values) -> Teacher<'a> {
        Teacher { network: None, values }
    }
}

/// How far a retraining is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainProgress {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Mean loss of the last steps.
    pub loss: f64,
    /// Share of their images that were classified right.
    pub accuracy: f64,
    /// Images a second.
    pub images_per_second: f64,
}

/// Means over one pass of a training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochLog {
    /// Counted from 1.
    pub epoch: u64,
    /// Mean loss.
    pub loss: f64,
    /// Share of the training images, as altered, that were classified right.
    pub accuracy: f64,
    /// Learning rate of its last step.
    pub rate: f32,
    /// Time it took.
    pub seconds: f64,
}

/// A retrained network.
#[derive(Clone, Debug)]
pub struct Retrained {
    /// Parameters and running statistics.
    pub values: Values,
    /// The integers, for quantized networks.
    pub trained: Option<TrainedNetwork>,
    /// Share of the test images classified right, quantizers simulated.
    pub top1: f64,
    /// Number of test images.
    pub images: usize,
    /// Every pass, those before a resumption included.
    pub log: Vec<EpochLog>,
}

/// Why training failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TrainError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(
        "network `{network}` reads images of {wanted} and knows {classes} classes; data set `{data}` has {found} and {there} classes"
    )]
    Mismatch {
        network: String,
        data: String,
        wanted: String,
        found: String,
        classes: usize,
        there: usize,
    },
    #[error("this build trains on the embedded operators only; build it with `--features tch`")]
    NoTorch,
    #[error("setting `{setting}`: {reason}")]
    Setting { setting: &'static str, reason: String },
    #[error(
        "training diverged at step {step}: the loss is not finite; lower the learning rate ({rate}), or resume from the last checkpoint, which is sound"
    )]
    Diverged { step: u64, rate: f32 },
    #[error("cannot start {threads} threads: {reason}")]
    Threads { threads: usize, reason: String },
    #[error("stopped after step {step}; the same command resumes there")]
    Stopped { step: u64 },
}

/// A share of a training's life in the hands of the caller.
pub struct Control<'a, P> {
    /// Told about every few steps.
    pub progress: &'a mut (dyn FnMut(&P) + Send),
    /// Where checkpoints lie; none are written without.
    pub folder: Option<&'a Path>,
    /// Ends with an error after this many steps of this call, as a kill would.
    pub stop_after: Option<u64>,
}

/// Trains `network` as `mode` says and measures it on the test images.
pub fn retrain(
    network: &Network,
    mode: Mode,
    data: &Dataset,
    config: &RetrainConfig,
    start: Start<'_>,
    control: Control<'_, TrainProgress>,
) -> Result<Retrained, TrainError> {
    let network = match mode {
        Mode::Uniform { weight, activation } => network.with_uniform_bits(weight, activation),
        _ => network.clone(),
    };
    fits(&network, data)?;
    match config.library {
        Library::Embedded => {
            let run = move || run(&Candle, &network, mode, data, config, start, control);
            on_threads(config.threads, run)?
        }
        #[cfg(feature = "tch")]
        Library::Tch => {
            let torch = crate::ops::tch::Torch::new(count(config.threads));
            run(&torch, &network, mode, data, config, start, control)
        }
        #[cfg(not(feature = "tch"))]
        Library::Tch => Err(TrainError::NoTorch),
    }
}

/// Whether the network reads the data set's images and names its classes.
fn fits(network: &Network, data: &Dataset) -> Result<(), TrainError> {
    let classes = network.layers.last().map_or(0, |last| last.output.shape.elements());
    if network.input.shape == data.shape && classes == data.classes.len() {
        return Ok(());
    }
    let size = |s: jaq_network::Shape| format!("{}x{}x{}", s.h, s.w, s.c);
    Err(TrainError::Mismatch {
        network: network.name.clone(),
        data: data.name.clone(),
        wanted: size(network.input.shape),
        found: size(data.shape),
        classes,
        there: data.classes.len(),
    })
}

/// As many threads as are asked for; as the machine has, where that is 0.
pub(crate) fn count(threads: usize) -> usize {
    match threads {
        0 => std::thread::available_parallelism().map_or(1, Into::into),
        n => n,
    }
}

/// Runs `f` on a pool of its own; 0 threads means as many as the machine has.
pub(crate) fn on_threads<R: Send>(
    threads: usize,
    f: impl FnOnce() -> R + Send,
) -> Result<R, TrainError> {
    let threads = count(threads);
    with_threads(threads, f).map_err(|e| TrainError::Threads { threads, reason: e.to_string() })
}

/// Accuracy of a network with these values on `split`, quantizers simulated.
pub fn evaluate(
    network: &Network,
    quantized: bool,
    values: &Values,
    data: &Dataset,
    split: &Split,
    threads: usize,
) -> Result<f64, TrainError> {
    on_threads(threads, || {
        let mut subnet = Subnet::new(&Candle, network, quantized, values, 0)?;
        Ok(accuracy(&Candle, &mut subnet, data, split))
    })?
}

/// What a checkpoint must agree in.
#[derive(Serialize)]
struct Settings<'a> {
    network: &'a Network,
    mode: Mode,
    data: &'a str,
    config: &'a RetrainConfig,
    inherited: u64,
}

fn run<B: Backend>(
    backend: &B,
    network: &Network,
    mode: Mode,
    data: &Dataset,
    config: &RetrainConfig,
    start: Start<'_>,
    control: Control<'_, TrainProgress>,
) -> Result<Retrained, TrainError> {
    let batches = |epoch| {
        let count = data.train.len();
        let few = config.images.unwrap_or(count).min(count);
        let all = (0..few).map(|i| (i * count / few) as u32).collect();
        let (split, augment, seed) = (&data.train, config.augment, config.seed);
        Batches::shuffled(split, data.shape, all, config.batch.max(1), augment, seed, epoch)
    };
    let per_epoch = batches(0).len() as u64;
    if config.batch < 2 || per_epoch == 0 {
        let reason = format!("must be 2 to {} (the number of training images)", data.train.len());
        return Err(TrainError::Setting { setting: "batch", reason });
    }
    let steps = per_epoch * config.epochs;
    let none = Values::new();
    let inherited = start.values.unwrap_or(&none);
    let settings = Settings {
        network,
        mode,
        data: &data.name,
        config,
        inherited: fingerprint([start.values, start.teacher.map(|t| t.values)]),
    };
    let file = control.folder.map(|folder| folder.join("checkpoint.safetensors"));
    let found = match &file {
        Some(file) => Checkpoint::load(file, &settings)?,
        None => None,
    };
    let resumed = found.is_some();
    let mut checkpoint = found.unwrap_or_default();

    let quantized = mode != Mode::Float;
    let values = if resumed { &checkpoint.values } else { inherited };
    // Steps are fitted anew to what is inherited, widths may have changed.
    let fresh: Values = match resumed {
        true => values.clone(),
        false => values.iter().filter(|(n, _)| !n.ends_with(".step")).map(own).collect(),
    };
    let mut subnet = Subnet::new(backend, network, quantized, &fresh, config.seed)?;
    subnet.activations = config.activations;
    let dims = |n: usize| [n, data.shape.c.into(), data.shape.h.into(), data.shape.w.into()];
    if quantized && !resumed {
        let (images, labels) = batches(0).get(0);
        subnet.forward(backend, backend.tensor(&images, &dims(labels.len())), Phase::Calibrate);
    }
    let mut teacher = match start.teacher.filter(|_| config.distillation > 0.0 && quantized) {
        Some(Teacher { network: other, values }) => {
            let taught = other.unwrap_or(network);
            let mut teacher = Subnet::new(backend, taught, false, values, 0)?;
            if !values.keys().any(|name| name.ends_with(".mean")) {
                estimate(backend, &mut teacher, data, config);
            }
            Some(teacher)
        }
        None => None,
    };
    let mut optimizer = Optimizer::new(config.rule);
    if let Some(state) = checkpoint.optimizers.pop() {
        optimizer.state = state;
    }
    let parameters = subnet.parameters();
    let vars: Vec<B::Var> = parameters.iter().map(|p| p.var.clone()).collect();
    let mut log: Vec<EpochLog> = serde_json::from_str(&checkpoint.report).unwrap_or_default();
    // The first step of the integer epochs.
    let by_integers = (quantized && config.integer_epochs > 0)
        .then(|| per_epoch * config.epochs.saturating_sub(config.integer_epochs));
    let (mut seen, mut pass) = (Recent::new(), Recent::new());
    let mut epoch = batches(checkpoint.step / per_epoch);
    for (done, step) in (checkpoint.step..steps).enumerate() {
        if control.stop_after.is_some_and(|stop| done as u64 >= stop) {
            return Err(TrainError::Stopped { step });
        }
        if step % per_epoch == 0 {
            epoch = batches(step / per_epoch);
        }
        let (images, labels) = epoch.get((step % per_epoch) as usize);
        let images = backend.tensor(&images, &dims(labels.len()));
        let taught = teacher.as_mut().map(|teacher| {
            let logits = teacher.forward(backend, images.clone(), Phase::Eval);
            backend.to_vec(&logits)
        });
        let phase = match by_integers {
            Some(first) if step >= first => Phase::Integers,
            _ => Phase::Train,
        };
        if by_integers == Some(step) {
            estimate(backend, &mut subnet, data, config);
        }
        let logits = subnet.forward(backend, images, phase);
        let right = right(&backend.to_vec(&logits), &labels);
        let mut loss = backend.cross_entropy(&logits, &labels, config.smoothing);
        if let Some(taught) = taught {
            let share = config.distillation;
            let compared = backend.distillation(&logits, &taught, 2.0);
            loss =
                backend.add(&backend.scale(&loss, 1.0 - share), &backend.scale(&compared, share));
        }
        let value = backend.to_scalar(&loss);
        let mut grads = backend.grad(loss, &vars);
        if !value.is_finite() || !clip(&mut grads, 5.0).is_finite() {
            return Err(TrainError::Diverged { step, rate: config.rate });
        }
        let rate = config.rate * config.schedule.at(step, steps);
        optimizer.step(backend, &parameters, &grads, rate);
        seen.add(f64::from(value), right, labels.len());
        pass.add(f64::from(value), right, labels.len());
        if (step + 1) % per_epoch.min(20) == 0 || step + 1 == steps {
            let report = seen.report(step + 1, steps);
            (control.progress)(&report);
            tracing::debug!(step, steps, loss = report.loss, accuracy = report.accuracy);
        }
        if (step + 1) % per_epoch == 0 {
            log.push(pass.log((step + 1) / per_epoch, rate));
            if let Some(file) = &file {
                checkpoint.step = step + 1;
                checkpoint.values = subnet.values(backend);
                checkpoint.remember(&[&optimizer]);
                checkpoint.report = serde_json::to_string(&log).unwrap_or_default();
                checkpoint.save(file, &settings)?;
            }
        }
    }

    if by_integers.is_none() {
        estimate(backend, &mut subnet, data, config);
    }
    let top1 = accuracy(backend, &mut subnet, data, &data.test);
    Ok(Retrained {
        values: subnet.values(backend),
        trained: subnet.export(backend),
        top1,
        images: data.test.len(),
        log,
    })
}

fn own((name, values): (&String, &Vec<f32>)) -> (String, Vec<f32>) {
    (name.clone(), values.clone())
}

/// Running statistics of the final weights: the mean over batches of unaltered training images.
fn estimate<B: Backend>(
    backend: &B,
    subnet: &mut Subnet<B>,
    data: &Dataset,
    config: &RetrainConfig,
) {
    const BATCHES: usize = 24;
    const SIZE: usize = 128;
    let size = SIZE.min(data.train.len());
    let all = (0..data.train.len() as u32).collect();
    let (split, seed) = (&data.train, config.seed);
    let batches =
        Batches::shuffled(split, data.shape, all, size, Augment::NONE, seed, u64::from(u32::MAX));
    for index in 0..BATCHES.min(batches.len()) {
        let (images, labels) = batches.get(index);
        let shape = data.shape;
        let dims = [labels.len(), shape.c.into(), shape.h.into(), shape.w.into()];
        let phase = Phase::Estimate(1.0 / (index + 1) as f32);
        subnet.forward(backend, backend.tensor(&images, &dims), phase);
    }
}

/// Share of a split's images classified right.
fn accuracy<B: Backend>(backend: &B, subnet: &mut Subnet<B>, data: &Dataset, split: &Split) -> f64 {
    const SIZE: usize = 250;
    let mut total = 0;
    for from in (0..split.len()).step_by(SIZE) {
        let to = (from + SIZE).min(split.len());
        let (images, labels) = plain(split, data.shape, from..to);
        let shape = data.shape;
        let dims = [labels.len(), shape.c.into(), shape.h.into(), shape.w.into()];
        let logits = subnet.forward(backend, backend.tensor(&images, &dims), Phase::Eval);
        total += right(&backend.to_vec(&logits), &labels);
    }
    total as f64 / split.len().max(1) as f64
}

/// How many rows have their largest logit (the first of equals) at the label.
pub(crate) fn right(logits: &[f32], labels: &[u32]) -> usize {
    let classes = logits.len() / labels.len().max(1);
    let first_largest =
        |row: &[f32]| (0..row.len()).rev().max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap_or(0);
    let rows = logits.chunks(classes.max(1)).zip(labels);
    rows.filter(|(row, label)| first_largest(row) == **label as usize).count()
}

/// Means since the last report.
pub(crate) struct Recent {
    loss: f64,
    right: usize,
    images: usize,
    steps: usize,
    since: Instant,
}

impl Recent {
    pub(crate) fn new() -> Recent {
        Recent { loss: 0.0, right: 0, images: 0, steps: 0, since: Instant::now() }
    }

    pub(crate) fn add(&mut self, loss: f64, right: usize, images: usize) {
        self.loss += loss;
        self.right += right;
        self.images += images;
        self.steps += 1;
    }

    fn log(&mut self, epoch: u64, rate: f32) -> EpochLog {
        let seconds = self.since.elapsed().as_secs_f64();
        let TrainProgress { loss, accuracy, .. } = self.report(0, 0);
        EpochLog { epoch, loss, accuracy, rate, seconds }
    }

    pub(crate) fn report(&mut self, step: u64, steps: u64) -> TrainProgress {
        let seconds = self.since.elapsed().as_secs_f64().max(1e-9);
        let report = TrainProgress {
            step,
            steps,
            loss: self.loss / self.steps.max(1) as f64,
            accuracy: self.right as f64 / self.images.max(1) as f64,
            images_per_second: self.images as f64 / seconds,
        };
        *self = Recent::new();
        report
    }
}

#[cfg(test)]
mod tests;
