//! The rounding rules, written once: how an accumulator becomes an output code.
//!
//! Every kernel, the exporter's proofs and the assembly follow these formulas; `M` and `B` are one
//! layer's or channel's *stored* table entries (see [`super::prepare`]). `i32` arithmetic wraps:
//! where the exporter has shown that the true result fits, wrapped intermediate terms are exact.
//! Must not know: layers, packing, loops.

use crate::format::{Bits, Requant};

/// Right shift of [`Requant::Narrow`], of the residual sum and of the average.
pub const NARROW_SHIFT: u32 = Requant::NARROW_SHIFT;
/// Right shift of [`Requant::Wide`].
pub const WIDE_SHIFT: u32 = Requant::WIDE_SHIFT;
/// What the packed kernels multiply `M` by in the tables of [`Requant::Wide`], so that the result
/// is the upper word of a 32 x 32 bit product: `2^(32 - WIDE_SHIFT)`.
pub const WIDE_UPPER: u32 = 32 - WIDE_SHIFT;

/// `value` limited to the unsigned codes of `bits`.
#[inline(always)]
pub fn clamp(value: i32, bits: Bits) -> u32 {
    value.clamp(0, bits.max_unsigned() as i32) as u32
}

/// [`Requant::Narrow`]: `(acc * M + B) >> 18`, rounding folded into `B`.
#[inline(always)]
pub fn narrow(acc: i32, m: i32, b: i32, bits: Bits) -> u32 {
    clamp(acc.wrapping_mul(m).wrapping_add(b) >> NARROW_SHIFT, bits)
}

/// [`Requant::Wide`] with `M` stored times `2^10`: `((acc + B) * M' + 2^31) >> 32`, which is
/// `((acc + B) * M + 2^21) >> 22`.
#[inline(always)]
pub fn wide_upper(acc: i32, m: i32, b: i32, bits: Bits) -> u32 {
    let product = i64::from(acc.wrapping_add(b)) * i64::from(m);
    clamp((product.wrapping_add(1 << 31) >> 32) as i32, bits)
}

/// `((acc + B) * M + 2^(shift-1)) >> shift`, the product in `i64`.
#[inline(always)]
pub fn general(acc: i32, m: i32, b: i32, shift: u32, bits: Bits) -> u32 {
    let shift = shift.clamp(1, 62);
    let product = i64::from(acc.wrapping_add(b)) * i64::from(m);
    let value = product.wrapping_add(1 << (shift - 1)) >> shift;
    value.clamp(0, i64::from(bits.max_unsigned())) as u32
}

/// The rule of `requant` on plain tables (`M` not pre-multiplied).
#[inline(always)]
pub fn requantize(requant: Requant, acc: i32, m: i32, b: i32, bits: Bits) -> u32 {
    match requant {
        Requant::Narrow => narrow(acc, m, b, bits),
        Requant::Wide => general(acc, m, b, WIDE_SHIFT, bits),
        Requant::General { shift } => general(acc, m, b, u32::from(shift), bits),
    }
}

/// Whether the tables of the packed kernels hold `M` times `2^10` ([`wide_upper`]).
pub fn is_upper(requant: Requant, output: Bits) -> bool {
    requant == Requant::Wide && output == Bits::B8
}

/// How the outputs of one channel are requantized, on the packed kernels' tables.
pub struct Finish {
    /// Stored multiplier.
    pub multiplier: i32,
    /// Stored bias.
    pub bias: i32,
    /// The rule.
    pub requant: Requant,
    /// Width of the output.
    pub output: Bits,
}

impl Finish {
    /// The code of an accumulator.
    #[inline(always)]
    pub fn code(&self, acc: i32) -> u32 {
        let (m, b) = (self.multiplier, self.bias);
        if is_upper(self.requant, self.output) {
            wide_upper(acc, m, b, self.output)
        } else {
            self.plain(acc)
        }
    }

    /// The code of an accumulator on tables whose multipliers are not pre-multiplied.
    #[inline(always)]
    pub fn plain(&self, acc: i32) -> u32 {
        requantize(self.requant, acc, self.multiplier, self.bias, self.output)
    }
}

/// Pre-multiplies the scales of [`Requant::Wide`] to bytes.
pub fn prepare_upper(requant: Requant, output: Bits, multipliers: &mut [i32]) {
    if is_upper(requant, output) {
        multipliers.iter_mut().for_each(|m| *m <<= WIDE_UPPER);
    }
}

/// Residual addition on raw codes: `(a * M[0] + b * M[1] + M[2]) >> 18`.
#[inline(always)]
pub fn sum(a: u32, b: u32, m: [i32; 3], bits: Bits) -> u32 {
    let products = (a as i32).wrapping_mul(m[0]).wrapping_add((b as i32).wrapping_mul(m[1]));
    clamp(products.wrapping_add(m[2]) >> NARROW_SHIFT, bits)
}

/// Average on the sum of raw codes: `(sum * M[0] + M[1]) >> 18`.
#[inline(always)]
pub fn average(sum: u32, m: [i32; 2], bits: Bits) -> u32 {
    narrow(sum as i32, m[0], m[1], bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_half_up_and_saturates() {
        // 3 * 2^17 = 1.5 * 2^18: truncated by Narrow (rounding belongs into B), rounded by Wide.
        assert_eq!(narrow(3, 1 << 17, 0, Bits::B4), 1);
        assert_eq!(narrow(3, 1 << 17, 1 << 17, Bits::B4), 2);
        assert_eq!(requantize(Requant::Wide, 3 << 6, 1 << 15, 0, Bits::B8), 2);
        assert_eq!(narrow(-1, 1 << 18, 0, Bits::B2), 0);
        assert_eq!(narrow(9, 1 << 18, 0, Bits::B2), 3);
    }

    #[test]
    fn upper_word_form_is_the_wide_form() {
        for acc in [-70_000_001, -513, -1, 0, 1, 77, 65_535, 70_000_001] {
            for m in [-65_535, -4_097, -1, 0, 1, 3, 40_000, 65_535] {
                for b in [-9_999_999, 0, 12_345] {
                    assert_eq!(
                        wide_upper(acc, m << WIDE_UPPER, b, Bits::B8),
                        requantize(Requant::Wide, acc, m, b, Bits::B8)
                    );
                }
            }
        }
    }
}
