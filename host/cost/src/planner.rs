//! The memory planner: where every tensor and every layer's working memory lies in the arena.
//!
//! A tensor lives from the layer that writes it to the last that reads it; working memory during
//! its layer alone. Two things alive at once may not share a byte. The plan is the best of several
//! placement orders, and of an exact search on small graphs; its distance from a proven lower
//! bound is reported. The raw input bytes are the caller's and not in the arena. Must not know:
//! boards, costs.

use jaq_network::{Network, Schedule, TensorId};
use jaq_shared::kernels::{self, KernelId};

/// A schedule, and how good its arena is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Kernels and offsets.
    pub schedule: Schedule,
    /// No plan can be smaller than this: most bytes alive at once.
    pub lower_bound: u32,
    /// Whether no placement of these tensors is smaller.
    pub proven: bool,
}

/// A range of memory wanted during the steps `first..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    first: usize,
    last: usize,
    size: u32,
}

impl Block {
    fn meets(&self, other: &Block) -> bool {
        self.size > 0 && other.size > 0 && self.first <= other.last && other.first <= self.last
    }
}

/// Graphs of at most this many blocks are searched exactly, with at most [`NODES`] placements.
const EXACT: usize = 24;
const NODES: usize = 20_000;

/// Plans the arena of a [validated](Network::validate) network whose layer `i` runs `kernels[i]`.
pub fn plan(network: &Network, kernels: &[KernelId]) -> Plan {
    let blocks = blocks(network, kernels);
    let lower_bound = lower_bound(&blocks, network.layers.len());
    let (offsets, proven) = place(&blocks, lower_bound);
    let arena_bytes = height(&blocks, &offsets);
    let tensors = network.layers.len() + 1;
    let schedule = Schedule {
        arena_bytes,
        tensor_offsets: offsets[..tensors].to_vec(),
        scratch_offsets: offsets[tensors..].to_vec(),
        kernels: kernels.to_vec(),
    };
    Plan { schedule, lower_bound, proven }
}

/// Every tensor, then every layer's working memory.
fn blocks(network: &Network, kernels: &[KernelId]) -> Vec<Block> {
    let steps = network.layers.len();
    let aligned = |bytes: usize| bytes.next_multiple_of(4) as u32;
    let mut blocks: Vec<Block> = (0..=steps)
        .map(|t| {
            let id = TensorId(t);
            let first = t.saturating_sub(1);
            let last = network.layers.iter().rposition(|layer| layer.inputs.contains(&id));
            let last = if t == steps { steps - 1 } else { last.unwrap_or(first).max(first) };
            Block { first, last, size: aligned(network.tensor(id).format().bytes()) }
        })
        .collect();
    blocks.extend((0..steps).map(|i| {
        let scratch = kernels::scratch_bytes(kernels[i], &network.shape(i));
        Block { first: i, last: i, size: aligned(scratch) }
    }));
    blocks
}

fn lower_bound(blocks: &[Block], steps: usize) -> u32 {
    let alive = |step| blocks.iter().filter(move |b| b.first <= step && step <= b.last);
    (0..steps).map(|step| alive(step).map(|b| b.size).sum()).max().unwrap_or(0)
}

fn height(blocks: &[Block], offsets: &[u32]) -> u32 {
    blocks.iter().zip(offsets).map(|(b, o)| o + b.size).max().unwrap_or(0)
}

/// The lowest offset at which `block` meets none of the `placed`.
fn lowest(block: &Block, blocks: &[Block], placed: &[(usize, u32)]) -> u32 {
    let mut taken: Vec<(u32, u32)> = placed
        .iter()
        .filter(|(i, _)| blocks[*i].meets(block))
        .map(|&(i, offset)| (offset, offset + blocks[i].size))
        .collect();
    taken.sort_unstable();
    let mut at = 0;
    for (start, end) in taken {
        if start >= at + block.size {
            break;
        }
        at = at.max(end);
    }
    at
}

/// Offsets of all blocks, and whether they are proven best.
fn place(blocks: &[Block], bound: u32) -> (Vec<u32>, bool) {
    type Key = fn(&Block) -> (u64, u64);
    let orders: [Key; 5] = [
        |b| (u64::from(b.size), (b.last - b.first) as u64),
        |b| ((b.last - b.first) as u64, u64::from(b.size)),
        |b| (u64::from(b.size) * (b.last - b.first + 1) as u64, 0),
        |b| (u64::MAX - b.first as u64, u64::from(b.size)),
        |b| (b.last as u64, u64::from(b.size)),
    ];
    let mut best: Option<Vec<u32>> = None;
    for key in orders {
        let mut order: Vec<usize> = (0..blocks.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(key(&blocks[i])));
        let mut placed = Vec::with_capacity(blocks.len());
        for i in order {
            placed.push((i, lowest(&blocks[i], blocks, &placed)));
        }
        let mut offsets = vec![0; blocks.len()];
        for (i, offset) in placed {
            offsets[i] = offset;
        }
        let better = |best: &Vec<u32>| height(blocks, &offsets) < height(blocks, best);
        if best.as_ref().is_none_or(better) {
            best = Some(offsets);
        }
    }
    let mut best = best.unwrap_or_default();
    if height(blocks, &best) == bound {
        return (best, true);
    }
    let real: Vec<usize> = (0..blocks.len()).filter(|&i| blocks[i].size > 0).collect();
    if real.len() > EXACT {
        return (best, false);
    }
    let mut search = Exact { blocks, bound, nodes: 0, best: &mut best };
    search.descend(&mut Vec::new(), &real);
    let proven = search.nodes < NODES;
    let proven = proven || height(blocks, &best) == bound;
    (best, proven)
}

