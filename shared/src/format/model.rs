//! The file: header, description, weights; and the one place where it is checked.
//!
//! ```text
//! 0   magic "JAQ\0"             16  offset of the weight section (multiple of 8)
//! 4   version, u16              20  length of the weight section
//! 6   reserved, 0               24  reserved, 0
//! 8   total length, u32         28  CRC-32 of every byte but these four
//! 12  length of the description
//! 32  description: postcard of ModelInfo, then of every class name, then of every Layer
//! ..  weight section: packed weights and per-channel tables, read in place
//! ```
//! Integers are little-endian. [`Model::load`] checks every length, offset, shape, shift and
//! arena range, so that inference needs no check and cannot fail on a loaded model. A file that
//! passes the checks but holds wrong numbers gives wrong outputs, never a wrong access.

use core::fmt;
use core::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Bits, LayerBits, LayerShape, Op, Requant, TensorFormat};
use crate::kernels::{self, Isa, KernelId};

/// First bytes of every packed model.
pub const MAGIC: [u8; 4] = *b"JAQ\0";
/// Version of the layout this build reads and writes.
pub const VERSION: u16 = 1;
/// Size of the header.
pub const HEADER_BYTES: usize = 32;
/// Alignment of the weight section within the file, and of everything within it is 4.
pub const WEIGHT_ALIGN: usize = 8;
/// Longest layer or class name in bytes.
pub const MAX_NAME: usize = 24;
/// Most layers of a model; bounds the time of a load.
const MAX_LAYERS: u16 = 512;
/// Largest arena, in bytes, and largest weight count: keeps every size within 32 bits.
const MAX_BYTES: u64 = 1 << 28;

/// CRC-32 (ISO-HDLC, as in zip and Ethernet).
pub fn crc32(parts: &[&[u8]]) -> u32 {
    const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    let mut digest = CRC.digest();
    for part in parts {
        digest.update(part);
    }
    digest.finalize()
}

/// The fixed fields at the start of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Header {
    pub version: u16,
    pub total: u32,
    pub description: u32,
    pub weights_offset: u32,
    pub weights: u32,
    pub crc: u32,
}

impl Header {
    /// The header as bytes, its checksum taken over itself and `body` (all that follows it).
    pub fn seal(mut self, body: &[u8]) -> [u8; HEADER_BYTES] {
        let bytes = self.bytes();
        self.crc = crc32(&[&bytes[..28], body]);
        self.bytes()
    }

    fn bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&self.version.to_le_bytes());
        for (at, field) in [
            (8, self.total),
            (12, self.description),
            (16, self.weights_offset),
            (20, self.weights),
            (28, self.crc),
        ] {
            bytes[at..at + 4].copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Header, LoadError> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(LoadError::Truncated {
            expected: HEADER_BYTES as u32,
            found: bytes.len() as u32,
        })?;
        if header[..4] != MAGIC {
            return Err(LoadError::Magic);
        }
        let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let u32_at = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let version = u16_at(4);
        if version != VERSION {
            return Err(LoadError::Version { found: version, supported: VERSION });
        }
        Ok(Header {
            version,
            total: u32_at(8),
            description: u32_at(12),
            weights_offset: u32_at(16),
            weights: u32_at(20),
            crc: u32_at(28),
        })
    }
}

/// A range of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Span {
    pub offset: u32,
    pub len: u32,
}

impl Span {
    /// The range as `usize`.
    pub fn range(self) -> Range<usize> {
        self.offset as usize..self.offset as usize + self.len as usize
    }

    /// Whether the range lies within `size` bytes and starts at a multiple of 4.
    fn fits(self, size: u32) -> bool {
        self.offset.is_multiple_of(4)
            && self.offset.checked_add(self.len).is_some_and(|end| end <= size)
    }

    fn overlaps(self, other: Span) -> bool {
        self.range().start < other.range().end && other.range().start < self.range().end
    }
}

/// A tensor in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorRef {
    /// Shape and width.
    pub format: TensorFormat,
    /// Code of real zero.
    pub zero_point: u8,
    /// Byte offset in the arena, a multiple of 4.
    pub offset: u32,
}

