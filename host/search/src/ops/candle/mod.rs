//! The embedded backend: candle tensors on the CPU, operators of our own (`custom`), our own
//! differentiation (`tape`).

mod custom;
mod loss;
mod normalize;
mod tape;

use std::cell::RefCell;
use std::rc::Rc;

use candle_core::{CustomOp2, CustomOp3, Device, Tensor};

use self::custom::{Convolution, Mixture, floats};
pub use self::tape::Value;
use self::tape::{Backward, Node, differentiate, leaf};
use super::kernels::conv::Geometry;
use super::kernels::matrix::{View, product};
use super::{Activation, Backend, Grid, Norm, Options, Slide};

/// candle on the CPU.
///
/// Operators use the rayon pool they are called in; see [`with_threads`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Candle;

/// Runs `f` as a worker of a pool of `threads` threads: operators inside share exactly these, and
/// need not wake a sleeping pool for each of their many short parallel sections.
pub fn with_threads<R: Send>(
    threads: usize,
    f: impl FnOnce() -> R + Send,
) -> Result<R, rayon::ThreadPoolBuildError> {
    keep_freed_memory();
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build()?.install(f))
}

/// Tells glibc to keep freed memory: a training step frees and allocates the same large blocks
/// again and again, and by default each is given back to the kernel and faulted in anew.
fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: these calls only set parameters of the allocator; it takes its own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 16 << 20);
    }
}

/// A trainable tensor; clones share it.
#[derive(Clone)]
pub struct Var {
    value: Rc<RefCell<Tensor>>,
    node: Rc<Node>,
}

const CPU: Device = Device::Cpu;

/// candle's errors here are wrong shapes: mistakes of the caller.
fn checked<T>(result: candle_core::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("tensor operator: {error}"))
}

fn tensor(data: Vec<f32>, shape: &[usize]) -> Tensor {
    checked(Tensor::from_vec(data, shape, &CPU))
}

/// Dimensions, as many as the operator wants.
fn dims<const N: usize>(operator: &str, x: &Value) -> [usize; N] {
    let dims = x.tensor.dims();
    dims.try_into().unwrap_or_else(|_| panic!("{operator} wants {N} dimensions, {dims:?} given"))
}

fn same_shape(operator: &str, a: &Value, b: &Value) {
    let (a, b) = (a.tensor.dims(), b.tensor.dims());
    assert_eq!(a, b, "{operator} wants one shape");
}

/// `f` of every element; large tensors by all threads.
fn map(x: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    use rayon::prelude::*;
    if x.len() < 1 << 15 {
        return x.iter().map(|x| f(*x)).collect();
    }
    x.par_iter().with_min_len(1 << 14).map(|x| f(*x)).collect()
}

/// `f` of every pair of elements; large tensors by all threads.
fn zip(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    use rayon::prelude::*;
    assert_eq!(a.len(), b.len());
    if a.len() < 1 << 15 {
        return a.iter().zip(b).map(|(a, b)| f(*a, *b)).collect();
    }
    a.par_iter().zip(b).with_min_len(1 << 14).map(|(a, b)| f(*a, *b)).collect()
}

fn sum_of(a: &Tensor, b: &Tensor) -> Tensor {
    tensor(zip(&floats(a), &floats(b), |a, b| a + b), a.dims())
}

/// Records a custom operator with two arguments.
fn apply2<C: CustomOp2 + 'static>(a: &Value, b: &Value, op: C) -> Value {
    let out = checked(a.tensor.apply_op2_no_bwd(&b.tensor, &op));
    Value::made(out, &[a, b], || {
        let (a, b) = (a.tensor.clone(), b.tensor.clone());
        // The operators do not look at their result; an argument stands in for it.
        Box::new(move |grad| {
            let (da, db) = checked(op.bwd(&a, &b, &a, grad));
            vec![da, db]
        })
    })
}

/// Records a custom operator with three arguments.
fn apply3<C: CustomOp3 + 'static>(parents: [&Value; 3], op: Rc<C>) -> Value {
    let [a, b, c] = parents.map(|p| p.tensor.clone());
    let out = checked(a.apply_op3_no_bwd(&b, &c, &*op));
    Value::made(out, &parents, || {
        Box::new(move |grad| {
            let (da, db, dc) = checked(op.bwd(&a, &b, &c, &a, grad));
            vec![da, db, dc]
        })
    })
}

/// Records an operator of one argument whose gradient is a function of the incoming one.
fn unary(x: &Value, out: Tensor, backward: impl FnOnce(&Tensor) -> Tensor + 'static) -> Value {
    Value::made(out, &[x], || -> Backward { Box::new(move |grad| vec![Some(backward(grad))]) })
}

