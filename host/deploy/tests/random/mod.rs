//! Random trained networks, packed: material of the tests that run whole models.

use jaq_deploy::export::{self, Origin};
use jaq_deploy::requantize::LayerIntegers;
use jaq_network::{
    InputEncoding, Layer, Network, Schedule, Tensor, TensorId, TrainedLayer, TrainedNetwork,
};
use jaq_shared::format::{Bits, LayerShape, Op, Shape, Window};
use jaq_shared::kernels::{self, Isa};

/// A small random number generator, so that a network is a function of its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn bits(&mut self) -> Bits {
        Bits::ALL[self.below(4) as usize]
    }
    fn unit(&mut self) -> f32 {
        self.below(1 << 20) as f32 / (1 << 20) as f32
    }
}

/// Convolution, an inverted bottleneck with residual, pools and a linear layer, at random widths.
pub fn network(seed: u64) -> TrainedNetwork {
    let mut random = Random(seed);
    let input = Tensor {
        shape: Shape::new(9, 8, 1 + random.below(3) as u16),
        bits: Bits::B8,
        signed: false,
    };
    let mut network = Network {
        name: "random".into(),
        input,
        encoding: InputEncoding::IDENTITY,
        layers: Vec::new(),
        classes: vec!["a".into(), "b".into(), "c".into()],
    };
    let c = [4, 8, 12][random.below(3) as usize];
    let three = |s: u8, shape: Shape| Window::same(3, 3, s, shape.h, shape.w);
    let push = |network: &mut Network,
                random: &mut Random,
                name: &str,
                op: Op,
                inputs: Vec<TensorId>,
                channels: u16,
                signed: bool| {
        let from = *network.tensor(inputs[0]);
        let (bits, signed) = match op {
            Op::MaxPool(_) => (from.bits, from.signed),
            _ => (random.bits(), signed),
        };
        let shape = LayerShape::new(
            op,
            from.shape,
            channels,
            jaq_shared::format::LayerBits::uniform(bits, bits),
        )
        .unwrap();
        let weight_bits = op.has_weights().then(|| random.bits());
        let output = Tensor { shape: shape.output, bits, signed };
        network.layers.push(Layer { name: name.into(), op, inputs, output, weight_bits });
        TensorId::output_of(network.layers.len() - 1)
    };
    let (n, r) = (&mut network, &mut random);
    let stem = push(n, r, "stem", Op::Conv(three(2, input.shape)), vec![TensorId::INPUT], c, true);
    let shape = n.tensor(stem).shape;
    let expand = push(n, r, "expand", Op::Conv(Window::POINT), vec![stem], 2 * c + 1, false);
    let dw = push(n, r, "dw", Op::Depthwise(three(1, shape)), vec![expand], 0, false);
    let project = push(n, r, "project", Op::Conv(Window::POINT), vec![dw], c, true);
    let add = push(n, r, "add", Op::Add, vec![project, stem], 0, r_signed(seed));
    let max = push(
        n,
        r,
        "max",
        Op::MaxPool(Window { pads: Default::default(), ..Window::same(2, 2, 2, shape.h, shape.w) }),
        vec![add],
        0,
        false,
    );
    let pooled = n.tensor(max).shape;
    let window = Window { kh: pooled.h as u8, kw: pooled.w as u8, ..Window::POINT };
    let avg = push(n, r, "avg", Op::AvgPool(window), vec![max], 0, r_signed(seed));
    push(n, r, "fc", Op::Linear, vec![avg], 3, true);
    network.layers.last_mut().unwrap().output.bits = Bits::B8;

    let scales = (0..=network.layers.len()).map(|_| 0.03 + 0.18 * random.unit()).collect();
    let layers = (0..network.layers.len())
        .map(|i| {
            let (shape, bits) = (network.shape(i), network.layers[i].weight_bits?);
            let half = bits.half() as i64;
            let channels = usize::from(shape.output.c);
            let gain = 4.0 / (shape.reduction() as f32).sqrt() / half as f32;
            Some(TrainedLayer {
                weights: (0..shape.weights())
                    .map(|_| (random.below(2 * half as u64) as i64 - half) as i8)
                    .collect(),
                scale: (0..channels).map(|_| (random.unit() - 0.3) * gain).collect(),
                offset: (0..channels).map(|_| random.unit() - 0.5).collect(),
            })
        })
        .collect();
    TrainedNetwork { network, scales, layers }
}

fn r_signed(seed: u64) -> bool {
    seed.is_multiple_of(2)
}

/// Every tensor and working memory at a place of its own.
fn schedule(trained: &TrainedNetwork, integers: &[LayerIntegers], isa: Isa) -> Schedule {
    let network = &trained.network;
    let kernels = export::choose_kernels(trained, integers, isa).unwrap();
    let mut end = 0u32;
    let mut place = |bytes: usize| {
        let at = end;
        end += bytes.next_multiple_of(4) as u32;
        at
    };
    let tensor_offsets = (0..=network.layers.len())
        .map(|i| place(network.tensor(TensorId(i)).format().bytes()))
        .collect();
    let scratch_offsets = (0..network.layers.len())
        .map(|i| place(kernels::scratch_bytes(kernels[i], &network.shape(i))))
        .collect();
    Schedule { arena_bytes: end, tensor_offsets, scratch_offsets, kernels }
}

/// The packed model of a network for the host's kernels, and its integers.
#[allow(dead_code)]
pub fn packed(trained: &TrainedNetwork) -> (Vec<u8>, Vec<LayerIntegers>) {
    packed_for(trained, Isa::compiled())
}

/// The packed model of a network for the kernels of `isa`, and its integers.
pub fn packed_for(trained: &TrainedNetwork, isa: Isa) -> (Vec<u8>, Vec<LayerIntegers>) {
    let integers = export::integers(trained).unwrap();
    let schedule = schedule(trained, &integers, isa);
    let origin =
        Origin { tool: "test".into(), board: "none".into(), data: "random".into(), seed: 1 };
    (export::pack(trained, &integers, &schedule, &origin).unwrap().bytes, integers)
}

/// One raw input.
pub fn image(trained: &TrainedNetwork, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..trained.network.input.shape.elements()).map(|_| random.below(256) as u8).collect()
}
