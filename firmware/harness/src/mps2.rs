//! Boards of Arm's MPS2 family as QEMU emulates them: the CMSDK timer counts instructions, the
//! CMSDK UART carries what leaves where no debug probe does.
//!
//! Registers: Arm Cortex-M System Design Kit TRM (DDI 0479), chapter 4.2.
//! The timer counts at the board's clock; with QEMU's `-icount shift=7` an instruction takes 128 ns
//! of it, so that ticks become exact instruction counts.

#[cfg(all(feature = "emulated", not(feature = "rtt")))]
mod uart;

use crate::clock::Wide;
use crate::register::Register;
use crate::{Clock, ClockUnit, Rate};

/// A CMSDK timer at address `BASE` counting at `HZ`.
///
/// It is read at least once in 2^32 ticks: a layer of 1.3 G instructions would be too long.
pub struct Timer<const BASE: usize, const HZ: u32>(Wide);

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
        Timer(Wide::default())
    }
}

impl<const BASE: usize, const HZ: u32> Clock for Timer<BASE, HZ> {
    // ticks / HZ seconds, and 128 ns an instruction.
    const RATE: Rate = {
        let nanoseconds = 1_000_000_000 / HZ;
        assert!(nanoseconds * HZ == 1_000_000_000, "a tick must last whole nanoseconds");
        Rate { unit: ClockUnit::Instructions, num: nanoseconds, den: 128 }
    };

    fn now(&mut self) -> u64 {
        // It counts down.
        self.0.extend(!Self::register(Self::VALUE).read())
    }
}

/// Serves a board of the family whose first UART and timer lie at `UART` and `TIMER`.
///
/// # Safety
/// They must lie there, and nothing else may use them.
pub unsafe fn run<const UART: usize, const TIMER: usize, const HZ: u32>(
    name: &'static str,
    build: &'static str,
    model: Option<&'static [u8]>,
) -> ! {
    // SAFETY: as the caller says.
    let clock = unsafe { Timer::<TIMER, HZ>::new() };
    #[cfg(feature = "rtt")]
    crate::rtt::run(name, build, model, clock);
    #[cfg(all(feature = "emulated", not(feature = "rtt")))]
    crate::emulated::run(
        name,
        build,
        model,
        // SAFETY: as the caller says.
        unsafe { uart::Uart::<UART>::new() },
        clock,
    )
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
            unsafe { $crate::mps2::run::<$uart, $timer, $hz>(NAME, BUILD, MODEL) }
        }
    };
}
