//! What the assembly reads of a block, one structure for every instruction set.

use super::scheme::Plan;
use super::{Accumulators, WORDS};

/// Arguments in the order of the assembly.
#[repr(C)]
pub struct Arguments {
    expanded: *const [u32; WORDS],
    /// Where `expanded` ends.
    end: *const [u32; WORDS],
    weights: *const u8,
    /// Bytes of a row of weights.
    row: usize,
    /// Bytes of expanded activations between two extractions.
    chunk: usize,
    start: *const [u32; WORDS],
    out: *mut Accumulators,
}

impl Arguments {
    /// Of a block, if every slice is as long as the loops assume.
    pub fn new(
        plan: &Plan,
        expanded: &[[u32; WORDS]],
        start: &[u32; WORDS],
        weights: &[u8],
        out: &mut Accumulators,
    ) -> Option<Arguments> {
        let sound = !expanded.is_empty()
            && expanded.len() == plan.positions
            && weights.len() >= plan.block_bytes();
        let range = expanded.as_ptr_range();
        sound.then_some(Arguments {
            expanded: range.start,
            end: range.end,
            weights: weights.as_ptr(),
            row: plan.row_bytes,
            chunk: plan.scheme.chunk().min(plan.positions) * 4 * WORDS,
            start,
            out,
        })
    }
}
