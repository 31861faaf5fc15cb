//! RISC-V's own count of cycles.
//!
//! The RISC-V Instruction Set Manual, volume II, "Hardware Performance Monitor": 64 bits in two
//! registers; bit 0 of `mcountinhibit` stops it, which some cores set at reset.

use crate::{Clock, ClockUnit, Rate};

/// `mcycle`.
pub struct Cycles(());

impl Cycles {
    /// Lets it count.
    pub fn start() -> Self {
        // SAFETY: allows a counter to count; nothing else uses it.
        unsafe { core::arch::asm!("csrci mcountinhibit, 1", options(nomem, nostack)) };
        Cycles(())
    }
}

impl Clock for Cycles {
    const RATE: Rate = Rate { unit: ClockUnit::Cycles, num: 1, den: 1 };

    fn name(&self) -> &'static str {
        "mcycle"
    }

    fn now(&mut self) -> u64 {
        riscv::register::mcycle::read64()
    }
}
