//! `jaq-host retrain`: stage 2 of the method, on the network that the search chose.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use jaq_deploy::engine::Engine;
use jaq_network::Network;
use jaq_search::baselines;
use jaq_search::checkpoint::{Values, load_values, save_values};
use jaq_search::cosearch::SearchConfig;
use jaq_search::data::Dataset;
use jaq_search::retrain::{Control, Mode, RetrainConfig, Start, Teacher, TrainProgress, retrain};
use jaq_search::space::{Space, SpaceFile};
use jaq_shared::format::Bits;
use serde::{Deserialize, Serialize};

use super::eval::top1;
use super::export::export;
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
    /// Where the weights start.
    #[arg(long, value_enum, default_value = "supernet")]
    from: Origin,
    /// What teaches beside the labels: the network's float twin, which is trained first; the largest
    /// network of the supernet; or nothing.
    #[arg(long, value_enum, default_value = "float")]
    teacher: Taught,
    /// Train so many of the last epochs through the roundings of the exported integers.
    #[arg(long, value_name = "N", default_value_t = 0)]
    integer_epochs: u64,
    /// Train the network at uniform W8A8 as well, for comparison.
    #[arg(long)]
    compare: bool,
    #[command(flatten)]
    computing: Computing,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Where weights start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Origin {
    /// As the supernet has them.
    Supernet,
    /// Fresh.
    Scratch,
}

/// What teaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Taught {
    /// The network without quantizers.
    Float,
    /// The largest network of the supernet.
    Supernet,
    /// The labels alone.
    None,
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
        if !self.usual() {
            return self.variant(&run, &settings, &data);
        }
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

    fn usual(&self) -> bool {
        (self.from, self.teacher, self.integer_epochs) == (Origin::Supernet, Taught::Float, 0)
    }

    /// Another way than the usual one, beside it: in folders and a model file of its own.
    fn variant(&self, run: &RunDir, settings: &Settings, data: &Dataset) -> Result<()> {
        if self.compare {
            bail!("--compare goes with the usual retraining; leave it or the other options out");
        }
        let mut name = match self.from {
            Origin::Supernet => "supernet",
            Origin::Scratch => "scratch",
        }
        .to_owned();
        name += match self.teacher {
            Taught::Float => "-float",
            Taught::Supernet => "-supernet",
            Taught::None => "-none",
        };
        if self.integer_epochs > 0 {
            name += &format!("-integer{}", self.integer_epochs);
        }
        let chosen: Chosen = run.read_json("chosen.json", "search")?;
        let inherited = match self.from {
            Origin::Supernet => inherited(run)?,
            Origin::Scratch => Values::new(),
        };
        let budget = Budget::named(&settings.budget)?;
        let config = |mode| usual(settings, &budget, &self.computing, mode);
        let train = |folder: &str, mode, config: &RetrainConfig, start: Start<'_>| {
            one(run, &chosen.network, data, folder, mode, config, start)
        };
        let mut float = None;
        let (mut values, mut network, mut teacher) = (inherited, None, None);
        match self.teacher {
            Taught::None => {}
            Taught::Float => {
                let folder = match self.from {
                    Origin::Supernet => "float",
                    Origin::Scratch => "float-scratch",
                };
                let start = Start { values: Some(&values), teacher: None };
                let (accuracy, twin) = train(folder, Mode::Float, &config(Mode::Float), start)?;
                float = Some(accuracy);
                values = twin.clone();
                teacher = Some(twin);
            }
            Taught::Supernet => {
                let (largest, inherited) = supernet_teacher(run, settings, data)?;
                (network, teacher) = (Some(largest), Some(inherited));
            }
        }
        let mut config = config(Mode::Quantized);
        if self.integer_epochs > config.epochs {
            bail!(
                "--integer-epochs {} is more than the {} epochs of budget `{}`",
                self.integer_epochs,
                config.epochs,
                settings.budget
            );
        }
        config.integer_epochs = self.integer_epochs;
        let teacher = teacher.as_ref().map(|values| Teacher { network: network.as_ref(), values });
        let start = Start { values: Some(&values), teacher };
        let folder = format!("quantized-{name}");
        let (quantized, _) = train(&folder, Mode::Quantized, &config, start)?;
        let model = format!("model-{name}.jaq");
        let packed = export(run, settings, &folder, &model)?;
        let integer = top1(&Engine::new(&packed.bytes)?, &data.test, data.test.len())?;
        let model = run.join(&model);
        if self.json {
            return print_json(&serde_json::json!({
                "variant": name, "float": float, "quantized": quantized, "integer": integer,
                "model": model,
            }));
        }
        if let Some(float) = float {
            println!("float twin {}", percent(float.top1));
        }
        println!("at its own bits {}", percent(quantized.top1));
        println!("on the integer engine {}: {}", percent(integer), model.display());
        println!("on {}", data.test_label);
        Ok(())
    }
}

/// Settings of a retraining in this run.
fn usual(settings: &Settings, budget: &Budget, computing: &Computing, mode: Mode) -> RetrainConfig {
    computing.retrain(RetrainConfig {
        seed: settings.seed,
        activations: settings.activations.rule(),
        ..budget.retrain(mode)
    })
}

/// What the chosen network inherits.
fn inherited(run: &RunDir) -> Result<Values> {
    load_values(&run.join("search/values.safetensors"))
        .with_context(|| format!("`jaq-host search --run {}` writes it", run.path().display()))
}

/// The largest network of the run's supernet, and its values.
fn supernet_teacher(
    run: &RunDir,
    settings: &Settings,
    data: &Dataset,
) -> Result<(Network, Values)> {
    let file = match &settings.space {
        Some(path) => SpaceFile::load(&path.to_string_lossy())?,
        None => SpaceFile::for_images(data.shape)?,
    };
    let space = Space::new(&file, data.shape, &data.classes)?;
    let supernet = load_values(&run.join("search/supernet.safetensors"))
        .with_context(|| format!("`jaq-host search --run {}` writes it", run.path().display()))?;
    let choice = space.largest();
    let config = SearchConfig { seed: settings.seed, ..SearchConfig::default() };
    let values = baselines::inherit(&space, &supernet, &choice, &config)?;
    Ok((space.network(&choice), values))
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
    let inherited = inherited(run)?;
    let budget = Budget::named(&settings.budget)?;
    let one = |folder: &str, mode: Mode, start: Start<'_>| {
        let config = usual(settings, &budget, computing, mode);
        one(run, &chosen.network, data, folder, mode, &config, start)
    };
    let start = Start { values: Some(&inherited), teacher: None };
    let (float, teacher) = one("float", Mode::Float, start)?;
    let start = Start { values: Some(&teacher), teacher: Some((&teacher).into()) };
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
