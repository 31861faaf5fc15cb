//! The two backends hold each other to the truth: one network, one state, one seed.

use super::candle::Candle;
use super::tch::Torch;
use super::{Activation, Backend, Grid, Norm, Options, RunningStats, Slide, StepRule};
use crate::optim::{Optimizer, Parameter, Rule};
use crate::rng::{Purpose, Rng};

fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = Rng::at(seed, Purpose::Init, 0);
    (0..n).map(|_| rng.normal()).collect()
}

const SHAPES: [&[usize]; 13] = [
    &[8, 3, 3, 3],
    &[8],
    &[8],
    &[8, 5, 5],
    &[8],
    &[8],
    &[12, 8, 1, 1],
    &[12],
    &[12],
    &[10, 12],
    &[10],
    &[3],
    &[3],
];

fn parameters<B: Backend>(b: &B) -> Vec<Parameter<B::Var>> {
    let parameter = |(i, shape): (usize, &&[usize])| {
        let n: usize = shape.iter().product();
        let data = match (i, shape.len()) {
            (11, _) => vec![0.6, 0.2, 0.02],
            (12, _) => vec![0.3, 0.5, 0.2],
            (_, 1) if i % 3 == 1 => vec![1.0; n],
            (_, 1) => vec![0.0; n],
            _ => random(n, i as u64).iter().map(|x| 0.3 * x).collect(),
        };
        Parameter::new(format!("p{i}"), b.var(&data, shape))
    };
    SHAPES.iter().enumerate().map(parameter).collect()
}

/// Convolution, depthwise at stride 2 with asymmetric padding, pointwise, each normalized.
fn loss<B: Backend>(
    b: &B,
    v: &[Parameter<B::Var>],
    stats: &mut [RunningStats],
    quantized: Option<StepRule>,
    batch: u64,
) -> B::Tensor {
    let leaf = |i: usize| b.leaf(&v[i].var);
    let rule = quantized.unwrap_or_default();
    let grids = [2, 4, 8].map(|bits| Grid::unsigned(bits).learned_by(rule));
    let marks: Vec<bool> = (0..8).map(|c| c % 3 != 1).collect();
    let mut norm = |x: &B::Tensor, first: usize, channels: Option<&[bool]>| {
        let (gamma, beta) = (leaf(first), leaf(first + 1));
        let norm = Norm::Train { stats: &mut stats[first / 3], momentum: 0.1 };
        if quantized.is_none() {
            return b.batch_norm(x, &gamma, &beta, norm, Activation::Relu);
        }
        let (steps, p) = (&leaf(11), &leaf(12));
        let options = Options { grids: &grids, steps, p, channels };
        b.batch_norm_quant(x, &gamma, &beta, norm, Activation::Relu, &options)
    };
    let weight = |i: usize| {
        let w = leaf(i);
        if quantized.is_none() {
            return w;
        }
        let channels = SHAPES[i][0];
        b.fake_quant(&w, &b.tensor(&vec![0.15; channels], &[channels]), Grid::signed(4), false)
    };
    let x = b.tensor(&random(16 * 3 * 12 * 12, 100 + batch), &[16, 3, 12, 12]);
    let same = |p| Slide { stride: 1, pads: [p; 4] };
    let x = norm(&b.conv2d(&x, &weight(0), same(1)), 1, None);
    let slide = Slide { stride: 2, pads: [1, 2, 1, 2] };
    let x = norm(&b.depthwise(&x, &weight(3), slide), 4, Some(&marks));
    let x = norm(&b.conv2d(&x, &weight(6), Slide::POINT), 7, None);
    let logits = b.linear(&b.global_avg_pool(&x), &weight(9), Some(&leaf(10)));
    let labels: Vec<u32> = (0..16).map(|i| (i * 7 + batch as u32) % 10).collect();
    let task = b.cross_entropy(&logits, &labels, 0.1);
    b.add(&task, &b.distillation(&logits, &random(160, 5), 2.0))
}

fn fresh_stats() -> Vec<RunningStats> {
    [8, 8, 12].map(RunningStats::new).into()
}

#[allow(clippy::type_complexity)]
fn one_step<B: Backend>(b: &B, rule: StepRule) -> (f32, Vec<Option<Vec<f32>>>, Vec<RunningStats>) {
    let parameters = parameters(b);
    let vars: Vec<B::Var> = parameters.iter().map(|p| p.var.clone()).collect();
    let mut stats = fresh_stats();
    let loss = loss(b, &parameters, &mut stats, Some(rule), 0);
    (b.to_scalar(&loss), b.grad(loss, &vars), stats)
}

#[test]
fn one_quantized_step_agrees() {
    for rule in [StepRule::Lsq, StepRule::Pact] {
        let (a, da, a_stats) = one_step(&Candle, rule);
        let (b, db, b_stats) = one_step(&Torch::cpu(1), rule);
        assert!((a - b).abs() <= 1e-4 * a.abs(), "{a} {b}");
        for (i, (da, db)) in da.iter().zip(&db).enumerate() {
            let (da, db) = (da.as_ref().unwrap(), db.as_ref().unwrap());
            let scale = da.iter().fold(1e-4f32, |m, x| m.max(x.abs()));
            let apart = da.iter().zip(db).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(apart <= 1e-4 * scale, "{rule:?}, parameter {i}: {apart} of {scale}");
        }
        for (a, b) in a_stats.iter().zip(&b_stats) {
            assert!(a.mean.iter().zip(&b.mean).all(|(a, b)| (a - b).abs() < 1e-5));
            assert!(a.var.iter().zip(&b.var).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }
}

fn train<B: Backend>(b: &B) -> Vec<f32> {
    let parameters = parameters(b);
    // Steps and probabilities have no part in a network of real values.
    let vars: Vec<B::Var> = parameters.iter().map(|p| p.var.clone()).collect();
    let mut stats = fresh_stats();
    let rule = Rule::Sgd { momentum: 0.9, nesterov: false, weight_decay: 1e-4 };
    let mut optimizer = Optimizer::new(rule);
    let step = |batch: u64| {
        let loss = loss(b, &parameters, &mut stats, None, batch % 8);
        let value = b.to_scalar(&loss);
        optimizer.step(b, &parameters, &b.grad(loss, &vars), 0.02);
        value
    };
    (0..200).map(step).collect()
}

#[test]
fn two_hundred_real_steps_agree() {
    let (a, b) = (train(&Candle), train(&Torch::cpu(1)));
    assert!(a[199] < a[0]);
    let apart = a.iter().zip(&b).map(|(a, b)| ((a - b) / a).abs()).fold(0.0, f32::max);
    assert!(apart < 1e-3, "losses differ by {apart}");
}
