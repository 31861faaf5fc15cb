//! Counters of the cores: cycles on Armv7-M and later by the debug unit's cycle counter, on Armv6-M
//! by SysTick, on RISC-V by `mcycle`.
//!
//! All of them count single cycles and none wraps within a session: `mcycle` has 64 bits; the
//! others are extended by an interrupt that comes once in 2^24 cycles and takes some 30 of them,
//! two in a million.

#[cfg(target_arch = "arm")]
mod cortex_m;
#[cfg(target_arch = "arm")]
pub use self::cortex_m::Cycles;

#[cfg(target_arch = "riscv32")]
mod mcycle;
#[cfg(target_arch = "riscv32")]
pub use mcycle::Cycles;

/// Extends a counter of 32 bits that is read at least once in a round.
#[derive(Default)]
pub struct Wide(u64);

impl Wide {
    /// The count that goes with a reading of the counter.
    pub fn extend(&mut self, low: u32) -> u64 {
        let step = low.wrapping_sub(self.0 as u32);
        self.0 += u64::from(step);
        self.0
    }
}

/// Polls until `done`, some 100 ms at the clocks that boards start with; whether it came to that.
/// For oscillators and regulators, which may be broken or, on an emulator, not there.
pub fn settles(mut done: impl FnMut() -> bool) -> bool {
    (0..400_000).any(|_| done())
}
