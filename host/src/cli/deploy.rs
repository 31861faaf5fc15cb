//! `jaq-host deploy`: builds the firmware with a model in it, starts it, and says hello.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use jaq_cost::Mcu;

use super::device::{self, DeviceArgs};
use super::{inspect, print_json};
use crate::report::kb;
use crate::run::RunDir;

/// Build firmware with a packed model in it and start it on a device.
#[derive(Debug, Args)]
pub struct Deploy {
    /// Run directory whose `model.jaq` is deployed, for the run's board.
    #[arg(long, required_unless_present = "model")]
    run: Option<PathBuf>,
    /// A packed model instead of the run's.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Another board than the one the model was searched for.
    #[arg(long)]
    board: Option<String>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Report {
    board: String,
    build: String,
    firmware: Option<PathBuf>,
    via: &'static str,
    provenance: jaq_network::Provenance,
    parts: jaq_deploy::firmware::Parts,
    weights_bytes: usize,
    code_bytes: usize,
    flash_bytes: usize,
    arena_bytes: usize,
    stack_bytes: usize,
}

impl Deploy {
    pub fn run(self) -> Result<()> {
        let model = match (&self.model, &self.run) {
            (Some(model), _) => model.clone(),
            (None, Some(run)) => run.join("model.jaq"),
            (None, None) => unreachable!("clap asks for one"),
        };
        let engine = inspect::load(&model)?;
        let board = Mcu::load(self.board.as_deref().unwrap_or(engine.model().info().board))?;
        let temporary = tempfile::tempdir().context("cannot make a temporary folder")?;
        let folder = match &self.run {
            Some(run) => RunDir::open(run)?.0.path().to_owned(),
            None => temporary.path().to_owned(),
        };
        let mut deployed = device::deploy(&board, &self.device, Some(&model), &folder)?;
        let file =
            std::fs::read(&model).with_context(|| format!("cannot read {}", model.display()))?;
        deployed.session.open(&file)?;
        let sizes = device::sizes(&mut deployed, &engine.model())?;
        let report = Report {
            board: deployed.session.identity().board.clone(),
            build: deployed.session.identity().build.clone(),
            firmware: deployed.firmware.as_ref().map(|built| built.elf.clone()),
            via: deployed.session.via(),
            provenance: deployed.session.provenance(),
            parts: deployed.parts,
            weights_bytes: sizes.weights_bytes,
            code_bytes: sizes.code_bytes,
            flash_bytes: sizes.weights_bytes + sizes.code_bytes,
            arena_bytes: sizes.arena_bytes,
            stack_bytes: sizes.stack_bytes,
        };
        deployed.session.bye()?;
        if self.json {
            return print_json(&report);
        }
        println!("{} runs build {}, the model is open", report.board, report.build);
        println!(
            "flash {}: code {}, weights and tables {}; RAM: arena {}, stack {} so far",
            kb(report.flash_bytes),
            kb(report.code_bytes),
            kb(report.weights_bytes),
            kb(report.arena_bytes),
            kb(report.stack_bytes)
        );
        if let (Some(_), Some(firmware)) = (&self.run, &report.firmware) {
            println!("firmware: {}", firmware.display());
        }
        Ok(())
    }
}
