//! Optimizers and learning-rate schedules, on plain vectors: the same on every backend, their
//! state by parameter name for checkpoints.
//!
//! Must not know: what is trained.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ops::Backend;

/// A parameter with its name and how it is treated.
#[derive(Clone)]
pub struct Parameter<V> {
    /// Unique within an optimizer.
    pub name: String,
    /// The trainable tensor.
    pub var: V,
    /// Whether weight decay applies (not to steps, biases, normalizations).
    pub decay: bool,
    /// Factor on the learning rate.
    pub rate: f32,
    /// Values below are raised to this after a step (quantizer steps must stay positive).
    pub floor: f32,
}

impl<V> Parameter<V> {
    /// Decayed, at the full rate, unbounded.
    pub fn new(name: impl Into<String>, var: V) -> Parameter<V> {
        Parameter { name: name.into(), var, decay: true, rate: 1.0, floor: f32::NEG_INFINITY }
    }

    /// Without weight decay.
    pub fn undecayed(name: impl Into<String>, var: V) -> Parameter<V> {
        Parameter { decay: false, ..Parameter::new(name, var) }
    }

    /// A quantizer's step: no decay, never below [`MIN_STEP`](crate::ops::MIN_STEP).
    pub fn step(name: impl Into<String>, var: V) -> Parameter<V> {
        Parameter { decay: false, floor: crate::ops::MIN_STEP, ..Parameter::new(name, var) }
    }
}

/// How a gradient becomes a change.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Rule {
    /// Stochastic gradient descent with momentum; weight decay is added to the gradient.
    Sgd {
        /// Share of the last change that is kept, 0.9 is usual.
        momentum: f32,
        /// Look ahead by the momentum (Nesterov).
        nesterov: bool,
        /// Times the parameter.
        weight_decay: f32,
    },
    /// Adam (Kingma and Ba) with decoupled weight decay (AdamW).
    Adam {
        /// Decay of the mean of gradients, 0.9 is usual.
        beta1: f32,
        /// Decay of the mean of squares, 0.999 is usual.
        beta2: f32,
        /// Times learning rate and parameter.
        weight_decay: f32,
    },
}

/// An optimizer's memory of one parameter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Velocity (SGD), mean gradient (Adam).
    pub first: Vec<f32>,
    /// Mean of squares (Adam), empty otherwise.
    pub second: Vec<f32>,
    /// Steps this parameter took part in.
    pub steps: u64,
}

/// A rule and what it remembers, by parameter name. A parameter that a step's loss does not
/// depend on is left alone, with its memory.
#[derive(Clone, Debug)]
pub struct Optimizer {
    /// The rule.
    pub rule: Rule,
    /// Memory; public for checkpoints.
    pub state: BTreeMap<String, Moments>,
}

impl Optimizer {
    /// No memory yet.
    pub fn new(rule: Rule) -> Optimizer {
        Optimizer { rule, state: BTreeMap::new() }
    }

    /// One step with the learning rate `rate`; `grads` as from [`Backend::grad`] on the same
    /// parameters in the same order.
    pub fn step<B: Backend>(
        &mut self,
        backend: &B,
        parameters: &[Parameter<B::Var>],
        grads: &[Option<Vec<f32>>],
        rate: f32,
    ) {
        assert_eq!(parameters.len(), grads.len(), "one gradient a parameter");
        for (parameter, grad) in parameters.iter().zip(grads) {
            let Some(grad) = grad else { continue };
            let mut value = backend.var_to_vec(&parameter.var);
            let moments = self.state.entry(parameter.name.clone()).or_default();
            change(self.rule, parameter.decay, rate * parameter.rate, moments, grad, &mut value);
            value.iter_mut().for_each(|v| *v = v.max(parameter.floor));
            backend.assign(&parameter.var, &value);
        }
    }
}

fn change(
    rule: Rule,
    decay: bool,
    rate: f32,
    moments: &mut Moments,
    grad: &[f32],
    value: &mut [f32],
) {
    moments.steps += 1;
    moments.first.resize(value.len(), 0.0);
    let decayed = |weight_decay: f32| if decay { weight_decay } else { 0.0 };
    match rule {
        Rule::Sgd { momentum, nesterov, weight_decay } => {
            let weight_decay = decayed(weight_decay);
            for ((v, g), velocity) in value.iter_mut().zip(grad).zip(&mut moments.first) {
                let g = g + weight_decay * *v;
                *velocity = momentum * *velocity + g;
                *v -= rate * if nesterov { g + momentum * *velocity } else { *velocity };
            }
        }
        Rule::Adam { beta1, beta2, weight_decay } => {
            const EPSILON: f32 = 1e-8;
            let weight_decay = decayed(weight_decay);
            moments.second.resize(value.len(), 0.0);
            let steps = moments.steps as f64;
            let first = (1.0 - f64::from(beta1).powf(steps)) as f32;
            let second = (1.0 - f64::from(beta2).powf(steps)) as f32;
            let memory = moments.first.iter_mut().zip(&mut moments.second);
            for ((v, g), (m, s)) in value.iter_mut().zip(grad).zip(memory) {
                *m += (1.0 - beta1) * (g - *m);
                *s += (1.0 - beta2) * (g * g - *s);
                *v -= rate * (*m / first / ((*s / second).sqrt() + EPSILON) + weight_decay * *v);
            }
        }
    }
}

