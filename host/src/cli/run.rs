//! `jaq-host run`: the whole way, from a data set to a checked network on a device.

use anyhow::{Result, bail};
use clap::Args;
use jaq_deploy::validate::Observation;
use serde::Serialize;

use super::device::DeviceArgs;
use super::eval::top1;
use super::export::export;
use super::retrain::retrain_all;
use super::search::{Plan, stage_one};
use super::validate::{self, validate};
use super::{inspect, print_json};
use crate::report::{Table, kb, percent};

/// Search, retrain, export, build, run, validate, report.
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    plan: Plan,
    #[command(flatten)]
    device: DeviceArgs,
    /// Test images to compare between device and host.
    #[arg(long, default_value_t = 512)]
    images: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The observation and what the whole run adds to it.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    observation: Observation,
    accuracy: Accuracy,
    /// Images the first three accuracies are of; the device's is of `images_compared`.
    accuracy_images: usize,
    accuracy_data: String,
    mean_weight_bits: f64,
    /// The same network at uniform W8A8.
    w8a8: Uniform,
    artefacts: std::path::PathBuf,
}

#[derive(Serialize)]
struct Accuracy {
    float: f64,
    fake_quant: f64,
    integer: f64,
    device: f64,
}

#[derive(Serialize)]
struct Uniform {
    fake_quant: f64,
    integer: f64,
    predicted_total: f64,
    weights_bytes: usize,
    arena_bytes: usize,
}

impl Run {
    pub fn run(self) -> Result<()> {
        let job = self.plan.open()?;
        let chosen = stage_one(&job)?;
        let trained = retrain_all(&job.run, &job.settings, &job.data, &job.computing, true)?;
        let packed = export(&job.run, &job.settings, "quantized", "model.jaq")?;
        let packed8 = export(&job.run, &job.settings, "w8a8", "model-w8a8.jaq")?;
        let board = &job.model.board().name;
        let (observation, comparison) =
            validate(&job.run, board, &job.data, self.images, &self.device)?;

        let test = &job.data.test;
        let integer = |name: &str| top1(&inspect::load(&job.run.join(name))?, test, test.len());
        let labels = test.labels.iter().map(|l| usize::from(*l));
        let right = comparison.classes.iter().zip(labels).filter(|(a, b)| **a == *b).count();
        let network8 = chosen
            .network
            .with_uniform_bits(jaq_shared::format::Bits::B8, jaq_shared::format::Bits::B8);
        let cost8 = jaq_cost::CostModel::network(&job.model, &network8)?;
        let report = Report {
            accuracy: Accuracy {
                float: trained.float.top1,
                fake_quant: trained.quantized.top1,
                integer: integer("model.jaq")?,
                device: right as f64 / comparison.images.max(1) as f64,
            },
            accuracy_images: test.len(),
            accuracy_data: job.data.test_label.clone(),
            mean_weight_bits: chosen.mean_weight_bits,
            w8a8: Uniform {
                fake_quant: trained.w8a8.map_or(0.0, |a| a.top1),
                integer: integer("model-w8a8.jaq")?,
                predicted_total: cost8.total.instructions.unwrap_or(0.0),
                weights_bytes: packed8.weights_bytes,
                arena_bytes: packed8.arena_bytes,
            },
            artefacts: job.run.path().to_owned(),
            observation,
        };
        job.run.write_json("report.json", &report)?;
        if self.json {
            print_json(&report)?;
        } else {
            print(&report, packed.weights_bytes);
        }
        if report.observation.mismatches > 0 {
            bail!(
                "{} of {} images differ between device and host",
                report.observation.mismatches,
                report.observation.images_compared
            );
        }
        Ok(())
    }
}

fn print(report: &Report, weights_bytes: usize) {
    let mut table = Table::new(&["accuracy", "searched", "W8A8"]);
    let (a, u) = (&report.accuracy, &report.w8a8);
    table.row(&[&"float twin", &percent(a.float), &""]);
    table.row(&[&"fake-quantized", &percent(a.fake_quant), &percent(u.fake_quant)]);
    table.row(&[&"integer, host", &percent(a.integer), &percent(u.integer)]);
    table.row(&[
        &format!("device, {} images", report.observation.images_compared),
        &percent(a.device),
        &"",
    ]);
    let millions = |n: f64| format!("{:.3} M", n / 1e6);
    table.row(&[
        &"predicted instructions",
        &millions(report.observation.predicted_total),
        &millions(u.predicted_total),
    ]);
    table.row(&[&"weights and tables", &kb(weights_bytes), &kb(u.weights_bytes)]);
    table.row(&[&"arena", &kb(report.observation.arena_bytes), &kb(u.arena_bytes)]);
    table.row(&[&"bits a weight", &format!("{:.2}", report.mean_weight_bits), &"8.00"]);
    print!("{table}");
    println!("  accuracy on {} ({} images)\n", report.accuracy_data, report.accuracy_images);
    validate::print(&report.observation);
    println!("  everything lies in {}", report.artefacts.display());
}