/// Rectangles `[outer, rows, inner]` of a larger `[outer, size, inner]`, as `narrow` sees them.
fn spans(
    shape: &[usize],
    dim: usize,
    start: usize,
    len: usize,
) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
    let outer: usize = shape[..dim].iter().product();
    let inner: usize = shape[dim + 1..].iter().product();
    let size = shape[dim] * inner;
    (0..outer).map(move |o| o * size + start * inner..o * size + (start + len) * inner)
}

/// Copies `ranges` of `data` one after the other.
fn gather(data: &[f32], ranges: impl Iterator<Item = std::ops::Range<usize>>) -> Vec<f32> {
    ranges.fold(Vec::new(), |mut out, range| {
        out.extend_from_slice(&data[range]);
        out
    })
}

/// The transpose of [`gather`], into zeros.
fn scatter(
    data: &[f32],
    ranges: impl Iterator<Item = std::ops::Range<usize>>,
    elements: usize,
) -> Vec<f32> {
    let mut out = vec![0.0; elements];
    let mut data = data;
    for range in ranges {
        let (part, rest) = data.split_at(range.len());
        out[range].copy_from_slice(part);
        data = rest;
    }
    out
}

/// The operator that quantizes `x`, its shapes checked.
fn mixture(
    x: &Value,
    steps: &Value,
    p: &Value,
    grids: &[Grid],
    per_image: bool,
    channels: Option<&[bool]>,
) -> Mixture {
    let elements = x.tensor.elem_count();
    let options = grids.len();
    let per_option = steps.tensor.elem_count() / options;
    let first = x.tensor.dims()[0];
    assert_eq!(p.tensor.elem_count(), options, "one probability an option");
    assert_eq!(per_option * options, steps.tensor.elem_count(), "steps for every option");
    assert!(per_option == 1 || per_option == first, "one step, or one a slice of {first}");
    let mut pixels = elements;
    if let Some(marks) = channels {
        let [_, c, h, w] = dims("a channel mask", x);
        assert!(marks.len() == c && per_option == 1, "one mark for each of {c} channels");
        pixels = h * w;
    }
    let sharing = elements / per_option / if per_image { first } else { 1 };
    let channels = channels.map(<[bool]>::to_vec);
    Mixture { grids: grids.to_vec(), steps: per_option, sharing, channels, pixels }
}

impl Candle {
    fn select(&self, x: &Value, shape: Vec<usize>, ranges: Vec<std::ops::Range<usize>>) -> Value {
        let out = gather(&floats(&x.tensor), ranges.iter().cloned());
        let full = x.tensor.dims().to_vec();
        unary(x, tensor(out, &shape), move |grad| {
            let elements = full.iter().product();
            tensor(scatter(&floats(grad), ranges.into_iter(), elements), &full)
        })
    }

    fn convolution(&self, x: &Value, weight: &Value, slide: Slide, depthwise: bool) -> Value {
        let [images, channels, height, width] = dims("a convolution", x);
        let (filters, inputs, kernel) = if depthwise {
            let [c, kh, kw] = dims("depthwise weight", weight);
            (c, c, [kh, kw])
        } else {
            let [oc, ic, kh, kw] = dims("convolution weight", weight);
            (oc, ic, [kh, kw])
        };
        assert_eq!(inputs, channels, "the weight's input channels are not those of the map");
        let geometry = Geometry { images, channels, height, width, filters, kernel, slide };
        let wanted = [x.tracked(), weight.tracked()];
        apply2(x, weight, Convolution { geometry, depthwise, wanted })
    }
}

impl Backend for Candle {
    type Tensor = Value;
    type Var = Var;

    fn tensor(&self, data: &[f32], shape: &[usize]) -> Value {
        Value::constant(tensor(data.to_vec(), shape))
    }

    fn to_vec(&self, x: &Value) -> Vec<f32> {
        floats(&x.tensor).to_vec()
    }

    fn shape(&self, x: &Value) -> Vec<usize> {
        x.tensor.dims().to_vec()
    }

    fn var(&self, data: &[f32], shape: &[usize]) -> Var {
        Var { value: Rc::new(RefCell::new(tensor(data.to_vec(), shape))), node: leaf() }
    }

    fn leaf(&self, var: &Var) -> Value {
        Value::leaf(var.value.borrow().clone(), var.node.clone())
    }

