//! A cycle-stepping simulator of tiled execution: the oracle that the closed form of
//! [`crate::tile`] is held to.
//!
//! It walks the loops tile by tile, keeps the blocks that a mapping asks for in buffers, counts
//! every tile that crosses the memory port, and then steps the two engines, memory and array,
//! cycle by cycle. It shares no formula with the closed form; only the meaning of a mapping. Slow.

use crate::accelerator::{Dataflow, Tiled};
use crate::tile::{Dim, Evaluation, Mapping, Problem, final_bits, keeps_halo};

/// Counts of a walk, in bits and cycles. Energy is not the simulator's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Walk {
    pub cycles: u64,
    pub compute_cycles: u64,
    pub fill_bits: u64,
    pub drain_bits: u64,
    pub traffic_bits: [u64; 4],
    /// Most bits each operand's block had.
    pub block_bits: [u64; 3],
}

impl Walk {
    /// Whether closed form and simulator agree.
    pub fn agrees(&self, closed: &Evaluation) -> bool {
        self.cycles == closed.cycles
            && self.compute_cycles == closed.compute_cycles
            && self.traffic_bits == closed.traffic_bits
    }
}

/// Tile indices of the loops that a block does not cover, `None` at others: names a block.
type BlockName = [Option<u64>; 4];

/// Walks `mapping`.
pub fn walk(problem: &Problem, array: &Tiled, mapping: &Mapping) -> Walk {
    let (factor, slow) = mapping.mode.rate(array);
    let rows = array.array.rows * factor;
    let fusion = array.array.precision == crate::accelerator::Precision::Fusion;
    let relevant = problem.relevant();
    let counts: Vec<u64> = (0..4).map(|d| problem.size[d].div_ceil(mapping.tile[d])).collect();
    let size_at =
        |d: usize, index: u64| mapping.tile[d].min(problem.size[d] - index * mapping.tile[d]);
    // Bits of one tile of an operand.
    let tile_bits = |operand: usize, at: &[u64; 4]| -> u64 {
        let n: Vec<u64> = (0..4).map(|d| size_at(d, at[d])).collect();
        match operand {
            0 => {
                let mut vector = problem.kh * problem.kw * n[3];
                while fusion && !problem.depthwise && !vector.is_multiple_of(rows) {
                    vector += 1;
                }
                vector * n[2] * problem.weight_bits
            }
            1 => {
                let h = match at[0] > 0 && keeps_halo(problem, array, &counts) {
                    true => n[0] * problem.stride,
                    false => (n[0] - 1) * problem.stride + problem.kh,
                };
                let w = (n[1] - 1) * problem.stride + problem.kw;
                h * w * if problem.depthwise { n[2] } else { n[3] } * problem.input_bits
            }
            _ => n[0] * n[1] * n[2] * u64::from(array.outputs.accumulator_bits),
        }
    };
    // Bits of the block that holds a tile: all tiles of the loops it covers.
    let block_bits = |operand: usize, name: &BlockName| -> u64 {
        let range = |d: usize| match name[d] {
            Some(index) => index..index + 1,
            None if relevant[operand] >> d & 1 == 1 => 0..counts[d],
            None => 0..1,
        };
        let mut bits = 0;
        for a in range(0) {
            for b in range(1) {
                for c in range(2) {
                    for d in range(3) {
                        bits += tile_bits(operand, &[a, b, c, d]);
                    }
                }
            }
        }
        bits
    };
    let name_of = |operand: usize, at: &[u64; 4]| -> BlockName {
        let covered = &mapping.order[4 - mapping.level[operand]..];
        Dim::ALL.map(|d| {
            let own = relevant[operand] & d.bit() != 0 && !covered.contains(&d);
            own.then_some(at[d as usize])
        })
    };

    let mut found = Walk::default();
    let mut resident: [Option<BlockName>; 3] = [None; 3];
    let mut visited = std::collections::HashSet::new();
    let mut stores: Vec<(BlockName, u64)> = Vec::new();
    let steps: u64 = counts.iter().product();
    let accumulator = u64::from(array.outputs.accumulator_bits);
    for step in 0..steps {
        // Tile indices of this step, the innermost loop fastest.
        let (mut at, mut left) = ([0; 4], step);
        for d in mapping.order.iter().rev() {
            at[*d as usize] = left % counts[*d as usize];
            left /= counts[*d as usize];
        }
        for (operand, resident) in resident.iter_mut().enumerate() {
            let name = name_of(operand, &at);
            if resident.replace(name) == Some(name) {
                continue;
            }
            let bits = block_bits(operand, &name);
            found.block_bits[operand] = found.block_bits[operand].max(bits);
            let first = step == 0;
            if operand < 2 {
                found.traffic_bits[operand] += bits;
                found.fill_bits += if first { bits } else { 0 };
                continue;
            }
            let new = visited.insert(name);
            if !new || array.outputs.initial_read {
                found.traffic_bits[2] += bits;
                found.fill_bits += if first { bits } else { 0 };
            }
            stores.push((name, bits));
        }
        let [h, w, oc, ic] = [0, 1, 2, 3].map(|d| size_at(d, at[d]));
        if array.array.dataflow == Dataflow::RowStationary {
            // The array: rows of outputs on its columns, several filters on its rows; a tap of a
            // row of every pixel a cycle. Filters taller than the array go in parts.
            for _strip in 0..h.div_ceil(array.array.columns) {
                for _part in 0..problem.kh.div_ceil(array.array.rows) {
                    let filters = (array.array.rows / problem.kh).max(1);
                    found.compute_cycles +=
                        w * problem.kw * ic.div_ceil(factor) * oc.div_ceil(filters) * slow;
                }
            }
            continue;
        }
        // The array: one vector of every tap and pixel a cycle.
        for _pixel in 0..h * w {
            for _tap in 0..problem.kh * problem.kw {
                found.compute_cycles += oc.div_ceil(array.array.columns) * ic.div_ceil(rows) * slow;
            }
        }
    }
    // A block leaves when another comes: whole sums while it will be back, finished outputs else.
    for (i, (name, bits)) in stores.iter().enumerate() {
        let returns = stores[i + 1..].iter().any(|(later, _)| later == name);
        let bits = if returns { *bits } else { bits / accumulator * final_bits(problem, array) };
        found.traffic_bits[3] += bits;
        if i + 1 == stores.len() {
            found.drain_bits = bits;
        }
    }

    // The engines. Memory first fills, then both work, then the last block is stored.
    let width = array.memory.bits_per_cycle;
    let mut transfer = |mut bits: u64| {
        while bits > 0 {
            bits = bits.saturating_sub(width);
            found.cycles += 1;
        }
    };
    transfer(found.fill_bits);
    transfer(found.drain_bits);
    let total: u64 = found.traffic_bits.iter().sum();
    let mut middle = total - found.fill_bits - found.drain_bits;
    let mut compute = found.compute_cycles;
    while middle > 0 || compute > 0 {
        let array_works = compute > 0;
        compute -= u64::from(array_works);
        if mapping.double_buffered || !array_works {
            middle = middle.saturating_sub(width);
        }
        found.cycles += 1;
    }
    found.cycles += array.array.pipeline_cycles;
    found
}
