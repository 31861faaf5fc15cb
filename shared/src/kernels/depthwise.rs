//! Depthwise convolution by planes: four channels at a time are spread to one byte a code and one
//! row per channel, convolved row by row, requantized, and packed back.
//!
//! The last `kh` input rows of the four channels lie in a ring, padding included, so that the
//! inner loops know no borders. Weights are the canonical stream, as in [`super::reference`].

use super::codes;
use super::requant::{self, requantize};
use super::{Call, Work};
use crate::format::{Bits, LayerShape, Op, Requant};

/// Channels worked on together: what a byte (2 bits), half-word (4) or word (8) holds.
const LANES: usize = 4;

/// Largest window; larger ones go the general path.
const MOST_TAPS: usize = 64;

/// Whether the layer can run here.
pub fn supports(layer: &LayerShape) -> bool {
    matches!(layer.op, Op::Depthwise(window) if window.taps() <= MOST_TAPS && window.stride > 0)
}

/// Sizes of a layer's planes.
struct Plan {
    /// Bytes of a padded input row, with room for whole words.
    row: usize,
    /// Bytes of an output row, with room for whole words.
    out: usize,
    /// Rows of the ring.
    ring: usize,
}

impl Plan {
    fn new(layer: &LayerShape) -> Plan {
        let window = layer.op.window();
        let pads = usize::from(window.pads.left) + usize::from(window.pads.right);
        Plan {
            row: (usize::from(layer.input.w) + pads + 8).next_multiple_of(4),
            out: (usize::from(layer.output.w) + 4).next_multiple_of(4),
            ring: usize::from(window.kh),
        }
    }
}

/// Scratch of a layer in bytes.
pub fn scratch_bytes(layer: &LayerShape) -> usize {
    let plan = Plan::new(layer);
    LANES * (plan.row * plan.ring + plan.out)
}

/// Pre-multiplies the scales of [`Requant::Wide`] to bytes; the zero point is already in the biases.
pub fn prepare(layer: &LayerShape, requant: Requant, multipliers: &mut [i32]) {
    if is_wide(requant, layer.bits.output) {
        multipliers.iter_mut().for_each(|m| *m <<= requant::WIDE_UPPER);
    }
}

fn is_wide(requant: Requant, output: Bits) -> bool {
    requant == Requant::Wide && output == Bits::B8
}

/// Runs the layer.
pub fn run(call: Call<'_>) {
    let Call { layer, scratch, output, .. } = call;
    let plan = Plan::new(layer);
    let window = layer.op.window();
    let scratch: &mut [u8] = bytemuck::cast_slice_mut(scratch);
    let Some((planes, out)) = scratch.split_at_mut_checked(LANES * plan.row * plan.ring) else {
        return;
    };
    let taps = window.taps();
    let bits = layer.bits;
    let (in_pixel, out_pixel) =
        (layer.input_format().pixel_bytes(), layer.output_format().pixel_bytes());
    let (in_block, out_block) =
        (LANES * bits.input.storage() as usize / 8, LANES * bits.output.storage() as usize / 8);
    let tables = call.multipliers.chunks(LANES).zip(call.biases.chunks(LANES));
    for (block, (m, b)) in tables.enumerate() {
        let mut weights = [[0i32; MOST_TAPS]; LANES];
        for (lane, weights) in weights.iter_mut().take(m.len()).enumerate() {
            let first = (block * LANES + lane) * taps;
            for (tap, weight) in weights.iter_mut().take(taps).enumerate() {
                *weight = codes::read_stream(bits.weight, call.weights, first + tap);
            }
        }
        planes.fill(call.input_zero_point);
        // Rows of the padded input that are in the ring so far.
        let mut loaded = 0;
        for oy in 0..usize::from(layer.output.h) {
            let top = oy * usize::from(window.stride);
            loaded = loaded.max(top);
            while loaded < top + plan.ring {
                let slot = loaded % plan.ring;
                let y = loaded.wrapping_sub(usize::from(window.pads.top));
                let lanes = planes.chunks_exact_mut(plan.row * plan.ring);
                let mut rows = lanes
                    .map(|plane| plane.chunks_exact_mut(plan.row).nth(slot).unwrap_or_default());
                let rows: [&mut [u8]; LANES] =
                    core::array::from_fn(|_| rows.next().unwrap_or_default());
                if y < usize::from(layer.input.h) {
                    let width = usize::from(layer.input.w);
                    let pixels =
                        call.input.chunks_exact(in_pixel.max(1)).skip(y * width).take(width);
                    let pieces = pixels.map(|pixel| {
                        let end = (block * in_block + in_block).min(pixel.len());
                        pixel.get(block * in_block..end).unwrap_or_default()
                    });
                    spread(bits.input, pieces, rows, usize::from(window.pads.left));
                } else {
                    rows.into_iter().for_each(|row| row.fill(call.input_zero_point));
                }
                loaded += 1;
            }
            let lanes =
                planes.chunks_exact(plan.row * plan.ring).zip(out.chunks_exact_mut(plan.out));
            for (((plane, out), (&m, &b)), weights) in lanes.zip(m.iter().zip(b)).zip(&weights) {
                let row = |ky: usize| {
                    let slot = (top + ky) % plan.ring;
                    plane.get(slot * plan.row..(slot + 1) * plan.row).unwrap_or_default()
                };
                let out = out.get_mut(..usize::from(layer.output.w)).unwrap_or_default();
                let stride = usize::from(window.stride);
                let finish = |acc: i32| -> u8 {
                    let code = if is_wide(call.requant, bits.output) {
                        requant::wide_upper(acc, m, b, bits.output)
                    } else {
                        requantize(call.requant, acc, m, b, bits.output)
                    };
                    code as u8
                };
                match (window.kh, window.kw) {
                    (3, 3) => {
                        convolve::<3>(core::array::from_fn(row), weights, stride, out, finish)
                    }
                    (5, 5) => {
                        convolve::<5>(core::array::from_fn(row), weights, stride, out, finish)
                    }
                    (_, kw) => {
                        for (x, out) in out.iter_mut().enumerate() {
                            let mut acc = 0i32;
                            for (ky, weights) in
                                weights.chunks(kw.into()).take(plan.ring).enumerate()
                            {
                                let codes = row(ky).iter().skip(x * stride);
                                for (&code, &weight) in codes.zip(weights) {
                                    acc = acc.wrapping_add(i32::from(code) * weight);
                                }
                            }
                            *out = finish(acc);
                        }
                    }
                }
            }
            let width = usize::from(layer.output.w);
            let pixels = output.chunks_exact_mut(out_pixel.max(1)).skip(oy * width).take(width);
            let lanes: [&[u8]; LANES] = {
                let mut lanes = out.chunks_exact(plan.out);
                core::array::from_fn(|_| lanes.next().unwrap_or_default())
            };
            let storage = bits.output.storage();
            // Lanes beyond the channels hold what an earlier block left.
            let used = (1u64 << (m.len() as u32 * storage)) - 1;
            for (x, pixel) in pixels.enumerate() {
                let code = |lane: usize| u32::from(lanes[lane].get(x).copied().unwrap_or(0));
                let packed = code(0)
                    | code(1) << storage
                    | code(2) << (2 * storage)
                    | code(3) << (3 * storage);
                let bytes = (packed & used as u32).to_le_bytes();
                for (to, from) in
                    pixel.iter_mut().skip(block * out_block).zip(bytes).take(out_block)
                {
                    *to = from;
                }
            }
        }
    }
    // Filler behind the last block.
    let written = call.multipliers.len().div_ceil(LANES) * out_block;
    if written < out_pixel {
        for pixel in output.chunks_exact_mut(out_pixel) {
            pixel.iter_mut().skip(written).for_each(|byte| *byte = 0);
        }
    }
}

