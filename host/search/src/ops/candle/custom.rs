//! The heavy operators as candle custom operators, each with its own backward pass.
//!
//! They never look at the result in the backward pass (the tape does not keep it), and compute a
//! gradient only where `wanted` says so. All tensors are contiguous `f32` on the CPU.

use std::ops::{Deref, Range};
use std::sync::OnceLock;

use candle_core::{
    CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, StorageRef, Tensor, bail,
};

use crate::ops::kernels::conv::{self, Geometry};
use crate::ops::kernels::depthwise;
use crate::ops::kernels::norm::{self, Planes, Spec, Stats};
use crate::ops::kernels::quantizer;
use crate::ops::{Activation, Grid};

/// The elements of a tensor, borrowed.
pub struct Floats<'a> {
    storage: StorageRef<'a>,
    range: Range<usize>,
}

/// Borrows the elements of a contiguous `f32` tensor on the CPU.
pub fn floats(tensor: &Tensor) -> Floats<'_> {
    let (storage, layout) = tensor.storage_and_layout();
    let (start, end) = layout.contiguous_offsets().expect("operators make contiguous tensors");
    Floats { storage, range: start..end }
}

impl Deref for Floats<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(data)) => &data[self.range.clone()],
            _ => unreachable!("operators make f32 tensors on the CPU"),
        }
    }
}

fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("a contiguous tensor is wanted"),
    }
}

fn like(tensor: &Tensor, data: Vec<f32>) -> Result<Tensor> {
    Tensor::from_vec(data, tensor.shape(), tensor.device())
}

fn optional(tensor: &Tensor, data: Option<Vec<f32>>) -> Result<Option<Tensor>> {
    data.map(|data| like(tensor, data)).transpose()
}

/// Full or depthwise convolution of a feature map with weights.
#[derive(Clone, Copy)]
pub struct Convolution {
    pub geometry: Geometry,
    pub depthwise: bool,
    /// Gradient to the feature map, to the weights.
    pub wanted: [bool; 2],
}

impl CustomOp2 for Convolution {
    fn name(&self) -> &'static str {
        if self.depthwise { "depthwise" } else { "convolution" }
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let g = &self.geometry;
        let (h, w) = g.output();
        let (x, weight) = (slice(x, x_layout)?, slice(weight, weight_layout)?);
        let out = if self.depthwise {
            depthwise::forward(g, x, weight)
        } else {
            conv::forward(g, x, weight)
        };
        Ok((CpuStorage::F32(out), (g.images, g.filters, h, w).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (xs, weights, grad) = (floats(x), floats(weight), floats(grad));
        let run = if self.depthwise { depthwise::backward } else { conv::backward };
        let (dx, dw) = run(&self.geometry, &xs, &weights, &grad, self.wanted);
        Ok((optional(x, dx)?, optional(weight, dw)?))
    }
}

/// Batch normalization of a feature map with `gamma` and `beta`, and its activation.
pub struct BatchNorm {
    pub planes: Planes,
    pub activation: Activation,
    /// Constants to normalize with instead of the batch's.
    pub given: Option<Stats>,
    /// Filled by the forward pass: what it normalized with.
    pub used: OnceLock<Stats>,
}

impl BatchNorm {
    fn spec<'a>(&self, gamma: &'a [f32], beta: &'a [f32]) -> Spec<'a> {
        let (planes, activation) = (self.planes, self.activation);
        Spec { planes, gamma, beta, activation, quantizer: None }
    }
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gamma: &CpuStorage,
        gamma_layout: &Layout,
        beta: &CpuStorage,
        beta_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let spec = self.spec(slice(gamma, gamma_layout)?, slice(beta, beta_layout)?);
        let (out, stats) = norm::forward(&spec, slice(x, x_layout)?, self.given.as_ref());
        let _ = self.used.set(stats);
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some(stats) = self.used.get() else { bail!("backward before forward") };
        let (gammas, betas) = (floats(gamma), floats(beta));
        let spec = self.spec(&gammas, &betas);
        let grads = norm::backward(&spec, &floats(x), stats, self.given.is_none(), &floats(grad));
        let (dgamma, dbeta) = (like(gamma, grads.gamma)?, like(beta, grads.beta)?);
        Ok((Some(like(x, grads.x)?), Some(dgamma), Some(dbeta)))
    }
}

/// Expectation over quantizers of a tensor with steps and probabilities.
#[derive(Clone)]
pub struct Mixture {
    pub grids: Vec<Grid>,
    /// Steps of each option.
    pub steps: usize,
    /// Elements that share a step.
    pub sharing: usize,
    /// Quantized channels; `None` is all.
    pub channels: Option<Vec<bool>>,
    /// Elements of a plane.
    pub pixels: usize,
}

impl Mixture {
    /// With the values of its steps and probabilities.
    pub fn at<'a>(&'a self, steps: &'a [f32], p: &'a [f32]) -> quantizer::Mixture<'a> {
        quantizer::Mixture {
            grids: &self.grids,
            p,
            steps,
            steps_per_option: self.steps,
            sharing: self.sharing,
            channels: self.channels.as_deref(),
        }
    }
}

impl CustomOp3 for Mixture {
    fn name(&self) -> &'static str {
        "quantizer_mixture"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        steps: &CpuStorage,
        steps_layout: &Layout,
        p: &CpuStorage,
        p_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let mixture = self.at(slice(steps, steps_layout)?, slice(p, p_layout)?);
        let out = quantizer::forward(mixture, slice(x, x_layout)?, self.pixels);
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        steps: &Tensor,
        p: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (step_values, p_values) = (floats(steps), floats(p));
        let mixture = self.at(&step_values, &p_values);
        let (dx, options) = quantizer::backward(mixture, &floats(x), self.pixels, &floats(grad));
        let (dsteps, dp) = (like(steps, options.steps)?, like(p, options.p)?);
        Ok((Some(like(x, dx)?), Some(dsteps), Some(dp)))
    }
}
