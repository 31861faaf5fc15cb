//! A packed model around one layer with random values: what calibration and kernel benchmarks run on a
//! device. The values are a function of the seed; what the layer computes is checked like any
//! other model's.

use jaq_network::{
    InputEncoding, Layer, Network, SplitMix64, Tensor, TensorId, TrainedLayer, TrainedNetwork,
};
use jaq_shared::format::{LayerShape, Op, Requant, Window};
use jaq_shared::kernels::KernelId;

use crate::export::{ExportError, Origin, Packed, pack};
use crate::requantize::{LayerIntegers, NARROW_SHIFT, WIDE_SHIFT};

/// How weights and inputs are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Any code.
    Random,
    /// The largest weights.
    Largest,
    /// The smallest weights.
    Smallest,
    /// The largest and the smallest in turn.
    Alternating,
    /// The largest in the first half of every reduction, the smallest in the second.
    Falling,
    /// The other way round.
    Rising,
}

impl Values {
    /// Every one.
    pub const ALL: [Values; 6] = [
        Values::Random,
        Values::Largest,
        Values::Smallest,
        Values::Alternating,
        Values::Falling,
        Values::Rising,
    ];
}

/// A layer as a network of its own, with integers in the form `requant`.
#[derive(Clone, Debug)]
pub struct Single {
    /// The network.
    pub trained: TrainedNetwork,
    /// Its one layer's integers.
    pub integers: Vec<LayerIntegers>,
    values: Values,
}

impl Single {
    /// Random weights, and scales that spread the accumulators over the output codes. The layer is
    /// the last of the network; before an addition comes a pool that makes its second operand.
    pub fn new(layer: &LayerShape, requant: Requant, seed: u64) -> Single {
        Single::of(layer, requant, Values::Random, seed)
    }

