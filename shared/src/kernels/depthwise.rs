//! Depthwise convolution by planes: four channels at a time are spread to one byte a code and one
//! row per channel, convolved row by row, requantized, and packed back.
//!
//! The last `kh` input rows of the four channels lie in a ring, padding included, so that the
//! inner loops know no borders. Weights are the canonical stream, as in [`super::reference`].

#[cfg(jaq_armv7em)]
use super::armv7em as isa;
#[cfg(jaq_armv7em)]
use super::armv7em_planes as transpose;
use super::codes;
#[cfg(not(jaq_armv7em))]
use super::portable as isa;
#[cfg(not(jaq_armv7em))]
use super::portable as transpose;
use super::requant::Finish;
use super::{Call, Work};
use crate::format::{Bits, LayerShape, Op, TensorFormat};

/// Channels worked on together: what a byte (2 bits), half-word (4) or word (8) holds.
pub const LANES: usize = 4;

/// Most rows of a window; larger ones go the general path.
const MOST_ROWS: usize = 8;
/// Largest window.
pub const MOST_TAPS: usize = 64;

/// Whether the layer can run here.
pub fn supports(layer: &LayerShape) -> bool {
    matches!(layer.op, Op::Depthwise(window)
        if window.taps() <= MOST_TAPS && usize::from(window.kh) <= MOST_ROWS && window.stride > 0)
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
            row: (usize::from(layer.input.w) + pads + 12).next_multiple_of(4),
            out: (usize::from(layer.output.w) + 4).next_multiple_of(4),
            ring: usize::from(window.kh).max(1),
        }
    }
}

/// Scratch of a layer in bytes.
pub fn scratch_bytes(layer: &LayerShape) -> usize {
    let plan = Plan::new(layer);
    LANES * (plan.row * plan.ring + plan.out)
}

/// Weights and requantization of one channel.
pub struct Lane {
    /// Weights of the window, row by row.
    pub weights: [i32; MOST_TAPS],
    /// How its outputs are requantized.
    pub finish: Finish,
}

/// One output row of a block of channels, on planes.
pub struct Rows<'a> {
    /// The ring of every lane.
    pub planes: &'a [u8],
    /// Distance of two lanes in `planes`.
    pub plane: usize,
    /// Where the window's rows start in a lane's ring.
    pub starts: &'a [usize],
    /// Bytes of a row.
    pub row: usize,
    /// Columns of the window.
    pub columns: usize,
    /// Stride along the row.
    pub stride: usize,
    /// Outputs.
    pub count: usize,
    /// Distance of two lanes of the output.
    pub out_plane: usize,
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
    let mut all_lanes: [Lane; LANES] = core::array::from_fn(|_| {
        let (requant, output) = (call.requant, bits.output);
        let finish = Finish { multiplier: 0, bias: 0, requant, output };
        Lane { weights: [0; MOST_TAPS], finish }
    });
    let mut all_packed = [isa::PackedLane::default(); LANES];
    for (block, (m, b)) in tables.enumerate() {
        let channels = all_lanes.iter_mut().zip(&mut all_packed).zip(m.iter().zip(b));
        for (channel, ((lane, packed), (&m, &b))) in channels.enumerate() {
            let first = (block * LANES + channel) * taps;
            for (tap, weight) in lane.weights.iter_mut().take(taps).enumerate() {
                *weight = codes::read_stream(bits.weight, call.weights, first + tap);
            }
            (lane.finish.multiplier, lane.finish.bias) = (m, b);
            *packed = isa::pack_lane(lane, usize::from(window.kw));
        }
        let lanes = all_lanes.get(..m.len()).unwrap_or_default();
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
                    transpose::spread(bits.input, pixels, in_pixel, offset, in_width, rows, plane);
                } else {
                    for row in rows.chunks_mut(plane) {
                        row.iter_mut().take(in_width).for_each(|at| *at = call.input_zero_point);
                    }
                }
                loaded += 1;
            }
            let mut starts = [0; MOST_ROWS];
            let mut slot = top % plan.ring;
            for start in starts.iter_mut().take(plan.ring) {
                *start = slot * plan.row;
                slot += 1;
                if slot == plan.ring {
                    slot = 0;
                }
            }
            let rows = Rows {
                planes,
                plane,
                starts: starts.get(..plan.ring).unwrap_or_default(),
                row: plan.row,
                columns: usize::from(window.kw),
                stride,
                count: out_width,
                out_plane: plan.out,
            };
            isa::rows(&rows, lanes, &mut all_packed, out);
            let pixels = output.get_mut(oy * out_width * out_pixel..).unwrap_or_default();
            let offset = block * piece(bits.output);
            transpose::pack(bits.output, out, plan.out, out_width, pixels, out_pixel, offset);
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

/// Names of [`work`]'s counts.
pub const WORK: [&str; 7] = [
    "assembly",
    "portable MACs",
    "portable outputs",
    "portable pixels",
    "lane rows",
    "rows",
    "weights",
];

/// Counts of [`run`], those of the assembly instruction by instruction.
pub fn work(layer: &LayerShape) -> Work {
    let window = layer.op.window();
    let blocks = u64::from(layer.output.c).div_ceil(LANES as u64);
    let rows_out = blocks * u64::from(layer.output.h);
    // Rows between windows further apart than they are high are never loaded.
    let rows_in = blocks * u64::from(layer.input.h);
    let lane_rows = u64::from(layer.output.c) * u64::from(layer.output.h);
    let (in_width, out_width) = (u64::from(layer.input.w), u64::from(layer.output.w));
    let spread = match layer.bits.input {
        Bits::B2 => 20,
        Bits::B3 | Bits::B4 => 25,
        Bits::B8 => 29,
    };
    let pack = match layer.bits.output {
        Bits::B2 => 19,
        Bits::B3 | Bits::B4 => 23,
        Bits::B8 => 29,
    };
    let turns = match (window.kh, window.kw, window.stride) {
        (3, 3, 1) => 59 * out_width.div_ceil(4),
        (3, 3, 2) => 77 * out_width.div_ceil(4),
        (5, 5, 1) => 88 * out_width.div_ceil(2),
        (5, 5, 2) => 98 * out_width.div_ceil(2),
        _ => 0,
    };
    let portable = if turns == 0 { lane_rows * out_width } else { 0 };
    // Pixels narrower than four codes, and the last of a row, are transposed in Rust.
    let piece = |bits: Bits| LANES * bits.storage() as usize / 8;
    let fours = |format: TensorFormat, width: u64| {
        if format.pixel_bytes() < piece(format.bits) { 0 } else { width / 4 }
    };
    let (fours_in, fours_out) =
        (fours(layer.input_format(), in_width), fours(layer.output_format(), out_width));
    let transposes = rows_in * spread * fours_in + rows_out * pack * fours_out;
    let pixels = rows_in * (in_width - 4 * fours_in) + rows_out * (out_width - 4 * fours_out);
    Work::new(&[
        transposes + lane_rows * turns,
        portable * window.taps() as u64,
        portable,
        pixels,
        lane_rows,
        rows_out + rows_in,
        u64::from(layer.output.c) * window.taps() as u64,
    ])
}
