//! A depthwise layer and the pointwise layer after it, computed together: bands of rows of the tensor
//! between them stay in the output buffer and never see memory.
//!
//! The weights of both layers stay on the chip for all bands, inputs and outputs are double-buffered by
//! bands, the band between is there once. Time as in [`crate::tile`]: weights and the first band are
//! loaded, memory and array work side by side, the last band is stored. Must not know: other mappings.

use crate::accelerator::Tiled;
use crate::batch_tile::sizes;
use crate::tile::{
    Dim, Mode, OPERANDS, Prices, Problem, Tiles, final_bits, mac_energy, operand_bits,
};

/// A pair of layers computed band by band.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fused {
    /// Rows of outputs in a band.
    pub rows: u64,
    pub cycles: u64,
    pub compute_cycles: u64,
    pub exposed_memory_cycles: u64,
    pub fill_cycles: u64,
    pub drain_cycles: u64,
    pub energy_pj: f64,
    /// Memory traffic of weights, inputs, outputs read, outputs written, in bits.
    pub traffic_bits: [u64; 4],
    /// Reads and writes of the three buffers, in bits.
    pub buffer_bits: [u64; 3],
}

/// Whether `second` can take the rows of `first` as they are made.
fn follows(first: &Problem, second: &Problem) -> bool {
    let point = second.kh == 1 && second.kw == 1 && second.stride == 1 && !second.depthwise;
    let same_rows = first.size[0] == second.size[0] && first.size[1] == second.size[1];
    first.depthwise && point && same_rows && first.size[2] == second.size[3]
}

/// Every way to compute the pair together that fits the buffers.
pub(crate) fn all(first: &Problem, second: &Problem, array: &Tiled, prices: &Prices) -> Vec<Fused> {
    if !follows(first, second) {
        return Vec::new();
    }
    let rows = sizes(first.size[0], array.mapping.tiles).into_iter();
    rows.filter_map(|rows| fuse(first, second, rows, array, prices)).collect()
}

fn fuse(a: &Problem, b: &Problem, rows: u64, array: &Tiled, prices: &Prices) -> Option<Fused> {
    // The narrowest mode is the operands' own: the fewest cycles but for padding.
    let tiles = |p: &Problem| {
        let mode: Mode = Mode::of(array, p)[0];
        Tiles::new(p, array, &[rows, p.size[1], p.size[2], p.size[3]], mode)
    };
    let (first, second) = (tiles(a), tiles(b));
    let oh = Dim::Oh.bit();
    let weights = first.block(0, 15) * a.weight_bits + second.block(0, 15) * b.weight_bits;
    let inputs = first.block(1, 15) * a.input_bits;
    let outputs = second.block(2, 15);
    let accumulator = operand_bits(b, array)[2];
    let input_band = first.block(1, 15 & !oh) * a.input_bits;
    let output_band = second.block(2, 15 & !oh);
    let between = first.block(2, 15 & !oh) * b.input_bits;
    let used = [weights, 2 * input_band, between + 2 * output_band * accumulator];
    if !array.fits(&used, false) {
        return None;
    }
    let initial = u64::from(array.outputs.initial_read) * accumulator;
    let traffic = [weights, inputs, outputs * initial, outputs * final_bits(b, array)];
    let fill = weights + input_band + output_band * initial;
    let last = second.last_output(15 & !oh) * final_bits(b, array);
    let cycles = |bits: u64| bits.div_ceil(array.memory.bits_per_cycle);
    let compute = first.compute_cycles + second.compute_cycles;
    let exposed = cycles(traffic.iter().sum::<u64>() - fill - last).saturating_sub(compute);
    let (fill, drain) = (cycles(fill) + 2 * array.array.pipeline_cycles, cycles(last));
    let moved = [traffic[0], traffic[1], traffic[2] + traffic[3]];
    let by_array: [u64; 3] = std::array::from_fn(|x| first.array_bits[x] + second.array_bits[x]);
    let energy_pj = mac_energy(a, array, prices)
        + mac_energy(b, array, prices)
        + (0..4).map(|i| traffic[i] as f64 * prices.traffic()[i]).sum::<f64>()
        + (0..3).map(|x| by_array[x] as f64 * prices.buffer[x]).sum::<f64>();
    Some(Fused {
        rows,
        cycles: compute + exposed + fill + drain,
        compute_cycles: compute,
        exposed_memory_cycles: exposed,
        fill_cycles: fill,
        drain_cycles: drain,
        energy_pj,
        traffic_bits: traffic,
        buffer_bits: std::array::from_fn(|x| moved[x] + by_array[x]),
    })
}

