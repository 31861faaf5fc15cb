//! `jaq-host retrain`: stage 2 of the method, on the network that the search chose.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use jaq_network::Network;
use jaq_search::checkpoint::{Values, load_values, save_values};
use jaq_search::data::Dataset;
use jaq_search::retrain::{Control, Mode, RetrainConfig, Start, TrainProgress, retrain};
use jaq_shared::format::Bits;
use serde::{Deserialize, Serialize};

use super::print_json;
use super::progress::Bar;
use super::search::{Budget, Chosen};
use super::training::Computing;
use crate::report::percent;
use crate::run::{RunDir, Settings};

/// Retrain the chosen network: its float twin, which teaches, then the network at its own bits.
#[derive(Debug, Args)]
pub struct Retrain {
    /// Run directory.
    #[arg(long)]
    run: PathBuf,
    /// Train the network at uniform W8A8 as well, for comparison.
    #[arg(long)]
    compare: bool,
    #[command(flatten)]
    computing: Computing,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Accuracy of one retraining, as it lies in its folder.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Share of the test images classified right.
    pub top1: f64,
    /// Number of test images.
    pub images: usize,
}

/// What was retrained.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Accuracies {
    /// The twin without quantizers.
    pub float: Accuracy,
    /// The network at its own bits, quantizers simulated.
    pub quantized: Accuracy,
    /// The network at W8A8, quantizers simulated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub w8a8: Option<Accuracy>,
}

impl Retrain {
    pub fn run(self) -> Result<()> {
        let (run, settings) = RunDir::open(&self.run)?;
        let data = Dataset::open(&settings.data)?;
        let found = retrain_all(&run, &settings, &data, &self.computing, self.compare)?;
        if self.json {
            return print_json(&found);
        }
        println!("float twin {}", percent(found.float.top1));
        println!("at its own bits {}", percent(found.quantized.top1));
        if let Some(w8a8) = found.w8a8 {
            println!("at W8A8 {}", percent(w8a8.top1));
        }
        println!("on {}", data.test_label);
        Ok(())
    }
}

/// Retrains what the run's directory does not hold yet.
pub fn retrain_all(
    run: &RunDir,
    settings: &Settings,
    data: &Dataset,
    computing: &Computing,
    compare: bool,
) -> Result<Accuracies> {
    let chosen: Chosen = run.read_json("chosen.json", "search")?;
    let path = run.join("search/values.safetensors");
    let inherited = load_values(&path)
        .with_context(|| format!("`jaq-host search --run {}` writes it", run.path().display()))?;
    let budget = Budget::named(&settings.budget)?;
    let one = |folder: &str, mode: Mode, start: Start<'_>| {
        let config = RetrainConfig {
            seed: settings.seed,
            activations: settings.activations.rule(),
            ..budget.retrain(mode)
        };
        let config = computing.retrain(config);
        one(run, &chosen.network, data, folder, mode, &config, start)
    };
    let start = Start { values: Some(&inherited), teacher: None };
    let (float, teacher) = one("float", Mode::Float, start)?;
    let start = Start { values: Some(&teacher), teacher: Some(&teacher) };
    let (quantized, _) = one("quantized", Mode::Quantized, start)?;
    let w8a8 = match compare {
        false => None,
        true => {
            let mode = Mode::Uniform { weight: Bits::B8, activation: Bits::B8 };
            Some(one("w8a8", mode, start)?.0)
        }
    };
    Ok(Accuracies { float, quantized, w8a8 })
}

/// Retrains one network into a folder of the run, unless that lies there complete: its accuracy
/// and its values.
pub fn one(
    run: &RunDir,
    network: &Network,
    data: &Dataset,
    folder: &str,
    mode: Mode,
    config: &RetrainConfig,
    start: Start<'_>,
) -> Result<(Accuracy, Values)> {
    let (accuracy, values) =
        (format!("{folder}/accuracy.json"), format!("{folder}/values.safetensors"));
    if run.has(&accuracy) {
        tracing::info!("{} is there already", run.join(folder).display());
        return Ok((run.read_json(&accuracy, "retrain")?, load_values(&run.join(&values))?));
    }
    let path = run.join(folder);
    std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let bar = Bar::new(folder, 1);
    let mut progress = |p: &TrainProgress| {
        bar.total(p.steps);
        let message = format!(
            "loss {:.3}, {}, {:.0} images/s",
            p.loss,
            percent(p.accuracy),
            p.images_per_second
        );
        bar.step(p.step, &message);
    };
    let control = Control { progress: &mut progress, folder: Some(&path), stop_after: None };
    let found = retrain(network, mode, data, config, start, control)?;
    drop(bar);
    save_values(&run.join(&values), &found.values)?;
    run.write_json(&format!("{folder}/log.json"), &found.log)?;
    if let Some(trained) = &found.trained {
        trained.save(&path)?;
    }
    // Last: its presence says that the folder is complete.
    let result = Accuracy { top1: found.top1, images: found.images };
    run.write_json(&accuracy, &result)?;
    Ok((result, found.values))
}
