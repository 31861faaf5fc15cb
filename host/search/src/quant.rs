//! Learned quantizers (LSQ): first steps, and from trained values to the integers of a
//! [`TrainedLayer`].
//!
//! Training quantizes with [`Backend::fake_quant`](crate::ops::Backend::fake_quant); the codes
//! written here are made by the same rule, so the network that was trained is the one exported.
//!
//! Must not know: networks, how training is organized.

use jaq_network::TrainedLayer;

use crate::ops::{Grid, MIN_STEP, NORM_EPSILON, RunningStats, integers};

/// A first step for values like `sample`: the one of least squared error among 64 fractions of
/// the step that just holds the largest value.
pub fn first_step(sample: &[f32], grid: Grid) -> f32 {
    const CANDIDATES: usize = 64;
    let reach = |x: f32| if x < 0.0 { x / grid.min.min(-1) as f32 } else { x / grid.max as f32 };
    // Values below an unsigned grid are lost at any step.
    let signed = grid.min < 0;
    let values = sample.iter().filter(|x| x.is_finite() && (signed || **x > 0.0));
    let largest = values.clone().fold(0.0f32, |m, x| m.max(reach(*x)));
    if largest <= MIN_STEP {
        return 1.0 / grid.max as f32;
    }
    // At most about 4096 values decide: enough for a first guess.
    let stride = (sample.len() / 4096).max(1);
    let error = |step: f32| -> f64 {
        let few = sample.iter().step_by(stride).filter(|x| x.is_finite());
        few.map(|x| {
            let integer = (x / step).round().clamp(grid.min as f32, grid.max as f32);
            f64::from(x - integer * step).powi(2)
        })
        .sum()
    };
    let candidate = |i: usize| largest * (i + 1) as f32 / CANDIDATES as f32;
    let best = (0..CANDIDATES).map(candidate).min_by(|a, b| error(*a).total_cmp(&error(*b)));
    best.unwrap_or(largest).max(MIN_STEP)
}

/// [`first_step`] for each of `channels` equally long slices.
pub fn first_steps(weights: &[f32], channels: usize, grid: Grid) -> Vec<f32> {
    let row = (weights.len() / channels.max(1)).max(1);
    weights.chunks(row).map(|row| first_step(row, grid)).collect()
}

/// Batch normalization as it is exported: a factor and a summand for each channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Folded {
    /// `gamma / sqrt(var + epsilon)`.
    pub factor: Vec<f32>,
    /// `beta - mean * factor`.
    pub summand: Vec<f32>,
}

impl Folded {
    /// Of a normalization with running statistics.
    pub fn norm(gamma: &[f32], beta: &[f32], stats: &RunningStats) -> Folded {
        let factor: Vec<f32> = gamma
            .iter()
            .zip(&stats.var)
            .map(|(gamma, var)| gamma / (var + NORM_EPSILON).sqrt())
            .collect();
        let shift = |((beta, mean), factor): ((&f32, &f32), &f32)| beta - mean * factor;
        let summand = beta.iter().zip(&stats.mean).zip(&factor).map(shift).collect();
        Folded { factor, summand }
    }

    /// Of a plain bias.
    pub fn bias(bias: &[f32]) -> Folded {
        Folded { factor: vec![1.0; bias.len()], summand: bias.to_vec() }
    }
}

/// Integers of a trained layer. `weights` are `[OC, IC, KH, KW]` with `kernel = KH * KW`
/// (depthwise: `[C, KH, KW]`, linear: `[O, I]` with `kernel = 1`), `steps` one for each output
/// channel; the codes come in the order of the packed format, input channels last.
pub fn trained_layer(
    weights: &[f32],
    kernel: usize,
    steps: &[f32],
    grid: Grid,
    after: &Folded,
) -> TrainedLayer {
    let channels = steps.len();
    let inputs = weights.len() / (channels * kernel).max(1);
    let codes = integers(weights, steps, grid);
    let ordered = (0..weights.len()).map(|i| {
        let (channel, tap, input) = (i / (kernel * inputs), i / inputs % kernel, i % inputs);
        codes[(channel * inputs + input) * kernel + tap] as i8
    });
    TrainedLayer {
        weights: ordered.collect(),
        scale: steps.iter().zip(&after.factor).map(|(s, f)| s.max(MIN_STEP) * f).collect(),
        offset: after.summand.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_step_finds_the_grid_of_gridded_values() {
        let values: Vec<f32> = (0..64).map(|i| 0.25 * (i % 4) as f32).collect();
        let step = first_step(&values, Grid::unsigned(2));
        assert!((step - 0.25).abs() < 1e-6, "{step}");
        // One outlier among many small values: it is clamped.
        let mut values: Vec<f32> = (0..1000).map(|i| (i % 7) as f32 * 0.1 - 0.3).collect();
        values.push(30.0);
        assert!(first_step(&values, Grid::signed(8)) < 30.0 / 127.0 + 1e-6);
        assert!(first_step(&[0.0; 4], Grid::unsigned(4)) > 0.0);
        assert!(first_step(&[], Grid::signed(2)) > 0.0);
        assert_eq!(first_steps(&[0.0, 1.0, -0.5, 0.5], 2, Grid::signed(8)).len(), 2);
    }

    #[test]
    fn layer_computes_what_training_computed() {
        // [OC = 2, IC = 2, KH * KW = 2], steps 0.5 and 1.
        let weights = [0.5, 1.0, -0.5, -1.0, 1.0, 0.0, -1.0, 5.0];
        let stats = RunningStats { mean: vec![1.0, -1.0], var: vec![4.0 - NORM_EPSILON, 0.25] };
        let after = Folded::norm(&[2.0, -1.0], &[0.5, 0.0], &stats);
        let layer = trained_layer(&weights, 2, &[0.5, 1.0], Grid::signed(2), &after);
        // Input channels last; 2 clamps to 1, -2 fits, 5 clamps to 1.
        assert_eq!(layer.weights, [1, -1, 1, -2, 1, -1, 0, 1]);
        let close = |a: &[f32], b: [f32; 2]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
        assert!(close(&layer.scale, [0.5, -2.0]), "{:?}", layer.scale);
        assert!(close(&layer.offset, [-0.5, -2.0]), "{:?}", layer.offset);
    }
}
