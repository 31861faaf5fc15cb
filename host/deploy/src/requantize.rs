//! From real scales to the integers of docs/numerics.md: multipliers and biases of every layer,
//! with a proof for every channel that nothing overflows.
//!
//! Must not know how kernels store these numbers ([`crate::export`] asks them).

use jaq_network::{Network, TensorId, TrainedLayer, TrainedNetwork};
use jaq_shared::format::{Bits, Op, Requant};

/// Fraction bits of [`Requant::Narrow`], of additions and of pools.
pub const NARROW_SHIFT: i32 = Requant::NARROW_SHIFT as i32;
/// Fraction bits of [`Requant::Wide`].
pub const WIDE_SHIFT: i32 = Requant::WIDE_SHIFT as i32;

/// Canonical integers of one layer: the tables of the formulas in docs/numerics.md, on
/// accumulators `sum((code - zero_point) * weight)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerIntegers {
    /// Which formula.
    pub requant: Requant,
    /// Multipliers: one a channel; `[Ma, Mb, B]` for an addition; `[M, B]` for an average pool.
    pub multipliers: Vec<i32>,
    /// Biases: one a channel; none for operators without weights.
    pub biases: Vec<i32>,
    /// Channels that did not fit the fast form, and what was done instead.
    pub note: Option<String>,
}

/// A scale that no integer form can hold.
#[derive(Debug, thiserror::Error)]
#[error("layer `{layer}`{}: {reason}", channel.map(|c| format!(", channel {c}")).unwrap_or_default())]
pub struct ScaleError {
    layer: String,
    channel: Option<usize>,
    reason: String,
}

/// Integers of every layer of a trained network.
pub fn requantize(trained: &TrainedNetwork) -> Result<Vec<LayerIntegers>, ScaleError> {
    let network = &trained.network;
    (0..network.layers.len())
        .map(|index| match &trained.layers[index] {
            Some(values) => weighted(trained, index, values),
            None => unweighted(trained, index),
        })
        .collect::<Result<_, (Option<usize>, String, usize)>>()
        .map_err(|(channel, reason, index)| ScaleError {
            layer: network.layers[index].name.clone(),
            channel,
            reason,
        })
}

type Failure = (Option<usize>, String, usize);

/// What requantization must do to one channel: `code = ratio * acc + offset`, and where `acc`
/// may lie.
struct Channel {
    ratio: f64,
    offset: f64,
    low: i64,
    high: i64,
}

fn weighted(
    trained: &TrainedNetwork,
    index: usize,
    values: &TrainedLayer,
) -> Result<LayerIntegers, Failure> {
    let network = &trained.network;
    let layer = &network.layers[index];
    let input = network.tensor(layer.inputs[0]);
    let (s_in, s_out) = scales(trained, index);
    let zero_in = i64::from(input.zero_point());
    let max_in = i64::from(input.bits.max_unsigned());
    let per_channel = network.shape(index).reduction();
    let channels: Vec<Channel> = values
        .weights
        .chunks(per_channel)
        .zip(values.scale.iter().zip(&values.offset))
        .map(|(weights, (scale, offset))| {
            let (mut low, mut high) = (0, 0);
            for &w in weights {
                let (a, b) = (-zero_in * i64::from(w), (max_in - zero_in) * i64::from(w));
                low += a.min(b);
                high += a.max(b);
            }
            let ratio = f64::from(*scale) * s_in / s_out;
            let offset = f64::from(*offset) / s_out + f64::from(layer.output.zero_point());
            let (ratio, offset) = step_function(ratio, offset, layer.output.bits);
            Channel { ratio, offset, low, high }
        })
        .collect();

    let mut note = None;
    let forms: &[Requant] = match layer.output.bits {
        Bits::B8 => &[Requant::Wide, Requant::Narrow, Requant::COARSE],
        _ => &[Requant::Narrow, Requant::COARSE],
    };
    for (choice, requant) in forms.iter().enumerate() {
        match tables(&channels, *requant) {
            Ok((multipliers, biases)) => {
                let note = note.map(|n| format!("{n}; uses {requant:?}"));
                return Ok(LayerIntegers { requant: *requant, multipliers, biases, note });
            }
            Err((channel, why)) if choice == 0 => {
                note = Some(format!("channel {channel}: {why}"));
            }
            Err(_) => {}
        }
    }
    // The slow path: the finest shift at which every multiplier fits.
    let largest = channels.iter().map(|c| c.ratio.abs()).fold(0.0, f64::max);
    let shift = (30 - largest.log2().ceil().clamp(-32.0, 29.0) as i32).clamp(1, 62) as u8;
    let requant = Requant::General { shift };
    match tables(&channels, requant) {
        Ok((multipliers, biases)) => {
            let note = note.map(|n| format!("{n}; uses {requant:?}"));
            Ok(LayerIntegers { requant, multipliers, biases, note })
        }
        Err((channel, why)) => Err((Some(channel), why, index)),
    }
}

