//! The optional backend: libtorch through the tch crate, on CUDA where its libtorch has it.
//!
//! Quantizers are composed of torch's own operators (autograd keeps every intermediate), so a
//! mixture's memory grows with its options here; the values and gradients are those of the
//! embedded backend.

use tch::{Device, Kind, Reduction, Tensor, no_grad};

use super::kernels::quantizer::MIN_STEP;
use super::{Activation, Backend, Grid, NORM_EPSILON, Norm, RunningStats, Slide, StepRule};

/// libtorch on one device.
#[derive(Clone, Copy, Debug)]
pub struct Torch {
    device: Device,
}

impl Torch {
    /// The first CUDA device, else the CPU; `threads` threads within an operator there.
    pub fn new(threads: usize) -> Torch {
        tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(1));
        Torch { device: Device::cuda_if_available() }
    }

    /// The CPU, with `threads` threads within an operator.
    pub fn cpu(threads: usize) -> Torch {
        tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(1));
        Torch { device: Device::Cpu }
    }

    fn made(&self, data: &[f32], shape: &[usize]) -> Tensor {
        Tensor::from_slice(data).reshape(sizes(shape)).to_device(self.device)
    }
}

/// A torch tensor; a clone shares its memory and its place in the graph.
#[derive(Debug)]
pub struct Value(Tensor);

impl Clone for Value {
    fn clone(&self) -> Value {
        Value(self.0.shallow_clone())
    }
}

fn sizes(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|d| *d as i64).collect()
}

fn vec(x: &Tensor) -> Vec<f32> {
    let flat = x.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous().reshape([-1]);
    Vec::try_from(flat).expect("a flat float tensor is a vector")
}

fn dim(x: &Tensor, i: usize) -> usize {
    x.size()[i] as usize
}

/// `factor` of a gradient, all of the value.
fn scale_gradient(x: &Tensor, factor: f64) -> Tensor {
    let scaled = x * factor;
    &scaled + (x - &scaled).detach()
}

/// One quantizer: `step` holds one value, or one for each slice of the first dimension.
fn quantize(x: &Tensor, step: &Tensor, grid: Grid, per_image: bool) -> Tensor {
    let steps = step.numel().max(1);
    let first = if per_image { dim(x, 0) } else { 1 };
    let sharing = x.numel() / steps / first;
    let mut shape = vec![1; x.dim()];
    shape[0] = if steps == 1 { 1 } else { steps as i64 };
    let (min, max) = (f64::from(grid.min), f64::from(grid.max));
    let raised = step + (step.clamp_min(f64::from(MIN_STEP)) - step).detach();
    let factor = match grid.rule {
        StepRule::Lsq => 1.0 / (sharing as f64 * max).sqrt(),
        StepRule::Pact => 1.0 / (max * max),
    };
    let step = scale_gradient(&raised, factor).reshape(shape);
    let scaled = x * step.reciprocal();
    let rounded = scaled.detach().clamp(min - 1.0, max + 1.0).round();
    let integer = rounded.clamp(min, max);
    let inside = integer.eq_tensor(&rounded).to_kind(Kind::Float);
    if grid.rule == StepRule::Pact {
        let kept = x * &inside;
        let straight = &kept + (&integer * &step * &inside - &kept).detach();
        return straight + integer * (1.0 - inside) * step;
    }
    // The value is the integer; the gradient that of the scaled value where it is on the grid.
    let kept = scaled * inside;
    let straight = &kept + (integer - &kept).detach();
    straight * step
}

fn convolution(x: &Tensor, weight: &Tensor, slide: Slide, groups: i64) -> Tensor {
    let [top, bottom, left, right] = slide.pads.map(|p| p as i64);
    let stride = [slide.stride as i64; 2];
    if top == bottom && left == right {
        return x.conv2d::<&Tensor>(weight, None, stride, [top, left], [1, 1], groups);
    }
    let padded = x.constant_pad_nd([left, right, top, bottom]);
    padded.conv2d::<&Tensor>(weight, None, stride, [0, 0], [1, 1], groups)
}

impl Backend for Torch {
    type Tensor = Value;
    type Var = Value;

