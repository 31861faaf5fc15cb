//! Reaching a device from a command: which link, which firmware, and a session with it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use jaq_cost::Mcu;
use jaq_deploy::firmware::{self, Firmware};
use jaq_deploy::link::qemu::Qemu;
use jaq_deploy::link::rtl::Waits;
use jaq_deploy::link::{self, Expected, Session};
use jaq_deploy::validate::Sizes;
use jaq_shared::format::Model;

/// Ways to reach a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// The board's emulated core: instruction counts, never latencies.
    Qemu,
    /// The core's own RTL in simulation: true cycles.
    Rtl,
}

/// Options of every command that talks to a device.
#[derive(Clone, Debug, Args)]
pub struct DeviceArgs {
    /// How to reach the device.
    #[arg(long, value_enum, default_value = "qemu")]
    pub via: Via,
    /// Longest wait for any answer of the device, in seconds.
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    pub timeout: f64,
    /// With `--via rtl`: wait states of the memory, for fetches, loads and stores alike.
    #[arg(long, default_value_t = 0, value_name = "CYCLES")]
    pub wait_states: u8,
}

impl DeviceArgs {
    /// [`DeviceArgs::timeout`].
    pub fn wait(&self) -> Result<Duration> {
        Duration::try_from_secs_f64(self.timeout)
            .ok()
            .filter(|wait| !wait.is_zero())
            .with_context(|| format!("--timeout {} is no number of seconds above 0", self.timeout))
    }
}

/// A device running a firmware.
pub struct Deployed {
    pub session: Session,
    pub firmware: Firmware,
}

/// The board whose firmware stands for `board` on the link: itself, or the one that emulates it.
pub fn stand_in(board: &Mcu, via: Via) -> Result<Mcu> {
    match via {
        Via::Qemu if board.links.qemu.is_some() => Ok(board.clone()),
        Via::Qemu => match &board.emulated_by {
            Some(name) => Ok(Mcu::load(name)?),
            None => bail!("no emulated board runs the kernels of `{}`", board.name),
        },
        Via::Rtl if board.links.rtl => Ok(board.clone()),
        Via::Rtl => {
            bail!("there is no RTL of `{}` here; --via rtl works with --board cv32e40p", board.name)
        }
    }
}

/// Builds the firmware (with `model` in it, if given) into `folder`, starts it and says hello.
pub fn deploy(
    board: &Mcu,
    args: &DeviceArgs,
    model: Option<&Path>,
    folder: &Path,
) -> Result<Deployed> {
    let wait = args.wait()?;
    let target = stand_in(board, args.via)?;
    if target.name != board.name {
        tracing::info!("{} is emulated by {}: instruction counts only", board.name, target.name);
    }
    tracing::info!("building the firmware of {}", target.name);
    let elf: PathBuf = folder.join(format!("{}.elf", target.name));
    let firmware = firmware::build(&target.name, model, &elf)?;
    let session = match args.via {
        Via::Qemu => {
            let machine =
                target.links.qemu.as_deref().context("the board file names no machine")?;
            let expected =
                Expected { board: target.name.clone(), build: Some(firmware.build.clone()) };
            Session::start(Qemu::start(machine, &firmware.elf)?, &expected, wait)?
        }
        Via::Rtl => link::simulate(&firmware, Waits::all(args.wait_states), wait)?,
    };
    Ok(Deployed { session, firmware })
}

/// Sizes of a deployed model, from the file, the linked firmware and the device itself.
pub fn sizes(deployed: &mut Deployed, model: &Model<'_>) -> Result<Sizes> {
    let stats = deployed.session.stats()?;
    Ok(Sizes {
        weights_bytes: model.bytes(),
        code_bytes: deployed.firmware.parts.code_bytes(),
        arena_bytes: stats.arena_bytes as usize,
        stack_bytes: stats.stack_bytes as usize,
    })
}
