//! Rows and transposes of depthwise layers in Rust: what runs where a core has no assembly, and
//! the twin that the assembly is held against.

use super::codes::{put_small_word, small_word};
use super::depthwise::{Block, Lane, Memory, OCTET, Planes, word_lanes};

/// Convolves a block of channels row by row.
pub struct Rows(Block);

impl Rows {
    /// For blocks as described.
    pub fn new(block: Block) -> Rows {
        Rows(block)
    }

    /// Computes the outputs of `lanes`, channels `first` and on.
    pub fn run(
        &self,
        memory: &mut Memory<'_>,
        input: &[u8],
        output: &mut [u8],
        first: usize,
        lanes: &[Lane],
    ) {
        let block = &self.0;
        let window = block.window;
        let (ring, stride) = (usize::from(window.kh), usize::from(window.stride));
        let (height, above) = (usize::from(block.input.shape.h), usize::from(window.pads.top));
        // Rows of the padded input that are in the ring so far.
        let mut loaded = 0;
        for oy in 0..usize::from(block.output.shape.h) {
            let top = oy * stride;
            for row in loaded.max(top)..top + ring {
                let at = row % ring * block.slot;
                let rows = memory.ring.get_mut(at..at + block.slot).unwrap_or_default();
                let y = row.wrapping_sub(above);
                if y >= height {
                    rows.fill(block.padding);
                    continue;
                }
                let in_lanes = word_lanes(block.input.bits);
                let rows = rows.chunks_exact_mut((in_lanes * block.words).max(1));
                for (word, rows) in rows.take(lanes.len().div_ceil(in_lanes)).enumerate() {
                    gather(block, input, y, first / in_lanes + word, memory.line);
                    spread(block, memory.line, rows);
                }
            }
            loaded = top + ring;
            let starts = |row: usize| (top + row) % ring * block.slot;
            convolve(block, memory.ring, starts, lanes, memory.out);
            let out_lanes = word_lanes(block.output.bits);
            let planes = memory.out.chunks((out_lanes * block.out_plane).max(1));
            for (word, planes) in planes.take(lanes.len().div_ceil(out_lanes)).enumerate() {
                pack(block, planes, output, oy, first / out_lanes + word);
            }
        }
    }
}

/// Copies one word of each pixel of row `y` to the line.
fn gather(block: &Block, input: &[u8], y: usize, word: usize, line: &mut [u32]) {
    let (step, width) = (block.input.pixel_bytes(), usize::from(block.input.shape.w));
    let pixels = input.get(y * width * step..).unwrap_or_default();
    let pixels = pixels.chunks_exact(step.max(1)).take(width);
    for (to, pixel) in line.iter_mut().skip(block.start).zip(pixels) {
        *to = small_word(pixel.get(4 * word..).unwrap_or_default());
    }
}

/// Spreads the line to a row of every lane.
fn spread(block: &Block, line: &[u32], rows: &mut [u32]) {
    let (planes, words) = (block.planes, block.words);
    let storage = block.input.bits.storage() as usize;
    for (word, line) in line.chunks_exact(planes.pixels()).take(words).enumerate() {
        for lane in 0..32 / storage {
            let places = line.iter().enumerate().fold(0, |places, (i, &pixel)| {
                let code = pixel >> (lane * storage) & ((1 << storage) - 1);
                places | code << (i * planes.spacing())
            });
            if let Some(target) = rows.get_mut(planes.index(lane, words, word)) {
                *target = places;
            }
        }
    }
}

/// One output row of every lane into `out`.
fn convolve(
    block: &Block,
    ring: &[u32],
    starts: impl Fn(usize) -> usize,
    lanes: &[Lane],
    out: &mut [u8],
) {
    let planes = block.planes;
    // Distance of a lane's words; the first place under the window.
    let (step, lead) = match planes {
        Planes::Bytes => (OCTET, 2),
        Planes::Triples => (OCTET, 1),
        Planes::Halves => (1, 0),
    };
    let columns = usize::from(block.window.kw).max(1);
    let outs = out.chunks_exact_mut(block.out_plane.max(1));
    for (index, (lane, out)) in lanes.iter().zip(outs).enumerate() {
        let first = planes.index(index, block.words, 0);
        for (x, out) in out.iter_mut().take(block.output.shape.w.into()).enumerate() {
            let mut acc = 0i32;
            let rows = lane.weights.chunks(columns.max(1)).take(block.window.kh.into());
            for (row, weights) in rows.enumerate() {
                let start = starts(row) + first;
                let place = x * usize::from(block.window.stride) + lead;
                let (mut word, mut at) = (place / planes.pixels(), place % planes.pixels());
                for &weight in weights {
                    let codes = ring.get(start + word * step).copied().unwrap_or(0);
                    let code = codes >> (at * planes.spacing()) & 0xff;
                    acc = acc.wrapping_add(code as i32 * i32::from(weight));
                    at += 1;
                    if at == planes.pixels() {
                        (word, at) = (word + 1, 0);
                    }
                }
            }
            *out = lane.code(block.rule, acc) as u8;
        }
    }
}

/// Packs the output row `y` of the lanes of one word.
fn pack(block: &Block, planes: &[u8], output: &mut [u8], y: usize, word: usize) {
    let storage = block.output.bits.storage() as usize;
    let (step, width) = (block.output.pixel_bytes(), usize::from(block.output.shape.w));
    let pixels = output.get_mut(y * width * step..).unwrap_or_default();
    for (x, pixel) in pixels.chunks_exact_mut(step.max(1)).take(width).enumerate() {
        let packed = (0..32 / storage).fold(0, |packed, lane| {
            let code = planes.get(lane * block.out_plane + x).copied().unwrap_or(0);
            packed | u32::from(code) << (lane * storage)
        });
        put_small_word(packed, pixel.get_mut(4 * word..).unwrap_or_default());
    }
}
