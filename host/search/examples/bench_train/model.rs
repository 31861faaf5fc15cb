//! The networks of the benchmark, on any backend: parameters are made at their first use.

use jaq_search::ops::{Activation, Backend, Grid, Norm, Options, RunningStats, Slide};
use jaq_search::optim::{Optimizer, Parameter, Rule};
use jaq_search::rng::{Purpose, Rng};
use serde::{Deserialize, Serialize};

/// What is trained.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Model {
    /// MLPerf Tiny's ResNet-8 on 32x32x3, 12.5 MMAC.
    Resnet8,
    /// A MobileNetV2-like network on 32x32x3, about 13 MMAC.
    Mobile,
}

impl Model {
    pub const ALL: [Model; 2] = [Model::Resnet8, Model::Mobile];

    pub fn name(self) -> &'static str {
        match self {
            Model::Resnet8 => "resnet8",
            Model::Mobile => "mobilenetv2-like",
        }
    }

    pub fn input(self) -> [usize; 3] {
        [3, 32, 32]
    }
}

/// How weights and feature maps are quantized.
#[derive(Clone, PartialEq, Debug)]
pub struct Quantization {
    /// Bit options of both; none for real values.
    pub bits: Vec<u32>,
    /// One operator for all options, else one for each and their weighted sum.
    pub fused: bool,
    /// Share of a feature map's channels that is quantized (fused only).
    pub keep: f32,
}

/// A model with its parameters.
pub struct Net<B: Backend> {
    backend: B,
    model: Model,
    quantization: Quantization,
    parameters: Vec<Parameter<B::Var>>,
    stats: Vec<RunningStats>,
    used: (usize, usize),
    rng: Rng,
    optimizer: Optimizer,
}

impl<B: Backend> Net<B> {
    pub fn new(backend: B, model: Model, quantization: Quantization) -> Net<B> {
        let rule = Rule::Sgd { momentum: 0.9, nesterov: false, weight_decay: 1e-4 };
        Net {
            backend,
            model,
            quantization,
            parameters: Vec::new(),
            stats: Vec::new(),
            used: (0, 0),
            rng: Rng::at(1, Purpose::Init, 0),
            optimizer: Optimizer::new(rule),
        }
    }

    fn parameter(
        &mut self,
        shape: &[usize],
        first: impl FnOnce(&mut Rng) -> Vec<f32>,
    ) -> B::Tensor {
        let at = self.used.0;
        self.used.0 += 1;
        if at == self.parameters.len() {
            let var = self.backend.var(&first(&mut self.rng), shape);
            self.parameters.push(Parameter::new(format!("p{at}"), var));
        }
        self.backend.leaf(&self.parameters[at].var)
    }

    /// Probabilities of the bit options: the constant 1, or equal ones that are learned.
    fn probabilities(&mut self) -> B::Tensor {
        let n = self.quantization.bits.len();
        if n == 1 {
            return self.backend.tensor(&[1.0], &[1]);
        }
        self.parameter(&[n], |_| vec![1.0 / n as f32; n])
    }

    fn grids(&self, unsigned: bool) -> Vec<Grid> {
        let grid = |bits: &u32| if unsigned { Grid::unsigned(*bits) } else { Grid::signed(*bits) };
        self.quantization.bits.iter().map(grid).collect()
    }

    /// `sum_i p_i q_i(x)` in one operator, or composed: every option quantizes all of `x`.
    fn mixed(
        &self,
        x: &B::Tensor,
        steps: &B::Tensor,
        p: &B::Tensor,
        grids: &[Grid],
        per_image: bool,
    ) -> B::Tensor {
        let b = &self.backend;
        if self.quantization.fused {
            return b.mixed_quant(x, steps, p, grids, per_image, None);
        }
        let width = b.shape(steps)[1..].iter().product::<usize>().max(1);
        let option = |(i, grid): (usize, &Grid)| {
            let step = b.reshape(&b.narrow(steps, 0, i, 1), &[width]);
            b.fake_quant(x, &step, *grid, per_image)
        };
        let all: Vec<B::Tensor> = grids.iter().enumerate().map(option).collect();
        b.weighted_sum(&all, p)
    }

    fn weights(&mut self, shape: &[usize]) -> B::Tensor {
        let fan: usize = shape[1..].iter().product();
        let n: usize = shape.iter().product();
        let deviation = (2.0 / fan as f32).sqrt();
        let w = self.parameter(shape, |rng| (0..n).map(|_| rng.normal() * deviation).collect());
        let grids = self.grids(false);
        if grids.is_empty() {
            return w;
        }
        let first = |g: &Grid| vec![2.0 * deviation / g.max as f32; shape[0]];
        let fresh: Vec<f32> = grids.iter().flat_map(first).collect();
        let steps = self.parameter(&[grids.len(), shape[0]], |_| fresh);
        let p = self.probabilities();
        self.mixed(&w, &steps, &p, &grids, false)
    }

