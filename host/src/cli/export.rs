//! `jaq-host export`: the retrained network of a run becomes a packed model.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use jaq_cost::{Mcu, plan};
use jaq_deploy::export::{self, Origin, Packed};
use jaq_network::TrainedNetwork;

use super::print_json;
use crate::report::kb;
use crate::run::{RunDir, Settings};

/// Pack the retrained network of a run into `model.jaq`.
#[derive(Debug, Args)]
pub struct Export {
    /// Run directory.
    #[arg(long)]
    run: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Exported<'a> {
    model: PathBuf,
    weights_bytes: usize,
    arena_bytes: usize,
    notes: &'a [String],
}

impl Export {
    pub fn run(self) -> Result<()> {
        let (run, settings) = RunDir::open(&self.run)?;
        let packed = export(&run, &settings, "quantized", "model.jaq")?;
        if self.json {
            return print_json(&Exported {
                model: run.join("model.jaq"),
                weights_bytes: packed.weights_bytes,
                arena_bytes: packed.arena_bytes,
                notes: &packed.notes,
            });
        }
        println!(
            "{}: {} of weights and tables, {} arena",
            run.join("model.jaq").display(),
            kb(packed.weights_bytes),
            kb(packed.arena_bytes)
        );
        Ok(())
    }
}

/// Packs what was retrained in `from` and writes it as `name`; says what did not fit the fast form.
pub fn export(run: &RunDir, settings: &Settings, from: &str, name: &str) -> Result<Packed> {
    let folder = run.join(from);
    let trained = TrainedNetwork::load(&folder).with_context(|| {
        format!(
            "there is no retrained network; `jaq-host retrain --run {}` makes it",
            run.path().display()
        )
    })?;
    let packed = pack(&trained, settings)?;
    for note in &packed.notes {
        tracing::info!("{note}");
    }
    run.write(name, &packed.bytes)?;
    Ok(packed)
}

/// Integers, kernels, placement, file.
pub fn pack(trained: &TrainedNetwork, settings: &Settings) -> Result<Packed> {
    let Settings { tool, board, data, seed, .. } = settings;
    pack_for(&Mcu::load(board)?, trained, tool, data, *seed)
}

/// As [`pack`], for a network that no search chose.
pub fn pack_for(
    board: &Mcu,
    trained: &TrainedNetwork,
    tool: &str,
    data: &str,
    seed: u64,
) -> Result<Packed> {
    let integers = export::integers(trained)?;
    let kernels = export::choose_kernels(trained, &integers, board.isa())?;
    let schedule = plan(&trained.network, &kernels).schedule;
    let (tool, board) = (tool.to_owned(), board.name.clone());
    let origin = Origin { tool, board, data: data_name(data), seed };
    Ok(export::pack(trained, &integers, &schedule, &origin)?)
}

/// The data set's name, or the last part of its path: no path of this machine goes into a model.
fn data_name(data: &str) -> String {
    let name = Path::new(data).file_name().unwrap_or_default();
    name.to_string_lossy().chars().take(48).collect()
}
