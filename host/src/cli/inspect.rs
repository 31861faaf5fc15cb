//! `jaq-host inspect FILE.jaq`: what a packed model holds.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use jaq_deploy::engine::Engine;
use jaq_network::LayerSpec;
use jaq_shared::format::Model;
use serde::Serialize;

use super::print_json;
use crate::report::{Table, kb};

/// Show the layers, kernels and memory of a packed model.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The packed model.
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Description {
    name: String,
    tool: String,
    board: String,
    data: String,
    seed: u64,
    weights_bytes: usize,
    arena_bytes: usize,
    macs: u64,
    classes: Vec<String>,
    layers: Vec<LayerRow>,
}

#[derive(Serialize)]
struct LayerRow {
    name: String,
    spec: String,
    bits: String,
    kernel: &'static str,
    requant: String,
    macs: u64,
    weights_bytes: u32,
    scratch_bytes: u32,
}

impl Inspect {
    pub fn run(self) -> Result<()> {
        let engine = load(&self.file)?;
        let description = describe(&engine.model());
        if self.json {
            return print_json(&description);
        }
        println!(
            "{}: {} for {}, data {}, seed {}, by {}\n{} of weights and tables, {} arena, {:.2} MMAC\n",
            self.file.display(),
            description.name,
            description.board,
            description.data,
            description.seed,
            description.tool,
            kb(description.weights_bytes),
            kb(description.arena_bytes),
            description.macs as f64 / 1e6
        );
        let mut table = Table::new(&[
            "layer",
            "spec",
            "bits",
            "kernel",
            "requant",
            "MACs",
            "weights B",
            "scratch B",
        ]);
        for layer in &description.layers {
            table.row(&[
                &layer.name,
                &layer.spec,
                &layer.bits,
                &layer.kernel,
                &layer.requant,
                &layer.macs,
                &layer.weights_bytes,
                &layer.scratch_bytes,
            ]);
        }
        print!("{table}");
        Ok(())
    }
}

/// Reads and checks a packed model.
pub fn load(path: &std::path::Path) -> Result<Engine> {
    let file = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Engine::new(&file).with_context(|| format!("{} is no model this build can run", path.display()))
}

fn describe(model: &Model<'_>) -> Description {
    let info = model.info();
    let layers: Vec<LayerRow> = model
        .layers()
        .map(|layer| {
            let shape = layer.shape();
            LayerRow {
                name: layer.name.to_owned(),
                spec: LayerSpec::of(&shape).to_string(),
                bits: shape.bits.to_string(),
                kernel: layer.kernel.name(),
                requant: format!("{:?}", layer.requant).to_lowercase(),
                macs: shape.macs(),
                weights_bytes: layer.weights.len,
                scratch_bytes: layer.scratch.len,
            }
        })
        .collect();
    Description {
        name: info.name.to_owned(),
        tool: info.tool.to_owned(),
        board: info.board.to_owned(),
        data: info.data.to_owned(),
        seed: info.seed,
        weights_bytes: model.bytes(),
        arena_bytes: info.arena as usize,
        macs: layers.iter().map(|l| l.macs).sum(),
        classes: model.classes().map(str::to_owned).collect(),
        layers,
    }
}
