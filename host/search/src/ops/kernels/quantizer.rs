//! Fake quantization: the expectation over bit options in one pass, nothing kept for the backward
//! pass but the inputs. One option with probability 1 is the plain quantizer.

use rayon::prelude::*;

use super::{LANES, Parts, simd, sum_lanes};
use crate::ops::Grid;

/// A learned step never acts as less than this.
pub const MIN_STEP: f32 = 1e-7;

/// How the elements share steps, and which are quantized at all.
#[derive(Clone, Copy, Debug)]
pub struct Arrangement<'a> {
    /// Steps of an option: 1, or one for each of equally long slices of `x`.
    pub steps: usize,
    /// Elements that count as sharing a step in its gradient's scale.
    pub sharing: usize,
    /// Which channels are quantized, and the pixels of a plane `(n, c)`; `None` is all.
    pub channels: Option<(&'a [bool], usize)>,
}

/// Elements one task takes.
const BLOCK: usize = 1 << 14;

/// A run of elements with one step each option.
struct Segment {
    start: usize,
    len: usize,
    step: usize,
    quantized: bool,
}

fn segments(a: &Arrangement<'_>, len: usize) -> Vec<Segment> {
    let mut all = Vec::new();
    match a.channels {
        Some((mask, pixels)) if pixels > 0 => {
            for (plane, start) in (0..len).step_by(pixels).enumerate() {
                let quantized = mask[plane % mask.len()];
                match all.last_mut() {
                    Some(Segment { len, quantized: q, .. })
                        if *q == quantized && *len + pixels <= BLOCK =>
                    {
                        *len += pixels;
                    }
                    _ => all.push(Segment { start, len: pixels, step: 0, quantized }),
                }
            }
        }
        _ => {
            let row = (len / a.steps).max(1);
            for start in (0..len).step_by(row) {
                for at in (start..start + row).step_by(BLOCK) {
                    let len = BLOCK.min(start + row - at);
                    let step = if a.steps == 1 { 0 } else { start / row };
                    all.push(Segment { start: at, len, step, quantized: true });
                }
            }
        }
    }
    all
}

/// Segments a task takes, so that a task has about [`BLOCK`] elements.
fn per_task(segments: &[Segment]) -> usize {
    let longest = segments.iter().map(|s| s.len).max().unwrap_or(1);
    (BLOCK / longest).max(1)
}

/// Nearest integer, half to even, for `|v| < 2^22`, without an instruction old CPUs lack.
#[inline(always)]
fn round(v: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (v + MAGIC) - MAGIC
}

/// One option at one step.
#[derive(Clone, Copy)]
struct Quantizer {
    step: f32,
    inverse: f32,
    min: f32,
    max: f32,
}

impl Quantizer {
    fn new(step: f32, grid: Grid) -> Quantizer {
        let step = step.max(MIN_STEP);
        Quantizer { step, inverse: 1.0 / step, min: grid.min as f32, max: grid.max as f32 }
    }

    /// `x` in steps, kept within one step of the grid; the rounded value; whether it is on the
    /// grid.
    #[inline(always)]
    fn place(&self, x: f32) -> (f32, f32, bool) {
        let scaled = (x * self.inverse).clamp(self.min - 1.0, self.max + 1.0);
        let rounded = round(scaled);
        (scaled, rounded, rounded >= self.min && rounded <= self.max)
    }

    #[inline(always)]
    fn integer(&self, x: f32) -> f32 {
        let (_, rounded, _) = self.place(x);
        rounded.clamp(self.min, self.max)
    }
}

/// The integers of `x`, one step for each equally long slice.
pub fn integers(x: &[f32], steps: &[f32], grid: Grid) -> Vec<i32> {
    let row = (x.len() / steps.len().max(1)).max(1);
    let rows = x.chunks(row).zip(steps);
    rows.flat_map(|(x, step)| {
        let q = Quantizer::new(*step, grid);
        x.iter().map(move |x| q.integer(*x) as i32)
    })
    .collect()
}

/// `sum_i p[i] * q_i(x)`; `steps[i * a.steps ..]` are those of option `i`.
pub fn forward(
    a: Arrangement<'_>,
    x: &[f32],
    steps: &[f32],
    p: &[f32],
    grids: &[Grid],
) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    let segments = segments(&a, x.len());
    let parts = Parts::new(&mut out);
    let run = |segments: &[Segment]| {
        simd(
            #[inline(always)]
            || {
                for s in segments {
                    // SAFETY: segments do not overlap, and each belongs to one task.
                    let out = unsafe { parts.part(s.start, s.len) };
                    let x = &x[s.start..s.start + s.len];
                    if !s.quantized {
                        out.copy_from_slice(x);
                        continue;
                    }
                    for (i, grid) in grids.iter().enumerate() {
                        let q = Quantizer::new(steps[i * a.steps + s.step], *grid);
                        let weight = p[i] * q.step;
                        for (out, x) in out.iter_mut().zip(x) {
                            *out += weight * q.integer(*x);
                        }
                    }
                }
            },
        )
    };
    segments.par_chunks(per_task(&segments)).for_each(run);
    out
}

