//! candle with nothing but its own operators and its own backward pass: what the embedded backend
//! is measured against. Quantizers are composed; a mixture keeps every option's intermediates.

use candle_core::{D, Device, Result, Tensor, Var};
use jaq_search::ops::{
    Activation, Backend, Grid, MIN_STEP, NORM_EPSILON, Norm, RunningStats, Slide, StepRule,
};

/// candle's own operators on the CPU.
#[derive(Clone, Copy, Debug)]
pub struct Native;

const CPU: Device = Device::Cpu;

fn ok<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("candle: {error}"))
}

fn made(data: &[f32], shape: &[usize]) -> Tensor {
    ok(Tensor::from_slice(data, shape, &CPU))
}

fn vec(x: &Tensor) -> Vec<f32> {
    ok(x.flatten_all().and_then(|x| x.to_vec1()))
}

/// `value`, with the gradient of `x`.
fn straight(x: &Tensor, value: &Tensor) -> Result<Tensor> {
    x + (value - x)?.detach()
}

fn quantize(x: &Tensor, step: &Tensor, grid: Grid, per_image: bool) -> Result<Tensor> {
    assert_eq!(grid.rule, StepRule::Lsq, "the benchmark learns steps by LSQ");
    let steps = step.elem_count();
    let first = if per_image { x.dims()[0] } else { 1 };
    let sharing = x.elem_count() / steps / first;
    let mut shape = vec![1; x.rank()];
    shape[0] = steps;
    let (min, max) = (f64::from(grid.min), f64::from(grid.max));
    let factor = 1.0 / (sharing as f64 * max).sqrt();
    let slow = (step * factor)?;
    let step = (&slow + (step.clamp(MIN_STEP, f32::MAX)? - &slow)?.detach())?.reshape(shape)?;
    let scaled = x.broadcast_div(&step)?;
    let rounded = scaled.detach().clamp(min - 1.0, max + 1.0)?.round()?;
    let integer = rounded.clamp(min, max)?;
    let inside = integer.eq(&rounded)?.to_dtype(x.dtype())?;
    straight(&(scaled * inside)?, &integer)?.broadcast_mul(&step)
}

fn mix(x: &Tensor, steps: &Tensor, p: &Tensor, grids: &[Grid], image: bool) -> Result<Tensor> {
    let steps = steps.reshape((grids.len(), ()))?;
    let mut sum: Option<Tensor> = None;
    for (i, grid) in grids.iter().enumerate() {
        let q = quantize(x, &steps.get(i)?, *grid, image)?;
        let term = q.broadcast_mul(&p.narrow(0, i, 1)?.reshape(vec![1; x.rank()])?)?;
        sum = Some(match sum {
            Some(sum) => (sum + term)?,
            None => term,
        });
    }
    Ok(sum.expect("a mixture has options"))
}

/// Only marked channels go through the mixture; the others are set beside and put back in order.
fn mix_marked(
    mixed: impl Fn(&Tensor) -> Result<Tensor>,
    x: &Tensor,
    marks: &[bool],
) -> Result<Tensor> {
    let of = |wanted: bool| (0..marks.len() as u32).filter(move |c| marks[*c as usize] == wanted);
    let order: Vec<u32> = of(true).chain(of(false)).collect();
    let mut back = vec![0u32; order.len()];
    order.iter().zip(0..).for_each(|(c, at)| back[*c as usize] = at);
    let select = |x: &Tensor, which: Vec<u32>| x.index_select(&Tensor::new(which, &CPU)?, 1);
    let marked = mixed(&select(x, of(true).collect())?)?;
    let all = match of(false).count() {
        0 => marked,
        _ => Tensor::cat(&[marked, select(x, of(false).collect())?], 1)?,
    };
    select(&all, back)
}

fn convolution(x: &Tensor, weight: &Tensor, slide: Slide, groups: usize) -> Result<Tensor> {
    let [top, bottom, left, right] = slide.pads;
    if slide.pads == [top; 4] {
        return x.conv2d(weight, top, slide.stride, 1, groups);
    }
    let x = x.pad_with_zeros(2, top, bottom)?.pad_with_zeros(3, left, right)?;
    x.contiguous()?.conv2d(weight, 0, slide.stride, 1, groups)
}

