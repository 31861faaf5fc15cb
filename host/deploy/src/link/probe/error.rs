//! What can go wrong with a probe and the chip behind it, in words that name the way out.

use std::error::Error;

use probe_rs::architecture::arm::ArmError;
use probe_rs::flashing::{FileDownloadError, FlashError};

use crate::link::Severity;

/// Why a board behind a debug probe cannot be used, or can no more.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ProbeError {
    #[error(
        "no debug probe is attached; connect one (a user must be allowed to open it: see probe.rs/docs/getting-started/probe-setup), name a network probe with --probe, or use --via qemu"
    )]
    NoProbe,
    #[error("several debug probes are attached; choose one with --probe:\n{0}")]
    Several(String),
    #[error(
        "`{selector}` names no probe: {reason}; it reads VID:PID, VID:PID:SERIAL or 1d50:6018:HOST:PORT"
    )]
    Selector { selector: String, reason: String },
    #[error(
        "the probe {selector} cannot be opened: {reason}; check its cable and that no other program uses it"
    )]
    Open { selector: String, reason: String },
    #[error("probe-rs knows no chip `{chip}`{similar}; correct `links.probe` in the board's file")]
    UnknownChip { chip: String, similar: String },
    #[error("the description of the chip {chip} is not understood: {reason}")]
    Description { chip: String, reason: String },
    #[error(
        "no chip answers on the probe's wires ({0}); check that the board has power and that the debug cable is right"
    )]
    NoChip(String),
    #[error(
        "the chip {chip} is locked against debugging ({reason}); --allow-erase-all unlocks it and erases all of its flash"
    )]
    Locked { chip: String, reason: String },
    #[error(
        "the board has a {expected}, the chip on the probe is a {found}; check --board, and --probe if several boards are attached"
    )]
    WrongChip { expected: String, found: String },
    #[error("the chip {chip} cannot be debugged: {reason}")]
    Attach { chip: String, reason: String },
    #[error("the firmware {path} cannot be flashed: {reason}")]
    Image { path: String, reason: String },
    #[error("flashing failed: {0}")]
    Flash(String),
    #[error(
        "the flash does not hold what was written to it: {0}; the memory may be worn or write-protected, or its wiring bad: try again"
    )]
    Verify(String),
    #[error(
        "the firmware never opened its link: waited {seconds} s for it to set up its RTT rings; {state}"
    )]
    NoRings { seconds: f64, state: String },
    #[error(
        "the firmware {0} has no RTT rings (symbol _SEGGER_RTT); it was not built for a debug probe"
    )]
    NoSymbol(String),
    #[error(
        "the chip was reset in the middle of the session: a watchdog, the reset button, or its supply"
    )]
    Reset,
    #[error("the core stopped: {0}")]
    Stopped(String),
    #[error("the connection to the chip broke: {0}")]
    Lost(String),
    #[error(
        "the probe does not answer: waited {seconds} s while {doing}; set a longer time limit with --timeout if it only needs more time"
    )]
    Silent { doing: &'static str, seconds: f64 },
    #[error("the driver of the probe gave up: {0}")]
    Driver(String),
}

impl ProbeError {
    /// What kind of failure this is.
    pub fn severity(&self) -> Severity {
        match self {
            ProbeError::NoProbe
            | ProbeError::Several(_)
            | ProbeError::Selector { .. }
            | ProbeError::Open { .. }
            | ProbeError::NoChip(_) => Severity::Unreachable,
            ProbeError::UnknownChip { .. }
            | ProbeError::Description { .. }
            | ProbeError::Locked { .. }
            | ProbeError::WrongChip { .. }
            | ProbeError::Image { .. }
            | ProbeError::NoSymbol(_) => Severity::Refused,
            ProbeError::Attach { .. }
            | ProbeError::Flash(_)
            | ProbeError::Verify(_)
            | ProbeError::NoRings { .. }
            | ProbeError::Reset
            | ProbeError::Stopped(_)
            | ProbeError::Lost(_)
            | ProbeError::Silent { .. }
            | ProbeError::Driver(_) => Severity::Failed,
        }
    }
}

/// An error with all its causes, each once.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{}: {next}", text.trim_end_matches('.'));
        }
        cause = error.source();
    }
    text.trim_end_matches('.').to_owned()
}

/// Why a session with the chip did not come about.
pub fn attaching(chip: &str, error: &probe_rs::Error) -> ProbeError {
    let (chip, reason) = (chip.to_owned(), chain(error));
    match error {
        probe_rs::Error::MissingPermissions(_)
        | probe_rs::Error::Arm(ArmError::MissingPermissions(_)) => {
            ProbeError::Locked { chip, reason: "its access port protection is on".into() }
        }
        probe_rs::Error::Arm(ArmError::NoTargetResponse { .. } | ArmError::NoArmTarget) => {
            ProbeError::NoChip(reason)
        }
        _ => ProbeError::Attach { chip, reason },
    }
}

/// Why the firmware is not on the chip.
pub fn flashing(error: &FlashError) -> ProbeError {
    match error {
        FlashError::Verify => ProbeError::Verify(chain(error)),
        _ => ProbeError::Flash(chain(error)),
    }
}

/// Why the file is no firmware for the chip.
pub fn loading(path: &str, error: &FileDownloadError) -> ProbeError {
    ProbeError::Image { path: path.to_owned(), reason: chain(error) }
}
