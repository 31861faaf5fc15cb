//! What flows through the house: the layer graph ([`Network`]), the layer notation
//! ([`LayerSpec`]) and the trained tensors ([`TrainedNetwork`]).
//!
//! Data with its own invariants and nothing else. Must not know: training, cost models, kernels,
//! devices.

mod files;
mod graph;
mod provenance;
mod random;
pub mod reference;
mod schedule;
mod spec;
mod trained;

/// The words in which networks are described, for crates that see no device code.
pub use jaq_shared::format::{Bits, LayerBits, LayerShape, Op, Pads, Shape, TensorFormat, Window};

pub use files::write_whole;
pub use graph::{GraphError, InputEncoding, Layer, Network, Tensor, TensorId};
pub use provenance::Provenance;
pub use random::SplitMix64;
pub use schedule::Schedule;
pub use spec::{LayerSpec, SpecError};
pub use trained::{TrainedError, TrainedLayer, TrainedNetwork};
