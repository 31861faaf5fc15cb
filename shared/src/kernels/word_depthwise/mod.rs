//! Depthwise convolution on cores that multiply 32 by 32 to 32 bits: every output is a sum of words
//! times weights, one word serving up to two outputs.
//!
//! The channels of a packed word are spread to rows of their own, of which a ring holds the last
//! `kh`. How codes lie in a row's words is the layer's [`Scheme`]; words that meet the same weight
//! in successive outputs lie side by side, so that one routine ([`Sums`]) serves every window,
//! stride and width. Sums are requantized to bytes ([`Finish`]), which [`Columns`] pack.
//! [`portable`] is the twin of the assembly in [`armv6m`] and [`rv32im`]. Must not know: files.

#[cfg(jaq_armv6m)]
mod armv6m;
#[cfg(any(jaq_armv6m, jaq_rv32im))]
mod call;
mod count;
mod finish;
mod plan;
#[cfg_attr(any(jaq_armv6m, jaq_rv32im), allow(dead_code))]
mod portable;
#[cfg(jaq_rv32im)]
mod rv32im;

#[cfg(jaq_armv6m)]
use armv6m as isa;
#[cfg(not(any(jaq_armv6m, jaq_rv32im)))]
use portable as isa;
#[cfg(jaq_rv32im)]
use rv32im as isa;

use super::Call;
use super::codes;
use super::depthwise::{MOST_TAPS, word_lanes};
use crate::format::{LayerShape, TensorFormat};
pub use count::work;
pub use finish::prepare;
use finish::{Rule, TABLES};
use plan::{MOST_SIDE, Plan};
pub use plan::{scratch_bytes, supports};

/// Sums computed side by side.
const WORDS: usize = 4;

/// Sums of words times weights: of every lane, `quads` times [`WORDS`].
struct Sums<'a> {
    /// Rows of all lanes.
    ring: &'a [u32],
    /// From one lane's row to the next.
    lane: usize,
    /// The byte of the first lane's rows where the words of a term begin.
    offsets: &'a [u32],
    /// Lane by lane a weight for every term, then [`TABLES`] words of another use.
    tables: &'a [u32],
    /// What a sum begins with.
    start: u32,
    /// Fours of sums of a lane.
    quads: usize,
    /// The sums.
    raw: &'a mut [u32],
}

/// Requantization of sums to bytes.
struct Finish<'a> {
    plan: &'a Plan,
    rule: Rule,
    /// As [`Sums::tables`].
    tables: &'a [u32],
    /// The sums.
    raw: &'a [u32],
    /// A byte for every output, [`Plan::plane`] a lane.
    out: &'a mut [u8],
}

/// Spreading of a row of packed words, one a pixel, to the rows of its lanes.
struct Spread<'a> {
    plan: &'a Plan,
    /// Bits of a code.
    storage: u32,
    line: &'a [u32],
    rows: &'a mut [u32],
}

/// Packing of bytes: one byte of every pixel of a row.
struct Columns<'a> {
    /// Bits of a code.
    storage: u32,
    /// Outputs of the lanes that share the byte.
    planes: &'a [u8],
    /// From one lane to the next.
    plane: usize,
    /// Pixels.
    width: usize,
    /// From the byte of the first pixel on.
    output: &'a mut [u8],
    /// From one pixel to the next.
    pixel_bytes: usize,
}

/// Runs the layer.
#[inline(never)]
pub fn run(call: Call<'_>) {
    let layer = call.layer;
    let plan = Plan::new(layer);
    let rule = Rule::new(&plan, layer, call.requant, call.multipliers, call.biases);
    let memory = &mut *call.scratch;
    let Some((ring, rest)) = memory.split_at_mut_checked(plan.slot * plan.rows) else { return };
    let Some((line, rest)) = rest.split_at_mut_checked(plan.line) else { return };
    let Some((offsets, rest)) = rest.split_at_mut_checked(plan.terms) else { return };
    let Some((tables, rest)) = rest.split_at_mut_checked(plan.tables()) else { return };
    let Some((raw, rest)) = rest.split_at_mut_checked(plan.lanes * plan.sums()) else { return };
    let out: &mut [u8] = bytemuck::cast_slice_mut(rest);
    line.fill(u32::from(call.input_zero_point) * codes::every(layer.bits.input));
    let mut rows = Rows {
        input: layer.input_format(),
        output: layer.output_format(),
        layer,
        rule,
        padding: u32::from(call.input_zero_point) * plan.scheme.ones(),
        plan,
        ring,
        line,
        offsets,
        tables,
        raw,
        out,
    };
    let lanes = rows.plan.lanes.max(1);
    let mut first = 0;
    for (m, b) in call.multipliers.chunks(lanes).zip(call.biases.chunks(lanes)) {
        rows.load(call.weights, first, m, b);
        rows.run(call.input, call.output, first, m.len());
        first += lanes;
    }
}

/// A block of channels, row by row.
struct Rows<'a> {
    layer: &'a LayerShape,
    input: TensorFormat,
    output: TensorFormat,
    plan: Plan,
    rule: Rule,
    /// A word of the ring where the input has no row.
    padding: u32,
    ring: &'a mut [u32],
    line: &'a mut [u32],
    offsets: &'a mut [u32],
    tables: &'a mut [u32],
    raw: &'a mut [u32],
    out: &'a mut [u8],
}

