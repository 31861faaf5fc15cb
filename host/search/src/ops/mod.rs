//! The tensor operators of training: the one line between JAQ and a tensor library.
//!
//! [`Backend`] is everything the search asks of a library: dense `f32` tensors, a few operators
//! with gradients, and [`Backend::grad`], which hides how a library differentiates. Parameters
//! live in [`Backend::Var`]s; gradients come back as plain vectors, so that optimizers, schedules
//! and checkpoints are the same code on every backend.
//!
//! Must not know: networks, data sets, searches, hardware.
//!
//! Feature maps are `[N, C, H, W]`, convolution weights `[OC, IC, KH, KW]`, depthwise weights
//! `[C, KH, KW]`, matrices `[N, F]`, vectors `[n]`, scalars `[1]`. A wrong shape is a mistake of
//! the caller, not of its input, and panics with both shapes named.

pub mod candle;
mod kernels;
#[cfg(feature = "tch")]
pub mod tch;

use serde::{Deserialize, Serialize};

pub use kernels::quantizer::{MIN_STEP, integers};

/// How a window slides over a feature map; the window itself has the size of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slide {
    /// Step of the window in both directions, at least 1.
    pub stride: usize,
    /// Zero pixels added at the top, bottom, left and right.
    pub pads: [usize; 4],
}

impl Slide {
    /// Stride 1, no padding: what a pointwise convolution wants.
    pub const POINT: Slide = Slide { stride: 1, pads: [0; 4] };

    /// Output height and width of a `kh` x `kw` window over `h` x `w` pixels.
    ///
    /// Panics where the window does not fit.
    pub fn output(&self, h: usize, w: usize, kh: usize, kw: usize) -> (usize, usize) {
        let [top, bottom, left, right] = self.pads;
        let size = |input: usize, window: usize| {
            assert!(input >= window, "a window of {window} does not fit {input} padded pixels");
            (input - window) / self.stride + 1
        };
        (size(h + top + bottom, kh), size(w + left + right, kw))
    }
}

/// What follows a batch normalization in the same operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing (linear bottleneck, before an addition).
    Identity,
    /// `max(x, 0)`.
    Relu,
}

/// Running mean and variance of a batch normalization, one value a channel. Plain vectors: the
/// caller owns them and puts them into checkpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningStats {
    /// Mean.
    pub mean: Vec<f32>,
    /// Variance, unbiased.
    pub var: Vec<f32>,
}

impl RunningStats {
    /// Mean 0 and variance 1 for `channels` channels.
    pub fn new(channels: usize) -> RunningStats {
        RunningStats { mean: vec![0.0; channels], var: vec![1.0; channels] }
    }
}

/// Which statistics normalize.
#[derive(Debug)]
pub enum Norm<'a> {
    /// Those of the batch; the running ones move by `momentum` (0.1 is usual) towards them.
    Train {
        /// Updated.
        stats: &'a mut RunningStats,
        /// Weight of the batch in the update.
        momentum: f32,
    },
    /// The running ones, as constants.
    Eval(&'a RunningStats),
    /// Those of the batch, nothing is updated: a shared supernet whose paths differ has no
    /// running statistics worth keeping.
    Batch,
}

/// Added to the variance before its root.
pub const NORM_EPSILON: f32 = 1e-5;

/// How the step of a quantizer learns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepRule {
    /// Learned step size (Esser et al., 2020): by the rounding error on the grid and the bound off
    /// it, scaled by `1 / sqrt(n * max)`, `n` the elements that share the step.
    #[default]
    Lsq,
    /// Parameterized clipping (Choi et al., 2018), with the clipping level `max * step`: by what
    /// is clipped alone, scaled by `1 / max^2`, so that gradient descent on the step is that on
    /// the level.
    Pact,
}

/// The integers a quantizer may produce: `q = clamp(round(x / step), min, max) * step`, rounding
/// half to even. A zero point is a shift of the same grid: unsigned code = integer - `min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Smallest integer.
    pub min: i32,
    /// Largest integer.
    pub max: i32,
    /// How the step learns.
    pub rule: StepRule,
}

impl Grid {
    /// `0 ..= 2^bits - 1`: activations after a ReLU.
    pub const fn unsigned(bits: u32) -> Grid {
        Grid::with_zero_point(bits, 0)
    }

