//! Arm Ethos-U55: cycles by the structure of the performance model that Arm publishes with its
//! compiler Vela, written anew. An estimate of an estimate: no silicon was measured.
//!
//! The engine computes an output block by block. A block is as large as input and accumulators fit
//! the shared buffer together, and is chosen for least memory traffic an output. While one block is
//! multiplied, the one before is scaled and stored; the slower of the two sets the pace. Weights
//! come from flash compressed, and are the pace where flash is slower. Operands are 8 bits in the
//! engine: narrower weights make flash traffic smaller, nothing else. Must not know: networks.

use std::collections::BTreeMap;

use jaq_network::Network;
use jaq_shared::format::{LayerShape, Op};
use serde::{Deserialize, Serialize};

use crate::board::{self, BoardError, Kind};
use crate::cost::{Cost, CostModel, Interval, ModelError, NetworkCost};
use crate::target::sum_of_layers;
use crate::workload::Workload;

/// The description of one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct EthosU55 {
    pub name: String,
    pub description: String,
    pub kind: Kind,
    pub model: String,
    pub clock_hz: f64,
    engine: Engine,
    buffer: SharedBuffer,
    memory: Memories,
    pub sources: BTreeMap<String, String>,
}

/// The multipliers; the fields are explained in the board files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Engine {
    macs_per_cycle: u64,
    micro_block: [u64; 3],
    largest_block: [u64; 3],
    delay_cycles: u64,
    add_cycles: f64,
    maximum_cycles: f64,
    output_cycles: f64,
    pool_cycles: u64,
}

/// The buffer that inputs and accumulators share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SharedBuffer {
    banks: u64,
    bank_bytes: u64,
    output_banks: u64,
    end_banks: u64,
    input_granule: u64,
    elementwise_granule: u64,
    accumulator_granule: u64,
}

/// Memories outside of the engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memories {
    sram_bytes_per_cycle: f64,
    sram_latency_cycles: f64,
    flash_bytes_per_cycle: f64,
    flash_latency_cycles: f64,
    compression: f64,
    channel_bytes: u64,
}

/// Largest window the engine walks at once; larger ones are walked in parts.
const PART: u64 = 8;
/// Depth at which output blocks are split.
const SPLIT: u64 = 16;

/// What the engine does with a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kindred {
    Convolution,
    Vector,
    Depthwise,
    Pool,
}

#[derive(Clone, Copy, Debug)]
struct Work {
    kind: Kindred,
    input: [u64; 3],
    output: [u64; 3],
    kernel: [u64; 2],
    stride: u64,
    output_cycles: f64,
    /// Whether several kernel elements, rather than many channels, fill the multipliers.
    part_kernel: bool,
}

/// A way to cut the output into blocks, and the input that one needs.
#[derive(Clone, Copy, Debug)]
struct Blocks {
    output: [u64; 3],
    input: [u64; 3],
}

fn least(a: [u64; 3], b: [u64; 3]) -> [u64; 3] {
    std::array::from_fn(|i| a[i].min(b[i]))
}

fn volume(shape: [u64; 3]) -> u64 {
    shape.iter().product()
}

impl EthosU55 {
    /// Parses and validates the text of a board file; `file` is named in errors.
    pub fn parse(file: &str, text: &str) -> Result<EthosU55, BoardError> {
        let found: EthosU55 = board::parse(file, text)?;
        board::check_name(file, &found.name)?;
        let fail = |field: &str, reason: &str| Err(BoardError::field(file, field, reason));
        let (engine, buffer, memory) = (&found.engine, &found.buffer, &found.memory);
        if volume(engine.micro_block) * 8 != engine.macs_per_cycle {
            return fail("engine.micro_block", "times 8 channels must be macs_per_cycle");
        }
        let divides = |i: usize| engine.largest_block[i].is_multiple_of(engine.micro_block[i]);
        if !(0..3).all(divides) || volume(engine.largest_block) > 1 << 20 {
            return fail("engine.largest_block", "must be micro-blocks, at most 2^20 elements");
        }
        let sizes = [
            buffer.bank_bytes,
            buffer.input_granule,
            buffer.elementwise_granule,
            buffer.accumulator_granule,
        ];
        if sizes.contains(&0) || buffer.output_banks + buffer.end_banks >= buffer.banks {
            return fail("buffer", "must have banks left for inputs and accumulators");
        }
        let positive = [
            found.clock_hz,
            engine.add_cycles,
            engine.maximum_cycles,
            engine.output_cycles,
            memory.sram_bytes_per_cycle,
            memory.flash_bytes_per_cycle,
            memory.compression,
        ];
        if positive.iter().any(|v| !(v.is_finite() && *v > 0.0)) {
            return fail("clock_hz, cycles and bytes a cycle", "must be positive");
        }
        let wanted = ["engine", "buffer", "memory", "memory.compression"];
        board::check_sources(file, &found.sources, &wanted)?;
        Ok(found)
    }

