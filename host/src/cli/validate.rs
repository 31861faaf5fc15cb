//! `jaq-host validate`: a device against the host, bit for bit, against the prediction, and against
//! what it did the last time.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Args;
use jaq_cost::{Mcu, McuModel};
use jaq_deploy::engine::Engine;
use jaq_deploy::explain::{self, Energy, Explanation};
use jaq_deploy::history::{self, Drift, Entry};
use jaq_deploy::predict::predict;
use jaq_deploy::reference;
use jaq_deploy::validate::{Comparison, Observation, Prediction, compare, observe};
use jaq_network::SplitMix64;
use jaq_search::data::Dataset;
use jaq_shared::kernels::Isa;
use serde::Serialize;

use super::device::{self, DeviceArgs};
use super::print_json;
use super::progress::Bar;
use crate::report::{Table, kb, percent, thousands};
use crate::run::RunDir;

/// The network that is shipped for cores with its kernels.
const SHIPPED: &[u8] = include_bytes!("../../../examples/fashion-mnist-stm32h7/model.jaq");
/// What it is called in observations.
const SHIPPED_NAME: &str = "fashion-mnist-stm32h7 (shipped)";
/// Images of a fast link, and of one that simulates every flip-flop.
const IMAGES: [usize; 2] = [256, 2];
/// Layers that are explained.
const WORST: usize = 3;

/// Compare a device with the host's integer engine and with the prediction.
///
/// Of a run directory, its model, test images and the prediction made at search time. Of a packed
/// model (`--model`), or of a reference network without either, random images from a seed and the
/// prediction of the committed cost table.
#[derive(Debug, Args)]
pub struct Validate {
    /// Run directory; `observation.json` is written into it.
    #[arg(long, conflicts_with_all = ["model", "board"])]
    run: Option<PathBuf>,
    /// Packed model.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Board; with --model that of the file if left out.
    #[arg(long)]
    board: Option<String>,
    /// Images to compare: 256, or 2 in simulations of RTL, if left out.
    #[arg(long)]
    images: Option<usize>,
    /// Where validations are remembered: `history.jsonl` in the run directory, or in the user's
    /// cache, if left out.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Fail if the total differs from that of the last validation by more than this.
    #[arg(long, value_name = "PERCENT")]
    fail_on_drift: Option<f64>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What the command prints: the observation, and what is made of it.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    observation: Observation,
    /// Units that timing adds to every layer; they are in the counts.
    timing_overhead: u32,
    /// `None` where the board file has no energy.
    energy: Option<Energy>,
    worst: Vec<Explanation>,
    /// `None` where it is the first of its kind.
    drift: Option<Drift>,
    history: PathBuf,
}

impl Validate {
    pub fn run(self) -> Result<()> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let (board, found) = match &self.run {
            Some(path) => {
                let (run, settings) = RunDir::open(path)?;
                let data = Dataset::open(&settings.data)?;
                let images = self.images(&data);
                let found = of_run(&run, &settings.board, &data, images, &self.device)?;
                (settings.board, found)
            }
            None => self.of_model(folder.path())?,
        };
        let board = Mcu::load(&board)?;
        let model = found.engine.model();
        let worst = McuModel::new(board.clone())
            .map(|mcu| explain::worst(&model, &mcu, &found.observation, WORST))
            .unwrap_or_default();
        let history = self.history_path()?;
        let via = match self.device.wait_states {
            0 => found.observation.via.clone(),
            states => format!("{}, {states} wait states", found.observation.via),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let drift =
            history::append(&history, &Entry::new(&found.observation, via, found.crc, now))?;
        let report = Report {
            energy: explain::energy(
                &board,
                found.observation.unit,
                found.observation.observed_total,
            ),
            observation: found.observation,
            timing_overhead: found.overhead,
            worst,
            drift,
            history,
        };
        if self.json {
            print_json(&report)?;
        } else {
            print(&report.observation);
            print_rest(&report);
        }
        let Observation { mismatches, images_compared, .. } = report.observation;
        if mismatches > 0 {
            bail!("{mismatches} of {images_compared} images differ between device and host");
        }
        if let (Some(limit), Some(drift)) = (self.fail_on_drift, &report.drift)
            && drift.total.abs() * 100.0 > limit
        {
            bail!(
                "the total differs by {:+.2} % from the last validation, more than the {limit} % of --fail-on-drift",
                drift.total * 100.0
            );
        }
        Ok(())
    }

    fn images(&self, data: &Dataset) -> usize {
        self.images.unwrap_or(IMAGES[0]).min(data.test.len())
    }

