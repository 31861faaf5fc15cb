//! The geometry of one layer and of the tensors between layers: what every kernel, cost model
//! and planner agrees on.
//!
//! Activations lie in HWC order. A pixel's channels are packed little-endian at
//! [`Bits::storage`] bits and the pixel starts at a multiple of [`TensorFormat::pixel_bytes`];
//! filler bits are zero.

use serde::{Deserialize, Serialize};

use super::{Bits, LayerBits};

/// Height, width and channels of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Shape {
    pub h: u16,
    pub w: u16,
    pub c: u16,
}

impl Shape {
    /// A tensor of `h` x `w` pixels of `c` channels.
    pub const fn new(h: u16, w: u16, c: u16) -> Self {
        Shape { h, w, c }
    }

    /// Number of pixels.
    pub const fn pixels(self) -> usize {
        self.h as usize * self.w as usize
    }

    /// Number of elements.
    pub const fn elements(self) -> usize {
        self.pixels() * self.c as usize
    }
}

/// Padding on the four sides, in pixels of the tensor's zero point (real zero).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Pads {
    pub top: u8,
    pub bottom: u8,
    pub left: u8,
    pub right: u8,
}

/// A sliding window: kernel size, stride (both directions) and padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Window {
    pub kh: u8,
    pub kw: u8,
    pub stride: u8,
    pub pads: Pads,
}

impl Window {
    /// The 1x1 window of a pointwise convolution.
    pub const POINT: Window =
        Window { kh: 1, kw: 1, stride: 1, pads: Pads { top: 0, bottom: 0, left: 0, right: 0 } };

    /// A window with TensorFlow's `SAME` padding for an input of `h` x `w` (asymmetric at
    /// stride 2: the odd pixel goes below and to the right).
    pub fn same(kh: u8, kw: u8, stride: u8, h: u16, w: u16) -> Self {
        let split = |size: u16, k: u8| {
            let (size, k, s) = (size as u32, k as u32, stride.max(1) as u32);
            let total = ((size.div_ceil(s) - 1) * s + k).saturating_sub(size);
            ((total / 2) as u8, total.div_ceil(2) as u8)
        };
        let (top, bottom) = split(h.max(1), kh);
        let (left, right) = split(w.max(1), kw);
        Window { kh, kw, stride, pads: Pads { top, bottom, left, right } }
    }

    /// Output height and width for an input of `h` x `w`, or `None` if the window does not fit.
    pub fn output(&self, h: u16, w: u16) -> Option<(u16, u16)> {
        let along = |size: u16, k: u8, before: u8, after: u8| {
            let padded = size as u32 + before as u32 + after as u32;
            let steps = padded.checked_sub(k as u32)?.checked_div(self.stride as u32)?;
            u16::try_from(steps + 1).ok()
        };
        Some((
            along(h, self.kh, self.pads.top, self.pads.bottom)?,
            along(w, self.kw, self.pads.left, self.pads.right)?,
        ))
    }

    /// Positions under the window.
    pub const fn taps(&self) -> usize {
        self.kh as usize * self.kw as usize
    }
}

/// What a layer computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Op {
    /// Dense convolution; a 1x1 window is a pointwise convolution. Weights `[OC][KH][KW][IC]`.
    Conv(Window),
    /// Depthwise convolution, one filter per channel. Weights `[C][KH][KW]`.
    Depthwise(Window),
    /// Fully connected layer on a 1x1 tensor. Weights `[OC][IC]`.
    Linear,
    /// Sum of two tensors of one shape.
    Add,
    /// Average over a window (padding is not counted as data: pads must be zero).
    AvgPool(Window),
    /// Maximum over a window; widths and scale of input and output are equal.
    MaxPool(Window),
}

impl Op {
    /// The window slid over the input; the 1x1 window for operators without one.
    pub const fn window(&self) -> Window {
        match self {
            Op::Conv(w) | Op::Depthwise(w) | Op::AvgPool(w) | Op::MaxPool(w) => *w,
            Op::Linear | Op::Add => Window::POINT,
        }
    }

    /// Whether the operator has weights (and so weight bits and per-channel tables).
    pub const fn has_weights(&self) -> bool {
        matches!(self, Op::Conv(_) | Op::Depthwise(_) | Op::Linear)
    }

    /// Whether this is a convolution with a 1x1 window at stride 1 without padding.
    pub fn is_pointwise(&self) -> bool {
        matches!(self, Op::Conv(w) if *w == Window::POINT)
    }
}

/// One layer as kernels, cost models and planners see it: geometry and widths, no values.
/// `bits.weight` is the width of the second operand: the weights, or the second input of an
/// addition; for pools it equals `bits.input` and means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct LayerShape {
    pub op: Op,
    pub input: Shape,
    pub output: Shape,
    pub bits: LayerBits,
}

