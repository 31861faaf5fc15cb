//! What a block may be: its name in a space file, and the layers it stands for.
//!
//! Must not know: genes, widths, where a block stands.

use std::fmt;
use std::str::FromStr;

use jaq_network::{Op, Shape, Window};
use serde::{Deserialize, Serialize};

/// What a block may be, written `bottleneck3e4`, `fused3e2`, `separable5`, `residual3`, `skip`. The
/// block's input is added wherever input and output have one shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Operator {
    /// Inverted bottleneck: pointwise to `expansion` times the channels, depthwise, pointwise.
    Bottleneck {
        /// Side of the depthwise kernel.
        kernel: u8,
        /// Factor on the input's channels.
        expansion: u16,
    },
    /// Dense convolution to `expansion` times the channels, pointwise.
    Fused {
        /// Side of the dense kernel.
        kernel: u8,
        /// Factor on the input's channels.
        expansion: u16,
    },
    /// Depthwise, pointwise.
    Separable {
        /// Side of the depthwise kernel.
        kernel: u8,
    },
    /// Two dense convolutions.
    Residual {
        /// Side of both kernels.
        kernel: u8,
    },
    /// Nothing: the block's input is its output.
    Skip,
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operator::Bottleneck { kernel, expansion } => {
                write!(f, "bottleneck{kernel}e{expansion}")
            }
            Operator::Fused { kernel, expansion } => write!(f, "fused{kernel}e{expansion}"),
            Operator::Separable { kernel } => write!(f, "separable{kernel}"),
            Operator::Residual { kernel } => write!(f, "residual{kernel}"),
            Operator::Skip => f.write_str("skip"),
        }
    }
}

impl FromStr for Operator {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let side = |text: &str| -> Option<u8> {
            text.parse().ok().filter(|kernel| kernel % 2 == 1 && *kernel <= 7)
        };
        let sizes = |text: &str| -> Option<(u8, u16)> {
            let (kernel, expansion) = text.split_once('e')?;
            let expansion = expansion.parse().ok().filter(|e| (1..=8).contains(e))?;
            Some((side(kernel)?, expansion))
        };
        let found = if text == "skip" {
            Some(Operator::Skip)
        } else if let Some(rest) = text.strip_prefix("bottleneck") {
            sizes(rest).map(|(kernel, expansion)| Operator::Bottleneck { kernel, expansion })
        } else if let Some(rest) = text.strip_prefix("fused") {
            sizes(rest).map(|(kernel, expansion)| Operator::Fused { kernel, expansion })
        } else if let Some(rest) = text.strip_prefix("separable") {
            side(rest).map(|kernel| Operator::Separable { kernel })
        } else if let Some(rest) = text.strip_prefix("residual") {
            side(rest).map(|kernel| Operator::Residual { kernel })
        } else {
            None
        };
        found.ok_or_else(|| {
            format!(
                "`{text}` is no operator; wanted: bottleneck<kernel>e<expansion>, fused<kernel>e<expansion>, separable<kernel>, residual<kernel> (kernel 1, 3, 5 or 7, expansion 1 to 8) or skip"
            )
        })
    }
}

impl TryFrom<String> for Operator {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Operator> for String {
    fn from(operator: Operator) -> String {
        operator.to_string()
    }
}

impl Operator {
    /// Its family, whose variants share weights, and its layers: role, kind, output channels.
    pub(super) fn parts(
        self,
        input: u16,
        narrow: u16,
    ) -> (&'static str, Vec<(&'static str, Part, u16)>) {
        let wide = |expansion| input * expansion;
        match self {
            Operator::Skip => ("skip", vec![]),
            Operator::Bottleneck { kernel, expansion } => (
                "bottleneck",
                vec![
                    ("expand", Part::Dense(1), wide(expansion)),
                    ("depthwise", Part::Depthwise(kernel), wide(expansion)),
                    ("project", Part::Dense(1), narrow),
                ],
            ),
            Operator::Fused { kernel, expansion } => (
                "fused",
                vec![
                    ("expand", Part::Dense(kernel), wide(expansion)),
                    ("project", Part::Dense(1), narrow),
                ],
            ),
            Operator::Separable { kernel } => (
                "separable",
                vec![
                    ("depthwise", Part::Depthwise(kernel), input),
                    ("project", Part::Dense(1), narrow),
                ],
            ),
            Operator::Residual { kernel } => (
                "residual",
                vec![
                    ("expand", Part::Dense(kernel), narrow),
                    ("project", Part::Dense(kernel), narrow),
                ],
            ),
        }
    }
}

/// A layer of a block, before its place is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Dense convolution with a kernel of this side.
    Dense(u8),
    /// Depthwise convolution with a kernel of this side.
    Depthwise(u8),
}

impl Part {
    /// The operator on an input of this shape.
    pub(super) fn op(&self, stride: u8, input: Shape) -> Op {
        match *self {
            Part::Dense(kernel) => conv(kernel, stride, input),
            Part::Depthwise(kernel) => {
                Op::Depthwise(Window::same(kernel, kernel, stride, input.h, input.w))
            }
        }
    }
}

/// A dense convolution with `same` padding.
pub(super) fn conv(kernel: u8, stride: u8, input: Shape) -> Op {
    Op::Conv(Window::same(kernel, kernel, stride, input.h, input.w))
}
