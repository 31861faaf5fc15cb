//! `cargo xtask bench`: executed instructions on emulated cores, every output compared with the
//! host's in the same run; the speed of the cost models, and the speed and memory of training, on
//! this machine.

mod cost;
mod fresh;
mod kernels;
mod networks;
mod npz;
mod train;

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::{Subcommand, ValueEnum};
use jaq_deploy::firmware::{self, Firmware};
use jaq_deploy::link::rtl::Waits;
use jaq_deploy::link::{self, Session};
use jaq_shared::kernels::Isa;
use serde::Serialize;

/// What is measured.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// The mapping search and the cost tensor.
    Cost(cost::CostBench),
    /// Single layers with random values.
    Kernels(kernels::Kernels),
    /// The reference networks.
    Networks(networks::Networks),
    /// Training: images per second and memory of the operators.
    Train(train::Train),
}

impl Bench {
    /// Measures and prints.
    pub fn run(self) -> Result<()> {
        match self {
            Bench::Cost(cost) if cost.fresh.mcu => crate::setup::run().and_then(|()| cost.run()),
            Bench::Cost(cost) => cost.run(),
            Bench::Kernels(kernels) => crate::setup::run().and_then(|()| kernels.run()),
            Bench::Networks(networks) => crate::setup::run().and_then(|()| networks.run()),
            Bench::Train(train) => train.run(),
        }
    }
}

/// Prints the runs as JSON if that is asked for; an error if the output of one was wrong.
fn conclude<R: Serialize>(runs: &[R], json: bool, exact: impl Fn(&R) -> bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(runs)?);
    }
    let wrong = runs.iter().filter(|run| !exact(run)).count();
    if wrong > 0 {
        bail!("{wrong} of {} outputs differ from the oracle's", runs.len());
    }
    Ok(())
}

/// An emulated core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Core {
    /// Cortex-M7.
    M7,
    /// Cortex-M4.
    M4,
    /// Cortex-M33.
    M33,
    /// Cortex-M3.
    M3,
    /// Cortex-M0+.
    M0p,
    /// RV32IMC.
    Rv32,
    /// CV32E40P, its RTL in simulation: cycles instead of instructions.
    Cv32e40p,
    /// The same core with its PULP instructions.
    #[value(name = "xpulp")]
    Cv32e40pXpulp,
}

impl Core {
    /// The board whose firmware runs on the core.
    fn board(self) -> &'static str {
        match self {
            Core::M7 => "mps2-an500",
            Core::M4 => "mps2-an386",
            Core::M33 => "mps2-an505",
            Core::M3 => "mps2-an385",
            Core::M0p => "mps2-an385-v6m",
            Core::Rv32 => "virt-rv32",
            Core::Cv32e40p => "cv32e40p",
            Core::Cv32e40pXpulp => "cv32e40p-xpulp",
        }
    }

    /// Its micro-kernels.
    fn isa(self) -> Result<Isa> {
        Ok(firmware::target(self.board())?.isa)
    }

    /// Its name on the command line.
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Starts the firmware that takes models over the link.
    fn start(self) -> Result<Session> {
        self.start_with(0)
    }

    /// The same with a memory of `wait_states`.
    fn start_with(self, wait_states: u8) -> Result<Session> {
        eprintln!("building the firmware of {}", self.board());
        let firmware = firmware::build_open(self.board())?;
        connect(&firmware, wait_states)
    }
}

/// How long a core may take for an answer.
const PATIENCE: Duration = Duration::from_secs(900);

/// Starts `firmware` on its emulator, or on its simulator with a memory of `wait_states`.
fn connect(firmware: &Firmware, wait_states: u8) -> Result<Session> {
    if firmware.target.rtl {
        crate::rtl::setup()?;
        return Ok(link::simulate(firmware, Waits::all(wait_states), PATIENCE)?);
    }
    ensure!(
        wait_states == 0,
        "only simulated memory has wait states, not {}",
        firmware.target.board
    );
    Ok(link::emulate(firmware, PATIENCE)?)
}
