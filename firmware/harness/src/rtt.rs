//! The link through a debug probe: rings in RAM that the probe reads and writes while the core
//! runs (SEGGER's RTT). Up channel 0 and down channel 0 carry the protocol, up channel 1 the
//! defmt log.
//!
//! The host must know nothing but the symbol `_SEGGER_RTT`. The protocol's ring makes the firmware
//! wait while it is full, so that no answer is lost; the log's drops what does not fit, so that a
//! firmware whose log nobody reads goes on.

use core::ops::Range;

use rtt_target::{ChannelMode, DownChannel, UpChannel, rtt_init, set_defmt_channel};

use crate::once::Once;
use crate::{Board, Clock, Link, fatal, memory, serve};

/// Bytes taken from the ring at a time.
const PIECE: usize = 256;

/// The protocol's two rings.
pub struct Rtt {
    up: UpChannel,
    down: DownChannel,
    buffer: &'static mut [u8; PIECE],
    /// What of the buffer was received and not yet read.
    received: Range<usize>,
}

impl Rtt {
    /// Sets the rings up, the log's too. Call it once, before anything is logged.
    pub fn open() -> Rtt {
        static BUFFER: Once<[u8; PIECE]> = Once::new([0; PIECE]);
        let buffer = BUFFER.take().expect("one link");
        // A frame fits the down ring: the host sends it in one go.
        let channels = rtt_init! {
            up: {
                0: { size: 2048, mode: ChannelMode::BlockIfFull, name: "jaq" }
                1: { size: 1024, mode: ChannelMode::NoBlockSkip, name: "defmt" }
            }
            down: {
                0: { size: 2560, name: "jaq" }
            }
        };
        set_defmt_channel(channels.up.1);
        Rtt { up: channels.up.0, down: channels.down.0, buffer, received: 0..0 }
    }
}

impl Link for Rtt {
    fn read(&mut self) -> u8 {
        loop {
            if let Some(byte) = self.received.next().and_then(|at| self.buffer.get(at)) {
                return *byte;
            }
            self.received = 0..self.down.read(self.buffer);
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.up.write(bytes);
    }
}

/// Serves the board `name` for ever; `model` is what was built in.
pub fn run(
    name: &'static str,
    build: &'static str,
    model: Option<&'static [u8]>,
    clock: impl Clock,
) -> ! {
    let link = Rtt::open();
    fatal::route(fatal::Route { write: last_words, exit: rest });
    let memory::Regions { slot, arena } = memory::Regions::take();
    serve(Board { name, build, model, slot, arena, exit: rest }, link, clock)
}

/// Writes to the protocol's ring whatever the link was doing.
fn last_words(bytes: &[u8]) {
    // SAFETY: `run` has set the rings up before it named this function, and it is called by a
    // firmware that has stopped doing anything else.
    if let Some(mut up) = unsafe { UpChannel::conjure(0) } {
        up.write(bytes);
    }
}

/// The end of a session: the rings stay readable.
fn rest() -> ! {
    // No sleep: a sleeping core hides its memory from the probe on some chips.
    loop {
        core::hint::spin_loop();
    }
}
