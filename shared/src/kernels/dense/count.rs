//! How often the parts of a dense layer run. The assembly's share is counted instruction by
//! instruction, from the same sizes that steer it.

use super::super::Work;
use super::super::geometry::inside;
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

/// Words copied of the segments that cross the input's left or right border, over all outputs, and
/// four for each of their pixels.
fn border_words(layer: &LayerShape, span: usize) -> u64 {
    let window = layer.op.window();
    let (stride, left) = (i64::from(window.stride), i64::from(window.pads.left));
    let crossing = (0..i64::from(layer.output.w))
        .filter(|x| x * stride < left || x * stride - left + span as i64 > layer.input.w.into())
        .count();
    let rows: usize = (0..layer.output.h)
        .map(|y| inside(y, window.stride, window.kh, window.pads.top, layer.input.h).len())
        .sum();
    let pixel = 4 + layer.input_format().pixel_bytes().div_ceil(4);
    if span > 1 { (crossing * rows * span * pixel) as u64 } else { 0 }
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
        (Family::Dual, 4) => 1 + 2 * (37 + 203 * turns + 28 * (rest / 4)),
        (Family::Dual, _) => 1 + 2 * (29 + 107 * turns + 29 * (rest / 4)),
    };
    let store = match store {
        Store::Narrow(_) => 18 + 14 * group + group / 6,
        Store::Wide => 18 + 18 * group + group / 6,
        Store::Raw => 14,
    };
    11 + blocks * (reduction + store)
}

/// Counts of a layer's run.
pub fn work(layer: &LayerShape, plan: &Plan, store: Store) -> Work {
    let groups = layer.output.pixels().div_ceil(plan.scheme.group()) as u64;
    let segments = (layer.op.window().taps() / plan.span) as u64;
    let (blocks, tail) = (plan.blocks as u64, !layer.output.c.is_multiple_of(4));
    let whole = blocks - u64::from(tail);
    let assembly = if store == Store::Raw {
        blocks * tile(plan, store, 1)
    } else {
        let tail = if tail { tile(plan, store, 1) } else { 0 };
        tail + if whole > 0 { tile(plan, store, whole) } else { 0 }
    };
    let group = plan.scheme.group() as u64;
    let (expand, sum) = expansion(&plan.scheme, layer.bits.input, plan.segment);
    let direct = layer.op.is_pointwise()
        && plan.segment_words(layer.bits.input) * 4 <= layer.input_format().pixel_bytes();
    // The last group, when it is not whole, and filler behind the outputs of every pixel.
    let pixel = layer.output_format().pixel_bytes() as u64;
    let pixels = layer.output.pixels() as u64;
    let filler = pixel.saturating_sub(blocks * store.block_bytes() as u64);
    let moved = pixels % group * pixel + if filler > 0 { pixels * (filler + 4) } else { 0 };
    let rows = if direct { 0 } else { segments * group };
    let expansion = segments * expand + sum * plan.reduction() as u64 / 4;
    Work::new([
        ("assembly", groups * (assembly + expansion)),
        ("segments", groups * segments),
        ("segment rows", groups * rows),
        ("border words", border_words(layer, plan.span)),
        ("chunk starts", groups * plan.chunks as u64),
        ("groups", groups),
        ("bytes moved", moved),
    ])
}