impl TensorRef {
    /// Bytes of the arena the tensor takes.
    pub fn span(&self) -> Span {
        Span { offset: self.offset, len: self.format.bytes() as u32 }
    }
}

/// What the model is as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo<'a> {
    /// Name of the network.
    pub name: &'a str,
    /// What built it, for example `jaq-host 0.1.0`.
    pub tool: &'a str,
    /// Board it was searched for.
    pub board: &'a str,
    /// Data set it was trained on.
    pub data: &'a str,
    /// Seed of the run.
    pub seed: u64,
    /// Hash of the kernel registry the weights were packed for.
    pub registry: u32,
    /// Input tensor.
    pub input: TensorRef,
    /// Raw byte to input code: `clamp((raw * mul + add) >> 16)`.
    pub encode_mul: i32,
    /// See `encode_mul`.
    pub encode_add: i32,
    /// RAM the caller must own for one inference, in bytes.
    pub arena: u32,
    /// Number of class names that follow (0, or one a logit).
    pub classes: u16,
    /// Number of layers that follow.
    pub layers: u16,
}

/// One step of the schedule: a layer, the kernel that runs it, and where everything lies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer<'a> {
    /// Name of the layer.
    pub name: &'a str,
    /// What it computes.
    pub op: Op,
    /// Width of the second operand, as in [`LayerShape`].
    pub weight_bits: Bits,
    /// First input.
    pub input: TensorRef,
    /// Second input of an addition.
    pub input2: Option<TensorRef>,
    /// Output.
    pub output: TensorRef,
    /// Kernel that runs the layer.
    pub kernel: KernelId,
    /// How accumulators become codes.
    pub requant: Requant,
    /// Packed weights in the weight section.
    pub weights: Span,
    /// `i32` multipliers in the weight section.
    pub multipliers: Span,
    /// `i32` biases in the weight section.
    pub biases: Span,
    /// Working memory of the kernel in the arena.
    pub scratch: Span,
}

impl Layer<'_> {
    /// Geometry and widths.
    pub fn shape(&self) -> LayerShape {
        LayerShape {
            op: self.op,
            input: self.input.format.shape,
            output: self.output.format.shape,
            bits: LayerBits {
                weight: self.weight_bits,
                input: self.input.format.bits,
                output: self.output.format.bits,
            },
        }
    }

    fn check(&self, info: &ModelInfo, weights: u32) -> Result<(), &'static str> {
        let small = |n: u64, what| if n <= MAX_BYTES { Ok(()) } else { Err(what) };
        if self.name.is_empty() || self.name.len() > MAX_NAME {
            return Err("name");
        }
        for (tensor, what) in [
            (Some(&self.input), "input"),
            (self.input2.as_ref(), "second input"),
            (Some(&self.output), "output"),
        ] {
            tensor.map_or(Ok(()), |t| check_tensor(t, info.arena).map_err(|_| what))?;
        }
        let shape = self.shape();
        let (k, oc) =
            (shape.op.window().taps() as u64 * u64::from(shape.input.c), u64::from(shape.output.c));
        small(k * oc, "number of weights")?;
        let expected = LayerShape::new(self.op, shape.input, shape.output.c, shape.bits);
        if expected != Some(shape) {
            return Err("output shape");
        }
        match self.op {
            Op::Linear if shape.input.pixels() != 1 => return Err("input shape of a linear layer"),
            Op::AvgPool(w) if w.pads != Default::default() => return Err("padding of a pool"),
            Op::MaxPool(_)
                if shape.bits.input != shape.bits.output
                    || self.input.zero_point != self.output.zero_point =>
            {
                return Err("widths of a maximum pool");
            }
            _ => {}
        }
        match (self.op, self.input2) {
            (Op::Add, Some(second))
                if second.format.shape == shape.input
                    && second.format.bits == shape.bits.weight => {}
            (Op::Add, _) => return Err("second input"),
            (_, Some(_)) => return Err("second input"),
            (_, None) => {}
        }
        let requant_fits = match self.requant {
            Requant::Narrow => true,
            Requant::Wide => shape.bits.output == Bits::B8,
            Requant::General { shift } => (1..=62).contains(&shift),
        };
        if !requant_fits {
            return Err("requantization");
        }
        if !kernels::candidates(&shape, self.requant, Isa::compiled()).any(|k| k == self.kernel) {
            return Err("kernel");
        }
        if !kernels::linked::runs(self.kernel, &shape, self.requant) {
            return Err("kernel: this firmware was built for another model");
        }
        let (multipliers, biases) = kernels::table_lengths(&shape);
        for (span, len, what) in [
            (self.weights, kernels::packed_weight_bytes(self.kernel, &shape), "weights"),
            (self.multipliers, multipliers * 4, "multipliers"),
            (self.biases, biases * 4, "biases"),
        ] {
            if !span.fits(weights) || span.len as usize != len {
                return Err(what);
            }
        }
        let scratch = self.scratch;
        if !scratch.fits(info.arena)
            || !scratch.len.is_multiple_of(4)
            || (scratch.len as usize) < kernels::scratch_bytes(self.kernel, &shape)
        {
            return Err("scratch");
        }
        let (input, output) = (self.input.span(), self.output.span());
        let second = self.input2.map(|t| t.span()).unwrap_or(input);
        let clash = output.overlaps(input)
            || output.overlaps(second)
            || scratch.overlaps(input)
            || scratch.overlaps(second)
            || scratch.overlaps(output)
            || (second != input && second.overlaps(input));
        if clash { Err("overlapping arena ranges") } else { Ok(()) }
    }
}