    fn var_to_vec(&self, var: &Var) -> Vec<f32> {
        floats(&var.value.borrow()).to_vec()
    }

    fn assign(&self, var: &Var, data: &[f32]) {
        let shape = var.value.borrow().dims().to_vec();
        *var.value.borrow_mut() = tensor(data.to_vec(), &shape);
    }

    fn grad(&self, loss: Value, params: &[Var]) -> Vec<Option<Vec<f32>>> {
        assert_eq!(loss.tensor.elem_count(), 1, "a gradient is of a scalar");
        let one = tensor(vec![1.0], loss.tensor.dims());
        let grads = differentiate(loss, one, sum_of);
        let of = |var: &Var| grads.get(&var.node.id()).map(|grad| floats(grad).to_vec());
        params.iter().map(of).collect()
    }

    fn detach(&self, x: &Value) -> Value {
        Value::constant(x.tensor.clone())
    }

    fn straight_through(&self, x: &Value, value: &[f32]) -> Value {
        unary(x, tensor(value.to_vec(), x.tensor.dims()), Tensor::clone)
    }

    fn external(&self, value: f32, inputs: &[Value], grads: &[Vec<f32>]) -> Value {
        assert_eq!(inputs.len(), grads.len(), "one gradient an input");
        let parents: Vec<&Value> = inputs.iter().collect();
        Value::made(tensor(vec![value], &[1]), &parents, || {
            let grads: Vec<Tensor> =
                inputs.iter().zip(grads).map(|(x, g)| tensor(g.clone(), x.tensor.dims())).collect();
            Box::new(move |grad| {
                let factor = floats(grad)[0];
                let scaled = |g: &Tensor| tensor(map(&floats(g), |g| g * factor), g.dims());
                grads.iter().map(|g| Some(scaled(g))).collect()
            })
        })
    }

    fn reshape(&self, x: &Value, shape: &[usize]) -> Value {
        let old = x.tensor.dims().to_vec();
        unary(x, checked(x.tensor.reshape(shape)), move |grad| checked(grad.reshape(old)))
    }

    fn narrow(&self, x: &Value, dim: usize, start: usize, len: usize) -> Value {
        let mut shape = x.tensor.dims().to_vec();
        assert!(dim < shape.len() && start + len <= shape[dim], "{start}+{len} of {shape:?}");
        if start == 0 && len == shape[dim] {
            return x.clone();
        }
        let ranges = spans(&shape, dim, start, len).collect();
        shape[dim] = len;
        self.select(x, shape, ranges)
    }

    fn crop(&self, w: &Value, kh: usize, kw: usize) -> Value {
        let mut shape = w.tensor.dims().to_vec();
        let rank = shape.len();
        assert!(rank >= 2 && kh <= shape[rank - 2] && kw <= shape[rank - 1], "crop of {shape:?}");
        let (h, w_) = (shape[rank - 2], shape[rank - 1]);
        if (h, w_) == (kh, kw) {
            return w.clone();
        }
        let (top, left) = ((h - kh) / 2, (w_ - kw) / 2);
        let planes: usize = shape[..rank - 2].iter().product();
        let ranges = (0..planes * kh).map(|i| {
            let start = ((i / kh) * h + top + i % kh) * w_ + left;
            start..start + kw
        });
        let ranges = ranges.collect();
        shape[rank - 2] = kh;
        shape[rank - 1] = kw;
        self.select(w, shape, ranges)
    }

    fn add(&self, a: &Value, b: &Value) -> Value {
        same_shape("an addition", a, b);
        let out = sum_of(&a.tensor, &b.tensor);
        let wanted = [a.tracked(), b.tracked()];
        Value::made(out, &[a, b], || {
            Box::new(move |grad| wanted.iter().map(|w| w.then(|| grad.clone())).collect())
        })
    }

    fn mul(&self, a: &Value, b: &Value) -> Value {
        same_shape("a product", a, b);
        let product =
            |a: &Tensor, b: &Tensor| tensor(zip(&floats(a), &floats(b), |a, b| a * b), a.dims());
        let out = product(&a.tensor, &b.tensor);
        Value::made(out, &[a, b], || {
            let wanted = [a.tracked(), b.tracked()];
            let others = [b.tensor.clone(), a.tensor.clone()];
            Box::new(move |grad| {
                let pairs = wanted.iter().zip(&others);
                pairs.map(|(w, other)| w.then(|| product(other, grad))).collect()
            })
        })
    }

    fn scale(&self, x: &Value, factor: f32) -> Value {
        let scaled = move |x: &Tensor| tensor(map(&floats(x), |x| x * factor), x.dims());
        unary(x, scaled(&x.tensor), move |grad| scaled(grad))
    }

