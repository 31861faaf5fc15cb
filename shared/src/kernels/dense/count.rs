//! How often the parts of a dense layer run. The assembly's share is counted instruction by
//! instruction, from the same sizes that steer it.

use super::super::Work;
use super::scheme::{Family, Plan, Scheme};
use super::tile::Store;
use crate::format::{Bits, LayerShape};

/// Positions of the reduction in one turn of the unrolled loop.
pub const fn unrolled_positions(scheme: &Scheme) -> usize {
    match (scheme.family, scheme.stored) {
        (Family::Outer, 2) => 32,
        (Family::Outer, _) => 16,
        (Family::Dual, 4) => 32,
        (Family::Dual, _) => 16,
    }
}

/// Instructions of the assembly that expands a segment, and those that sum it per four codes.
fn expansion(scheme: &Scheme, input: Bits, segment: usize) -> (u64, u64) {
    let fours = segment as u64 / 4;
    let words = (segment as u64).div_ceil(u64::from(32 / input.storage()));
    let (word, four) = match (scheme.family, input, scheme.pixels) {
        (Family::Outer, Bits::B2, 3) => (10, 24),
        (Family::Outer, Bits::B3 | Bits::B4, 3) => (10, 34),
        (Family::Outer, Bits::B2, _) => (8, 20),
        (Family::Outer, Bits::B3 | Bits::B4, _) => (8, 26),
        (Family::Outer, Bits::B8, _) => (8, 30),
        (Family::Dual, Bits::B2, _) => (8, 22),
        (Family::Dual, Bits::B3 | Bits::B4, _) => (8, 20),
        (Family::Dual, Bits::B8, _) if scheme.stored == 4 => (8, 16),
        (Family::Dual, Bits::B8, _) => (8, 12),
    };
    let sum = match (scheme.family, scheme.offset) {
        (Family::Outer, _) => 11,
        (Family::Dual, 0) => 0,
        (Family::Dual, _) => 12,
    };
    (6 + word * words + four * fours, sum)
}

/// Segments of all pixel groups, the places behind the last pixel among them: inside of the input,
/// outside of its rows, and those copied because they cross its sides or end too near its end.
fn segments(layer: &LayerShape, plan: &Plan) -> [u64; 3] {
    let window = layer.op.window();
    let (height, width) = (i64::from(layer.input.h), i64::from(layer.input.w));
    let (span, stride) = (plan.span as i64, i64::from(window.stride));
    let pixel = layer.input_format().pixel_bytes() as i64;
    let bytes = plan.segment_words(layer.bits.input) as i64 * 4;
    let columns = || (0..i64::from(window.kw)).step_by(plan.span);
    // Of an output row: window rows inside of the input, and whether its last is among them.
    let rows = |oy: i64| {
        let y = |ky: i64| oy * stride - i64::from(window.pads.top) + ky;
        let of = |inside: &dyn Fn(i64) -> bool| {
            (0..i64::from(window.kh)).filter(|&ky| inside(y(ky))).count() as u64
        };
        [of(&|y| (0..height).contains(&y)), of(&|y| y == height - 1)]
    };
    // Of an output column: segments inside, and those of them that end too near the last row's end.
    let across = |ox: i64| {
        let x = |kx: i64| ox * stride - i64::from(window.pads.left) + kx;
        let fits = |x: i64| x >= 0 && x + span <= width;
        let near = |x: i64| fits(x) && (width - x) * pixel < bytes;
        let of = |kind: &dyn Fn(i64) -> bool| columns().filter(|&kx| kind(x(kx))).count() as u64;
        [of(&fits), of(&near)]
    };
    let each = columns().count() as u64;
    let total = |rows: [u64; 2], across: [u64; 2], lines: u64, places: u64| {
        let inside = rows[0] * across[0] - rows[1] * across[1];
        [
            inside,
            (lines * u64::from(window.kh) - rows[0]) * places * each,
            rows[0] * places * each - inside,
        ]
    };
    let sum = |of: &dyn Fn(i64) -> [u64; 2], end: u16| {
        (0..i64::from(end)).map(of).fold([0, 0], |[a, b], [c, d]| [a + c, b + d])
    };
    let (oh, ow) = (layer.output.h, layer.output.w);
    let mut found = total(sum(&rows, oh), sum(&across, ow), oh.into(), ow.into());
    let group = plan.scheme.group();
    let behind = layer.output.pixels().next_multiple_of(group) - layer.output.pixels();
    for place in 0..behind as i64 {
        let (oy, ox) = (i64::from(oh) + place / i64::from(ow), place % i64::from(ow));
        let one = total(rows(oy), across(ox), 1, 1);
        found.iter_mut().zip(one).for_each(|(found, one)| *found += one);
    }
    found
}

