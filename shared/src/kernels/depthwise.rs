//! Depthwise convolution by planes: four channels at a time are spread to one byte a code and one
//! row per channel, convolved row by row, requantized, and packed back.
//!
//! The last `kh` input rows of the four channels lie in a ring, padding included, so that the
//! inner loops know no borders. Weights are the canonical stream, as in [`super::reference`].

#[cfg(jaq_armv7em)]
use super::armv7em as isa;
use super::codes;
#[cfg(not(jaq_armv7em))]
use super::portable as isa;
use super::requant::Finish;
use super::{Call, Work};
use crate::format::{Bits, LayerShape, Op};

/// Channels worked on together: what a byte (2 bits), half-word (4) or word (8) holds.
pub const LANES: usize = 4;

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

/// Runs the layer.
#[inline(never)]
pub fn run(call: Call<'_>) {
    let Call { layer, scratch, output, .. } = call;
    let plan = Plan::new(layer);
    let window = layer.op.window();
    let plane = plan.row * plan.ring;
    let scratch: &mut [u8] = bytemuck::cast_slice_mut(scratch);
    let Some((planes, out)) = scratch.split_at_mut_checked(LANES * plane) else { return };
    let (taps, stride, bits) = (window.taps(), usize::from(window.stride), layer.bits);
    let (in_width, out_width) = (usize::from(layer.input.w), usize::from(layer.output.w));
    let (in_pixel, out_pixel) =
        (layer.input_format().pixel_bytes(), layer.output_format().pixel_bytes());
    let piece = |bits: Bits| LANES * bits.storage() as usize / 8;
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
        out.fill(0);
        // Rows of the padded input that are in the ring so far.
        let mut loaded = 0;
        for oy in 0..usize::from(layer.output.h) {
            let top = oy * stride;
            loaded = loaded.max(top);
            while loaded < top + plan.ring {
                let first = loaded % plan.ring * plan.row + usize::from(window.pads.left);
                let rows = planes.get_mut(first..).unwrap_or_default();
                let y = loaded.wrapping_sub(usize::from(window.pads.top));
                if y < usize::from(layer.input.h) {
                    let pixels = call.input.get(y * in_width * in_pixel..).unwrap_or_default();
                    let offset = block * piece(bits.input);
                    isa::spread(bits.input, pixels, in_pixel, offset, in_width, rows, plane);
                } else {
                    for row in rows.chunks_mut(plane) {
                        row.iter_mut().take(in_width).for_each(|at| *at = call.input_zero_point);
                    }
                }
                loaded += 1;
            }
            let lanes = planes.chunks_exact(plane).zip(out.chunks_exact_mut(plan.out));
            for (((plane, out), (&m, &b)), weights) in lanes.zip(m.iter().zip(b)).zip(&weights) {
                let row = |ky: usize| {
                    let slot = (top + ky) % plan.ring;
                    plane.get(slot * plan.row..(slot + 1) * plan.row).unwrap_or_default()
                };
                let finish =
                    Finish { multiplier: m, bias: b, requant: call.requant, output: bits.output };
                match (window.kh, window.kw, weights.first_chunk()) {
                    (3, 3, Some(weights)) => {
                        isa::row3(
                            [row(0), row(1), row(2)],
                            weights,
                            stride,
                            out,
                            out_width,
                            &finish,
                        );
                    }
                    (5, 5, _) => {
                        let rows = core::array::from_fn(row);
                        convolve::<5>(rows, weights, stride, out, out_width, &finish);
                    }
                    _ => {
                        let weights = weights.chunks(window.kw.into());
                        for (x, out) in out.iter_mut().take(out_width).enumerate() {
                            let mut acc = 0i32;
                            for (ky, weights) in weights.clone().take(plan.ring).enumerate() {
                                let codes = row(ky).iter().skip(x * stride);
                                for (&code, &weight) in codes.zip(weights) {
                                    acc = acc.wrapping_add(i32::from(code) * weight);
                                }
                            }
                            *out = finish.code(acc) as u8;
                        }
                    }
                }
            }
            let pixels = output.get_mut(oy * out_width * out_pixel..).unwrap_or_default();
            let offset = block * piece(bits.output);
            isa::pack(bits.output, out, plan.out, out_width, pixels, out_pixel, offset);
        }
    }
    // Filler behind the last block.
    let written = call.multipliers.len().div_ceil(LANES) * piece(bits.output);
    if written < out_pixel {
        for pixel in output.chunks_exact_mut(out_pixel) {
            pixel.iter_mut().skip(written).for_each(|byte| *byte = 0);
        }
    }
}

/// One output row of one channel for a K x K window.
#[inline(always)]
fn convolve<const K: usize>(
    rows: [&[u8]; K],
    weights: &[i32; MOST_TAPS],
    stride: usize,
    out: &mut [u8],
    count: usize,
    finish: &Finish,
) {
    for (x, out) in out.iter_mut().take(count).enumerate() {
        let mut acc = 0i32;
        for (row, weights) in rows.iter().zip(weights.chunks_exact(K)) {
            let Some(codes) = row.get(x * stride..x * stride + K) else { return };
            for (&code, &weight) in codes.iter().zip(weights) {
                acc = acc.wrapping_add(i32::from(code) * weight);
            }
        }
        *out = finish.code(acc) as u8;
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
