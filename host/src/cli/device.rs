//! Reaching a device from a command: which link, which firmware, and a session with it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use jaq_cost::{Mcu, probe_target};
use jaq_deploy::firmware::{self, Firmware, Parts, Transport};
use jaq_deploy::link::probe::{self, Phase, Probe, Progress};
use jaq_deploy::link::qemu::Qemu;
use jaq_deploy::link::replay::{About, Recorder, Replay};
use jaq_deploy::link::rtl::{Rtl, Waits};
use jaq_deploy::link::{Expected, LinkError, Session, Wire};
use jaq_deploy::validate::Sizes;
use jaq_network::Provenance;
use jaq_shared::format::Model;

use super::progress::Bar;

/// Ways to reach a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// The board's emulated core: instruction counts, never latencies.
    Qemu,
    /// The core's own RTL in simulation: true cycles.
    Rtl,
    /// The board itself, through a debug probe.
    Probe,
    /// A session that was recorded before; needs no device.
    Replay,
}

/// Options of every command that talks to a device.
#[derive(Clone, Debug, Args)]
pub struct DeviceArgs {
    /// How to reach the device; without it what the board offers and what is present.
    #[arg(long, value_enum)]
    pub via: Option<Via>,
    /// Which debug probe, where several are attached: VID:PID, VID:PID:SERIAL, or
    /// 1d50:6018:HOST:PORT for one on the network.
    #[arg(long, value_name = "SELECTOR")]
    pub probe: Option<String>,
    /// Unlock a chip that is locked against debugging, which erases all of its flash.
    #[arg(long)]
    pub allow_erase_all: bool,
    /// Longest wait for any answer of the device, in seconds.
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    pub timeout: f64,
    /// With `--via rtl`: wait states of the memory, for fetches, loads and stores alike.
    #[arg(long, default_value_t = 0, value_name = "CYCLES")]
    pub wait_states: u8,
    /// Write everything that goes over the link to this file.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// With `--via replay`: the recorded session.
    #[arg(long, value_name = "FILE")]
    pub session: Option<PathBuf>,
}

impl DeviceArgs {
    /// [`DeviceArgs::timeout`].
    pub fn wait(&self) -> Result<Duration> {
        Duration::try_from_secs_f64(self.timeout)
            .ok()
            .filter(|wait| !wait.is_zero())
            .with_context(|| format!("--timeout {} is no number of seconds above 0", self.timeout))
    }

    /// The link that was asked for, or the best that `board` offers here: a probe that is attached
    /// before an emulated core.
    pub fn link(&self, board: &Mcu) -> Via {
        if let Some(via) = self.via {
            return via;
        }
        if self.session.is_some() {
            return Via::Replay;
        }
        let emulated = board.links.qemu.is_some();
        let attached = || firmware::target(&board.name).is_ok() && !probe::list().is_empty();
        if self.probe.is_some() || board.links.probe.is_some() && !emulated && attached() {
            return Via::Probe;
        }
        if emulated || board.emulated_by.is_some() {
            return Via::Qemu;
        }
        if board.links.rtl {
            return Via::Rtl;
        }
        if board.links.probe.is_some() { Via::Probe } else { Via::Qemu }
    }
}

/// A device running a firmware.
pub struct Deployed {
    pub session: Session,
    /// Sizes of its firmware.
    pub parts: Parts,
    /// The firmware; none where a recording stands for the device.
    pub firmware: Option<Firmware>,
}

