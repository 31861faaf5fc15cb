//! `cargo xtask bench cost --mcu`: cost tables against emulated cores, on layers that no table was
//! fitted to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use jaq_cost::calibrate::{Measurement, fit_table, from_csv, to_csv};
use jaq_cost::corpus::fresh;
use jaq_cost::{CostTable, Mcu, McuModel, fit};
use jaq_deploy::count::{Slow, count, count_corpus};
use jaq_deploy::firmware;
use jaq_deploy::link::rtl::CALIBRATION_WAITS;
use serde::Serialize;

use super::Core;

/// Largest median and worst error that a table may have.
const LIMITS: (f64, f64) = (0.03, 0.10);

/// Options of `--mcu`.
#[derive(Debug, Args)]
pub struct Fresh {
    /// Hold the cost tables to emulated cores on fresh layers, instead of measuring speeds.
    #[arg(long)]
    pub mcu: bool,
    /// Core of --mcu; may be given several times.
    #[arg(long, value_enum, requires = "mcu", default_values = ["m7", "m4", "m0p", "rv32"])]
    core: Vec<Core>,
    /// Seed that draws the layers.
    #[arg(long, requires = "mcu", default_value_t = 1)]
    seed: u64,
    /// Layers to draw.
    #[arg(long, requires = "mcu", default_value_t = 200)]
    layers: usize,
    /// Judge the counted runs of this file; run nothing.
    #[arg(long, requires = "mcu", value_name = "FILE")]
    measurements: Option<PathBuf>,
    /// Write the counted runs into this file.
    #[arg(long, requires = "mcu", value_name = "FILE")]
    save: Option<PathBuf>,
    /// First fit the tables anew, as `jaq-host calibrate` does, and write them into this folder.
    #[arg(long, requires = "mcu", value_name = "DIR")]
    refit: Option<PathBuf>,
}

/// One run beside its prediction.
#[derive(Debug, Serialize)]
struct Row {
    core: String,
    kernel: &'static str,
    layer: String,
    bits: String,
    predicted: f64,
    observed: u64,
    /// Relative, signed.
    error: f64,
}

impl Fresh {
    pub fn run(&self, json: bool) -> Result<()> {
        let mut rows = Vec::new();
        for &core in &self.core {
            let mut board = Mcu::load(core.board())?;
            if firmware::target(core.board())?.rtl {
                // A table in cycles is this core's own.
                board.core.cost_table.clone_from(&board.name);
            }
            let model = match &self.refit {
                Some(folder) => McuModel::with_table(board.clone(), refit(core, &board, folder)?),
                None => McuModel::new(board)?,
            };
            let runs = match &self.measurements {
                Some(path) => {
                    let text = std::fs::read_to_string(path)
                        .with_context(|| format!("cannot read {}", path.display()))?;
                    from_csv(&text)?.1
                }
                None => self.count(core)?,
            };
            for Measurement { subject, count, .. } in runs {
                let predicted = model.predict(&subject)?.counted;
                rows.push(Row {
                    core: core.name(),
                    kernel: subject.kernel(),
                    layer: subject.spec(),
                    bits: subject.bits(),
                    predicted,
                    observed: count,
                    error: predicted / count as f64 - 1.0,
                });
            }
        }
        if json {
            println!("{}", serde_json::to_string_pretty(&rows)?);
        }
        let mut over = Vec::new();
        for core in &self.core {
            let name = core.name();
            let (median, worst) = summarize(&name, &rows, json);
            if median > LIMITS.0 || worst > LIMITS.1 {
                over.push(name);
            }
        }
        if !over.is_empty() {
            bail!("over the limits of {:?} (median, worst): {}", LIMITS, over.join(", "));
        }
        Ok(())
    }

    fn count(&self, core: Core) -> Result<Vec<Measurement>> {
        let isa = core.isa()?;
        let mut session = core.start()?;
        let unit = session.unit();
        let mut runs = Vec::new();
        for (index, layer) in fresh(isa, self.seed, self.layers).iter().enumerate() {
            runs.extend(count(&mut session, layer, isa, self.seed + index as u64)?);
        }
        session.bye()?;
        if let Some(path) = &self.save {
            std::fs::write(path, to_csv(unit, &runs))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(runs)
    }
}

/// Counts the corpus on `core` and writes its table and measurements into `folder`.
fn refit(core: Core, board: &Mcu, folder: &Path) -> Result<CostTable> {
    let mut session = core.start()?;
    let mut slow = match firmware::target(core.board())?.rtl {
        true => Some(Slow {
            session: core.start_with(CALIBRATION_WAITS)?,
            wait_states: CALIBRATION_WAITS.into(),
        }),
        false => None,
    };
    let unit = session.unit();
    let runs = count_corpus(&mut session, slow.as_mut(), board.isa(), |done, all| {
        if done % 50 == 0 {
            eprintln!("{}: {done} of {all} layers", board.name);
        }
    })?;
    let via = session.via();
    session.bye()?;
    slow.map_or(Ok(()), |slow| slow.session.bye())?;
    let write = |ending: &str, text: String| {
        let path = folder.join(format!("{}{ending}", board.core.cost_table));
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    // Kept even where they make no table.
    write(".measurements.csv", to_csv(unit, &runs))?;
    let source = format!("{} counts on {} via {via}", runs.len(), board.name);
    let refit = format!("jaq-host calibrate --board {} --via {via}", board.name);
    let table = fit_table(board, unit, &source, &refit, &runs)?;
    write(".toml", table.to_toml())?;
    Ok(table)
}

/// Prints the errors of a core by kernel and its worst runs; the errors of its layers together,
/// encodings of inputs among them.
fn summarize(core: &str, rows: &[Row], json: bool) -> (f64, f64) {
    let mut rows: Vec<&Row> = rows.iter().filter(|row| row.core == core).collect();
    let errors = |rows: &[&Row]| {
        let predicted: Vec<f64> = rows.iter().map(|row| row.predicted).collect();
        let observed: Vec<f64> = rows.iter().map(|row| row.observed as f64).collect();
        fit::errors(&predicted, &observed)
    };
    let (median, worst) = errors(&rows);
    if json {
        return (median, worst);
    }
    let mut kernels: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in &rows {
        kernels.entry(row.kernel).or_default().push(row);
    }
    println!("{core:<6}{:<12}{:>6}{:>9}{:>9}", "kernel", "runs", "median", "worst");
    let line = |name: &str, runs: usize, (median, worst): (f64, f64)| {
        println!("{core:<6}{name:<12}{runs:>6}{:>8.2}%{:>8.2}%", median * 100.0, worst * 100.0);
    };
    for (kernel, rows) in &kernels {
        line(kernel, rows.len(), errors(rows));
    }
    line("all", rows.len(), (median, worst));
    rows.sort_by(|a, b| b.error.abs().total_cmp(&a.error.abs()));
    for row in rows.iter().take(8) {
        let Row { kernel, layer, bits, predicted, observed, error, .. } = row;
        println!(
            "  {kernel:<10}{layer:<28}{bits:<9}{observed:>10} predicted {predicted:>11.0}{:>+8.2}%",
            error * 100.0
        );
    }
    (median, worst)
}