    /// As [`Single::new`] with weights as `values` says; all but random ones meet the largest
    /// inputs.
    pub fn of(layer: &LayerShape, requant: Requant, values: Values, seed: u64) -> Single {
        let mut random = SplitMix64(seed);
        let half = layer.bits.weight.half() as i64;
        let weights: Vec<i8> = (0..if layer.op.has_weights() { layer.weights() } else { 0 })
            .map(|index| {
                let row = layer.reduction();
                let largest = match values {
                    // A trained channel's largest weight is at the end of its grid.
                    Values::Random if index % row == 0 => false,
                    Values::Random => return (random.below(2 * half as u64) as i64 - half) as i8,
                    Values::Largest => true,
                    Values::Smallest => false,
                    Values::Alternating => index % 2 == 0,
                    Values::Falling => index % row < row / 2,
                    Values::Rising => index % row >= row / 2,
                };
                if largest { (half - 1) as i8 } else { -half as i8 }
            })
            .collect();
        let amax = i64::from(layer.bits.input.max_unsigned());
        let omax = i64::from(layer.bits.output.max_unsigned());
        let narrow = |ratio: f64| (ratio * f64::from(1 << NARROW_SHIFT)) as i32;
        let spread = omax as f64 / amax as f64;
        let (mut multipliers, mut biases) = (Vec::new(), Vec::new());
        match layer.op {
            Op::Add => {
                let second = omax as f64 / f64::from(layer.bits.weight.max_unsigned());
                multipliers = vec![narrow(spread / 2.0), narrow(second / 2.0), narrow(0.5)];
            }
            Op::AvgPool(window) => {
                multipliers = vec![narrow(spread / window.taps() as f64), narrow(0.5)];
            }
            Op::MaxPool(_) => {}
            Op::Conv(_) | Op::Depthwise(_) | Op::Linear => {
                for row in weights.chunks(layer.reduction().max(1)) {
                    let sum = |sign: i64| -> i64 {
                        row.iter().map(|&w| (sign * i64::from(w)).max(0) * amax).sum()
                    };
                    let (low, high) = (-sum(-1), sum(1));
                    let (span, middle) = ((high - low).max(1), (low + high) / 2);
                    let (m, b) = match requant {
                        Requant::Narrow => {
                            let m = (omax << NARROW_SHIFT) / span;
                            (m, ((omax + 1) << (NARROW_SHIFT - 1)) - middle * m)
                        }
                        Requant::Wide => {
                            let m = ((omax << WIDE_SHIFT) / span).clamp(1, (1 << 21) - 1);
                            (m, ((omax + 1) << (WIDE_SHIFT - 1)) / m - middle)
                        }
                        Requant::General { shift } => {
                            let m = ((omax << shift) / span).clamp(1, 1 << 30);
                            (m, ((omax + 1) << (shift - 1)) / m - middle)
                        }
                    };
                    multipliers.push(m as i32);
                    biases.push(b as i32);
                }
            }
        }
        let input = Tensor { shape: layer.input, bits: layer.bits.input, signed: false };
        let output = Tensor { shape: layer.output, bits: layer.bits.output, signed: false };
        let channels = if layer.op.has_weights() { usize::from(layer.output.c) } else { 0 };
        let trained = layer.op.has_weights().then(|| TrainedLayer {
            weights,
            scale: vec![1.0; channels],
            offset: vec![0.0; channels],
        });
        let mut network = Network {
            name: "single".into(),
            input,
            encoding: InputEncoding::IDENTITY,
            layers: vec![Layer {
                name: "layer".into(),
                op: layer.op,
                inputs: vec![TensorId::INPUT],
                output,
                weight_bits: layer.op.has_weights().then_some(layer.bits.weight),
            }],
            classes: Vec::new(),
        };
        let requant = if layer.op.has_weights() { requant } else { Requant::Narrow };
        let mut integers = vec![LayerIntegers { requant, multipliers, biases, note: None }];
        let mut layers = vec![trained];
        if layer.op == Op::Add {
            // The same pixels at the second operand's width.
            let ratio = f64::from(layer.bits.weight.max_unsigned()) / amax as f64;
            let output = Tensor { bits: layer.bits.weight, ..input };
            let multipliers = vec![narrow(ratio), narrow(0.5)];
            integers.insert(0, LayerIntegers { multipliers, ..integers[0].clone() });
            layers.insert(0, None);
            network.layers[0].inputs = vec![TensorId::INPUT, TensorId::output_of(0)];
            network.layers.insert(
                0,
                Layer {
                    name: "second".into(),
                    op: Op::AvgPool(Window::POINT),
                    inputs: vec![TensorId::INPUT],
                    output,
                    weight_bits: None,
                },
            );
        }
        let scales = vec![1.0; network.layers.len() + 1];
        Single { trained: TrainedNetwork { network, scales, layers }, integers, values }
    }

    /// The kernel of every layer, `kernel` that of the layer itself.
    fn kernels(&self, kernel: KernelId) -> Vec<KernelId> {
        let mut kernels = vec![KernelId::AvgPool; self.integers.len()];
        kernels.pop();
        kernels.push(kernel);
        kernels
    }

    /// The packed model with the layer run by `kernel`.
    pub fn pack(&self, kernel: KernelId) -> Result<Packed, ExportError> {
        let schedule =
            jaq_cost::planner::plan(&self.trained.network, &self.kernels(kernel)).schedule;
        let origin = Origin { tool: "single".into(), ..Origin::default() };
        pack(&self.trained, &self.integers, &schedule, &origin)
    }

    /// A raw input: any codes of the input's width, or the largest.
    pub fn input(&self, seed: u64) -> Vec<u8> {
        let mut random = SplitMix64(seed);
        let input = self.trained.network.input;
        let codes = u64::from(input.bits.max_unsigned()) + 1;
        let code = |random: &mut SplitMix64| match self.values {
            Values::Random => random.below(codes) as u8,
            _ => (codes - 1) as u8,
        };
        (0..input.shape.elements()).map(|_| code(&mut random)).collect()
    }
}
