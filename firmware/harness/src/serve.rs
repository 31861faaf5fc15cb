//! The request loop: reads frames, writes models and inputs where they belong, runs inferences
//! and answers.

use core::fmt::{Display, Write};

use heapless::String;
use jaq_shared::format::{self, Model, crc32};
use jaq_shared::kernels;
use jaq_shared::protocol::{
    self, Area, CHUNK, Detail, ErrorCode, FRAME, FrameError, Framer, Hello, Opened, Request,
    Response, Stats,
};
use jaq_shared::runtime::{self, Observer};

use crate::once::Once;
use crate::{Board, Clock, Link, NOTE, memory, stack};

/// Answers requests until the host says [`Request::Bye`].
pub fn serve<L: Link, C: Clock>(board: Board, link: L, mut clock: C) -> ! {
    let Board { name, build, model: embedded, slot, arena, exit } = board;
    // Not on the stack: its depth is a figure that users read.
    static BUFFER: Once<[u8; FRAME]> = Once::new([0; FRAME]);
    static FRAMER: Once<Framer> = Once::new(Framer::new());
    let buffer = BUFFER.take().expect("served once");
    let framer = FRAMER.take().expect("served once");
    let mut wire = Wire { link, buffer };
    let mut inbox = Inbox { framer, damaged: 0 };
    let hello = Hello {
        protocol: protocol::VERSION,
        format: format::VERSION,
        registry: kernels::registry_hash(),
        board: name,
        build,
        rate: C::RATE,
        overhead: overhead(&mut clock),
        embedded: embedded.map_or(0, |bytes| bytes.len() as u32),
        inputs: memory::inputs().len() as u32,
        capacity: size_of_val(slot) as u32,
        arena: size_of_val(arena) as u32,
    };
    defmt::info!("{=str}, build {=str}, {=u32} bytes of arena", name, build, hello.arena);
    defmt::info!("timed by {=str}, {=u32} a reading", clock.name(), hello.overhead);
    if let Some(note) = critical_section::with(|cs| NOTE.borrow(cs).take()) {
        defmt::warn!("{=str}", note);
    }
    inbox.next(&mut wire);
    loop {
        // Without a model: only a good `Open` leads on.
        match inbox.request() {
            Request::Hello => wire.send(&Response::Hello(hello)),
            Request::Write { area: Area::Model, offset, bytes } => {
                wire.answer(fill(bytes_of(slot), offset, bytes))
            }
            Request::Write { .. } | Request::Input { .. } | Request::Infer { .. } => {
                wire.error(ErrorCode::State, "no model is open");
            }
            Request::Stats => wire.send(&Response::Stats(stats(0, &inbox))),
            Request::Bye => {
                wire.send(&Response::Accepted);
                exit()
            }
            Request::Open { bytes } => {
                let words: &[u32] = slot;
                let written = as_bytes(words).get(..bytes as usize);
                match if bytes == 0 { embedded } else { written } {
                    None if bytes == 0 => {
                        wire.error(ErrorCode::State, "the firmware was built without a model");
                    }
                    None => wire.error(ErrorCode::State, "the model is larger than its slot"),
                    Some(file) => match Model::load(file) {
                        Err(error) => wire.error(ErrorCode::Model, error),
                        Ok(model) => {
                            if with_model(&model, file, arena, &mut wire, &mut inbox, &mut clock) {
                                // The pending request needs the loop without a model.
                                continue;
                            }
                        }
                    },
                }
            }
        }
        inbox.next(&mut wire);
    }
}

