//! Where a window lies on its input: taps inside the image, counted and by output.

use core::ops::Range;

use crate::format::LayerShape;

/// Taps over all output pixels that fall inside the input (not on padding).
pub fn inside_taps(layer: &LayerShape) -> u64 {
    let window = layer.op.window();
    let along = |k: u8, before: u8, size: u16, outputs: u16| -> u64 {
        let (before, size) = (u64::from(before), u64::from(size));
        let stride = u64::from(window.stride.max(1));
        (0..u64::from(k))
            .map(|tap| {
                // Output i reads input i * stride + tap - before: count 0 <= that < size.
                let first = before.saturating_sub(tap).div_ceil(stride);
                let end = (size + before).saturating_sub(tap).div_ceil(stride);
                end.min(u64::from(outputs)).saturating_sub(first)
            })
            .sum()
    };
    along(window.kh, window.pads.top, layer.input.h, layer.output.h)
        * along(window.kw, window.pads.left, layer.input.w, layer.output.w)
}

/// How many of `outputs` windows along one side have each kind of tap, summed up: taps inside the
/// input, and those outside.
pub fn taps_along(k: u8, stride: u8, before: u8, size: u16, outputs: u16) -> [u64; 2] {
    let inside: u64 =
        (0..outputs).map(|index| inside(index, stride, k, before, size).len() as u64).sum();
    [inside, u64::from(outputs) * u64::from(k) - inside]
}

/// Rows of the padded input that a depthwise layer brings into a ring of as many as its window is
/// high: of the input, and of padding. Rows that windows share are brought once.
pub fn ring_rows(layer: &LayerShape) -> [u64; 2] {
    let window = layer.op.window();
    let (k, stride) = (i64::from(window.kh), i64::from(window.stride));
    let mut rows = [0, 0];
    for oy in 0..i64::from(layer.output.h) {
        let shared = if oy == 0 { 0 } else { (k - stride).max(0) };
        for ky in shared..k {
            let y = oy * stride + ky - i64::from(window.pads.top);
            let inside = (0..i64::from(layer.input.h)).contains(&y);
            rows[usize::from(!inside)] += 1;
        }
    }
    rows
}

/// Input positions along one side that the window of output `index` covers.
pub fn inside(index: u16, stride: u8, k: u8, before: u8, size: u16) -> Range<usize> {
    let first = usize::from(index) * usize::from(stride);
    let (before, size) = (usize::from(before), usize::from(size));
    let end = (first + usize::from(k)).saturating_sub(before).min(size);
    first.saturating_sub(before).min(end)..end
}
