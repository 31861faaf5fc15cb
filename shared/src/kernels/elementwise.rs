//! Operators without weights: residual sum, average and maximum pooling. Any width and window.

use super::codes::{Codes, Writer};
use super::requant::{average, sum};
use super::{Call, Work, geometry};
use crate::format::LayerShape;

/// `output = clamp((a * M[0] + b * M[1] + M[2]) >> 18)`.
pub fn add(call: Call<'_>) {
    let layer = call.layer;
    let a = Codes::new(layer.input_format(), call.input);
    let b = Codes::new(layer.second_format(), call.input2.unwrap_or_default());
    let &[m0, m1, m2, ..] = call.multipliers else { return };
    let mut writer = Writer::new(layer.output_format(), call.output);
    for pixel in 0..layer.output.pixels() {
        for c in 0..usize::from(layer.output.c) {
            let code = sum(a.get(pixel, c), b.get(pixel, c), [m0, m1, m2], layer.bits.output);
            writer.push(code);
        }
        writer.end_pixel();
    }
}

/// `output = clamp((sum * M[0] + M[1]) >> 18)` over the window; no padding.
pub fn average_pool(call: Call<'_>) {
    let &[m0, m1, ..] = call.multipliers else { return };
    let bits = call.layer.bits.output;
    pool(call, |total, code| total + code, |total| average(total, [m0, m1], bits));
}

/// Largest code under the window; padding never wins.
pub fn max_pool(call: Call<'_>) {
    pool(call, u32::max, |code| code);
}

#[inline(always)]
fn pool(call: Call<'_>, fold: impl Fn(u32, u32) -> u32, finish: impl Fn(u32) -> u32) {
    let layer = call.layer;
    let input = Codes::new(layer.input_format(), call.input);
    let mut writer = Writer::new(layer.output_format(), call.output);
    let window = layer.op.window();
    let (h, w) = (usize::from(layer.input.h), usize::from(layer.input.w));
    let stride = usize::from(window.stride);
    for oy in 0..usize::from(layer.output.h) {
        for ox in 0..usize::from(layer.output.w) {
            for c in 0..usize::from(layer.output.c) {
                let mut total = 0;
                for ky in 0..usize::from(window.kh) {
                    let y = (oy * stride + ky).wrapping_sub(usize::from(window.pads.top));
                    for kx in 0..usize::from(window.kw) {
                        let x = (ox * stride + kx).wrapping_sub(usize::from(window.pads.left));
                        if y < h && x < w {
                            total = fold(total, input.get(y * w + x, c));
                        }
                    }
                }
                writer.push(finish(total));
            }
            writer.end_pixel();
        }
    }
}

/// Names of [`work`]'s counts.
pub const WORK: [&str; 4] = ["inside taps", "taps", "outputs", "pixels"];

/// Counts of all three.
pub fn work(layer: &LayerShape) -> Work {
    let outputs = layer.output.elements() as u64;
    let window = layer.op.window();
    Work::new(&[
        geometry::inside_taps(layer) * u64::from(layer.output.c),
        outputs * window.taps() as u64,
        outputs,
        layer.output.pixels() as u64,
    ])
}
