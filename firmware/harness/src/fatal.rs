//! Last words: a panic or a fault is logged and told to the host as one
//! [`ErrorCode::Fault`] frame, then the firmware ends.

use core::cell::Cell;
use core::fmt::Write;
use core::panic::PanicInfo;

use critical_section::Mutex;
use heapless::String;
use jaq_shared::protocol::{ErrorCode, FRAME, Response, encode};

/// How last words leave the board: a writer that needs no state, and the end.
#[derive(Clone, Copy)]
pub struct Route {
    /// Sends bytes to the host, whatever the link was doing.
    pub write: fn(&[u8]),
    /// Ends the firmware.
    pub exit: fn() -> !,
}

static ROUTE: Mutex<Cell<Option<Route>>> = Mutex::new(Cell::new(None));

/// Names the way out; call it before anything can fail.
pub fn route(route: Route) {
    critical_section::with(|cs| ROUTE.borrow(cs).set(Some(route)));
}

/// Tells the host and ends.
fn report(text: &str) -> ! {
    defmt::error!("{=str}", text);
    match critical_section::with(|cs| ROUTE.borrow(cs).take()) {
        Some(Route { write, exit }) => {
            let mut buffer = [0; FRAME];
            if let Ok(frame) =
                encode(&Response::Error { code: ErrorCode::Fault, text }, &mut buffer)
            {
                // The zero closes a frame that was cut short.
                write(&[0]);
                write(frame);
            }
            exit()
        }
        // Died before it had a way out, or while reporting: nothing is left to do.
        None => loop {
            core::hint::spin_loop();
        },
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut text: String<180> = String::new();
    // A text cut off by the end of the buffer is still the best there is.
    let _ = write!(text, "{info}");
    report(&text)
}

#[cfg(target_arch = "arm")]
#[cortex_m_rt::exception]
unsafe fn HardFault(frame: &cortex_m_rt::ExceptionFrame) -> ! {
    let mut text: String<180> = String::new();
    let (pc, lr) = (frame.pc(), frame.lr());
    let _ = write!(text, "hard fault at pc {pc:#010x}, lr {lr:#010x}");
    // Armv6-M has no fault status.
    #[cfg(jaq_mainline)]
    {
        use cortex_m::peripheral::SCB;
        // SAFETY: reading a status register has no side effect, and nothing else runs any more.
        let (cfsr, hfsr) = unsafe { ((*SCB::PTR).cfsr.read(), (*SCB::PTR).hfsr.read()) };
        let _ = write!(text, ", CFSR {cfsr:#010x}, HFSR {hfsr:#010x}");
    }
    report(&text)
}

#[cfg(target_arch = "riscv32")]
#[unsafe(export_name = "ExceptionHandler")]
fn trap(_frame: &riscv_rt::TrapFrame) -> ! {
    let mut text: String<180> = String::new();
    let cause = riscv::register::mcause::read().bits();
    let (pc, value) = (riscv::register::mepc::read(), riscv::register::mtval::read());
    let _ = write!(text, "trap {cause} at pc {pc:#010x}, value {value:#010x}");
    report(&text)
}
