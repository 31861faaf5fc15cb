//! `jaq-host calibrate`: fits a board's cost table to runs of our own kernels on it.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use jaq_cost::Mcu;
use jaq_cost::calibrate::{Measurement, Subject, corpus, fit_table, to_csv, usual_kernel};
use jaq_deploy::engine::Engine;
use jaq_deploy::single::Single;
use jaq_deploy::validate::{Ask, Device};
use jaq_network::LayerSpec;
use jaq_shared::format::Requant;

use super::device::{DeviceArgs, deploy};
use super::print_json;
use super::progress::Bar;
use crate::report::{Table, percent};
use crate::run::write_whole;

/// Fit the cost table of a board to counted runs of every kernel.
///
/// Writes the table and, beside it, the measurements it was fitted to. Every fourth measurement
/// is held out of the fit; its error is in the table.
#[derive(Debug, Args)]
pub struct Calibrate {
    /// Board to measure.
    #[arg(long, default_value = "mps2-an500")]
    board: String,
    #[command(flatten)]
    device: DeviceArgs,
    /// Folder that the table is written into.
    #[arg(long, default_value = "boards/tables")]
    out: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Calibrate {
    pub fn run(self) -> Result<()> {
        let board = Mcu::load(&self.board)?;
        if !self.out.is_dir() {
            bail!(
                "there is no folder {}; run this in the repository, or name one with --out",
                self.out.display()
            );
        }
        let isa = board.isa();
        let layers = corpus(isa);
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let mut device = deploy(&board, &self.device, None, folder.path())?;

        let bar = Bar::new("calibrate", layers.len() as u64);
        let mut measurements = Vec::new();
        for (seed, layer) in layers.iter().enumerate() {
            let spec = || format!("{} {}", LayerSpec::of(layer), layer.bits);
            let kernel =
                usual_kernel(layer, isa).with_context(|| format!("no kernel runs {}", spec()))?;
            let single = Single::new(layer, Requant::usual(layer.bits.output), seed as u64);
            let packed = single.pack(kernel).with_context(spec)?;
            let mut engine = Engine::new(&packed.bytes).with_context(spec)?;
            let raw = single.input(seed as u64);
            device.session.open(&packed.bytes).with_context(spec)?;
            let found = device.session.infer(&raw, Ask::Layers).with_context(spec)?;
            if found.output != engine.infer(&raw)? {
                bail!(
                    "{}: the device's output differs from the host's with kernel {}",
                    spec(),
                    kernel.name()
                );
            }
            let instructions = found.layers.last().copied().unwrap_or(0);
            measurements
                .push(Measurement { subject: Subject::Layer(*layer, kernel), instructions });
            measurements.push(Measurement {
                subject: Subject::Encode(layer.input_format()),
                instructions: found.total - found.layers.iter().sum::<u64>(),
            });
            bar.step(seed as u64 + 1, "");
        }
        drop(bar);
        let source = format!("{} runs on {} via {:?}", layers.len(), board.name, self.device.via);
        device.session.bye()?;

        let name = &board.core.cost_table;
        let table = fit_table(name, isa, &board.name, &source.to_lowercase(), &measurements)?;
        write_whole(
            &self.out.join(format!("{name}.measurements.csv")),
            to_csv(&measurements).as_bytes(),
        )?;
        write_whole(&self.out.join(format!("{name}.toml")), table.to_toml().as_bytes())?;
        if self.json {
            return print_json(&table);
        }
        let mut rows =
            Table::new(&["kernel", "fitted on", "median", "worst", "held out", "median", "worst"]);
        for (kernel, cost) in &table.kernels {
            let e = &cost.error;
            rows.row(&[
                kernel,
                &e.points,
                &percent(e.median),
                &percent(e.worst),
                &e.held_out_points,
                &percent(e.held_out_median),
                &percent(e.held_out_worst),
            ]);
        }
        print!("{rows}");
        println!("wrote {} and its measurements", self.out.join(format!("{name}.toml")).display());
        Ok(())
    }
}
