//! `jaq-host sweep`: the co-search at several latencies, instruction counts or cost weights, with
//! baselines beside it, and the front they make. All points of a seed share its warm-up, and the
//! supernet that random search and evolution ask.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;

use super::ablate::cell::{Cell, Method, Target};
use super::ablate::lab::{Lab, Terms};
use super::ablate::{run_cells, table, write_tables};
use super::print_json;
use crate::plot::{Axes, Series, scatter};

/// Search at several targets and draw the front of accuracy over cost.
#[derive(Debug, Args)]
pub struct Sweep {
    #[command(flatten)]
    terms: Terms,
    /// Latency targets in milliseconds.
    #[arg(long, value_delimiter = ',', value_name = "MS")]
    latency_ms: Vec<f64>,
    /// Instruction targets.
    #[arg(long, value_delimiter = ',', value_name = "N")]
    instructions: Vec<u64>,
    /// Weights of work in the objective; no limit on work then.
    #[arg(long, value_delimiter = ',', value_name = "WEIGHT")]
    work_weights: Vec<f64>,
    /// Methods, as of `jaq-host ablate`.
    #[arg(long, value_delimiter = ',', default_value = "co-search,random,uniform4")]
    methods: Vec<Method>,
    /// Seeds of every point.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    seeds: Vec<u64>,
    /// Run directory.
    #[arg(long, default_value = "runs/sweep")]
    run: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Run this cell alone, in this process.
    #[arg(long, hide = true)]
    only: Option<String>,
}

/// A method at a target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    method: String,
    target: String,
    /// Millions, mean over seeds.
    instructions: f64,
    /// Mean over seeds.
    accuracy: f64,
    /// 95 % t interval of it.
    interval: [f64; 2],
    /// Whether no other point is both cheaper and better.
    on_front: bool,
}

impl Sweep {
    pub fn run(self) -> Result<()> {
        let targets: Vec<Target> = self
            .latency_ms
            .iter()
            .map(|ms| Target::LatencyMs(*ms))
            .chain(self.instructions.iter().map(|n| Target::Instructions(*n)))
            .chain(self.work_weights.iter().map(|weight| Target::WorkWeight(*weight)))
            .collect();
        if targets.is_empty() {
            bail!(
                "nothing to sweep over; give --latency-ms 2,4,8, --instructions 1000000,2000000 or --work-weights 0.01,0.1"
            );
        }
        let lab = Lab::open(&self.terms, &self.run, "sweep")?;
        let mut cells = Vec::new();
        for seed in &self.seeds {
            for target in &targets {
                let cell = |method: &Method| Cell { method: *method, seed: *seed, target: *target };
                cells.extend(self.methods.iter().map(cell));
            }
        }
        let Some(outcomes) = run_cells(&lab, &cells, self.only.as_deref())? else { return Ok(()) };
        let rows = table::rows(&outcomes);
        write_tables(&lab, "sweep", &outcomes, &rows)?;
        let points = front(&rows);
        lab.run.write_json("front.json", &points)?;
        let of = |method: &Method| {
            let own = points.iter().filter(|p| p.method == method.to_string());
            let at = |p: &Point| [p.instructions, p.accuracy, p.interval[0], p.interval[1]];
            Series { name: method.to_string(), points: own.map(at).collect(), joined: true }
        };
        let series: Vec<Series> = self.methods.iter().map(of).collect();
        let title = format!("{} on {}", lab.data.name, lab.board.name);
        let axes = Axes {
            title: &title,
            x: "predicted instructions, millions",
            y: "accuracy, integer engine",
        };
        scatter(&lab.run.join("front.svg"), &axes, &series)?;
        if self.json {
            return print_json(&points);
        }
        print!("{}", table::markdown(&rows));
        println!("\nthe front lies in {}", lab.run.join("front.svg").display());
        Ok(())
    }
}

/// The points of rows that have a network, those marked that no other one dominates.
fn front(rows: &[table::Row]) -> Vec<Point> {
    let point = |row: &table::Row| {
        let (work, accuracy) = (row.instructions?, row.accuracy?);
        Some(Point {
            method: row.method.clone(),
            target: row.target.clone(),
            instructions: work.value / 1e6,
            accuracy: accuracy.value,
            interval: [accuracy.low, accuracy.high],
            on_front: false,
        })
    };
    let mut points: Vec<Point> = rows.iter().filter_map(point).collect();
    for index in 0..points.len() {
        let own = &points[index];
        let dominated = points.iter().any(|other| {
            other.instructions <= own.instructions
                && other.accuracy >= own.accuracy
                && (other.instructions, other.accuracy) != (own.instructions, own.accuracy)
        });
        points[index].on_front = !dominated;
    }
    points
}
