//! One network as training sees it: real weights and normalizations of every layer, learned steps
//! of every quantizer, and the forward pass that rounds exactly as the exported integers will.
//!
//! Every convolution is followed by a batch normalization, and by a ReLU where its output tensor
//! is unsigned; a linear layer has a bias. Must not know: data sets, schedules, checkpoints.

mod integers;

use jaq_network::{Network, Op, Shape, TrainedNetwork, Window};

use crate::checkpoint::Values;
use crate::ops::{Activation, Backend, Grid, Norm, Options, RunningStats, Slide, StepRule};
use crate::optim::Parameter;
use crate::quant::{Folded, first_step, first_steps, trained_layer};
use crate::rng::{Purpose, Rng};
use integers::Coded;

/// What a forward pass is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    /// Gradients are wanted; normalization by the batch, running statistics follow.
    Train,
    /// Gradients are wanted, as of [`Phase::Eval`] straight through its roundings; every tensor is
    /// what the exported integers make of it. Running statistics stay.
    Integers,
    /// Quantizer steps are set to fit this batch.
    Calibrate,
    /// Running statistics move towards the batch by this share, nothing else changes.
    Estimate(f32),
    /// Running statistics normalize: the network as exported.
    Eval,
}

/// Why a network cannot be trained here.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SubnetError {
    #[error("layer `{layer}`: {reason}")]
    Layer { layer: String, reason: String },
}

/// A parameter with its shape.
struct Weight<V> {
    var: V,
    shape: Vec<usize>,
}

struct Trainable<V> {
    weight: Option<Weight<V>>,
    /// One step for each output channel.
    weight_step: Option<V>,
    gamma: Option<V>,
    /// Shift of the normalization, bias of a linear layer.
    beta: Option<V>,
    stats: RunningStats,
    /// Step of the output tensor.
    step: Option<V>,
}

/// A network with trainable values.
pub struct Subnet<B: Backend> {
    network: Network,
    quantized: bool,
    layers: Vec<Trainable<B::Var>>,
    /// How the steps of tensors learn; by LSQ at first.
    pub activations: StepRule,
}

/// Step of the input tensor: images are `raw / 255`, codes the raw bytes.
const INPUT_STEP: f32 = 1.0 / 255.0;

impl<B: Backend> Subnet<B> {
    /// A network with weights and normalizations from `values` where they have them in the right
    /// length, else fresh ones. Steps want a pass of [`Phase::Calibrate`] unless they are there.
    pub fn new(
        backend: &B,
        network: &Network,
        quantized: bool,
        values: &Values,
        seed: u64,
    ) -> Result<Subnet<B>, SubnetError> {
        let mut layers = Vec::new();
        for (index, layer) in network.layers.iter().enumerate() {
            let shape = network.shape(index);
            let (oc, ic) = (usize::from(shape.output.c), usize::from(shape.input.c));
            let dims = match layer.op {
                Op::Conv(w) => Some(vec![oc, ic, w.kh.into(), w.kw.into()]),
                Op::Depthwise(w) => Some(vec![oc, w.kh.into(), w.kw.into()]),
                Op::Linear => Some(vec![oc, ic]),
                Op::Add => None,
                Op::AvgPool(w) if is_global(w, shape.input) => None,
                Op::AvgPool(w) if w.kh == w.kw && w.stride == w.kh => None,
                Op::AvgPool(_) | Op::MaxPool(_) => {
                    return Err(SubnetError::Layer {
                        layer: layer.name.clone(),
                        reason: "only square average pools without overlap are trained".into(),
                    });
                }
            };
            let get = |part: &str, len: usize| {
                let found = values.get(&format!("{}.{part}", layer.name));
                found.filter(|v| v.len() == len).cloned()
            };
            let mut made = Trainable {
                weight: None,
                weight_step: None,
                gamma: None,
                beta: None,
                stats: RunningStats::new(oc),
                step: None,
            };
            if let Some(dims) = dims {
                let mut rng = Rng::at(seed, Purpose::Init, index as u64);
                let deviation = (2.0 / shape.reduction() as f32).sqrt();
                let fresh = || (0..shape.weights()).map(|_| rng.normal() * deviation).collect();
                let weights: Vec<f32> = get("weight", shape.weights()).unwrap_or_else(fresh);
                if quantized && let Some(bits) = layer.weight_bits {
                    let steps = get("weight.step", oc)
                        .unwrap_or_else(|| first_steps(&weights, oc, Grid::signed(bits.get())));
                    made.weight_step = Some(backend.var(&steps, &[oc]));
                }
                made.weight = Some(Weight { var: backend.var(&weights, &dims), shape: dims });
                let beta = get("beta", oc).unwrap_or_else(|| vec![0.0; oc]);
                made.beta = Some(backend.var(&beta, &[oc]));
                if layer.op != Op::Linear {
                    let gamma = get("gamma", oc).unwrap_or_else(|| vec![1.0; oc]);
                    made.gamma = Some(backend.var(&gamma, &[oc]));
                    if let (Some(mean), Some(var)) = (get("mean", oc), get("var", oc)) {
                        made.stats = RunningStats { mean, var };
                    }
                }
            }
            if quantized {
                let step = get("output.step", 1).unwrap_or_else(|| vec![1.0]);
                made.step = Some(backend.var(&step, &[1]));
            }
            layers.push(made);
        }
        let activations = StepRule::default();
        Ok(Subnet { network: network.clone(), quantized, layers, activations })
    }

