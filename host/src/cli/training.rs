//! How networks are trained, where that is no matter of the budget: options that `search`,
//! `retrain`, `run` and `train` share.

use clap::{Args, ValueEnum};
use jaq_search::ops::StepRule;
use jaq_search::retrain::{Library, RetrainConfig};
use serde::{Deserialize, Serialize};

/// What computes.
#[derive(Clone, Copy, Debug, Args)]
pub struct Computing {
    /// Tensor library to train on. A run may go on with another.
    #[arg(long, value_enum, default_value = "candle")]
    backend: Backend,
    /// Threads; 0 for as many as there are. The result does not depend on it.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
}

/// Tensor libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Backend {
    /// The embedded operators.
    Candle,
    /// libtorch, on a GPU where it finds one; wants a build with `--features tch`.
    Tch,
}

impl Computing {
    /// The library of the search crate.
    pub fn library(&self) -> Library {
        match self.backend {
            Backend::Candle => Library::Embedded,
            Backend::Tch => Library::Tch,
        }
    }

    /// The same settings, computed so.
    pub fn retrain(&self, config: RetrainConfig) -> RetrainConfig {
        RetrainConfig { threads: self.threads, library: self.library(), ..config }
    }
}

/// How the steps of tensors between layers learn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activations {
    /// Learned step size.
    #[default]
    Lsq,
    /// Parameterized clipping.
    Pact,
}

impl Activations {
    /// The rule of the search crate.
    pub fn rule(self) -> StepRule {
        match self {
            Activations::Lsq => StepRule::Lsq,
            Activations::Pact => StepRule::Pact,
        }
    }

    /// Whether it is the usual one, which run directories leave out.
    pub fn is_usual(&self) -> bool {
        *self == Activations::default()
    }
}