    /// Convolution, normalization, activation, quantizer.
    fn block(
        &mut self,
        x: &B::Tensor,
        oc: usize,
        k: usize,
        stride: usize,
        depthwise: bool,
        relu: bool,
    ) -> B::Tensor {
        let [_, c, h, w] = self.backend.shape(x)[..] else { unreachable!("feature maps") };
        let total = |size: usize| ((size.div_ceil(stride) - 1) * stride + k).saturating_sub(size);
        let (th, tw) = (total(h), total(w));
        let slide = Slide { stride, pads: [th / 2, th - th / 2, tw / 2, tw - tw / 2] };
        let y = if depthwise {
            let weight = self.weights(&[c, k, k]);
            self.backend.depthwise(x, &weight, slide)
        } else {
            let weight = self.weights(&[oc, c, k, k]);
            self.backend.conv2d(x, &weight, slide)
        };
        let gamma = self.parameter(&[oc], |_| vec![1.0; oc]);
        let beta = self.parameter(&[oc], |_| vec![0.0; oc]);
        let quantizer = self.quantizer(relu);
        let at = self.used.1;
        self.used.1 += 1;
        if at == self.stats.len() {
            self.stats.push(RunningStats::new(oc));
        }
        let norm = Norm::Train { stats: &mut self.stats[at], momentum: 0.1 };
        let activation = if relu { Activation::Relu } else { Activation::Identity };
        let Some((grids, steps, p)) = &quantizer else {
            return self.backend.batch_norm(&y, &gamma, &beta, norm, activation);
        };
        if !self.quantization.fused {
            let real = self.backend.batch_norm(&y, &gamma, &beta, norm, activation);
            return self.mixed(&real, steps, p, grids, true);
        }
        let kept = (oc as f32 * self.quantization.keep).ceil() as usize;
        let marks: Vec<bool> = (0..oc).map(|c| c < kept).collect();
        let channels = (kept < oc).then_some(marks.as_slice());
        let options = Options { grids, steps, p, channels };
        self.backend.batch_norm_quant(&y, &gamma, &beta, norm, activation, &options)
    }

    /// Grids, steps and probabilities of a feature map; `None` where nothing is quantized.
    fn quantizer(&mut self, unsigned: bool) -> Option<(Vec<Grid>, B::Tensor, B::Tensor)> {
        let grids = self.grids(unsigned);
        if grids.is_empty() {
            return None;
        }
        let fresh: Vec<f32> = grids.iter().map(|g| 2.5 / g.max as f32).collect();
        let steps = self.parameter(&[grids.len()], |_| fresh);
        let p = self.probabilities();
        Some((grids, steps, p))
    }

    fn quantize(&mut self, x: &B::Tensor, unsigned: bool) -> B::Tensor {
        match self.quantizer(unsigned) {
            Some((grids, steps, p)) => self.mixed(x, &steps, &p, &grids, true),
            None => x.clone(),
        }
    }

    fn residual(&mut self, a: &B::Tensor, b: &B::Tensor, relu: bool) -> B::Tensor {
        let sum = self.backend.add(a, b);
        let sum = if relu { self.backend.relu(&sum) } else { sum };
        self.quantize(&sum, relu)
    }

    fn inverted(
        &mut self,
        x: &B::Tensor,
        oc: usize,
        expand: usize,
        k: usize,
        stride: usize,
    ) -> B::Tensor {
        let c = self.backend.shape(x)[1];
        let y = if expand > 1 { self.block(x, c * expand, 1, 1, false, true) } else { x.clone() };
        let y = self.block(&y, c * expand, k, stride, true, true);
        let y = self.block(&y, oc, 1, 1, false, false);
        if stride == 1 && c == oc { self.residual(x, &y, false) } else { y }
    }

    pub fn forward(&mut self, images: &[f32]) -> B::Tensor {
        self.used = (0, 0);
        let [c, h, w] = self.model.input();
        let x = self.backend.tensor(images, &[images.len() / (c * h * w), c, h, w]);
        let x = match self.model {
            Model::Resnet8 => {
                let mut x = self.block(&x, 16, 3, 1, false, true);
                for (oc, stride) in [(16, 1), (32, 2), (64, 2)] {
                    let y = self.block(&x, oc, 3, stride, false, true);
                    let y = self.block(&y, oc, 3, 1, false, false);
                    if stride > 1 {
                        x = self.block(&x, oc, 1, stride, false, false);
                    }
                    x = self.residual(&x, &y, true);
                }
                x
            }
            Model::Mobile => {
                let mut x = self.block(&x, 24, 3, 1, false, true);
                for (oc, expand, stride) in [
                    (24, 1, 1),
                    (32, 4, 2),
                    (32, 4, 1),
                    (64, 4, 2),
                    (64, 4, 1),
                    (64, 4, 1),
                    (96, 4, 2),
                    (96, 4, 1),
                ] {
                    x = self.inverted(&x, oc, expand, 3, stride);
                }
                self.block(&x, 256, 1, 1, false, true)
            }
        };
        let x = self.backend.global_avg_pool(&x);
        let features = self.backend.shape(&x)[1];
        let weight = self.weights(&[10, features]);
        let bias = self.parameter(&[10], |_| vec![0.0; 10]);
        self.backend.linear(&x, &weight, Some(&bias))
    }

    fn loss(&mut self, images: &[f32], labels: &[u32]) -> B::Tensor {
        let logits = self.forward(images);
        self.backend.cross_entropy(&logits, labels, 0.1)
    }

    /// Forward, backward, one step of SGD; the loss.
    pub fn step(&mut self, images: &[f32], labels: &[u32]) -> f32 {
        let loss = self.loss(images, labels);
        let value = self.backend.to_scalar(&loss);
        let vars: Vec<_> = self.parameters.iter().map(|p| p.var.clone()).collect();
        let grads = self.backend.grad(loss, &vars);
        self.optimizer.step(&self.backend, &self.parameters, &grads, 0.01);
        value
    }

    /// Bytes that a forward pass keeps for the backward pass, by what is `live` before and after.
    pub fn saved(&mut self, images: &[f32], labels: &[u32], live: impl Fn() -> usize) -> usize {
        let before = live();
        let loss = self.loss(images, labels);
        let after = live();
        drop(loss);
        after.saturating_sub(before)
    }
}
