//! Fake quantization: the expectation over bit options in one pass, nothing kept for the backward
//! pass but the inputs. One option with probability 1 is the plain quantizer.

use rayon::prelude::*;

use super::{LANES, Parts, Sum, simd, written};
use crate::ops::{Grid, StepRule};

/// A learned step never acts as less than this.
pub const MIN_STEP: f32 = 1e-7;

/// Options with their steps and probabilities, and how the elements share steps.
#[derive(Clone, Copy, Debug)]
pub struct Mixture<'a> {
    pub grids: &'a [Grid],
    pub p: &'a [f32],
    /// `[options, steps_per_option]`.
    pub steps: &'a [f32],
    /// Steps of an option: 1, or one for each of equally long slices of the tensor.
    pub steps_per_option: usize,
    /// Elements that count as sharing a step in its gradient's scale.
    pub sharing: usize,
    /// Which channels are quantized, the others pass; `None` is all.
    pub channels: Option<&'a [bool]>,
}

/// Elements a step of a task's inner loops takes; they stay in the first cache over the options.
pub const STRIP: usize = 512;

/// Elements one task takes.
const BLOCK: usize = 1 << 14;

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
    p: f32,
    /// The step learns from what is clipped alone.
    clipped_only: bool,
}

impl Quantizer {
    fn new(step: f32, grid: Grid, p: f32) -> Quantizer {
        let step = step.max(MIN_STEP);
        Quantizer {
            step,
            inverse: 1.0 / step,
            min: grid.min as f32,
            max: grid.max as f32,
            p,
            clipped_only: grid.rule == StepRule::Pact,
        }
    }

    /// `x` in steps, kept within one step of the grid, and rounded to an integer, which may lie
    /// one beyond the grid.
    #[inline(always)]
    fn place(&self, x: f32) -> (f32, f32) {
        let scaled = bound(x * self.inverse, self.min - 1.0, self.max + 1.0);
        (scaled, round(scaled))
    }

    #[inline(always)]
    fn integer(&self, x: f32) -> f32 {
        bound(self.place(x).1, self.min, self.max)
    }
}

/// `f32::clamp` without its check of the bounds: two instructions of a vector unit.
#[inline(always)]
fn bound(x: f32, min: f32, max: f32) -> f32 {
    let x = if x < min { min } else { x };
    if x > max { max } else { x }
}

/// The integers of `x`, one step for each equally long slice.
pub fn integers(x: &[f32], steps: &[f32], grid: Grid) -> Vec<i32> {
    let row = (x.len() / steps.len().max(1)).max(1);
    let rows = x.chunks(row).zip(steps);
    rows.flat_map(|(x, step)| {
        let q = Quantizer::new(*step, grid, 1.0);
        x.iter().map(move |x| q.integer(*x) as i32)
    })
    .collect()
}

/// The sums a step's and a probability's gradients are made of, for one option.
#[derive(Clone, Copy)]
pub struct OptionSums {
    step: Sum,
    probability: Sum,
}

impl OptionSums {
    /// Nothing seen.
    pub const ZERO: OptionSums = OptionSums { step: Sum::ZERO, probability: Sum::ZERO };
}

/// All options at one step each.
pub struct Options {
    quantizers: Vec<Quantizer>,
}

impl Options {
    /// Those at the `slice`-th steps of `mixture`.
    pub fn at(mixture: &Mixture<'_>, slice: usize) -> Options {
        let n = mixture.steps_per_option;
        let option = |(i, grid): (usize, &Grid)| {
            Quantizer::new(mixture.steps[i * n + slice], *grid, mixture.p[i])
        };
        Options { quantizers: mixture.grids.iter().enumerate().map(option).collect() }
    }

    /// `out = sum_i p_i q_i(x)`.
    #[inline(always)]
    pub fn mix(&self, x: &[f32], out: &mut [f32]) {
        for (x, out) in x.chunks(STRIP).zip(out.chunks_mut(STRIP)) {
            for (i, q) in self.quantizers.iter().enumerate() {
                let weight = q.p * q.step;
                for (out, x) in out.iter_mut().zip(x) {
                    let value = weight * q.integer(*x);
                    *out = if i == 0 { value } else { *out + value };
                }
            }
        }
    }