/// Gradients of a mixture.
pub struct Gradients {
    /// To the input, where wanted.
    pub x: Option<Vec<f32>>,
    pub steps: Vec<f32>,
    pub p: Vec<f32>,
}

/// The backward pass.
pub fn backward(
    a: Arrangement<'_>,
    x: &[f32],
    steps: &[f32],
    p: &[f32],
    grids: &[Grid],
    grad: &[f32],
    wanted: bool,
) -> Gradients {
    let mut dx = vec![0.0; if wanted { x.len() } else { 0 }];
    let segments = segments(&a, x.len());
    let parts = Parts::new(&mut dx);
    let options = grids.len();
    // Per segment and option: d loss / d step without its scale, and d loss / d p.
    let run = |segments: &[Segment]| -> Vec<[f32; 2]> {
        simd(
            #[inline(always)]
            || {
                let mut sums = Vec::with_capacity(segments.len() * options);
                for s in segments {
                    let range = s.start..s.start + s.len;
                    // SAFETY: segments do not overlap, and each belongs to one task.
                    let dx = unsafe {
                        if wanted { parts.part(s.start, s.len) } else { parts.part(0, 0) }
                    };
                    if !s.quantized {
                        if wanted {
                            dx.copy_from_slice(&grad[range]);
                        }
                        sums.extend(std::iter::repeat_n([0.0; 2], options));
                        continue;
                    }
                    for (i, grid) in grids.iter().enumerate() {
                        let q = Quantizer::new(steps[i * a.steps + s.step], *grid);
                        let (x, g) = (&x[range.clone()], &grad[range.clone()]);
                        sums.push(option(q, p[i], x, g, wanted.then_some(&mut *dx)));
                    }
                }
                sums
            },
        )
    };
    let sums: Vec<Vec<[f32; 2]>> = segments.par_chunks(per_task(&segments)).map(run).collect();
    let mut dsteps = vec![0.0f64; steps.len()];
    let mut dp = vec![0.0f64; options];
    for (segment, sums) in segments.iter().zip(sums.concat().chunks_exact(options)) {
        for (i, [step, probability]) in sums.iter().enumerate() {
            dsteps[i * a.steps + segment.step] += f64::from(*step);
            dp[i] += f64::from(*probability);
        }
    }
    let scale = |i: usize| {
        let option = i / a.steps;
        let levels = f64::from(grids[option].max);
        f64::from(p[option]) / (a.sharing as f64 * levels).sqrt()
    };
    Gradients {
        x: wanted.then_some(dx),
        steps: dsteps.iter().enumerate().map(|(i, sum)| (sum * scale(i)) as f32).collect(),
        p: dp.iter().map(|sum| *sum as f32).collect(),
    }
}

/// Adds an option's part to `dx` and returns the sums for its step and its probability.
#[inline(always)]
fn option(q: Quantizer, p: f32, x: &[f32], g: &[f32], dx: Option<&mut [f32]>) -> [f32; 2] {
    let mut step = [0.0f32; LANES];
    let mut probability = [0.0f32; LANES];
    let mut lane = |i: usize, x: f32, g: f32| -> f32 {
        let (scaled, rounded, inside) = q.place(x);
        let integer = rounded.clamp(q.min, q.max);
        let residue = if inside { integer - scaled } else { integer };
        step[i] += g * residue;
        probability[i] += g * integer;
        if inside { p * g } else { 0.0 }
    };
    match dx {
        Some(dx) => {
            let whole = dx.len() - dx.len() % LANES;
            let (head, tail) = dx.split_at_mut(whole);
            let blocks = x.chunks_exact(LANES).zip(g.chunks_exact(LANES));
            for (dx, (x, g)) in head.chunks_exact_mut(LANES).zip(blocks) {
                for i in 0..LANES {
                    dx[i] += lane(i, x[i], g[i]);
                }
            }
            for (i, dx) in tail.iter_mut().enumerate() {
                *dx += lane(i, x[whole + i], g[whole + i]);
            }
        }
        None => {
            for (x, g) in x.chunks(LANES).zip(g.chunks(LANES)) {
                for i in 0..x.len() {
                    lane(i, x[i], g[i]);
                }
            }
        }
    }
    [sum_lanes(step), q.step * sum_lanes(probability)]
}
