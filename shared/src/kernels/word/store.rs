//! From accumulators to packed codes.

use super::scheme::Plan;
use super::{Accumulators, BLOCK, PIXELS};
use crate::format::{Bits, LayerShape, Requant};
use crate::kernels::requant::{NARROW_SHIFT, WIDE_SHIFT, clamp, requantize};

/// How accumulators are requantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// [`Requant::Narrow`].
    Narrow(Bits),
    /// [`Requant::Wide`] where no sum of partial products leaves 32 bits.
    Wide,
    /// Any other.
    General(Requant, Bits),
}

/// Low bits of an accumulator that are multiplied apart.
const LOW: u32 = 10;

impl Rule {
    /// The rule of a layer, `multipliers` and `biases` being its stored tables.
    pub fn new(
        plan: &Plan,
        layer: &LayerShape,
        requant: Requant,
        multipliers: &[i32],
        biases: &[i32],
    ) -> Rule {
        let bits = layer.bits.output;
        let product = layer.bits.input.max_unsigned() * layer.bits.weight.half();
        let largest = u64::from(product) * 2 * plan.positions as u64;
        let fits = || {
            multipliers.iter().zip(biases).all(|(m, b)| {
                let acc = (largest + u64::from(b.unsigned_abs())) >> LOW;
                (acc + 2) * u64::from(m.unsigned_abs()) < 1 << 31 && m.unsigned_abs() < 1 << 21
            })
        };
        match (requant, bits) {
            (Requant::Narrow, bits) => Rule::Narrow(bits),
            (Requant::Wide, Bits::B8) if fits() => Rule::Wide,
            _ => Rule::General(requant, bits),
        }
    }

    /// Width of the outputs.
    pub const fn bits(self) -> Bits {
        match self {
            Rule::Narrow(bits) | Rule::General(_, bits) => bits,
            Rule::Wide => Bits::B8,
        }
    }

    /// Bytes of a pixel's block of channels.
    pub const fn block_bytes(self) -> usize {
        BLOCK * self.bits().storage() as usize / 8
    }
}

/// Where the codes of a group go.
pub struct Pixels<'a> {
    /// From the first pixel's block on; the last group may have fewer pixels.
    pub output: &'a mut [u8],
    /// Distance of two pixels.
    pub pixel_bytes: usize,
    /// Pixels of a whole group.
    pub group: usize,
}

/// Requantizes a block and packs it; the last has fewer channels.
pub fn store(rule: Rule, acc: &Accumulators, m: &[i32], b: &[i32], pixels: Pixels<'_>) {
    match rule {
        Rule::Narrow(Bits::B2) => {
            put::<2>(acc, m, b, pixels, |acc, m, b| narrow(acc, m, b, Bits::B2))
        }
        Rule::Narrow(Bits::B3) => {
            put::<4>(acc, m, b, pixels, |acc, m, b| narrow(acc, m, b, Bits::B3))
        }
        Rule::Narrow(Bits::B4) => {
            put::<4>(acc, m, b, pixels, |acc, m, b| narrow(acc, m, b, Bits::B4))
        }
        Rule::Narrow(Bits::B8) => {
            put::<8>(acc, m, b, pixels, |acc, m, b| narrow(acc, m, b, Bits::B8))
        }
        Rule::Wide => put::<8>(acc, m, b, pixels, wide),
        Rule::General(requant, bits) => {
            let code = |acc, m, b| requantize(requant, acc, m, b, bits);
            match bits {
                Bits::B2 => put::<2>(acc, m, b, pixels, code),
                Bits::B3 | Bits::B4 => put::<4>(acc, m, b, pixels, code),
                Bits::B8 => put::<8>(acc, m, b, pixels, code),
            }
        }
    }
}

/// A value limited to codes: rarely outside.
#[inline(always)]
fn limit(value: i32, bits: Bits) -> u32 {
    if value as u32 <= bits.max_unsigned() { value as u32 } else { clamp(value, bits) }
}

#[inline(always)]
fn narrow(acc: i32, m: i32, b: i32, bits: Bits) -> u32 {
    limit(acc.wrapping_mul(m).wrapping_add(b) >> NARROW_SHIFT, bits)
}

/// `((acc + B) * M + 2^21) >> 22` by two products of 32 bits, the sum split at bit [`LOW`].
#[inline(always)]
fn wide(acc: i32, m: i32, b: i32) -> u32 {
    let sum = acc.wrapping_add(b);
    let (high, low) = (sum >> LOW, sum & ((1 << LOW) - 1));
    let value = high.wrapping_mul(m).wrapping_add(low.wrapping_mul(m) >> LOW);
    limit(value.wrapping_add(1 << (WIDE_SHIFT - LOW - 1)) >> (WIDE_SHIFT - LOW), Bits::B8)
}

#[inline(always)]
fn put<const STORAGE: usize>(
    acc: &Accumulators,
    m: &[i32],
    b: &[i32],
    pixels: Pixels<'_>,
    code: impl Fn(i32, i32, i32) -> u32,
) {
    let table = |values: &[i32]| core::array::from_fn(|i| values.get(i).copied().unwrap_or(0));
    let (m, b): ([i32; BLOCK], [i32; BLOCK]) = (table(m), table(b));
    let outputs = pixels.output.chunks_mut(pixels.pixel_bytes.max(1)).take(pixels.group);
    for (pixel, output) in outputs.enumerate() {
        let mut packed = 0;
        for lane in 0..BLOCK {
            packed |= code(acc[lane][pixel % PIXELS], m[lane], b[lane]) << (lane * STORAGE);
        }
        let [first, second, third, fourth] = packed.to_le_bytes();
        match (STORAGE, output) {
            (2, [a, ..]) => *a = first,
            (4, [a, b, ..]) => (*a, *b) = (first, second),
            (8, [a, b, c, d, ..]) => (*a, *b, *c, *d) = (first, second, third, fourth),
            // The last block of a pixel with fewer bytes than a block takes.
            (_, output) => crate::kernels::codes::put_small_word(packed, output),
        }
    }
}