fn check_tensor(tensor: &TensorRef, arena: u32) -> Result<(), ()> {
    let shape = tensor.format.shape;
    let elements = u64::from(shape.h) * u64::from(shape.w) * u64::from(shape.c);
    let pixels = u64::from(shape.h) * u64::from(shape.w);
    let ok = elements > 0
        && elements <= MAX_BYTES
        && pixels * tensor.format.pixel_bytes() as u64 <= u64::from(arena)
        && tensor.span().fits(arena)
        && u32::from(tensor.zero_point) <= tensor.format.bits.max_unsigned();
    if ok { Ok(()) } else { Err(()) }
}

/// Why bytes are not a model this build can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LoadError {
    /// The first bytes are not those of a packed model.
    Magic,
    /// Another version of the layout.
    Version { found: u16, supported: u16 },
    /// Fewer or more bytes than the header says.
    Truncated { expected: u32, found: u32 },
    /// The checksum does not match: bytes were changed.
    Checksum,
    /// The bytes do not start at a multiple of 4 in memory.
    Misaligned,
    /// A field of the header or of the model as a whole.
    Field(&'static str),
    /// A field of the layer at `index`.
    Layer { index: u16, field: &'static str },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Magic => {
                f.write_str("not a packed model: the file does not start with `JAQ`")
            }
            LoadError::Version { found, supported } => {
                write!(
                    f,
                    "format version {found}, this build reads version {supported}: export the model again with the matching jaq-host"
                )
            }
            LoadError::Truncated { expected, found } => {
                write!(
                    f,
                    "{found} bytes where the header says {expected}: the file is truncated or has trailing bytes"
                )
            }
            LoadError::Checksum => f.write_str("the checksum does not match: the file is damaged"),
            LoadError::Misaligned => f.write_str("the model must lie at a multiple of 4 in memory"),
            LoadError::Field(field) => write!(f, "invalid {field}"),
            LoadError::Layer { index, field } => write!(f, "layer {index}: invalid {field}"),
        }
    }
}

impl core::error::Error for LoadError {}

/// A checked model, borrowing the bytes it was loaded from.
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    info: ModelInfo<'a>,
    classes: &'a [u8],
    layers: &'a [u8],
    weights: &'a [u8],
    output: TensorRef,
    total: u32,
}

