//! `jaq-host train`: a reference network trained at uniform bits, without a search: its float
//! twin, then each width from the one before, taught by the float twin, packed and measured on
//! the integer engine. The same command continues a run that was ended.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use jaq_cost::Mcu;
use jaq_deploy::engine::Engine;
use jaq_network::{Network, Op, TrainedNetwork, reference};
use jaq_search::data::Dataset;
use jaq_search::retrain::{Mode, RetrainConfig, Start};
use jaq_shared::format::{Bits, LayerBits};
use serde::Serialize;

use super::eval::top1;
use super::export::pack_for;
use super::print_json;
use super::retrain::{Accuracy, one};
use super::training::{Activations, Computing};
use crate::report::{kb, percent};
use crate::run::RunDir;

/// Train a reference network at uniform bits.
#[derive(Debug, Args)]
pub struct Train {
    /// Reference network: resnet8, mobilenetv1-0.25-96, dscnn or fcae.
    #[arg(long, default_value = "resnet8")]
    network: String,
    /// Data set: a name `jaq-host data` lists, or a path.
    #[arg(long, default_value = "cifar-10")]
    data: String,
    /// Widths to train at, for example W8A8,W4A4; each starts from the one before.
    #[arg(long, value_delimiter = ',', default_value = "W8A8,W4A4")]
    bits: Vec<LayerBits>,
    /// Passes over the training images of the float twin; a width below 8 bits takes two thirds
    /// of it, W8A8 a sixth.
    #[arg(long, default_value_t = 60)]
    epochs: u64,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How the steps of tensors between layers learn.
    #[arg(long, value_enum, default_value = "lsq")]
    activations: Activations,
    #[command(flatten)]
    computing: Computing,
    /// Board whose kernels and memory the models are packed for.
    #[arg(long, default_value = "stm32h7")]
    board: String,
    /// Run directory; `runs/<network>-<data>-seed<seed>` if left out.
    #[arg(long)]
    run: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What a checkpoint of the whole run must agree in.
#[derive(Serialize)]
struct Settings<'a> {
    tool: &'a str,
    network: &'a str,
    data: &'a str,
    epochs: u64,
    seed: u64,
    board: &'a str,
    #[serde(skip_serializing_if = "Activations::is_usual")]
    activations: Activations,
}

/// One width, trained and packed.
#[derive(Serialize)]
struct Outcome {
    bits: String,
    model: PathBuf,
    /// On the integer engine.
    top1: f64,
    /// Quantizers simulated.
    simulated: f64,
    images: usize,
    weights_bytes: usize,
    arena_bytes: usize,
}

#[derive(Serialize)]
struct Report {
    network: String,
    data: String,
    seed: u64,
    float: Accuracy,
    models: Vec<Outcome>,
}

const TOOL: &str = concat!("jaq-host ", env!("CARGO_PKG_VERSION"));

impl Train {
    pub fn run(self) -> Result<()> {
        let data = Dataset::open(&self.data)?;
        let network = self.fitted(&data)?;
        if let Some(bits) = self.bits.iter().find(|bits| bits.output != bits.input) {
            bail!(
                "{bits}: all tensors between layers have one width; leave out `:O{}`",
                bits.output
            );
        }
        let board = Mcu::load(&self.board)?;
        let name = |s: &str| s.rsplit('/').next().unwrap_or(s).to_owned();
        let path = self.run.clone().unwrap_or_else(|| {
            format!("runs/{}-{}-seed{}", self.network, name(&self.data), self.seed).into()
        });
        let settings = Settings {
            tool: TOOL,
            network: &self.network,
            data: &self.data,
            epochs: self.epochs,
            seed: self.seed,
            board: &self.board,
            activations: self.activations,
        };
        let run = RunDir::start(&path, &settings)?;
        tracing::info!("run directory {}; the same command continues it", path.display());

        let config = |mode, epochs: u64| {
            let usual = RetrainConfig::thorough(mode, epochs.max(1), data.shape.h);
            self.computing.retrain(RetrainConfig {
                seed: self.seed,
                activations: self.activations.rule(),
                batch: usual.batch.min(data.train.len()),
                ..usual
            })
        };
        let settings = config(Mode::Float, self.epochs);
        let start = Start::default();
        let (float, teacher) = one(&run, &network, &data, "float", Mode::Float, &settings, start)?;
        self.say(&format!("float twin: top-1 {} on {}", percent(float.top1), data.test_label));
        let (mut before, mut models) = (teacher.clone(), Vec::new());
        for bits in &self.bits {
            let mode = Mode::Uniform { weight: bits.weight, activation: bits.input };
            let epochs = match bits.weight.min(bits.input) {
                Bits::B8 => self.epochs / 6,
                _ => self.epochs * 2 / 3,
            };
            let folder = bits.to_string().to_lowercase();
            let start = Start { values: Some(&before), teacher: Some((&teacher).into()) };
            let (simulated, values) =
                one(&run, &network, &data, &folder, mode, &config(mode, epochs), start)?;
            before = values;
            let trained = TrainedNetwork::load(&run.join(&folder))?;
            let packed = pack_for(&board, &trained, TOOL, &self.data, self.seed)?;
            packed.notes.iter().for_each(|note| tracing::info!("{note}"));
            let file = format!("{folder}.jaq");
            run.write(&file, &packed.bytes)?;
            let outcome = Outcome {
                model: run.join(&file),
                top1: top1(&Engine::new(&packed.bytes)?, &data.test, data.test.len())?,
                simulated: simulated.top1,
                images: simulated.images,
                weights_bytes: packed.weights_bytes,
                arena_bytes: packed.arena_bytes,
                bits: bits.to_string(),
            };
            self.say(&format!(
                "{}: top-1 {} on the integer engine, {} simulated; {} of weights and tables, {} arena: {}",
                outcome.bits,
                percent(outcome.top1),
                percent(outcome.simulated),
                kb(outcome.weights_bytes),
                kb(outcome.arena_bytes),
                outcome.model.display()
            ));
            models.push(outcome);
        }
        let report = Report {
            network: self.network.clone(),
            data: data.name,
            seed: self.seed,
            float,
            models,
        };
        run.write_json("train.json", &report)?;
        if self.json { print_json(&report) } else { Ok(()) }
    }

    /// The reference network with the data set's classes; their shapes must agree.
    fn fitted(&self, data: &Dataset) -> Result<Network> {
        let Some(mut network) = reference::network(&self.network) else {
            bail!(
                "there is no reference network `{}`: {}",
                self.network,
                reference::NAMES.join(", ")
            );
        };
        let (wanted, found) = (network.input.shape, data.shape);
        if wanted != found {
            bail!(
                "{} reads images of {}x{}x{}, data set `{}` has {}x{}x{}",
                network.name,
                wanted.h,
                wanted.w,
                wanted.c,
                data.name,
                found.h,
                found.w,
                found.c
            );
        }
        if let Some(last) = network.layers.last_mut().filter(|last| last.op == Op::Linear) {
            last.output.shape.c = data.classes.len() as u16;
        }
        network.classes = data.classes.clone();
        network.validate()?;
        Ok(network)
    }

    /// One line of the outcome, where stdout is not for JSON.
    fn say(&self, line: &str) {
        if self.json { eprintln!("{line}") } else { println!("{line}") }
    }
}