/// Scales gradients so that their common norm is at most `limit`; returns the norm before, which
/// is not finite where a gradient is not.
pub fn clip(grads: &mut [Option<Vec<f32>>], limit: f32) -> f32 {
    let squares = grads.iter().flatten().flatten().map(|g| f64::from(*g).powi(2));
    let norm = squares.sum::<f64>().sqrt() as f32;
    if norm > limit {
        let factor = limit / norm;
        grads.iter_mut().flatten().flatten().for_each(|g| *g *= factor);
    }
    norm
}

/// Learning rate over a training, as a factor on a peak rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Schedule {
    /// The peak rate throughout.
    Constant,
    /// A linear rise over the first `warmup` (0..1) of the training, then half a cosine to zero.
    Cosine {
        /// Share of the training that rises.
        warmup: f32,
    },
    /// One cycle (Smith): half a cosine from `1/25` up over the first `rise` of the training,
    /// half a cosine down to `1e-4`.
    OneCycle {
        /// Share of the training that rises, 0.3 is usual.
        rise: f32,
    },
}

impl Schedule {
    /// The factor at step `step` of `steps`.
    pub fn at(self, step: u64, steps: u64) -> f32 {
        let t = step as f32 / steps.max(1) as f32;
        let half_cosine = |from: f32, to: f32, t: f32| {
            to + (from - to) * 0.5 * (1.0 + (std::f32::consts::PI * t.clamp(0.0, 1.0)).cos())
        };
        match self {
            Schedule::Constant => 1.0,
            Schedule::Cosine { warmup } if t < warmup => {
                (step + 1) as f32 / (warmup * steps as f32).max(1.0)
            }
            Schedule::Cosine { warmup } => half_cosine(1.0, 0.0, (t - warmup) / (1.0 - warmup)),
            Schedule::OneCycle { rise } if t < rise => half_cosine(1.0 / 25.0, 1.0, t / rise),
            Schedule::OneCycle { rise } => half_cosine(1.0, 1e-4, (t - rise) / (1.0 - rise)),
        }
        .min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::candle::Candle;

    fn after(
        rule: Rule,
        grads: &[Option<f32>],
        parameter: impl Fn(crate::ops::candle::Var) -> Parameter<crate::ops::candle::Var>,
    ) -> f32 {
        let var = Candle.var(&[1.0], &[1]);
        let parameters = [parameter(var.clone())];
        let mut optimizer = Optimizer::new(rule);
        for grad in grads {
            optimizer.step(&Candle, &parameters, &[grad.map(|g| vec![g])], 0.1);
        }
        Candle.var_to_vec(&var)[0]
    }

    #[test]
    fn sgd_by_hand() {
        let sgd = |nesterov, weight_decay| Rule::Sgd { momentum: 0.5, nesterov, weight_decay };
        let named = |var| Parameter::new("a", var);
        // v = 1 then 0.5 + 2; a missing gradient leaves all as it is.
        let value = after(sgd(false, 0.0), &[Some(1.0), None, Some(2.0)], named);
        assert!((value - (1.0 - 0.1 - 0.25)).abs() < 1e-6);
        let value = after(sgd(true, 0.0), &[Some(1.0)], named);
        assert!((value - (1.0 - 0.15)).abs() < 1e-6);
        let value = after(sgd(false, 0.5), &[Some(1.0)], named);
        assert!((value - (1.0 - 0.15)).abs() < 1e-6);
        let undecayed = |var| Parameter::undecayed("a", var);
        let value = after(sgd(false, 0.5), &[Some(1.0)], undecayed);
        assert!((value - 0.9).abs() < 1e-6);
        assert_eq!(
            after(sgd(false, 0.0), &[Some(100.0)], |v| Parameter::step("s", v)),
            crate::ops::MIN_STEP
        );
    }

    #[test]
    fn adam_moves_by_the_rate_first() {
        let rule = Rule::Adam { beta1: 0.9, beta2: 0.999, weight_decay: 0.0 };
        for grad in [1e-3, 7.0] {
            let value = after(rule, &[Some(grad)], |var| Parameter::new("a", var));
            assert!((value - 0.9).abs() < 1e-4, "{value}");
        }
    }

    #[test]
    fn clipping_keeps_direction() {
        let mut grads = [Some(vec![3.0, 0.0]), None, Some(vec![4.0])];
        assert_eq!(clip(&mut grads, 10.0), 5.0);
        assert_eq!(clip(&mut grads, 1.0), 5.0);
        assert!((grads[2].as_ref().unwrap()[0] - 0.8).abs() < 1e-6);
        assert!(!clip(&mut [Some(vec![f32::NAN])], 1.0).is_finite());
    }

    #[test]
    fn schedules_rise_and_fall() {
        for schedule in [Schedule::Cosine { warmup: 0.1 }, Schedule::OneCycle { rise: 0.3 }] {
            let rates: Vec<f32> = (0..100).map(|s| schedule.at(s, 100)).collect();
            let top = rates.iter().copied().fold(0.0, f32::max);
            assert!((top - 1.0).abs() < 1e-3 && rates[0] < 0.2 && rates[99] < 0.01);
            assert!(rates.iter().all(|r| *r > 0.0));
        }
        assert_eq!(Schedule::Constant.at(5, 7), 1.0);
    }
}
