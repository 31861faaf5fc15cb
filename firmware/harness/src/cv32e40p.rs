//! CV32E40P as the simulator of `cv32e40p/rtl` runs it: `mcycle` is the clock, so that counts are
//! cycles of the core's registers and wires.

use crate::clock::Cycles;

/// Serves the microcontroller.
///
/// # Safety
/// This must run on the microcontroller of `soc.sv`.
pub unsafe fn run(name: &'static str, build: &'static str, model: Option<&'static [u8]>) -> ! {
    #[cfg(feature = "rtt")]
    crate::rtt::run(name, build, model, Cycles::start());
    #[cfg(all(feature = "mailbox", not(feature = "rtt")))]
    crate::mailbox::run(
        name,
        build,
        model,
        // SAFETY: as the caller says.
        unsafe { crate::mailbox::Mailbox::new() },
        Cycles::start(),
    )
}

/// The entry point of the microcontroller's firmware. The crate has included its `board.rs`.
#[macro_export]
macro_rules! cv32e40p_main {
    () => {
        // The core keeps the upper 24 bits of the trap vector (CV32E40P user manual, mtvec), so
        // that it must be aligned to more than riscv-rt does.
        core::arch::global_asm!(
            ".section .trap, \"ax\"",
            ".balign 256",
            ".option push",
            ".option norvc",
            "_aligned_trap: j _start_trap",
            ".option pop",
            ".section .text._setup_interrupts, \"ax\"",
            ".global _setup_interrupts",
            "_setup_interrupts:",
            "la t0, _aligned_trap",
            "csrw mtvec, t0",
            "ret",
        );

        /// Entry point.
        #[riscv_rt::entry]
        fn main() -> ! {
            $crate::stack::paint();
            // SAFETY: this firmware is linked for the microcontroller of `soc.sv`.
            unsafe { $crate::cv32e40p::run(NAME, BUILD, MODEL) }
        }
    };
}
