//! `cargo xtask bench networks`: the reference networks with random values, linked into a firmware
//! of their own, each output held to the wide-integer oracle.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;
use jaq_cost::{Cost, CostModel, Mcu, McuModel, Unit, planner};
use jaq_deploy::export::{self, Origin};
use jaq_deploy::validate::{Ask, Device, Inference};
use jaq_deploy::{firmware, oracle};
use jaq_network::{Network, SplitMix64, TrainedLayer, TrainedNetwork, reference};
use jaq_shared::format::{Bits, LayerBits, Model};
use jaq_shared::runtime;
use serde::Serialize;

use super::{Core, conclude, connect};

/// Networks, the instructions CMSIS-NN's int8 kernels take for them on a Cortex-M7 (counted on
/// QEMU), and the limits that follow for W8A8, W4A4 and W2A2 as shares of it.
const PEERS: [(&str, u64, [f64; 3]); 4] = [
    ("resnet8", 29_940_000, [0.45, 0.33, 0.25]),
    ("mobilenetv1-0.25-96", 24_470_000, [0.45, 0.33, 0.25]),
    ("dscnn", 7_750_000, [0.45, 0.33, 0.25]),
    ("fcae", 580_000, [0.66, 0.65, 0.36]),
];

/// Cycles per MAC that ResNet-8 may take on CV32E40P, plain RV32IMC.
const CYCLES_PER_MAC: [(&str, f64); 3] = [("W8A8", 4.0), ("W4A4", 2.4), ("W2A2", 1.5)];

/// Count the instructions (on a simulated core the cycles), flash and RAM of the reference networks.
///
/// Input and logits have 8 bits. `mixed` gives every layer widths of its own, so that all occur.
#[derive(Debug, Args)]
pub struct Networks {
    /// Core; may be given several times.
    #[arg(long, value_enum, default_value = "m7")]
    core: Vec<Core>,
    /// Network; may be given several times. All if none.
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(reference::NAMES))]
    network: Vec<String>,
    /// Widths, for example W2A4, or `mixed`; may be given several times.
    #[arg(long, value_name = "WxAy", default_values = ["W8A8", "W4A4", "W2A2", "mixed"])]
    bits: Vec<Widths>,
    /// Wait states of the memory of a simulated core.
    #[arg(long, default_value_t = 0)]
    wait_states: u8,
    /// Seed of weights and inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Widths of a whole network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Widths {
    Uniform(LayerBits),
    Mixed,
}

impl std::str::FromStr for Widths {
    type Err = <LayerBits as std::str::FromStr>::Err;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "mixed" => Ok(Widths::Mixed),
            _ => text.parse().map(Widths::Uniform),
        }
    }
}

impl fmt::Display for Widths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Widths::Uniform(bits) => bits.fmt(f),
            Widths::Mixed => f.write_str("mixed"),
        }
    }
}

impl Widths {
    /// Weights and activations of the layer at `index`.
    fn of_layer(self, index: usize) -> (Bits, Bits) {
        match self {
            Widths::Uniform(bits) => (bits.weight, bits.input),
            Widths::Mixed => {
                let pick = |i: usize| [Bits::B8, Bits::B4, Bits::B2, Bits::B3][i % 4];
                (pick(index), pick(index / 4 + index))
            }
        }
    }

    /// `network` at these widths.
    fn apply(self, mut network: Network) -> Network {
        let last = network.layers.len().saturating_sub(1);
        for (index, layer) in network.layers.iter_mut().enumerate() {
            let (weight, activation) = self.of_layer(index);
            layer.weight_bits = layer.weight_bits.map(|_| weight);
            layer.output.bits = if index == last { Bits::B8 } else { activation };
        }
        network
    }
}

/// One measured network; sizes in bytes.
#[derive(Debug, Serialize)]
struct Run {
    core: String,
    network: String,
    bits: String,
    /// What `count` counts.
    unit: Unit,
    count: u64,
    macs: u64,
    /// CMSIS-NN int8 on a Cortex-M7.
    #[serde(skip_serializing_if = "Option::is_none")]
    cmsis_nn_int8: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cycles_per_mac_limit: Option<f64>,
    /// Where the board's table is in what was counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    prediction: Option<Errors>,
    /// All that inference alone links beside the model: machine code, constants, start-up.
    code_bytes: usize,
    kernels_bytes: usize,
    /// All that the firmware of the bench links.
    firmware_bytes: usize,
    /// Packed weights, tables and descriptors.
    weights_bytes: usize,
    packed_weights_bytes: usize,
    tables_bytes: usize,
    arena_bytes: usize,
    arena_lower_bound: usize,
    stack_bytes: usize,
    variables_bytes: usize,
    exact: bool,
}