    /// `dx = g * d mix / d x`; adds to `sums`, one an option.
    #[inline(always)]
    pub fn mix_backward(&self, x: &[f32], g: &[f32], dx: &mut [f32], sums: &mut [OptionSums]) {
        let strips = x.chunks(STRIP).zip(g.chunks(STRIP));
        for (dx, (x, g)) in dx.chunks_mut(STRIP).zip(strips) {
            for (i, (q, sums)) in self.quantizers.iter().zip(sums.iter_mut()).enumerate() {
                match i {
                    0 => q.backward::<true>(x, g, dx, sums),
                    _ => q.backward::<false>(x, g, dx, sums),
                }
            }
        }
    }
}

/// What a block of elements adds to the sums of an option.
struct BlockSums {
    steps: [f32; LANES],
    probabilities: [f32; LANES],
}

impl Quantizer {
    /// Sets `dx` (the `FIRST` option) or adds to it, and adds to `sums`.
    #[inline(always)]
    fn backward<const FIRST: bool>(
        &self,
        x: &[f32],
        g: &[f32],
        dx: &mut [f32],
        sums: &mut OptionSums,
    ) {
        let mut local = BlockSums {
            steps: *sums.step.lanes(x.len()),
            probabilities: *sums.probability.lanes(x.len()),
        };
        let (xs, x_rest) = x.as_chunks::<LANES>();
        let (gs, g_rest) = g.as_chunks::<LANES>();
        let (dxs, dx_rest) = dx.as_chunks_mut::<LANES>();
        for ((x, g), dx) in xs.iter().zip(gs).zip(dxs) {
            self.block::<FIRST>(x, g, dx, &mut local);
        }
        if !x_rest.is_empty() {
            // Zero gradients fill the last block up: they add nothing.
            let n = x_rest.len();
            let (mut x, mut g, mut out) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
            x[..n].copy_from_slice(x_rest);
            g[..n].copy_from_slice(g_rest);
            if !FIRST {
                out[..n].copy_from_slice(dx_rest);
            }
            self.block::<FIRST>(&x, &g, &mut out, &mut local);
            dx_rest.copy_from_slice(&out[..n]);
        }
        sums.step.put(local.steps);
        sums.probability.put(local.probabilities);
    }

    #[inline(always)]
    fn block<const FIRST: bool>(
        &self,
        x: &[f32; LANES],
        g: &[f32; LANES],
        dx: &mut [f32; LANES],
        sums: &mut BlockSums,
    ) {
        for i in 0..LANES {
            let (scaled, rounded) = self.place(x[i]);
            let integer = bound(rounded, self.min, self.max);
            let inside = integer == rounded;
            let place = if self.clipped_only { integer } else { scaled };
            let position = if inside { place } else { 0.0 };
            let passed = if inside { self.p } else { 0.0 };
            sums.steps[i] += g[i] * (integer - position);
            sums.probabilities[i] += g[i] * integer;
            dx[i] = if FIRST { passed * g[i] } else { dx[i] + passed * g[i] };
        }
    }
}

/// Gradients to steps and probabilities.
pub struct OptionGradients {
    pub steps: Vec<f32>,
    pub p: Vec<f32>,
}

/// Sums of parts in their order; a part belongs to the steps of one slice.
pub fn option_gradients<'a>(
    mixture: &Mixture<'_>,
    parts: impl Iterator<Item = (usize, &'a [OptionSums])>,
) -> OptionGradients {
    let n = mixture.steps_per_option;
    let mut steps = vec![0.0f64; mixture.steps.len()];
    let mut p = vec![0.0f64; mixture.p.len()];
    for (slice, sums) in parts {
        for (i, sums) in sums.iter().enumerate() {
            let at = i * n + slice;
            steps[at] += sums.step.total();
            p[i] += f64::from(mixture.steps[at].max(MIN_STEP)) * sums.probability.total();
        }
    }
    let scale = |i: usize| {
        let levels = f64::from(mixture.grids[i].max);
        f64::from(mixture.p[i])
            / match mixture.grids[i].rule {
                StepRule::Lsq => (mixture.sharing as f64 * levels).sqrt(),
                StepRule::Pact => levels * levels,
            }
    };
    OptionGradients {
        steps: steps.iter().enumerate().map(|(at, sum)| (sum * scale(at / n)) as f32).collect(),
        p: p.iter().map(|sum| *sum as f32).collect(),
    }
}

