//! The memory planner: where every tensor and every kernel's working memory lies in the arena.
//!
//! Pure: a graph and its kernels in, a [`Schedule`] with the exact peak RAM out, so that the search
//! sees the true figure and export only writes it down. Must not know boards or limits.

use jaq_network::{Network, Schedule, TensorId};
use jaq_shared::kernels::{self, KernelId};

/// A schedule and how good it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Kernels and placement.
    pub schedule: Schedule,
    /// No placement can need less: the largest sum of what lives at one step, in bytes.
    pub lower_bound: u32,
}

/// Something that lives in the arena from step `first` to step `last`, both included.
#[derive(Clone, Copy, Debug)]
struct Item {
    bytes: u32,
    first: usize,
    last: usize,
}

impl Item {
    fn meets(&self, other: &Item) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Orders tried by the exhaustive part before it settles for the best found.
const MOST_NODES: usize = 20_000;

/// Places the tensors and working memories of `network` run by `kernels` (one a layer).
///
/// Several greedy orders are tried, then orders are searched exhaustively within a fixed number
/// of steps, until a placement meets the lower bound. The same input gives the same plan.
pub fn plan(network: &Network, kernels: &[KernelId]) -> Plan {
    let layers = network.layers.len();
    let items = items(network, kernels);
    let lower_bound = lower_bound(&items, layers);
    let mut search = Search { items: &items, lower_bound, best: None, nodes: 0 };

    let mut order: Vec<usize> = (0..items.len()).filter(|&i| items[i].bytes > 0).collect();
    let length = |i: usize| items[i].last - items[i].first;
    let keys: [&dyn Fn(usize) -> (u64, u64); 3] = [
        &|i| (u64::from(items[i].bytes), length(i) as u64),
        &|i| (length(i) as u64, u64::from(items[i].bytes)),
        &|i| (u64::from(items[i].bytes) * (1 + length(i) as u64), 0),
    ];
    for key in keys {
        order.sort_by_key(|&i| (std::cmp::Reverse(key(i)), i));
        search.greedy(&order);
    }
    order.sort_by_key(|&i| (std::cmp::Reverse(items[i].bytes), i));
    search.exhaust(&mut vec![None; items.len()], &order, 0);

    let (arena_bytes, offsets) = search.best.unwrap_or((0, vec![0; items.len()]));
    let (tensor_offsets, scratch_offsets) = offsets.split_at(layers + 1);
    Plan {
        schedule: Schedule {
            arena_bytes,
            tensor_offsets: tensor_offsets.to_vec(),
            scratch_offsets: scratch_offsets.to_vec(),
            kernels: kernels.to_vec(),
        },
        lower_bound,
    }
}

/// All tensors by [`TensorId`], then all working memories by layer.
fn items(network: &Network, kernels: &[KernelId]) -> Vec<Item> {
    let layers = network.layers.len();
    let word = |bytes: usize| bytes.next_multiple_of(4) as u32;
    let mut items: Vec<Item> = (0..=layers)
        .map(|id| {
            let bytes = word(network.tensor(TensorId(id)).format().bytes());
            // The input is there before step 0; the result must outlive the last step.
            let first = id.saturating_sub(1);
            Item { bytes, first, last: if id == layers { layers } else { first } }
        })
        .collect();
    for (step, layer) in network.layers.iter().enumerate() {
        for id in &layer.inputs {
            items[id.0].last = items[id.0].last.max(step);
        }
    }
    items.extend(kernels.iter().enumerate().map(|(step, kernel)| {
        let bytes = word(kernels::scratch_bytes(*kernel, &network.shape(step)));
        Item { bytes, first: step, last: step }
    }));
    items
}

fn lower_bound(items: &[Item], layers: usize) -> u32 {
    let live = |step| items.iter().filter(move |i| i.first <= step && step <= i.last);
    (0..=layers).map(|step| live(step).map(|i| i.bytes).sum()).max().unwrap_or(0)
}

struct Search<'a> {
    items: &'a [Item],
    lower_bound: u32,
    /// Arena size and offsets.
    best: Option<(u32, Vec<u32>)>,
    nodes: usize,
}

