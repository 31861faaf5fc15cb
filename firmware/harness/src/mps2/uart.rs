//! The CMSDK UART of the MPS2 family: the way out of an emulated board.
//!
//! Registers: Arm Cortex-M System Design Kit TRM (DDI 0479), chapter 4.3.

use crate::emulated::Transmitter;
use crate::register::Register;

/// The transmitter of a CMSDK UART at address `BASE`, polled.
pub struct Uart<const BASE: usize>(());

impl<const BASE: usize> Uart<BASE> {
    const DATA: usize = 0x0;
    const STATE: usize = 0x4;
    const CTRL: usize = 0x8;
    const BAUDDIV: usize = 0x10;
    const TX_FULL: u32 = 1 << 0;

    fn register(offset: usize) -> Register<u32> {
        // SAFETY: the caller of `new` said that the device lies at `BASE`.
        unsafe { Register::at(BASE + offset) }
    }

    /// Switches the transmitter on.
    ///
    /// # Safety
    /// A CMSDK UART must lie at `BASE`, and nothing else may use it.
    pub unsafe fn new() -> Self {
        // The least divider the hardware takes; an emulated UART has no baud rate.
        Self::register(Self::BAUDDIV).write(16);
        Self::register(Self::CTRL).write(1);
        Uart(())
    }
}

impl<const BASE: usize> Transmitter for Uart<BASE> {
    fn put(bytes: &[u8]) {
        for byte in bytes {
            while Self::register(Self::STATE).read() & Self::TX_FULL != 0 {}
            Self::register(Self::DATA).write(u32::from(*byte));
        }
        // Until the last byte has left: see `Transmitter::put`.
        while Self::register(Self::STATE).read() & Self::TX_FULL != 0 {}
    }
}
