//! Operators without weights: residual sum, average and maximum pooling. Any width and window;
//! four channels at a time, which is what a byte, half-word or word holds.

#[cfg(jaq_armv7em)]
use super::armv7em_linear as isa;
use super::codes::{pack_four, put_small_word, small_word, unpack_four};
use super::linked::serves_input;
#[cfg(not(jaq_armv7em))]
use super::portable as isa;
use super::requant::{average, sum};
use super::{Call, KernelId, Work, geometry};
use crate::format::{Bits, LayerShape};

/// `output = clamp((a * M[0] + b * M[1] + M[2]) >> 18)`; the summands may differ in width.
#[inline(never)]
pub fn add(call: Call<'_>) {
    let layer = call.layer;
    let &[m0, m1, m2, ..] = call.multipliers else { return };
    let formats = [layer.input_format(), layer.second_format(), layer.output_format()];
    let mut pixels = formats.map(|format| format.pixel_bytes().max(1));
    let mut fours = usize::from(layer.output.c) / 4;
    let mut tail = u32::from(layer.output.c) % 4;
    if formats.iter().all(|f| f.pixel_bytes() * 8 == 4 * fours * f.bits.storage() as usize) {
        // No filler anywhere: the tensors are one long pixel.
        fours *= layer.output.pixels();
        pixels = pixels.map(|bytes| bytes * layer.output.pixels());
        tail = 0;
    }
    let [a_bytes, b_bytes, out_bytes] = pixels;
    let second = call.input2.unwrap_or_default();
    let pixels = call.input.chunks_exact(a_bytes.max(1)).zip(second.chunks_exact(b_bytes.max(1)));
    let sum = Sum {
        multipliers: [m0, m1, m2],
        widths: formats.map(|format| format.bits.storage()),
        output: layer.bits.output,
    };
    for ((a, b), out) in pixels.zip(call.output.chunks_exact_mut(out_bytes.max(1))) {
        isa::add(&sum, a, b, out, fours);
        let [a_four, b_four, out_four] = sum.widths.map(|bits| bits as usize / 2);
        if let Some(rest) = out.get_mut(fours * out_four..) {
            rest.fill(0);
            let (a, b) = (a.get(fours * a_four..), b.get(fours * b_four..));
            let packed = sum.four(a.unwrap_or_default(), b.unwrap_or_default(), tail);
            let end = rest.len().min(out_four);
            put_small_word(packed, rest.get_mut(..end).unwrap_or_default());
        }
    }
}

/// The rule of a residual sum.
pub struct Sum {
    /// `M`.
    pub multipliers: [i32; 3],
    /// Bits a code takes in the two inputs and the output.
    pub widths: [u32; 3],
    /// Width of the output.
    pub output: Bits,
}

impl Sum {
    /// The packed sums of the first `present` of four codes.
    #[inline(always)]
    pub fn four(&self, a: &[u8], b: &[u8], present: u32) -> u32 {
        let [a_bits, b_bits, out_bits] = self.widths;
        let (mut a, mut b) = (small_word(a), small_word(b));
        let mut packed = 0;
        for lane in 0..present {
            let (x, y) = (a & ((1 << a_bits) - 1), b & ((1 << b_bits) - 1));
            (a, b) = (a >> a_bits, b >> b_bits);
            packed |= sum(x, y, self.multipliers, self.output) << (lane * out_bits);
        }
        packed
    }
}

/// `output = clamp((sum * M[0] + M[1]) >> 18)` over the window; no padding.
#[inline(never)]
pub fn average_pool(call: Call<'_>) {
    let &[m0, m1, ..] = call.multipliers else { return };
    let bits = call.layer.bits.output;
    const INPUTS: [bool; 3] = inputs(KernelId::AvgPool);
    pool(call, INPUTS, |total, code| total + code, |total| average(total, [m0, m1], bits));
}

/// Largest code under the window; padding never wins.
#[inline(never)]
pub fn max_pool(call: Call<'_>) {
    const INPUTS: [bool; 3] = inputs(KernelId::MaxPool);
    pool(call, INPUTS, u32::max, |code| code);
}

