//! How long the two sides of an iteration take.
//!
//! Must not know: what they do.

use serde::{Deserialize, Serialize};

/// Median times of an iteration of the search, in seconds; 0 where none was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Iterations that were timed.
    pub iterations: usize,
    /// The hardware side: expected cost of network and hardware, limits, and all gradients.
    pub hardware_s: f64,
    /// Forward and backward passes of the supernet, for weights and for the architecture.
    pub network_s: f64,
}

impl Timing {
    pub(crate) fn of(hardware: &mut [f64], network: &mut [f64]) -> Timing {
        let median = |times: &mut [f64]| {
            times.sort_by(f64::total_cmp);
            times.get(times.len() / 2).copied().unwrap_or(0.0)
        };
        let (hardware_s, network_s) = (median(hardware), median(network));
        Timing { iterations: hardware.len(), hardware_s, network_s }
    }
}