    /// `-2^(bits-1) ..= 2^(bits-1) - 1`: weights, and activations with the zero point `2^(bits-1)`.
    pub const fn signed(bits: u32) -> Grid {
        Grid::with_zero_point(bits, 1 << (bits - 1))
    }

    /// Unsigned codes `0 ..= 2^bits - 1` of which `zero`, less than the largest, means 0.
    pub const fn with_zero_point(bits: u32, zero: i32) -> Grid {
        Grid { min: -zero, max: (1 << bits) - 1 - zero, rule: StepRule::Lsq }
    }

    /// The same integers, the step learning by another rule.
    pub const fn learned_by(self, rule: StepRule) -> Grid {
        Grid { rule, ..self }
    }
}

/// Quantizers of a feature map: bit options with one step each, and their probabilities.
pub struct Options<'a, T> {
    /// What each option may produce.
    pub grids: &'a [Grid],
    /// `[n]`.
    pub steps: &'a T,
    /// `[n]`; the constant `[1]` for a single option.
    pub p: &'a T,
    /// Quantized channels, the others pass; `None` is all.
    pub channels: Option<&'a [bool]>,
}

/// A tensor library, as far as training needs it.
///
/// Values are `f32`. Every operator is differentiable in all its tensor arguments unless it says
/// otherwise. The same calls on the same machine with the same number of threads give the same
/// bits.
pub trait Backend {
    /// A value, with the graph that made it where a [`Backend::Var`] is among its ancestors.
    type Tensor: Clone;
    /// A trainable tensor; a clone is the same parameter.
    type Var: Clone;

    /// A constant.
    fn tensor(&self, data: &[f32], shape: &[usize]) -> Self::Tensor;
    /// The elements in row-major order.
    fn to_vec(&self, x: &Self::Tensor) -> Vec<f32>;
    /// The sizes of all dimensions.
    fn shape(&self, x: &Self::Tensor) -> Vec<usize>;
    /// A new parameter.
    fn var(&self, data: &[f32], shape: &[usize]) -> Self::Var;
    /// The parameter as the leaf of a graph.
    fn leaf(&self, var: &Self::Var) -> Self::Tensor;
    /// The parameter's value.
    fn var_to_vec(&self, var: &Self::Var) -> Vec<f32>;
    /// Overwrites a parameter, keeping its shape.
    fn assign(&self, var: &Self::Var, data: &[f32]);
    /// Gradients of the scalar `loss`; `None` for a parameter that `loss` does not depend on.
    /// Consumes the graph: what only it keeps alive is freed on the way.
    fn grad(&self, loss: Self::Tensor, params: &[Self::Var]) -> Vec<Option<Vec<f32>>>;

    /// The scalar's value.
    fn to_scalar(&self, x: &Self::Tensor) -> f32 {
        self.to_vec(x)[0]
    }
    /// The same value without its graph.
    fn detach(&self, x: &Self::Tensor) -> Self::Tensor;
    /// `value` in place of `x`'s, while gradients flow to `x` unchanged (straight-through).
    fn straight_through(&self, x: &Self::Tensor, value: &[f32]) -> Self::Tensor;
    /// A scalar computed elsewhere with its gradients: `grads[i][j] = d value / d inputs[i][j]`.
    fn external(&self, value: f32, inputs: &[Self::Tensor], grads: &[Vec<f32>]) -> Self::Tensor;

    /// The same elements in another shape.
    fn reshape(&self, x: &Self::Tensor, shape: &[usize]) -> Self::Tensor;
    /// `len` slices from `start` on along dimension `dim` (channel slices, shared weights).
    fn narrow(&self, x: &Self::Tensor, dim: usize, start: usize, len: usize) -> Self::Tensor;
    /// The centre `kh` x `kw` of the last two dimensions (a 3x3 kernel shared with a 5x5 one).
    fn crop(&self, w: &Self::Tensor, kh: usize, kw: usize) -> Self::Tensor;

    /// `a + b`, one shape.
    fn add(&self, a: &Self::Tensor, b: &Self::Tensor) -> Self::Tensor;
    /// `a * b`, element by element, one shape.
    fn mul(&self, a: &Self::Tensor, b: &Self::Tensor) -> Self::Tensor;
    /// `x * factor`.
    fn scale(&self, x: &Self::Tensor, factor: f32) -> Self::Tensor;
    /// Sum of all elements, a scalar.
    fn sum(&self, x: &Self::Tensor) -> Self::Tensor;
    /// `sum_i weights[i] * branches[i]`, branches of one shape. One branch with `[1]` weights is
    /// the multiplication by a scalar tensor.
    fn weighted_sum(&self, branches: &[Self::Tensor], weights: &Self::Tensor) -> Self::Tensor;
    /// Softmax of a vector.
    fn softmax(&self, logits: &Self::Tensor) -> Self::Tensor;
    /// `max(x, 0)`.
    fn relu(&self, x: &Self::Tensor) -> Self::Tensor;