    /// The trainable parameters, in a fixed order.
    pub fn parameters(&self) -> Vec<Parameter<B::Var>> {
        let mut all = Vec::new();
        for (layer, t) in self.network.layers.iter().zip(&self.layers) {
            let name = |part: &str| format!("{}.{part}", layer.name);
            let clone = |v: &Option<B::Var>| v.clone();
            all.extend(t.weight.as_ref().map(|w| Parameter::new(name("weight"), w.var.clone())));
            all.extend(clone(&t.weight_step).map(|v| Parameter::step(name("weight.step"), v)));
            all.extend(clone(&t.gamma).map(|v| Parameter::undecayed(name("gamma"), v)));
            all.extend(clone(&t.beta).map(|v| Parameter::undecayed(name("beta"), v)));
            all.extend(clone(&t.step).map(|v| Parameter::step(name("output.step"), v)));
        }
        all
    }

    /// Every parameter and running statistic by name: what [`Subnet::new`] takes.
    pub fn values(&self, backend: &B) -> Values {
        let parameters = self.parameters().into_iter();
        let mut values: Values = parameters.map(|p| (p.name, backend.var_to_vec(&p.var))).collect();
        for (layer, t) in self.network.layers.iter().zip(&self.layers) {
            if t.gamma.is_some() {
                values.insert(format!("{}.mean", layer.name), t.stats.mean.clone());
                values.insert(format!("{}.var", layer.name), t.stats.var.clone());
            }
        }
        values
    }

