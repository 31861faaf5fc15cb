//! What the nRF52840 needs after reset: Nordic nRF52840 product specification, chapters NVMC, CLOCK
//! and "Debug and trace" (access port protection).

use jaq_harness::clock::settles;
use nrf_pac::nvmc::vals::Wen;
use nrf_pac::{CLOCK, NVMC, UICR};

/// Both halves of the protection read this as "not protected".
const OPEN: u32 = 0x5a;
/// APPROTECT.DISABLE, which chips from revision F on have; writes are ignored elsewhere.
const APPROTECT_DISABLE: *mut u32 = 0x4000_0558 as *mut u32;

/// Keeps the probe's way open, switches the cache on and the crystal.
pub fn start() -> Result<(), &'static str> {
    // Chips from revision F on close their debug port at reset unless flash and firmware say
    // otherwise, and the link is the debug port.
    if UICR.approtect().read().0 == u32::MAX {
        NVMC.config().write(|w| w.set_wen(Wen::Wen));
        if settles(|| NVMC.ready().read().ready()) {
            UICR.approtect().write(|w| w.0 = OPEN);
            settles(|| NVMC.ready().read().ready());
        }
        NVMC.config().write(|w| w.set_wen(Wen::Ren));
    }
    // SAFETY: a register, or nothing at all, lies there.
    unsafe { APPROTECT_DISABLE.write_volatile(OPEN) };

    NVMC.icachecnf().write(|w| w.set_cacheen(true));
    CLOCK.events_hfclkstarted().write_value(0);
    CLOCK.tasks_hfclkstart().write_value(1);
    match settles(|| CLOCK.events_hfclkstarted().read() != 0) {
        true => Ok(()),
        false => Err("the crystal does not start: 64 MHz of the internal oscillator"),
    }
}
