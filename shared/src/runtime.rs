//! Executes a packed model in a caller-owned arena: the schedule layer by layer, nothing
//! allocated, nothing checked that [`Model::load`] has proved.
//!
//! Must not know what a kernel does with its operands, nor who listens (see [`Observer`]).

use core::fmt;

use crate::format::{Model, TensorFormat};
use crate::kernels::{self, Call, Work};

/// Watches an inference; every method may stay empty.
pub trait Observer {
    /// Layer `index` starts: its descriptor is decoded next.
    fn begin(&mut self, index: usize) {
        let _ = index;
    }
    /// Layer `index` has written `output` (packed codes).
    fn end(&mut self, index: usize, output: &[u8]) {
        let _ = (index, output);
    }
}

/// Watches nothing.
impl Observer for () {}

/// Why an inference did not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum InferError {
    /// The input has another length than the model reads.
    Input { expected: usize, found: usize },
    /// The arena is too small.
    Arena { words: usize, found: usize },
    /// A layer's operands could not be borrowed: only possible if the model's bytes were changed
    /// after they were loaded.
    Layer(usize),
}

impl fmt::Display for InferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InferError::Input { expected, found } => {
                write!(f, "the model reads {expected} input bytes, {found} were given")
            }
            InferError::Arena { words, found } => {
                write!(f, "the arena has {found} words, the model needs {words}")
            }
            InferError::Layer(index) => {
                write!(f, "layer {index}: the model's bytes changed after loading")
            }
        }
    }
}

impl core::error::Error for InferError {}

/// Runs one inference on `raw` (one byte an element, HWC) and returns the output tensor's packed
/// codes, laid out as `model.output().format`.
pub fn infer<'m>(
    model: &Model<'_>,
    raw: &[u8],
    arena: &'m mut [u32],
    observer: &mut impl Observer,
) -> Result<&'m [u8], InferError> {
    if raw.len() != model.input_bytes() {
        return Err(InferError::Input { expected: model.input_bytes(), found: raw.len() });
    }
    let found = arena.len();
    let arena = arena
        .get_mut(..model.arena_words())
        .ok_or(InferError::Arena { words: model.arena_words(), found })?;
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(arena);

    let input = model.info().input;
    let tensor = bytes.get_mut(input.span().range()).ok_or(InferError::Layer(0))?;
    encode(raw, input.format, model.info().encode_mul, model.info().encode_add, tensor);

    let mut layers = model.layers();
    for index in 0..usize::from(model.info().layers) {
        observer.begin(index);
        let layer = layers.next().ok_or(InferError::Layer(index))?;
        run(model, &layer, bytes).ok_or(InferError::Layer(index))?;
        let output = bytes.get(layer.output.span().range()).ok_or(InferError::Layer(index))?;
        observer.end(index, output);
    }
    bytes.get(model.output().span().range()).ok_or(InferError::Layer(0))
}

fn run(model: &Model<'_>, layer: &crate::format::Layer<'_>, arena: &mut [u8]) -> Option<()> {
    let section = |span: crate::format::Span| model.weights().get(span.range());
    let ranges = [layer.input.span().range(), layer.output.span().range(), layer.scratch.range()];
    let shape = layer.shape();
    let (input, input2, output, scratch);
    match layer.input2 {
        Some(second) if second.span() != layer.input.span() => {
            let [r0, r1, r2] = ranges;
            let [a, b, c, d] = arena.get_disjoint_mut([r0, r1, r2, second.span().range()]).ok()?;
            (input, output, scratch, input2) = (&*a, b, c, Some(&*d));
        }
        second => {
            let [a, b, c] = arena.get_disjoint_mut(ranges).ok()?;
            let a = &*a;
            (input, output, scratch, input2) = (a, b, c, second.map(|_| a));
        }
    }
    kernels::run(
        layer.kernel,
        Call {
            layer: &shape,
            input_zero_point: layer.input.zero_point,
            requant: layer.requant,
            input,
            input2,
            weights: section(layer.weights)?,
            multipliers: bytemuck::try_cast_slice(section(layer.multipliers)?).ok()?,
            biases: bytemuck::try_cast_slice(section(layer.biases)?).ok()?,
            output,
            scratch: bytemuck::try_cast_slice_mut(scratch).ok()?,
        },
    );
    Some(())
}

/// Raw bytes to packed codes: `clamp((raw * mul + add) >> 16, 0, 2^bits - 1)`.
fn encode(raw: &[u8], format: TensorFormat, mul: i32, add: i32, tensor: &mut [u8]) {
    let channels = usize::from(format.shape.c).max(1);
    let width = format.bits.storage() as usize;
    let per_byte = 8 / width;
    let max = format.bits.max_unsigned() as i32;
    let code =
        |raw: u8| (i32::from(raw).wrapping_mul(mul).wrapping_add(add) >> 16).clamp(0, max) as u8;
    let pixels = tensor.chunks_exact_mut(format.pixel_bytes().max(1));
    for (pixel, raw) in pixels.zip(raw.chunks_exact(channels)) {
        pixel.fill(0);
        for (byte, values) in pixel.iter_mut().zip(raw.chunks(per_byte)) {
            for (i, value) in values.iter().enumerate() {
                *byte |= code(*value) << (i * width);
            }
        }
    }
}

/// How often the parts of encoding a tensor of `format` run: as [`kernels::work`].
pub fn encode_work(format: TensorFormat) -> Work {
    let pixels = format.shape.pixels() as u64;
    let per_byte = 8 / u64::from(format.bits.storage());
    let channels = u64::from(format.shape.c);
    let (elements, bytes, last) = match per_byte {
        1 => ("elements of 8 bits", "bytes of 8 bits", "last elements"),
        2 => ("elements of 4 bits", "bytes of 4 bits", "last elements of 4 bits"),
        _ => ("elements of 2 bits", "bytes of 2 bits", "last elements of 2 bits"),
    };
    Work::new([
        (elements, pixels * (channels - channels % per_byte)),
        (bytes, pixels * (channels / per_byte)),
        // A byte that is not full.
        (last, pixels * (channels % per_byte)),
        ("last bytes", if channels.is_multiple_of(per_byte) { 0 } else { pixels }),
        ("pixels", pixels),
    ])
    .and_fills(pixels, format.pixel_bytes() as u64)
}

/// The codes of a packed tensor in HWC order.
pub fn codes(format: TensorFormat, tensor: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let width = format.bits.storage() as usize;
    let mask = (format.bits.max_unsigned()) as u8;
    let channels = usize::from(format.shape.c);
    tensor.chunks_exact(format.pixel_bytes().max(1)).flat_map(move |pixel| {
        (0..channels).filter_map(move |c| {
            let bit = c * width;
            pixel.get(bit / 8).map(|byte| (byte >> (bit % 8)) & mask)
        })
    })
}

/// Index of the largest code, the first of equals: the predicted class.
pub fn argmax(codes: impl Iterator<Item = u8>) -> usize {
    let (mut best, mut at) = (0, 0);
    for (index, code) in codes.enumerate() {
        if index == 0 || code > best {
            (best, at) = (code, index);
        }
    }
    at
}
