//! What a layer's exported integers make of its real output: the formulas of docs/numerics.md, on
//! the accumulators that the real output is made of. For the last passes of a training, which then
//! sees every rounding of the device.
//!
//! A channel that does not fit the fast form of its layer is exported in a slower one of the same
//! or finer rounding; here its products are merely wider. Must not know: tensors, gradients.

use jaq_network::{Bits, Tensor};

use crate::quant::Folded;

/// Fraction bits of narrow outputs, additions and pools; and of wide outputs.
const NARROW: i32 = 18;
const WIDE: i32 = 22;

fn fixed(value: f64, shift: i32) -> i64 {
    // Saturates; such a channel is at one end of its codes whatever the rest.
    (value * 2f64.powi(shift)).round() as i64
}

/// The grid of a tensor: its step, its zero point and its largest code.
#[derive(Clone, Copy, Debug)]
pub struct Coded {
    step: f64,
    zero: i64,
    max: i64,
    bits: Bits,
}

impl Coded {
    /// Of a tensor with this step.
    pub fn new(tensor: &Tensor, step: f32) -> Coded {
        let (zero, max) = (i64::from(tensor.zero_point()), i64::from(tensor.bits.max_unsigned()));
        Coded { step: step.into(), zero, max, bits: tensor.bits }
    }

    fn real(&self, code: i64) -> f32 {
        ((code.clamp(0, self.max) - self.zero) as f64 * self.step) as f32
    }

    fn code(&self, real: f32) -> i64 {
        (f64::from(real) / self.step).round() as i64 + self.zero
    }
}

/// One channel's multiplier and bias.
#[derive(Clone, Copy)]
enum Form {
    Narrow(i64, i64),
    Wide(i64, i64),
}

impl Form {
    fn code(self, acc: i64) -> i64 {
        match self {
            Form::Narrow(m, b) => acc.saturating_mul(m).saturating_add(b) >> NARROW,
            Form::Wide(m, b) => {
                (acc.saturating_add(b).saturating_mul(m)).saturating_add(1 << (WIDE - 1)) >> WIDE
            }
        }
    }
}

/// Outputs of a layer with weights. `sums` are its real sums `[N, C, pixels]` before normalization
/// and bias, `steps` those of its weights by channel, `after` what follows.
pub fn weighted(
    sums: &[f32],
    pixels: usize,
    input: Coded,
    steps: &[f32],
    after: &Folded,
    output: Coded,
) -> Vec<f32> {
    let channels = steps.len();
    let ratio =
        |c: usize| f64::from(steps[c]) * f64::from(after.factor[c]) * input.step / output.step;
    let wide = output.bits == Bits::B8 && (0..channels).all(|c| ratio(c).abs() < 0.5);
    let form = |c: usize| {
        let offset = f64::from(after.summand[c]) / output.step + output.zero as f64;
        if !wide {
            return Form::Narrow(fixed(ratio(c), NARROW), fixed(offset + 0.5, NARROW));
        }
        let m = fixed(ratio(c), WIDE);
        let bias = offset / (m as f64 / 2f64.powi(WIDE));
        if bias.is_nan() || bias.abs() >= 2f64.powi(30) {
            return Form::Wide(1, fixed(offset, WIDE));
        }
        Form::Wide(m, bias.round() as i64)
    };
    let forms: Vec<Form> = (0..channels).map(form).collect();
    let value = |(index, sum): (usize, &f32)| {
        let c = index / pixels % channels;
        let acc = (f64::from(*sum) / (input.step * f64::from(steps[c]))).round() as i64;
        output.real(forms[c].code(acc))
    };
    sums.iter().enumerate().map(value).collect()
}

/// Outputs of an addition.
pub fn added(a: &[f32], b: &[f32], inputs: [Coded; 2], output: Coded) -> Vec<f32> {
    let [ra, rb] = inputs.map(|input| input.step / output.step);
    let [za, zb] = inputs.map(|input| input.zero as f64);
    let bias = fixed(output.zero as f64 - za * ra - zb * rb + 0.5, NARROW);
    let (ma, mb) = (fixed(ra, NARROW), fixed(rb, NARROW));
    let value = |(a, b): (&f32, &f32)| {
        let codes = (inputs[0].code(*a), inputs[1].code(*b));
        output.real((codes.0 * ma + codes.1 * mb + bias) >> NARROW)
    };
    a.iter().zip(b).map(value).collect()
}

/// Outputs of an average pool over `taps` pixels, from its real means.
pub fn pooled(means: &[f32], taps: usize, input: Coded, output: Coded) -> Vec<f32> {
    let ratio = input.step / output.step;
    let m = fixed(ratio / taps as f64, NARROW);
    let bias = fixed(output.zero as f64 - input.zero as f64 * ratio + 0.5, NARROW);
    let value = |mean: &f32| {
        let sum = (f64::from(*mean) * taps as f64 / input.step).round() as i64;
        output.real(((sum + input.zero * taps as i64) * m + bias) >> NARROW)
    };
    means.iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coded(step: f64, zero: i64, bits: Bits) -> Coded {
        Coded { step, zero, max: bits.max_unsigned().into(), bits }
    }

    #[test]
    fn layers_by_hand() {
        let input = coded(0.5, 0, Bits::B4);
        let after = Folded { factor: vec![2.0, -1.0], summand: vec![0.25, 1.0] };
        let steps = [0.25, 0.5];
        // Accumulators 8 and -3 at a step of 1/8, and 4 at 1/4; outputs in steps of 1/2.
        let sums = [1.0, -0.375, 1.0, 1.0];
        let found = weighted(&sums, 2, input, &steps, &after, coded(0.5, 0, Bits::B4));
        // 2.25 / 0.5 = 4.5 rounds up to 5; -0.5 is cut; -1 + 1 = 0 twice.
        assert_eq!(found, [2.5, 0.0, 0.0, 0.0]);
        let found = weighted(&sums, 2, input, &steps, &after, coded(0.5, 128, Bits::B8));
        // A factor of 1/2 an accumulator step is not below 1/2 for the second channel: narrow.
        assert_eq!(found, [2.5, -0.5, 0.0, 0.0]);

        let (a, b) = (coded(0.5, 8, Bits::B4), coded(0.25, 0, Bits::B4));
        // -1 + 0.75 = -0.25 is half a step of 0.5 below 0 and rounds up.
        assert_eq!(added(&[-1.0, 1.0], &[0.75, 0.75], [a, b], coded(0.5, 8, Bits::B4)), [0.0, 2.0]);
        // Codes 1, 2, 2, 2 of step 0.25: a mean of 0.4375, in steps of 0.25 1.75, rounds to 2.
        assert_eq!(pooled(&[0.4375], 4, b, coded(0.25, 0, Bits::B4)), [0.5]);
    }
}