impl Fused {
    /// In words.
    pub(crate) fn explain(&self) -> String {
        let [weights, inputs, read, written] = self.traffic_bits.map(|bits| bits / 8);
        format!(
            "depthwise and pointwise together, {} rows at a time, the tensor between them stays on \
             the chip: {} cycles = {} compute + {} exposed memory + {} fill + {} drain; {} {weights}, \
             {} {inputs}, {} {} bytes from and to memory",
            self.rows,
            self.cycles,
            self.compute_cycles,
            self.exposed_memory_cycles,
            self.fill_cycles,
            self.drain_cycles,
            OPERANDS[0],
            OPERANDS[1],
            OPERANDS[2],
            read + written
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Objective, Target, TiledModel, Workload};
    use proptest::prelude::*;

    fn model(name: &str, objective: Objective) -> TiledModel {
        match Target::load(name, objective).unwrap() {
            Target::Tiled(model) => model,
            _ => panic!("{name} is tiled"),
        }
    }

    fn pair(spec: &str, widths: &str) -> Vec<Workload> {
        let spec: jaq_network::LayerSpec = spec.parse().unwrap();
        Workload::block(&spec, widths.parse().unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Bands walked one by one, every row that crosses the port counted, engines stepped.
        #[test]
        fn bands_are_what_a_walk_counts(
            (h, w, c, oc) in (1..9u64, 1..9u64, 1..20u64, 1..20u64),
            (k, stride) in (1..4u64, 1..3u64),
            halo in any::<bool>(),
            initial in any::<bool>(),
            width in 1..200u64,
        ) {
            let mut array = model("bitfusion", Objective::Latency).array;
            array.mapping.keep_halo = halo;
            array.outputs.initial_read = initial;
            array.memory.bits_per_cycle = width;
            array.buffer.iter_mut().for_each(|b| b.bytes = 1 << 20);
            let prices = array.prices().unwrap();
            let common = Problem {
                size: [h, w, c, 1], kh: k, kw: k, stride, depthwise: true,
                weight_bits: 8, input_bits: 4, output_bits: 4,
            };
            let point = Problem {
                size: [h, w, oc, c], kh: 1, kw: 1, stride: 1, depthwise: false, ..common
            };
            let found = all(&common, &point, &array, &prices);
            prop_assert_eq!(found.len(), sizes(h, array.mapping.tiles).len());
            for fused in found {
                let columns = (w - 1) * stride + k;
                // Composed rows take whole vectors of pointwise weights: 16 rows of two products.
                let weights = c * k * k * 8 + c.next_multiple_of(32) * oc * 8;
                let (mut loaded, mut first, mut at) = (weights, 0, 0);
                let (mut compute, mut last) = (0, 0);
                while at < h {
                    let rows = fused.rows.min(h - at);
                    let kept = halo && k > stride && at > 0;
                    let new = if kept { rows * stride } else { (rows - 1) * stride + k };
                    let outputs = rows * w * oc;
                    let mut bits = new * columns * c * 4;
                    bits += if initial { outputs * 32 } else { 0 };
                    loaded += bits;
                    first = if at == 0 { weights + bits } else { first };
                    compute += rows * w * (c.div_ceil(32) * k * k);
                    compute += rows * w * oc.div_ceil(32) * c.div_ceil(32);
                    last = outputs * 32;
                    at += rows;
                }
                let total = loaded + h * w * oc * 32;
                prop_assert_eq!(fused.traffic_bits.iter().sum::<u64>(), total);
                prop_assert_eq!(fused.compute_cycles, compute);
                let (mut cycles, mut memory, mut busy) = (0, total - first - last, compute);
                for mut bits in [first, last] {
                    while bits > 0 {
                        bits = bits.saturating_sub(width);
                        cycles += 1;
                    }
                }
                while memory > 0 || busy > 0 {
                    memory = memory.saturating_sub(width);
                    busy = busy.saturating_sub(1);
                    cycles += 1;
                }
                prop_assert_eq!(fused.cycles, cycles);
            }
        }
    }

    #[test]
    fn a_block_is_never_dearer_than_its_layers_and_says_how_it_runs() {
        let mut fused = 0;
        for target in ["bitfusion", "gemmini", "tpu-like"] {
            for spec in ["dw3x3:16x16x64+pw:16x16x64-64", "dw5x5s2:14x14x96+pw:7x7x96-160"] {
                for objective in [Objective::Latency, Objective::Energy, Objective::Edp] {
                    let model = model(target, objective);
                    let found = model.block(&pair(spec, "W4A4")).unwrap();
                    let alone = found.layers.iter().map(|(_, cost)| cost.clone());
                    let alone = alone.reduce(|a, b| a.plus(&b)).unwrap();
                    let value = |cost: &crate::Cost| {
                        objective.value(cost.cycles.unwrap().typical, cost.energy_pj.unwrap()).0
                    };
                    assert!(value(&found.total) <= value(&alone), "{target} {spec}");
                    if found.fused.is_some() {
                        assert!(found.total.bytes["memory"] < alone.bytes["memory"]);
                        fused += 1;
                    }
                }
            }
        }
        assert!(fused > 6, "{fused}");
        let text = model("gemmini", Objective::Energy);
        let text = text.block(&pair("dw3x3:16x16x64+pw:16x16x64-64", "W8A8")).unwrap().fused;
        assert!(text.unwrap().contains("stays on the chip"));
    }
}
