//! A layer as cost models see it: geometry and operand widths of 1 to 16 bits.
//!
//! The packed format knows four widths; accelerators were built for more. Models of accelerators
//! price a [`Workload`]; those of microcontrollers only what the kernels run. Must not know: models.

use std::fmt;
use std::str::FromStr;

use jaq_network::{LayerSpec, Network};
use jaq_shared::format::{Bits, LayerBits, LayerShape, Op};
use serde::Serialize;

/// Widths of weights, input and output activations in bits, 1 to 16 each; written like
/// [`LayerBits`], for example `W7A8` or `W5A8:O16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[allow(missing_docs)]
pub struct Widths {
    pub weight: u8,
    pub input: u8,
    pub output: u8,
}

/// The text names no widths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected W<w>A<a> or W<w>A<a>:O<o> with widths of 1 to 16 bits, for example W7A8")]
pub struct ParseWidthsError;

impl Widths {
    /// 8 bits everywhere.
    pub const W8A8: Widths = Widths { weight: 8, input: 8, output: 8 };
}

impl FromStr for Widths {
    type Err = ParseWidthsError;
    fn from_str(text: &str) -> Result<Widths, ParseWidthsError> {
        let number = |s: &str| match s.parse::<u8>() {
            Ok(bits @ 1..=16) => Ok(bits),
            _ => Err(ParseWidthsError),
        };
        let (pair, output) = match text.split_once(":O") {
            Some((pair, output)) => (pair, Some(number(output)?)),
            None => (text, None),
        };
        let (weight, input) =
            pair.strip_prefix('W').and_then(|rest| rest.split_once('A')).ok_or(ParseWidthsError)?;
        let (weight, input) = (number(weight)?, number(input)?);
        Ok(Widths { weight, input, output: output.unwrap_or(input) })
    }
}

impl fmt::Display for Widths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "W{}A{}", self.weight, self.input)?;
        if self.output != self.input {
            write!(f, ":O{}", self.output)?;
        }
        Ok(())
    }
}

impl From<LayerBits> for Widths {
    fn from(bits: LayerBits) -> Widths {
        let [weight, input, output] = [bits.weight, bits.input, bits.output].map(u8::from);
        Widths { weight, input, output }
    }
}

impl TryFrom<Widths> for LayerBits {
    type Error = jaq_shared::format::ParseBitsError;
    fn try_from(widths: Widths) -> Result<LayerBits, Self::Error> {
        Ok(LayerBits {
            weight: Bits::try_from(widths.weight)?,
            input: Bits::try_from(widths.input)?,
            output: Bits::try_from(widths.output)?,
        })
    }
}

/// What processors say to widths of other than the packed format.
pub(crate) const NO_KERNEL: &str = "kernels exist for widths of 2, 3, 4 and 8 bits";

/// A layer of any width. `geometry.bits` has no meaning here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Workload {
    geometry: LayerShape,
    /// Widths of the operands; `weight` is that of the second input of an addition.
    pub widths: Widths,
}

impl From<&LayerShape> for Workload {
    fn from(layer: &LayerShape) -> Workload {
        Workload { geometry: *layer, widths: layer.bits.into() }
    }
}

impl Workload {
    /// The geometry of `layer` at other widths. Operators without weights have one width at their
    /// inputs.
    pub fn at(layer: &LayerShape, widths: Widths) -> Workload {
        let weight = if layer.op.has_weights() { widths.weight } else { widths.input };
        Workload { geometry: *layer, widths: Widths { weight, ..widths } }
    }

    /// The layers of a block; between them every tensor has the input's width.
    pub fn block(spec: &LayerSpec, widths: Widths) -> Vec<Workload> {
        let shapes = spec.shapes(LayerBits::uniform(Bits::B8, Bits::B8));
        let last = shapes.len() - 1;
        let inner = Widths { output: widths.input, ..widths };
        let at = |i| if i == last { widths } else { inner };
        shapes.iter().enumerate().map(|(i, shape)| Workload::at(shape, at(i))).collect()
    }