    fn tensor(&self, data: &[f32], shape: &[usize]) -> Value {
        Value(self.made(data, shape))
    }

    fn to_vec(&self, x: &Value) -> Vec<f32> {
        vec(&x.0)
    }

    fn shape(&self, x: &Value) -> Vec<usize> {
        x.0.size().iter().map(|d| *d as usize).collect()
    }

    fn var(&self, data: &[f32], shape: &[usize]) -> Value {
        Value(self.made(data, shape).set_requires_grad(true))
    }

    fn leaf(&self, var: &Value) -> Value {
        var.clone()
    }

    fn var_to_vec(&self, var: &Value) -> Vec<f32> {
        vec(&var.0)
    }

    fn assign(&self, var: &Value, data: &[f32]) {
        let value = self.made(data, &self.shape(var));
        let mut target = var.0.shallow_clone();
        no_grad(|| target.copy_(&value));
    }

    fn grad(&self, loss: Value, params: &[Value]) -> Vec<Option<Vec<f32>>> {
        if !loss.0.requires_grad() {
            return vec![None; params.len()];
        }
        let inputs: Vec<&Tensor> = params.iter().map(|p| &p.0).collect();
        let grads = Tensor::run_backward(&[&loss.0], &inputs, false, false);
        grads.iter().map(|g| g.defined().then(|| vec(g))).collect()
    }

    fn detach(&self, x: &Value) -> Value {
        Value(x.0.detach())
    }

    fn straight_through(&self, x: &Value, value: &[f32]) -> Value {
        let value = self.made(value, &self.shape(x));
        Value(&x.0 + (value - &x.0).detach())
    }

    fn external(&self, value: f32, inputs: &[Value], grads: &[Vec<f32>]) -> Value {
        assert_eq!(inputs.len(), grads.len(), "one gradient an input");
        let mut sum = self.made(&[0.0], &[1]);
        for (x, grad) in inputs.iter().zip(grads) {
            let products = &x.0 * self.made(grad, &self.shape(x));
            sum = sum + products.sum(Kind::Float).reshape([1]);
        }
        let value = self.made(&[value], &[1]);
        Value(&sum + (value - &sum).detach())
    }

    fn reshape(&self, x: &Value, shape: &[usize]) -> Value {
        Value(x.0.reshape(sizes(shape)))
    }

    fn narrow(&self, x: &Value, dim: usize, start: usize, len: usize) -> Value {
        Value(x.0.narrow(dim as i64, start as i64, len as i64))
    }

    fn crop(&self, w: &Value, kh: usize, kw: usize) -> Value {
        let rank = w.0.dim();
        let (h, w_) = (dim(&w.0, rank - 2), dim(&w.0, rank - 1));
        let rows = w.0.narrow(-2, ((h - kh) / 2) as i64, kh as i64);
        Value(rows.narrow(-1, ((w_ - kw) / 2) as i64, kw as i64))
    }

    fn add(&self, a: &Value, b: &Value) -> Value {
        Value(&a.0 + &b.0)
    }

    fn mul(&self, a: &Value, b: &Value) -> Value {
        Value(&a.0 * &b.0)
    }

    fn scale(&self, x: &Value, factor: f32) -> Value {
        Value(&x.0 * f64::from(factor))
    }

    fn sum(&self, x: &Value) -> Value {
        Value(x.0.sum(Kind::Float).reshape([1]))
    }

    fn weighted_sum(&self, branches: &[Value], weights: &Value) -> Value {
        let term = |(i, branch): (usize, &Value)| &branch.0 * weights.0.narrow(0, i as i64, 1);
        let sum = branches.iter().enumerate().map(term).reduce(|a, b| a + b);
        Value(sum.expect("a weighted sum has branches"))
    }

    fn softmax(&self, logits: &Value) -> Value {
        Value(logits.0.softmax(-1, Kind::Float))
    }

    fn relu(&self, x: &Value) -> Value {
        Value(x.0.relu())
    }

    fn conv2d(&self, x: &Value, weight: &Value, slide: Slide) -> Value {
        Value(convolution(&x.0, &weight.0, slide, 1))
    }

