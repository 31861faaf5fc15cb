//! A session with a device: who it is, its model, its inferences, over any byte stream.
//!
//! Must not know how the stream is made ([`qemu`]) nor what the figures are compared with
//! ([`crate::validate`]).

pub mod log;
pub mod probe;
pub mod qemu;
pub mod replay;
pub mod rtl;
mod severity;
pub mod source;

use std::io;
use std::time::{Duration, Instant};

use jaq_network::Provenance;
use jaq_shared::protocol::{
    self, Area, CHUNK, ClockUnit, Detail, ErrorCode, FRAME, FrameError, Framer, Hello, Opened,
    Rate, Request, Response, Stats,
};
use jaq_shared::{format, kernels};

pub use severity::Severity;

use crate::firmware::Firmware;
use crate::validate::{Ask, Device, Inference, Unit};

/// How long a session waits for an answer if the user sets nothing else.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// A byte stream to a device.
pub trait Wire {
    /// Sends all of `bytes`.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Waits for some bytes; `None` if none came in time.
    fn receive(&mut self, timeout: Duration) -> io::Result<Option<Vec<u8>>>;

    /// What is known of the device's end, asked after the stream broke: how it ended and what it
    /// said at last. Empty if nothing is.
    fn last_words(&mut self) -> String {
        String::new()
    }

    /// What the device has logged so far, a line a message.
    fn log(&self) -> Vec<String> {
        Vec::new()
    }

    /// The line of the firmware's sources that an address belongs to, if it is known.
    fn locate(&self, _address: u64) -> Option<String> {
        None
    }

    /// What figures of this device are.
    fn provenance(&self) -> Provenance;

    /// The link's name on the command line, as in `--via qemu`.
    fn via(&self) -> &'static str;
}

impl Wire for Box<dyn Wire> {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        (**self).send(bytes)
    }

    fn receive(&mut self, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
        (**self).receive(timeout)
    }

    fn last_words(&mut self) -> String {
        (**self).last_words()
    }

    fn log(&self) -> Vec<String> {
        (**self).log()
    }

    fn locate(&self, address: u64) -> Option<String> {
        (**self).locate(address)
    }

    fn provenance(&self) -> Provenance {
        (**self).provenance()
    }

    fn via(&self) -> &'static str {
        (**self).via()
    }
}

