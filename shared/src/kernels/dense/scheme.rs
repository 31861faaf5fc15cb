//! How low-bit operands share a register, worked out from the widths alone.
//!
//! *Outer*: `UMLAL` multiplies an A-word, `sum(a[pixel i] * 2^(s*i))` for P pixels of one channel,
//! by a W-word, `u[c0] + u[c1] * 2^t` for two output channels (`u = w + 2^(w_bits-1)`), into 64
//! bits: 2P products side by side. With `t = P * s` every field is `s` bits apart; `n` products
//! may be added before a field could spill into the next, `n = (2^s - 1) / ((2^a - 1)(2^w - 1))`.
//! The reduction is cut into equal chunks of at most `n`; between chunks fields go to `i32`.
//!
//! *Dual*: `SMLAD` on pairs of 16-bit operands, `i32` accumulators, no chunks. Nibble weights go
//! two to a byte, `16 * w0 + u1` with `u1 = w1 + 8`: the byte times `a0` plus its low nibble times
//! `16 * a1 - a0` is `16 * (w0 * a0 + u1 * a1)`; accumulators are 16 times too large.
//!
//! Both work on groups of pixels and blocks of [`BLOCK`] output channels, over a reduction padded
//! to fours per segment (a row of the window's taps, or one tap where pixels end in filler). Must not know: memory, loops.

use crate::format::{Bits, LayerShape};

/// Output channels computed together.
pub const BLOCK: usize = 4;

/// Chunks shorter than this do not pay.
const SHORTEST_CHUNK: u32 = 32;

/// The two ways to put operands into registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Fields of a 64-bit product.
    Outer,
    /// Pairs of 16-bit operands.
    Dual,
}

/// Operand packing of one pair of widths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// Which family.
    pub family: Family,
    /// Bits a weight takes in the packed stream.
    pub stored: u32,
    /// What is added to a weight to make it unsigned (0: weights stay signed).
    pub offset: u32,
    /// Pixels of an A-word (Outer).
    pub pixels: u32,
    /// Bits between two pixels' fields (Outer).
    pub spacing: u32,
    /// Products that fit a field (Outer).
    pub products: u32,
}

impl Scheme {
    /// Distance of the two channels in a W-word: the outermost fields of a rotated word.
    pub const fn channel_shift(&self) -> u32 {
        32 - self.stored
    }

    /// Pixels computed together: two A-words, or four single ones.
    pub const fn group(&self) -> usize {
        match self.family {
            Family::Outer => 2 * self.pixels as usize,
            Family::Dual => 4,
        }
    }
}

/// The outer-product scheme for the widths, whether or not it pays.
const fn outer(weight: Bits, input: Bits) -> Scheme {
    // 3-bit weights take a nibble's place.
    let stored = if weight.get() == 3 { 4 } else { weight.get() };
    let shift = 32 - stored;
    let most = input.max_unsigned() * weight.max_unsigned();
    // As many pixels as leave chunks that pay.
    let mut pixels = 3;
    while pixels > 1 {
        let spacing = shift / pixels;
        let fits = (pixels - 1) * spacing + input.get() <= 32;
        if fits && ((1 << spacing) - 1) / most >= SHORTEST_CHUNK {
            break;
        }
        pixels -= 1;
    }
    let spacing = shift / pixels;
    Scheme {
        family: Family::Outer,
        stored,
        offset: weight.half(),
        pixels,
        spacing,
        products: ((1 << spacing) - 1) / most,
    }
}

/// The packing for the widths: the outer product where at least two pixels share an A-word.
pub const fn scheme(weight: Bits, input: Bits) -> Scheme {
    let outer = outer(weight, input);
    if weight.get() < 8 && outer.pixels >= 2 {
        return outer;
    }
    // Nibbles serve 8-bit activations; narrower ones would take the outer product.
    let (stored, offset) = if weight.get() < 8 { (4, 8) } else { (8, 0) };
    Scheme { family: Family::Dual, stored, offset, pixels: 1, spacing: 0, products: u32::MAX }
}