/// Instructions of the assembly for one pixel group and `blocks` blocks of channels.
fn tile(plan: &Plan, store: Store, blocks: u64) -> u64 {
    let scheme = &plan.scheme;
    let (positions, unrolled) = (plan.chunk, unrolled_positions(scheme));
    let (turns, rest) = ((positions / unrolled) as u64, (positions % unrolled) as u64);
    let (chunks, group) = (plan.chunks as u64, scheme.group() as u64);
    let reduction = match (scheme.family, scheme.stored) {
        (Family::Outer, stored) => {
            let (turn, word, per_word) = if stored == 2 { (238, 34, 4) } else { (126, 20, 2) };
            let loops = 19 + turn * turns + word * (rest / per_word);
            let (extract, add) = if scheme.pixels == 3 { (40, 76) } else { (28, 52) };
            6 + chunks * loops + extract + 4 + (chunks - 1) * (add + 6)
        }
        (Family::Dual, 4) => 2 + 2 * (37 + 203 * turns + 28 * (rest / 4)),
        (Family::Dual, _) => 2 + 2 * (29 + 107 * turns + 29 * (rest / 4)),
    };
    let store = match store {
        Store::Narrow(_) => 19 + 14 * group + group / 6,
        Store::Wide => 19 + 18 * group + group / 6,
        Store::Raw => 14,
    };
    11 + blocks * (reduction + store)
}

/// Counts of a layer's run; `scratch` is its working memory in bytes.
pub fn work(layer: &LayerShape, plan: &Plan, store: Store, scratch: usize) -> Work {
    let group = plan.scheme.group() as u64;
    let pixels = layer.output.pixels() as u64;
    let groups = pixels.div_ceil(group);
    let taken = (layer.op.window().taps() / plan.span) as u64;
    let (blocks, tail) = (plan.blocks as u64, !layer.output.c.is_multiple_of(4));
    let whole = blocks - u64::from(tail);
    let tile = |blocks| if blocks > 0 { tile(plan, store, blocks) } else { 0 };
    let (expand, sum) = expansion(&plan.scheme, layer.bits.input, plan.segment);
    let expansion = taken * expand + sum * plan.reduction() as u64 / 4;
    let bytes = plan.segment_words(layer.bits.input) as u64 * 4;
    let from = layer.input_format().pixel_bytes() as u64;
    let direct = layer.op.is_pointwise() && bytes <= from;
    // Rows of six are filled as far as the input has pixels.
    let pointwise =
        if direct { (0..groups).map(|index| (pixels - index * group).min(6)).sum() } else { 0 };
    let [inside, outside, composed] = if direct { [0; 3] } else { segments(layer, plan) };
    let pieces = bytes.div_ceil(from.max(1));
    // The last group, when it is not whole, and filler behind the outputs of every pixel.
    let pixel = layer.output_format().pixel_bytes() as u64;
    let written = blocks * store.block_bytes() as u64;
    let fills = if written < pixel { pixels } else { 0 };
    let outer = plan.scheme.family == Family::Outer;
    Work::new([
        ("assembly", groups * (tile(u64::from(tail)) + tile(whole) + expansion)),
        ("groups", groups),
        ("tail groups", if tail { groups } else { 0 }),
        ("groups without whole blocks", if whole == 0 { groups } else { 0 }),
        ("pointwise pixels", pointwise),
        ("origins", if direct { 0 } else { groups * group }),
        ("segments", if direct { 0 } else { groups * taken }),
        ("inside segments", inside),
        ("outside segments", outside),
        ("composed segments", composed),
        ("composed pixels", composed * pieces),
        ("composed bytes", composed * bytes),
        ("chunks", if outer { groups * plan.chunks as u64 } else { 0 }),
        ("sums", if !outer && plan.scheme.offset > 0 { groups } else { 0 }),
        ("bytes of part of a group", pixels % group * pixel),
        ("part of a group", u64::from(!pixels.is_multiple_of(group))),
        ("pixels with filler", fills),
        ("filler bytes", fills * pixel.saturating_sub(written)),
        ("bytes cleared", scratch as u64),
    ])
    .and_fills(composed * (pieces - 1), from.min(bytes))
    .and_fills(composed, bytes - (pieces - 1) * from)
}
