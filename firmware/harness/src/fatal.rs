//! Last words: a panic or a fault is logged and told to the host as one
//! [`ErrorCode::Fault`] frame, then the firmware ends.

use core::cell::Cell;
use core::fmt::Write;
use core::panic::PanicInfo;

use cortex_m::peripheral::SCB;
use cortex_m_rt::{ExceptionFrame, exception};
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
            cortex_m::asm::wfi();
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

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    let mut text: String<180> = String::new();
    // SAFETY: reading a status register has no side effect, and nothing else runs any more.
    let (cfsr, hfsr) = unsafe { ((*SCB::PTR).cfsr.read(), (*SCB::PTR).hfsr.read()) };
    let _ = write!(
        text,
        "hard fault at pc {:#010x}, lr {:#010x}, CFSR {cfsr:#010x}, HFSR {hfsr:#010x}",
        frame.pc(),
        frame.lr()
    );
    report(&text)
}
