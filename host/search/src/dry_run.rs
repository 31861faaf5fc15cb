//! What a search would take, before it is started: sizes that follow from the space, the time of one
//! step of the supernet on random images, and of the hardware side beside it.
//!
//! Must not know: data sets.

use std::time::Instant;

use serde::Serialize;

use crate::cosearch::SearchConfig;
use crate::hardware::{Designs, Side};
use crate::objective::{Duals, Objective, Probabilities};
use crate::ops::Backend;
use crate::ops::candle::Candle;
use crate::retrain::{TrainError, on_threads};
use crate::rng::{Purpose, Rng};
use crate::space::Space;
use crate::supernet::{Mixture, Pass, Supernet};

/// Sizes of a search.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Size {
    /// Weights, normalizations and quantizer steps of the supernet.
    pub parameters: usize,
    /// Parameters, their gradients, and Adam's two moments, in bytes.
    pub parameter_bytes: usize,
    /// Feature maps that the two most demanding operators of every section keep for the backward
    /// pass, input and normalized output of every layer, for one image, in bytes: from above.
    pub image_bytes: usize,
}

/// Sizes that follow from the space alone.
pub fn size(space: &Space) -> Size {
    let net = Supernet::new(&Candle, space, 0);
    let parameters = net.weights().iter().map(|p| Candle.var_to_vec(&p.var).len()).sum();
    let section = |operators: &Vec<(String, Vec<crate::space::Template>)>| -> usize {
        let of = |layers: &Vec<crate::space::Template>| -> usize {
            layers.iter().map(|l| l.input.elements() + l.output.elements()).sum()
        };
        let mut sizes: Vec<usize> = operators.iter().map(|(_, layers)| of(layers)).collect();
        sizes.sort_unstable();
        sizes.iter().rev().take(2).sum()
    };
    let floats: usize = space.sections.iter().map(|s| section(&s.operators)).sum();
    Size { parameters, parameter_bytes: 16 * parameters, image_bytes: 4 * floats }
}

/// Seconds of one step of the supernet, weights and architecture, on `batch` random images.
pub fn step_seconds(space: &Space, batch: usize, threads: usize) -> Result<f64, TrainError> {
    on_threads(threads, || {
        let b = Candle;
        let net = Supernet::new(&b, space, 1);
        let shape = space.input;
        let mut rng = Rng::at(1, Purpose::Init, 0);
        let count = batch * shape.elements();
        let images: Vec<f32> = (0..count).map(|_| rng.unit()).collect();
        let images = b.tensor(&images, &[batch, shape.c.into(), shape.h.into(), shape.w.into()]);
        let labels: Vec<u32> = (0..batch).map(|i| (i % space.classes.len()) as u32).collect();
        let weights: Vec<_> = net.weights().into_iter().map(|p| p.var).collect();
        let architecture: Vec<_> = net.architecture().into_iter().map(|p| p.var).collect();
        let started = Instant::now();
        for (pass, vars) in [(Pass::Weights, &weights), (Pass::Architecture, &architecture)] {
            let path = net.draw(&b, &mut rng, pass, Mixture::Drawn, Some(1.0));
            let logits = net.forward(&b, images.clone(), &path, pass);
            let loss = b.cross_entropy(&logits, &labels, 0.0);
            b.grad(loss, vars);
        }
        started.elapsed().as_secs_f64()
    })
}

/// Seconds of one iteration's hardware side: expected cost of network and hardware, limits, and all
/// gradients; the median and the least of `rounds`. What is priced once is priced before.
pub fn hardware_seconds(
    space: &Space,
    objective: &Objective,
    designs: Option<&Designs>,
    config: &SearchConfig,
    rounds: u64,
) -> Result<[f64; 2], TrainError> {
    on_threads(config.threads, || {
        let b = Candle;
        let mut side = designs.map(|designs| Side::new(&b, designs, space, config)).transpose()?;
        let mut duals = Duals::new(config.cost.limit, rounds);
        let p = Probabilities::uniform(space);
        let mut times = Vec::new();
        for round in 0..rounds.max(1) {
            let started = Instant::now();
            let found = match &mut side {
                None => objective.evaluate(space, &p, &duals, None),
                Some(side) => side.step(&b, objective, &p, &duals, 0.0, round)?,
            };
            duals.observe(&found, &p, 0.01);
            let (_, gradient) = found.with_limits(&duals);
            duals.ascend(&found);
            std::hint::black_box(gradient.by_logits(&p));
            times.push(started.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        Ok([times[times.len() / 2], times[0]])
    })?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::tests::small_space;

    #[test]
    fn sizes_by_hand_and_times_are_measured() {
        let space = small_space();
        let found = size(&space);
        let net = Supernet::new(&Candle, &space, 3);
        let values: usize = net.values(&Candle).values().map(Vec::len).sum();
        let logits: usize =
            net.architecture().iter().map(|p| Candle.var_to_vec(&p.var).len()).sum();
        assert_eq!(found.parameters, values - logits);
        // The stem alone: 28x28 in, 7x7x8 out.
        assert!(found.image_bytes > 4 * (784 + 392));
        assert!(step_seconds(&space, 4, 1).unwrap() > 0.0);
    }
}
