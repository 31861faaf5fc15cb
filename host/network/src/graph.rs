//! The layer graph: tensors with shapes and widths, layers in execution order.

use jaq_shared::format::{Bits, LayerBits, LayerShape, Op, Shape, TensorFormat};
use serde::{Deserialize, Serialize};

/// Names a tensor: 0 is the network's input, `i + 1` the output of layer `i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TensorId(pub usize);

impl TensorId {
    /// The network's input.
    pub const INPUT: TensorId = TensorId(0);

    /// The output of the layer at `index`.
    pub const fn output_of(index: usize) -> TensorId {
        TensorId(index + 1)
    }
}

/// A tensor between layers: `real = scale * (code - zero_point)`, code in `0..=2^bits - 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tensor {
    /// Height, width, channels.
    pub shape: Shape,
    /// Width of the codes.
    pub bits: Bits,
    /// Whether real values may be negative (linear bottlenecks): the zero point is then
    /// `2^(bits-1)`, else 0.
    pub signed: bool,
}

impl Tensor {
    /// The code of real zero.
    pub const fn zero_point(&self) -> u8 {
        if self.signed { self.bits.half() as u8 } else { 0 }
    }

    /// Layout in memory.
    pub const fn format(&self) -> TensorFormat {
        TensorFormat { shape: self.shape, bits: self.bits }
    }
}

/// How the application's raw bytes become codes of the input tensor: one byte an element in HWC
/// order, `code = clamp((raw * mul + add) >> 16, 0, 2^bits - 1)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct InputEncoding {
    pub mul: i32,
    pub add: i32,
}

impl InputEncoding {
    /// Codes are the raw bytes.
    pub const IDENTITY: InputEncoding = InputEncoding { mul: 1 << 16, add: 0 };
}

/// One layer. Batch normalization is folded; `relu` clamps real values at zero, which an
/// unsigned output tensor does by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Unique within the network, at most 24 bytes, for example `b3.expand`.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// One tensor, two for [`Op::Add`]; all of earlier layers.
    pub inputs: Vec<TensorId>,
    /// What it makes.
    pub output: Tensor,
    /// Width of the weights, for operators that have them.
    pub weight_bits: Option<Bits>,
}

/// A network in execution order; the last layer's output (the logits) is the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Name of the network.
    pub name: String,
    /// The input tensor.
    pub input: Tensor,
    /// How raw bytes become codes of the input.
    pub encoding: InputEncoding,
    /// Layers, each using only earlier tensors.
    pub layers: Vec<Layer>,
    /// Class names in the order of the logits.
    pub classes: Vec<String>,
}

/// Why a graph is not a network.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum GraphError {
    #[error("network `{0}` has no layers")]
    Empty(String),
    #[error("layer `{layer}`: {reason}")]
    Layer { layer: String, reason: String },
    #[error("network `{network}` names {classes} classes but its last layer has {logits} outputs")]
    Classes { network: String, classes: usize, logits: usize },
}

impl Network {
    /// The tensor `id`; panics where the graph was not [validated](Network::validate).
    pub fn tensor(&self, id: TensorId) -> &Tensor {
        match id.0.checked_sub(1) {
            None => &self.input,
            Some(layer) => &self.layers[layer].output,
        }
    }

    /// Geometry and widths of the layer at `index`.
    pub fn shape(&self, index: usize) -> LayerShape {
        let layer = &self.layers[index];
        let input = self.tensor(layer.inputs[0]);
        let second = layer.inputs.get(1).map_or(input.bits, |id| self.tensor(*id).bits);
        let bits = LayerBits {
            weight: layer.weight_bits.unwrap_or(second),
            input: input.bits,
            output: layer.output.bits,
        };
        LayerShape { op: layer.op, input: input.shape, output: layer.output.shape, bits }
    }

    /// Geometry and widths of every layer.
    pub fn shapes(&self) -> Vec<LayerShape> {
        (0..self.layers.len()).map(|i| self.shape(i)).collect()
    }

    /// Multiply-accumulates of one inference.
    pub fn macs(&self) -> u64 {
        self.shapes().iter().map(LayerShape::macs).sum()
    }

    /// Mean width of the weights, each weight counted once.
    pub fn mean_weight_bits(&self) -> f64 {
        let (mut bits, mut weights) = (0u64, 0u64);
        for shape in self.shapes().iter().filter(|s| s.op.has_weights()) {
            bits += shape.weights() as u64 * u64::from(shape.bits.weight.get());
            weights += shape.weights() as u64;
        }
        bits as f64 / weights.max(1) as f64
    }

    /// The same network with every weight and activation at the given widths; the input and the
    /// logits keep theirs.
    pub fn with_uniform_bits(&self, weight: Bits, activation: Bits) -> Network {
        let mut network = self.clone();
        let last = network.layers.len().saturating_sub(1);
        for (i, layer) in network.layers.iter_mut().enumerate() {
            layer.weight_bits = layer.weight_bits.map(|_| weight);
            if i != last {
                layer.output.bits = activation;
            }
        }
        network
    }

    /// Checks what every user of a graph relies on: order, shapes, names, widths.
    pub fn validate(&self) -> Result<(), GraphError> {
        let last = self.layers.last().ok_or_else(|| GraphError::Empty(self.name.clone()))?;
        let mut names = std::collections::HashSet::new();
        for (index, layer) in self.layers.iter().enumerate() {
            let fail =
                |reason: String| Err(GraphError::Layer { layer: layer.name.clone(), reason });
            if layer.name.is_empty() || layer.name.len() > 24 || !names.insert(&layer.name) {
                return fail("the name must be unique and of 1 to 24 bytes".into());
            }
            let arity = if layer.op == Op::Add { 2 } else { 1 };
            if layer.inputs.len() != arity {
                return fail(format!("{arity} inputs wanted, {} given", layer.inputs.len()));
            }
            if let Some(id) = layer.inputs.iter().find(|id| id.0 > index) {
                return fail(format!("input {} is made by a later layer", id.0));
            }
            if layer.op.has_weights() != layer.weight_bits.is_some() {
                return fail("weight bits belong to operators with weights, and only there".into());
            }
            let shape = self.shape(index);
            match LayerShape::new(layer.op, shape.input, shape.output.c, shape.bits) {
                Some(expected) if expected.output == shape.output => {}
                Some(expected) => {
                    return fail(format!(
                        "output is {:?} where {:?} follows from the input",
                        shape.output, expected.output
                    ));
                }
                None => return fail("the window does not fit the input".into()),
            }
            if shape.input.elements() == 0 || shape.output.elements() == 0 {
                return fail("a tensor has no elements".into());
            }
            if layer.op == Op::Linear && shape.input.pixels() != 1 {
                return fail("a linear layer reads a 1x1 tensor".into());
            }
            if layer.op == Op::Add
                && self.tensor(layer.inputs[0]).shape != self.tensor(layer.inputs[1]).shape
            {
                return fail("the two inputs differ in shape".into());
            }
            if matches!(layer.op, Op::AvgPool(w) if w.pads != Default::default()) {
                return fail("average pooling takes no padding".into());
            }
            if matches!(layer.op, Op::MaxPool(_))
                && *self.tensor(layer.inputs[0]) != (Tensor { shape: shape.input, ..layer.output })
            {
                return fail("maximum pooling keeps widths and sign".into());
            }
        }
        let logits = last.output.shape.elements();
        if !self.classes.is_empty() && self.classes.len() != logits {
            let (network, classes) = (self.name.clone(), self.classes.len());
            return Err(GraphError::Classes { network, classes, logits });
        }
        Ok(())
    }
}
