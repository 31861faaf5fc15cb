//! Depthwise convolution by planes: the channels of one packed word at a time are spread to rows
//! of their own, convolved row by row, requantized, and packed back.
//!
//! An input row is gathered into a line of words, one a pixel, padding included, and spread to
//! the ring, which holds the last `kh` rows; the inner loops know no borders. How a row lies in
//! words ([`Planes`]) is chosen so that one multiplication serves several outputs. Weights are the
//! canonical stream, as in [`super::reference`].

mod count;

use super::Call;
#[cfg(jaq_armv7em)]
use super::armv7em as isa;
use super::codes;
#[cfg(not(jaq_armv7em))]
use super::portable_planes as isa;
use super::requant::{self, Finish};
use crate::format::{Bits, LayerShape, Op, Requant, TensorFormat, Window};

pub use count::work;

/// Most channels worked on together: those of a word of 2-bit codes.
pub const LANES: usize = 16;
/// Lanes whose words alternate in [`Planes::Bytes`] and [`Planes::Triples`].
pub const OCTET: usize = 8;
/// Most rows of a window; larger ones go the general path.
const MOST_ROWS: usize = 8;
/// Largest window.
pub const MOST_TAPS: usize = 64;
/// What is added to the accumulators of [`Rule::Thresholds`]; they stay within a byte.
pub const LIFT: i32 = 64;

/// Whether the layer can run here.
pub fn supports(layer: &LayerShape) -> bool {
    matches!(layer.op, Op::Depthwise(window)
        if window.taps() <= MOST_TAPS && usize::from(window.kh) <= MOST_ROWS && window.stride > 0)
}

/// How a row of codes lies in words. With A = sum(a[i] * 2^(s*i)) of P pixels and the weights of
/// a row as W = w2 + w1 * 2^s + w0 * 2^2s, the fields of A * W are outputs: all P lowest are
/// complete once the two highest of the word before are carried in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planes {
    /// Four pixels, 8 bits apart; lanes alternate by octets.
    Bytes,
    /// Three pixels, 12 bits apart; lanes alternate by octets.
    Triples,
    /// Two pixels, 16 bits apart, for pairs of 16-bit operands; lane after lane.
    Halves,
}

impl Planes {
    /// What serves the layer.
    pub fn of(layer: &LayerShape, requant: Requant) -> Planes {
        let (window, bits) = (layer.op.window(), layer.bits);
        let three = (window.kh, window.kw, window.stride) == (3, 3, 1);
        if !three || bits.weight == Bits::B8 || bits.input == Bits::B8 {
            return Planes::Halves;
        }
        match (bits.weight, bits.input, bits.output, requant) {
            (Bits::B2, Bits::B2, Bits::B2, Requant::Narrow) => Planes::Bytes,
            (_, _, _, Requant::General { .. }) => Planes::Halves,
            _ => Planes::Triples,
        }
    }

    /// Pixels of a word.
    pub const fn pixels(self) -> usize {
        match self {
            Planes::Bytes => 4,
            Planes::Triples => 3,
            Planes::Halves => 2,
        }
    }

    /// Bits between two pixels.
    pub const fn spacing(self) -> usize {
        match self {
            Planes::Bytes => 8,
            Planes::Triples => 12,
            Planes::Halves => 16,
        }
    }

    /// Places before the first padded pixel: the last two of the first word precede its outputs.
    const fn lead(self) -> usize {
        match self {
            Planes::Bytes => 2,
            Planes::Triples => 1,
            Planes::Halves => 0,
        }
    }

    /// Outputs come in multiples of this.
    pub const fn step(self) -> usize {
        match self {
            Planes::Bytes => 8,
            Planes::Triples => 6,
            Planes::Halves => 2,
        }
    }

    /// Index of a lane's word in a row of `words` a lane.
    pub const fn index(self, lane: usize, words: usize, word: usize) -> usize {
        match self {
            Planes::Halves => lane * words + word,
            _ => lane / OCTET * OCTET * words + word * OCTET + lane % OCTET,
        }
    }
}

/// How the outputs of a layer are requantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// 2-bit outputs count the thresholds they pass; the multipliers' table has `T - 1 + LIFT` in
    /// three bytes, and in the fourth whether the weights are to be negated.
    Thresholds,
    /// By multiplication.
    Scale(Requant, Bits),
}

