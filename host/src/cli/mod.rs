//! The subcommands, one a file.

mod ablate;
mod accelerator;
pub(crate) mod aim;
mod boards;
mod calibrate;
mod cost;
mod data;
mod deploy;
mod device;
mod doctor;
mod dry_run;
mod eval;
mod export;
mod fidelity;
mod inspect;
mod progress;
mod retrain;
mod run;
mod search;
mod sweep;
mod train;
mod training;
mod validate;

pub use training::Activations;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Searches, retrains, packs, deploys and validates tiny low-bit neural networks.
#[derive(Debug, Parser)]
#[command(name = "jaq-host", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Search(search::Search),
    Retrain(retrain::Retrain),
    Train(train::Train),
    Ablate(ablate::Ablate),
    Fidelity(fidelity::Fidelity),
    Sweep(sweep::Sweep),
    Export(export::Export),
    Deploy(deploy::Deploy),
    Validate(validate::Validate),
    Run(run::Run),
    Eval(eval::Eval),
    Calibrate(calibrate::Calibrate),
    Boards(boards::Boards),
    Cost(cost::CostCommand),
    Data(data::Data),
    Inspect(inspect::Inspect),
    Doctor(doctor::Doctor),
}

impl Cli {
    /// Runs the subcommand.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Search(command) => command.run(),
            Command::Retrain(command) => command.run(),
            Command::Train(command) => command.run(),
            Command::Ablate(command) => command.run(),
            Command::Fidelity(command) => command.run(),
            Command::Sweep(command) => command.run(),
            Command::Run(command) => command.run(),
            Command::Data(command) => command.run(),
            Command::Export(command) => command.run(),
            Command::Deploy(command) => command.run(),
            Command::Validate(command) => command.run(),
            Command::Eval(command) => command.run(),
            Command::Calibrate(command) => command.run(),
            Command::Boards(command) => command.run(),
            Command::Cost(command) => command.run(),
            Command::Inspect(command) => command.run(),
            Command::Doctor(command) => command.run(),
        }
    }
}

/// What a failure is told a calling script as: 1, or what a link says of it.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let link = error.chain().find_map(|cause| cause.downcast_ref::<jaq_deploy::link::LinkError>());
    link.and_then(|error| error.severity()).map_or(1, |severity| severity as u8)
}

/// Prints a value as the JSON of `--json`: the only thing on stdout.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}
