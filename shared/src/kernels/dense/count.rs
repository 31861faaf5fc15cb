//! How often the parts of a dense layer run. The assembly's share is counted instruction by
//! instruction, from the same sizes that steer it.

use super::super::Work;
use super::scheme::{Family, Plan, Scheme};
use super::tile::Store;
use crate::format::LayerShape;

/// Positions of the reduction in one turn of the unrolled loop.
pub const fn unrolled_positions(scheme: &Scheme) -> usize {
    match (scheme.family, scheme.stored) {
        (Family::Outer, 2) => 32,
        (Family::Outer, _) => 16,
        (Family::Dual, 4) => 32,
        (Family::Dual, _) => 16,
    }
}

/// Names of [`work`]'s counts.
pub const WORK: [&str; 6] =
    ["assembly", "expanded fours", "expanded words", "window rows", "summed words", "groups"];

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
    let fours = segments * plan.segment as u64 / 4;
    let codes = u64::from(32 / layer.bits.input.storage());
    Work::new(&[
        groups * assembly,
        groups * fours,
        groups * segments * (plan.segment as u64).div_ceil(codes) * plan.scheme.group() as u64,
        groups * segments * plan.scheme.group() as u64,
        groups * plan.expanded_words() as u64,
        groups,
    ])
}
