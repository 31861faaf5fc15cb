//! Operators without weights: residual sum, average and maximum pooling. Any width and window;
//! four channels at a time, which is what a byte, half-word or word holds.

#[cfg(jaq_armv7em)]
use super::armv7em_linear as isa;
use super::codes::{pack_four, put_small_word, small_word, unpack_four};
use super::linked::serves_input;
#[cfg(not(jaq_armv7em))]
use super::portable as isa;
use super::requant::{average, sum};
use super::{Call, Isa, KernelId, Work, geometry};
use crate::format::{Bits, LayerShape, TensorFormat};

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

/// Which of `names` a pixel is, where it has fewer bytes than four codes take: of 4-bit codes, or
/// of 8-bit ones.
fn short(format: TensorFormat, names: [&'static str; 2]) -> (&'static str, bool) {
    let [half, whole] = names;
    let name = if format.bits.storage() == 8 { whole } else { half };
    (name, format.pixel_bytes() * 8 < 4 * format.bits.storage() as usize)
}

/// Binary digits of the quotients that cores without a division instruction work out: the pixels
/// from every row of every window on.
fn quotient_bits(layer: &LayerShape) -> u64 {
    let (window, input) = (layer.op.window(), layer.input);
    let along = |k, before, size, outputs: u16| {
        (0..outputs).map(move |index| geometry::inside(index, window.stride, k, before, size))
    };
    let rows = along(window.kh, window.pads.top, input.h, layer.output.h).flatten();
    rows.map(|y| {
        let columns = along(window.kw, window.pads.left, input.w, layer.output.w);
        let left = columns.map(|columns| input.pixels() - y * usize::from(input.w) - columns.start);
        left.map(|pixels| u64::from(usize::BITS - pixels.leading_zeros())).sum::<u64>()
    })
    .sum()
}

/// Counts of the pools.
pub fn work(layer: &LayerShape, isa: Isa) -> Work {
    let fours = u64::from(layer.output.c).div_ceil(4);
    let pixels = layer.output.pixels() as u64;
    let window = layer.op.window();
    let codes = match layer.bits.input {
        Bits::B2 => "fours of 2 bits",
        Bits::B3 | Bits::B4 => "fours of 4 bits",
        Bits::B8 => "fours of 8 bits",
    };
    let outputs = match layer.bits.output {
        Bits::B2 => "output fours of 2 bits",
        Bits::B3 | Bits::B4 => "output fours of 4 bits",
        Bits::B8 => "output fours of 8 bits",
    };
    let [rows, _] = geometry::taps_along(
        window.kh,
        window.stride,
        window.pads.top,
        layer.input.h,
        layer.output.h,
    );
    let (short_in, is_short) = short(layer.input_format(), ["short halves", "short words"]);
    let (short_out, out_is_short) =
        short(layer.output_format(), ["short output halves", "short output words"]);
    let missing = fours * 4 - u64::from(layer.output.c);
    let lanes = ["no lane missing", "a lane missing", "two lanes missing", "three lanes missing"];
    Work::new([
        (codes, geometry::inside_taps(layer) * fours),
        ("rows", rows * u64::from(layer.output.w) * fours),
        (outputs, pixels * fours),
        ("pixels", pixels),
        ("output rows", layer.output.h.into()),
        (lanes[missing as usize % 4], if missing > 0 { pixels } else { 0 }),
        (short_in, if is_short { geometry::inside_taps(layer) } else { 0 }),
        (short_out, if out_is_short { pixels } else { 0 }),
        ("quotient bits", if isa == Isa::Armv6m { fours * quotient_bits(layer) } else { 0 }),
    ])
    .and_fills(pixels, layer.output_format().pixel_bytes() as u64)
}

/// Counts of [`add`].
pub fn add_work(layer: &LayerShape, isa: Isa) -> Work {
    let fours = u64::from(layer.output.c / 4);
    let pixels = layer.output.pixels() as u64;
    let tail = u64::from(layer.output.c % 4);
    let formats = [layer.input_format(), layer.second_format(), layer.output_format()];
    let bytes = formats.map(|format| format.pixel_bytes() as u64);
    let storage = formats.map(|format| u64::from(format.bits.storage()));
    let flat = tail == 0
        && bytes.iter().zip(storage).all(|(&bytes, storage)| bytes * 8 == 4 * fours * storage);
    // Runs of fours, and the bytes of either input and fours in one.
    let (runs, scale) = if flat { (1, pixels) } else { (pixels, 1) };
    let [a, b, out] = bytes.map(|bytes| bytes * scale);
    let fours = fours * scale;
    let four = storage[0] / 2;
    // Words that end within both inputs.
    let whole = match isa {
        Isa::Armv7em if storage[0] == storage[1] => fours.min(a.min(b).saturating_sub(4) / four),
        _ => 0,
    };
    let of = |names: [&'static str; 3], index: usize| {
        names[storage[index].trailing_zeros() as usize - 1]
    };
    // By what a pixel has left behind its fours.
    let last = |names: [&'static str; 3], index: usize| {
        let left = [a, b, out][index].saturating_sub(fours * storage[index] / 2);
        names[match left {
            0 | 1 => 0,
            2 | 3 => 1,
            _ => 2,
        }]
    };
    let left = runs * (fours - whole);
    let tails = if tail > 0 { runs } else { 0 };
    let filler = out - (fours * storage[2] / 2).min(out);
    Work::new([
        ("assembly", runs * whole * 43),
        ("assembly runs", if whole > 0 { runs } else { 0 }),
        ("runs with fours left", if fours > whole { runs } else { 0 }),
        (of(["fours of 2 bits", "fours of 4 bits", "fours of 8 bits"], 0), left),
        (
            of(["second fours of 2 bits", "second fours of 4 bits", "second fours of 8 bits"], 1),
            left,
        ),
        (
            of(["output fours of 2 bits", "output fours of 4 bits", "output fours of 8 bits"], 2),
            left,
        ),
        ("runs", runs),
        ("tails", tails),
        ("tail lanes", runs * tail),
        (last(["tails of a byte", "tails of two", "tails of four"], 0), tails),
        (last(["second tails of a byte", "second tails of two", "second tails of four"], 1), tails),
        (last(["output tails of a byte", "output tails of two", "output tails of four"], 2), tails),
        ("runs without fours", if fours == 0 { runs } else { 0 }),
    ])
    .and_fills(runs, filler)
}