/// A prediction's relative errors, signed.
#[derive(Debug, Serialize)]
struct Errors {
    predicted: f64,
    total: f64,
    /// The worst of the layers that take more than a twentieth of the whole.
    worst_layer: f64,
    worst_layer_name: String,
}

impl Errors {
    /// Of what the board's table says of a network in a memory of `wait_states`; `None` where there is
    /// no table in the unit of `found`.
    fn of(
        core: Core,
        network: &Network,
        found: &Inference,
        unit: Unit,
        wait_states: u8,
    ) -> Result<Option<Errors>> {
        let mut board = Mcu::load(core.board())?;
        // A table in cycles is this core's own.
        board.core.cost_table.clone_from(&board.name);
        if let Some(timing) = &mut board.timing {
            timing.flash_wait_states = wait_states.into();
        }
        let Ok(model) = McuModel::new(board) else { return Ok(None) };
        if model.table().unit != unit || unit != Unit::Cycles {
            return Ok(None);
        }
        let cost = model.network(network)?;
        let cycles = |cost: &Cost| cost.cycles.map_or(0.0, |cycles| cycles.typical);
        let error = |predicted: f64, found: u64| predicted / found.max(1) as f64 - 1.0;
        let predicted = cycles(&cost.total);
        let total = error(predicted, found.total);
        // The first of the prediction is the encoding of the input.
        let layers = cost.layers.iter().skip(1).zip(&found.layers);
        let large = layers.filter(|(_, count)| **count * 20 > found.total);
        let (worst_layer, worst_layer_name) = large
            .map(|(layer, count)| (error(cycles(&layer.cost), *count), layer.name.clone()))
            .max_by(|a, b| a.0.abs().total_cmp(&b.0.abs()))
            .unwrap_or_default();
        Ok(Some(Errors { predicted, total, worst_layer, worst_layer_name }))
    }
}

impl Networks {
    /// Measures and prints.
    pub fn run(self) -> Result<()> {
        let mut runs = Vec::new();
        if !self.json {
            println!(
                "{:<9}{:<21}{:<7}{:>13}{:>8}{:>8}{:>6} |{:>7}{:>9}{:>8} |{:>8}{:>8}{:>7}",
                "core",
                "network",
                "bits",
                "count",
                "per MAC",
                "CMSIS",
                "limit",
                "code",
                "weights",
                "tables",
                "arena",
                "bound",
                "stack"
            );
        }
        let folder = firmware::folder()?.join("target");
        for &core in &self.core {
            for (name, peer, limits) in PEERS {
                if !self.network.is_empty() && !self.network.iter().any(|wanted| wanted == name) {
                    continue;
                }
                for &widths in &self.bits {
                    let place = format!("{name} {widths} on {}", core.name());
                    let run = self.measure(core, name, widths, &folder);
                    let mut run = run.with_context(|| place)?;
                    if core == Core::M7 {
                        run.cmsis_nn_int8 = Some(peer);
                        run.ratio = Some(run.count as f64 / peer as f64);
                        let uniform = ["W8A8", "W4A4", "W2A2"];
                        let found = uniform.iter().zip(limits).find(|(bits, _)| **bits == run.bits);
                        run.limit = found.map(|(_, limit)| limit);
                    }
                    if core == Core::Cv32e40pXpulp && name == "resnet8" && self.wait_states == 0 {
                        run.cycles_per_mac_limit = (run.bits == "W8A8").then_some(0.9);
                    }
                    if core == Core::Cv32e40p && name == "resnet8" && self.wait_states == 0 {
                        let limit = CYCLES_PER_MAC.iter().find(|(bits, _)| *bits == run.bits);
                        run.cycles_per_mac_limit = limit.map(|(_, limit)| *limit);
                    }
                    if !self.json {
                        println!("{run}");
                    }
                    runs.push(run);
                }
            }
        }
        conclude(&runs, self.json, |run| run.exact)
    }

