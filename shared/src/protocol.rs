//! The messages between host and device, and how they travel over a byte stream.
//!
//! A frame is a [`postcard`] message and its CRC-32 (little-endian), encoded with COBS and closed
//! by a zero byte, so that a receiver finds the next frame after any damage. The host asks, the
//! device answers; [`Response::Layer`] and [`Response::Bytes`] precede the [`Response::Done`] they
//! belong to, every other request has one answer.
//!
//! Must not know what a model is, nor which wire carries the bytes.

use core::fmt;

use postcard::ser_flavors::{Cobs, Slice, crc::CrcModifier};
use serde::{Deserialize, Serialize};

/// Version of the messages in this file; host and device must agree on it.
pub const VERSION: u16 = 3;
/// Most bytes of a model, an input or an output in one message.
pub const CHUNK: usize = 2048;
/// Most bytes of a message: a chunk and what surrounds it.
const MESSAGE: usize = CHUNK + 224;
/// Most bytes of a frame: message and CRC, one COBS byte for every 254, the closing zero.
pub const FRAME: usize = MESSAGE + 4 + (MESSAGE + 4).div_ceil(254) + 1;

const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// What a host asks of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request<'a> {
    /// Who are you? Answered by [`Response::Hello`].
    Hello,
    /// Bytes of a model or an input. Answered by [`Response::Accepted`].
    Write {
        /// Where they belong.
        area: Area,
        /// Offset within it.
        offset: u32,
        /// At most [`CHUNK`] bytes.
        bytes: &'a [u8],
    },
    /// Check a model and make it the current one. Answered by [`Response::Opened`].
    Open {
        /// Length of the model that was written; 0 for the one built into the firmware.
        bytes: u32,
    },
    /// Take an input that is built into the firmware. Answered by [`Response::Accepted`].
    Input {
        /// Its number among those built in, counted by the current model's input length.
        index: u32,
    },
    /// Run the current model on the input that was written or taken. Answered by
    /// [`Response::Done`].
    Infer {
        /// What to tell of every layer.
        detail: Detail,
    },
    /// Answered by [`Response::Stats`].
    Stats,
    /// The session ends; an emulated device stops. Answered by [`Response::Accepted`].
    Bye,
}

/// What a [`Request::Write`] fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Area {
    /// The packed model.
    Model,
    /// The raw input of the next inference.
    Input,
}

/// What a device tells of every layer beside the output of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detail {
    /// Nothing.
    Output,
    /// Its count of clock units.
    Counts,
    /// Its count and the CRC-32 of its output.
    Checksums,
}

/// What a clock counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClockUnit {
    /// Executed instructions of an emulated core: never a latency.
    Instructions,
    /// Cycles of a real or RTL-simulated core.
    Cycles,
}

/// How long a tick of the device's clock is: `num / den` units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Rate {
    pub unit: ClockUnit,
    pub num: u32,
    pub den: u32,
}

impl Rate {
    /// A span of `ticks` in units, rounded to the nearest; the largest number if it is beyond.
    ///
    /// Exact where a tick is the shorter one: a span is read to less than a tick, and that is less
    /// than half a unit if `num / den` is below 1/2. Sums of spans stay exact only if every span is
    /// rounded by itself.
    pub fn units(&self, ticks: u64) -> u64 {
        let (num, den) = (u64::from(self.num), u64::from(self.den.max(1)));
        // The rest is below 2^32, and so is `num`: their product and half of `den` fit.
        let rest = (ticks % den * num + den / 2) / den;
        (ticks / den).saturating_mul(num).saturating_add(rest)
    }
}

/// Who a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello<'a> {
    /// [`VERSION`] of the firmware. Stays the first field in every version.
    pub protocol: u16,
    /// Version of the packed model it reads.
    pub format: u16,
    /// Hash of its kernel registry.
    pub registry: u32,
    /// Board it was built for.
    pub board: &'a str,
    /// Identity of the build.
    pub build: &'a str,
    /// What it counts, and to what resolution.
    pub rate: Rate,
    /// Units that timing adds to the count of every layer: one reading of the clock.
    pub overhead: u32,
    /// Length of the model built in; 0 where the firmware waits for one.
    pub embedded: u32,
    /// Bytes of the inputs built in; 0 where every input comes over the link.
    pub inputs: u32,
    /// Largest model it takes over the link, in bytes.
    pub capacity: u32,
    /// RAM for arena and input together, in bytes.
    pub arena: u32,
}