/// Spreads the codes of one row's pixels to the four lanes' rows, from position `left` on.
#[inline(always)]
fn spread<'p>(
    bits: Bits,
    pieces: impl Iterator<Item = &'p [u8]>,
    rows: [&mut [u8]; LANES],
    left: usize,
) {
    let [r0, r1, r2, r3] = rows.map(|row| row.get_mut(left..).unwrap_or_default());
    let targets = r0.iter_mut().zip(r1).zip(r2).zip(r3);
    for (piece, (((t0, t1), t2), t3)) in pieces.zip(targets) {
        let at = |i: usize| piece.get(i).copied().unwrap_or(0);
        (*t0, *t1, *t2, *t3) = match bits {
            Bits::B2 => {
                let byte = at(0);
                (byte & 3, byte >> 2 & 3, byte >> 4 & 3, byte >> 6)
            }
            Bits::B3 | Bits::B4 => (at(0) & 15, at(0) >> 4, at(1) & 15, at(1) >> 4),
            Bits::B8 => (at(0), at(1), at(2), at(3)),
        };
    }
}

/// One output row of one channel for a K x K window.
#[inline(always)]
fn convolve<const K: usize>(
    rows: [&[u8]; K],
    weights: &[i32; MOST_TAPS],
    stride: usize,
    out: &mut [u8],
    finish: impl Fn(i32) -> u8,
) {
    for (x, out) in out.iter_mut().enumerate() {
        let mut acc = 0i32;
        for (row, weights) in rows.iter().zip(weights.chunks_exact(K)) {
            let Some(codes) = row.get(x * stride..x * stride + K) else { return };
            for (&code, &weight) in codes.iter().zip(weights) {
                acc = acc.wrapping_add(i32::from(code) * weight);
            }
        }
        *out = finish(acc);
    }
}

/// Names of [`work`]'s counts.
pub const WORK: [&str; 6] =
    ["MACs", "outputs", "spread codes", "output rows", "input rows", "blocks"];

/// Counts of [`run`].
pub fn work(layer: &LayerShape) -> Work {
    let blocks = u64::from(layer.output.c).div_ceil(LANES as u64);
    let rows_out = blocks * u64::from(layer.output.h);
    let rows_in = blocks * u64::from(layer.input.h);
    Work::new(&[
        layer.macs(),
        rows_out * u64::from(layer.output.w) * LANES as u64,
        rows_in * u64::from(layer.input.w) * LANES as u64,
        rows_out,
        rows_in,
        blocks,
    ])
}