/// A run of elements with one step an option.
struct Segment {
    start: usize,
    len: usize,
    slice: usize,
    quantized: bool,
}

/// Cuts a tensor of `len` elements, whose planes have `pixels`, into segments of at most
/// [`BLOCK`] elements.
fn segments(m: &Mixture<'_>, len: usize, pixels: usize) -> Vec<Segment> {
    let mut all: Vec<Segment> = Vec::new();
    if let Some(marks) = m.channels {
        for (plane, start) in (0..len).step_by(pixels.max(1)).enumerate() {
            let quantized = marks[plane % marks.len()];
            match all.last_mut() {
                Some(s) if s.quantized == quantized && s.len + pixels <= BLOCK => s.len += pixels,
                _ => all.push(Segment { start, len: pixels, slice: 0, quantized }),
            }
        }
        return all;
    }
    let row = (len / m.steps_per_option).max(1);
    for (slice, start) in (0..len).step_by(row).enumerate() {
        for at in (start..start + row).step_by(BLOCK) {
            let len = BLOCK.min(start + row - at);
            all.push(Segment { start: at, len, slice, quantized: true });
        }
    }
    all
}

/// Segments a task takes, so that a task has about [`BLOCK`] elements.
fn per_task(segments: &[Segment]) -> usize {
    let longest = segments.iter().map(|s| s.len).max().unwrap_or(1);
    (BLOCK / longest).max(1)
}

/// `sum_i p_i q_i(x)`; `pixels` is the size of a plane.
pub fn forward(m: Mixture<'_>, x: &[f32], pixels: usize) -> Vec<f32> {
    let segments = segments(&m, x.len(), pixels);
    written(x.len(), |out| {
        let parts = Parts::new(out);
        segments.par_chunks(per_task(&segments)).for_each(|segments| {
            for s in segments {
                // SAFETY: segments do not overlap, and each belongs to one task.
                let out = unsafe { parts.part(s.start, s.len) };
                let x = &x[s.start..s.start + s.len];
                if s.quantized {
                    let options = Options::at(&m, s.slice);
                    simd(
                        #[inline(always)]
                        || options.mix(x, out),
                    );
                } else {
                    out.copy_from_slice(x);
                }
            }
        });
    })
}

/// Gradients to `x` and to steps and probabilities.
pub fn backward(
    m: Mixture<'_>,
    x: &[f32],
    pixels: usize,
    grad: &[f32],
) -> (Vec<f32>, OptionGradients) {
    let segments = segments(&m, x.len(), pixels);
    let n = m.grids.len();
    let mut sums = Vec::new();
    let dx = written(x.len(), |dx| {
        let parts = Parts::new(dx);
        let task = |segments: &[Segment]| {
            let mut sums = vec![OptionSums::ZERO; n * segments.len()];
            for (s, sums) in segments.iter().zip(sums.chunks_exact_mut(n)) {
                // SAFETY: segments do not overlap, and each belongs to one task.
                let dx = unsafe { parts.part(s.start, s.len) };
                let range = s.start..s.start + s.len;
                if s.quantized {
                    let options = Options::at(&m, s.slice);
                    simd(
                        #[inline(always)]
                        || options.mix_backward(&x[range.clone()], &grad[range], dx, sums),
                    );
                } else {
                    dx.copy_from_slice(&grad[range]);
                }
            }
            sums
        };
        sums = segments.par_chunks(per_task(&segments)).flat_map_iter(task).collect();
    });
    let gradients = option_gradients(&m, segments.iter().map(|s| s.slice).zip(sums.chunks(n)));
    (dx, gradients)
}
