//! QEMU's RISC-V machine `virt`: the retired-instruction counter is the clock, a 16550 UART carries
//! what leaves.
//!
//! With `-icount shift=7` QEMU's `minstret` runs in nanoseconds of virtual time, 128 an
//! instruction. UART: National Semiconductor PC16550D, 8.0 (registers).

use crate::emulated::Transmitter;
use crate::register::Register;
use crate::{Clock, ClockUnit, Rate};

/// The transmitter of the machine's 16550 UART, polled.
pub struct Uart(());

impl Uart {
    /// Where QEMU's hw/riscv/virt.c puts it.
    const BASE: usize = 0x1000_0000;
    const DATA: usize = 0;
    const LINE_STATUS: usize = 5;
    const TX_EMPTY: u8 = 1 << 5;
    const TX_IDLE: u8 = 1 << 6;

    fn register(offset: usize) -> Register<u8> {
        // SAFETY: the caller of `new` said that this is the machine.
        unsafe { Register::at(Self::BASE + offset) }
    }

    /// The transmitter, which is on after reset.
    ///
    /// # Safety
    /// This must run on the machine `virt`, and nothing else may use the UART.
    pub unsafe fn new() -> Self {
        Uart(())
    }
}

impl Transmitter for Uart {
    fn put(bytes: &[u8]) {
        for byte in bytes {
            while Self::register(Self::LINE_STATUS).read() & Self::TX_EMPTY == 0 {}
            Self::register(Self::DATA).write(*byte);
        }
        // Until the last byte has left: see `Transmitter::put`.
        while Self::register(Self::LINE_STATUS).read() & Self::TX_IDLE == 0 {}
    }
}

/// The core's count of retired instructions.
pub struct Retired;

impl Clock for Retired {
    const RATE: Rate = Rate { unit: ClockUnit::Instructions, num: 1, den: 1 };

    fn now(&mut self) -> u32 {
        (riscv::register::minstret::read64() >> 7) as u32
    }
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
            let uart = unsafe { $crate::virt::Uart::new() };
            $crate::emulated::run(NAME, BUILD, MODEL, uart, $crate::virt::Retired)
        }
    };
}