/// Serves while `model` is open; returns `true` with a request pending that ends this.
fn with_model(
    model: &Model<'_>,
    file: &[u8],
    arena: &mut [u32],
    wire: &mut Wire<impl Link>,
    inbox: &mut Inbox,
    clock: &mut impl Clock,
) -> bool {
    let needed = model.arena_words() + model.input_bytes().div_ceil(4);
    let Some((tensors, input)) = arena.split_at_mut_checked(model.arena_words()) else {
        wire.error(ErrorCode::State, TooLarge { needed, words: arena.len() });
        return false;
    };
    let Some(input) = bytes_of(input).get_mut(..model.input_bytes()) else {
        wire.error(ErrorCode::State, TooLarge { needed, words: arena.len() });
        return false;
    };
    defmt::info!("model of {=usize} bytes opened", file.len());
    wire.send(&Response::Opened(Opened {
        model_bytes: file.len() as u32,
        layers: u32::from(model.info().layers),
        arena_bytes: model.info().arena,
        input_bytes: model.input_bytes() as u32,
        output_bytes: model.output().format.bytes() as u32,
        crc: crc_of(file),
    }));
    loop {
        inbox.next(wire);
        match inbox.request() {
            Request::Write { area: Area::Input, offset, bytes } => {
                wire.answer(fill(input, offset, bytes));
            }
            Request::Input { index } => wire.answer(take(input, index)),
            Request::Infer { detail } => infer(model, input, tensors, detail, wire, clock),
            Request::Stats => wire.send(&Response::Stats(stats(model.info().arena, inbox))),
            _ => return true,
        }
    }
}

/// One inference: layers as they end, then the output in pieces, then the total.
fn infer(
    model: &Model<'_>,
    input: &[u8],
    tensors: &mut [u32],
    detail: Detail,
    wire: &mut Wire<impl Link>,
    clock: &mut impl Clock,
) {
    // Before the clock runs: of the core, this changes what its cache holds and nothing else.
    tensors.fill(stack::PAINT);
    let mut watch = Watch { clock, wire, detail, last: 0, total: 0 };
    watch.last = watch.clock.now();
    let result = runtime::infer(model, input, tensors, &mut watch);
    watch.lap();
    let count = watch.total;
    match result {
        Err(error) => wire.error(ErrorCode::Infer, error),
        Ok(output) => {
            for (index, bytes) in output.chunks(CHUNK).enumerate() {
                wire.send(&Response::Bytes { offset: (index * CHUNK) as u32, bytes });
            }
            let marked = tensors.iter().rposition(|word| *word != stack::PAINT);
            let arena_bytes = marked.map_or(0, |last| (last as u32 + 1) * 4);
            wire.send(&Response::Done { count, stack_bytes: stack::used(), arena_bytes });
        }
    }
}

/// What timing adds to a layer: of two readings in a row, the second less the first.
fn overhead<C: Clock>(clock: &mut C) -> u32 {
    let pair = |_| {
        let first = clock.now();
        clock.now().wrapping_sub(first)
    };
    // The least of some: a cache warms up, an interrupt may fall between.
    C::RATE.units((0..8).map(pair).min().unwrap_or(0)) as u32
}

/// Times the layers; converting and reporting is not counted.
struct Watch<'a, L: Link, C: Clock> {
    clock: &'a mut C,
    wire: &'a mut Wire<L>,
    detail: Detail,
    last: u64,
    total: u64,
}

impl<L: Link, C: Clock> Watch<'_, L, C> {
    /// Units since `last`, added to the total.
    fn lap(&mut self) -> u64 {
        let now = self.clock.now();
        let count = C::RATE.units(now.wrapping_sub(self.last));
        self.total += count;
        self.last = self.clock.now();
        count
    }
}

impl<L: Link, C: Clock> Observer for Watch<'_, L, C> {
    fn begin(&mut self, _: usize) {
        self.lap();
    }

    fn end(&mut self, index: usize, output: &[u8]) {
        let count = self.lap();
        let crc = match self.detail {
            Detail::Output => return,
            Detail::Counts => 0,
            Detail::Checksums => crc32(&[output]),
        };
        self.wire.send(&Response::Layer { index: index as u32, count, crc });
        self.last = self.clock.now();
    }
}

/// What arrives.
struct Inbox {
    framer: &'static mut Framer,
    damaged: u32,
}

