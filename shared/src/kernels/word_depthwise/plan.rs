//! How codes lie in the words of a row, and the sizes that follow.

use super::WORDS;
use super::finish::TABLES;
use crate::format::{LayerShape, Op};
use crate::kernels::depthwise::{LANES, MOST_TAPS, word_lanes};

/// Most rows and columns of a window.
pub const MOST_SIDE: usize = 8;
/// Largest stride.
const MOST_STRIDE: u8 = 3;

/// How the codes of a row lie in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Four pixels, two further each word; with the weights of a row `w2 + w1 * 2^8 + w0 * 2^16`
    /// the two upper bytes of a sum are outputs, lifted to be positive.
    Bytes,
    /// Two pixels, those under the same tap of two outputs; both halves of a sum are outputs, the
    /// upper less the borrow of the lower.
    Pairs,
    /// One pixel; a sum is an output.
    Single,
}

impl Scheme {
    /// The first whose fields hold every sum.
    fn new(layer: &LayerShape) -> Scheme {
        let (window, bits) = (layer.op.window(), layer.bits);
        let most = bits.input.max_unsigned() * window.taps() as u32;
        if most * bits.weight.max_unsigned() < 1 << 8 && window.kw == 3 && window.stride <= 2 {
            Scheme::Bytes
        } else if most * bits.weight.half() < 1 << 15 {
            Scheme::Pairs
        } else {
            Scheme::Single
        }
    }

    /// A one in every field.
    pub const fn ones(self) -> u32 {
        match self {
            Scheme::Bytes => 0x0101_0101,
            Scheme::Pairs => 0x0001_0001,
            Scheme::Single => 1,
        }
    }

    /// Words that the codes of a window are multiplied by.
    pub fn weights(self, codes: &[i8], terms: &mut [u32]) {
        if self == Scheme::Bytes {
            for (term, row) in terms.iter_mut().zip(codes.as_chunks::<3>().0) {
                let [w0, w1, w2] = row.map(i32::from);
                *term = (w2 + (w1 << 8) + (w0 << 16)) as u32;
            }
            return;
        }
        for (term, &code) in terms.iter_mut().zip(codes) {
            *term = i32::from(code) as u32;
        }
    }
}

/// Sizes of a layer.
pub struct Plan {
    /// Layout of a row.
    pub scheme: Scheme,
    /// Channels worked on together, whole words of inputs and outputs.
    pub lanes: usize,
    /// Outputs of a sum.
    pub outputs: usize,
    /// Distance of two outputs in pixels.
    pub stride: usize,
    /// Pixels from one word of a run to the next.
    pub unit: usize,
    /// Runs of words: taps whose words do not lie in one run.
    pub phases: usize,
    /// Fours of sums of a row.
    pub quads: usize,
    /// Words of a run.
    pub run: usize,
    /// Words of a lane's row.
    pub lane: usize,
    /// Words of a row of all lanes.
    pub slot: usize,
    /// Rows of the ring: those of the window.
    pub rows: usize,
    /// Columns of the window.
    columns: usize,
    /// Words of a line of pixels.
    pub line: usize,
    /// Place of the first input pixel in the line.
    pub start: usize,
    /// Words multiplied for a sum.
    pub terms: usize,
    /// Bytes of a lane's outputs.
    pub plane: usize,
    /// What is added to every output of [`Scheme::Bytes`].
    pub lift: u32,
    /// What sums begin with.
    pub start_of_sums: u32,
}

impl Plan {
    /// The plan of a layer.
    pub fn new(layer: &LayerShape) -> Plan {
        let window = layer.op.window();
        let scheme = Scheme::new(layer);
        let stride = usize::from(window.stride).max(1);
        let (rows, columns) = (usize::from(window.kh), usize::from(window.kw));
        let (outputs, unit, pixels): (usize, usize, usize) = match scheme {
            Scheme::Bytes => (if stride == 1 { 2 } else { 1 }, 2, 3),
            Scheme::Pairs => (2, 2 * stride, stride),
            Scheme::Single => (1, stride, 0),
        };
        let (terms, phases, beyond) = match scheme {
            Scheme::Bytes => (rows, 1, 0),
            _ => (rows * columns, unit.min(columns), columns.saturating_sub(1) / unit.max(1)),
        };
        let shift = 2 + outputs.trailing_zeros();
        let quads = (usize::from(layer.output.w) + (1 << shift) - 1) >> shift;
        // Pairs are spread two words at a time.
        let run = (WORDS * quads + beyond + 1) & !1;
        let word = word_lanes(layer.bits.input).max(word_lanes(layer.bits.output));
        let lanes = LANES.min((usize::from(layer.output.c) + word - 1) & !(word - 1));
        let lane = phases * run;
        let lift = match scheme {
            Scheme::Bytes => {
                let bits = layer.bits;
                bits.input.max_unsigned() * bits.weight.half() * window.taps() as u32
            }
            _ => 0,
        };
        Plan {
            scheme,
            lanes,
            outputs,
            stride,
            unit,
            phases,
            quads,
            run,
            lane,
            slot: lanes * lane,
            rows,
            columns,
            line: unit * (run - 1) + phases + pixels,
            start: usize::from(window.pads.left),
            terms,
            plane: WORDS * quads * outputs,
            lift,
            start_of_sums: lift.wrapping_mul(scheme.ones()),
        }
    }

    /// Sums of a lane's row.
    pub const fn sums(&self) -> usize {
        WORDS * self.quads
    }

    /// Words of the lanes' tables.
    pub const fn tables(&self) -> usize {
        self.lanes * (self.terms + TABLES)
    }

    /// The bytes where the words of every term begin, by the words where the rows under the window do.
    pub fn place(&self, slots: &[usize], offsets: &mut [u32]) {
        if self.scheme == Scheme::Bytes {
            offsets.iter_mut().zip(slots).for_each(|(to, &slot)| *to = 4 * slot as u32);
            return;
        }
        // No chunks: their number takes a division, which the smallest cores do not have.
        let mut offsets = offsets.iter_mut();
        for &slot in slots {
            let (mut phase, mut at) = (0, slot);
            for offset in offsets.by_ref().take(self.columns) {
                *offset = 4 * at as u32;
                (phase, at) = (phase + 1, at + self.run);
                if phase == self.unit {
                    (phase, at) = (0, at - self.unit * self.run + 1);
                }
            }
        }
    }

    const fn bytes(&self) -> usize {
        let words = self.slot * self.rows + self.line + self.terms + self.tables();
        4 * (words + self.lanes * self.sums()) + self.lanes * self.plane
    }
}

/// Whether the layer can run here.
pub fn supports(layer: &LayerShape) -> bool {
    matches!(layer.op, Op::Depthwise(window)
        if window.taps() > 0
            && window.taps() <= MOST_TAPS
            && usize::from(window.kh.max(window.kw)) <= MOST_SIDE
            && (1..=MOST_STRIDE).contains(&window.stride))
}

/// Scratch of a layer in bytes.
pub fn scratch_bytes(layer: &LayerShape) -> usize {
    Plan::new(layer).bytes()
}
