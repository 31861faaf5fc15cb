//! What every firmware of JAQ shares: the request loop ([`serve`]), what it needs of a board
//! ([`Link`], [`Clock`], [`Board`]), the counters of the cores ([`clock`]), the regions of its memory map ([`memory`]), the
//! painted stack ([`stack`]) and the last words of a
//! firmware that dies ([`fatal`]).
//!
//! Must not know the host. A board crate holds the entry point, the memory map and nothing else.
#![no_std]

pub mod clock;
#[cfg(feature = "cv32e40p")]
pub mod cv32e40p;
#[cfg(feature = "emulated")]
pub mod emulated;
pub mod fatal;
#[cfg(feature = "mailbox")]
mod mailbox;
pub mod memory;
#[cfg(feature = "mps2")]
pub mod mps2;
mod once;
pub mod register;
#[cfg(feature = "rtt")]
pub mod rtt;
mod serve;
pub mod stack;
#[cfg(feature = "virt")]
pub mod virt;

// Critical sections for the logs.
#[cfg(target_arch = "arm")]
use cortex_m as _;
#[cfg(target_arch = "riscv32")]
use riscv as _;

use core::cell::Cell;

use critical_section::Mutex;
pub use jaq_shared::protocol::{ClockUnit, Rate};
pub use serve::serve;

/// The byte stream to the host.
pub trait Link {
    /// Waits for the next byte.
    fn read(&mut self) -> u8;

    /// Sends all of `bytes`; may wait.
    fn write(&mut self, bytes: &[u8]);
}

/// A free-running counter.
pub trait Clock {
    /// How long a tick is.
    const RATE: Rate;

    /// What counts, for the log.
    fn name(&self) -> &'static str {
        "a counter of the machine"
    }

    /// Ticks since some moment. Counters of fewer bits are extended by whoever implements this.
    fn now(&mut self) -> u64;
}

/// Something a board has to say before there is a log; [`serve`] logs it as a warning.
static NOTE: Mutex<Cell<Option<&'static str>>> = Mutex::new(Cell::new(None));

/// Leaves a note for the log: what is not as the board file says.
pub fn note(text: &'static str) {
    critical_section::with(|cs| NOTE.borrow(cs).set(Some(text)));
}

/// What a firmware knows of itself.
pub struct Board {
    /// Its name, as in `boards/<name>.toml`.
    pub name: &'static str,
    /// Identity of the build; the host knows which one it built.
    pub build: &'static str,
    /// The model linked into the firmware, if any.
    pub model: Option<&'static [u8]>,
    /// Where a model is written that comes over the link; empty if there is one built in.
    pub slot: &'static mut [u32],
    /// RAM for the arena of the current model and, after it, its raw input.
    pub arena: &'static mut [u32],
    /// What ends the session: an emulator exits, a board may reset or wait.
    pub exit: fn() -> !,
}