fn normalize(
    x: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    norm: Norm<'_>,
    activation: Activation,
) -> Result<Tensor> {
    let c = gamma.elem_count();
    let plane = |v: &Tensor| v.reshape((1, c, 1, 1));
    let (mean, var) = match &norm {
        Norm::Eval(stats) => (plane(&made(&stats.mean, &[c]))?, plane(&made(&stats.var, &[c]))?),
        _ => {
            let mean = x.mean_keepdim((0, 2, 3))?;
            let var = x.broadcast_sub(&mean)?.sqr()?.mean_keepdim((0, 2, 3))?;
            (mean, var)
        }
    };
    if let Norm::Train { stats, momentum } = norm {
        let n = (x.elem_count() / c) as f32;
        let follow = |running: &mut Vec<f32>, batch: &Tensor, factor: f32| {
            let pairs = running.iter_mut().zip(vec(batch));
            pairs.for_each(|(r, b)| *r += momentum * (b * factor - *r));
        };
        let RunningStats { mean: running_mean, var: running_var } = stats;
        follow(running_mean, &mean, 1.0);
        follow(running_var, &var, n / (n - 1.0));
    }
    let scaled = x.broadcast_sub(&mean)?;
    let scaled = scaled.broadcast_div(&(var + f64::from(NORM_EPSILON))?.sqrt()?)?;
    let out = scaled.broadcast_mul(&plane(gamma)?)?.broadcast_add(&plane(beta)?)?;
    if activation == Activation::Relu { out.relu() } else { Ok(out) }
}

fn log_softmax(x: &Tensor) -> Result<Tensor> {
    x.broadcast_sub(&x.log_sum_exp(D::Minus1)?.unsqueeze(D::Minus1)?)
}

fn scalar(x: Tensor) -> Result<Tensor> {
    x.sum_all()?.reshape(1)
}

impl Backend for Native {
    type Tensor = Tensor;
    type Var = Var;

    fn tensor(&self, data: &[f32], shape: &[usize]) -> Tensor {
        made(data, shape)
    }

    fn to_vec(&self, x: &Tensor) -> Vec<f32> {
        vec(x)
    }

    fn shape(&self, x: &Tensor) -> Vec<usize> {
        x.dims().to_vec()
    }

    fn var(&self, data: &[f32], shape: &[usize]) -> Var {
        ok(Var::from_tensor(&made(data, shape)))
    }

    fn leaf(&self, var: &Var) -> Tensor {
        var.as_tensor().clone()
    }

    fn var_to_vec(&self, var: &Var) -> Vec<f32> {
        vec(var)
    }

    fn assign(&self, var: &Var, data: &[f32]) {
        ok(var.set(&made(data, var.dims())));
    }

    fn grad(&self, loss: Tensor, params: &[Var]) -> Vec<Option<Vec<f32>>> {
        let grads = ok(loss.backward());
        params.iter().map(|var| grads.get(var).map(vec)).collect()
    }

    fn detach(&self, x: &Tensor) -> Tensor {
        x.detach()
    }

    fn straight_through(&self, x: &Tensor, value: &[f32]) -> Tensor {
        ok(straight(x, &made(value, x.dims())))
    }

    fn external(&self, value: f32, inputs: &[Tensor], grads: &[Vec<f32>]) -> Tensor {
        let term = |(x, g): (&Tensor, &Vec<f32>)| ok(scalar(ok(x * made(g, x.dims()))));
        let sum = inputs.iter().zip(grads).map(term).fold(made(&[0.0], &[1]), |a, b| ok(a + b));
        ok(straight(&sum, &made(&[value], &[1])))
    }

    fn reshape(&self, x: &Tensor, shape: &[usize]) -> Tensor {
        ok(x.reshape(shape))
    }

    fn narrow(&self, x: &Tensor, dim: usize, start: usize, len: usize) -> Tensor {
        ok(x.narrow(dim, start, len).and_then(|x| x.contiguous()))
    }