    fn work(&self, layer: &Workload) -> Option<Work> {
        let window = layer.op().window();
        let (kind, output_cycles) = match layer.op() {
            Op::Conv(_) => (Kindred::Convolution, self.engine.output_cycles),
            Op::Linear => (Kindred::Vector, self.engine.output_cycles),
            Op::Depthwise(_) => (Kindred::Depthwise, self.engine.output_cycles),
            Op::AvgPool(_) => (Kindred::Pool, self.engine.output_cycles),
            Op::MaxPool(_) => (Kindred::Pool, self.engine.maximum_cycles),
            Op::Add => return None,
        };
        let input = layer.input();
        let taps = window.taps() as u64;
        // Channels in steps of 32, or of 8 with kernel elements in steps of 4: what is fuller.
        let depth_use = input[2] as f64 / input[2].next_multiple_of(32) as f64;
        let part_use = (input[2] * taps) as f64
            / (input[2].next_multiple_of(8) * taps.next_multiple_of(4)) as f64;
        let convolves = matches!(kind, Kindred::Convolution | Kindred::Depthwise);
        Some(Work {
            kind,
            input,
            output: layer.output(),
            kernel: [window.kh.into(), window.kw.into()],
            stride: window.stride.into(),
            output_cycles,
            part_kernel: convolves && (input[2] <= 8 || part_use > depth_use),
        })
    }

    /// Whether an output block with its input fits the buffer, both twice.
    fn fits(&self, blocks: &Blocks) -> bool {
        let buffer = &self.buffer;
        let banks = |bytes: u64, granule: u64| {
            (bytes.div_ceil(buffer.bank_bytes) * 2).next_multiple_of(granule)
        };
        let [h, w, d] = blocks.input;
        let inputs = banks(h * w * d.next_multiple_of(8), buffer.input_granule);
        let [h, w, d] = blocks.output;
        let sums = banks(h * w * d.next_multiple_of(8) * 4, buffer.accumulator_granule);
        buffer.output_banks + inputs + sums + buffer.end_banks <= buffer.banks
    }

    /// The block that moves least an output; of equals, the one that covers more of the input if
    /// it is small.
    fn blocks(&self, work: &Work) -> Option<Blocks> {
        let micro = self.engine.micro_block;
        let same_depth = matches!(work.kind, Kindred::Depthwise | Kindred::Pool);
        let depth_limit = if work.part_kernel { 16 } else { 32 };
        let input_depth = work.input[2].min(depth_limit).next_multiple_of(8);
        let limit = least(work.output, self.engine.largest_block);
        let limit: [u64; 3] = std::array::from_fn(|i| limit[i].next_multiple_of(micro[i]));
        let parts = work.kernel[0].div_ceil(PART) * work.kernel[1].div_ceil(PART);
        let outputs = volume(work.output) as f64;
        let step = |depth: u64| {
            if depth < work.output[2] { depth.next_multiple_of(SPLIT) } else { depth }
        };
        let mut best: Option<(f64, f64, Blocks)> = None;
        let mut depth = step(micro[2].max(limit[2].min(SPLIT)));
        while depth <= limit[2] {
            for height in (micro[0]..=limit[0]).step_by(micro[0] as usize) {
                for width in (micro[1]..=limit[1]).step_by(micro[1] as usize) {
                    let along = |size: u64, i: usize| {
                        ((size - 1) * work.stride + work.kernel[i].min(PART))
                            .next_multiple_of(micro[i])
                    };
                    let (h, w) = (along(height, 0), along(width, 1));
                    let input = [h, w, if same_depth { depth } else { input_depth }];
                    let blocks = Blocks { output: [height, width, depth], input };
                    if !self.fits(&blocks) {
                        continue;
                    }
                    let count = |i: usize| work.output[i] as f64 / blocks.output[i] as f64;
                    let full = |i: usize| count(i).ceil();
                    let taps = match work.kind {
                        Kindred::Convolution | Kindred::Depthwise => {
                            volume([work.kernel[0], work.kernel[1], work.input[2]]) as f64
                        }
                        Kindred::Vector | Kindred::Pool => 0.0,
                    };
                    let mut weights = taps * full(0) * full(1);
                    if work.kind != Kindred::Depthwise {
                        weights *= depth as f64 * count(2);
                    }
                    let mut inputs = (h * w * work.input[2] * parts) as f64 * count(0) * count(1);
                    if !same_depth {
                        inputs *= full(2);
                    }
                    let mut moved = (inputs + weights) / outputs;
                    if volume(work.input) < 2 * volume(input) {
                        moved /= 2.0;
                    }
                    let seen = h.min(work.input[0]) * w.min(work.input[1]);
                    let coverage = (work.input[0] * work.input[1]) as f64 / seen as f64;
                    let better = match best {
                        None => true,
                        Some((least, covered, _)) if moved == least => {
                            coverage <= covered && height <= 4 && width <= 4
                        }
                        Some((least, _, _)) => moved < least,
                    };
                    if better {
                        let tie = best.is_some_and(|(least, _, _)| moved == least);
                        let covered = if tie { coverage } else { f64::INFINITY };
                        best = Some((moved, covered, blocks));
                    }
                }
            }
            depth = step(depth + micro[2]);
        }
        best.map(|(_, _, blocks)| blocks)
    }

