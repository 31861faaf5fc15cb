//! `jaq-host validate`: a device against the host, bit for bit, and against the prediction.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use jaq_cost::Mcu;
use jaq_deploy::validate::{Comparison, Observation, Prediction, compare, observe};
use jaq_search::data::Dataset;

use super::device::{self, DeviceArgs};
use super::progress::Bar;
use super::{inspect, print_json};
use crate::report::{Table, kb, percent, thousands};
use crate::run::RunDir;

/// Compare a device with the host's integer engine and with the prediction made at search time.
#[derive(Debug, Args)]
pub struct Validate {
    /// Run directory; `observation.json` is written into it.
    #[arg(long)]
    run: PathBuf,
    /// Test images to compare.
    #[arg(long, default_value_t = 256)]
    images: usize,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Validate {
    pub fn run(self) -> Result<()> {
        let (run, settings) = RunDir::open(&self.run)?;
        let data = Dataset::open(&settings.data)?;
        let (observation, _) = validate(&run, &settings.board, &data, self.images, &self.device)?;
        if self.json {
            print_json(&observation)?;
        } else {
            print(&observation);
        }
        if observation.mismatches > 0 {
            bail!(
                "{} of {} images differ between device and host",
                observation.mismatches,
                observation.images_compared
            );
        }
        Ok(())
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
    let path = run.join("model.jaq");
    let file = run.read("model.jaq", "export")?;
    let mut engine = inspect::load(&path)?;
    let prediction: Prediction = run.read_json("prediction.json", "search")?;
    let board = Mcu::load(board)?;
    let mut deployed = device::deploy(&board, args, Some(&path), run.path())?;
    deployed.session.open(&file)?;
    let images = images.min(data.test.len());
    let bar = Bar::new("validate", images as u64);
    let inputs = (0..images).map(|i| data.test.image(i));
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
    let sizes = device::sizes(&mut deployed, &engine.model())?;
    let observation = observe(
        &engine.model(),
        &prediction,
        &comparison,
        sizes,
        deployed.session.provenance(),
        deployed.session.via(),
        "model.jaq",
    )?;
    deployed.session.bye().context("the device did not end its session")?;
    run.write_json("observation.json", &observation)?;
    Ok((observation, comparison))
}

/// The observation as a table.
pub fn print(observation: &Observation) {
    let unit = match observation.unit {
        jaq_deploy::validate::Unit::Instructions => "instructions",
        jaq_deploy::validate::Unit::Cycles => "cycles",
    };
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
