//! The truth in wide integers: runs a trained network by the formulas of docs/numerics.md with
//! naive loops on `i64`. Slow on purpose; shares no code with the kernels, the packed format or
//! the runtime, so that it can judge them.

use jaq_network::{Layer, Network, TensorId, TrainedNetwork};
use jaq_shared::format::{Op, Requant, Shape};

use crate::requantize::LayerIntegers;

/// Codes of every tensor of one inference, by [`TensorId`], each in HWC order, one code an entry.
pub fn infer(trained: &TrainedNetwork, integers: &[LayerIntegers], raw: &[u8]) -> Vec<Vec<i64>> {
    let network = &trained.network;
    let encoding = network.encoding;
    let input_max = (1i64 << network.input.bits.get()) - 1;
    let encode = |raw: &u8| {
        ((i64::from(*raw) * i64::from(encoding.mul) + i64::from(encoding.add)) >> 16)
            .clamp(0, input_max)
    };
    let mut tensors: Vec<Vec<i64>> = vec![raw.iter().map(encode).collect()];
    for (index, layer) in network.layers.iter().enumerate() {
        let weights = trained.layers[index].as_ref().map(|l| &l.weights[..]).unwrap_or(&[]);
        let output = run(network, layer, &integers[index], weights, &tensors);
        tensors.push(output);
    }
    tensors
}

fn run(
    network: &Network,
    layer: &Layer,
    integers: &LayerIntegers,
    weights: &[i8],
    tensors: &[Vec<i64>],
) -> Vec<i64> {
    let source = |i: usize| (&tensors[layer.inputs[i].0], network.tensor(layer.inputs[i]));
    let (input, tensor) = source(0);
    let (shape, out, window) = (tensor.shape, layer.output.shape, layer.op.window());
    let zero = i64::from(tensor.zero_point());
    let top = (1i64 << layer.output.bits.get()) - 1;
    let constant = |i: usize| i64::from(integers.multipliers[i]);
    // The code under a tap, or `None` in the padding.
    let at = |y: i64, x: i64, c: usize| {
        let inside = (0..i64::from(shape.h)).contains(&y) && (0..i64::from(shape.w)).contains(&x);
        inside.then(|| {
            input[(y as usize * usize::from(shape.w) + x as usize) * usize::from(shape.c) + c]
        })
    };
    let mut codes = Vec::with_capacity(out.elements());
    for (oy, ox, oc) in positions(out) {
        let taps = (0..i64::from(window.kh))
            .flat_map(|ky| (0..i64::from(window.kw)).map(move |kx| (ky, kx)));
        let under = taps.map(|(ky, kx)| {
            let stride = i64::from(window.stride);
            let y = oy as i64 * stride + ky - i64::from(window.pads.top);
            let x = ox as i64 * stride + kx - i64::from(window.pads.left);
            (y, x)
        });
        let code = match layer.op {
            Op::Conv(_) | Op::Linear | Op::Depthwise(_) => {
                let channels = if matches!(layer.op, Op::Depthwise(_)) {
                    oc..oc + 1
                } else {
                    0..usize::from(shape.c)
                };
                let count = channels.len();
                let mut acc = 0i64;
                for (tap, (y, x)) in under.enumerate() {
                    for (i, c) in channels.clone().enumerate() {
                        let weight = weights[(oc * window.taps() + tap) * count + i];
                        acc += (at(y, x, c).unwrap_or(zero) - zero) * i64::from(weight);
                    }
                }
                let (m, b) = (i64::from(integers.multipliers[oc]), i64::from(integers.biases[oc]));
                match integers.requant {
                    Requant::Narrow => (acc * m + b) >> 18,
                    Requant::Wide => ((acc + b) * m + (1 << 21)) >> 22,
                    Requant::General { shift } => {
                        let wide = i128::from(acc + b) * i128::from(m) + (1 << (shift - 1));
                        (wide >> shift) as i64
                    }
                }
            }
            Op::Add => {
                let index = (oy * usize::from(out.w) + ox) * usize::from(out.c) + oc;
                (input[index] * constant(0) + source(1).0[index] * constant(1) + constant(2)) >> 18
            }
            Op::AvgPool(_) => {
                let sum: i64 = under.filter_map(|(y, x)| at(y, x, oc)).sum();
                (sum * constant(0) + constant(1)) >> 18
            }
            Op::MaxPool(_) => under.filter_map(|(y, x)| at(y, x, oc)).max().unwrap_or(zero),
        };
        codes.push(code.clamp(0, top));
    }
    codes
}

fn positions(shape: Shape) -> impl Iterator<Item = (usize, usize, usize)> {
    let (h, w, c) = (usize::from(shape.h), usize::from(shape.w), usize::from(shape.c));
    (0..h).flat_map(move |y| (0..w).flat_map(move |x| (0..c).map(move |c| (y, x, c))))
}

/// Real logits of an inference: the last tensor's codes, dequantized.
pub fn logits(trained: &TrainedNetwork, tensors: &[Vec<i64>]) -> Vec<f64> {
    let id = TensorId(tensors.len() - 1);
    let zero = i64::from(trained.network.tensor(id).zero_point());
    let scale = f64::from(trained.scale(id));
    tensors[id.0].iter().map(|code| (code - zero) as f64 * scale).collect()
}
