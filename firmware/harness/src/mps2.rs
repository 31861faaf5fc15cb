//! Boards of Arm's MPS2 family as QEMU emulates them: the CMSDK UART is the link, the CMSDK timer
//! counts instructions, semihosting carries logs and the exit code.
//!
//! Registers: Arm Cortex-M System Design Kit TRM (DDI 0479), chapters 4.2 (timer) and 4.3 (UART).
//! The timer counts at the board's clock; with QEMU's `-icount shift=7` an instruction takes 128 ns
//! of it, so that ticks become exact instruction counts.

use defmt_semihosting as _;

use crate::{Clock, ClockUnit, Link, Rate, fatal};

/// Reads of an empty UART after which an abandoned emulator ends: minutes, not the time of a
/// host that thinks.
const IDLE_READS: u64 = 1 << 32;

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

/// A CMSDK UART at address `BASE`, polled.
pub struct Uart<const BASE: usize>(());

impl<const BASE: usize> Uart<BASE> {
    const DATA: usize = 0x0;
    const STATE: usize = 0x4;
    const CTRL: usize = 0x8;
    const BAUDDIV: usize = 0x10;
    const TX_FULL: u32 = 1 << 0;
    const RX_FULL: u32 = 1 << 1;

    fn register(offset: usize) -> Register {
        Register((BASE + offset) as *mut u32)
    }

    /// Switches transmitter and receiver on.
    ///
    /// # Safety
    /// A CMSDK UART must lie at `BASE`, and nothing else may use it.
    pub unsafe fn new() -> Self {
        // The least divider the hardware takes; an emulated UART has no baud rate.
        Self::register(Self::BAUDDIV).write(16);
        Self::register(Self::CTRL).write(0b11);
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

impl<const BASE: usize> Link for Uart<BASE> {
    fn read(&mut self) -> u8 {
        for _ in 0..IDLE_READS {
            if Self::register(Self::STATE).read() & Self::RX_FULL != 0 {
                return Self::register(Self::DATA).read() as u8;
            }
        }
        defmt::warn!("nobody asks: the emulator ends");
        semihosting::process::exit(2)
    }

    fn write(&mut self, bytes: &[u8]) {
        Self::put(bytes);
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