/// Depth-first over placement orders: some order with every block at its lowest free offset gives
/// an optimal placement (take an optimal one, push blocks down until none moves, and place in the
/// order of their offsets). Orders are therefore only followed with non-decreasing offsets.
struct Exact<'a> {
    blocks: &'a [Block],
    bound: u32,
    nodes: usize,
    best: &'a mut Vec<u32>,
}

impl Exact<'_> {
    fn descend(&mut self, placed: &mut Vec<(usize, u32)>, left: &[usize]) {
        self.nodes += 1;
        let limit = height(self.blocks, self.best);
        if self.nodes >= NODES || limit == self.bound {
            return;
        }
        if left.is_empty() {
            let mut offsets = vec![0; self.blocks.len()];
            for &(i, offset) in placed.iter() {
                offsets[i] = offset;
            }
            if height(self.blocks, &offsets) < limit {
                *self.best = offsets;
            }
            return;
        }
        let floor = placed.last().map_or(0, |(_, offset)| *offset);
        for (at, &i) in left.iter().enumerate() {
            let offset = lowest(&self.blocks[i], self.blocks, placed);
            let limit = height(self.blocks, self.best);
            if offset < floor || offset + self.blocks[i].size >= limit {
                continue;
            }
            placed.push((i, offset));
            let mut rest = left.to_vec();
            rest.remove(at);
            self.descend(placed, &rest);
            placed.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jaq_network::{InputEncoding, Layer, Tensor};
    use jaq_shared::format::{Bits, Op, Shape, Window};
    use proptest::prelude::*;

    fn sound(blocks: &[Block], offsets: &[u32]) {
        for (i, a) in blocks.iter().enumerate() {
            assert_eq!(offsets[i] % 4, 0);
            for (j, b) in blocks.iter().enumerate().skip(i + 1) {
                let apart = offsets[i] + a.size <= offsets[j] || offsets[j] + b.size <= offsets[i];
                assert!(!a.meets(b) || apart, "{i} and {j} share memory");
            }
        }
    }

    /// All placement orders, without any pruning.
    fn brute(blocks: &[Block], placed: &mut Vec<(usize, u32)>) -> u32 {
        let mut best = u32::MAX;
        for i in 0..blocks.len() {
            if placed.iter().any(|(j, _)| *j == i) {
                continue;
            }
            placed.push((i, lowest(&blocks[i], blocks, placed)));
            best = best.min(brute(blocks, placed));
            placed.pop();
        }
        if best == u32::MAX {
            best = placed.iter().map(|&(i, o)| o + blocks[i].size).max().unwrap_or(0);
        }
        best
    }

    fn any_blocks(most: usize) -> impl Strategy<Value = Vec<Block>> {
        let block = (0..8usize, 0..4usize, 0..40u32).prop_map(|(first, span, size)| Block {
            first,
            last: first + span,
            size: size * 4,
        });
        prop::collection::vec(block, 1..=most)
    }

    proptest! {
        #[test]
        fn nothing_overlaps(blocks in any_blocks(40)) {
            let bound = lower_bound(&blocks, 12);
            let (offsets, proven) = place(&blocks, bound);
            sound(&blocks, &offsets);
            prop_assert!(height(&blocks, &offsets) >= bound);
            prop_assert!(proven || height(&blocks, &offsets) > bound);
        }

        #[test]
        fn small_graphs_are_planned_exactly(blocks in any_blocks(6)) {
            let (offsets, proven) = place(&blocks, lower_bound(&blocks, 12));
            prop_assert!(proven);
            prop_assert_eq!(height(&blocks, &offsets), brute(&blocks, &mut Vec::new()));
        }
    }

    #[test]
    fn residual_tensors_stay_alive() {
        let tensor = |c| Tensor { shape: Shape::new(4, 4, c), bits: Bits::B8, signed: false };
        let layer = |name: &str, op, inputs: &[usize], c, weights| Layer {
            name: name.into(),
            op,
            inputs: inputs.iter().map(|&i| TensorId(i)).collect(),
            output: tensor(c),
            weight_bits: weights,
        };
        let conv = Op::Conv(Window::POINT);
        let network = Network {
            name: "residual".into(),
            input: tensor(4),
            encoding: InputEncoding::IDENTITY,
            layers: vec![
                layer("a", conv, &[0], 8, Some(Bits::B4)),
                layer("b", conv, &[1], 16, Some(Bits::B4)),
                layer("c", conv, &[2], 8, Some(Bits::B4)),
                layer("d", Op::Add, &[1, 3], 8, None),
            ],
            classes: vec![],
        };
        network.validate().unwrap();
        let kernels =
            [KernelId::Reference, KernelId::Reference, KernelId::Reference, KernelId::Add];
        let plan = plan(&network, &kernels);
        let blocks = blocks(&network, &kernels);
        let offsets: Vec<u32> =
            [&plan.schedule.tensor_offsets[..], &plan.schedule.scratch_offsets].concat();
        sound(&blocks, &offsets);
        // Layer c: its input (16 channels), its output and the skipped tensor (8 each).
        assert_eq!((plan.schedule.arena_bytes, plan.lower_bound), (16 * 32, 16 * 32));
        assert!(plan.proven);
    }
}
