//! Depthwise convolution, one plane at a time, in long contiguous runs.
//!
//! A padded plane is split into `stride * stride` phases (pixels with equal row and column modulo
//! the stride). Every tap of the window then reads one phase at a constant offset, so that a whole
//! output plane, laid out at the width of a phase, is a sum of shifted contiguous runs; the few
//! columns beyond the output's width are computed and dropped.

use rayon::prelude::*;

use super::conv::Geometry;
use super::{LANES, Parts, simd, sum_lanes, written};

/// Output lanes computed together.
const RUN: usize = 2 * LANES;

struct Layout {
    phase: [usize; 2],
    /// Offset of every tap in the phase buffer.
    offsets: Vec<usize>,
    output: (usize, usize),
    /// Length of an output plane at phase width, rounded up to [`RUN`].
    run: usize,
}

impl Layout {
    fn new(g: &Geometry) -> Layout {
        let [top, bottom, left, right] = g.slide.pads;
        let s = g.slide.stride;
        let output = g.output();
        let phase = [(g.height + top + bottom).div_ceil(s), (g.width + left + right).div_ceil(s)];
        let [kh, kw] = g.kernel;
        let offset = |ky: usize, kx: usize| {
            ((ky % s) * s + kx % s) * phase[0] * phase[1] + (ky / s) * phase[1] + kx / s
        };
        let offsets = (0..kh * kw).map(|k| offset(k / kw, k % kw)).collect();
        let run = ((output.0 - 1) * phase[1] + output.1).next_multiple_of(RUN);
        Layout { phase, offsets, output, run }
    }

    fn phases(&self, g: &Geometry) -> usize {
        g.slide.stride * g.slide.stride * self.phase[0] * self.phase[1]
    }

    /// Room for all phases and for the lanes a run may read beyond them.
    fn buffer(&self, g: &Geometry) -> Vec<f32> {
        vec![0.0; self.phases(g) + self.run]
    }

    /// Calls `copy(plane_index, buffer_index, len, plane_stride)` for the runs of a plane; the
    /// buffer's side is contiguous.
    #[inline(always)]
    fn rows(&self, g: &Geometry, mut copy: impl FnMut(usize, usize, usize)) {
        let [top, _, left, _] = g.slide.pads;
        let s = g.slide.stride;
        for y in 0..g.height {
            let py = y + top;
            for b in 0..s.min(g.width) {
                // The first pixel of this row in a phase of column class (left + b) % s.
                let px = left + b;
                let at = ((py % s) * s + px % s) * self.phase[0] * self.phase[1]
                    + (py / s) * self.phase[1]
                    + px / s;
                copy(y * g.width + b, at, (g.width - b).div_ceil(s));
            }
        }
    }

    #[inline(always)]
    fn split(&self, g: &Geometry, plane: &[f32], buffer: &mut [f32]) {
        let s = g.slide.stride;
        self.rows(g, |from, to, len| match s {
            1 => buffer[to..to + len].copy_from_slice(&plane[from..from + len]),
            2 => pick::<2>(&plane[from..], &mut buffer[to..to + len]),
            _ => {
                let pixels = plane[from..].iter().step_by(s);
                buffer[to..to + len].iter_mut().zip(pixels).for_each(|(b, x)| *b = *x);
            }
        });
    }

    #[inline(always)]
    fn join(&self, g: &Geometry, buffer: &[f32], plane: &mut [f32]) {
        let s = g.slide.stride;
        self.rows(g, |to, from, len| {
            if s == 1 {
                plane[to..to + len].copy_from_slice(&buffer[from..from + len]);
            } else {
                let pixels = plane[to..].iter_mut().step_by(s);
                pixels.zip(&buffer[from..from + len]).for_each(|(x, b)| *x = *b);
            }
        });
    }
}

/// Every `S`-th element.
#[inline(always)]
fn pick<const S: usize>(from: &[f32], to: &mut [f32]) {
    let (blocks, rest) = from.as_chunks::<S>();
    let whole = blocks.len().min(to.len());
    for (to, block) in to.iter_mut().zip(blocks) {
        *to = block[0];
    }
    if let (Some(to), Some(last)) = (to.get_mut(whole), rest.first()) {
        *to = *last;
    }
}

/// `out[i] = sum_k weights[k] * input[offsets[k] + i]`; `out` is a multiple of [`RUN`] long.
#[inline(always)]
fn correlate(input: &[f32], taps: impl Iterator<Item = (usize, f32)> + Clone, out: &mut [f32]) {
    for (i, out) in out.chunks_exact_mut(RUN).enumerate() {
        let mut sums = [0.0f32; RUN];
        for (offset, weight) in taps.clone() {
            let input = &input[offset + i * RUN..][..RUN];
            for lane in 0..RUN {
                sums[lane] += weight * input[lane];
            }
        }
        out.copy_from_slice(&sums);
    }
}

/// `sums[k] += sum_i grad[i] * input[offsets[k] + i]` for `TAPS` taps.
#[inline(always)]
fn dots<const TAPS: usize>(input: &[f32], offsets: &[usize], grad: &[f32], sums: &mut [f32]) {
    let mut lanes = [[0.0f32; LANES]; TAPS];
    for (i, grad) in grad.chunks_exact(LANES).enumerate() {
        for tap in 0..TAPS {
            let input = &input[offsets[tap] + i * LANES..][..LANES];
            for lane in 0..LANES {
                lanes[tap][lane] += grad[lane] * input[lane];
            }
        }
    }
    for tap in 0..TAPS {
        sums[tap] += sum_lanes(lanes[tap]);
    }
}

