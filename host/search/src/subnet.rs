//! One network as training sees it: real weights and normalizations of every layer, learned steps
//! of every quantizer, and the forward pass that rounds exactly as the exported integers will.
//!
//! Every convolution is followed by a batch normalization, and by a ReLU where its output tensor
//! is unsigned; a linear layer has a bias. Must not know: data sets, schedules, checkpoints.

use jaq_network::{Network, Op, TrainedNetwork, Window};

use crate::checkpoint::Values;
use crate::ops::{Activation, Backend, Grid, Norm, Options, RunningStats, Slide};
use crate::optim::Parameter;
use crate::quant::{Folded, first_step, first_steps, trained_layer};
use crate::rng::{Purpose, Rng};

/// What a forward pass is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    /// Gradients are wanted; normalization by the batch, running statistics follow.
    Train,
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
                Op::AvgPool(w) if w.kh == w.kw && w.stride >= w.kh => None,
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
        Ok(Subnet { network: network.clone(), quantized, layers })
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
            Phase::Train => b.leaf(var),
            _ => b.detach(&b.leaf(var)),
        };
        let mut tensors = vec![images];
        for (layer, t) in self.network.layers.iter().zip(&mut self.layers) {
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
                (Op::Add, _) => b.add(x, &tensors[layer.inputs[1].0]),
                (Op::AvgPool(w), _) if layer.output.shape.pixels() == 1 && w.stride >= w.kh => {
                    let channels = b.shape(x)[1];
                    b.reshape(&b.global_avg_pool(x), &[batch, channels, 1, 1])
                }
                (Op::AvgPool(w), _) => b.avg_pool(x, w.kh.into()),
                (op, _) => unreachable!("{op:?} was refused when the subnet was made"),
            };
            let grid = grid(layer.output.signed, layer.output.bits.get());
            let fit = |b: &B, made: &B::Tensor, step: &B::Var| {
                b.assign(step, &[first_step(&b.to_vec(made), grid)]);
            };
            let made = match (&t.gamma, &t.beta) {
                (Some(gamma), Some(beta)) => {
                    let norm = match phase {
                        Phase::Train => Norm::Train { stats: &mut t.stats, momentum: 0.1 },
                        Phase::Calibrate => Norm::Batch,
                        Phase::Estimate(momentum) => Norm::Train { stats: &mut t.stats, momentum },
                        Phase::Eval => Norm::Eval(&t.stats),
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
            tensors.push(made);
        }
        let logits = tensors.pop().expect("a network has layers");
        let classes = b.shape(&logits)[1];
        b.reshape(&logits, &[batch, classes])
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
                    let (beta, steps) = (value(&t.beta)?, value(&t.weight_step)?);
                    let after = match value(&t.gamma) {
                        Some(gamma) => Folded::norm(&gamma, &beta, &t.stats),
                        None => Folded::bias(&beta),
                    };
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

/// Integers of a tensor: its zero point is the grid's lower end, negated.
pub fn grid(signed: bool, bits: u32) -> Grid {
    if signed { Grid::signed(bits) } else { Grid::unsigned(bits) }
}