    /// Logits `[N, classes]` of images `[N, C, H, W]` (`raw / 255`).
    pub fn forward(&mut self, backend: &B, images: B::Tensor, phase: Phase) -> B::Tensor {
        let b = backend;
        let batch = b.shape(&images)[0];
        let leaf = |var: &B::Var| match phase {
            Phase::Train | Phase::Integers => b.leaf(var),
            _ => b.detach(&b.leaf(var)),
        };
        let mut tensors = vec![images];
        let coded: Vec<Coded> = match phase {
            Phase::Integers => self.coded(b),
            _ => Vec::new(),
        };
        for (index, (layer, t)) in self.network.layers.iter().zip(&mut self.layers).enumerate() {
            let x = &tensors[layer.inputs[0].0];
            let weights = t.weight.as_ref().map(|w| {
                let value = leaf(&w.var);
                match (&t.weight_step, layer.weight_bits) {
                    (Some(step), Some(bits)) => {
                        b.fake_quant(&value, &leaf(step), Grid::signed(bits.get()), false)
                    }
                    _ => value,
                }
            });
            let slide = |w: Window| Slide {
                stride: w.stride.into(),
                pads: [w.pads.top, w.pads.bottom, w.pads.left, w.pads.right].map(usize::from),
            };
            let made = match (layer.op, &weights) {
                (Op::Conv(w), Some(weights)) => b.conv2d(x, weights, slide(w)),
                (Op::Depthwise(w), Some(weights)) => b.depthwise(x, weights, slide(w)),
                (Op::Linear, Some(weights)) => {
                    let features = b.shape(x)[1];
                    let flat = b.reshape(x, &[batch, features]);
                    let out = b.linear(&flat, weights, t.beta.as_ref().map(&leaf).as_ref());
                    let classes = b.shape(&out)[1];
                    b.reshape(&out, &[batch, classes, 1, 1])
                }
                (Op::Add, _) => {
                    let sum = b.add(x, &tensors[layer.inputs[1].0]);
                    // An unsigned grid cuts at zero by itself.
                    let cut = t.step.is_none() && !layer.output.signed;
                    if cut { b.relu(&sum) } else { sum }
                }
                (Op::AvgPool(w), _) => {
                    let shape = b.shape(x);
                    match shape[2..] == [w.kh, w.kw].map(usize::from) {
                        true => b.reshape(&b.global_avg_pool(x), &[batch, shape[1], 1, 1]),
                        false => b.avg_pool(x, w.kh.into()),
                    }
                }
                (op, _) => unreachable!("{op:?} was refused when the subnet was made"),
            };
            let real = made.clone();
            let grid = grid(layer.output.signed, layer.output.bits.get());
            let grid = grid.learned_by(self.activations);
            let fit = |b: &B, made: &B::Tensor, step: &B::Var| {
                b.assign(step, &[first_step(&b.to_vec(made), grid)]);
            };
            let made = match (&t.gamma, &t.beta) {
                (Some(gamma), Some(beta)) => {
                    let norm = match phase {
                        Phase::Train => Norm::Train { stats: &mut t.stats, momentum: 0.1 },
                        Phase::Calibrate => Norm::Batch,
                        Phase::Estimate(momentum) => Norm::Train { stats: &mut t.stats, momentum },
                        Phase::Eval | Phase::Integers => Norm::Eval(&t.stats),
                    };
                    let relu = match layer.output.signed {
                        true => Activation::Identity,
                        false => Activation::Relu,
                    };
                    let (gamma, beta) = (leaf(gamma), leaf(beta));
                    match &t.step {
                        Some(step) => {
                            if phase == Phase::Calibrate {
                                fit(
                                    b,
                                    &b.batch_norm(&made, &gamma, &beta, Norm::Batch, relu),
                                    step,
                                );
                            }
                            let (steps, p) = (&leaf(step), &b.tensor(&[1.0], &[1]));
                            let options = Options { grids: &[grid], steps, p, channels: None };
                            b.batch_norm_quant(&made, &gamma, &beta, norm, relu, &options)
                        }
                        None => b.batch_norm(&made, &gamma, &beta, norm, relu),
                    }
                }
                _ => match &t.step {
                    Some(step) => {
                        if phase == Phase::Calibrate {
                            fit(b, &made, step);
                        }
                        b.fake_quant(&made, &leaf(step), grid, true)
                    }
                    None => made,
                },
            };
            let made = match coded.get(index + 1) {
                None => made,
                Some(output) => {
                    let of = |i: usize| (&tensors[layer.inputs[i].0], coded[layer.inputs[i].0]);
                    let (x, input) = of(0);
                    let exact = match layer.op {
                        Op::Add => {
                            let (y, other) = of(1);
                            let (x, y) = (b.to_vec(x), b.to_vec(y));
                            integers::added(&x, &y, [input, other], *output)
                        }
                        Op::AvgPool(w) => {
                            integers::pooled(&b.to_vec(&real), w.taps(), input, *output)
                        }
                        _ => t.exact(b, &real, input, *output),
                    };
                    b.straight_through(&made, &exact)
                }
            };
            tensors.push(made);
        }
        let logits = tensors.pop().expect("a network has layers");
        let classes = b.shape(&logits)[1];
        b.reshape(&logits, &[batch, classes])
    }

