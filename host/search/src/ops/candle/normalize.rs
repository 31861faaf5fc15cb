//! Batch normalization on the tape, alone and with the quantizer behind it.

use std::rc::Rc;
use std::sync::OnceLock;

use candle_core::Tensor;

use super::custom::{BatchNorm, Mixture, floats};
use super::tape::Value;
use super::{apply3, dims, mixture, tensor};
use crate::ops::kernels::norm::{self, Planes, Spec, Stats};
use crate::ops::{Activation, Norm, Options};

/// The constants to normalize with, if any.
fn constants(norm: &Norm<'_>) -> Option<Stats> {
    match norm {
        Norm::Eval(stats) => Some(Stats { mean: stats.mean.clone(), var: stats.var.clone() }),
        Norm::Train { .. } | Norm::Batch => None,
    }
}

/// Moves running statistics towards those of a batch with `count` values a channel.
fn remember(norm: Norm<'_>, batch: &Stats, count: usize) {
    let Norm::Train { stats, momentum } = norm else { return };
    let unbiased = if count > 1 { count as f32 / (count - 1) as f32 } else { 1.0 };
    for c in 0..batch.mean.len() {
        stats.mean[c] += momentum * (batch.mean[c] - stats.mean[c]);
        stats.var[c] += momentum * (batch.var[c] * unbiased - stats.var[c]);
    }
}

/// [`Backend::batch_norm`](crate::ops::Backend::batch_norm) of feature map, scale and shift.
pub fn plain([x, gamma, beta]: [&Value; 3], norm: Norm<'_>, activation: Activation) -> Value {
    let [images, channels, h, w] = dims("a batch normalization", x);
    let parameters = [gamma.tensor.dims(), beta.tensor.dims()];
    assert_eq!(parameters, [[channels]; 2], "gamma and beta hold a value a channel");
    let planes = Planes { images, channels, pixels: h * w };
    let given = constants(&norm);
    let op = Rc::new(BatchNorm { planes, activation, given, used: OnceLock::new() });
    let out = apply3([x, gamma, beta], op.clone());
    if let Some(batch) = op.used.get() {
        remember(norm, batch, images * h * w);
    }
    out
}

/// [`Backend::batch_norm_quant`](crate::ops::Backend::batch_norm_quant) in one operator.
pub fn quantized(
    [x, gamma, beta]: [&Value; 3],
    norm: Norm<'_>,
    activation: Activation,
    options: &Options<'_, Value>,
) -> Value {
    let [images, channels, h, w] = dims("a batch normalization", x);
    let parameters = [gamma.tensor.dims(), beta.tensor.dims()];
    assert_eq!(parameters, [[channels]; 2], "gamma and beta hold a value a channel");
    let Options { grids, steps, p, channels: marks } = *options;
    let mixture = mixture(x, steps, p, grids, true, marks);
    assert_eq!(mixture.steps, 1, "a feature map has one step an option");
    let planes = Planes { images, channels, pixels: h * w };
    let tensors = [x, gamma, beta, steps, p].map(|v| v.tensor.clone());
    // Runs `f` on the normalization with its values borrowed.
    fn with<R>(
        [x, gamma, beta, steps, p]: &[Tensor; 5],
        planes: Planes,
        activation: Activation,
        mixture: &Mixture,
        f: impl FnOnce(&[f32], &Spec<'_>) -> R,
    ) -> R {
        let (gamma, beta, steps, p) = (floats(gamma), floats(beta), floats(steps), floats(p));
        let quantizer = Some(mixture.at(&steps, &p));
        let spec = Spec { planes, gamma: &gamma, beta: &beta, activation, quantizer };
        f(&floats(x), &spec)
    }
    let given = constants(&norm);
    let of_batch = given.is_none();
    let (out, stats) = with(&tensors, planes, activation, &mixture, |x, spec| {
        norm::forward(spec, x, given.as_ref())
    });
    remember(norm, &stats, images * h * w);
    let out = tensor(out, x.tensor.dims());
    Value::made(out, &[x, gamma, beta, steps, p], || {
        Box::new(move |grad| {
            let grads = with(&tensors, planes, activation, &mixture, |x, spec| {
                norm::backward(spec, x, &stats, of_batch, &floats(grad))
            });
            let options = grads.options.expect("the normalization has a quantizer");
            let all = [grads.x, grads.gamma, grads.beta, options.steps, options.p];
            let like = |(data, x): (Vec<f32>, &Tensor)| Some(tensor(data, x.dims()));
            all.into_iter().zip(&tensors).map(like).collect()
        })
    })
}