impl Search<'_> {
    /// Lowest offset at which `item` fits beside the placed items that live when it does.
    fn fit(&self, placed: &[Option<u32>], item: usize) -> u32 {
        let mut taken: Vec<(u32, u32)> = (0..self.items.len())
            .filter(|&other| self.items[other].meets(&self.items[item]))
            .filter_map(|other| placed[other].map(|at| (at, at + self.items[other].bytes)))
            .collect();
        taken.sort_unstable();
        let mut offset = 0;
        for (start, end) in taken {
            if start >= offset + self.items[item].bytes {
                break;
            }
            offset = offset.max(end);
        }
        offset
    }

    fn greedy(&mut self, order: &[usize]) {
        let mut placed = vec![None; self.items.len()];
        for &item in order {
            placed[item] = Some(self.fit(&placed, item));
        }
        self.offer(&placed);
    }

    /// Places the rest of `order` in every order, best first, cutting what cannot improve.
    fn exhaust(&mut self, placed: &mut Vec<Option<u32>>, order: &[usize], peak: u32) {
        let best = self.best.as_ref().map_or(u32::MAX, |best| best.0);
        self.nodes += 1;
        if peak >= best || best == self.lower_bound || self.nodes > MOST_NODES {
            return;
        }
        if order.is_empty() {
            return self.offer(placed);
        }
        for (index, &item) in order.iter().enumerate() {
            let offset = self.fit(placed, item);
            placed[item] = Some(offset);
            let rest: Vec<usize> =
                order[..index].iter().chain(&order[index + 1..]).copied().collect();
            self.exhaust(placed, &rest, peak.max(offset + self.items[item].bytes));
            placed[item] = None;
        }
    }

    fn offer(&mut self, placed: &[Option<u32>]) {
        let offsets: Vec<u32> = placed.iter().map(|at| at.unwrap_or(0)).collect();
        let peak = (0..self.items.len()).map(|i| offsets[i] + self.items[i].bytes).max();
        let peak = peak.unwrap_or(0);
        if self.best.as_ref().is_none_or(|best| peak < best.0) {
            self.best = Some((peak, offsets));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jaq_network::{InputEncoding, Layer, Tensor};
    use jaq_shared::format::{Bits, Op, Shape, Window};
    use proptest::prelude::*;

    /// A chain of pointwise layers with additions back to earlier tensors.
    fn network(widths: &[(u16, u8)]) -> Network {
        let tensor = |c: u16, shape: Shape| Tensor {
            shape: Shape { c, ..shape },
            bits: Bits::B8,
            signed: false,
        };
        let input = Tensor { shape: Shape::new(6, 6, 3), bits: Bits::B8, signed: false };
        let mut layers: Vec<Layer> = Vec::new();
        for (index, &(c, back)) in widths.iter().enumerate() {
            let of = |id: usize| if id == 0 { input } else { layers[id - 1].output };
            let last = of(index);
            let residual = index
                .checked_sub(usize::from(back))
                .filter(|&id| back > 0 && of(id).shape == last.shape);
            let (op, inputs, output) = match residual {
                Some(id) => (Op::Add, vec![TensorId(index), TensorId(id)], last),
                None => (Op::Conv(Window::POINT), vec![TensorId(index)], tensor(c, last.shape)),
            };
            let weight_bits = op.has_weights().then_some(Bits::B4);
            layers.push(Layer { name: format!("l{index}"), op, inputs, output, weight_bits });
        }
        let encoding = InputEncoding::IDENTITY;
        Network { name: "chain".into(), input, encoding, layers, classes: vec![] }
    }

    proptest! {
        #[test]
        fn nothing_that_lives_together_overlaps(
            widths in prop::collection::vec((1u16..6, 0u8..4), 1..14)
        ) {
            let network = network(&widths);
            network.validate().unwrap();
            let kernels: Vec<_> = network.layers.iter().map(|l| match l.op {
                Op::Add => KernelId::Add,
                _ => KernelId::Reference,
            }).collect();
            let plan = plan(&network, &kernels);
            let items = items(&network, &kernels);
            let s = &plan.schedule;
            let offsets: Vec<u32> = s.tensor_offsets.iter().chain(&s.scratch_offsets).copied().collect();
            prop_assert!(s.arena_bytes >= plan.lower_bound);
            for (i, a) in items.iter().enumerate() {
                prop_assert!(offsets[i] + a.bytes <= s.arena_bytes && offsets[i].is_multiple_of(4));
                for (j, b) in items.iter().enumerate().filter(|(j, b)| *j != i && a.bytes > 0 && b.bytes > 0) {
                    let apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                    prop_assert!(apart || !a.meets(b), "{i} and {j} overlap");
                }
            }
        }
    }

    #[test]
    fn a_chain_needs_its_largest_neighbours_only() {
        let network = network(&[(4, 0), (8, 0), (4, 0), (2, 0)]);
        let plan = plan(&network, &[KernelId::Reference; 4]);
        assert_eq!(plan.schedule.arena_bytes, 36 * (4 + 8));
        assert_eq!(plan.lower_bound, plan.schedule.arena_bytes);
    }
}