/// Sizes of a dense layer under its scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The packing.
    pub scheme: Scheme,
    /// Taps of a segment: those that lie side by side in memory.
    pub span: usize,
    /// Codes of a segment, padded to fours.
    pub segment: usize,
    /// Reduction positions of a chunk, a multiple of 4.
    pub chunk: usize,
    /// Chunks.
    pub chunks: usize,
    /// Blocks of output channels.
    pub blocks: usize,
}

impl Plan {
    /// The plan of a dense layer (convolution or linear).
    pub fn new(layer: &LayerShape) -> Plan {
        let scheme = scheme(layer.bits.weight, layer.bits.input);
        let window = layer.op.window();
        let channels = usize::from(layer.input.c);
        let format = layer.input_format();
        // Without filler between pixels a whole row of the window is one segment.
        let dense = format.pixel_bytes() * 8 == channels * format.bits.storage() as usize;
        let span = if dense { usize::from(window.kw).max(1) } else { 1 };
        let segment = (channels * span).next_multiple_of(4);
        let reduction = segment * (window.taps() / span.max(1));
        let longest = (scheme.products & !3) as usize;
        let chunks = reduction.div_ceil(longest.max(4)).max(1);
        Plan {
            scheme,
            span,
            segment,
            chunk: reduction.div_ceil(chunks).next_multiple_of(4),
            chunks,
            blocks: usize::from(layer.output.c).div_ceil(BLOCK),
        }
    }

    /// Padded length of the reduction.
    pub const fn reduction(&self) -> usize {
        self.chunk * self.chunks
    }

    /// Words that hold a segment's packed codes.
    pub const fn segment_words(&self, input: Bits) -> usize {
        (self.segment * input.storage() as usize).div_ceil(32)
    }

    /// Words of expanded activations of a group.
    pub const fn expanded_words(&self) -> usize {
        2 * self.reduction()
    }

    /// Words before the expanded activations: four per chunk, the start of its accumulators.
    pub const fn start_words(&self) -> usize {
        4 * self.chunks
    }

    /// Packed weights of one block of channels in bytes.
    pub const fn block_bytes(&self) -> usize {
        self.reduction() * BLOCK * self.scheme.stored as usize / 8
    }

    /// What every accumulator is too large by, on purpose: keeps the fields positive.
    pub const fn lift(&self, input: Bits) -> u32 {
        match self.scheme.family {
            Family::Outer => self.scheme.offset * input.max_unsigned() * self.chunk as u32,
            Family::Dual => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_follow_from_the_widths() {
        let found = |w, a| {
            let s = scheme(w, a);
            (s.family, s.pixels, s.spacing, s.products)
        };
        use Bits::*;
        assert_eq!(found(B2, B2), (Family::Outer, 3, 10, 113));
        assert_eq!(found(B2, B3), (Family::Outer, 3, 10, 48));
        assert_eq!(found(B2, B4), (Family::Outer, 2, 15, 728));
        assert_eq!(found(B2, B8), (Family::Outer, 2, 15, 42));
        assert_eq!(found(B4, B4), (Family::Outer, 2, 14, 72));
        assert_eq!(found(B4, B2), (Family::Outer, 2, 14, 364));
        assert_eq!(found(B3, B4), (Family::Outer, 2, 14, 156));
        assert_eq!(found(B4, B8).0, Family::Dual);
        assert_eq!(found(B8, B2).0, Family::Dual);
    }

    #[test]
    fn no_field_can_spill() {
        for weight in Bits::ALL {
            for input in Bits::ALL {
                let s = scheme(weight, input);
                if s.family == Family::Dual {
                    continue;
                }
                let (a, w) = (u64::from(input.max_unsigned()), u64::from(weight.max_unsigned()));
                assert!(u64::from(s.products) * a * w < 1 << s.spacing, "{weight} {input}");
                assert!((s.pixels - 1) * s.spacing + input.get() <= 32);
                assert!(s.pixels * s.spacing == s.channel_shift());
                // The highest field ends within the 64 bits.
                assert!((2 * s.pixels - 1) * s.spacing + s.spacing <= 64);
            }
        }
    }
}