    /// Cycles to multiply one block and to store it, neither faster than its commands.
    fn block(&self, work: &Work, input: [u64; 3], output: [u64; 3]) -> [f64; 2] {
        let micro = self.engine.micro_block;
        let across = output[0].div_ceil(micro[0]) * output[1].div_ceil(micro[1]);
        let deep = output[2].div_ceil(micro[2]);
        let split = |size: u64| (0..size.div_ceil(PART)).map(move |i| (size - i * PART).min(PART));
        // Fetching the weights of a step takes as long as this.
        let weights = 4 * micro[2];
        let mut multiply = 0;
        for kh in split(work.kernel[0]) {
            for kw in split(work.kernel[1]) {
                let taps = kh * kw;
                // Steps over the window, and how often they are made for all input channels.
                let (steps, repeat) = match work.kind {
                    Kindred::Pool => (1, 1),
                    Kindred::Depthwise => (taps.div_ceil(4), 1),
                    Kindred::Convolution if work.part_kernel => {
                        (taps.div_ceil(4), work.input[2].div_ceil(8))
                    }
                    Kindred::Convolution | Kindred::Vector => (taps, work.input[2].div_ceil(32)),
                };
                multiply += match work.kind {
                    Kindred::Pool => (taps * self.engine.pool_cycles).max(4) * across * deep,
                    _ => weights.max(4 * across) * steps * repeat * deep,
                };
                let waits = match (across, deep) {
                    (1, 1) => steps,
                    (1, _) => (steps - 1) * deep,
                    _ => 0,
                };
                multiply += self.engine.delay_cycles * waits * repeat;
            }
        }
        let memory = &self.memory;
        let mut store = (work.output_cycles * volume(output) as f64).ceil();
        if work.kind != Kindred::Pool {
            // Scales and biases of a block's channels come from flash.
            let channels = (memory.channel_bytes * output[2]) as f64;
            store = store.max(channels * memory.flash_latency_cycles / 256.0);
        }
        // Four commands are in flight.
        let multiply = multiply as f64;
        let command = (self.transfer(input) + self.transfer(output) + store + multiply) / 4.0;
        [multiply.max(command), store.max(command)]
    }

    /// Cycles to move a block between SRAM and the engine.
    fn transfer(&self, block: [u64; 3]) -> f64 {
        self.memory.sram_latency_cycles + volume(block) as f64 / self.memory.sram_bytes_per_cycle
    }

    /// Cycles of the engine: the first input, every block at the pace of the slower half, those at
    /// the edge at their own size, and the faster half of the last.
    fn cycles(&self, work: &Work) -> Option<f64> {
        let blocks = self.blocks(work)?;
        let whole = least(blocks.output, work.output);
        let input = least(blocks.input, work.input);
        // Sizes along an axis with their numbers: whole blocks, then the rest.
        let along = |i: usize| {
            let (count, rest) = (work.output[i] / whole[i], work.output[i] % whole[i]);
            [(whole[i], count), (rest, u64::from(rest > 0))]
        };
        let [multiply, store] = self.block(work, input, whole);
        let mut total = self.transfer(input) + multiply.min(store);
        for (h, rows) in along(0) {
            for (w, columns) in along(1) {
                for (d, depths) in along(2) {
                    let count = rows * columns * depths;
                    if count > 0 {
                        let [multiply, store] = self.block(work, input, [h, w, d]);
                        total += multiply.max(store) * count as f64;
                    }
                }
            }
        }
        Some(total)
    }
}

