//! The networks of the benchmark, on any backend: parameters are made at their first use.

use jaq_search::ops::{Activation, Backend, Grid, Norm, Options, RunningStats, Slide};
use jaq_search::optim::{Optimizer, Parameter, Rule};
use jaq_search::rng::{Purpose, Rng};

/// What is trained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Model {
    /// MLPerf Tiny's ResNet-8 on 32x32x3, 12.5 MMAC.
    Resnet8,
    /// A MobileNetV2-like network on 32x32x3, about 13 MMAC.
    Mobile,
    /// The size the demonstration trains: a small MobileNet on 28x28x1, about 1.5 MMAC.
    Demo,
}

impl Model {
    pub const ALL: [Model; 3] = [Model::Resnet8, Model::Mobile, Model::Demo];

    pub fn name(self) -> &'static str {
        match self {
            Model::Resnet8 => "resnet8",
            Model::Mobile => "mobilenetv2-like",
            Model::Demo => "demo",
        }
    }

    pub fn input(self) -> [usize; 3] {
        if self == Model::Demo { [1, 28, 28] } else { [3, 32, 32] }
    }
}

/// A model with its parameters.
pub struct Net<B: Backend> {
    backend: B,
    model: Model,
    /// Weight and activation bits, `None` for float.
    bits: Option<(u32, u32)>,
    pub parameters: Vec<Parameter<B::Var>>,
    stats: Vec<RunningStats>,
    used: (usize, usize),
    rng: Rng,
    pub macs: usize,
    optimizer: Optimizer,
}

impl<B: Backend> Net<B> {
    pub fn new(backend: B, model: Model, bits: Option<(u32, u32)>) -> Net<B> {
        let rule = Rule::Sgd { momentum: 0.9, nesterov: false, weight_decay: 1e-4 };
        Net {
            backend,
            model,
            bits,
            parameters: Vec::new(),
            stats: Vec::new(),
            used: (0, 0),
            rng: Rng::at(1, Purpose::Init, 0),
            macs: 0,
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

    fn weights(&mut self, shape: &[usize]) -> B::Tensor {
        let fan: usize = shape[1..].iter().product();
        let n: usize = shape.iter().product();
        let deviation = (2.0 / fan as f32).sqrt();
        let w = self.parameter(shape, |rng| (0..n).map(|_| rng.normal() * deviation).collect());
        let Some((bits, _)) = self.bits else { return w };
        let grid = Grid::signed(bits);
        let first = 2.0 * deviation / grid.max as f32;
        let steps = self.parameter(&shape[..1], |_| vec![first; shape[0]]);
        self.backend.fake_quant(&w, &steps, grid, false)
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
        let (oh, ow) = slide.output(h, w, k, k);
        self.macs += oh * ow * oc * k * k * if depthwise { 1 } else { c };
        let gamma = self.parameter(&[oc], |_| vec![1.0; oc]);
        let beta = self.parameter(&[oc], |_| vec![0.0; oc]);
        let step = self.bits.map(|(_, bits)| self.quantizer_step(bits, relu));
        let at = self.used.1;
        self.used.1 += 1;
        if at == self.stats.len() {
            self.stats.push(RunningStats::new(oc));
        }
        let norm = Norm::Train { stats: &mut self.stats[at], momentum: 0.1 };
        let activation = if relu { Activation::Relu } else { Activation::Identity };
        let Some((_, bits)) = self.bits else {
            return self.backend.batch_norm(&y, &gamma, &beta, norm, activation);
        };
        let grids = [if relu { Grid::unsigned(bits) } else { Grid::signed(bits) }];
        let steps = &step.expect("made above");
        let p = &self.backend.tensor(&[1.0], &[1]);
        let options = Options { grids: &grids, steps, p, channels: None };
        self.backend.batch_norm_quant(&y, &gamma, &beta, norm, activation, &options)
    }

    fn quantizer_step(&mut self, bits: u32, unsigned: bool) -> B::Tensor {
        let grid = if unsigned { Grid::unsigned(bits) } else { Grid::signed(bits) };
        self.parameter(&[1], |_| vec![2.5 / grid.max as f32])
    }

    fn quantize(&mut self, x: &B::Tensor, unsigned: bool) -> B::Tensor {
        let Some((_, bits)) = self.bits else { return x.clone() };
        let grid = if unsigned { Grid::unsigned(bits) } else { Grid::signed(bits) };
        let step = self.quantizer_step(bits, unsigned);
        self.backend.fake_quant(x, &step, grid, true)
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
        self.macs = 0;
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
            Model::Demo => {
                let mut x = self.block(&x, 16, 3, 2, false, true);
                for (oc, expand, stride) in
                    [(16, 3, 1), (24, 3, 2), (24, 3, 1), (40, 4, 2), (40, 4, 1)]
                {
                    x = self.inverted(&x, oc, expand, 3, stride);
                }
                self.block(&x, 96, 1, 1, false, true)
            }
        };
        let x = self.backend.global_avg_pool(&x);
        let features = self.backend.shape(&x)[1];
        let weight = self.weights(&[10, features]);
        self.macs += 10 * features;
        let bias = self.parameter(&[10], |_| vec![0.0; 10]);
        self.backend.linear(&x, &weight, Some(&bias))
    }

    /// Forward, backward, one step of SGD; the loss.
    pub fn step(&mut self, images: &[f32], labels: &[u32]) -> f32 {
        let logits = self.forward(images);
        let loss = self.backend.cross_entropy(&logits, labels, 0.1);
        let value = self.backend.to_scalar(&loss);
        let vars: Vec<_> = self.parameters.iter().map(|p| p.var.clone()).collect();
        let grads = self.backend.grad(loss, &vars);
        self.optimizer.step(&self.backend, &self.parameters, &grads, 0.01);
        value
    }
}