/// Why a session failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum LinkError {
    #[error("cannot start {what}: {source}; {way_out}")]
    Start { what: String, source: io::Error, way_out: String },
    #[error(
        "the device does not answer: waited {seconds} s for {what}{last_words}; set a longer time limit with --timeout if it only needs more time"
    )]
    Timeout { what: &'static str, seconds: f64, last_words: String },
    #[error("the device is gone while the host waited for {what}{last_words}")]
    Gone { what: &'static str, last_words: String },
    #[error("the answer to {what} is unreadable: {source}")]
    Frame { what: &'static str, source: FrameError },
    #[error("the device reports ({code:?}): {text}")]
    Device { code: ErrorCode, text: String },
    #[error("the device answers {what} with something else: {found}")]
    Unexpected { what: &'static str, found: String },
    #[error(
        "the device's {what} is {found}, the host expects {expected}; build the firmware again with this jaq-host and flash it (`jaq-host deploy`)"
    )]
    Mismatch { what: &'static str, expected: String, found: String },
    #[error("{0}")]
    Model(String),
    #[error(transparent)]
    Probe(#[from] probe::ProbeError),
    #[error(transparent)]
    Replay(#[from] replay::ReplayError),
}

/// What a host expects of a device.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// The board.
    pub board: String,
    /// The build, where the host made it.
    pub build: Option<String>,
}

/// Who a device said it is; as [`Hello`], owned.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Identity {
    pub board: String,
    pub build: String,
    pub rate: Rate,
    /// Units that timing adds to the count of every layer.
    pub overhead: u32,
    /// Length of the model built in; 0 without one.
    pub embedded: usize,
    /// Bytes of the inputs built in.
    pub inputs: usize,
    /// Largest model it takes over the link, in bytes.
    pub capacity: usize,
    /// RAM for arena and input, in bytes.
    pub arena: usize,
}

/// Starts `firmware` on the emulator and says hello.
pub fn emulate(firmware: &Firmware, timeout: Duration) -> Result<Session, LinkError> {
    let board = firmware.target.board;
    let machine = firmware.target.machine.ok_or_else(|| {
        LinkError::Model(format!("QEMU does not emulate {board}; connect it and use --via probe"))
    })?;
    let expected = Expected { board: board.to_owned(), build: Some(firmware.build.clone()) };
    Session::start(qemu::Qemu::start(machine, &firmware.elf)?, &expected, timeout)
}

/// Starts `firmware` on the simulated core, with a memory of `waits`, and says hello.
pub fn simulate(
    firmware: &Firmware,
    waits: rtl::Waits,
    timeout: Duration,
) -> Result<Session, LinkError> {
    let board = firmware.target.board;
    if !firmware.target.rtl {
        return Err(LinkError::Model(format!(
            "there is no RTL of {board} here; --via rtl works with --board cv32e40p"
        )));
    }
    let expected = Expected { board: board.to_owned(), build: Some(firmware.build.clone()) };
    Session::start(rtl::Rtl::start(&firmware.elf, waits)?, &expected, timeout)
}

/// A device that has said hello and matches this host.
pub struct Session {
    wire: Box<dyn Wire>,
    framer: Framer,
    /// Received and not yet looked at.
    pending: std::collections::VecDeque<u8>,
    timeout: Duration,
    identity: Identity,
    opened: Option<Opened>,
    /// What the firmware holds of inputs, as the host built it.
    inputs: Vec<u8>,
}

impl Session {
    /// Says hello over `wire` and refuses a device that does not match.
    ///
    /// Every wait of the session ends after `timeout`.
    pub fn start(
        wire: impl Wire + 'static,
        expected: &Expected,
        timeout: Duration,
    ) -> Result<Session, LinkError> {
        Session::meet(Box::new(wire), expected, true, timeout)
    }

    fn meet(
        wire: Box<dyn Wire>,
        expected: &Expected,
        same_kernels: bool,
        timeout: Duration,
    ) -> Result<Session, LinkError> {
        let identity = Identity {
            board: String::new(),
            build: String::new(),
            rate: Rate { unit: ClockUnit::Cycles, num: 1, den: 1 },
            overhead: 0,
            embedded: 0,
            inputs: 0,
            capacity: 0,
            arena: 0,
        };
        let mut session = Session {
            wire,
            framer: Framer::new(),
            pending: Default::default(),
            timeout,
            identity,
            opened: None,
            inputs: Vec::new(),
        };
        // Closes whatever a session before has left on the wire.
        session.write(&[0], "hello")?;
        session.identity = session.ask(&Request::Hello, "hello", |payload, answer| {
            if let Some(found) = foreign_version(payload) {
                let expected = protocol::VERSION.to_string();
                let found = found.to_string();
                return Some(Err(LinkError::Mismatch {
                    what: "protocol version",
                    expected,
                    found,
                }));
            }
            match answer {
                Ok(Response::Hello(hello)) => Some(check(&hello, expected, same_kernels)),
                _ => None,
            }
        })?;
        Ok(session)
    }

    /// Meets the device of a recording, which may have been made with another kernel registry.
    pub fn replay(wire: replay::Replay, timeout: Duration) -> Result<Session, LinkError> {
        let about = wire.about();
        let expected = Expected { board: about.board.clone(), build: Some(about.build.clone()) };
        Session::meet(Box::new(wire), &expected, false, timeout)
    }

    /// Who the device is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What the device has logged so far, a line a message.
    pub fn log(&self) -> Vec<String> {
        self.wire.log()
    }

    /// What the device's figures are.
    pub fn provenance(&self) -> Provenance {
        self.wire.provenance()
    }

    /// The link's name on the command line.
    pub fn via(&self) -> &'static str {
        self.wire.via()
    }

    /// What the device counts.
    pub fn unit(&self) -> Unit {
        match self.identity.rate.unit {
            ClockUnit::Instructions => Unit::Instructions,
            ClockUnit::Cycles => Unit::Cycles,
        }
    }

    /// Makes `model` the current one: the built-in one if it is the same, else over the link.
    pub fn open(&mut self, model: &[u8]) -> Result<Opened, LinkError> {
        let bytes = if self.identity.embedded == 0 {
            if model.len() > self.identity.capacity {
                return Err(LinkError::Model(format!(
                    "the model has {} bytes, the device takes at most {} over the link; build it into the firmware",
                    model.len(),
                    self.identity.capacity
                )));
            }
            self.write_area(Area::Model, model)?;
            model.len() as u32
        } else {
            0
        };
        let opened =
            self.ask(&Request::Open { bytes }, "a model to be opened", |_, answer| match answer {
                Ok(Response::Opened(opened)) => Some(Ok(opened)),
                _ => None,
            })?;
        let crc =
            model.get(28..32).and_then(|crc| crc.first_chunk()).map(|c| u32::from_le_bytes(*c));
        if Some(opened.crc) != crc || opened.model_bytes as usize != model.len() {
            return Err(LinkError::Mismatch {
                what: "built-in model",
                expected: format!("{} bytes, CRC {:08x}", model.len(), crc.unwrap_or(0)),
                found: format!("{} bytes, CRC {:08x}", opened.model_bytes, opened.crc),
            });
        }
        self.opened = Some(opened);
        Ok(opened)
    }

    /// Names the inputs that were built into the firmware, one after the other: these are taken
    /// there and not sent.
    pub fn built_in(&mut self, inputs: &[u8]) -> Result<(), LinkError> {
        if inputs.len() != self.identity.inputs {
            return Err(LinkError::Mismatch {
                what: "size of built-in inputs",
                expected: format!("{} bytes", inputs.len()),
                found: format!("{} bytes", self.identity.inputs),
            });
        }
        self.inputs = inputs.to_owned();
        Ok(())
    }

    /// Puts an input where the next inference reads it.
    fn bring(&mut self, raw: &[u8]) -> Result<(), LinkError> {
        let known = self.inputs.chunks_exact(raw.len().max(1)).position(|input| input == raw);
        match known {
            Some(index) => {
                let request = Request::Input { index: index as u32 };
                self.ask(&request, "an input to be taken", accepted)
            }
            None => self.write_area(Area::Input, raw),
        }
    }

    /// What the device knows of its memory.
    pub fn stats(&mut self) -> Result<Stats, LinkError> {
        self.ask(&Request::Stats, "statistics", |_, answer| match answer {
            Ok(Response::Stats(stats)) => Some(Ok(stats)),
            _ => None,
        })
    }

    /// Ends the session; an emulated device stops.
    pub fn bye(mut self) -> Result<(), LinkError> {
        self.ask(&Request::Bye, "goodbye", accepted)
    }

    /// Sends `bytes` to an area of the device, in pieces.
    fn write_area(&mut self, area: Area, bytes: &[u8]) -> Result<(), LinkError> {
        for (index, bytes) in bytes.chunks(CHUNK).enumerate() {
            let offset = (index * CHUNK) as u32;
            self.ask(&Request::Write { area, offset, bytes }, "data to be taken", accepted)?;
        }
        Ok(())
    }

    fn request(&mut self, request: &Request<'_>, what: &'static str) -> Result<(), LinkError> {
        let mut buffer = [0; FRAME];
        let frame = protocol::encode(request, &mut buffer)
            .map_err(|source| LinkError::Frame { what, source })?
            .to_owned();
        self.write(&frame, what)
    }

    /// Sends a request and waits for its one answer.
    fn ask<T>(
        &mut self,
        request: &Request<'_>,
        what: &'static str,
        take: impl FnOnce(&[u8], Result<Response<'_>, FrameError>) -> Option<Result<T, LinkError>>,
    ) -> Result<T, LinkError> {
        self.request(request, what)?;
        self.answer(what, take)
    }

    /// Waits for the next answer and hands it to `take`; `None` from there means it is not the
    /// one that was waited for.
    fn answer<T>(
        &mut self,
        what: &'static str,
        take: impl FnOnce(&[u8], Result<Response<'_>, FrameError>) -> Option<Result<T, LinkError>>,
    ) -> Result<T, LinkError> {
        self.fill(what)?;
        let payload = self.framer.payload();
        let answer = protocol::decode::<Response<'_>>(payload);
        if let Ok(Response::Error { code, text }) = answer {
            let text = match code {
                ErrorCode::Fault => self.located(text),
                _ => text.to_owned(),
            };
            return Err(LinkError::Device { code, text });
        }
        if let Some(result) = take(payload, answer) {
            return result;
        }
        match answer {
            Ok(found) => {
                let mut found = format!("{found:?}");
                found.truncate(200);
                Err(LinkError::Unexpected { what, found })
            }
            Err(source) => Err(LinkError::Frame { what, source }),
        }
    }

    fn write(&mut self, bytes: &[u8], what: &'static str) -> Result<(), LinkError> {
        if self.wire.send(bytes).is_ok() {
            return Ok(());
        }
        // The device may have said why before it went.
        match self.answer(what, |_, _| Some(Ok(()))) {
            Err(error @ LinkError::Device { .. }) => Err(error),
            _ => Err(LinkError::Gone { what, last_words: self.last_words() }),
        }
    }

    /// Reads up to the end of the next frame.
    fn fill(&mut self, what: &'static str) -> Result<(), LinkError> {
        let until = Instant::now() + self.timeout;
        loop {
            while let Some(byte) = self.pending.pop_front() {
                match self.framer.push(byte) {
                    None => {}
                    Some(Ok(())) => return Ok(()),
                    Some(Err(source)) => return Err(LinkError::Frame { what, source }),
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.wire.receive(left) {
                Ok(Some(bytes)) => self.pending.extend(bytes),
                Ok(None) => {
                    let seconds = self.timeout.as_secs_f64();
                    let last_words = self.last_words();
                    return Err(LinkError::Timeout { what, seconds, last_words });
                }
                Err(_) => {
                    return Err(LinkError::Gone { what, last_words: self.last_words() });
                }
            }
        }
    }

    /// The last words of a firmware, with the source line of the address they name.
    fn located(&self, text: &str) -> String {
        let address = text.split_once("pc 0x").and_then(|(_, rest)| {
            let digits = rest.split(|c: char| !c.is_ascii_hexdigit()).next()?;
            u64::from_str_radix(digits, 16).ok()
        });
        match address.and_then(|address| self.wire.locate(address)) {
            Some(line) => format!("{text}: {line}"),
            None => text.to_owned(),
        }
    }

    fn last_words(&mut self) -> String {
        match self.wire.last_words() {
            words if words.is_empty() => words,
            words => format!(" ({words})"),
        }
    }
}

impl Device for Session {
    type Error = LinkError;

    fn infer(&mut self, raw: &[u8], ask: Ask) -> Result<Inference, LinkError> {
        const WHAT: &str = "an inference";
        let Some(opened) = self.opened else {
            return Err(LinkError::Model("no model was opened on the device".into()));
        };
        if raw.len() != opened.input_bytes as usize {
            return Err(LinkError::Model(format!(
                "the model reads {} input bytes, {} were given",
                opened.input_bytes,
                raw.len()
            )));
        }
        self.bring(raw)?;
        let detail = match ask {
            Ask::Output => Detail::Output,
            Ask::Layers => Detail::Counts,
            Ask::Checksums => Detail::Checksums,
        };
        self.request(&Request::Infer { detail }, WHAT)?;
        let mut inference = Inference::default();
        loop {
            let done = self.answer(WHAT, |_, answer| match answer {
                Ok(Response::Layer { index, count, crc })
                    if index as usize == inference.layers.len() =>
                {
                    inference.layers.push(count);
                    if ask == Ask::Checksums {
                        inference.crcs.push(crc);
                    }
                    Some(Ok(false))
                }
                Ok(Response::Bytes { offset, bytes })
                    if offset as usize == inference.output.len() =>
                {
                    inference.output.extend_from_slice(bytes);
                    Some(Ok(false))
                }
                Ok(Response::Done { count, stack_bytes, arena_bytes }) => {
                    inference.total = count;
                    inference.stack_bytes = stack_bytes;
                    inference.arena_bytes = arena_bytes;
                    Some(Ok(true))
                }
                _ => None,
            })?;
            if done {
                break;
            }
        }
        let layers = if ask == Ask::Output { 0 } else { opened.layers as usize };
        if inference.output.len() != opened.output_bytes as usize
            || inference.layers.len() != layers
        {
            return Err(LinkError::Unexpected {
                what: WHAT,
                found: format!(
                    "{} bytes and {} layers",
                    inference.output.len(),
                    inference.layers.len()
                ),
            });
        }
        Ok(inference)
    }
}

fn accepted(_: &[u8], answer: Result<Response<'_>, FrameError>) -> Option<Result<(), LinkError>> {
    matches!(answer, Ok(Response::Accepted)).then_some(Ok(()))
}

/// The protocol version in a hello of another version: in every version the first variant is the
/// hello and the version its first field.
fn foreign_version(payload: &[u8]) -> Option<u16> {
    let ((variant, version), _) = postcard::take_from_bytes::<(u32, u16)>(payload).ok()?;
    (variant == 0 && version != protocol::VERSION).then_some(version)
}

fn check(
    hello: &Hello<'_>,
    expected: &Expected,
    same_kernels: bool,
) -> Result<Identity, LinkError> {
    let mismatch = |what, expected: &dyn std::fmt::Display, found: &dyn std::fmt::Display| {
        let (expected, found) = (expected.to_string(), found.to_string());
        Err(LinkError::Mismatch { what, expected, found })
    };
    if hello.format != format::VERSION {
        return mismatch("model format version", &format::VERSION, &hello.format);
    }
    if hello.board != expected.board {
        return mismatch("board", &expected.board, &hello.board);
    }
    let registry = kernels::registry_hash();
    if same_kernels && hello.registry != registry {
        let hex = |hash| format!("{hash:08x}");
        return mismatch("kernel registry", &hex(registry), &hex(hello.registry));
    }
    if let Some(build) = &expected.build
        && hello.build != build
    {
        return mismatch("build", build, &hello.build);
    }
    Ok(Identity {
        board: hello.board.to_owned(),
        build: hello.build.to_owned(),
        rate: hello.rate,
        overhead: hello.overhead,
        embedded: hello.embedded as usize,
        inputs: hello.inputs as usize,
        capacity: hello.capacity as usize,
        arena: hello.arena as usize,
    })
}
