//! The reference networks: the topologies of MLPerf Tiny, at W8A8, written once.
//!
//! Shapes follow the benchmark's reference models (image classification, visual wake words,
//! keyword spotting, anomaly detection). Softmax is left to the caller.

use jaq_shared::format::{Bits, LayerBits, LayerShape, Op, Shape, Window};

use crate::{InputEncoding, Layer, Network, Tensor, TensorId};

/// Names of the reference networks.
pub const NAMES: [&str; 4] = ["resnet8", "mobilenetv1-0.25-96", "dscnn", "fcae"];

/// The reference network `name`.
pub fn network(name: &str) -> Option<Network> {
    match name {
        "resnet8" => Some(resnet8()),
        "mobilenetv1-0.25-96" => Some(mobilenet()),
        "dscnn" => Some(dscnn()),
        "fcae" => Some(fcae()),
        _ => None,
    }
}

/// Appends layers, each to the one before unless said otherwise.
struct Builder {
    network: Network,
}

impl Builder {
    fn new(name: &str, input: Shape) -> Builder {
        let input = Tensor { shape: input, bits: Bits::B8, signed: false };
        let encoding = InputEncoding::IDENTITY;
        let network =
            Network { name: name.to_owned(), input, encoding, layers: vec![], classes: vec![] };
        Builder { network }
    }

    fn last(&self) -> TensorId {
        TensorId(self.network.layers.len())
    }

    fn shape(&self) -> Shape {
        self.network.tensor(self.last()).shape
    }

    fn push(&mut self, name: &str, op: Op, inputs: Vec<TensorId>, channels: u16) -> TensorId {
        let bits = LayerBits::uniform(Bits::B8, Bits::B8);
        let input = self.network.tensor(inputs[0]).shape;
        let shape = LayerShape::new(op, input, channels, bits).expect("the reference shapes fit");
        self.network.layers.push(Layer {
            name: name.to_owned(),
            op,
            inputs,
            output: Tensor { shape: shape.output, bits: Bits::B8, signed: false },
            weight_bits: op.has_weights().then_some(Bits::B8),
        });
        self.last()
    }

    fn conv(&mut self, name: &str, from: TensorId, k: (u8, u8), stride: u8, oc: u16) -> TensorId {
        let Shape { h, w, .. } = self.network.tensor(from).shape;
        self.push(name, Op::Conv(Window::same(k.0, k.1, stride, h, w)), vec![from], oc)
    }

    fn depthwise(&mut self, name: &str, stride: u8) {
        let Shape { h, w, c } = self.shape();
        self.push(name, Op::Depthwise(Window::same(3, 3, stride, h, w)), vec![self.last()], c);
    }

    fn pointwise(&mut self, name: &str, oc: u16) {
        self.push(name, Op::Conv(Window::POINT), vec![self.last()], oc);
    }

    fn global_average(&mut self) {
        let Shape { h, w, c } = self.shape();
        let window = Window { kh: h as u8, kw: w as u8, ..Window::POINT };
        self.push("avgpool", Op::AvgPool(window), vec![self.last()], c);
    }

    fn linear(&mut self, name: &str, oc: u16) {
        self.push(name, Op::Linear, vec![self.last()], oc);
    }

    /// No ReLU after the last layer: its output is signed.
    fn linear_output(&mut self) {
        if let Some(last) = self.network.layers.last_mut() {
            last.output.signed = true;
        }
    }

    /// The finished network; logits are signed.
    fn done(mut self) -> Network {
        self.linear_output();
        self.network
    }
}

/// Image classification, CIFAR-10: three residual stages, ReLU after the additions.
fn resnet8() -> Network {
    let mut b = Builder::new("resnet8", Shape::new(32, 32, 3));
    let mut skip = b.conv("stem", TensorId::INPUT, (3, 3), 1, 16);
    for (stage, channels, stride) in [(1, 16, 1), (2, 32, 2), (3, 64, 2)] {
        let name = |part: &str| format!("s{stage}.{part}");
        let inner = b.conv(&name("a"), skip, (3, 3), stride, channels);
        let inner = b.conv(&name("b"), inner, (3, 3), 1, channels);
        b.linear_output();
        if stride == 2 {
            skip = b.conv(&name("skip"), skip, (1, 1), 2, channels);
            b.linear_output();
        }
        skip = b.push(&name("add"), Op::Add, vec![inner, skip], channels);
    }
    b.global_average();
    b.linear("logits", 10);
    b.done()
}

/// Visual wake words: MobileNetV1, width 0.25, 96x96 RGB.
fn mobilenet() -> Network {
    let mut b = Builder::new("mobilenetv1-0.25-96", Shape::new(96, 96, 3));
    b.conv("stem", TensorId::INPUT, (3, 3), 2, 8);
    let blocks = [
        (1, 16),
        (2, 32),
        (1, 32),
        (2, 64),
        (1, 64),
        (2, 128),
        (1, 128),
        (1, 128),
        (1, 128),
        (1, 128),
        (1, 128),
        (2, 256),
        (1, 256),
    ];
    for (i, (stride, channels)) in blocks.into_iter().enumerate() {
        b.depthwise(&format!("b{i}.dw"), stride);
        b.pointwise(&format!("b{i}.pw"), channels);
    }
    b.global_average();
    b.linear("logits", 2);
    b.done()
}

/// Keyword spotting: DS-CNN on 49 frames of 10 coefficients.
fn dscnn() -> Network {
    let mut b = Builder::new("dscnn", Shape::new(49, 10, 1));
    b.conv("stem", TensorId::INPUT, (10, 4), 2, 64);
    for i in 0..4 {
        b.depthwise(&format!("b{i}.dw"), 1);
        b.pointwise(&format!("b{i}.pw"), 64);
    }
    b.global_average();
    b.linear("logits", 12);
    b.done()
}

/// Anomaly detection: a fully connected autoencoder on 5 frames of 128 mel bands.
fn fcae() -> Network {
    let mut b = Builder::new("fcae", Shape::new(1, 1, 640));
    for (i, width) in [128, 128, 128, 128, 8, 128, 128, 128, 128, 640].into_iter().enumerate() {
        b.linear(&format!("fc{i}"), width);
    }
    b.done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_benchmark() {
        // MACs: Vela's count for the benchmark's ResNet-8 and DS-CNN (less its softmax and the
        // multiplications of average pooling); weights of the others: 221,794 published parameters
        // of the second are 208,112 weights, 5 for each of 2,736 channels and 2 biases.
        for (name, macs, weights) in [
            ("resnet8", 12_501_632, 77_360),
            ("mobilenetv1-0.25-96", 7_489_664, 208_112),
            ("dscnn", 2_656_768, 22_016),
            ("fcae", 264_192, 264_192),
        ] {
            let network = network(name).unwrap();
            network.validate().unwrap();
            assert_eq!(network.macs(), macs, "{name}");
            let total: usize = network.shapes().iter().map(LayerShape::weights).sum();
            assert_eq!(total, weights, "{name}");
        }
        assert!(network("resnet9").is_none());
        assert_eq!(NAMES.map(|name| network(name).unwrap().name), NAMES);
    }
}
