//! Where a figure comes from: a type, so that no report can print one kind as another.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a cost or latency was obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provenance {
    /// By a cost model.
    Predicted,
    /// Counted on an emulated core: instructions, never a latency.
    Emulated,
    /// Counted on simulated hardware: cycles of the real design.
    RtlSimulated,
    /// Measured on a physical device.
    Measured,
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Provenance::Predicted => "predicted",
            Provenance::Emulated => "emulated",
            Provenance::RtlSimulated => "RTL-simulated",
            Provenance::Measured => "measured",
        })
    }
}