    fn measure(&self, core: Core, name: &str, widths: Widths, folder: &Path) -> Result<Run> {
        let network = widths.apply(reference::network(name).context("no such network")?);
        let trained = random_values(network, self.seed);
        let integers = export::integers(&trained)?;
        let kernels = export::choose_kernels(&trained, &integers, core.isa()?)?;
        let plan = planner::plan(&trained.network, &kernels);
        let origin = Origin { tool: "bench".into(), ..Origin::default() };
        let packed = export::pack(&trained, &integers, &plan.schedule, &origin)?;

        let model = folder.join(format!("bench-{}.jaq", core.name()));
        std::fs::create_dir_all(folder)?;
        std::fs::write(&model, &packed.bytes)?;
        eprintln!("building the firmware of {} with {name} {widths}", core.board());
        let elf = folder.join(format!("bench-{}.elf", core.name()));
        let firmware = firmware::build(core.board(), Some(&model), &elf)?;
        let mut session = connect(&firmware, self.wait_states)?;
        session.open(&packed.bytes)?;
        let mut random = SplitMix64(self.seed);
        let elements = trained.network.input.shape.elements();
        let raw: Vec<u8> = (0..elements).map(|_| random.below(256) as u8).collect();
        let found = session.infer(&raw, Ask::Layers)?;
        let (stats, unit) = (session.stats()?, session.unit());
        session.bye()?;

        let tensors = oracle::infer(&trained, &integers, &raw);
        let expected = tensors.last().context("the oracle made no tensor")?;
        let aligned = export::aligned(&packed.bytes);
        let bytes = bytemuck::cast_slice::<u64, u8>(&aligned);
        let loaded = Model::load(bytes.get(..packed.bytes.len()).unwrap_or_default())?;
        let output = runtime::codes(loaded.output().format, &found.output);
        let exact = output.map(i64::from).eq(expected.iter().copied());
        let (mut weights, mut tables) = (0, 0);
        for layer in loaded.layers() {
            weights += layer.weights.len as usize;
            tables += (layer.multipliers.len + layer.biases.len) as usize;
        }
        let network = &trained.network;
        let prediction = Errors::of(core, network, &found, unit, self.wait_states)?;
        let parts = firmware.parts;
        let product = firmware::product(firmware.target, Some(&model))?;
        Ok(Run {
            core: core.name(),
            network: name.to_owned(),
            bits: widths.to_string(),
            unit,
            count: found.total,
            macs: trained.network.macs(),
            cmsis_nn_int8: None,
            ratio: None,
            limit: None,
            cycles_per_mac_limit: None,
            prediction,
            code_bytes: product.code_bytes(),
            kernels_bytes: product.kernels,
            firmware_bytes: parts.code_bytes(),
            weights_bytes: packed.weights_bytes,
            packed_weights_bytes: weights,
            tables_bytes: tables,
            arena_bytes: stats.arena_bytes as usize,
            arena_lower_bound: plan.lower_bound as usize,
            stack_bytes: stats.stack_bytes as usize,
            variables_bytes: parts.variables,
            exact,
        })
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_mac = self.count as f64 / self.macs.max(1) as f64;
        write!(f, "{:<9}{:<21}{:<7}", self.core, self.network, self.bits)?;
        write!(f, "{:>13}{per_mac:>8.3}", self.count)?;
        let share = |share: Option<f64>| share.map_or(String::new(), |s| format!("{s:.3}"));
        let limit = self.limit.or(self.cycles_per_mac_limit);
        let limit = limit.map_or(String::new(), |limit| format!("{limit:.2}"));
        write!(f, "{:>8}{limit:>6} |{:>7}", share(self.ratio), self.code_bytes)?;
        write!(f, "{:>9}{:>8} |", self.packed_weights_bytes, self.tables_bytes)?;
        write!(f, "{:>8}{:>8}{:>7}", self.arena_bytes, self.arena_lower_bound, self.stack_bytes)?;
        if let Some(Errors { total, worst_layer, worst_layer_name, .. }) = &self.prediction {
            let [total, layer] = [total, worst_layer].map(|error| error * 100.0);
            write!(f, "  predicted {total:+.1} %, {worst_layer_name} {layer:+.1} %")?;
        }
        let over = self.ratio.zip(self.limit).is_some_and(|(ratio, limit)| ratio > limit)
            || self.cycles_per_mac_limit.is_some_and(|limit| per_mac > limit);
        f.write_str(match (self.exact, over) {
            (false, _) => "  WRONG",
            (true, true) => "  exact, over",
            (true, false) => "  exact",
        })
    }
}

/// Random weights, and scales that spread every layer's outputs over its codes.
fn random_values(network: Network, seed: u64) -> TrainedNetwork {
    let mut random = SplitMix64(seed);
    let tensors = std::iter::once(&network.input).chain(network.layers.iter().map(|l| &l.output));
    // Every tensor's codes stand for 0 to 1.
    let scales = tensors.map(|t| 1.0 / t.bits.max_unsigned() as f32).collect();
    let layers = (0..network.layers.len())
        .map(|index| {
            let (shape, bits) = (network.shape(index), network.layers[index].weight_bits?);
            let half = u64::from(bits.half());
            let channels = usize::from(shape.output.c);
            // Weights of deviation 1/sqrt(3) times codes around 1/2 give sums within 1.
            let scale = 1.0 / (half as f32 * (shape.reduction() as f32).sqrt());
            let mut weight = || random.below(2 * half) as i64 - half as i64;
            let weights: Vec<i8> = (0..shape.weights()).map(|_| weight() as i8).collect();
            Some(TrainedLayer {
                weights,
                scale: vec![scale; channels],
                offset: vec![0.5; channels],
            })
        })
        .collect();
    TrainedNetwork { network, scales, layers }
}