/// Sizes of a layer's planes.
struct Plan {
    planes: Planes,
    /// Channels worked on together, whole words of inputs and outputs.
    lanes: usize,
    /// Words of a lane's row.
    words: usize,
    /// Outputs of a row, padded to [`Planes::step`].
    outputs: usize,
    /// Bytes of a lane's output row.
    out: usize,
    /// Rows of the ring.
    ring: usize,
    /// Place of the first input pixel in the line.
    start: usize,
    /// Words of a row of output pixels narrower than a word.
    narrow: usize,
}

/// Channels of a packed word.
pub const fn word_lanes(bits: Bits) -> usize {
    32 / bits.storage() as usize
}

impl Plan {
    fn new(layer: &LayerShape, planes: Planes) -> Plan {
        let window = layer.op.window();
        let outputs = usize::from(layer.output.w).next_multiple_of(planes.step());
        let words = match planes {
            Planes::Halves => {
                let places = (outputs - 1) * usize::from(window.stride) + usize::from(window.kw);
                (places + 1).div_ceil(2).next_multiple_of(2)
            }
            _ => 1 + outputs / planes.pixels(),
        };
        let (input, output) = (word_lanes(layer.bits.input), word_lanes(layer.bits.output));
        let narrow = layer.output_format().pixel_bytes() < 4;
        Plan {
            planes,
            lanes: LANES.min(usize::from(layer.output.c).next_multiple_of(input.max(output))),
            words,
            outputs,
            // Whole fours, and the last triple's fourth byte.
            out: (outputs + 4).next_multiple_of(4),
            ring: usize::from(window.kh).max(1),
            start: usize::from(window.pads.left) + planes.lead(),
            narrow: if narrow { usize::from(layer.output.w) } else { 0 },
        }
    }

    /// Words of one row of all lanes.
    const fn slot(&self) -> usize {
        self.lanes * self.words
    }

    /// Words of the line.
    const fn line(&self) -> usize {
        self.words * self.planes.pixels()
    }

    const fn bytes(&self) -> usize {
        4 * (self.slot() * self.ring + self.line() + self.narrow) + self.lanes * self.out
    }
}

/// Scratch of a layer in bytes, whatever its requantization.
pub fn scratch_bytes(layer: &LayerShape) -> usize {
    let of = |requant| Plan::new(layer, Planes::of(layer, requant)).bytes();
    of(Requant::Narrow).max(of(Requant::Wide)).max(of(Requant::General { shift: 1 }))
}

/// The rule of a layer.
fn rule(layer: &LayerShape, requant: Requant) -> Rule {
    match Planes::of(layer, requant) {
        Planes::Bytes => Rule::Thresholds,
        _ => Rule::Scale(requant, layer.bits.output),
    }
}

/// Turns the tables, zero point included, into the stored ones.
pub fn prepare(layer: &LayerShape, requant: Requant, weights: &[i8], m: &mut [i32], b: &[i32]) {
    if rule(layer, requant) != Rule::Thresholds {
        return requant::prepare_upper(requant, layer.bits.output, m);
    }
    let most = layer.bits.input.max_unsigned() as i32;
    let rows = weights.chunks_exact(layer.reduction().max(1));
    for ((m, &b), row) in m.iter_mut().zip(b).zip(rows) {
        // Falling requantization rises on negated weights.
        let sign = if *m < 0 { -1 } else { 1 };
        let sum = |positive: bool| -> i32 {
            let terms = row.iter().map(|&w| i32::from(w) * sign * most);
            terms.filter(|&term| (term > 0) == positive).sum()
        };
        let reach = sum(false)..=sum(true);
        let above = reach.end() + 1;
        let mut packed = u32::from(sign < 0) << 24;
        for code in 1..=3 {
            let passes = |&acc: &i32| {
                let found = requant::narrow(acc * sign, *m, b, layer.bits.output);
                found >= code
            };
            let threshold = reach.clone().find(passes).unwrap_or(above);
            packed |= ((threshold - 1 + LIFT) as u32 & 0xff) << (8 * (code - 1));
        }
        *m = packed as i32;
    }
}

/// Weights and requantization of one channel.
#[derive(Clone, Copy)]
pub struct Lane {
    /// Weights of the window, row by row.
    pub weights: [i8; MOST_TAPS],
    /// Stored multiplier, or the thresholds.
    pub multiplier: i32,
    /// Stored bias.
    pub bias: i32,
}

impl Lane {
    const NONE: Lane = Lane { weights: [0; MOST_TAPS], multiplier: 0, bias: 0 };

