//! Whether the core still runs the firmware, and where it stopped if not: its state, the fault
//! registers of a Cortex-M, addresses with their source lines.
//!
//! Registers: Armv7-M Architecture Reference Manual (DDI 0403), B3.2 (CFSR, HFSR, MMFAR, BFAR) and
//! C1.6.2 (DHCSR).

use std::path::Path;

use probe_rs::{Core, CoreStatus, HaltReason, MemoryInterface};

use super::error::{ProbeError, chain};
use super::load::HALT;
use crate::link::source;

const DHCSR: u64 = 0xe000_edf0;
/// Of DHCSR: the core was reset since the register was last read.
const WAS_RESET: u32 = 1 << 25;
const CFSR: u64 = 0xe000_ed28;
const HFSR: u64 = 0xe000_ed2c;
const MMFAR: u64 = 0xe000_ed34;
const BFAR: u64 = 0xe000_ed38;
/// Of CFSR: MMFAR, BFAR hold an address.
const MMFAR_VALID: u32 = 1 << 7;
const BFAR_VALID: u32 = 1 << 15;

/// Takes note of the resets so far.
pub fn forget_reset(core: &mut Core<'_>) -> Result<(), ProbeError> {
    was_reset(core).map(drop)
}

/// Whether the core was reset since this was last asked.
pub fn was_reset(core: &mut Core<'_>) -> Result<bool, ProbeError> {
    if !core.core_type().is_cortex_m() {
        return Ok(false);
    }
    core.read_word_32(DHCSR).map(|status| status & WAS_RESET != 0).map_err(|error| lost(&error))
}

/// Fails if the core was reset or stands still.
pub fn check(core: &mut Core<'_>, elf: &Path) -> Result<(), ProbeError> {
    if was_reset(core)? {
        return Err(ProbeError::Reset);
    }
    match core.status().map_err(|error| lost(&error))? {
        CoreStatus::Halted(_) | CoreStatus::LockedUp => Err(ProbeError::Stopped(state(core, elf))),
        _ => Ok(()),
    }
}

/// What the core does, for people. Halts it.
pub fn state(core: &mut Core<'_>, elf: &Path) -> String {
    let what = match core.status() {
        Err(error) => return format!("the core does not answer ({})", chain(&error)),
        Ok(CoreStatus::Running) => "the core was running".to_owned(),
        Ok(CoreStatus::Sleeping) => "the core was sleeping".to_owned(),
        Ok(CoreStatus::LockedUp) => "the core is locked up by a fault within a fault".to_owned(),
        Ok(CoreStatus::Halted(HaltReason::Breakpoint(_))) => {
            "the core is halted at a breakpoint".to_owned()
        }
        Ok(CoreStatus::Halted(reason)) => format!("the core is halted ({reason:?})"),
        Ok(CoreStatus::Unknown) => "the core's state is unknown".to_owned(),
    };
    // A core that does not halt keeps its registers.
    let _ = core.halt(HALT);
    let mut text = what;
    for (name, register) in [("pc", core.program_counter()), ("lr", core.return_address())] {
        if let Ok(value) = core.read_core_reg::<u64>(register.id()) {
            text += &format!(", {name} {}", place(elf, value));
        }
    }
    text + &faults(core, elf)
}

/// The fault registers, where they say something.
fn faults(core: &mut Core<'_>, elf: &Path) -> String {
    if !core.core_type().is_cortex_m() {
        return String::new();
    }
    let mut read = |address| core.read_word_32(address).unwrap_or(0);
    let (configurable, hard) = (read(CFSR), read(HFSR));
    if configurable == 0 && hard == 0 {
        return String::new();
    }
    let mut text = format!(", fault status CFSR {configurable:#010x} HFSR {hard:#010x}");
    for (valid, register) in [(MMFAR_VALID, MMFAR), (BFAR_VALID, BFAR)] {
        if configurable & valid != 0 {
            text += &format!(", fault address {}", place(elf, read(register).into()));
        }
    }
    text
}

/// An address, with its source line if it is one of the firmware's.
fn place(elf: &Path, address: u64) -> String {
    match source::locate(elf, address & !1) {
        Some(line) => format!("{address:#010x} ({line})"),
        None => format!("{address:#010x}"),
    }
}

fn lost(error: &probe_rs::Error) -> ProbeError {
    ProbeError::Lost(chain(error))
}
