//! Convolution as im2col and matrix product, one image at a time; a pointwise one needs no
//! im2col.

use rayon::prelude::*;

use super::matrix::{View, product};
use super::{Parts, simd, written};
use crate::ops::Slide;

/// Sizes of one convolution.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    pub images: usize,
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    pub filters: usize,
    pub kernel: [usize; 2],
    pub slide: Slide,
}

impl Geometry {
    /// Output height and width.
    pub fn output(&self) -> (usize, usize) {
        self.slide.output(self.height, self.width, self.kernel[0], self.kernel[1])
    }

    fn pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.slide == Slide::POINT
    }

    fn input_image(&self) -> usize {
        self.channels * self.height * self.width
    }

    fn pixels(&self) -> usize {
        let (h, w) = self.output();
        h * w
    }

    fn taps(&self) -> usize {
        self.channels * self.kernel[0] * self.kernel[1]
    }
}

/// Blocks a batch is split into; fixed, so that sums over blocks have a fixed order.
const BLOCKS: usize = 8;

/// Calls `rows(column_row, input_row, first_ox, last_ox, first_x)` for every run of a patch matrix
/// row that lies inside the image.
#[inline(always)]
fn runs(g: &Geometry, mut run: impl FnMut(usize, usize, usize, usize)) {
    let (oh, ow) = g.output();
    let [kh, kw] = g.kernel;
    let [top, _, left, _] = g.slide.pads;
    let stride = g.slide.stride;
    for c in 0..g.channels {
        for ky in 0..kh {
            for kx in 0..kw {
                let row = ((c * kh + ky) * kw + kx) * oh * ow;
                // Output columns whose pixel lies inside: 0 <= ox * stride + kx - left < width.
                let first = left.saturating_sub(kx).div_ceil(stride);
                let last = (g.width + left).saturating_sub(kx).div_ceil(stride).min(ow);
                if first >= last {
                    continue;
                }
                for oy in 0..oh {
                    let y = oy * stride + ky;
                    if y < top || y >= g.height + top {
                        continue;
                    }
                    let x = first * stride + kx - left;
                    let input = (c * g.height + y - top) * g.width + x;
                    run(row + oy * ow + first, input, last - first, stride);
                }
            }
        }
    }
}

/// A row of the patch matrix as a plane of its channel, shifted: where the output has the input's
/// size, all its rows are one run but for the pixels beside the image.
struct Shift {
    /// Start of the patch row, and of the channel's plane.
    row: usize,
    plane: usize,
    /// Elements of the row that the run covers.
    run: std::ops::Range<usize>,
    /// Element of the plane that the run starts at.
    source: usize,
    /// Output rows in the run, and the columns of each that lie beside the image.
    rows: std::ops::Range<usize>,
    beside: std::ops::Range<usize>,
}

impl Shift {
    /// Clears what lies beside the image.
    #[inline(always)]
    fn clear(&self, width: usize, columns: &mut [f32]) {
        if self.beside.is_empty() {
            return;
        }
        for y in self.rows.clone() {
            let start = self.row + y * width;
            columns[start + self.beside.start..start + self.beside.end].fill(0.0);
        }
    }
}

/// Whether patch rows are [`Shift`]s.
fn shifted(g: &Geometry) -> bool {
    let larger = g.height > g.kernel[0] && g.width > g.kernel[1];
    g.slide.stride == 1 && larger && g.output() == (g.height, g.width)
}

/// Calls `each` for every row of the patch matrix.
#[inline(always)]
fn shifts(g: &Geometry, mut each: impl FnMut(Shift)) {
    let ([kh, kw], [top, _, left, _]) = (g.kernel, g.slide.pads);
    let (h, w) = (g.height, g.width);
    for c in 0..g.channels {
        for ky in 0..kh {
            for kx in 0..kw {
                // Output pixel (y, x) reads (y + ky - top, x + kx - left).
                let rows = top.saturating_sub(ky)..h.min(h + top - ky);
                let (before, behind) = (left.saturating_sub(kx), kx.saturating_sub(left));
                let run = rows.start * w + before..rows.end * w - behind;
                let source = run.start + ky * w + kx - top * w - left;
                let beside = if before > 0 { 0..before } else { w - behind..w };
                let (row, plane) = (((c * kh + ky) * kw + kx) * h * w, c * h * w);
                each(Shift { row, plane, run, source, rows, beside });
            }
        }
    }
}

/// Patches of one image as a matrix `[taps, pixels]`. `out` holds zeros where padding falls.
fn im2col(g: &Geometry, image: &[f32], out: &mut [f32]) {
    if shifted(g) {
        return shifts(g, |s| {
            let from = &image[s.plane + s.source..][..s.run.len()];
            out[s.row + s.run.start..s.row + s.run.end].copy_from_slice(from);
            s.clear(g.width, out);
        });
    }
    runs(g, |to, from, len, stride| {
        let out = &mut out[to..to + len];
        if stride == 1 {
            out.copy_from_slice(&image[from..from + len]);
        } else {
            for (o, x) in out.iter_mut().zip(image[from..].iter().step_by(stride)) {
                *o = *x;
            }
        }
    });
}

