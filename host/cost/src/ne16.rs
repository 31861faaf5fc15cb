//! NE16, the convolution engine of GAP9, with the cluster around it: cycles by named terms.
//!
//! The engine computes 3x3 outputs of 32 channels (16 in depthwise layers) at a time, from 16 input
//! channels a round, one bit of the weights a cycle. What it does not know (other windows,
//! additions, pools) runs on the cluster's cores. Tensors lie in L2 and are brought to L1; a layer
//! that fits L1 as a whole has nothing to overlap with its transfers, one that does not is cut into
//! tiles, whose transfers hide behind the engine except for the first and the last. Must not know:
//! networks.

use std::collections::BTreeMap;

use jaq_network::Network;
use jaq_shared::format::{LayerShape, Op};
use serde::{Deserialize, Serialize};

use crate::board::{self, BoardError, Kind};
use crate::cost::{Cost, CostModel, Interval, ModelError, NetworkCost};
use crate::target::sum_of_layers;
use crate::workload::Workload;

/// The description; every field has its source in the board file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Ne16 {
    pub name: String,
    pub description: String,
    pub kind: Kind,
    pub model: String,
    pub clock_hz: f64,
    engine: Engine,
    cluster: Cluster,
    energy: PerCycle,
    pub sources: BTreeMap<String, String>,
}

/// The engine; cycles unless said otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Engine {
    weight_bits: [u8; 2],
    /// Rows and columns of outputs at a time.
    tile: u64,
    output_channels: u64,
    input_channels: u64,
    fifo: u64,
    point_load: u64,
    update: u64,
    scale: u64,
    multipliers: u64,
    scale_bytes: u64,
    bias: u64,
    adders: u64,
    store: u64,
}

/// Cores and memories around it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cluster {
    macs_per_cycle: f64,
    l1_bytes: u64,
    dma_bytes_per_cycle: f64,
    transfer_cycles: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PerCycle {
    pj_per_cycle: f64,
}

/// How the engine runs a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Window,
    Point,
    Depthwise,
}

/// Names of the terms, in the order of time.
const TERMS: [&str; 9] = [
    "load inputs",
    "weight offset",
    "products",
    "update",
    "normalize",
    "store outputs",
    "cluster cores",
    "transfers",
    "transfer set-up",
];

impl Ne16 {
    /// Parses and validates the text of a board file; `file` is named in errors.
    pub fn parse(file: &str, text: &str) -> Result<Ne16, BoardError> {
        let found: Ne16 = board::parse(file, text)?;
        board::check_name(file, &found.name)?;
        let fail = |field: &str, reason: &str| Err(BoardError::field(file, field, reason));
        let (engine, cluster) = (&found.engine, &found.cluster);
        let sizes = [
            engine.tile,
            engine.output_channels,
            engine.input_channels,
            engine.multipliers,
            engine.adders,
            cluster.l1_bytes,
        ];
        if sizes.contains(&0) || engine.input_channels < 2 {
            return fail("engine", "must have at least one of everything, two input channels");
        }
        let rates = [
            found.clock_hz,
            cluster.macs_per_cycle,
            cluster.dma_bytes_per_cycle,
            found.energy.pj_per_cycle,
        ];
        if rates.iter().any(|v| !(v.is_finite() && *v > 0.0)) || cluster.transfer_cycles < 0.0 {
            return fail("clock_hz, cluster, energy", "must be positive");
        }
        board::check_sources(
            file,
            &found.sources,
            &[
                "engine",
                "cluster.macs_per_cycle",
                "cluster.l1_bytes",
                "cluster.dma_bytes_per_cycle",
                "cluster.transfer_cycles",
                "energy.pj_per_cycle",
            ],
        )?;
        Ok(found)
    }

    /// The engine's mode, or `None` for what runs on the cores.
    fn mode(work: &Workload) -> Option<Mode> {
        let window = work.op().window();
        match (work.op(), window.kh, window.kw, window.stride) {
            (Op::Conv(_), 3, 3, 1 | 2) => Some(Mode::Window),
            (Op::Conv(_), 1, 1, 1 | 2) | (Op::Linear, ..) => Some(Mode::Point),
            (Op::Depthwise(_), 3, 3, 1 | 2) => Some(Mode::Depthwise),
            _ => None,
        }
    }

