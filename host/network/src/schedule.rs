//! What the planner decides and the exporter writes down: which kernel runs each layer, and where
//! tensors and working memory lie in the arena.

use jaq_shared::kernels::KernelId;
use serde::{Deserialize, Serialize};

/// Kernels and placement of a network. Offsets are in bytes, multiples of 4.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// RAM of one inference in bytes, a multiple of 4.
    pub arena_bytes: u32,
    /// Offset of every tensor, by [`crate::TensorId`].
    pub tensor_offsets: Vec<u32>,
    /// Offset of every layer's working memory.
    pub scratch_offsets: Vec<u32>,
    /// Kernel of every layer.
    pub kernels: Vec<KernelId>,
}