/// The board whose firmware stands for `board` on the link: itself, or the one that emulates it.
pub fn stand_in(board: &Mcu, via: Via) -> Result<Mcu> {
    match via {
        Via::Probe | Via::Replay => Ok(board.clone()),
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
    let via = args.link(board);
    let target = stand_in(board, via)?;
    if target.name != board.name {
        tracing::info!("{} is emulated by {}: instruction counts only", board.name, target.name);
    }
    let elf: PathBuf = folder.join(format!("{}.elf", target.name));
    let build = |transport| -> Result<Firmware> {
        tracing::info!("building the firmware of {}", target.name);
        Ok(firmware::build_for(transport, &target.name, model, &elf)?)
    };
    let (wire, built): (Box<dyn Wire>, Firmware) = match via {
        Via::Replay => return replay(args, wait),
        Via::Qemu => {
            let machine =
                target.links.qemu.as_deref().context("the board file names no machine")?;
            let built = build(Transport::Emulator)?;
            (Box::new(Qemu::start(machine, &built.elf)?), built)
        }
        Via::Probe => {
            let setup = setup(&target, args, wait)?;
            // Before the build, which takes longer than finding out that there is no probe.
            probe::check(&setup).map_err(LinkError::from)?;
            let built = build(Transport::Probe)?;
            (Box::new(Probe::start(&setup, &built.elf, flashing())?), built)
        }
        Via::Rtl => {
            let usual = firmware::target(&target.name)?.transport();
            let built = build(usual)?;
            (Box::new(Rtl::start(&built.elf, Waits::all(args.wait_states))?), built)
        }
    };
    let expected = Expected { board: target.name.clone(), build: Some(built.build.clone()) };
    let session = match &args.record {
        None => Session::start(wire, &expected, wait)?,
        Some(path) => {
            let about = About::new(&*wire, &target.name, &built.build, built.parts);
            let recorder = Recorder::new(wire, &about, path)
                .with_context(|| format!("cannot record to {}", path.display()))?;
            Session::start(recorder, &expected, wait)?
        }
    };
    Ok(Deployed { session, parts: built.parts, firmware: Some(built) })
}

/// What a debug probe is told of the board.
fn setup(board: &Mcu, args: &DeviceArgs, timeout: Duration) -> Result<probe::Setup> {
    let Some(chip) = board.links.probe.clone() else {
        bail!("the file of board `{}` names no chip (`links.probe`) for a debug probe", board.name);
    };
    let description = match &board.links.probe_target {
        None => None,
        Some(name) => Some(probe_target(name).with_context(|| {
            format!("board `{}`: there is no boards/targets/{name}.yaml", board.name)
        })?),
    };
    // An emulated core counts instructions, whatever probe it is reached by.
    let provenance = match () {
        () if board.links.qemu.is_some() => Provenance::Emulated,
        () if board.links.rtl => Provenance::RtlSimulated,
        () => Provenance::Measured,
    };
    Ok(probe::Setup {
        chip,
        description,
        core: board.core.name.clone(),
        selector: args.probe.clone(),
        provenance,
        allow_erase_all: args.allow_erase_all,
        timeout,
    })
}

/// Shows how flashing gets on.
fn flashing() -> impl FnMut(Progress) {
    let mut shown: Option<(Phase, Bar)> = None;
    move |Progress { phase, done, total }| {
        if shown.as_ref().is_none_or(|(last, _)| *last != phase) {
            tracing::debug!("{}", phase.name());
            shown = (total > 0).then(|| (phase, Bar::new(phase.name(), total)));
        }
        if let Some((_, bar)) = &shown {
            bar.total(total);
            bar.step(done, "bytes");
        }
    }
}

/// The device of a recorded session.
fn replay(args: &DeviceArgs, wait: Duration) -> Result<Deployed> {
    let path = args.session.as_deref().context("--via replay needs --session FILE")?;
    if args.record.is_some() {
        bail!("--record has nothing to record: --via replay reads {}", path.display());
    }
    let wire = Replay::open(path).map_err(LinkError::from)?;
    let about = wire.about().clone();
    tracing::info!("{} as recorded via {} by {}", about.board, about.via, about.host);
    Ok(Deployed { session: Session::replay(wire, wait)?, parts: about.parts, firmware: None })
}

/// Sizes of a deployed model, from the file, the linked firmware and the device itself.
pub fn sizes(deployed: &mut Deployed, model: &Model<'_>) -> Result<Sizes> {
    let stats = deployed.session.stats()?;
    Ok(Sizes {
        weights_bytes: model.bytes(),
        code_bytes: deployed.parts.code_bytes(),
        arena_bytes: stats.arena_bytes as usize,
        stack_bytes: stats.stack_bytes as usize,
    })
}