/// A channel whose every accumulator step passes all codes is a step function: any scale from
/// `2^bits` on gives the same codes, as long as the output leaves 0 at the same accumulator. The
/// smallest such scale fits the fast forms. (Batch norm makes such scales of channels that hardly
/// vary.)
fn step_function(ratio: f64, offset: f64, bits: Bits) -> (f64, f64) {
    let codes = f64::from(bits.max_unsigned() + 1);
    if ratio.abs() <= codes {
        return (ratio, offset);
    }
    (codes * ratio.signum(), 0.5 - (0.5 - offset) * codes / ratio.abs())
}

/// Multipliers and biases in one form, or the first channel that does not fit and why.
fn tables(channels: &[Channel], requant: Requant) -> Result<(Vec<i32>, Vec<i32>), (usize, String)> {
    let pairs: Result<Vec<(i32, i32)>, _> = channels
        .iter()
        .enumerate()
        .map(|(index, channel)| integers(channel, requant).map_err(|why| (index, why)))
        .collect();
    Ok(pairs?.into_iter().unzip())
}

fn integers(channel: &Channel, requant: Requant) -> Result<(i32, i32), String> {
    let Channel { ratio, offset, low, high } = *channel;
    let to_i32 = |v: f64, what: &str| {
        let rounded = v.round();
        let fits = rounded.is_finite() && rounded.abs() < f64::from(i32::MAX);
        if fits {
            Ok(rounded as i32)
        } else {
            Err(format!("its {what} of {v:.3e} exceeds 32 bits"))
        }
    };
    let added = match requant {
        Requant::Narrow => {
            let m = to_i32(ratio * pow2(NARROW_SHIFT), "multiplier")?;
            let b = to_i32((offset + 0.5) * pow2(NARROW_SHIFT), "bias")?;
            for acc in [low, high] {
                let value = i128::from(acc) * i128::from(m) + i128::from(b);
                if i32::try_from(value).is_err() {
                    return Err(format!("accumulator {acc} times {m} exceeds 32 bits"));
                }
            }
            return Ok((m, b));
        }
        Requant::Wide => WIDE_SHIFT,
        Requant::General { shift } => i32::from(shift),
    };
    let mut m = to_i32(ratio * pow2(added), "multiplier")?;
    if requant == Requant::Wide && m.unsigned_abs() >= 1 << 21 {
        return Err(format!("its scale of {ratio:.4} is not below 1/2"));
    }
    let mut bias = offset / (f64::from(m) / pow2(added));
    if bias.is_nan() || bias.abs() >= pow2(30) {
        // A channel whose weights hardly matter: its output is the offset alone.
        m = 1;
        bias = offset * pow2(added);
    }
    let b = to_i32(bias, "bias")?;
    for acc in [low, high] {
        if i32::try_from(acc + i64::from(b)).is_err() {
            return Err(format!("accumulator {acc} plus bias {b} exceeds 32 bits"));
        }
    }
    Ok((m, b))
}