    fn depthwise(&self, x: &Value, weight: &Value, slide: Slide) -> Value {
        Value(convolution(&x.0, &weight.0.unsqueeze(1), slide, x.0.size()[1]))
    }

    fn linear(&self, x: &Value, weight: &Value, bias: Option<&Value>) -> Value {
        Value(x.0.linear(&weight.0, bias.map(|b| &b.0)))
    }

    fn batch_norm(
        &self,
        x: &Value,
        gamma: &Value,
        beta: &Value,
        norm: Norm<'_>,
        activation: Activation,
    ) -> Value {
        let (gamma, beta) = (Some(&gamma.0), Some(&beta.0));
        let tensors = |stats: &RunningStats| {
            [&stats.mean, &stats.var].map(|values| self.made(values, &[values.len()]))
        };
        let run = |running: Option<&[Tensor; 2]>, train: bool, momentum: f32| {
            let (mean, var) = (running.map(|r| &r[0]), running.map(|r| &r[1]));
            let epsilon = f64::from(NORM_EPSILON);
            x.0.batch_norm(gamma, beta, mean, var, train, momentum.into(), epsilon, true)
        };
        let out = match norm {
            Norm::Train { stats, momentum } => {
                let running = tensors(stats);
                let out = run(Some(&running), true, momentum);
                (stats.mean, stats.var) = (vec(&running[0]), vec(&running[1]));
                out
            }
            Norm::Eval(stats) => run(Some(&tensors(stats)), false, 0.0),
            Norm::Batch => run(None, true, 0.0),
        };
        Value(if activation == Activation::Relu { out.relu() } else { out })
    }

    fn avg_pool(&self, x: &Value, window: usize) -> Value {
        let window = [window as i64; 2];
        Value(x.0.avg_pool2d(window, window, [0, 0], false, true, None))
    }

    fn global_avg_pool(&self, x: &Value) -> Value {
        Value(x.0.mean_dim([2i64, 3].as_slice(), false, Kind::Float))
    }

    fn cross_entropy(&self, logits: &Value, labels: &[u32], smoothing: f32) -> Value {
        let labels: Vec<i64> = labels.iter().map(|l| i64::from(*l)).collect();
        let target = Tensor::from_slice(&labels).to_device(self.device);
        let smoothing = f64::from(smoothing);
        let mean = Reduction::Mean;
        let loss = logits.0.cross_entropy_loss::<&Tensor>(&target, None, mean, -100, smoothing);
        Value(loss.reshape([1]))
    }

    fn distillation(&self, logits: &Value, teacher: &[f32], temperature: f32) -> Value {
        let t = f64::from(temperature);
        let teacher = self.made(teacher, &self.shape(logits)) / t;
        let wanted = teacher.log_softmax(-1, Kind::Float);
        let found = (&logits.0 / t).log_softmax(-1, Kind::Float);
        let divergence = (wanted.exp() * (wanted - found)).sum(Kind::Float);
        Value((divergence * (t * t / dim(&logits.0, 0) as f64)).reshape([1]))
    }

    fn fake_quant(&self, x: &Value, step: &Value, grid: Grid, per_image: bool) -> Value {
        Value(quantize(&x.0, &step.0, grid, per_image))
    }

    fn mixed_quant(
        &self,
        x: &Value,
        steps: &Value,
        p: &Value,
        grids: &[Grid],
        per_image: bool,
        channels: Option<&[bool]>,
    ) -> Value {
        let steps = steps.0.reshape([grids.len() as i64, -1]);
        let option = |(i, grid): (usize, &Grid)| {
            let step = steps.narrow(0, i as i64, 1).reshape([-1]);
            quantize(&x.0, &step, *grid, per_image) * p.0.narrow(0, i as i64, 1)
        };
        let mixed = grids.iter().enumerate().map(option).reduce(|a, b| a + b);
        let mixed = mixed.expect("a mixture has options");
        let Some(marks) = channels else { return Value(mixed) };
        let marks: Vec<f32> = marks.iter().map(|m| f32::from(u8::from(*m))).collect();
        let mask = self.made(&marks, &[1, marks.len(), 1, 1]);
        Value(mixed * &mask + &x.0 * (1.0 - mask))
    }
}