impl Inbox {
    /// Waits for the next frame that holds a request; others are answered here.
    fn next(&mut self, wire: &mut Wire<impl Link>) {
        loop {
            let Some(frame) = self.framer.push(wire.link.read()) else { continue };
            let request = frame
                .and_then(|()| protocol::decode::<Request<'_>>(self.framer.payload()).map(|_| ()));
            match request {
                Ok(()) => return,
                Err(error) => {
                    self.damaged += u32::from(error != FrameError::Unknown);
                    wire.error(ErrorCode::Frame, error);
                }
            }
        }
    }

    /// The request [`Inbox::next`] has waited for.
    fn request(&self) -> Request<'_> {
        // `next` returns only after this decoded well; `Stats` stands for what cannot be.
        protocol::decode(self.framer.payload()).unwrap_or(Request::Stats)
    }
}

/// What leaves.
struct Wire<L> {
    link: L,
    buffer: &'static mut [u8; FRAME],
}

impl<L: Link> Wire<L> {
    fn send(&mut self, response: &Response<'_>) {
        // Every response fits a frame: chunks and texts are bounded.
        if let Ok(frame) = protocol::encode(response, self.buffer) {
            self.link.write(frame);
        }
    }

    fn error(&mut self, code: ErrorCode, error: impl Display) {
        let mut text: String<180> = String::new();
        // A text cut off by the end of the buffer is still the best there is.
        let _ = write!(text, "{error}");
        defmt::warn!("{=str}", text.as_str());
        self.send(&Response::Error { code, text: &text });
    }

    fn answer(&mut self, result: Result<(), OutOfRange>) {
        match result {
            Ok(()) => self.send(&Response::Accepted),
            Err(error) => self.error(ErrorCode::State, error),
        }
    }
}

/// Bytes were written beyond the end of their area.
struct OutOfRange {
    end: u64,
    size: usize,
}

impl Display for OutOfRange {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} bytes do not fit an area of {}", self.end, self.size)
    }
}

struct TooLarge {
    needed: usize,
    words: usize,
}

impl Display for TooLarge {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let TooLarge { needed, words } = self;
        write!(f, "arena and input need {} bytes of RAM, the board has {}", needed * 4, words * 4)
    }
}

/// Copies input `index` of those built in.
fn take(area: &mut [u8], index: u32) -> Result<(), OutOfRange> {
    let inputs = memory::inputs();
    let size = area.len() as u64;
    let start = u64::from(index) * size;
    let range = start as usize..(start + size) as usize;
    let input = inputs.get(range).ok_or(OutOfRange { end: start + size, size: inputs.len() })?;
    area.copy_from_slice(input);
    Ok(())
}

fn fill(area: &mut [u8], offset: u32, bytes: &[u8]) -> Result<(), OutOfRange> {
    let size = area.len();
    let end = u64::from(offset) + bytes.len() as u64;
    area.get_mut(offset as usize..)
        .and_then(|area| area.get_mut(..bytes.len()))
        .ok_or(OutOfRange { end, size })?
        .copy_from_slice(bytes);
    Ok(())
}

fn stats(arena_bytes: u32, inbox: &Inbox) -> Stats {
    Stats {
        stack_bytes: stack::used(),
        stack_capacity: stack::capacity(),
        arena_bytes,
        damaged_frames: inbox.damaged,
    }
}

/// The checksum in the header of a model that was loaded.
fn crc_of(file: &[u8]) -> u32 {
    let field = file.get(28..32).and_then(|bytes| bytes.first_chunk());
    field.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn as_bytes(words: &[u32]) -> &[u8] {
    // SAFETY: any four bytes are a word, and bytes need no alignment.
    unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

fn bytes_of(words: &mut [u32]) -> &mut [u8] {
    // SAFETY: as in `as_bytes`, and any bytes are words.
    unsafe { core::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), size_of_val(words)) }
}