impl CostModel for EthosU55 {
    fn layer(&self, layer: &LayerShape) -> Result<Cost, ModelError> {
        self.workload(&layer.into())
    }

    fn workload(&self, work: &Workload) -> Result<Cost, ModelError> {
        let memory = &self.memory;
        let fail = |reason| ModelError::unsupported(&self.name, work, reason);
        if work.widths.weight.max(work.widths.input).max(work.widths.output) > 8 {
            return Err(fail("its operands are of at most 8 bits here"));
        }
        let [h, w, c] = work.output();
        let engine = match self.work(work) {
            Some(work) => {
                self.cycles(&work).ok_or_else(|| fail("no block of it fits the shared buffer"))?
            }
            None => self.engine.add_cycles * (h * w * c.next_multiple_of(16)) as f64,
        };
        // Weights of fewer than 8 bits compress to their width. Activations are bytes.
        let (mut weights, mut flash, mut latency) = (0, 0.0, 0.0);
        if work.op().has_weights() {
            let packed = (work.weights() * u64::from(work.widths.weight)) as f64 / 8.0;
            weights = (packed * memory.compression).ceil() as u64 + c * memory.channel_bytes;
            flash = weights as f64 / memory.flash_bytes_per_cycle;
            // The first weights are waited for.
            latency = memory.flash_latency_cycles;
        }
        let inputs = volume(work.input()) * if work.op() == Op::Add { 2 } else { 1 };
        let sram = inputs + volume(work.output());
        let sram_cycles = sram as f64 / memory.sram_bytes_per_cycle;
        let cycles = (latency + engine.max(flash).max(sram_cycles)).round();
        Ok(Cost {
            instructions: None,
            cycles: Some(Interval::exact(cycles)),
            latency_s: Some(cycles / self.clock_hz),
            energy_pj: None,
            weights_bytes: weights,
            bytes: [("flash".to_owned(), weights), ("sram".to_owned(), sram)].into(),
            ..Cost::zero()
        })
    }

    /// The sum of the layers; a softmax of the logits, which Vela counts as some 1,000 to 2,300
    /// cycles in 20 operators, is left to the caller.
    fn network(&self, network: &Network) -> Result<NetworkCost, ModelError> {
        sum_of_layers(self, &Workload::of(network, None), "ethos-u55")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Objective, Target};
    use jaq_network::reference;

    /// Rows of Vela's layers of one accelerator and model, by operator and cycles, in order,
    /// without the softmax that the reference networks leave out.
    fn vela(accelerator: &str, model: &str) -> Vec<(String, f64)> {
        include_str!("../data/vela_layers.csv")
            .lines()
            .map(|line| line.split(',').collect::<Vec<_>>())
            .filter(|row| row[0] == accelerator && row[1] == model)
            .map(|row| (row[3].to_owned(), row[4].parse().unwrap()))
            .collect()
    }

    #[test]
    fn velas_cycles_are_met() {
        let mut report = Vec::new();
        let mut wrong = false;
        for size in [32, 64, 128, 256] {
            let name = format!("ethos-u55-{size}");
            let target = Target::load(&name, Objective::Latency).unwrap_or_else(|e| panic!("{e}"));
            for (model, reference) in [("resnet8_int8", "resnet8"), ("kws_int8", "dscnn")] {
                let network = reference::network(reference).unwrap();
                let found = target.network(&network).unwrap();
                let rows = vela(&name, model);
                let total: f64 = rows.iter().map(|r| r.1).sum();
                let mut errors = Vec::new();
                for (layer, row) in found.layers.iter().zip(&rows) {
                    let cycles = layer.cost.cycles.unwrap().typical;
                    if row.1 >= 0.01 * total {
                        errors.push((cycles / row.1 - 1.0).abs());
                    }
                    report.push(format!("{name} {} {} {cycles} {}", layer.name, row.0, row.1));
                }
                errors.sort_by(f64::total_cmp);
                let median = errors[errors.len() / 2];
                let sum = found.total.cycles.unwrap().typical;
                report.push(format!("{name} {model}: {:.4} median {median:.4}", sum / total - 1.0));
                wrong |= (sum / total - 1.0).abs() > 0.05 || median > 0.10;
            }
        }
        assert!(!wrong, "{}", report.join("\n"));
    }
}
