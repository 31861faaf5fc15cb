//! The hardware generation network: from the probabilities of operators and widths to a
//! distribution over the parameters of an accelerator, one softmax a parameter.
//!
//! It learns by what its draws cost. With `f_k` the price of draw `k` of `K`, the gradient of the
//! expected price by a head's probability `q_i` is the mean over draws of
//! `(f_k - mean of the others) / q_i` where draw `k` took option `i`: unbiased, and zero where all
//! draws cost the same. So no surrogate stands between the network and the cost model, and spaces
//! whose table would be too large are priced only where the network looks.
//!
//! Must not know: what parameters mean, how prices are made.

use crate::ops::Backend;
use crate::optim::Parameter;
use crate::rng::{Purpose, Rng};

/// Units of the hidden layer.
const HIDDEN: usize = 64;

/// The network.
pub struct Generator<B: Backend> {
    parameters: Vec<Parameter<B::Var>>,
    options: Vec<usize>,
}

impl<B: Backend> Generator<B> {
    /// A network that prefers nothing: `options` are the numbers of values of every parameter of
    /// the hardware.
    pub fn new(b: &B, features: usize, options: &[usize], seed: u64) -> Generator<B> {
        let mut rng = Rng::at(seed, Purpose::Init, u64::MAX);
        let deviation = (2.0 / features.max(1) as f32).sqrt();
        let first: Vec<f32> = (0..HIDDEN * features).map(|_| rng.normal() * deviation).collect();
        let outputs: usize = options.iter().sum();
        let zeros = |n: usize| vec![0.0; n];
        let parameters = [
            ("generator.hidden.weight", first, vec![HIDDEN, features]),
            ("generator.hidden.bias", zeros(HIDDEN), vec![HIDDEN]),
            ("generator.heads.weight", zeros(outputs * HIDDEN), vec![outputs, HIDDEN]),
            ("generator.heads.bias", zeros(outputs), vec![outputs]),
        ]
        .map(|(name, data, shape)| Parameter::undecayed(name, b.var(&data, &shape)));
        Generator { parameters: parameters.into(), options: options.to_vec() }
    }

    /// What learns.
    pub fn parameters(&self) -> &[Parameter<B::Var>] {
        &self.parameters
    }

    /// Probabilities of every parameter's values, with the graph that made them.
    pub fn heads(&self, b: &B, features: &[f32]) -> Vec<B::Tensor> {
        let leaf = |i: usize| b.leaf(&self.parameters[i].var);
        let input = b.tensor(features, &[1, features.len()]);
        let hidden = b.relu(&b.linear(&input, &leaf(0), Some(&leaf(1))));
        let logits = b.linear(&hidden, &leaf(2), Some(&leaf(3)));
        let logits = b.reshape(&logits, &[self.options.iter().sum()]);
        let mut start = 0;
        let head = |count: &usize| {
            let own = b.narrow(&logits, 0, start, *count);
            start += count;
            b.softmax(&own)
        };
        self.options.iter().map(head).collect()
    }
}

/// `count` draws of one value a parameter.
pub fn draw(heads: &[Vec<f32>], count: usize, rng: &mut Rng) -> Vec<Vec<usize>> {
    (0..count).map(|_| heads.iter().map(|head| rng.choose(head)).collect()).collect()
}

/// Derivatives of the expected price by the heads' probabilities, from the prices of draws.
pub fn gradient(heads: &[Vec<f32>], draws: &[Vec<usize>], prices: &[f64]) -> Vec<Vec<f32>> {
    let count = draws.len() as f64;
    let sum: f64 = prices.iter().sum();
    let mut grads: Vec<Vec<f32>> = heads.iter().map(|head| vec![0.0; head.len()]).collect();
    for (draw, price) in draws.iter().zip(prices) {
        let others = if draws.len() > 1 { (sum - price) / (count - 1.0) } else { 0.0 };
        for ((grad, head), &i) in grads.iter_mut().zip(heads).zip(draw) {
            grad[i] += ((price - others) / count / f64::from(head[i].max(1e-6))) as f32;
        }
    }
    grads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::candle::Candle;
    use crate::optim::{Optimizer, Rule};

    /// A price with an interaction: the best first parameter depends on the second.
    fn price(at: &[usize]) -> f64 {
        [[3.0, 1.0, 2.0], [2.5, 4.0, 0.5]][at[0]][at[1]]
    }

    #[test]
    fn gradient_of_draws_is_that_of_the_expectation() {
        let heads = vec![vec![0.3, 0.7], vec![0.5, 0.3, 0.2]];
        let mut rng = Rng::at(1, Purpose::Init, 0);
        let mut mean = [vec![0.0f64; 2], vec![0.0; 3]];
        let rounds = 20_000;
        for _ in 0..rounds {
            let draws = draw(&heads, 4, &mut rng);
            let prices: Vec<f64> = draws.iter().map(|d| price(d)).collect();
            for (sum, grad) in mean.iter_mut().zip(gradient(&heads, &draws, &prices)) {
                sum.iter_mut().zip(grad).for_each(|(s, g)| *s += f64::from(g) / rounds as f64);
            }
        }
        // Exact derivatives, up to a constant a head: the softmax is blind to it.
        for a in 0..2 {
            let exact: f64 = (0..3).map(|i| f64::from(heads[1][i]) * price(&[a, i])).sum();
            let other: f64 = (0..3).map(|i| f64::from(heads[1][i]) * price(&[1 - a, i])).sum();
            let found = mean[0][a] - mean[0][1 - a];
            assert!((found - (exact - other)).abs() < 0.05, "{found} {}", exact - other);
        }
    }

    #[test]
    fn it_finds_the_least_price() {
        let b = Candle;
        let generator = Generator::new(&b, 5, &[2, 3], 1);
        let rule = Rule::Adam { beta1: 0.5, beta2: 0.99, weight_decay: 0.0 };
        let mut optimizer = Optimizer::new(rule);
        let features = [0.1, 0.9, 0.5, 0.5, 1.0];
        let vars: Vec<_> = generator.parameters().iter().map(|p| p.var.clone()).collect();
        let plain = |heads: &[crate::ops::candle::Value]| -> Vec<Vec<f32>> {
            heads.iter().map(|head| b.to_vec(head)).collect()
        };
        for step in 0..150 {
            let heads = generator.heads(&b, &features);
            let q = plain(&heads);
            let draws = draw(&q, 8, &mut Rng::at(3, Purpose::Hardware, step));
            let prices: Vec<f64> = draws.iter().map(|d| price(d)).collect();
            let loss = b.external(0.0, &heads, &gradient(&q, &draws, &prices));
            optimizer.step(&b, generator.parameters(), &b.grad(loss, &vars), 0.02);
        }
        let q = plain(&generator.heads(&b, &features));
        assert!(q[0][1] > 0.8 && q[1][2] > 0.8, "{q:?}");
    }
}