impl<'a> Model<'a> {
    /// Checks everything and borrows the model; `bytes` must start at a multiple of 4.
    pub fn load(bytes: &'a [u8]) -> Result<Self, LoadError> {
        let header = Header::read(bytes)?;
        let found = u32::try_from(bytes.len()).map_err(|_| LoadError::Field("length"))?;
        if header.total != found {
            return Err(LoadError::Truncated { expected: header.total, found });
        }
        if header.crc != crc32(&[&bytes[..28], &bytes[HEADER_BYTES..]]) {
            return Err(LoadError::Checksum);
        }
        if bytes.as_ptr().align_offset(4) != 0 {
            return Err(LoadError::Misaligned);
        }
        let section = |offset: u32, len: u32, what| {
            let end = offset.checked_add(len).ok_or(LoadError::Field(what))?;
            bytes.get(offset as usize..end as usize).ok_or(LoadError::Field(what))
        };
        let description = section(HEADER_BYTES as u32, header.description, "description length")?;
        let weights = section(header.weights_offset, header.weights, "weight section")?;
        if !(header.weights_offset as usize).is_multiple_of(WEIGHT_ALIGN) {
            return Err(LoadError::Field("weight section"));
        }

        let (info, classes): (ModelInfo, _) = postcard::take_from_bytes(description)
            .map_err(|_| LoadError::Field("model description"))?;
        if info.registry != kernels::registry_hash() {
            return Err(LoadError::Field(
                "kernel registry: the weights were packed for other kernels; export the model again",
            ));
        }
        if !info.arena.is_multiple_of(4) || u64::from(info.arena) > MAX_BYTES {
            return Err(LoadError::Field("arena size"));
        }
        check_tensor(&info.input, info.arena).map_err(|()| LoadError::Field("input tensor"))?;
        if info.layers == 0 || info.layers > MAX_LAYERS {
            return Err(LoadError::Field("number of layers"));
        }
        let mut rest = classes;
        for _ in 0..info.classes {
            let (name, after): (&str, _) =
                postcard::take_from_bytes(rest).map_err(|_| LoadError::Field("class names"))?;
            if name.len() > MAX_NAME {
                return Err(LoadError::Field("class names"));
            }
            rest = after;
        }
        let layers = rest;
        let mut output = info.input;
        for index in 0..info.layers {
            let fail = |field| LoadError::Layer { index, field };
            let (layer, after): (Layer, _) =
                postcard::take_from_bytes(rest).map_err(|_| fail("description"))?;
            layer.check(&info, header.weights).map_err(fail)?;
            output = layer.output;
            rest = after;
        }
        if !rest.is_empty() {
            return Err(LoadError::Field("description length"));
        }
        if info.classes != 0 && usize::from(info.classes) != output.format.shape.elements() {
            return Err(LoadError::Field("number of class names"));
        }
        Ok(Model { info, classes, layers, weights, output, total: header.total })
    }

    /// The model as a whole.
    pub fn info(&self) -> &ModelInfo<'a> {
        &self.info
    }

    /// The layers in execution order, decoded one at a time.
    pub fn layers(&self) -> Layers<'a> {
        Layers { rest: self.layers, left: self.info.layers }
    }

    /// Class names in the order of the logits; none if the model carries none.
    pub fn classes(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut rest = self.classes;
        (0..self.info.classes).map_while(move |_| {
            let (name, after) = postcard::take_from_bytes(rest).ok()?;
            rest = after;
            Some(name)
        })
    }

    /// Bytes of the weight section.
    pub fn weights(&self) -> &'a [u8] {
        self.weights
    }

    /// The tensor that holds the result after an inference.
    pub fn output(&self) -> &TensorRef {
        &self.output
    }

    /// Bytes of one raw input: one a element, HWC.
    pub fn input_bytes(&self) -> usize {
        self.info.input.format.shape.elements()
    }

    /// Words of RAM one inference needs.
    pub fn arena_words(&self) -> usize {
        self.info.arena as usize / 4
    }

    /// Size of the whole file.
    pub fn bytes(&self) -> usize {
        self.total as usize
    }
}

/// Iterator over a model's layers.
#[derive(Clone, Debug)]
pub struct Layers<'a> {
    rest: &'a [u8],
    left: u16,
}

impl<'a> Iterator for Layers<'a> {
    type Item = Layer<'a>;
    fn next(&mut self) -> Option<Layer<'a>> {
        self.left = self.left.checked_sub(1)?;
        // Every layer was decoded once by `Model::load`.
        let (layer, rest) = postcard::take_from_bytes(self.rest).ok()?;
        self.rest = rest;
        Some(layer)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.left), Some(usize::from(self.left)))
    }
}
