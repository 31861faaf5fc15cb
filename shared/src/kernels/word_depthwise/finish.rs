//! How sums become codes, and the tables that it takes.

use super::plan::{Plan, Scheme};
use crate::format::{Bits, LayerShape, Requant};
use crate::kernels::requant::{self, clamp};

/// Words of a lane's table behind its weights: multiplier, bias, unused; or [`Rule::Thresholds`]'.
pub const TABLES: usize = 3;

/// Low bits of an accumulator that are multiplied apart.
const LOW: u32 = 10;

/// How the outputs of a layer are requantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// 2-bit outputs count the thresholds they pass: lifted outputs `u` with `u + 128 - T >= 128`.
    /// The stored multiplier has the three `T` as bytes, and in the fourth whether weights are to
    /// be negated; the table has `128 - T` in every byte.
    Thresholds,
    /// [`Requant::Narrow`].
    Narrow(Bits),
    /// [`Requant::Wide`] to bytes, where no sum of partial products leaves 32 bits.
    Wide,
    /// Any other.
    General(Requant, Bits),
}

/// Whether outputs are counted thresholds: where all lifted outputs are below 128.
fn counts(plan: &Plan, layer: &LayerShape, requant: Requant) -> bool {
    plan.scheme == Scheme::Bytes
        && (layer.bits.output, requant) == (Bits::B2, Requant::Narrow)
        && 2 * plan.lift < 128
}

impl Rule {
    /// The rule of a layer with these stored tables.
    pub fn new(plan: &Plan, layer: &LayerShape, requant: Requant, m: &[i32], b: &[i32]) -> Rule {
        let bits = layer.bits;
        if counts(plan, layer, requant) {
            return Rule::Thresholds;
        }
        let product = bits.input.max_unsigned() * bits.weight.half();
        let largest = product * layer.reduction() as u32 + plan.lift;
        let fits = || {
            m.iter().zip(b).all(|(m, b)| {
                let acc = (u64::from(largest) + u64::from(b.unsigned_abs())) >> LOW;
                m.unsigned_abs() < 1 << 21 && (acc + 2) * u64::from(m.unsigned_abs()) < 1 << 31
            })
        };
        match (requant, bits.output) {
            (Requant::Narrow, bits) => Rule::Narrow(bits),
            (Requant::Wide, Bits::B8) if fits() => Rule::Wide,
            (_, bits) => Rule::General(requant, bits),
        }
    }

    /// Whether a channel with this stored multiplier has its weights negated.
    pub fn negates(self, multiplier: i32) -> bool {
        self == Rule::Thresholds && multiplier >> 24 != 0
    }

    /// The table of a channel.
    pub fn table(self, multiplier: i32, bias: i32) -> [u32; TABLES] {
        match self {
            Rule::Thresholds => {
                [0, 8, 16].map(|i| (128 - (multiplier as u32 >> i & 0xff)) * 0x0101_0101)
            }
            _ => [multiplier as u32, bias as u32, 0],
        }
    }

    /// The code of an output.
    #[inline(always)]
    pub fn code(self, output: i32, table: [u32; TABLES]) -> u32 {
        let [m, b, _] = table.map(|word| word as i32);
        match self {
            Rule::Thresholds => table.iter().map(|t| (output as u32 + (t & 0xff)) >> 7 & 1).sum(),
            Rule::Narrow(bits) => requant::narrow(output, m, b, bits),
            Rule::Wide => wide(output, m, b),
            Rule::General(requant, bits) => requant::requantize(requant, output, m, b, bits),
        }
    }
}

/// `((acc + B) * M + 2^21) >> 22` by two products of 32 bits, the sum split at bit [`LOW`].
#[inline(always)]
fn wide(acc: i32, m: i32, b: i32) -> u32 {
    let sum = acc.wrapping_add(b);
    let (high, low) = (sum >> LOW, sum & ((1 << LOW) - 1));
    let value = high.wrapping_mul(m).wrapping_add(low.wrapping_mul(m) >> LOW);
    let rest = requant::WIDE_SHIFT - LOW;
    clamp(value.wrapping_add(1 << (rest - 1)) >> rest, Bits::B8)
}

/// Turns the tables, zero point included, into the stored ones.
pub fn prepare(layer: &LayerShape, requant: Requant, weights: &[i8], m: &mut [i32], b: &mut [i32]) {
    let plan = Plan::new(layer);
    let lift = plan.lift as i32;
    if !counts(&plan, layer, requant) {
        for (m, b) in m.iter().zip(b) {
            *b = b.wrapping_sub(match requant {
                Requant::Narrow => lift.wrapping_mul(*m),
                _ => lift,
            });
        }
        return;
    }
    let most = layer.bits.input.max_unsigned() as i32;
    let rows = weights.chunks_exact(layer.reduction().max(1));
    for ((m, &mut b), row) in m.iter_mut().zip(b).zip(rows) {
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
            let passes = |&acc: &i32| requant::narrow(acc * sign, *m, b, layer.bits.output) >= code;
            let threshold = reach.clone().find(passes).unwrap_or(above);
            packed |= ((threshold + lift) as u32 & 0xff) << (8 * (code - 1));
        }
        *m = packed as i32;
    }
}
