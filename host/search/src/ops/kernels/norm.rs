//! Batch normalization with its activation, one channel a task: a channel of a batch is small
//! enough to stay in the cache over the passes.

use rayon::prelude::*;

use super::{LANES, Parts, simd, sum_lanes};
use crate::ops::{Activation, NORM_EPSILON};

/// Statistics that normalized a batch.
#[derive(Clone, Debug)]
pub struct Stats {
    pub mean: Vec<f32>,
    /// Biased variance.
    pub var: Vec<f32>,
}

/// Sizes of `[N, C, pixels]`.
#[derive(Clone, Copy, Debug)]
pub struct Planes {
    pub images: usize,
    pub channels: usize,
    pub pixels: usize,
}

impl Planes {
    fn plane(self, n: usize, c: usize) -> std::ops::Range<usize> {
        let start = (n * self.channels + c) * self.pixels;
        start..start + self.pixels
    }
}

/// `sum_i f(i)` over a plane, in lanes.
#[inline(always)]
fn sum_by(len: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = len - len % LANES;
    let mut i = 0;
    while i < whole {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(i + lane);
        }
        i += LANES;
    }
    for i in whole..len {
        lanes[i - whole] += f(i);
    }
    sum_lanes(lanes)
}

/// The output, and the statistics of the batch where none are `given`.
pub fn forward(
    p: Planes,
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    given: Option<&Stats>,
    activation: Activation,
) -> (Vec<f32>, Stats) {
    let mut out = vec![0.0; x.len()];
    let parts = Parts::new(&mut out);
    let count = (p.images * p.pixels) as f64;
    let floor = floor(activation);
    let (mean, var): (Vec<f32>, Vec<f32>) = (0..p.channels)
        .into_par_iter()
        .map(|c| {
            simd(
                #[inline(always)]
                || {
                    let (mean, var) = match given {
                        Some(stats) => (stats.mean[c], stats.var[c]),
                        None => {
                            let mut sum = 0.0f64;
                            for n in 0..p.images {
                                let x = &x[p.plane(n, c)];
                                sum += f64::from(sum_by(x.len(), |i| x[i]));
                            }
                            let mean = (sum / count) as f32;
                            let mut squares = 0.0f64;
                            for n in 0..p.images {
                                let x = &x[p.plane(n, c)];
                                let square = |i: usize| (x[i] - mean) * (x[i] - mean);
                                squares += f64::from(sum_by(x.len(), square));
                            }
                            (mean, (squares / count) as f32)
                        }
                    };
                    let scale = gamma[c] / (var + NORM_EPSILON).sqrt();
                    let shift = beta[c] - mean * scale;
                    for n in 0..p.images {
                        let range = p.plane(n, c);
                        // SAFETY: the planes of channel `c` belong to this task alone.
                        let out = unsafe { parts.part(range.start, p.pixels) };
                        for (out, x) in out.iter_mut().zip(&x[range]) {
                            *out = (x * scale + shift).max(floor);
                        }
                    }
                    (mean, var)
                },
            )
        })
        .unzip();
    (out, Stats { mean, var })
}

/// What the activation clamps at from below.
fn floor(activation: Activation) -> f32 {
    match activation {
        Activation::Identity => f32::NEG_INFINITY,
        Activation::Relu => 0.0,
    }
}

/// Gradients of a normalization.
pub struct Gradients {
    /// To the input, where wanted.
    pub x: Option<Vec<f32>>,
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
}

/// The backward pass; `of_batch` says whether `stats` depend on `x`.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    p: Planes,
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    stats: &Stats,
    of_batch: bool,
    activation: Activation,
    grad: &[f32],
    wanted: bool,
) -> Gradients {
    let mut dx = vec![0.0; if wanted { x.len() } else { 0 }];
    let parts = Parts::new(&mut dx);
    let count = (p.images * p.pixels) as f32;
    let floor = floor(activation);
    let (dgamma, dbeta): (Vec<f32>, Vec<f32>) = (0..p.channels)
        .into_par_iter()
        .map(|c| {
            simd(
                #[inline(always)]
                || {
                    let mean = stats.mean[c];
                    let inverse = 1.0 / (stats.var[c] + NORM_EPSILON).sqrt();
                    let scale = gamma[c] * inverse;
                    let shift = beta[c] - mean * scale;
                    let masked = |x: f32, g: f32| if x * scale + shift > floor { g } else { 0.0 };
                    let (mut sum, mut dot) = (0.0f64, 0.0f64);
                    for n in 0..p.images {
                        let (x, g) = (&x[p.plane(n, c)], &grad[p.plane(n, c)]);
                        sum += f64::from(sum_by(x.len(), |i| masked(x[i], g[i])));
                        let product = |i: usize| masked(x[i], g[i]) * (x[i] - mean);
                        dot += f64::from(sum_by(x.len(), product));
                    }
                    let dgamma = dot as f32 * inverse;
                    let dbeta = sum as f32;
                    if wanted {
                        let (a, b) = if of_batch {
                            (dbeta / count, dgamma * inverse / count)
                        } else {
                            (0.0, 0.0)
                        };
                        for n in 0..p.images {
                            let range = p.plane(n, c);
                            // SAFETY: the planes of channel `c` belong to this task alone.
                            let out = unsafe { parts.part(range.start, p.pixels) };
                            let (x, g) = (&x[range.clone()], &grad[range]);
                            for i in 0..out.len() {
                                out[i] = scale * (masked(x[i], g[i]) - a - (x[i] - mean) * b);
                            }
                        }
                    }
                    (dgamma, dbeta)
                },
            )
        })
        .unzip();
    Gradients { x: wanted.then_some(dx), gamma: dgamma, beta: dbeta }
}
