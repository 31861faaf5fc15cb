//! What a trained supernet says of one of its networks: its accuracy on images that the
//! supernet's weights did not learn from, with the supernet's weights and steps at the chosen
//! widths, after its batch normalizations were estimated anew. (The statistics of a shared
//! supernet belong to no network in particular.)
//!
//! Must not know: where networks come from, costs.

use serde::{Deserialize, Serialize};

use crate::checkpoint::Values;
use crate::cosearch::{SearchConfig, halves};
use crate::data::{Augment, Batches, Dataset};
use crate::ops::Backend;
use crate::ops::candle::Candle;
use crate::retrain::{TrainError, on_threads, right};
use crate::space::{Choice, Space};
use crate::subnet::{Phase, Subnet};
use crate::supernet::Supernet;

/// How many images a judgement takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JudgeConfig {
    /// Images of the weights' half that batch normalizations are estimated on.
    pub estimation: usize,
    /// Images of the architecture's half that accuracy is measured on.
    pub held_out: usize,
    /// Images of a pass.
    pub batch: usize,
}

impl Default for JudgeConfig {
    fn default() -> Self {
        JudgeConfig { estimation: 256, held_out: 512, batch: 128 }
    }
}

/// Judges networks by a supernet.
pub struct Judge<'a> {
    space: &'a Space,
    supernet: &'a Values,
    seed: u64,
    threads: usize,
    statistics: Vec<(Vec<f32>, Vec<u32>)>,
    held_out: Vec<(Vec<f32>, Vec<u32>)>,
    dims: [usize; 3],
}

impl<'a> Judge<'a> {
    /// By a supernet that was trained on `data` with `config`; the same images for every network.
    pub fn new(
        space: &'a Space,
        data: &Dataset,
        supernet: &'a Values,
        search: &SearchConfig,
        config: &JudgeConfig,
    ) -> Judge<'a> {
        let (weights, architecture) = halves(data, search);
        let some = |of: Vec<u32>, count: usize| {
            let size = config.batch.clamp(1, of.len().max(1));
            let (shape, seed) = (data.shape, search.seed);
            let all = Batches::shuffled(&data.train, shape, of, size, Augment::NONE, seed, JUDGED);
            let batches = count.div_ceil(size).clamp(1, all.len().max(1)).min(all.len());
            (0..batches).map(|index| all.get(index)).collect::<Vec<_>>()
        };
        let shape = data.shape;
        Judge {
            space,
            supernet,
            seed: search.seed,
            threads: search.threads,
            statistics: some(weights, config.estimation),
            held_out: some(architecture, config.held_out),
            dims: [shape.c, shape.h, shape.w].map(usize::from),
        }
    }

    /// Images that one judgement takes.
    pub fn images(&self) -> u64 {
        let count = |batches: &[(Vec<f32>, Vec<u32>)]| -> usize {
            batches.iter().map(|(_, labels)| labels.len()).sum()
        };
        (count(&self.statistics) + count(&self.held_out)) as u64
    }

    /// Share of the held-out images that the network classifies right.
    pub fn accuracy(&self, choice: &Choice) -> Result<f64, TrainError> {
        on_threads(self.threads, || self.measure(&Candle, choice))?
    }

    fn measure<B: Backend>(&self, b: &B, choice: &Choice) -> Result<f64, TrainError> {
        let net = Supernet::new(b, self.space, self.seed);
        net.restore(b, self.supernet);
        let values = net.inherit_steps(b, choice);
        let mut subnet = Subnet::new(b, &self.space.network(choice), true, &values, 0)?;
        let tensor = |images: &[f32], labels: &[u32]| {
            let [c, h, w] = self.dims;
            b.tensor(images, &[labels.len(), c, h, w])
        };
        for (index, (images, labels)) in self.statistics.iter().enumerate() {
            let phase = Phase::Estimate(1.0 / (index + 1) as f32);
            subnet.forward(b, tensor(images, labels), phase);
        }
        let (mut sum, mut count) = (0, 0);
        for (images, labels) in &self.held_out {
            let logits = subnet.forward(b, tensor(images, labels), Phase::Eval);
            sum += right(&b.to_vec(&logits), labels);
            count += labels.len();
        }
        Ok(sum as f64 / count.max(1) as f64)
    }
}

/// Number of the epoch that the order of judged images is drawn for; no training gets there.
const JUDGED: u64 = u32::MAX as u64 - 1;
