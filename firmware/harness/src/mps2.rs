//! Boards of Arm's MPS2 family as QEMU emulates them: the CMSDK timer counts instructions; the
//! link's bytes come from QEMU's standard input by semihosting and leave by the CMSDK UART; logs and
//! the exit code go by semihosting too.
//!
//! Input by semihosting and not by the UART, because QEMU hands a UART one byte at a time (30 us
//! each on the host), and because a waiting firmware then takes no time of the host and ends with
//! the process that feeds it.
//!
//! Registers: Arm Cortex-M System Design Kit TRM (DDI 0479), chapters 4.2 (timer) and 4.3 (UART).
//! The timer counts at the board's clock; with QEMU's `-icount shift=7` an instruction takes 128 ns
//! of it, so that ticks become exact instruction counts.

use core::ops::Range;

use defmt_semihosting as _;
use jaq_shared::protocol::FRAME;
use semihosting::io::{Read, Stdin, stdin};

use crate::{Clock, ClockUnit, Link, Rate, fatal};

/// A register.
#[derive(Clone, Copy)]
struct Register(*mut u32);

impl Register {
    fn read(self) -> u32 {
        // SAFETY: made from the address of a device register by `Uart` and `Timer` only.
        unsafe { self.0.read_volatile() }
    }

    fn write(self, value: u32) {
        // SAFETY: as for `read`.
        unsafe { self.0.write_volatile(value) }
    }
}

/// The transmitter of a CMSDK UART at address `BASE`, polled.
pub struct Uart<const BASE: usize>(());

impl<const BASE: usize> Uart<BASE> {
    const DATA: usize = 0x0;
    const STATE: usize = 0x4;
    const CTRL: usize = 0x8;
    const BAUDDIV: usize = 0x10;
    const TX_FULL: u32 = 1 << 0;

    fn register(offset: usize) -> Register {
        Register((BASE + offset) as *mut u32)
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

    /// Sends bytes whatever state the link is in: for last words.
    fn put(bytes: &[u8]) {
        for byte in bytes {
            while Self::register(Self::STATE).read() & Self::TX_FULL != 0 {}
            Self::register(Self::DATA).write(u32::from(*byte));
        }
    }

    /// The way out for [`fatal`].
    pub fn route(&self) -> fatal::Route {
        fatal::Route { write: Self::put, exit: || semihosting::process::exit(1) }
    }
}

/// QEMU's standard input as the one direction, a UART as the other.
pub struct Console<const BASE: usize> {
    uart: Uart<BASE>,
    input: Stdin,
    buffer: &'static mut [u8; FRAME],
    /// What of the buffer was received and not yet read.
    received: Range<usize>,
}

impl<const BASE: usize> Console<BASE> {
    /// Opens standard input; there is one console.
    pub fn new(uart: Uart<BASE>) -> Self {
        let input = stdin().expect("semihosting is on");
        let buffer = cortex_m::singleton!(: [u8; FRAME] = [0; FRAME]).expect("one console");
        Console { uart, input, buffer, received: 0..0 }
    }
}

impl<const BASE: usize> Link for Console<BASE> {
    fn read(&mut self) -> u8 {
        loop {
            if let Some(byte) = self.received.next().and_then(|at| self.buffer.get(at)) {
                return *byte;
            }
            match self.input.read(self.buffer) {
                // The end of the input: the host is gone.
                Ok(0) | Err(_) => semihosting::process::exit(2),
                Ok(len) => self.received = 0..len,
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let Uart(()) = self.uart;
        Uart::<BASE>::put(bytes);
    }
}

/// A CMSDK timer at address `BASE` counting at `HZ`.
pub struct Timer<const BASE: usize, const HZ: u32>(());

impl<const BASE: usize, const HZ: u32> Timer<BASE, HZ> {
    const CTRL: usize = 0x0;
    const VALUE: usize = 0x4;
    const RELOAD: usize = 0x8;

    fn register(offset: usize) -> Register {
        Register((BASE + offset) as *mut u32)
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

/// Ends the emulator.
pub fn exit() -> ! {
    semihosting::process::exit(0)
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
            $crate::fatal::route(uart.route());
            let $crate::memory::Regions { slot, arena } = $crate::memory::Regions::take();
            let exit = $crate::mps2::exit;
            let board = $crate::Board { name: NAME, build: BUILD, model: MODEL, slot, arena, exit };
            $crate::serve(board, $crate::mps2::Console::new(uart), timer)
        }
    };
}