    /// The output code of an accumulator.
    pub fn code(&self, rule: Rule, acc: i32) -> u32 {
        let (multiplier, bias) = (self.multiplier, self.bias);
        match rule {
            Rule::Thresholds => {
                let passed = |i: u32| (multiplier >> (8 * i) & 0xff) < acc + LIFT;
                (0..3).map(|i| u32::from(passed(i))).sum()
            }
            Rule::Scale(requant, output) => Finish { multiplier, bias, requant, output }.code(acc),
        }
    }
}

/// One block of channels of a layer: what [`isa`]'s `Rows` are made from.
#[derive(Clone, Copy)]
pub struct Block {
    /// Input and output tensor.
    pub input: TensorFormat,
    /// See `input`.
    pub output: TensorFormat,
    /// Width of the weights.
    #[cfg_attr(not(jaq_armv7em), allow(dead_code))]
    pub weight: Bits,
    /// The window.
    pub window: Window,
    /// Layout of the ring.
    pub planes: Planes,
    /// How outputs are requantized.
    pub rule: Rule,
    /// Words of a lane's row.
    pub words: usize,
    /// Words of a row of all lanes.
    pub slot: usize,
    /// Place of the first pixel in the line.
    pub start: usize,
    /// Outputs of a row, padded.
    #[cfg_attr(not(jaq_armv7em), allow(dead_code))]
    pub outputs: usize,
    /// Distance of two lanes of the output.
    pub out_plane: usize,
    /// A word of the ring where the input has no row.
    pub padding: u32,
}

/// Working memory of a block.
pub struct Memory<'a> {
    /// The last `kh` rows of all lanes.
    pub ring: &'a mut [u32],
    /// A row of packed words, its padding filled in.
    pub line: &'a mut [u32],
    /// A row of output words, for pixels narrower than a word.
    #[cfg_attr(not(jaq_armv7em), allow(dead_code))]
    pub narrow: &'a mut [u32],
    /// An output row of all lanes, a byte a code.
    pub out: &'a mut [u8],
}

/// Runs the layer.
#[inline(never)]
pub fn run(call: Call<'_>) {
    let layer = call.layer;
    let planes = Planes::of(layer, call.requant);
    let plan = Plan::new(layer, planes);
    let slot = plan.slot();
    let Some((ring, rest)) = call.scratch.split_at_mut_checked(slot * plan.ring) else { return };
    let Some((line, rest)) = rest.split_at_mut_checked(plan.line()) else { return };
    let Some((narrow, rest)) = rest.split_at_mut_checked(plan.narrow) else { return };
    let mut memory = Memory { ring, line, narrow, out: bytemuck::cast_slice_mut(rest) };
    let zero = u32::from(call.input_zero_point);
    memory.line.fill(zero * codes::every(layer.bits.input));
    let window = layer.op.window();
    let rule = rule(layer, call.requant);
    let rows = isa::Rows::new(Block {
        input: layer.input_format(),
        output: layer.output_format(),
        weight: layer.bits.weight,
        window,
        planes,
        rule,
        words: plan.words,
        slot,
        start: plan.start,
        outputs: plan.outputs,
        out_plane: plan.out,
        padding: zero
            * match planes {
                Planes::Bytes => 0x0101_0101,
                Planes::Triples => 0x0100_1001,
                Planes::Halves => 0x0001_0001,
            },
    });
    let taps = window.taps();
    let mut lanes = [Lane::NONE; LANES];
    let tables =
        call.multipliers.chunks(plan.lanes.max(1)).zip(call.biases.chunks(plan.lanes.max(1)));
    for (block, (m, b)) in tables.enumerate() {
        let first = block * plan.lanes;
        for (i, (lane, (&m, &b))) in lanes.iter_mut().zip(m.iter().zip(b)).enumerate() {
            let weights = lane.weights.get_mut(..taps).unwrap_or_default();
            codes::read_run(layer.bits.weight, call.weights, (first + i) * taps, weights);
            (lane.multiplier, lane.bias) = (m, b);
            if rule == Rule::Thresholds && m >> 24 != 0 {
                weights.iter_mut().for_each(|w| *w = -*w);
            }
        }
        let present = lanes.get(..m.len()).unwrap_or_default();
        if present.len() < plan.lanes {
            memory.out.fill(0);
        }
        rows.run(&mut memory, call.input, call.output, first, present);
    }
}
