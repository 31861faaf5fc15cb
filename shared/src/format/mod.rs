//! The packed model (`*.jaq`): bit widths, layer geometry and the file layout.
//!
//! Must not know how a layer is computed ([`crate::kernels`]) or scheduled ([`crate::runtime`]).

mod bits;
mod layer;

pub use bits::{Bits, LayerBits, ParseBitsError};
pub use layer::{LayerShape, Op, Pads, Requant, Shape, TensorFormat, Window};