/// The transpose of [`im2col`]: adds every patch element to its pixel. Clears the elements that
/// padding brought about.
#[inline(always)]
fn col2im(g: &Geometry, columns: &mut [f32], image: &mut [f32]) {
    if shifted(g) {
        return shifts(g, |s| {
            s.clear(g.width, columns);
            let columns = &columns[s.row + s.run.start..s.row + s.run.end];
            let image = &mut image[s.plane + s.source..][..columns.len()];
            for (x, c) in image.iter_mut().zip(columns) {
                *x += *c;
            }
        });
    }
    runs(g, |from, to, len, stride| {
        let columns = &columns[from..from + len];
        if stride == 1 {
            for (x, c) in image[to..to + len].iter_mut().zip(columns) {
                *x += *c;
            }
        } else {
            for (x, c) in image[to..].iter_mut().step_by(stride).zip(columns) {
                *x += *c;
            }
        }
    });
}

/// `[N, OC, OH, OW]` from `x [N, IC, H, W]` and `weight [OC, IC, KH, KW]`.
pub fn forward(g: &Geometry, x: &[f32], weight: &[f32]) -> Vec<f32> {
    let (pixels, taps) = (g.pixels(), g.taps());
    let per_block = g.images.div_ceil(BLOCKS).max(1);
    let chunk = (per_block * g.filters * pixels).max(1);
    written(g.images * g.filters * pixels, |out| {
        out.par_chunks_mut(chunk).enumerate().for_each(|(block, out)| {
            let mut columns = vec![0.0; if g.pointwise() { 0 } else { taps * pixels }];
            for (i, out) in out.chunks_mut(g.filters * pixels).enumerate() {
                let image = &x[(block * per_block + i) * g.input_image()..][..g.input_image()];
                let patches = if g.pointwise() {
                    image
                } else {
                    im2col(g, image, &mut columns);
                    &columns
                };
                let (a, b) = (View::rows(weight, taps), View::rows(patches, pixels));
                product([g.filters, pixels, taps], out, false, a, b);
            }
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
    let (pixels, taps) = (g.pixels(), g.taps());
    let per_block = g.images.div_ceil(BLOCKS).max(1);
    let blocks = g.images.div_ceil(per_block);
    let mut dw = vec![0.0; if wanted[1] { blocks * weight.len() } else { 0 }];
    let dw_parts = Parts::new(&mut dw);
    let dx = written(if wanted[0] { x.len() } else { 0 }, |dx| {
        let dx_parts = Parts::new(dx);
        (0..blocks).into_par_iter().for_each(|block| {
            let mut columns = vec![0.0; if g.pointwise() { 0 } else { taps * pixels }];
            let mut column_grads =
                vec![0.0; if g.pointwise() || !wanted[0] { 0 } else { taps * pixels }];
            for n in block * per_block..((block + 1) * per_block).min(g.images) {
                let image = &x[n * g.input_image()..][..g.input_image()];
                let grad = &grad[n * g.filters * pixels..][..g.filters * pixels];
                if wanted[0] {
                    // SAFETY: image `n` belongs to this block alone.
                    let dx = unsafe { dx_parts.part(n * g.input_image(), g.input_image()) };
                    let (a, b) = (View::rows(weight, taps).t(), View::rows(grad, pixels));
                    if g.pointwise() {
                        product([taps, pixels, g.filters], dx, false, a, b);
                    } else {
                        product([taps, pixels, g.filters], &mut column_grads, false, a, b);
                        dx.fill(0.0);
                        simd(
                            #[inline(always)]
                            || col2im(g, &mut column_grads, dx),
                        );
                    }
                }
                if wanted[1] {
                    let patches = if g.pointwise() {
                        image
                    } else {
                        im2col(g, image, &mut columns);
                        &columns
                    };
                    // SAFETY: each block has a slice of its own.
                    let dw = unsafe { dw_parts.part(block * weight.len(), weight.len()) };
                    // Transposed, `[taps, filters]`: what the product must bring into another
                    // order is then the gradient, and not the many times larger patches.
                    let (a, b) = (View::rows(patches, pixels), View::rows(grad, pixels).t());
                    product([taps, g.filters, pixels], dw, true, a, b);
                }
            }
        });
    });
    let dw = wanted[1].then(|| {
        let (first, rest) = dw.split_at_mut(weight.len());
        for block in rest.chunks(weight.len().max(1)) {
            for (sum, part) in first.iter_mut().zip(block) {
                *sum += *part;
            }
        }
        (0..weight.len()).map(|i| dw[i % taps * g.filters + i / taps]).collect()
    });
    (wanted[0].then_some(dx), dw)
}
