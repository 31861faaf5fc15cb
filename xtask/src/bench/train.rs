//! Training: images per second and memory of the operators, beside candle's own, libtorch where
//! it is set up, and PyTorch where it is installed.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use clap::Args;

use crate::libtorch::Libtorch;
use crate::{cargo, run};

/// Arguments of the benchmark of training.
#[derive(Debug, Args)]
pub struct Train {
    /// Steps of every case.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Train {
    /// Builds, measures and prints.
    pub fn run(self) -> Result<()> {
        let libtorch = Libtorch::find();
        if libtorch.is_none() {
            eprintln!("bench: there is no libtorch; `cargo xtask setup tch` fetches one");
        }
        // Cases of the embedded operators run in a program that does not link libtorch: what it
        // needs in memory is none of theirs.
        let plain = build(None)?;
        let alone = plain.with_file_name("bench_train_plain");
        std::fs::copy(&plain, &alone)
            .with_context(|| format!("cannot copy {} to {}", plain.display(), alone.display()))?;
        let program = match &libtorch {
            Some(_) => build(libtorch.as_ref())?,
            None => plain,
        };
        let mut measure = Command::new(program);
        measure.args(["--rounds", &self.rounds.to_string()]).env("JAQ_BENCH_PLAIN", alone);
        if let Some(libtorch) = &libtorch {
            libtorch.apply(&mut measure);
        }
        run(measure.args(self.json.then_some("--json")))
    }
}

/// Builds the benchmark, with libtorch or without, and says where it lies.
fn build(libtorch: Option<&Libtorch>) -> Result<PathBuf> {
    let mut cargo = cargo();
    cargo.args(["build", "--release", "--package", "jaq-search", "--example", "bench_train"]);
    if let Some(libtorch) = libtorch {
        libtorch.apply(cargo.args(["--features", "tch"]));
    }
    run(cargo.stdout(Stdio::from(io::stderr())))?;
    Ok(crate::target().join("release/examples/bench_train"))
}
