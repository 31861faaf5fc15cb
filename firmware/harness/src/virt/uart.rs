//! The 16550 UART of QEMU's RISC-V machine: the way out of an emulated board.
//!
//! Registers: National Semiconductor PC16550D, 8.0.

use crate::emulated::Transmitter;
use crate::register::Register;

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