/// A model the device has checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Opened {
    pub model_bytes: u32,
    pub layers: u32,
    pub arena_bytes: u32,
    pub input_bytes: u32,
    pub output_bytes: u32,
    /// CRC-32 in the model's header.
    pub crc: u32,
}

/// What the device knows of its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Deepest stack since the start, from the paint that was overwritten.
    pub stack_bytes: u32,
    /// RAM the stack may take.
    pub stack_capacity: u32,
    /// Arena of the current model as planned; 0 without one.
    pub arena_bytes: u32,
    /// Frames that arrived damaged.
    pub damaged_frames: u32,
}

/// What a device answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response<'a> {
    /// Who it is.
    Hello(#[serde(borrow)] Hello<'a>),
    /// Done, nothing to say.
    Accepted,
    /// The model is good.
    Opened(Opened),
    /// One layer of the running inference.
    Layer {
        /// Its place in the schedule.
        index: u32,
        /// Units from the decoding of its descriptor to its last output.
        count: u64,
        /// CRC-32 of its output; 0 if not asked for.
        crc: u32,
    },
    /// A piece of the output.
    Bytes {
        /// Offset within the output.
        offset: u32,
        /// At most [`CHUNK`] bytes.
        bytes: &'a [u8],
    },
    /// The inference ended.
    Done {
        /// Units of the whole inference, what was spent on reporting layers left out.
        count: u64,
        /// Deepest stack since the start, from the paint that was overwritten.
        stack_bytes: u32,
        /// High-water mark of the arena in this inference, from its paint.
        arena_bytes: u32,
    },
    /// See [`Stats`].
    Stats(Stats),
    /// The request was not carried out, or the device died.
    Error {
        /// What kind of trouble.
        code: ErrorCode,
        /// For people.
        text: &'a str,
    },
}

/// Kinds of trouble on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorCode {
    /// A frame arrived damaged or holds no known request.
    Frame,
    /// The request does not fit the state: no model, no room.
    State,
    /// The model was refused.
    Model,
    /// The inference was refused.
    Infer,
    /// The firmware died of a panic or a fault; it answers no more.
    Fault,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The message is longer than a frame may be.
    TooLong,
    /// COBS or CRC do not fit: bytes were lost or changed.
    Damaged,
    /// An intact frame that holds no message of this version.
    Unknown,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FrameError::TooLong => "a frame is longer than the protocol allows",
            FrameError::Damaged => "a frame arrived damaged",
            FrameError::Unknown => "a frame holds no message of this protocol version",
        })
    }
}

impl core::error::Error for FrameError {}

/// Writes `message` as a frame, the closing zero included, into `buffer`.
pub fn encode<'b>(
    message: &impl Serialize,
    buffer: &'b mut [u8; FRAME],
) -> Result<&'b [u8], FrameError> {
    Cobs::try_new(Slice::new(buffer))
        .and_then(|cobs| {
            postcard::serialize_with_flavor(message, CrcModifier::new(cobs, CRC.digest()))
        })
        .map(|frame| &*frame)
        .map_err(|_| FrameError::TooLong)
}

/// Reads a message from the payload a [`Framer`] has opened.
pub fn decode<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(payload) {
        Ok((message, [])) => Ok(message),
        _ => Err(FrameError::Unknown),
    }
}

/// Collects the bytes of a stream into frames.
pub struct Framer {
    buffer: [u8; FRAME],
    /// Bytes of the frame in the making, or of the payload that was opened.
    len: usize,
    overrun: bool,
    complete: bool,
}

impl Framer {
    /// Nothing received.
    pub const fn new() -> Self {
        Framer { buffer: [0; FRAME], len: 0, overrun: false, complete: false }
    }

    /// Takes one byte; `Some` at the end of a frame, whose message [`Framer::payload`] then holds
    /// until the next byte comes. Empty frames are skipped: a zero byte resynchronizes.
    pub fn push(&mut self, byte: u8) -> Option<Result<(), FrameError>> {
        if self.complete {
            (self.len, self.complete, self.overrun) = (0, false, false);
        }
        if byte != 0 {
            match self.buffer.get_mut(self.len) {
                Some(slot) => {
                    *slot = byte;
                    self.len += 1;
                }
                None => self.overrun = true,
            }
            return None;
        }
        if self.len == 0 {
            return None;
        }
        self.complete = true;
        Some(if self.overrun { self.fail(FrameError::TooLong) } else { self.open() })
    }

    /// The message of the frame that was completed last, still encoded.
    pub fn payload(&self) -> &[u8] {
        if self.complete { &self.buffer[..self.len] } else { &[] }
    }

