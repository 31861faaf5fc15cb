//! Boards of Arm's MPS2 family as QEMU emulates them: the CMSDK timer counts instructions, the
//! CMSDK UART carries what leaves.
//!
//! Registers: Arm Cortex-M System Design Kit TRM (DDI 0479), chapters 4.2 (timer) and 4.3 (UART).
//! The timer counts at the board's clock; with QEMU's `-icount shift=7` an instruction takes 128 ns
//! of it, so that ticks become exact instruction counts.

use crate::emulated::Transmitter;
use crate::register::Register;
use crate::{Clock, ClockUnit, Rate};

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

/// A CMSDK timer at address `BASE` counting at `HZ`.
pub struct Timer<const BASE: usize, const HZ: u32>(());

impl<const BASE: usize, const HZ: u32> Timer<BASE, HZ> {
    const CTRL: usize = 0x0;
    const VALUE: usize = 0x4;
    const RELOAD: usize = 0x8;

    fn register(offset: usize) -> Register<u32> {
        // SAFETY: the caller of `new` said that the device lies at `BASE`.
        unsafe { Register::at(BASE + offset) }
    }

    /// Starts the timer over its full range.
    ///
    /// # Safety
    /// A CMSDK timer must lie at `BASE`, and nothing else may use it.
    pub unsafe fn new() -> Self {
        Self::register(Self::CTRL).write(0);
        Self::register(Self::RELOAD).write(u32::MAX);
        Self::register(Self::VALUE).write(u32::MAX);
        Self::register(Self::CTRL).write(1);
        Timer(())
    }
}

impl<const BASE: usize, const HZ: u32> Clock for Timer<BASE, HZ> {
    // ticks / HZ seconds, and 128 ns an instruction.
    const RATE: Rate = {
        let nanoseconds = 1_000_000_000 / HZ;
        assert!(nanoseconds * HZ == 1_000_000_000, "a tick must last whole nanoseconds");
        Rate { unit: ClockUnit::Instructions, num: nanoseconds, den: 128 }
    };

    fn now(&mut self) -> u32 {
        // It counts down.
        !Self::register(Self::VALUE).read()
    }
}

/// The entry point of a board of the family: `uart` and `timer` are the addresses of its first
/// CMSDK UART and timer, `hz` is the timer's clock. The crate has included its `board.rs`.
#[macro_export]
macro_rules! mps2_main {
    (uart = $uart:literal, timer = $timer:literal, hz = $hz:literal) => {
        #[cortex_m_rt::entry]
        fn main() -> ! {
            $crate::stack::paint();
            // SAFETY: the board's crate states what lies at these addresses; this is their only
            // user.
            let (uart, timer) = unsafe {
                ($crate::mps2::Uart::<$uart>::new(), $crate::mps2::Timer::<$timer, $hz>::new())
            };
            $crate::emulated::run(NAME, BUILD, MODEL, uart, timer)
        }
    };
}