    fn sum(&self, x: &Value) -> Value {
        let total: f64 = floats(&x.tensor).iter().map(|x| f64::from(*x)).sum();
        let shape = x.tensor.dims().to_vec();
        unary(x, tensor(vec![total as f32], &[1]), move |grad| {
            tensor(vec![floats(grad)[0]; shape.iter().product()], &shape)
        })
    }

    fn weighted_sum(&self, branches: &[Value], weights: &Value) -> Value {
        let p = floats(&weights.tensor).to_vec();
        assert_eq!(branches.len(), p.len(), "one weight a branch");
        branches.iter().for_each(|b| same_shape("a weighted sum", &branches[0], b));
        let mut out = vec![0.0; branches[0].tensor.elem_count()];
        for (branch, p) in branches.iter().zip(&p) {
            let branch = floats(&branch.tensor);
            out.iter_mut().zip(&*branch).for_each(|(o, x)| *o += p * x);
        }
        let parents: Vec<&Value> = branches.iter().chain([weights]).collect();
        Value::made(tensor(out, branches[0].tensor.dims()), &parents, || {
            let weighted = weights.tracked();
            let shape = weights.tensor.dims().to_vec();
            let branches: Vec<(Tensor, bool)> =
                branches.iter().map(|b| (b.tensor.clone(), b.tracked())).collect();
            Box::new(move |grad| {
                let g = floats(grad);
                let scaled = |((_, wanted), p): (&(Tensor, bool), &f32)| -> Option<Tensor> {
                    wanted.then(|| tensor(map(&g, |g| g * p), grad.dims()))
                };
                let mut grads: Vec<_> = branches.iter().zip(&p).map(scaled).collect();
                let dot = |(x, _): &(Tensor, bool)| -> f32 {
                    floats(x).iter().zip(&*g).map(|(x, g)| f64::from(x * g)).sum::<f64>() as f32
                };
                grads.push(weighted.then(|| tensor(branches.iter().map(dot).collect(), &shape)));
                grads
            })
        })
    }

    fn softmax(&self, logits: &Value) -> Value {
        let p = loss::softmax(&floats(&logits.tensor), 1.0);
        let shape = logits.tensor.dims().to_vec();
        unary(logits, tensor(p.clone(), &shape), move |grad| {
            let g = floats(grad);
            let mean: f32 = p.iter().zip(&*g).map(|(p, g)| p * g).sum();
            tensor(p.iter().zip(&*g).map(|(p, g)| p * (g - mean)).collect(), &shape)
        })
    }

    fn relu(&self, x: &Value) -> Value {
        let out = tensor(map(&floats(&x.tensor), |x| x.max(0.0)), x.tensor.dims());
        let kept = x.tensor.clone();
        unary(x, out, move |grad| {
            let masked = |x: f32, g: f32| if x > 0.0 { g } else { 0.0 };
            tensor(zip(&floats(&kept), &floats(grad), masked), grad.dims())
        })
    }

    fn conv2d(&self, x: &Value, weight: &Value, slide: Slide) -> Value {
        self.convolution(x, weight, slide, false)
    }

    fn depthwise(&self, x: &Value, weight: &Value, slide: Slide) -> Value {
        self.convolution(x, weight, slide, true)
    }

    fn linear(&self, x: &Value, weight: &Value, bias: Option<&Value>) -> Value {
        let [n, f] = dims("a linear layer", x);
        let [o, inputs] = dims("linear weight", weight);
        assert_eq!(f, inputs, "the weight's inputs are not the features");
        let mut out = vec![0.0; n * o];
        if let Some(bias) = bias {
            let bias = floats(&bias.tensor);
            out.chunks_exact_mut(o).for_each(|row| row.copy_from_slice(&bias));
        }
        let (xs, ws) = (floats(&x.tensor), floats(&weight.tensor));
        product([n, o, f], &mut out, bias.is_some(), View::rows(&xs, f), View::rows(&ws, f).t());
        let parents: Vec<&Value> = [x, weight].into_iter().chain(bias).collect();
        Value::made(tensor(out, &[n, o]), &parents, || {
            let wanted: Vec<bool> = parents.iter().map(|p| p.tracked()).collect();
            let (x, weight) = (x.tensor.clone(), weight.tensor.clone());
            Box::new(move |grad| {
                let (xs, ws, g) = (floats(&x), floats(&weight), floats(grad));
                let dx = wanted[0].then(|| {
                    let mut dx = vec![0.0; n * f];
                    product([n, f, o], &mut dx, false, View::rows(&g, o), View::rows(&ws, f));
                    tensor(dx, &[n, f])
                });
                let dw = wanted[1].then(|| {
                    let mut dw = vec![0.0; o * f];
                    product([o, f, n], &mut dw, false, View::rows(&g, o).t(), View::rows(&xs, f));
                    tensor(dw, &[o, f])
                });
                let mut grads = vec![dx, dw];
                if let Some(wanted) = wanted.get(2) {
                    let mut db = vec![0.0; o];
                    for row in g.chunks_exact(o) {
                        db.iter_mut().zip(row).for_each(|(b, g)| *b += g);
                    }
                    grads.push(wanted.then(|| tensor(db, &[o])));
                }
                grads
            })
        })
    }

