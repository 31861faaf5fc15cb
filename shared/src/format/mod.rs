//! The packed model (`*.jaq`): bit widths, layer geometry and the file layout.
//!
//! Must not know how a layer is scheduled or executed ([`crate::runtime`]); of the kernels it
//! asks only which exist and how much they store, to check a file against them.

mod bits;
mod layer;
mod model;

pub use bits::{Bits, LayerBits, ParseBitsError};
pub use layer::{LayerShape, Op, Pads, Requant, Shape, TensorFormat, Window};
pub use model::{
    HEADER_BYTES, Header, Layer, Layers, LoadError, MAGIC, MAX_NAME, Model, ModelInfo, Span,
    TensorRef, VERSION, WEIGHT_ALIGN, crc32,
};