    fn crop(&self, w: &Tensor, kh: usize, kw: usize) -> Tensor {
        let (h, w_) = (ok(w.dim(D::Minus2)), ok(w.dim(D::Minus1)));
        let rows = ok(w.narrow(D::Minus2, (h - kh) / 2, kh));
        ok(rows.narrow(D::Minus1, (w_ - kw) / 2, kw).and_then(|w| w.contiguous()))
    }

    fn add(&self, a: &Tensor, b: &Tensor) -> Tensor {
        ok(a + b)
    }

    fn mul(&self, a: &Tensor, b: &Tensor) -> Tensor {
        ok(a * b)
    }

    fn scale(&self, x: &Tensor, factor: f32) -> Tensor {
        ok(x * f64::from(factor))
    }

    fn sum(&self, x: &Tensor) -> Tensor {
        ok(scalar(x.clone()))
    }

    fn weighted_sum(&self, branches: &[Tensor], weights: &Tensor) -> Tensor {
        let term = |(i, x): (usize, &Tensor)| {
            let weight = weights.narrow(0, i, 1).and_then(|w| w.reshape(vec![1; x.rank()]));
            ok(x.broadcast_mul(&ok(weight)))
        };
        let sum = branches.iter().enumerate().map(term).reduce(|a, b| ok(a + b));
        sum.expect("a weighted sum has branches")
    }

    fn softmax(&self, logits: &Tensor) -> Tensor {
        ok(log_softmax(logits).and_then(|x| x.exp()))
    }

    fn relu(&self, x: &Tensor) -> Tensor {
        ok(x.relu())
    }

    fn conv2d(&self, x: &Tensor, weight: &Tensor, slide: Slide) -> Tensor {
        ok(convolution(x, weight, slide, 1))
    }

    fn depthwise(&self, x: &Tensor, weight: &Tensor, slide: Slide) -> Tensor {
        let weight = ok(weight.unsqueeze(1));
        ok(convolution(x, &weight, slide, x.dims()[1]))
    }

    fn linear(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let out = ok(x.matmul(&ok(weight.t())));
        bias.map_or(out.clone(), |bias| ok(out.broadcast_add(bias)))
    }

    fn batch_norm(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        norm: Norm<'_>,
        activation: Activation,
    ) -> Tensor {
        ok(normalize(x, [gamma, beta], norm, activation))
    }

    fn avg_pool(&self, x: &Tensor, window: usize) -> Tensor {
        ok(x.avg_pool2d(window))
    }

    fn global_avg_pool(&self, x: &Tensor) -> Tensor {
        ok(x.mean((2, 3)))
    }

    fn cross_entropy(&self, logits: &Tensor, labels: &[u32], smoothing: f32) -> Tensor {
        let [n, classes] = [logits.dims()[0], logits.dims()[1]];
        let mut target = vec![smoothing / classes as f32; n * classes];
        labels.iter().enumerate().for_each(|(i, l)| {
            target[i * classes + *l as usize] += 1.0 - smoothing;
        });
        let product = ok(log_softmax(logits).and_then(|x| x * made(&target, &[n, classes])));
        ok(scalar(product).and_then(|x| x * (-1.0 / n as f64)))
    }

    fn distillation(&self, logits: &Tensor, teacher: &[f32], temperature: f32) -> Tensor {
        let (t, n) = (f64::from(temperature), logits.dims()[0] as f64);
        let log = |x: &Tensor| ok((x / t).and_then(|x| log_softmax(&x)));
        let (wanted, found) = (log(&made(teacher, logits.dims())), log(logits));
        let divergence = ok(ok(wanted.exp()) * ok(&wanted - found));
        ok(scalar(divergence).and_then(|x| x * (t * t / n)))
    }

    fn fake_quant(&self, x: &Tensor, step: &Tensor, grid: Grid, per_image: bool) -> Tensor {
        ok(quantize(x, step, grid, per_image))
    }

    fn mixed_quant(
        &self,
        x: &Tensor,
        steps: &Tensor,
        p: &Tensor,
        grids: &[Grid],
        per_image: bool,
        channels: Option<&[bool]>,
    ) -> Tensor {
        let mixed = |x: &Tensor| mix(x, steps, p, grids, per_image);
        ok(match channels {
            Some(marks) => mix_marked(mixed, x, marks),
            None => mixed(x),
        })
    }
}