    fn batch_norm(
        &self,
        x: &Value,
        gamma: &Value,
        beta: &Value,
        norm: Norm<'_>,
        activation: Activation,
    ) -> Value {
        normalize::plain([x, gamma, beta], norm, activation)
    }

    fn batch_norm_quant(
        &self,
        x: &Value,
        gamma: &Value,
        beta: &Value,
        norm: Norm<'_>,
        activation: Activation,
        options: &Options<'_, Value>,
    ) -> Value {
        normalize::quantized([x, gamma, beta], norm, activation, options)
    }

    fn avg_pool(&self, x: &Value, window: usize) -> Value {
        let [n, c, h, w] = dims("an average pooling", x);
        let (oh, ow) = (h / window, w / window);
        assert!(oh > 0 && ow > 0, "a window of {window} does not fit {h}x{w} pixels");
        let factor = 1.0 / (window * window) as f32;
        let mut out = vec![0.0; n * c * oh * ow];
        // Pixel (y, x) of a plane belongs to output (y / window, x / window).
        let pairs = move |mut pair: Box<dyn FnMut(usize, usize) + '_>| {
            for plane in 0..n * c {
                for y in 0..oh * window {
                    for x in 0..ow * window {
                        let output = (plane * oh + y / window) * ow + x / window;
                        pair((plane * h + y) * w + x, output);
                    }
                }
            }
        };
        let xs = floats(&x.tensor);
        pairs(Box::new(|i, o| out[o] += xs[i] * factor));
        unary(x, tensor(out, &[n, c, oh, ow]), move |grad| {
            let g = floats(grad);
            let mut dx = vec![0.0; n * c * h * w];
            pairs(Box::new(|i, o| dx[i] = g[o] * factor));
            tensor(dx, &[n, c, h, w])
        })
    }

    fn global_avg_pool(&self, x: &Value) -> Value {
        let [n, c, h, w] = dims("an average pooling", x);
        let factor = 1.0 / (h * w) as f32;
        let planes = floats(&x.tensor);
        let means = planes.chunks_exact(h * w).map(|plane| plane.iter().sum::<f32>() * factor);
        let out = tensor(means.collect(), &[n, c]);
        drop(planes);
        unary(x, out, move |grad| {
            let grad = floats(grad);
            let spread = grad.iter().flat_map(|g| std::iter::repeat_n(g * factor, h * w));
            tensor(spread.collect(), &[n, c, h, w])
        })
    }

    fn cross_entropy(&self, logits: &Value, labels: &[u32], smoothing: f32) -> Value {
        let [n, classes] = dims("a cross-entropy", logits);
        assert_eq!(labels.len(), n, "one label a row");
        let targets = loss::smoothed(labels, classes, smoothing);
        self.soft_cross_entropy(logits, targets, 1.0, 0.0)
    }

    fn distillation(&self, logits: &Value, teacher: &[f32], temperature: f32) -> Value {
        let [n, classes] = dims("a distillation", logits);
        assert_eq!(teacher.len(), n * classes, "the teacher's logits are not those of the batch");
        let targets: Vec<f32> =
            teacher.chunks_exact(classes).flat_map(|row| loss::softmax(row, temperature)).collect();
        let entropy = loss::entropy(&targets) / n as f64;
        self.soft_cross_entropy(logits, targets, temperature, entropy)
    }

    fn fake_quant(&self, x: &Value, step: &Value, grid: Grid, per_image: bool) -> Value {
        let one = Value::constant(tensor(vec![1.0], &[1]));
        self.mixed_quant(x, step, &one, &[grid], per_image, None)
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
        apply3([x, steps, p], Rc::new(mixture(x, steps, p, grids, per_image, channels)))
    }
}
