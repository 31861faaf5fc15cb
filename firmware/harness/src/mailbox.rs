//! The mailbox of the simulated microcontroller: it carries the link, the log and the end.
//! `cv32e40p/rtl/soc.sv` has its registers.

use core::cell::RefCell;

use critical_section::{Mutex, RestoreState};

use crate::once::Once;
use crate::register::Register;
use crate::{Board, Clock, Link, fatal, memory, serve};

/// The mailbox, for who runs on this microcontroller.
pub struct Mailbox(());

impl Mailbox {
    const READ: usize = 0x1000_0000;
    const WRITE: usize = 0x1000_0004;
    const LOG: usize = 0x1000_0008;
    const EXIT: usize = 0x1000_000c;

    fn register(address: usize) -> Register<i32> {
        // SAFETY: the one who made the mailbox said that this is the microcontroller; each of
        // these registers has one kind of use, and writes to them do not depend on each other.
        unsafe { Register::at(address) }
    }

    /// The mailbox.
    ///
    /// # Safety
    /// This must run on the microcontroller of `soc.sv`.
    pub unsafe fn new() -> Self {
        Mailbox(())
    }

    fn put(bytes: &[u8]) {
        for byte in bytes {
            Self::register(Self::WRITE).write(i32::from(*byte));
        }
    }

    fn end(code: i32) -> ! {
        loop {
            Self::register(Self::EXIT).write(code);
        }
    }
}

impl Link for Mailbox {
    fn read(&mut self) -> u8 {
        loop {
            // Simulated time stands still in this read, unless a debugger is there: then it is
            // negative until a byte has come.
            if let Ok(byte) = u8::try_from(Self::register(Self::READ).read()) {
                return byte;
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        Self::put(bytes);
    }
}

/// Serves the board `name` until the host says goodbye; `model` is what was built in.
pub fn run(
    name: &'static str,
    build: &'static str,
    model: Option<&'static [u8]>,
    mailbox: Mailbox,
    clock: impl Clock,
) -> ! {
    let memory::Regions { slot, arena } = memory::Regions::take();
    fatal::route(fatal::Route { write: Mailbox::put, exit: || Mailbox::end(1) });
    let exit = || Mailbox::end(0);
    serve(Board { name, build, model, slot, arena, exit }, mailbox, clock)
}

/// The log, into the mailbox.
#[defmt::global_logger]
struct Logger;

/// An encoder in use, with the critical section it is used in.
struct Logging {
    encoder: &'static mut defmt::Encoder,
    busy: Option<RestoreState>,
}

static LOGGING: Mutex<RefCell<Option<Logging>>> = Mutex::new(RefCell::new(None));

impl Logging {
    /// Hands the one encoder to `use_it`; nothing happens inside another use.
    fn with(use_it: impl FnOnce(&mut Logging)) {
        static ENCODER: Once<defmt::Encoder> = Once::new(defmt::Encoder::new());
        critical_section::with(|cs| {
            let Ok(mut logging) = LOGGING.borrow(cs).try_borrow_mut() else { return };
            if logging.is_none() {
                *logging = ENCODER.take().map(|encoder| Logging { encoder, busy: None });
            }
            if let Some(logging) = logging.as_mut() {
                use_it(logging);
            }
        });
    }

    fn put(bytes: &[u8]) {
        for byte in bytes {
            Mailbox::register(Mailbox::LOG).write(i32::from(*byte));
        }
    }
}

// SAFETY: a frame is begun, filled and ended in one critical section, taken by `acquire` and given
// back by `release`, which defmt calls in pairs.
unsafe impl defmt::Logger for Logger {
    fn acquire() {
        // SAFETY: `release` gives it back.
        let section = unsafe { critical_section::acquire() };
        Logging::with(|logging| {
            logging.busy = Some(section);
            logging.encoder.start_frame(Logging::put);
        });
    }

    unsafe fn flush() {}

    unsafe fn release() {
        let mut section = None;
        Logging::with(|logging| {
            logging.encoder.end_frame(Logging::put);
            section = logging.busy.take();
        });
        if let Some(section) = section {
            // SAFETY: it was taken by `acquire`.
            unsafe { critical_section::release(section) };
        }
    }

    unsafe fn write(bytes: &[u8]) {
        Logging::with(|logging| logging.encoder.write(bytes, Logging::put));
    }
}
