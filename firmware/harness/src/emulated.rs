//! What emulated boards share: the link's bytes come from QEMU's standard input by semihosting and
//! leave by the board's UART; logs and the exit code go by semihosting too.
//!
//! Input by semihosting and not by the UART, because QEMU hands a UART one byte at a time (30 us
//! each on the host), and because a waiting firmware then takes no time of the host and ends with
//! the process that feeds it.

use core::marker::PhantomData;
use core::ops::Range;

use defmt_semihosting as _;
use jaq_shared::protocol::FRAME;
use semihosting::io::{Read, Stdin, stdin};

use crate::once::Once;
use crate::{Board, Clock, Link, fatal, memory, serve};

/// A UART that sends, whatever state the link is in.
pub trait Transmitter {
    /// Sends bytes, and returns when the last has left.
    ///
    /// A reader that is behind makes QEMU keep a byte back, to send it from its main loop; that
    /// loop stands while a firmware waits for standard input, and both ends would wait for ever.
    fn put(bytes: &[u8]);
}

/// QEMU's standard input as the one direction, a UART as the other.
pub struct Console<U> {
    uart: PhantomData<U>,
    input: Stdin,
    buffer: &'static mut [u8; FRAME],
    /// What of the buffer was received and not yet read.
    received: Range<usize>,
}

impl<U: Transmitter> Console<U> {
    /// Opens standard input; there is one console.
    pub fn new(_uart: U) -> Self {
        static BUFFER: Once<[u8; FRAME]> = Once::new([0; FRAME]);
        let input = stdin().expect("semihosting is on");
        let buffer = BUFFER.take().expect("one console");
        Console { uart: PhantomData, input, buffer, received: 0..0 }
    }
}

impl<U: Transmitter> Link for Console<U> {
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
        U::put(bytes);
    }
}

/// Serves the board `name` until the emulator ends; `model` is what was built in.
pub fn run<U: Transmitter>(
    name: &'static str,
    build: &'static str,
    model: Option<&'static [u8]>,
    uart: U,
    clock: impl Clock,
) -> ! {
    let memory::Regions { slot, arena } = memory::Regions::take();
    let exit = || semihosting::process::exit(0);
    fatal::route(fatal::Route { write: U::put, exit: || semihosting::process::exit(1) });
    serve(Board { name, build, model, slot, arena, exit }, Console::new(uart), clock)
}
