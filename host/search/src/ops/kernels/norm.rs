//! Batch normalization with its activation and, where wanted, the quantizer behind it, one
//! channel a task: a channel of a batch is small enough to stay in the cache over the passes.

use rayon::prelude::*;

use super::quantizer::{Mixture, OptionGradients, OptionSums, Options, STRIP, option_gradients};
use super::{LANES, Parts, Sum, simd, written};
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

/// A normalization without its input.
#[derive(Clone, Copy)]
pub struct Spec<'a> {
    pub planes: Planes,
    pub gamma: &'a [f32],
    pub beta: &'a [f32],
    pub activation: Activation,
    /// Has one step an option.
    pub quantizer: Option<Mixture<'a>>,
}

impl<'a> Spec<'a> {
    /// What is behind channel `c`.
    fn options(&self, c: usize) -> Option<Options> {
        let mixture = self.quantizer.as_ref()?;
        let quantized = mixture.channels.is_none_or(|marks| marks[c]);
        quantized.then(|| Options::at(mixture, 0))
    }

    /// What the activation clamps at from below.
    fn floor(&self) -> f32 {
        match self.activation {
            Activation::Identity => f32::NEG_INFINITY,
            Activation::Relu => 0.0,
        }
    }
}

/// Adds `f(i)` for `i` in `0..len` to `sum`.
#[inline(always)]
fn add(sum: &mut Sum, len: usize, f: impl Fn(usize) -> f32) {
    let lanes = sum.lanes(len);
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
}

/// Mean and biased variance of channel `c`.
#[inline(always)]
fn statistics(p: Planes, c: usize, x: &[f32]) -> (f32, f32) {
    let count = (p.images * p.pixels) as f64;
    let mut sum = Sum::ZERO;
    for n in 0..p.images {
        let x = &x[p.plane(n, c)];
        add(&mut sum, x.len(), |i| x[i]);
    }
    let mean = (sum.total() / count) as f32;
    let mut squares = Sum::ZERO;
    for n in 0..p.images {
        let x = &x[p.plane(n, c)];
        add(&mut squares, x.len(), |i| (x[i] - mean) * (x[i] - mean));
    }
    (mean, (squares.total() / count) as f32)
}

/// The output, and what it was normalized with: the statistics of the batch where none are
/// `given`.
pub fn forward(spec: &Spec<'_>, x: &[f32], given: Option<&Stats>) -> (Vec<f32>, Stats) {
    let p = spec.planes;
    let (mut mean, mut var) = (Vec::new(), Vec::new());
    let out = written(x.len(), |out| {
        let parts = Parts::new(out);
        let channel = |c: usize| {
            simd(
                #[inline(always)]
                || {
                    let (mean, var) = match given {
                        Some(stats) => (stats.mean[c], stats.var[c]),
                        None => statistics(p, c, x),
                    };
                    let scale = spec.gamma[c] / (var + NORM_EPSILON).sqrt();
                    let shift = spec.beta[c] - mean * scale;
                    let floor = spec.floor();
                    let options = spec.options(c);
                    let mut real = [0.0f32; STRIP];
                    for n in 0..p.images {
                        let range = p.plane(n, c);
                        // SAFETY: the planes of channel `c` belong to this task alone.
                        let out = unsafe { parts.part(range.start, p.pixels) };
                        let x = &x[range];
                        match &options {
                            None => {
                                for (out, x) in out.iter_mut().zip(x) {
                                    *out = (x * scale + shift).max(floor);
                                }
                            }
                            Some(options) => {
                                for (out, x) in out.chunks_mut(STRIP).zip(x.chunks(STRIP)) {
                                    for (real, x) in real.iter_mut().zip(x) {
                                        *real = (x * scale + shift).max(floor);
                                    }
                                    options.mix(&real[..x.len()], out);
                                }
                            }
                        }
                    }
                    (mean, var)
                },
            )
        };
        (mean, var) = (0..p.channels).into_par_iter().map(channel).unzip();
    });
    (out, Stats { mean, var })
}