fn unweighted(trained: &TrainedNetwork, index: usize) -> Result<LayerIntegers, Failure> {
    let network = &trained.network;
    let layer = &network.layers[index];
    let (s_in, s_out) = scales(trained, index);
    let zero_out = f64::from(layer.output.zero_point());
    let one = pow2(NARROW_SHIFT);
    let zero = |id: TensorId| f64::from(network.tensor(id).zero_point());
    let max = |id: TensorId| f64::from(network.tensor(id).bits.max_unsigned());
    let first = layer.inputs[0];
    let (multipliers, peak): (Vec<f64>, f64) = match layer.op {
        Op::Add => {
            let second = layer.inputs[1];
            let (a, b) = (s_in / s_out, f64::from(trained.scale(second)) / s_out);
            let bias = zero_out - zero(first) * a - zero(second) * b + 0.5;
            (vec![a * one, b * one, bias * one], a * max(first) + b * max(second) + bias.abs())
        }
        Op::AvgPool(window) => {
            let (taps, ratio) = (window.taps() as f64, s_in / s_out);
            let bias = zero_out - zero(first) * ratio + 0.5;
            (vec![ratio / taps * one, bias * one], ratio * max(first) + bias.abs())
        }
        _ => (Vec::new(), 0.0),
    };
    if peak * one >= f64::from(i32::MAX) {
        let reason =
            format!("the scales {s_in:.3e} and {s_out:.3e} of its tensors are too far apart");
        return Err((None, reason, index));
    }
    let multipliers = multipliers.iter().map(|m| m.round() as i32).collect();
    Ok(LayerIntegers { requant: Requant::Narrow, multipliers, biases: Vec::new(), note: None })
}

fn scales(trained: &TrainedNetwork, index: usize) -> (f64, f64) {
    let network: &Network = &trained.network;
    let s_in = trained.scale(network.layers[index].inputs[0]);
    (f64::from(s_in), f64::from(trained.scale(TensorId::output_of(index))))
}

fn pow2(exponent: i32) -> f64 {
    2f64.powi(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(ratio: f64, offset: f64, span: i64) -> Channel {
        Channel { ratio, offset, low: -span, high: span }
    }

    /// The code a form gives must be the real one to within the form's stated rounding.
    #[test]
    fn every_form_is_near_the_real_value() {
        for (requant, ratio) in [
            (Requant::Narrow, 0.031),
            (Requant::Narrow, 1.9),
            (Requant::Wide, 0.0004),
            (Requant::Wide, -0.0151),
            (Requant::General { shift: 30 }, 0.7),
        ] {
            for offset in [-3.0, 0.0, 7.7] {
                let (m, b) = integers(&channel(ratio, offset, 900), requant).unwrap();
                for acc in [-900i64, -17, 0, 5, 899] {
                    let (acc, m, b) = (acc, i64::from(m), i64::from(b));
                    let code = match requant {
                        Requant::Narrow => (acc * m + b) >> NARROW_SHIFT,
                        Requant::Wide => ((acc + b) * m + (1 << 21)) >> WIDE_SHIFT,
                        Requant::General { shift } => ((acc + b) * m + (1 << (shift - 1))) >> shift,
                    };
                    let real = ratio * acc as f64 + offset;
                    assert!(
                        (code as f64 - real).abs() <= 0.5 + ratio.abs() * 0.5 + 0.01,
                        "{requant:?} {ratio} {acc}: {code} for {real}"
                    );
                }
            }
        }
    }

    #[test]
    fn steep_channels_keep_their_codes() {
        for (ratio, offset) in [(101.3, 40.2), (-23.0, 3.9), (16.5, -200.4)] {
            let (r, o) = step_function(ratio, offset, Bits::B4);
            assert!(r.abs() <= 16.0);
            for acc in -20..20 {
                let code = |r: f64, o: f64| (r * f64::from(acc) + o).round().clamp(0.0, 15.0);
                let (real, found) = (code(ratio, offset), code(r, o));
                // The one accumulator on the slope itself may differ, none beside it.
                let slope = (ratio * f64::from(acc) + offset - 8.0).abs() < ratio.abs();
                assert!(real == found || slope, "{ratio} {acc}: {real} {found}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(integers(&channel(0.5, 0.0, 10), Requant::Wide).is_err());
        assert!(integers(&channel(0.5, 0.0, 1 << 20), Requant::Narrow).is_err());
        // A dead channel keeps its offset.
        let (m, b) = integers(&channel(0.0, 9.0, 1 << 15), Requant::Wide).unwrap();
        assert_eq!(((i64::from(b) + 100) * i64::from(m) + (1 << 21)) >> WIDE_SHIFT, 9);
    }
}
