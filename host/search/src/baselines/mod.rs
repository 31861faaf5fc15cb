//! What a co-search is held against, in the same code: on the same space, data, cost tensor and
//! limits, with the same retraining afterwards.
//!
//! - Random search and evolution on a supernet whose paths are drawn evenly ([`even_supernet`]),
//!   so that it favours no network; they rank networks by their accuracy on images held out from
//!   its training ([`judge`]).
//! - Uniform widths: the co-search of operators alone, where all weights have one width and all
//!   tensors another ([`uniform`]).
//! - Sequential: operators first, at one width, then widths of the chosen operators
//!   ([`sequential`]); hardware that is to be chosen comes last.
//!
//! All of them go on from the same warm-up ([`warm_up`]), which knows of no limits. What a method
//! costs is counted in images ([`Images`]): every method gets as many as the co-search.
//!
//! Must not know: how costs are predicted, what becomes of the result.

pub mod judge;
pub mod trials;

use jaq_cost::{CostModel, Limits};
use jaq_network::Bits;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, Values};
use crate::cosearch::{
    Begin, Found, SearchConfig, SearchError, SearchProgress, Task, halves, search_from, train,
};
use crate::data::Dataset;
use crate::ops::candle::Candle;
use crate::retrain::{Control, TrainError, on_threads};
use crate::space::{Choice, Space};
use crate::supernet::Supernet;

pub use judge::{Judge, JudgeConfig};
pub use trials::{Drawer, Trial, evolution, random};

/// Images a method was shown, by purpose. A forward and backward pass counts as a forward pass
/// does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Images {
    /// Weight steps before anything is searched.
    pub warm_up: u64,
    /// Weight steps of the supernet while it is searched.
    pub weights: u64,
    /// Steps of the architecture.
    pub architecture: u64,
    /// Accuracy of subnets: statistics and held-out images.
    pub evaluation: u64,
    /// Training of the network that was chosen.
    pub retraining: u64,
}

impl Images {
    /// What a co-search is shown with these settings.
    pub fn of_search(data: &Dataset, config: &SearchConfig) -> Images {
        let (weights, _) = halves(data, config);
        let batch = config.batch.max(1);
        let epoch = (weights.len() / batch * batch) as u64;
        let searched = epoch * config.epochs;
        Images {
            warm_up: epoch * config.warmup_epochs,
            weights: searched,
            architecture: searched,
            ..Images::default()
        }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.warm_up + self.weights + self.architecture + self.evaluation + self.retraining
    }
}

/// The first epochs of a search, which know neither limits nor widths: any search with the same
/// settings, and with any limits, cost weights or CSQ, goes on from it ([`Begin::Warm`]) to the
/// same bytes as from the start.
pub fn warm_up(
    space: &Space,
    data: &Dataset,
    config: &SearchConfig,
    control: Control<'_, SearchProgress>,
) -> Result<Checkpoint, TrainError> {
    supernet(space, data, config, Begin::Fresh, true, control)
}

/// A supernet trained like that of a co-search, but for its paths: every operator and width stays
/// as likely as the others.
pub fn even_supernet(
    space: &Space,
    data: &Dataset,
    config: &SearchConfig,
    begin: Begin<'_>,
    control: Control<'_, SearchProgress>,
) -> Result<Values, TrainError> {
    Ok(supernet(space, data, config, begin, false, control)?.values)
}

fn supernet(
    space: &Space,
    data: &Dataset,
    config: &SearchConfig,
    begin: Begin<'_>,
    warm_up_only: bool,
    control: Control<'_, SearchProgress>,
) -> Result<Checkpoint, TrainError> {
    let limits = Limits::default();
    let task = Task { objective: None, limits: &limits, begin, warm_up_only, designs: None };
    Ok(train(space, data, task, config, control)?.state)
}

/// What a network of a trained supernet inherits, by layer name: where its retraining starts.
pub fn inherit(
    space: &Space,
    supernet: &Values,
    choice: &Choice,
    config: &SearchConfig,
) -> Result<Values, TrainError> {
    on_threads(config.threads, || {
        let net = Supernet::new(&Candle, space, config.seed);
        net.restore(&Candle, supernet);
        net.inherit(&Candle, choice)
    })
}

/// The co-search of operators with all weights and all tensors between layers at one width each.
#[allow(clippy::too_many_arguments)]
pub fn uniform<M: CostModel + Sync>(
    space: &Space,
    weight: Bits,
    activation: Bits,
    data: &Dataset,
    model: &M,
    limits: &Limits,
    config: &SearchConfig,
    begin: Begin<'_>,
    control: Control<'_, SearchProgress>,
) -> Result<Found, SearchError> {
    search_from(&space.at_widths(weight, activation), data, model, limits, config, begin, control)
}

/// Settings of the two stages of a sequential search: together as long as the joint one.
pub fn halved(config: &SearchConfig) -> [SearchConfig; 2] {
    let first = SearchConfig { epochs: config.epochs.div_ceil(2), ..config.clone() };
    let second = SearchConfig { warmup_epochs: 0, epochs: config.epochs / 2, ..config.clone() };
    [first, second]
}

/// The second stage of a sequential search: widths for the operators that `first` has, with its
/// weights, within the same limits. [`uniform`] is the first stage, with `halved(config)[0]`.
pub fn sequential<M: CostModel + Sync>(
    space: &Space,
    first: &Found,
    data: &Dataset,
    model: &M,
    limits: &Limits,
    config: &SearchConfig,
    control: Control<'_, SearchProgress>,
) -> Result<Found, SearchError> {
    let part = space.with_operators(&first.choice.operators);
    let place =
        Choice { operators: vec![0; part.sections.len()], widths: vec![0; part.genes.len()] };
    let begin = Begin::Network(&place, &first.values);
    search_from(&part, data, model, limits, &halved(config)[1], begin, control)
}

#[cfg(test)]
mod tests;