/// Gradients of a normalization.
pub struct Gradients {
    pub x: Vec<f32>,
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
    pub options: Option<OptionGradients>,
}

/// The backward pass; `of_batch` says whether `stats` depend on `x`.
pub fn backward(
    spec: &Spec<'_>,
    x: &[f32],
    stats: &Stats,
    of_batch: bool,
    grad: &[f32],
) -> Gradients {
    let p = spec.planes;
    let options = spec.quantizer.map_or(0, |m| m.grids.len());
    let mut results: Vec<(f32, f32, Vec<OptionSums>)> = Vec::new();
    let dx = written(x.len(), |dx| {
        let parts = Parts::new(dx);
        let channel = |c: usize| {
            simd(
                #[inline(always)]
                || {
                    let mean = stats.mean[c];
                    let inverse = 1.0 / (stats.var[c] + NORM_EPSILON).sqrt();
                    let scale = spec.gamma[c] * inverse;
                    let shift = spec.beta[c] - mean * scale;
                    let floor = spec.floor();
                    let quantizer = spec.options(c);
                    let mut option_sums = vec![OptionSums::ZERO; options];
                    let mut real = [0.0f32; STRIP];
                    let (mut sum, mut dot) = (Sum::ZERO, Sum::ZERO);
                    // First the gradient in front of the activation, and its sums.
                    for n in 0..p.images {
                        let range = p.plane(n, c);
                        // SAFETY: the planes of channel `c` belong to this task alone.
                        let dx = unsafe { parts.part(range.start, p.pixels) };
                        let (x, g) = (&x[range.clone()], &grad[range]);
                        let strips = x.chunks(STRIP).zip(g.chunks(STRIP));
                        for (dx, (x, g)) in dx.chunks_mut(STRIP).zip(strips) {
                            match &quantizer {
                                None => {
                                    for ((dx, x), g) in dx.iter_mut().zip(x).zip(g) {
                                        *dx = if x * scale + shift > floor { *g } else { 0.0 };
                                    }
                                }
                                Some(options) => {
                                    for (real, x) in real.iter_mut().zip(x) {
                                        *real = (x * scale + shift).max(floor);
                                    }
                                    let real = &real[..x.len()];
                                    options.mix_backward(real, g, dx, &mut option_sums);
                                    for (dx, real) in dx.iter_mut().zip(real) {
                                        *dx = if *real > floor { *dx } else { 0.0 };
                                    }
                                }
                            }
                            add(&mut sum, dx.len(), |i| dx[i]);
                            add(&mut dot, dx.len(), |i| dx[i] * (x[i] - mean));
                        }
                    }
                    let dgamma = dot.total() as f32 * inverse;
                    let dbeta = sum.total() as f32;
                    let count = (p.images * p.pixels) as f32;
                    let (a, b) = match of_batch {
                        true => (dbeta / count, dgamma * inverse / count),
                        false => (0.0, 0.0),
                    };
                    for n in 0..p.images {
                        let range = p.plane(n, c);
                        // SAFETY: the planes of channel `c` belong to this task alone.
                        let dx = unsafe { parts.part(range.start, p.pixels) };
                        for (dx, x) in dx.iter_mut().zip(&x[range]) {
                            *dx = scale * (*dx - a - (x - mean) * b);
                        }
                    }
                    (dgamma, dbeta, option_sums)
                },
            )
        };
        results = (0..p.channels).into_par_iter().map(channel).collect();
    });
    let parts = || results.iter().map(|(_, _, sums)| (0, sums.as_slice()));
    let options = spec.quantizer.as_ref().map(|m| option_gradients(m, parts()));
    let gamma = results.iter().map(|r| r.0).collect();
    let beta = results.iter().map(|r| r.1).collect();
    Gradients { x: dx, gamma, beta, options }
}
