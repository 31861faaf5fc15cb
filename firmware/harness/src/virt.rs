//! QEMU's RISC-V machine `virt`: the retired-instruction counter is the clock, a 16550 UART carries
//! what leaves where no debug probe does.
//!
//! With `-icount shift=7` QEMU's `minstret` runs in nanoseconds of virtual time, 128 an
//! instruction.

#[cfg(all(feature = "emulated", not(feature = "rtt")))]
mod uart;

use crate::{Clock, ClockUnit, Rate};

/// The core's count of retired instructions.
pub struct Retired;

impl Clock for Retired {
    const RATE: Rate = Rate { unit: ClockUnit::Instructions, num: 1, den: 1 };

    fn now(&mut self) -> u64 {
        riscv::register::minstret::read64() >> 7
    }
}

/// Serves the machine.
///
/// # Safety
/// This must run on the machine `virt`, and nothing else may use its UART.
pub unsafe fn run(name: &'static str, build: &'static str, model: Option<&'static [u8]>) -> ! {
    #[cfg(feature = "rtt")]
    crate::rtt::run(name, build, model, Retired);
    #[cfg(all(feature = "emulated", not(feature = "rtt")))]
    crate::emulated::run(
        name,
        build,
        model,
        // SAFETY: as the caller says.
        unsafe { uart::Uart::new() },
        Retired,
    )
}

/// The entry point of the machine's firmware. The crate has included its `board.rs`.
#[macro_export]
macro_rules! virt_main {
    () => {
        /// Entry point.
        #[riscv_rt::entry]
        fn main() -> ! {
            $crate::stack::paint();
            // SAFETY: this firmware is linked for the machine; this is the UART's only user.
            unsafe { $crate::virt::run(NAME, BUILD, MODEL) }
        }
    };
}