    /// The layers of a network, all at the given widths but for its raw input and its logits.
    pub fn of(network: &Network, widths: Option<Widths>) -> Vec<(String, Workload)> {
        let shapes = network.shapes();
        let last = shapes.len().saturating_sub(1);
        let layers = network.layers.iter().zip(&shapes).enumerate();
        layers
            .map(|(i, (layer, shape))| {
                let Some(mut widths) = widths else { return (layer.name.clone(), shape.into()) };
                if layer.inputs.iter().all(|id| id.0 == 0) {
                    widths.input = shape.bits.input.into();
                }
                widths.output = if i == last { shape.bits.output.into() } else { widths.output };
                (layer.name.clone(), Workload::at(shape, widths))
            })
            .collect()
    }

    /// The layer as kernels see it, where its widths are of the packed format.
    pub fn shape(&self) -> Option<LayerShape> {
        Some(LayerShape { bits: self.widths.try_into().ok()?, ..self.geometry })
    }

    /// What the layer computes.
    pub fn op(&self) -> Op {
        self.geometry.op
    }

    /// Height, width and channels of the input.
    pub fn input(&self) -> [u64; 3] {
        let s = self.geometry.input;
        [s.h.into(), s.w.into(), s.c.into()]
    }

    /// Height, width and channels of the output.
    pub fn output(&self) -> [u64; 3] {
        let s = self.geometry.output;
        [s.h.into(), s.w.into(), s.c.into()]
    }

    /// Number of weights.
    pub fn weights(&self) -> u64 {
        self.geometry.weights() as u64
    }

    /// Multiply-accumulates.
    pub fn macs(&self) -> u64 {
        self.geometry.macs()
    }

    /// Notation of the geometry.
    pub fn spec(&self) -> String {
        LayerSpec::of(&self.geometry).to_string()
    }

    /// Bytes of the inputs, the second of an addition included, and of the output.
    pub fn activation_bytes(&self) -> [u64; 2] {
        let bits = |shape: [u64; 3], width: u8| {
            (shape.iter().product::<u64>() * u64::from(width)).div_ceil(8)
        };
        let second = match self.geometry.op {
            Op::Add => bits(self.input(), self.widths.weight),
            _ => 0,
        };
        [bits(self.input(), self.widths.input) + second, bits(self.output(), self.widths.output)]
    }

    /// Bytes of the weights at their width.
    pub fn weight_bytes(&self) -> u64 {
        (self.weights() * u64::from(self.widths.weight)).div_ceil(8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jaq_network::reference;

    #[test]
    fn widths_of_1_to_16_are_read() {
        for text in ["W7A8", "W1A16", "W5A8:O16"] {
            assert_eq!(text.parse::<Widths>().unwrap().to_string(), text);
        }
        for text in ["W0A8", "W17A8", "W8", "A8W8", "W8A8:O17"] {
            assert!(text.parse::<Widths>().is_err(), "{text}");
        }
        let odd: Widths = "W7A8".parse().unwrap();
        assert!(LayerBits::try_from(odd).is_err());
        let even: Widths = "W3A8".parse().unwrap();
        assert_eq!(LayerBits::try_from(even).unwrap().to_string(), "W3A8");
    }

    #[test]
    fn a_network_keeps_its_input_and_its_logits() {
        let network = reference::network("resnet8").unwrap();
        let layers = Workload::of(&network, Some("W7A5".parse().unwrap()));
        let widths: Vec<String> = layers.iter().map(|(_, w)| w.widths.to_string()).collect();
        assert_eq!(widths[0], "W7A8:O5");
        assert_eq!(widths[1], "W7A5");
        assert_eq!(widths.last().unwrap(), "W7A5:O8");
        let add = layers.iter().find(|(_, w)| w.op() == Op::Add).unwrap().1;
        assert_eq!((add.widths.weight, add.activation_bytes()), (5, [20480, 10240]));
        assert_eq!(layers[1].1.shape(), None);
        let own = Workload::of(&network, None);
        assert_eq!(own[1].1.shape(), Some(network.shape(1)));
    }
}