    /// The model that was named, or the reference network of the board.
    fn of_model(&self, folder: &Path) -> Result<(String, Found)> {
        let (path, name, board) = match &self.model {
            Some(path) => {
                let file = std::fs::read(path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                let engine = Engine::new(&file).with_context(|| {
                    format!("{} is no model this build can run", path.display())
                })?;
                let board = self.board.as_deref().unwrap_or(engine.model().info().board).to_owned();
                let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
                (path.clone(), name.into_owned(), board)
            }
            None => {
                let Some(board) = self.board.clone() else {
                    bail!(
                        "nothing to validate: name a run (--run), a model (--model) or a board (--board)"
                    );
                };
                let isa = Mcu::load(&board)?.isa();
                let (name, bytes) = match isa {
                    Isa::Armv7em => (SHIPPED_NAME.to_owned(), SHIPPED.to_owned()),
                    _ => (
                        format!("{} W4A4, seed 1 (reference)", reference::NAME),
                        reference::packed(isa, &board, 1)?.bytes,
                    ),
                };
                tracing::info!("no --model: validating with {name}");
                let path = folder.join("model.jaq");
                std::fs::write(&path, bytes).context("cannot write the reference model")?;
                (path, name, board)
            }
        };
        let mut mcu = Mcu::load(&board)?;
        if let Some(timing) = mcu.timing.as_mut().filter(|_| self.device.wait_states > 0) {
            timing.flash_wait_states = u32::from(self.device.wait_states);
        }
        let file =
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut deployed = device::deploy(&mcu, &self.device, Some(&path), folder)?;
        let slow = deployed.session.via() == "rtl";
        let images = self.images.unwrap_or(IMAGES[usize::from(slow)]);
        let engine = Engine::new(&file)?;
        let mut random = SplitMix64(1);
        let bytes = engine.model().input_bytes();
        let mut input = || (0..bytes).map(|_| random.below(256) as u8).collect();
        let inputs: Vec<Vec<u8>> = (0..images).map(|_| input()).collect();
        let model = McuModel::new(mcu)?;
        let prediction = predict(&engine.model(), &model, deployed.session.unit())?;
        let inputs = inputs.iter().map(Vec::as_slice);
        let (observation, _, overhead) =
            against(&mut deployed, &file, engine, &prediction, inputs, images, &name)?;
        deployed.session.bye().context("the device did not end its session")?;
        Ok((board, Found::new(observation, &file, overhead)?))
    }

    fn history_path(&self) -> Result<PathBuf> {
        if let Some(path) = &self.history {
            return Ok(path.clone());
        }
        if let Some(run) = &self.run {
            return Ok(run.join("history.jsonl"));
        }
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
        let cache =
            cache.or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".cache")));
        let cache = cache.context("there is no home for a history; name one with --history")?;
        Ok(cache.join("jaq/history.jsonl"))
    }
}

/// A validation that was carried out.
struct Found {
    observation: Observation,
    engine: Engine,
    /// Checksum in the model's header.
    crc: u32,
    overhead: u32,
}

impl Found {
    fn new(observation: Observation, file: &[u8], overhead: u32) -> Result<Found> {
        let field = file.get(28..32).and_then(|bytes| bytes.first_chunk());
        let crc = field.map_or(0, |bytes| u32::from_le_bytes(*bytes));
        Ok(Found { observation, engine: Engine::new(file)?, crc, overhead })
    }
}

/// Builds, runs and compares the run's `model.jaq` on the first `images` test images; writes
/// `observation.json`.
pub fn validate(
    run: &RunDir,
    board: &str,
    data: &Dataset,
    images: usize,
    args: &DeviceArgs,
) -> Result<(Observation, Comparison)> {
    run_of(run, board, data, images, args)
        .map(|(observation, comparison, _)| (observation, comparison))
}

fn of_run(
    run: &RunDir,
    board: &str,
    data: &Dataset,
    images: usize,
    args: &DeviceArgs,
) -> Result<Found> {
    let (observation, _, overhead) = run_of(run, board, data, images, args)?;
    Found::new(observation, &run.read("model.jaq", "export")?, overhead)
}

fn run_of(
    run: &RunDir,
    board: &str,
    data: &Dataset,
    images: usize,
    args: &DeviceArgs,
) -> Result<(Observation, Comparison, u32)> {
    let file = run.read("model.jaq", "export")?;
    let path = run.join("model.jaq");
    let engine = super::inspect::load(&path)?;
    let prediction: Prediction = run.read_json("prediction.json", "search")?;
    let mut deployed = device::deploy(&Mcu::load(board)?, args, Some(&path), run.path())?;
    let images = images.min(data.test.len());
    let inputs = (0..images).map(|i| data.test.image(i));
    let found = against(&mut deployed, &file, engine, &prediction, inputs, images, "model.jaq")?;
    deployed.session.bye().context("the device did not end its session")?;
    run.write_json("observation.json", &found.0)?;
    Ok(found)
}

