//! How often the parts of a layer run: by what is compiled apart for schemes, widths and rules.

use super::super::geometry::taps_along;
use super::super::{Isa, Work};
use super::scheme::{Plan, Scheme};
use super::{BLOCK, WORDS};
use crate::format::{Bits, LayerShape, Window};

/// Windows' taps of all pixel groups, the places behind the last pixel among them: inside of the
/// input and outside.
fn taps(layer: &LayerShape, group: usize) -> [u64; 2] {
    let window = layer.op.window();
    let (shape, pads, stride) = (layer.input, window.pads, window.stride);
    let (oh, ow) = (layer.output.h, layer.output.w);
    let all = window.taps() as u64;
    let [rows, _] = taps_along(window.kh, stride, pads.top, shape.h, oh);
    let [columns, _] = taps_along(window.kw, stride, pads.left, shape.w, ow);
    let pixels = layer.output.pixels();
    let places = pixels.next_multiple_of(group);
    let one = |k: u8, before: u8, size: u16, at: usize| -> u64 {
        let at =
            |tap: u8| (at * usize::from(stride) + usize::from(tap)).wrapping_sub(before.into());
        (0..k).filter(|&tap| at(tap) < size.into()).count() as u64
    };
    let width = usize::from(ow).max(1);
    let behind = (pixels..places).map(|place| {
        let (oy, ox) = (place / width, place % width);
        one(window.kh, pads.top, shape.h, oy) * one(window.kw, pads.left, shape.w, ox)
    });
    let inside = rows * columns + behind.sum::<u64>();
    [inside, places as u64 * all - inside]
}

/// Counts of [`super::run`].
pub fn work(layer: &LayerShape, isa: Isa) -> Work {
    let plan = Plan::new(layer);
    let group = plan.scheme.group();
    let pixels = layer.output.pixels() as u64;
    let groups = pixels.div_ceil(group as u64);
    let blocks = plan.blocks as u64;
    let units = (plan.positions >> plan.scheme.unit().trailing_zeros()) as u64;
    let chunks = plan.positions.div_ceil(plan.scheme.chunk()) as u64;
    let runs = groups * blocks;
    let rows = runs * plan.rows as u64;
    let [unit, chunk, block] = match plan.scheme {
        Scheme::Quad { stored: 2, .. } => {
            ["units of four fields, 2 bits", "chunks of four fields", "blocks of four fields"]
        }
        Scheme::Quad { .. } => {
            ["units of four fields, 4 bits", "chunks of four fields", "blocks of four fields"]
        }
        Scheme::Pair { stored: 2, .. } => {
            ["units of pairs, 2 bits", "chunks of pairs", "blocks of pairs"]
        }
        Scheme::Pair { stored: 4, .. } => {
            ["units of pairs, 4 bits", "chunks of pairs", "blocks of pairs"]
        }
        Scheme::Pair { .. } => ["units of pairs, 8 bits", "chunks of pairs", "blocks of pairs"],
        Scheme::Single => {
            ["units of single codes", "chunks of single codes", "blocks of single codes"]
        }
    };
    let quad = matches!(plan.scheme, Scheme::Quad { .. });
    let single = plan.scheme == Scheme::Single;
    let sums = if quad { groups } else { 0 };

    // The expansion: a tap of a group by pairs of pixels, or by single ones.
    let window = layer.op.window();
    let point = window == Window::POINT;
    let each = groups * window.taps() as u64;
    let [inside, outside] = if point { [0, 0] } else { taps(layer, group) };
    let channels = u64::from(layer.input.c);
    let bytes = layer.input_format().pixel_bytes() as u64;
    let columns = if single { 0 } else { each * WORDS as u64 };
    let (codes, half, byte, code) = match layer.bits.input {
        Bits::B2 => (4, "halves of 2 bits", "bytes of 2 bits", "codes of 2 bits"),
        Bits::B3 | Bits::B4 => (2, "halves of 4 bits", "bytes of 4 bits", "codes of 4 bits"),
        Bits::B8 => (1, "halves of 8 bits", "bytes of 8 bits", "codes of 8 bits"),
    };
    // By half-words where they are aligned and full, in assembly.
    let halves = match isa {
        Isa::Armv6m => (bytes / 2).min(channels / (2 * codes)),
        _ => 0,
    };
    let left = channels - halves * 2 * codes;

    // The store: fours of pixels in assembly, or pixels in Rust.
    let output = layer.bits.output;
    let step = BLOCK as u64 * u64::from(output.storage()) / 8;
    let pixel = layer.output_format().pixel_bytes() as u64;
    let full = u64::from(layer.output.c) / BLOCK as u64;
    let whole_groups = pixels / group as u64;
    let stored = match isa {
        Isa::Armv6m if pixel.is_multiple_of(step) => whole_groups * full,
        _ => 0,
    };
    let stored_pixels = stored * group as u64;
    let [fours, in_rust] = match output {
        Bits::B2 => ["fours to 2 bits", "pixels to 2 bits"],
        Bits::B3 => ["fours to 3 bits", "pixels to 3 bits"],
        Bits::B4 => ["fours to 4 bits", "pixels to 4 bits"],
        Bits::B8 => ["fours to 8 bits", "pixels to 8 bits"],
    };
    let short = match output {
        Bits::B8 => "short pixels to 8 bits",
        _ => "short pixels to fewer bits",
    };
    let filler = if step * blocks < pixel { pixels * pixel } else { 0 };
    Work::new([
        (unit, rows * units),
        (chunk, rows * chunks),
        (block, runs),
        ("groups", groups),
        ("summed positions", sums * plan.positions as u64),
        ("sums", sums),
        ("origins", if point { 0 } else { groups * group as u64 }),
        ("taps", if point { 0 } else { each }),
        ("inside taps", inside),
        ("outside taps", outside),
        ("columns", columns),
        (half, columns * halves),
        ("columns with codes left", if left > 0 { columns } else { 0 }),
        (byte, columns * left.div_ceil(codes)),
        (code, columns * left),
        ("single codes", if single { each * channels } else { 0 }),
        (fours, stored_pixels / 4),
        ("stores", stored),
        (if pixel < step { short } else { in_rust }, pixels * blocks - stored_pixels),
        ("stores in Rust", runs - stored),
        ("channels of a wide rule", if output == Bits::B8 { layer.output.c.into() } else { 0 }),
        ("bytes cleared", super::scratch_bytes(layer) as u64),
        ("filler bytes", filler),
        ("groups cleared", if filler > 0 { groups } else { 0 }),
    ])
}