/// Which inputs of 2, 4 and 8 bits this build serves.
const fn inputs(kernel: KernelId) -> [bool; 3] {
    [serves_input(kernel, 2), serves_input(kernel, 4), serves_input(kernel, 8)]
}

#[inline(always)]
fn pool(
    call: Call<'_>,
    inputs: [bool; 3],
    fold: impl Fn(u32, u32) -> u32,
    finish: impl Fn(u32) -> u32,
) {
    match call.layer.bits.input {
        Bits::B2 if inputs[0] => pool_from::<2>(call, fold, finish),
        Bits::B3 | Bits::B4 if inputs[1] => pool_from::<4>(call, fold, finish),
        Bits::B8 if inputs[2] => pool_from::<8>(call, fold, finish),
        // Refused at load.
        _ => {}
    }
}

#[inline(always)]
fn pool_from<const IN: usize>(
    call: Call<'_>,
    fold: impl Fn(u32, u32) -> u32,
    finish: impl Fn(u32) -> u32,
) {
    let layer = call.layer;
    let window = layer.op.window();
    let (from, to) = (layer.input_format().pixel_bytes(), layer.output_format().pixel_bytes());
    let width = usize::from(layer.input.w);
    let channels = usize::from(layer.output.c);
    let mut pixels = call.output.chunks_exact_mut(to.max(1));
    for oy in 0..layer.output.h {
        let rows = geometry::inside(oy, window.stride, window.kh, window.pads.top, layer.input.h);
        for ox in 0..layer.output.w {
            let columns =
                geometry::inside(ox, window.stride, window.kw, window.pads.left, layer.input.w);
            let Some(pixel) = pixels.next() else { return };
            pixel.fill(0);
            for four in 0..channels.div_ceil(4) {
                let mut totals = [0; 4];
                for y in rows.clone() {
                    let start = (y * width + columns.start) * from;
                    let row = call.input.get(start..).unwrap_or_default().chunks_exact(from.max(1));
                    for pixel in row.take(columns.len()) {
                        let codes =
                            unpack_four::<IN>(pixel.get(four * IN / 2..).unwrap_or_default());
                        for (total, code) in totals.iter_mut().zip(codes) {
                            *total = fold(*total, code);
                        }
                    }
                }
                let mut codes = totals.map(&finish);
                codes.iter_mut().skip(channels - four * 4).for_each(|code| *code = 0);
                let step = layer.bits.output.storage() as usize / 2;
                let out = pixel.get_mut(four * step..).unwrap_or_default();
                match step {
                    1 => pack_four::<2>(codes, out),
                    2 => pack_four::<4>(codes, out),
                    _ => pack_four::<8>(codes, out),
                }
            }
        }
    }
}

/// Counts of the pools.
pub fn work(layer: &LayerShape) -> Work {
    let fours = u64::from(layer.output.c).div_ceil(4);
    let pixels = layer.output.pixels() as u64;
    let inside = geometry::inside_taps(layer) * fours;
    let fours_of = match layer.bits.input {
        Bits::B2 => "fours of 2 bits",
        Bits::B3 | Bits::B4 => "fours of 4 bits",
        Bits::B8 => "fours of 8 bits",
    };
    let rows = pixels * fours * u64::from(layer.op.window().kh);
    Work::new([
        (fours_of, inside),
        ("rows", rows),
        ("output fours", pixels * fours),
        ("pixels", pixels),
    ])
}

/// Counts of [`add`].
pub fn add_work(layer: &LayerShape) -> Work {
    let fours = u64::from(layer.output.c / 4);
    let pixels = layer.output.pixels() as u64;
    let tail = layer.output.c % 4;
    let formats = [layer.input_format(), layer.second_format(), layer.output_format()];
    let flat = tail == 0
        && formats
            .iter()
            .all(|f| f.pixel_bytes() as u64 * 8 == 4 * fours * u64::from(f.bits.storage()));
    let even = layer.bits.input.storage() == layer.bits.weight.storage();
    let runs = if flat { 1 } else { pixels };
    Work::new([
        ("fours", if even { pixels * fours } else { 0 }),
        ("uneven fours", if even { runs * fours.min(1) } else { pixels * fours }),
        ("runs", runs),
        ("tails", if tail > 0 { pixels } else { 0 }),
    ])
}
