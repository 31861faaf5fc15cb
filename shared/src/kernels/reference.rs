//! The general path: dense, depthwise and linear layers at any width, window and requantization.
//!
//! One plain loop, the truth that the packed kernels are held against and the fallback where none
//! of them applies. Weights are the canonical order as a bit stream ([`codes`]). Codes are used
//! raw (a padded tap has the zero point's code), so `-zero_point * sum(w)` is in the tables.

use super::codes::{self, Codes, Writer};
use super::requant::requantize;
use super::{Call, Work, geometry};
use crate::format::{Bits, LayerShape, Op};

/// Runs the layer.
#[inline(never)]
pub fn run(call: Call<'_>) {
    let layer = call.layer;
    let input = Codes::new(layer.input_format(), call.input);
    let mut writer = Writer::new(layer.output_format(), call.output);
    let window = layer.op.window();
    let depthwise = matches!(layer.op, Op::Depthwise(_));
    let (h, w) = (usize::from(layer.input.h), usize::from(layer.input.w));
    let depth = if depthwise { 1 } else { usize::from(layer.input.c) };
    let zero = i32::from(call.input_zero_point);
    let bits = layer.bits;
    let stride = usize::from(window.stride);
    for oy in 0..usize::from(layer.output.h) {
        for ox in 0..usize::from(layer.output.w) {
            let mut weight = 0;
            let tables = call.multipliers.iter().zip(call.biases);
            for (oc, (&m, &b)) in tables.take(usize::from(layer.output.c)).enumerate() {
                let first = if depthwise { oc } else { 0 };
                let mut acc = 0i32;
                for ky in 0..usize::from(window.kh) {
                    let y = (oy * stride + ky).wrapping_sub(usize::from(window.pads.top));
                    for kx in 0..usize::from(window.kw) {
                        let x = (ox * stride + kx).wrapping_sub(usize::from(window.pads.left));
                        if y < h && x < w {
                            let pixel = y * w + x;
                            for c in first..first + depth {
                                let code = input.get(pixel, c) as i32;
                                let value = codes::read_stream(bits.weight, call.weights, weight);
                                acc = acc.wrapping_add(code.wrapping_mul(value));
                                weight += 1;
                            }
                        } else {
                            for _ in 0..depth {
                                let value = codes::read_stream(bits.weight, call.weights, weight);
                                acc = acc.wrapping_add(zero.wrapping_mul(value));
                                weight += 1;
                            }
                        }
                    }
                }
                writer.push(requantize(call.requant, acc, m, b, bits.output));
            }
            writer.end_pixel();
        }
    }
}

/// Counts of [`run`].
pub fn work(layer: &LayerShape) -> Work {
    let window = layer.op.window();
    let depth = if matches!(layer.op, Op::Depthwise(_)) { 1 } else { u64::from(layer.input.c) };
    let per_tap = depth * u64::from(layer.output.c);
    let inside = geometry::inside_taps(layer) * per_tap;
    let outputs = layer.output.elements() as u64;
    let (channels, width) = (u64::from(layer.output.c), u64::from(layer.output.w));
    let (pads, input, stride) = (window.pads, layer.input, window.stride);
    let [rows, outside_rows] =
        geometry::taps_along(window.kh, stride, pads.top, input.h, layer.output.h);
    let [_, outside_columns] =
        geometry::taps_along(window.kw, stride, pads.left, input.w, layer.output.w);
    Work::new([
        ("inside MACs", inside),
        ("padding MACs", layer.macs() - inside),
        ("inside taps", channels * geometry::inside_taps(layer)),
        ("taps outside of rows", channels * outside_rows * width * u64::from(window.kw)),
        ("taps outside of columns", channels * rows * outside_columns),
        ("kernel rows", outputs * u64::from(window.kh)),
        (if layer.bits.output == Bits::B8 { "wide outputs" } else { "narrow outputs" }, outputs),
        ("pixels", layer.output.pixels() as u64),
        ("bytes", layer.output_format().bytes() as u64),
    ])
}