/// A deployed model against the host and the prediction; also the clock's overhead.
fn against<'a>(
    deployed: &mut device::Deployed,
    file: &[u8],
    mut engine: Engine,
    prediction: &Prediction,
    inputs: impl IntoIterator<Item = &'a [u8]>,
    images: usize,
    name: &str,
) -> Result<(Observation, Comparison, u32)> {
    deployed.session.open(file)?;
    let bar = Bar::new("validate", images as u64);
    let comparison =
        compare(&mut deployed.session, &mut engine, inputs, |done| bar.step(done as u64, ""))?;
    drop(bar);
    if let Some(first) = &comparison.first {
        tracing::error!(
            "image {}: device and host differ first in layer `{}`",
            first.image,
            first.layer.as_deref().unwrap_or("none: only the last output differs")
        );
    }
    let sizes = device::sizes(deployed, &engine.model())?;
    let (provenance, via) = (deployed.session.provenance(), deployed.session.via());
    let observation =
        observe(&engine.model(), prediction, &comparison, sizes, provenance, via, name)?;
    Ok((observation, comparison, deployed.session.identity().overhead))
}

/// What is made of the observation, in lines.
fn print_rest(report: &Report) {
    let Report { observation, energy, worst, drift, history, timing_overhead } = report;
    let layers = observation.layers.len() as u64;
    println!(
        "  timing adds {timing_overhead} {} to a layer, {} of the total",
        observation.unit.name(),
        percent(
            (layers * u64::from(*timing_overhead)) as f64
                / observation.observed_total.max(1) as f64
        )
    );
    match energy {
        Some(e) => println!(
            "  energy of an inference: about {:.1} uJ, between {:.1} and {:.1} ({})",
            e.typical_pj * 1e-6,
            e.low_pj * 1e-6,
            e.high_pj * 1e-6,
            e.source
        ),
        None => println!("  energy: unknown, the board file has no figure with a source"),
    }
    for explanation in worst {
        println!("  {:.0} % of the difference: {}", explanation.share * 100.0, explanation.text);
    }
    let path = history.display();
    match drift {
        None => println!("  the first validation of its kind in {path}"),
        Some(drift) => {
            println!(
                "  against the last validation in {path} (version {}): total {:+.2} %, flash {:+} bytes, RAM {:+} bytes{}",
                drift.version,
                drift.total * 100.0,
                drift.flash_bytes,
                drift.ram_bytes,
                if drift.same_model { "" } else { "; the packed model is another" }
            );
            for (layer, change) in &drift.layers {
                println!("    {layer}: {:+.2} %", change * 100.0);
            }
        }
    }
}
/// The observation as a table.
pub fn print(observation: &Observation) {
    let unit = observation.unit.name();
    let provenance = observation.provenance.to_string();
    let error = |predicted: f64, observed: u64| {
        format!("{:+.1} %", (predicted / observed.max(1) as f64 - 1.0) * 100.0)
    };
    let mut table = Table::new(&[
        "layer",
        "spec",
        "bits",
        "kernel",
        &format!("predicted {unit}"),
        &provenance,
        "error",
    ]);
    for l in &observation.layers {
        table.row(&[
            &l.name,
            &l.spec,
            &l.bits,
            &l.kernel,
            &thousands(l.predicted.round() as u64),
            &thousands(l.observed),
            &error(l.predicted, l.observed),
        ]);
    }
    table.row(&[
        &"total",
        &"",
        &"",
        &"",
        &thousands(observation.predicted_total.round() as u64),
        &thousands(observation.observed_total),
        &error(observation.predicted_total, observation.observed_total),
    ]);
    print!("{table}");
    println!(
        "  {} images compared on {} via {}, {} differ ({} equal bit for bit)",
        observation.images_compared,
        observation.board,
        observation.via,
        observation.mismatches,
        percent(1.0 - observation.mismatches as f64 / observation.images_compared.max(1) as f64)
    );
    println!(
        "  flash {}: code {}, weights and tables {}; RAM: arena {}, stack {}",
        kb(observation.flash_bytes),
        kb(observation.code_bytes),
        kb(observation.weights_bytes),
        kb(observation.arena_bytes),
        kb(observation.stack_bytes)
    );
}