    /// Grids of the input and of every layer's output; empty for a real-valued network.
    fn coded(&self, backend: &B) -> Vec<Coded> {
        if !self.quantized {
            return Vec::new();
        }
        let step = |t: &Trainable<B::Var>| {
            let step = t.step.as_ref().map(|v| backend.var_to_vec(v)[0]);
            step.unwrap_or(1.0).max(crate::ops::MIN_STEP)
        };
        let layers = self.network.layers.iter().zip(&self.layers);
        let layers = layers.map(|(layer, t)| Coded::new(&layer.output, step(t)));
        [Coded::new(&self.network.input, INPUT_STEP)].into_iter().chain(layers).collect()
    }

    /// The integers that compute what [`Phase::Eval`] computes; `None` for a real-valued network.
    pub fn export(&self, backend: &B) -> Option<TrainedNetwork> {
        if !self.quantized {
            return None;
        }
        let value = |var: &Option<B::Var>| var.as_ref().map(|v| backend.var_to_vec(v));
        let mut scales = vec![INPUT_STEP];
        let mut layers = Vec::new();
        for (layer, t) in self.network.layers.iter().zip(&self.layers) {
            scales.push(value(&t.step)?[0]);
            layers.push(match (&t.weight, layer.weight_bits) {
                (Some(weight), Some(bits)) => {
                    let (steps, after) = (value(&t.weight_step)?, t.after(backend));
                    let kernel = match layer.op {
                        Op::Conv(w) | Op::Depthwise(w) => w.taps(),
                        _ => 1,
                    };
                    let weights = backend.var_to_vec(&weight.var);
                    debug_assert_eq!(weights.len(), weight.shape.iter().product::<usize>());
                    Some(trained_layer(&weights, kernel, &steps, Grid::signed(bits.get()), &after))
                }
                _ => None,
            });
        }
        Some(TrainedNetwork { network: self.network.clone(), scales, layers })
    }
}

impl<V: Clone> Trainable<V> {
    /// What follows a layer's sums.
    fn after<B: Backend<Var = V>>(&self, backend: &B) -> Folded {
        let value = |var: &Option<V>| var.as_ref().map(|v| backend.var_to_vec(v));
        let beta = value(&self.beta).unwrap_or_default();
        match value(&self.gamma) {
            Some(gamma) => Folded::norm(&gamma, &beta, &self.stats),
            None => Folded::bias(&beta),
        }
    }

    /// Outputs of a layer with weights by its integers; `real` are its sums, of a linear layer
    /// with the bias.
    fn exact<B: Backend<Var = V>>(
        &self,
        backend: &B,
        real: &B::Tensor,
        input: Coded,
        output: Coded,
    ) -> Vec<f32> {
        let shape = backend.shape(real);
        let pixels = shape[2] * shape[3];
        let steps = self.weight_step.as_ref().map(|v| backend.var_to_vec(v)).unwrap_or_default();
        let steps: Vec<f32> = steps.iter().map(|s| s.max(crate::ops::MIN_STEP)).collect();
        let after = self.after(backend);
        let mut sums = backend.to_vec(real);
        if self.gamma.is_none() {
            let bias = |index: usize| after.summand[index / pixels % steps.len()];
            sums.iter_mut().enumerate().for_each(|(i, sum)| *sum -= bias(i));
        }
        integers::weighted(&sums, pixels, input, &steps, &after, output)
    }
}

/// Whether the window is the whole tensor.
fn is_global(window: Window, input: Shape) -> bool {
    (u16::from(window.kh), u16::from(window.kw)) == (input.h, input.w)
}

