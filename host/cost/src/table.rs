//! Cost tables: instructions, or cycles, of every kernel's parts on a core, fitted to counted runs.
//!
//! A table lies in `boards/tables/<name>.toml`, the measurements it was fitted to beside it. It
//! carries the hash of what the kernels execute on its instruction set: where that changed since, it
//! is refused, with the command that refits it. Must not know: boards, networks.

use std::collections::BTreeMap;
use std::path::Path;

use jaq_shared::kernels::{self, Isa, Work};
use serde::{Deserialize, Serialize};

use crate::board::{IsaName, TABLES};

/// Name under which the encoding of the raw input is priced.
pub const ENCODE: &str = "encode";

/// What a count on a device means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Unit {
    Instructions,
    Cycles,
}

impl Unit {
    /// Name, as in files.
    pub const fn name(self) -> &'static str {
        match self {
            Unit::Instructions => "instructions",
            Unit::Cycles => "cycles",
        }
    }
}

/// Cost of kernels on one core.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostTable {
    /// Name, that of the file.
    pub name: String,
    /// Which micro-kernels were measured.
    pub isa: IsaName,
    /// [`kernels::cost_hash`] at the time of the measurements, `0x` and eight digits.
    pub registry_hash: String,
    /// What was counted.
    pub unit: Unit,
    /// What was measured.
    pub fitted_from: String,
    /// The command that makes the table anew.
    pub refit: String,
    /// Every kernel, and `encode`.
    pub kernels: BTreeMap<String, KernelCost>,
}

/// Cost of one kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelCost {
    /// In the table's unit.
    pub counted: Fit,
    /// Accesses that memory slower than the measured one would delay, by one wait state each, where
    /// they were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accesses: Option<Fit>,
}

/// A quantity of a kernel: `sum(coefficient * count)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fit {
    /// What one of each of [`Work`]'s counts costs.
    pub coefficients: BTreeMap<String, f64>,
    /// How well this predicts.
    pub error: FitError,
}

impl Fit {
    /// The quantity for the counts; the name of one that was never measured as an error.
    pub fn predict(&self, work: &Work) -> Result<f64, &'static str> {
        work.counts().try_fold(0.0, |sum, (name, count)| {
            Ok(sum + self.coefficients.get(name).ok_or(name)? * count as f64)
        })
    }
}

/// What a table says of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Predicted {
    /// In the table's unit.
    pub counted: f64,
    /// See [`KernelCost::accesses`].
    pub accesses: Option<f64>,
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
    #[error(
        "cost table `{name}`: no measured run of kernel `{kernel}` has `{count}`; refit it with `{refit}`"
    )]
    Count { name: String, kernel: String, count: String, refit: String },
}

/// What this build's kernels execute, as tables write it.
pub fn registry_hash(isa: Isa) -> String {
    format!("{:#010x}", kernels::cost_hash(isa))
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
        let expected = registry_hash(table.isa.into());
        if table.registry_hash != expected {
            return Err(TableError::Stale {
                name: name.to_owned(),
                found: table.registry_hash,
                expected,
                refit: table.refit,
            });
        }
        for (kernel, cost) in &table.kernels {
            let mut fits = [Some(&cost.counted), cost.accesses.as_ref()].into_iter().flatten();
            if fits.any(|fit| fit.coefficients.values().any(|c| !(c.is_finite() && *c >= 0.0))) {
                return Err(syntax(format!("kernels.{kernel}: a coefficient is negative")));
            }
        }
        Ok(table)
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        let body = toml::to_string(self).expect("a table of plain data can always be written");
        format!("# Written by `{}`; do not edit.\n{body}", self.refit)
    }

    /// What a run of `kernel` with these counts costs.
    pub fn predict(&self, kernel: &str, work: &Work) -> Result<Predicted, TableError> {
        let cost = self.kernels.get(kernel).ok_or_else(|| TableError::Kernel {
            name: self.name.clone(),
            kernel: kernel.to_owned(),
            refit: self.refit.clone(),
        })?;
        let unknown = |count: &str| TableError::Count {
            name: self.name.clone(),
            kernel: kernel.to_owned(),
            count: count.to_owned(),
            refit: self.refit.clone(),
        };
        Ok(Predicted {
            counted: cost.counted.predict(work).map_err(unknown)?,
            accesses: cost
                .accesses
                .as_ref()
                .map(|fit| fit.predict(work))
                .transpose()
                .map_err(unknown)?,
        })
    }
}