    /// The engine's six terms.
    fn engine(&self, mode: Mode, work: &Workload) -> [u64; 6] {
        let e = &self.engine;
        let [h, w, channels] = work.output();
        // Inputs of more than 8 bits go as two halves.
        let halves = u64::from(work.widths.input).div_ceil(8);
        let rounds = match mode {
            Mode::Depthwise => halves,
            _ => (work.input()[2] * halves).div_ceil(e.input_channels),
        };
        let bits = u64::from(work.widths.weight);
        let at_once = match mode {
            Mode::Depthwise => e.input_channels,
            _ => e.output_channels,
        };
        let pixels = e.tile * e.tile;
        let once = |k: u64| {
            let load = match mode {
                Mode::Point => e.point_load + pixels,
                _ => e.fifo + (e.tile + 2) * (e.tile + 2),
            };
            let offset = e.fifo + if mode == Mode::Depthwise { k } else { 0 };
            let products = e.fifo + if mode == Mode::Point { k } else { k * bits };
            let normalize = e.scale
                + (k * e.scale_bytes).div_ceil(e.multipliers)
                + e.bias
                + k.div_ceil(e.adders);
            let rounds = [load, offset, products, e.update].map(|cycles| cycles * rounds);
            let [load, offset, products, update] = rounds;
            [load, offset, products, update, normalize, e.store + pixels]
        };
        let tiles = h.div_ceil(e.tile) * w.div_ceil(e.tile);
        let (whole, rest) = (channels / at_once, channels % at_once);
        let (full, last) = (once(at_once), once(rest));
        std::array::from_fn(|i| tiles * (whole * full[i] + if rest > 0 { last[i] } else { 0 }))
    }

    /// Every term of a layer, in the order of [`TERMS`].
    fn terms(&self, work: &Workload) -> [f64; 9] {
        let cluster = &self.cluster;
        let mut terms = [0.0; 9];
        match Ne16::mode(work) {
            Some(mode) => {
                for (term, cycles) in terms.iter_mut().zip(self.engine(mode, work)) {
                    *term = cycles as f64;
                }
            }
            None => {
                let outputs = work.output().iter().product::<u64>();
                let products = match work.op() {
                    // Both inputs are scaled.
                    Op::Add => 2 * outputs,
                    Op::AvgPool(window) | Op::MaxPool(window) => outputs * window.taps() as u64,
                    _ => work.macs(),
                };
                terms[6] = products as f64 / cluster.macs_per_cycle;
            }
        }
        // Activations are bytes, or pairs of bytes.
        let bytes = self.bytes(work);
        let total: u64 = bytes.iter().sum();
        let compute: f64 = terms.iter().sum();
        let moved = total as f64 / cluster.dma_bytes_per_cycle;
        // Double-buffered halves of L1, where the layer does not fit it.
        let tiles = match total > cluster.l1_bytes {
            true => total.div_ceil(cluster.l1_bytes / 2) as f64,
            false => 1.0,
        };
        terms[7] = moved / tiles + (moved - moved / tiles - compute).max(0.0);
        let transfers = bytes.iter().filter(|bytes| **bytes > 0).count() as f64;
        terms[8] = transfers * tiles * cluster.transfer_cycles;
        terms
    }

    /// Bytes of weights, inputs and outputs between L2 and L1.
    fn bytes(&self, work: &Workload) -> [u64; 3] {
        let of = |shape: [u64; 3], width: u8| {
            shape.iter().product::<u64>() * u64::from(width).div_ceil(8)
        };
        let second = if work.op() == Op::Add { of(work.input(), work.widths.weight) } else { 0 };
        let weights = if work.op().has_weights() { work.weight_bytes() } else { 0 };
        let inputs = of(work.input(), work.widths.input) + second;
        [weights, inputs, of(work.output(), work.widths.output)]
    }
}

impl CostModel for Ne16 {
    fn layer(&self, layer: &LayerShape) -> Result<Cost, ModelError> {
        self.workload(&layer.into())
    }