/// Integers of a tensor: its zero point is the grid's lower end, negated.
pub fn grid(signed: bool, bits: u32) -> Grid {
    if signed { Grid::signed(bits) } else { Grid::unsigned(bits) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, Split, plain, subset};
    use crate::ops::candle::Candle;
    use crate::space::Choice;
    use crate::space::tests::small_space;
    use jaq_network::{Bits, TensorId, reference};

    /// Codes of every tensor of one image, from the exported values alone, pixel by pixel.
    fn codes(trained: &TrainedNetwork, image: &[u8]) -> Vec<Vec<i32>> {
        let mut tensors: Vec<Vec<i32>> = vec![image.iter().map(|raw| i32::from(*raw)).collect()];
        for (index, layer) in trained.network.layers.iter().enumerate() {
            let shape = trained.network.shape(index);
            let (from, to) = (shape.input, shape.output);
            let of = |id: TensorId| {
                let tensor = trained.network.tensor(id);
                (&tensors[id.0], i32::from(tensor.zero_point()), f64::from(trained.scale(id)))
            };
            let (input, zero, scale) = of(layer.inputs[0]);
            let at =
                |s: Shape, y: usize, x: usize, c: usize| (y * s.w as usize + x) * s.c as usize + c;
            let window = layer.op.window();
            let mut output = Vec::new();
            for position in 0..to.elements() {
                let c = position % to.c as usize;
                let (y, x) = (
                    position / to.c as usize / to.w as usize,
                    position / to.c as usize % to.w as usize,
                );
                // Sum over the window of f(code - zero, tap, channel).
                let sum = |channels: std::ops::Range<usize>,
                           f: &dyn Fn(i32, usize, usize) -> i32| {
                    let mut sum = 0;
                    for tap in 0..window.taps() {
                        let (kw, stride) = (window.kw as usize, window.stride as usize);
                        let sy = (y * stride + tap / kw) as isize - window.pads.top as isize;
                        let sx = (x * stride + tap % kw) as isize - window.pads.left as isize;
                        if !(0..from.h as isize).contains(&sy)
                            || !(0..from.w as isize).contains(&sx)
                        {
                            continue;
                        }
                        for channel in channels.clone() {
                            let code = input[at(from, sy as usize, sx as usize, channel)];
                            sum += f(code - zero, tap, channel);
                        }
                    }
                    f64::from(sum)
                };
                let real = match (layer.op, &trained.layers[index]) {
                    (Op::Add, _) => {
                        let (other, zero2, scale2) = of(layer.inputs[1]);
                        f64::from(input[position] - zero) * scale
                            + f64::from(other[position] - zero2) * scale2
                    }
                    (Op::AvgPool(_), _) => {
                        sum(c..c + 1, &|code, _, _| code) * scale / window.taps() as f64
                    }
                    (op, Some(values)) => {
                        let (taps, ic) = (window.taps(), from.c as usize);
                        let acc = match op {
                            Op::Depthwise(_) => sum(c..c + 1, &|code, tap, _| {
                                code * i32::from(values.weights[c * taps + tap])
                            }),
                            _ => sum(0..ic, &|code, tap, channel| {
                                code * i32::from(values.weights[(c * taps + tap) * ic + channel])
                            }),
                        };
                        f64::from(values.scale[c]) * scale * acc + f64::from(values.offset[c])
                    }
                    (op, None) => unreachable!("{op:?} has values"),
                };
                let tensor = &layer.output;
                let step = f64::from(trained.scale(TensorId::output_of(index)));
                let code = (real / step).round() as i32 + i32::from(tensor.zero_point());
                output.push(code.clamp(0, tensor.bits.max_unsigned() as i32));
            }
            tensors.push(output);
        }
        tensors
    }

    /// Of the logits of 8 images, how many the exported integers compute as training does, and how
    /// many different ones there are.
    fn agreement(network: &Network, data: &Dataset) -> (usize, usize) {
        let b = Candle;
        let mut subnet = Subnet::new(&b, network, true, &Values::new(), 5).unwrap();
        let batch = |range: std::ops::Range<usize>| {
            let (images, labels) = plain(&data.train, data.shape, range);
            let [h, w, c] = [data.shape.h, data.shape.w, data.shape.c].map(usize::from);
            b.tensor(&images, &[labels.len(), c, h, w])
        };
        subnet.forward(&b, batch(0..32), Phase::Calibrate);
        subnet.forward(&b, batch(32..64), Phase::Estimate(1.0));
        let trained = subnet.export(&b).unwrap();
        trained.validate().unwrap();
        let logits = b.to_vec(&subnet.forward(&b, batch(0..8), Phase::Eval));
        let step = trained.scales[trained.scales.len() - 1];
        let (mut equal, mut distinct) = (0, std::collections::BTreeSet::new());
        for (i, row) in logits.chunks(10).enumerate() {
            let integers = codes(&trained, data.train.image(i)).pop().unwrap();
            for (real, code) in row.iter().zip(integers) {
                distinct.insert(code);
                equal += usize::from(((real / step).round() as i32 + 128) == code);
            }
        }
        (equal, distinct.len())
    }

    #[test]
    fn exported_integers_compute_what_training_computed() {
        let space = small_space();
        let data = subset::open().unwrap().reduced(64, 8);
        for seed in 0..4 {
            let choice = Choice {
                operators: space.sections.iter().map(|s| seed % s.operators.len()).collect(),
                widths: space
                    .genes
                    .iter()
                    .enumerate()
                    .map(|(i, g)| (i + seed) % g.options.len())
                    .collect(),
            };
            let (equal, distinct) = agreement(&space.network(&choice), &data);
            // A value on the edge between two codes may fall to either side; 2-bit tensors make
            // such an edge visible in the logits.
            assert!(equal >= 70, "network {seed}: {equal} of 80 logits agree");
            assert!(distinct > 8, "network {seed}: the logits say nothing");
        }
    }

    /// The pass by integers has gradients for everything that has a part in it, and changes nothing.
    #[test]
    fn integer_passes_have_gradients() {
        let b = Candle;
        let space = small_space();
        let data = subset::open().unwrap().reduced(96, 8);
        let choice = Choice {
            operators: vec![0; space.sections.len()],
            widths: space.genes.iter().enumerate().map(|(i, g)| i % g.options.len()).collect(),
        };
        let network = space.network(&choice);
        let mut subnet = Subnet::new(&b, &network, true, &Values::new(), 5).unwrap();
        let batch = |range: std::ops::Range<usize>| {
            let (images, labels) = plain(&data.train, data.shape, range);
            b.tensor(&images, &[labels.len(), 1, 28, 28])
        };
        subnet.forward(&b, batch(0..32), Phase::Calibrate);
        subnet.forward(&b, batch(32..96), Phase::Estimate(1.0));
        let (before, x) = (subnet.values(&b), batch(0..32));
        let logits = subnet.forward(&b, x, Phase::Integers);
        let parameters = subnet.parameters();
        let vars: Vec<_> = parameters.iter().map(|p| p.var.clone()).collect();
        let labels: Vec<u32> = (0..32).map(|i| i % 10).collect();
        let grads = b.grad(b.cross_entropy(&logits, &labels, 0.0), &vars);
        assert!(grads.iter().all(Option::is_some));
        assert_eq!(subnet.values(&b), before);
    }

    /// ReLU behind additions, strided 1x1 convolutions, a mean over all pixels.
    #[test]
    fn residual_networks_compute_the_same_in_integers() {
        let network = reference::network("resnet8").unwrap();
        let shape = network.input.shape;
        let mut rng = Rng::at(1, Purpose::Augment, 0);
        let images = (0..64 * shape.elements()).map(|_| rng.below(256) as u8).collect();
        let train = Split { images, labels: vec![0; 64] };
        let data = Dataset { train, shape, ..subset::open().unwrap() };
        for bits in [Bits::B4, Bits::B8] {
            let (equal, distinct) = agreement(&network.with_uniform_bits(bits, bits), &data);
            assert!(equal >= 70 && distinct > 8, "{bits} bits: {equal} of 80, {distinct} distinct");
        }
    }

    #[test]
    fn real_sums_are_cut_where_their_integers_are() {
        let b = Candle;
        let network = reference::network("resnet8").unwrap();
        let mut subnet = Subnet::new(&b, &network, false, &Values::new(), 5).unwrap();
        let mut wanted = network.clone();
        let images = b.tensor(&vec![0.5; 2 * 3072], &[2, 3, 32, 32]);
        let cut = b.to_vec(&subnet.forward(&b, images.clone(), Phase::Train));
        // Without the cut the logits differ: some sums are negative.
        wanted.layers.iter_mut().filter(|l| l.op == Op::Add).for_each(|l| l.output.signed = true);
        let mut subnet = Subnet::new(&b, &wanted, false, &Values::new(), 5).unwrap();
        assert_ne!(cut, b.to_vec(&subnet.forward(&b, images, Phase::Train)));
    }
}
