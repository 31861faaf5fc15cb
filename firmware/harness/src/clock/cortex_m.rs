//! Cycles of a Cortex-M.
//!
//! SysTick runs at the core's clock over its 24 bits; its interrupt counts the rounds, so that both
//! together count cycles in 64 bits on every Cortex-M. Where the debug unit (DWT) has a cycle
//! counter, and it counts, readings are two loads: that counter, and the rounds, which tell how
//! often its 32 bits wrapped.
//!
//! Registers: Armv7-M Architecture Reference Manual (DDI 0403), B3.2.4 (ICSR), B3.3 (SysTick), C1.8
//! (DWT); Armv6-M (DDI 0419), B3.3.

use core::cell::Cell;

use ::cortex_m::Peripherals;
use ::cortex_m::peripheral::syst::SystClkSource;
use ::cortex_m::peripheral::{SCB, SYST};
use critical_section::Mutex;

use crate::{Clock, ClockUnit, Rate};

/// Cycles of a round of SysTick.
const ROUND: u32 = 1 << 24;

/// Rounds of SysTick that have ended: it reached 0 so often.
static ROUNDS: Mutex<Cell<u32>> = Mutex::new(Cell::new(0));

#[::cortex_m_rt::exception]
fn SysTick() {
    critical_section::with(|cs| {
        let rounds = ROUNDS.borrow(cs);
        rounds.set(rounds.get().wrapping_add(1));
    });
}

/// The core's count of cycles.
pub struct Cycles {
    /// Whether the debug unit counts; SysTick does otherwise.
    debug_unit: bool,
}

impl Cycles {
    /// Starts the counters and takes SysTick for good. The core must run at its final clock.
    pub fn start(core: &mut Peripherals) -> Self {
        let systick = &mut core.SYST;
        systick.set_clock_source(SystClkSource::Core);
        systick.set_reload(ROUND - 1);
        systick.clear_current();
        systick.enable_interrupt();
        systick.enable_counter();
        Cycles { debug_unit: debug_unit::start(core) }
    }
}

impl Clock for Cycles {
    const RATE: Rate = Rate { unit: ClockUnit::Cycles, num: 1, den: 1 };

    fn name(&self) -> &'static str {
        if self.debug_unit { "the debug unit's cycle counter" } else { "SysTick" }
    }

    fn now(&mut self) -> u64 {
        if self.debug_unit {
            let low = debug_unit::read();
            let rounds = critical_section::with(|cs| ROUNDS.borrow(cs).get());
            let near = u64::from(rounds) * u64::from(ROUND);
            // The two were started together and count the same cycles: `near` is at most a round
            // behind, or ahead by an interrupt that came between the readings.
            near.wrapping_add_signed(i64::from(low.wrapping_sub(near as u32) as i32))
        } else {
            systick()
        }
    }
}

/// Cycles by SysTick.
fn systick() -> u64 {
    // It counts down, and a round ends when it reaches 0.
    let position = || (ROUND - SYST::get_current()) % ROUND;
    critical_section::with(|cs| {
        let before = position();
        let pending = SCB::is_pendst_pending();
        let after = position();
        // A round that ended while interrupts are off is not in the count yet.
        let ended = u32::from(pending || after < before);
        let rounds = ROUNDS.borrow(cs).get().wrapping_add(ended);
        u64::from(rounds) * u64::from(ROUND) + u64::from(after)
    })
}

/// The cycle counter of Armv7-M and Armv8-M Mainline.
#[cfg(jaq_mainline)]
mod debug_unit {
    use super::Peripherals;
    use ::cortex_m::asm;
    use ::cortex_m::peripheral::DWT;

    /// Starts it; whether it is there and counts.
    pub fn start(core: &mut Peripherals) -> bool {
        core.DCB.enable_trace();
        // The Cortex-M7's is locked; elsewhere this register is not there, and writes are ignored.
        DWT::unlock();
        if !DWT::has_cycle_counter() {
            return false;
        }
        core.DWT.set_cycle_count(0);
        core.DWT.enable_cycle_counter();
        let first = read();
        asm::delay(64);
        // Emulators have the register, and it stands.
        (32..100_000).contains(&read().wrapping_sub(first))
    }

    pub fn read() -> u32 {
        DWT::cycle_count()
    }
}

/// Armv6-M has none.
#[cfg(not(jaq_mainline))]
mod debug_unit {
    use super::Peripherals;

    pub fn start(_: &mut Peripherals) -> bool {
        false
    }

    pub fn read() -> u32 {
        0
    }
}
