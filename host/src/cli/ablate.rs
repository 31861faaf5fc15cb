//! `jaq-host ablate`: methods times seeds on one data set, board and limits; table and plots.
//!
//! Every cell runs in a process of its own, so that its peak memory is its own, and leaves its
//! outcome in a folder of the run directory: the same command goes on wherever it was ended.

pub mod cell;
pub mod lab;
pub mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;

use super::print_json;
use crate::plot::{Axes, Series, scatter};
use cell::{Cell, Method, Outcome, Target};
use lab::{Lab, Terms};

/// Hold the co-search against random search, evolution, a sequential search, uniform widths and
/// itself with CSQ, over seeds, at equal budgets and limits.
#[derive(Debug, Args)]
pub struct Ablate {
    #[command(flatten)]
    terms: Terms,
    /// Methods: co-search, random, evolution, sequential, uniformB, csqK, csq-randomK, with B bits and K %.
    /// csq100 quantizes every channel, as the co-search does.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "co-search,random,evolution,sequential,uniform8,uniform4,uniform3,uniform2,csq10,csq30,csq50,csq-random50"
    )]
    methods: Vec<Method>,
    /// Seeds of every method.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    seeds: Vec<u64>,
    /// Run directory.
    #[arg(long, default_value = "runs/ablation")]
    run: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Run this cell alone, in this process.
    #[arg(long, hide = true)]
    only: Option<String>,
}

impl Ablate {
    pub fn run(self) -> Result<()> {
        let lab = Lab::open(&self.terms, &self.run, "ablate")?;
        // Seed by seed, so that every method has some seeds first.
        let cell =
            |seed| move |method: &Method| Cell { method: *method, seed, target: Target::Plain };
        let cells: Vec<Cell> =
            self.seeds.iter().flat_map(|seed| self.methods.iter().map(cell(*seed))).collect();
        let Some(outcomes) = run_cells(&lab, &cells, self.only.as_deref())? else { return Ok(()) };
        let rows = table::rows(&outcomes);
        write_tables(&lab, "table", &outcomes, &rows)?;
        let points = |e: &table::Row| Some((e.instructions?.value / 1e6, e.accuracy?));
        let series: Vec<Series> = rows
            .iter()
            .filter_map(|row| Some((row, points(row)?)))
            .map(|(row, (x, y))| Series {
                name: row.method.clone(),
                points: vec![[x, y.value, y.low, y.high]],
                joined: false,
            })
            .collect();
        let title = format!("{} on {}, {} seeds", lab.data.name, lab.board.name, self.seeds.len());
        let axes = Axes {
            title: &title,
            x: "predicted instructions, millions",
            y: "accuracy, integer engine",
        };
        scatter(&lab.run.join("accuracy.svg"), &axes, &series)?;
        self.memory(&lab, &rows)?;
        if self.json {
            return print_json(&rows);
        }
        print!("{}", table::markdown(&rows));
        println!(
            "\naccuracy on {}; everything lies in {}",
            lab.data.test_label,
            self.run.display()
        );
        Ok(())
    }

    /// Accuracy over the peak memory of the search.
    fn memory(&self, lab: &Lab, rows: &[table::Row]) -> Result<()> {
        let series: Vec<Series> = rows
            .iter()
            .filter_map(|row| Some((row, row.search_peak_bytes?.value, row.accuracy?)))
            .map(|(row, x, y)| Series {
                name: row.method.clone(),
                points: vec![[x / 1e6, y.value, y.low, y.high]],
                joined: false,
            })
            .collect();
        if series.is_empty() {
            return Ok(());
        }
        let axes = Axes {
            title: "Memory of the search",
            x: "peak resident memory, MB",
            y: "accuracy, integer engine",
        };
        scatter(&lab.run.join("memory.svg"), &axes, &series)
    }
}

/// Runs cells that have no outcome yet, each in a process of its own, and reads all outcomes.
/// `only` runs one of them here; nothing is then read.
pub fn run_cells(lab: &Lab, cells: &[Cell], only: Option<&str>) -> Result<Option<Vec<Outcome>>> {
    if let Some(name) = only {
        end_with_parent();
        let found = cells.iter().find(|cell| cell.to_string() == name);
        cell::run(lab, found.with_context(|| format!("there is no cell `{name}`"))?)?;
        return Ok(None);
    }
    let mut outcomes = Vec::new();
    for (index, cell) in cells.iter().enumerate() {
        if !lab.run.has(&format!("cells/{cell}/outcome.json")) {
            tracing::info!("{cell} ({} of {})", index + 1, cells.len());
            alone(&cell.to_string(), lab.run.path())?;
        }
        outcomes.push(cell::run(lab, cell)?);
    }
    Ok(Some(outcomes))
}

/// A cell ends with the command that started it: its standard input closes then, however that
/// command ended.
fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
}

/// This command again, for one cell.
fn alone(cell: &str, run: &Path) -> Result<()> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .args(["--only", cell])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start this program again")?;
    // Kept open until the child has ended.
    let stdin = child.stdin.take();
    let status = child.wait().context("cannot wait for the cell")?;
    drop(stdin);
    if !status.success() {
        bail!(
            "cell {cell} ended early ({status}); the same command goes on from what lies in {}",
            run.display()
        );
    }
    Ok(())
}

/// Writes `NAME.json`, `NAME.md` and `NAME.csv`.
pub fn write_tables(
    lab: &Lab,
    name: &str,
    outcomes: &[Outcome],
    rows: &[table::Row],
) -> Result<()> {
    #[derive(Serialize)]
    struct Whole<'a> {
        rows: &'a [table::Row],
        outcomes: &'a [Outcome],
    }
    lab.run.write_json(&format!("{name}.json"), &Whole { rows, outcomes })?;
    lab.run.write(&format!("{name}.md"), table::markdown(rows).as_bytes())?;
    lab.run.write(&format!("{name}.csv"), table::csv(outcomes).as_bytes())
}
