//! Training: images per second and memory of the operators, beside candle's own, libtorch where
//! it is set up, and PyTorch where it is installed.

use std::io;
use std::process::Stdio;

use anyhow::Result;
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
        let prepared = |action: &str| {
            let mut cargo = cargo();
            cargo.args([
                action,
                "--release",
                "--package",
                "jaq-search",
                "--example",
                "bench_train",
            ]);
            if let Some(libtorch) = &libtorch {
                libtorch.apply(cargo.args(["--features", "tch"]));
            }
            cargo
        };
        run(prepared("build").stdout(Stdio::from(io::stderr())))?;
        let mut measure = prepared("run");
        measure.args(["--quiet", "--", "--rounds", &self.rounds.to_string()]);
        run(measure.args(self.json.then_some("--json")))
    }
}