    fn open(&mut self) -> Result<(), FrameError> {
        let Ok(len) = cobs::decode_in_place(&mut self.buffer[..self.len]) else {
            return self.fail(FrameError::Damaged);
        };
        match self.buffer[..len].split_last_chunk::<4>() {
            Some((payload, crc)) if CRC.checksum(payload) == u32::from_le_bytes(*crc) => {
                self.len = payload.len();
                Ok(())
            }
            _ => self.fail(FrameError::Damaged),
        }
    }

    fn fail(&mut self, error: FrameError) -> Result<(), FrameError> {
        self.len = 0;
        Err(error)
    }
}

impl Default for Framer {
    fn default() -> Self {
        Framer::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::String;
    use std::vec::Vec;

    fn frame(message: &impl Serialize) -> Vec<u8> {
        encode(message, &mut [0; FRAME]).unwrap().into()
    }

    fn feed(framer: &mut Framer, bytes: &[u8]) -> Vec<Result<(), FrameError>> {
        bytes.iter().filter_map(|byte| framer.push(*byte)).collect()
    }

    fn owned(text: &str) -> String {
        text.into()
    }

    #[test]
    fn the_longest_messages_fit_a_frame() {
        let bytes = [0; CHUNK];
        frame(&Request::Write { area: Area::Input, offset: u32::MAX, bytes: &bytes });
        frame(&Response::Bytes { offset: u32::MAX, bytes: &[0xff; CHUNK] });
        let text = owned("x").repeat(200);
        frame(&Response::Error { code: ErrorCode::Fault, text: &text });
        let long = Request::Write { area: Area::Input, offset: 0, bytes: &[1; FRAME] };
        assert_eq!(encode(&long, &mut [0; FRAME]), Err(FrameError::TooLong));
    }

    #[test]
    fn a_frame_too_long_is_refused_and_the_next_one_read() {
        let mut framer = Framer::new();
        let mut stream = std::vec![7; FRAME + 5];
        stream.push(0);
        stream.extend(frame(&Request::Stats));
        assert_eq!(feed(&mut framer, &stream), [Err(FrameError::TooLong), Ok(())]);
        assert_eq!(decode(framer.payload()), Ok(Request::Stats));
    }

    #[test]
    fn rates_round_to_the_nearest() {
        let rate = Rate { unit: ClockUnit::Instructions, num: 40, den: 128 };
        assert_eq!(
            [rate.units(0), rate.units(32), rate.units(33), rate.units(34)],
            [0, 10, 10, 11]
        );
        let long = Rate { den: 0, num: u32::MAX, ..rate }.units(u64::from(u32::MAX));
        assert_eq!(long, u64::from(u32::MAX).pow(2));
        // Beyond 32 bits of ticks, and beyond 64 bits of units.
        assert_eq!(rate.units(128 << 30), 40 << 30);
        assert_eq!(Rate { den: 1, ..rate }.units(u64::MAX), u64::MAX);
    }

    proptest! {
        #[test]
        fn messages_survive_the_way(
            offset: u32,
            bytes in prop::collection::vec(any::<u8>(), 0..=CHUNK),
            rest in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let message = Request::Write { area: Area::Model, offset, bytes: &bytes };
            let mut framer = Framer::new();
            // Whatever lies on the wire before: one closing zero, and the frame is found.
            feed(&mut framer, &rest);
            feed(&mut framer, &[0]);
            prop_assert_eq!(feed(&mut framer, &frame(&message)), [Ok(())]);
            prop_assert_eq!(decode(framer.payload()), Ok(message));
        }

        #[test]
        fn a_flipped_bit_is_noticed(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
            at: prop::sample::Index,
            bit in 0..8u32,
        ) {
            let mut stream = frame(&Request::Write { area: Area::Model, offset: 3, bytes: &bytes });
            let at = at.index(stream.len());
            stream[at] ^= 1 << bit;
            stream.push(0);
            let mut framer = Framer::new();
            for result in feed(&mut framer, &stream) {
                prop_assert!(result.is_err());
            }
        }

        #[test]
        fn no_bytes_harm_the_receiver(stream in prop::collection::vec(any::<u8>(), 0..4000)) {
            let mut framer = Framer::new();
            for byte in stream {
                if let Some(Ok(())) = framer.push(byte) {
                    let _ = decode::<Request>(framer.payload());
                    let _ = decode::<Response>(framer.payload());
                }
            }
        }
    }
}