#[inline(always)]
fn all_dots(input: &[f32], offsets: &[usize], grad: &[f32], sums: &mut [f32]) {
    let group = match offsets.len() {
        9 => 9,
        n if n % 7 == 0 => 7,
        n if n % 5 == 0 => 5,
        _ => 1,
    };
    for (offsets, sums) in offsets.chunks(group).zip(sums.chunks_mut(group)) {
        match group {
            9 => dots::<9>(input, offsets, grad, sums),
            7 => dots::<7>(input, offsets, grad, sums),
            5 => dots::<5>(input, offsets, grad, sums),
            _ => dots::<1>(input, offsets, grad, sums),
        }
    }
}

/// `[N, C, OH, OW]` from `x [N, C, H, W]` and `weight [C, KH, KW]`.
pub fn forward(g: &Geometry, x: &[f32], weight: &[f32]) -> Vec<f32> {
    let layout = Layout::new(g);
    let (oh, ow) = layout.output;
    let (plane, taps) = (g.height * g.width, g.kernel[0] * g.kernel[1]);
    // One image a task: large enough to pay for its buffers.
    written(g.images * g.channels * oh * ow, |out| {
        out.par_chunks_mut((g.channels * oh * ow).max(1)).enumerate().for_each(|(n, out)| {
            let mut buffer = layout.buffer(g);
            let mut run = vec![0.0; layout.run];
            simd(
                #[inline(always)]
                || {
                    for (c, out) in out.chunks_exact_mut(oh * ow).enumerate() {
                        layout.split(g, &x[(n * g.channels + c) * plane..][..plane], &mut buffer);
                        let weight = &weight[c * taps..(c + 1) * taps];
                        let taps = layout.offsets.iter().copied().zip(weight.iter().copied());
                        correlate(&buffer, taps, &mut run);
                        for (out, run) in out.chunks_exact_mut(ow).zip(run.chunks(layout.phase[1]))
                        {
                            out.copy_from_slice(&run[..ow]);
                        }
                    }
                },
            );
        });
    })
}

/// Gradients to the input and to the weight, each if wanted.
pub fn backward(
    g: &Geometry,
    x: &[f32],
    weight: &[f32],
    grad: &[f32],
    wanted: [bool; 2],
) -> (Option<Vec<f32>>, Option<Vec<f32>>) {
    let layout = Layout::new(g);
    let (oh, ow) = layout.output;
    let (plane, taps) = (g.height * g.width, g.kernel[0] * g.kernel[1]);
    let stride = g.slide.stride;
    let phase = layout.phase[0] * layout.phase[1];
    let padded = phase.next_multiple_of(RUN);
    // The output's gradient is read at negative offsets too: zeros before it.
    let lead = layout.offsets.iter().map(|o| o % phase).max().unwrap_or(0);
    let mut dw = vec![0.0; weight.len()];
    let dx = written(if wanted[0] { x.len() } else { 0 }, |dx| {
        let dx_parts = Parts::new(dx);
        // A channel a task: the sum over images of its weight's gradient has one owner.
        dw.par_chunks_mut(taps).enumerate().for_each(|(c, dw)| {
            let mut buffer = layout.buffer(g);
            let mut grads = vec![0.0; lead + layout.run.max(padded) + RUN];
            let mut input_grads = vec![0.0; stride * stride * padded];
            let weight = &weight[c * taps..(c + 1) * taps];
            let by_phase: Vec<Vec<(usize, f32)>> = (0..stride * stride)
                .map(|p| {
                    let of_phase =
                        layout.offsets.iter().zip(weight).filter(|(o, _)| *o / phase == p);
                    of_phase.map(|(o, w)| (lead - o % phase, *w)).collect()
                })
                .collect();
            let mut joined = layout.buffer(g);
            simd(
                #[inline(always)]
                || {
                    for n in 0..g.images {
                        let at = n * g.channels + c;
                        let rows = grad[at * oh * ow..][..oh * ow].chunks_exact(ow);
                        for (to, from) in grads[lead..].chunks_mut(layout.phase[1]).zip(rows) {
                            to[..ow].copy_from_slice(from);
                        }
                        if wanted[1] {
                            layout.split(g, &x[at * plane..][..plane], &mut buffer);
                            let grads = &grads[lead..lead + layout.run];
                            all_dots(&buffer, &layout.offsets, grads, dw);
                        }
                        if wanted[0] {
                            for (p, taps) in by_phase.iter().enumerate() {
                                let out = &mut input_grads[p * padded..(p + 1) * padded];
                                correlate(&grads, taps.iter().copied(), out);
                                joined[p * phase..(p + 1) * phase].copy_from_slice(&out[..phase]);
                            }
                            // SAFETY: the planes of channel `c` belong to this task alone.
                            let dx = unsafe { dx_parts.part(at * plane, plane) };
                            layout.join(g, &joined, dx);
                        }
                    }
                },
            );
        });
    });
    (wanted[0].then_some(dx), wanted[1].then_some(dw))
}
