//! Cost tables: instructions of every kernel's parts on an instruction set, fitted to counted runs.
//!
//! A table lies in `boards/tables/<name>.toml`, the measurements it was fitted to beside it. It
//! carries the hash of the kernel registry it was measured with: where kernels changed since, it is
//! refused, with the command that refits it. Must not know: boards, networks.

use std::collections::BTreeMap;
use std::path::Path;

use jaq_shared::kernels;
use serde::{Deserialize, Serialize};

use crate::board::TABLES;

/// Name under which the encoding of the raw input is priced.
pub const ENCODE: &str = "encode";
/// What the encoding of an input is counted by.
pub const ENCODE_FEATURES: [&str; 4] = ["elements", "bytes", "pixels", "calls"];

/// Instructions of kernels on one instruction set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostTable {
    /// Name, that of the file.
    pub name: String,
    /// Hash of the kernel registry at the time of the measurements, `0x` and eight digits.
    pub registry_hash: String,
    /// What was measured.
    pub fitted_from: String,
    /// The command that makes the table anew.
    pub refit: String,
    /// Every kernel, and `encode`.
    pub kernels: BTreeMap<String, KernelCost>,
}

/// Cost of one kernel: `sum(coefficient * count)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelCost {
    /// Names of the counts.
    pub features: Vec<String>,
    /// Instructions of each.
    pub coefficients: Vec<f64>,
    /// How well this predicts.
    pub error: FitError,
}

/// Absolute relative errors of a fit, 0..1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct FitError {
    pub points: usize,
    pub median: f64,
    pub worst: f64,
    /// Points that were not used in the fit.
    pub held_out_points: usize,
    pub held_out_median: f64,
    pub held_out_worst: f64,
}

/// Why a cost table cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TableError {
    #[error("there is no cost table `{name}`; `{refit}` makes it")]
    Missing { name: String, refit: String },
    #[error("cannot read the cost table {path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("cost table `{name}`: {reason}")]
    Syntax { name: String, reason: String },
    #[error(
        "cost table `{name}` was fitted for other kernels (registry {found}, this build has {expected}); refit it with `{refit}`"
    )]
    Stale { name: String, found: String, expected: String, refit: String },
    #[error("cost table `{name}` does not know kernel `{kernel}`; refit it with `{refit}`")]
    Kernel { name: String, kernel: String, refit: String },
}

/// The registry of this build as tables write it.
pub fn registry_hash() -> String {
    format!("{:#010x}", kernels::registry_hash())
}

/// The command that fits the table `name`.
pub fn refit_command(board: &str) -> String {
    format!("jaq-host calibrate --board {board} --via qemu")
}

impl CostTable {
    /// The shipped table `name`, or the file of that path; `board` can measure it anew.
    pub fn load(name: &str, board: &str) -> Result<CostTable, TableError> {
        let text: std::borrow::Cow<str> = match TABLES.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => (*text).into(),
            None if Path::new(name).is_file() => std::fs::read_to_string(name)
                .map_err(|source| TableError::Io { path: name.to_owned(), source })?
                .into(),
            None => {
                let refit = refit_command(board);
                return Err(TableError::Missing { name: name.to_owned(), refit });
            }
        };
        CostTable::parse(name, &text)
    }

    /// Parses and checks the text of a table.
    pub fn parse(name: &str, text: &str) -> Result<CostTable, TableError> {
        let syntax = |reason: String| TableError::Syntax { name: name.to_owned(), reason };
        let table: CostTable =
            toml::from_str(text).map_err(|e| syntax(e.to_string().trim_end().to_owned()))?;
        let expected = registry_hash();
        if table.registry_hash != expected {
            return Err(TableError::Stale {
                name: name.to_owned(),
                found: table.registry_hash,
                expected,
                refit: table.refit,
            });
        }
        for (kernel, cost) in &table.kernels {
            if cost.features.len() != cost.coefficients.len() {
                return Err(syntax(format!("kernels.{kernel}: one coefficient a feature wanted")));
            }
            if !cost.coefficients.iter().all(|c| c.is_finite() && *c >= 0.0) {
                return Err(syntax(format!("kernels.{kernel}.coefficients: must not be negative")));
            }
        }
        Ok(table)
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        let body = toml::to_string(self).expect("a table of plain data can always be written");
        format!("# Written by `{}`; do not edit.\n{body}", self.refit)
    }

    /// Instructions of `kernel` with the given counts, in the order of its features.
    pub fn instructions(&self, kernel: &str, counts: &[u64]) -> Result<f64, TableError> {
        let cost = self.kernels.get(kernel).ok_or_else(|| TableError::Kernel {
            name: self.name.clone(),
            kernel: kernel.to_owned(),
            refit: self.refit.clone(),
        })?;
        Ok(cost.coefficients.iter().zip(counts).map(|(c, &n)| c * n as f64).sum())
    }
}