impl Rows<'_> {
    /// Weights and tables of the channels from `first` on.
    #[inline(never)]
    fn load(&mut self, weights: &[u8], first: usize, m: &[i32], b: &[i32]) {
        let window = self.layer.op.window();
        let taps = window.taps();
        let mut codes = [0i8; MOST_TAPS];
        let codes = codes.get_mut(..taps).unwrap_or_default();
        let tables = self.tables.chunks_exact_mut((self.plan.terms + TABLES).max(1));
        for (lane, (table, (&m, &b))) in tables.zip(m.iter().zip(b)).enumerate() {
            codes::read_run(self.layer.bits.weight, weights, (first + lane) * taps, codes);
            if self.rule.negates(m) {
                codes.iter_mut().for_each(|w| *w = -*w);
            }
            let Some((terms, table)) = table.split_at_mut_checked(self.plan.terms) else { return };
            self.plan.scheme.weights(codes, terms);
            if let [x, y, z] = table {
                [*x, *y, *z] = self.rule.table(m, b);
            }
        }
    }

    /// All rows of `present` channels.
    #[inline(never)]
    fn run(&mut self, input: &[u8], output: &mut [u8], first: usize, present: usize) {
        let window = self.layer.op.window();
        let (height, stride) = (self.plan.rows, usize::from(window.stride));
        let (above, in_height) = (usize::from(window.pads.top), usize::from(self.input.shape.h));
        let (lanes, storage) = (word_lanes(self.input.bits), self.input.bits.storage());
        let first_word = first >> lanes.trailing_zeros();
        let pitch_in = self.input.pixel_bytes() * usize::from(self.input.shape.w);
        // Where the rows under the window begin in the ring.
        let mut slots = [0; MOST_SIDE];
        slots.iter_mut().enumerate().for_each(|(row, slot)| *slot = row * self.plan.slot);
        let slots = slots.get_mut(..height).unwrap_or_default();
        if present < self.plan.lanes {
            self.out.fill(0);
        }
        let pitch = self.output.pixel_bytes() * usize::from(self.output.shape.w);
        let mut bottom = 0;
        for oy in 0..usize::from(self.output.shape.h) {
            let top = oy * stride;
            if oy > 0 {
                for _ in 0..stride.min(height) {
                    rotate(slots);
                }
            }
            for row in bottom.max(top)..top + height {
                let at = slots.get(row - top).copied().unwrap_or(0);
                let rows = self.ring.get_mut(at..at + self.plan.slot).unwrap_or_default();
                let y = row.wrapping_sub(above);
                if y >= in_height {
                    rows.fill(self.padding);
                    continue;
                }
                let (mut rest, mut word, mut left) = (rows, first_word, present);
                while let Some((rows, next)) = rest.split_at_mut_checked(lanes * self.plan.lane) {
                    gather(self.input, pitch_in, input, y, word, self.plan.start, self.line);
                    isa::spread(Spread { plan: &self.plan, storage, line: self.line, rows });
                    (rest, word) = (next, word + 1);
                    match left.checked_sub(lanes) {
                        None | Some(0) => break,
                        Some(more) => left = more,
                    }
                }
            }
            bottom = top + height;
            self.plan.place(slots, self.offsets);
            let tables = present * (self.plan.terms + TABLES);
            let tables = self.tables.get(..tables).unwrap_or_default();
            isa::sums(Sums {
                ring: self.ring,
                lane: self.plan.lane,
                offsets: self.offsets,
                tables,
                start: self.plan.start_of_sums,
                quads: self.plan.quads,
                raw: self.raw,
            });
            isa::finish(Finish {
                plan: &self.plan,
                rule: self.rule,
                tables,
                raw: self.raw,
                out: self.out,
            });
            self.pack(output.get_mut(oy * pitch..).unwrap_or_default(), first);
        }
    }

    /// Packs a row.
    fn pack(&self, output: &mut [u8], first: usize) {
        let (storage, pixel_bytes) = (self.output.bits.storage(), self.output.pixel_bytes());
        let shared = (8 >> storage.trailing_zeros()) as usize;
        let mut rest = &*self.out;
        let mut column = (first * storage as usize) >> 3;
        while let Some((planes, next)) = rest.split_at_checked(shared * self.plan.plane) {
            let Some(output) = output.get_mut(column..).filter(|_| column < pixel_bytes) else {
                return;
            };
            isa::columns(Columns {
                storage,
                planes,
                plane: self.plan.plane,
                width: usize::from(self.output.shape.w),
                output,
                pixel_bytes,
            });
            (rest, column) = (next, column + 1);
        }
    }
}

/// The first becomes the last.
fn rotate(slots: &mut [usize]) {
    for i in 1..slots.len() {
        slots.swap(i - 1, i);
    }
}

/// Copies one word of each pixel of row `y` to the line.
#[inline(never)]
fn gather(
    format: TensorFormat,
    pitch: usize,
    input: &[u8],
    y: usize,
    word: usize,
    start: usize,
    line: &mut [u32],
) {
    let step = format.pixel_bytes();
    let line = line.iter_mut().skip(start).take(format.shape.w.into());
    let row = input.get(y * pitch..(y + 1) * pitch).unwrap_or_default();
    match bytemuck::try_cast_slice::<u8, u32>(row) {
        Ok(words) if step >= 4 => {
            let mut at = word;
            for to in line {
                *to = words.get(at).copied().unwrap_or(0);
                at += step / 4;
            }
        }
        _ => {
            let mut at = 4 * word;
            for to in line {
                let rest = row.get(at..).unwrap_or_default();
                *to = codes::small_word(rest.get(..step.min(4)).unwrap_or(rest));
                at += step;
            }
        }
    }
}

#[cfg(test)]
mod tests;
