//! The subcommands, one a file.

mod doctor;
mod inspect;

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
    Inspect(inspect::Inspect),
    Doctor(doctor::Doctor),
}

impl Cli {
    /// Runs the subcommand.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Inspect(command) => command.run(),
            Command::Doctor(command) => command.run(),
        }
    }
}

/// Prints a value as the JSON of `--json`: the only thing on stdout.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}