    /// Convolution.
    fn conv2d(&self, x: &Self::Tensor, weight: &Self::Tensor, slide: Slide) -> Self::Tensor;
    /// Convolution of every channel with a kernel of its own.
    fn depthwise(&self, x: &Self::Tensor, weight: &Self::Tensor, slide: Slide) -> Self::Tensor;
    /// `x [N, F]` times `weight [O, F]` transposed, plus `bias [O]`.
    fn linear(
        &self,
        x: &Self::Tensor,
        weight: &Self::Tensor,
        bias: Option<&Self::Tensor>,
    ) -> Self::Tensor;
    /// `activation(gamma * (x - mean) / sqrt(var + NORM_EPSILON) + beta)` per channel of
    /// `[N, C, H, W]`.
    fn batch_norm(
        &self,
        x: &Self::Tensor,
        gamma: &Self::Tensor,
        beta: &Self::Tensor,
        norm: Norm<'_>,
        activation: Activation,
    ) -> Self::Tensor;
    /// [`Backend::batch_norm`], then [`Backend::mixed_quant`] per image. A backend may do both in
    /// one operator, which saves the memory of what lies between.
    fn batch_norm_quant(
        &self,
        x: &Self::Tensor,
        gamma: &Self::Tensor,
        beta: &Self::Tensor,
        norm: Norm<'_>,
        activation: Activation,
        options: &Options<'_, Self::Tensor>,
    ) -> Self::Tensor {
        let real = self.batch_norm(x, gamma, beta, norm, activation);
        let Options { grids, steps, p, channels } = *options;
        self.mixed_quant(&real, steps, p, grids, true, channels)
    }
    /// Mean of `window` x `window` pixels, moved by `window`, no padding; pixels that fill no
    /// window are left out.
    fn avg_pool(&self, x: &Self::Tensor, window: usize) -> Self::Tensor;
    /// Mean of all pixels: `[N, C, H, W]` to `[N, C]`.
    fn global_avg_pool(&self, x: &Self::Tensor) -> Self::Tensor;

    /// Mean cross-entropy of `logits [N, classes]`; a target is `1 - smoothing` at the label and
    /// `smoothing / classes` everywhere.
    fn cross_entropy(&self, logits: &Self::Tensor, labels: &[u32], smoothing: f32) -> Self::Tensor;
    /// Mean Kullback-Leibler divergence from `softmax(teacher / temperature)` to
    /// `softmax(logits / temperature)`, times `temperature^2`. `teacher` is `[N, classes]` and gets
    /// no gradient.
    fn distillation(
        &self,
        logits: &Self::Tensor,
        teacher: &[f32],
        temperature: f32,
    ) -> Self::Tensor;

    /// Fake quantization: `step [1]`, or `[C]` with one step for each slice of `x`'s first
    /// dimension (output channels of a weight). Straight-through to `x` where the *rounded* value
    /// lies in the grid; the step learns by the grid's [`StepRule`], `n` the elements of `x` that
    /// share a step (of one image, where the step is `[1]` and `x` has four dimensions and
    /// `per_image` is set).
    fn fake_quant(
        &self,
        x: &Self::Tensor,
        step: &Self::Tensor,
        grid: Grid,
        per_image: bool,
    ) -> Self::Tensor;
    /// The expectation over widths, `sum_i p[i] * fake_quant(x, steps[i], grids[i])`, as one
    /// operator that keeps nothing but its inputs and recomputes the options in the backward
    /// pass. `steps` is `[n]`, or `[n, C]` as above; `p` is `[n]`. With `channels`, only channels
    /// (dimension 1) marked `true` are quantized, the others pass unchanged.
    fn mixed_quant(
        &self,
        x: &Self::Tensor,
        steps: &Self::Tensor,
        p: &Self::Tensor,
        grids: &[Grid],
        per_image: bool,
        channels: Option<&[bool]>,
    ) -> Self::Tensor;
}

#[cfg(all(test, feature = "tch"))]
mod agreement;
#[cfg(test)]
mod tests;