    fn workload(&self, work: &Workload) -> Result<Cost, ModelError> {
        let [low, high] = self.engine.weight_bits;
        if work.op().has_weights() && !(low..=high).contains(&work.widths.weight) {
            let reason = format!("its weights are of {low} to {high} bits");
            return Err(ModelError::unsupported(&self.name, work, &reason));
        }
        let terms = self.terms(work);
        let cycles = terms.iter().sum::<f64>().round();
        let [weights, inputs, outputs] = self.bytes(work);
        let named = TERMS.iter().zip(terms).filter(|(_, cycles)| *cycles > 0.0);
        Ok(Cost {
            instructions: None,
            cycles: Some(Interval::exact(cycles)),
            latency_s: Some(cycles / self.clock_hz),
            energy_pj: Some(cycles * self.energy.pj_per_cycle),
            weights_bytes: weights,
            bytes: [("l2".to_owned(), weights + inputs + outputs)].into(),
            terms: named.map(|(name, cycles)| ((*name).to_owned(), cycles)).collect(),
            ..Cost::zero()
        })
    }

    fn network(&self, network: &Network) -> Result<NetworkCost, ModelError> {
        sum_of_layers(self, &Workload::of(network, None), "ne16")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Objective, Target, Widths};
    use jaq_network::reference;

    fn priced(network: &str, widths: &str) -> NetworkCost {
        let target = Target::load("gap9-ne16", Objective::Latency).unwrap();
        let network = reference::network(network).unwrap();
        let widths: Widths = widths.parse().unwrap();
        target.price(&network, Some(widths)).unwrap().1
    }

    #[test]
    fn the_engine_is_that_of_the_published_model() {
        // Cycles of the engine alone by the model that DORY tiles with: ResNet-8's convolutions at
        // 7 bits, and the separable blocks of DS-CNN at 5 bits.
        let engine =
            |cost: &Cost| TERMS[..6].iter().filter_map(|t| cost.terms.get(*t)).sum::<f64>();
        let resnet = priced("resnet8", "W7A8");
        let convolutions = resnet.layers.iter().filter(|l| !l.spec.starts_with("fc"));
        assert_eq!(convolutions.map(|l| engine(&l.cost)).sum::<f64>(), 147_891.0);
        let dscnn = priced("dscnn", "W5A8");
        let blocks = dscnn.layers.iter().filter(|l| l.spec.contains("25x5x64") && l.name != "conv");
        assert_eq!(blocks.map(|l| engine(&l.cost)).sum::<f64>(), 101_376.0);
    }

    #[test]
    fn silicon_is_met_within_a_fifth() {
        // MLPerf Tiny v1.0, GAP9 at 370 MHz: 1622.8 and 2103.2 inferences a second.
        for (network, widths, silicon) in
            [("resnet8", "W7A8", 228_001.0), ("dscnn", "W5A8", 175_922.0)]
        {
            let total = priced(network, widths).total;
            let cycles = total.cycles.unwrap().typical;
            assert!((cycles / silicon - 1.0).abs() < 0.20, "{network}: {cycles} {silicon}");
            let sum: f64 = total.terms.values().sum();
            assert!((sum / cycles - 1.0).abs() < 1e-3, "{network}: {sum} {cycles}");
        }
    }

    #[test]
    fn point_convolutions_do_not_gain_from_narrow_weights() {
        let target = Target::load("gap9-ne16", Objective::Latency).unwrap();
        let engine = |spec: &str, widths: &str| {
            let spec: jaq_network::LayerSpec = spec.parse().unwrap();
            let work = Workload::block(&spec, widths.parse().unwrap())[0];
            target.workload(&work).map(|cost| cost.terms["products"])
        };
        let (point, window) = ("pw:16x16x64-64", "conv3x3:16x16x64-64");
        assert_eq!(engine(point, "W2A8").unwrap(), engine(point, "W8A8").unwrap());
        assert!(engine(window, "W2A8").unwrap() < engine(window, "W8A8").unwrap() / 2.0);
        assert!(engine(point, "W9A8").unwrap_err().to_string().contains("2 to 8 bits"));
    }
}