impl LayerShape {
    /// The layer of `op` on `input` with `channels` output channels (ignored where the operator
    /// keeps the channel count), or `None` where the window does not fit the input.
    pub fn new(op: Op, input: Shape, channels: u16, bits: LayerBits) -> Option<Self> {
        let (h, w) = op.window().output(input.h, input.w)?;
        let c = match op {
            Op::Conv(_) | Op::Linear => channels,
            Op::Depthwise(_) | Op::Add | Op::AvgPool(_) | Op::MaxPool(_) => input.c,
        };
        Some(LayerShape { op, input, output: Shape { h, w, c }, bits })
    }

    /// Products that make up one accumulator (0 for operators without weights).
    pub const fn reduction(&self) -> usize {
        match self.op {
            Op::Conv(w) => w.taps() * self.input.c as usize,
            Op::Depthwise(w) => w.taps(),
            Op::Linear => self.input.c as usize,
            Op::Add | Op::AvgPool(_) | Op::MaxPool(_) => 0,
        }
    }

    /// Multiply-accumulates of the layer (0 for operators without weights).
    pub const fn macs(&self) -> u64 {
        self.output.elements() as u64 * self.reduction() as u64
    }

    /// Number of weights.
    pub const fn weights(&self) -> usize {
        self.output.c as usize * self.reduction()
    }

    /// Layout of the input tensor.
    pub const fn input_format(&self) -> TensorFormat {
        TensorFormat { shape: self.input, bits: self.bits.input }
    }

    /// Layout of the second input of an addition.
    pub const fn second_format(&self) -> TensorFormat {
        TensorFormat { shape: self.input, bits: self.bits.weight }
    }

    /// Layout of the output tensor.
    pub const fn output_format(&self) -> TensorFormat {
        TensorFormat { shape: self.output, bits: self.bits.output }
    }
}

/// How a tensor lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TensorFormat {
    pub shape: Shape,
    pub bits: Bits,
}

impl TensorFormat {
    /// Distance between two pixels in bytes: the packed channels, rounded up to 1, 2 or 4 bytes,
    /// and above that to a multiple of 4, so that whole words may be loaded.
    pub const fn pixel_bytes(&self) -> usize {
        let bytes = (self.shape.c as usize * self.bits.storage() as usize).div_ceil(8);
        match bytes {
            0..=2 => bytes,
            _ => bytes.next_multiple_of(4),
        }
    }

    /// Size of the tensor in bytes.
    pub const fn bytes(&self) -> usize {
        self.shape.pixels() * self.pixel_bytes()
    }
}

/// How an accumulator becomes an output code (docs/numerics.md). `M` and `B` are the per-channel
/// tables; the exporter proves for every channel that the stated width is never exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Requant {
    /// Outputs of at most 4 bits, and of 8 bits where the scale is too coarse for [`Self::Wide`]:
    /// `(acc * M + B) >> 18` in `i32`.
    Narrow,
    /// 8-bit outputs: `((acc + B) * M + 2^21) >> 22` with `|M| < 2^21`, product in `i64`.
    Wide,
    /// Every other scale: `((acc + B) * M + 2^(shift-1)) >> shift` in `i64`. Slow, but for
    /// [`Self::COARSE`] in depthwise layers.
    General {
        /// Right shift, 1 to 62.
        shift: u8,
    },
}

impl Requant {
    /// Right shift of [`Self::Narrow`], of the residual sum and of the average.
    pub const NARROW_SHIFT: u32 = 18;
    /// Right shift of [`Self::Wide`].
    pub const WIDE_SHIFT: u32 = 22;
    /// [`Self::Wide`] without its bound on `M`: for scales of 1/2 and more.
    pub const COARSE: Requant = Requant::General { shift: Self::WIDE_SHIFT as u8 };

    /// The form that most layers with outputs of this width have.
    pub const fn usual(output: Bits) -> Requant {
        match output {
            Bits::B8 => Requant::Wide,
            _ => Requant::Narrow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_padding_is_tensorflows() {
        let w = Window::same(3, 3, 2, 32, 32);
        assert_eq!(w.pads, Pads { top: 0, bottom: 1, left: 0, right: 1 });
        assert_eq!(w.output(32, 32), Some((16, 16)));
        let w = Window::same(5, 3, 1, 7, 7);
        assert_eq!(w.pads, Pads { top: 2, bottom: 2, left: 1, right: 1 });
        assert_eq!(w.output(7, 7), Some((7, 7)));
        assert_eq!(Window { kh: 3, ..Window::POINT }.output(2, 2), None);
        assert_eq!(Window { stride: 0, ..Window::POINT }.output(2, 2), None);
    }

    #[test]
    fn pixels_start_on_words() {
        let bytes = |c, bits| TensorFormat { shape: Shape::new(1, 1, c), bits }.pixel_bytes();
        assert_eq!(bytes(1, Bits::B8), 1);
        assert_eq!(bytes(3, Bits::B8), 4);
        assert_eq!(bytes(8, Bits::B2), 2);
        assert_eq!(bytes(24, Bits::B2), 8);
        assert_eq!(bytes(3, Bits::B3), 2);
    }
}
