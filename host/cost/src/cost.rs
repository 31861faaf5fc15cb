//! What a prediction is: the figures of a layer and of a network, and the trait of the models
//! that make them.

use std::collections::BTreeMap;

use jaq_network::{Network, Provenance};
use jaq_shared::format::LayerShape;
use jaq_shared::kernels::KernelId;
use serde::Serialize;

use crate::TableError;
use crate::tile::Mapping;
use crate::workload::{NO_KERNEL, Widths, Workload};

/// A figure with the range it is expected in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Interval {
    pub low: f64,
    pub typical: f64,
    pub high: f64,
}

impl Interval {
    /// An exact figure.
    pub fn exact(value: f64) -> Interval {
        Interval { low: value, typical: value, high: value }
    }

    /// The interval times a factor.
    pub fn scale(self, by: f64) -> Interval {
        Interval { low: self.low * by, typical: self.typical * by, high: self.high * by }
    }

    fn plus(self, other: Interval) -> Interval {
        Interval {
            low: self.low + other.low,
            typical: self.typical + other.typical,
            high: self.high + other.high,
        }
    }
}

/// Predicted cost of a layer or of a network. What a target does not have is `None`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Executed instructions (processors).
    pub instructions: Option<f64>,
    /// Clock cycles; `None` on emulated machines.
    pub cycles: Option<Interval>,
    /// Seconds, from typical cycles and the clock.
    pub latency_s: Option<f64>,
    /// Picojoules.
    pub energy_pj: Option<f64>,
    /// Flash of packed weights and per-channel tables.
    pub weights_bytes: u64,
    /// Bytes moved, by memory level (accelerators).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub bytes: BTreeMap<String, u64>,
    /// Cycles by cause, where the model has named terms; they add up to the typical cycles.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub terms: BTreeMap<String, f64>,
    /// Area of the target in square millimetres, where its description allows to tell.
    pub area_mm2: Option<f64>,
    /// The tiling (accelerators whose tilings are searched).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapping: Option<Mapping>,
    /// Tilings whose cost was computed to find it.
    pub mappings_evaluated: u64,
    /// Always [`Provenance::Predicted`].
    pub provenance: Provenance,
}

impl Cost {
    /// Nothing: what a sum starts from.
    pub fn zero() -> Cost {
        Cost {
            instructions: Some(0.0),
            cycles: Some(Interval::exact(0.0)),
            latency_s: Some(0.0),
            energy_pj: Some(0.0),
            weights_bytes: 0,
            bytes: BTreeMap::new(),
            terms: BTreeMap::new(),
            area_mm2: None,
            mapping: None,
            mappings_evaluated: 0,
            provenance: Provenance::Predicted,
        }
    }

    /// The sum; a figure that one of the two does not have, the sum does not have.
    pub fn plus(&self, other: &Cost) -> Cost {
        let sum = |a: Option<f64>, b: Option<f64>| Some(a? + b?);
        let cycles = |a: Option<Interval>, b: Option<Interval>| Some(a?.plus(b?));
        let terms = other.terms.iter().fold(self.terms.clone(), |mut sum, (term, cycles)| {
            *sum.entry(term.clone()).or_default() += cycles;
            sum
        });
        Cost {
            instructions: sum(self.instructions, other.instructions),
            cycles: cycles(self.cycles, other.cycles),
            latency_s: sum(self.latency_s, other.latency_s),
            energy_pj: sum(self.energy_pj, other.energy_pj),
            weights_bytes: self.weights_bytes + other.weights_bytes,
            bytes: other.bytes.iter().fold(self.bytes.clone(), |mut sum, (level, bytes)| {
                *sum.entry(level.clone()).or_default() += bytes;
                sum
            }),
            terms,
            // One target runs everything: its area is not a sum.
            area_mm2: self.area_mm2.or(other.area_mm2),
            mapping: None,
            mappings_evaluated: self.mappings_evaluated + other.mappings_evaluated,
            provenance: Provenance::Predicted,
        }
    }
}

/// Predicted cost of one layer, with what it is of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerCost {
    /// Name of the layer; `input` is the encoding of the raw bytes.
    pub name: String,
    /// Its geometry in the notation of every command.
    pub spec: String,
    /// Its widths.
    pub bits: String,
    /// Kernel that runs it.
    pub kernel: String,
    /// Its cost.
    pub cost: Cost,
}

impl LayerCost {
    /// Of the layer `name`.
    pub fn new(name: &str, layer: impl Into<Workload>, kernel: &str, cost: Cost) -> LayerCost {
        let layer = layer.into();
        LayerCost {
            name: name.to_owned(),
            spec: layer.spec(),
            bits: layer.widths.to_string(),
            kernel: kernel.to_owned(),
            cost,
        }
    }
}

/// Predicted cost of a network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NetworkCost {
    /// Sum of the layers.
    pub total: Cost,
    /// The encoding of the input where the target does it, then every layer.
    pub layers: Vec<LayerCost>,
}

/// Why a layer has no cost on a target.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ModelError {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Board(#[from] crate::BoardError),
    #[error("{target} cannot run {spec} at {bits}: {reason}")]
    Unsupported { target: String, spec: String, bits: Widths, reason: String },
}

impl ModelError {
    /// `target` cannot run `work`.
    pub fn unsupported(target: &str, work: &Workload, reason: &str) -> ModelError {
        ModelError::Unsupported {
            target: target.to_owned(),
            spec: work.spec(),
            bits: work.widths,
            reason: reason.to_owned(),
        }
    }
}

/// A target that layers can be priced on.
pub trait CostModel {
    /// Cost of a layer, from tensors in memory to the tensor in memory.
    fn layer(&self, layer: &LayerShape) -> Result<Cost, ModelError>;

    /// Cost of a layer of any widths; models of processors refuse what no kernel runs.
    fn workload(&self, work: &Workload) -> Result<Cost, ModelError> {
        match work.shape() {
            Some(layer) => self.layer(&layer),
            None => Err(ModelError::unsupported("the target", work, NO_KERNEL)),
        }
    }

    /// Cost of a [validated](Network::validate) network.
    fn network(&self, network: &Network) -> Result<NetworkCost, ModelError>;

    /// The kernel that runs a layer, on targets that have kernels.
    fn kernel(&self, layer: &LayerShape) -> Option<KernelId> {
        let _ = layer;
        None
    }
}
