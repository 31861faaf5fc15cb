//! How weights meet the words of two pixels, and what fits.
//!
//! - Quad: `w0 + w1 * 2^8` of two channels, unsigned; the product's four fields of 8 bits are
//!   `w0 * a0`, `w1 * a0`, `w0 * a1`, `w1 * a1`.
//! - Pair: one signed weight; two fields of 16 bits, the upper less the borrow of the lower.
//! - Single: one signed weight and single pixels: wide products, whole accumulators.
//!
//! A word of packed weights holds the next positions of one channel (Pair, Single) or of two
//! (Quad: the low half has 4 positions of both, a byte each, then the high half). Must not know: loops.

use super::BLOCK;
use crate::format::{Bits, LayerShape};

/// Sums shorter than this do not pay for four fields.
const SHORTEST: u32 = 12;

/// Operand packing of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Two channels a word.
    Quad {
        /// Bits of a packed weight.
        stored: u32,
        /// What makes weights unsigned.
        offset: u32,
        /// Positions that fit the fields.
        chunk: usize,
    },
    /// One channel, two pixels.
    Pair {
        /// Bits of a packed weight.
        stored: u32,
        /// Positions that fit the fields.
        chunk: usize,
    },
    /// One channel, one pixel; weights of 8 bits.
    Single,
}

impl Scheme {
    /// The packing for the widths and the length of the reduction.
    pub fn new(weight: Bits, input: Bits, reduction: usize) -> Scheme {
        let (a, w, offset) = (input.max_unsigned(), weight.max_unsigned(), weight.half());
        let stored = if weight == Bits::B3 { 4 } else { weight.get() };
        let most = |sum: u32, product: u32| sum.checked_div(product).unwrap_or(0);
        // Whole words of weights; their positions are a power of two.
        let whole = |products: u32, unit: u32| (products & !(unit - 1)).max(unit) as usize;
        let products = most(255, a * w);
        // Sums of fields lie in 16 bits, with the lift.
        let fits = u64::from(a * (w + offset)) * (reduction as u64 + 16) < 1 << 16;
        if stored <= 4 && products >= SHORTEST && fits {
            let chunk = whole(products, 16 >> stored.trailing_zeros());
            return Scheme::Quad { stored, offset, chunk };
        }
        match most(i16::MAX as u32, a * offset) {
            0 | 1 => Scheme::Single,
            products => {
                Scheme::Pair { stored, chunk: whole(products, 32 >> stored.trailing_zeros()) }
            }
        }
    }

    /// Positions in a word of packed weights.
    pub const fn unit(&self) -> usize {
        match self {
            // Widths are powers of two; a division could panic, and takes the smallest cores long.
            Scheme::Quad { stored, .. } => 16 >> stored.trailing_zeros(),
            Scheme::Pair { stored, .. } => 32 >> stored.trailing_zeros(),
            Scheme::Single => 4,
        }
    }

    /// Positions summed up before fields are extracted.
    pub const fn chunk(&self) -> usize {
        match self {
            Scheme::Quad { chunk, .. } | Scheme::Pair { chunk, .. } => *chunk,
            Scheme::Single => usize::MAX,
        }
    }

    /// Output pixels computed together.
    pub const fn group(&self) -> usize {
        match self {
            Scheme::Single => super::WORDS,
            _ => super::PIXELS,
        }
    }

    /// Writes one weight into a block of zeros that has `positions` of every channel.
    pub fn put(&self, block: &mut [u8], positions: usize, lane: usize, position: usize, w: i32) {
        let (word, at) = (position / self.unit(), (position % self.unit()) as u32);
        let row = positions / self.unit();
        let (word, shift, field) = match *self {
            Scheme::Quad { stored, offset, .. } => {
                // Positions of a half: those of a byte.
                let half = 8 / stored;
                let shift = at / half * 16 + lane as u32 % 2 * 8 + at % half * stored;
                (lane / 2 * row + word, shift, (w + offset as i32) as u32)
            }
            Scheme::Pair { stored, .. } => {
                (lane * row + word, at * stored, w as u32 & ((1 << stored) - 1))
            }
            Scheme::Single => (lane * row + word, at * 8, w as u32 & 0xff),
        };
        let bytes = block.iter_mut().skip(4 * word).take(4);
        for (byte, value) in bytes.zip((field << shift).to_le_bytes()) {
            *byte |= value;
        }
    }
}

/// Sizes of a layer under its scheme.
pub struct Plan {
    /// The packing.
    pub scheme: Scheme,
    /// Positions of the reduction, padded to whole words of weights.
    pub positions: usize,
    /// Blocks of output channels.
    pub blocks: usize,
    /// Rows of packed weights of a block: one for every channel, or two (Quad).
    pub rows: usize,
    /// Bytes of a row.
    pub row_bytes: usize,
}

impl Plan {
    /// The plan of a convolution.
    pub fn new(layer: &LayerShape) -> Plan {
        let scheme = Scheme::new(layer.bits.weight, layer.bits.input, layer.reduction());
        let unit = scheme.unit().max(1);
        let positions = (layer.reduction() + unit - 1) & !(unit - 1);
        Plan {
            scheme,
            positions,
            blocks: usize::from(layer.output.c).div_ceil(BLOCK),
            rows: if matches!(scheme, Scheme::Quad { .. }) { BLOCK / 2 } else { BLOCK },
            row_bytes: (positions >> unit.trailing_zeros()) * 4,
        }
    }

    /// Packed weights of a block of channels in bytes.
    pub const fn block_bytes(&self) -> usize {
        self.rows * self.row_bytes
    }

    /// What every accumulator is too large by, on purpose: keeps the fields positive.
    pub const fn lift(&self, input: Bits) -> u32 {
        match self.scheme {
            Scheme::Quad { offset, .. } => offset * input.max_unsigned() * self.positions as u32,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_can_spill() {
        for weight in Bits::ALL {
            for input in Bits::ALL {
                for reduction in [1, 27, 576, 2304, 9000] {
                    let (a, w) = (input.max_unsigned(), weight.max_unsigned());
                    match Scheme::new(weight, input, reduction) {
                        Scheme::Quad { chunk, offset, .. } => {
                            assert!(chunk > 0 && chunk as u32 * a * w < 1 << 8);
                            let positions = reduction.next_multiple_of(8) as u32;
                            assert!(positions * a * (w + offset) < 1 << 16);
                        }
                        Scheme::Pair { chunk, .. } => {
                            assert!(chunk as u32 * a * weight.half() < 1 << 15);
                        }
                        Scheme::Single => assert_eq!((weight, input), (Bits::B8, Bits::B8)),
                    }
                }
            }
        }
    }

    #[test]
    fn narrow_widths_take_four_fields() {
        let chunk = |w, a| match Scheme::new(w, a, 64) {
            Scheme::Quad { chunk, .. } => Some(chunk),
            _ => None,
        };
        assert_eq!(chunk(Bits::B2, Bits::B2), Some(24));
        assert_eq!(chunk(Bits::B3, Bits::B2), Some(12));
        assert_eq!(chunk(Bits::B4, Bits::B4), None);
    }
}
