//! `jaq-host search`: both stages of the method, then export.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use jaq_cost::{CostModel, Kind, Limits, Mcu, McuModel, NetworkCost, describe};
use jaq_deploy::validate::{LayerPrediction, Prediction, Unit};
use jaq_network::Network;
use jaq_search::checkpoint::save_values;
use jaq_search::cosearch::{SearchConfig, SearchProgress, search};
use jaq_search::data::Dataset;
use jaq_search::retrain::{Control, Mode, RetrainConfig};
use jaq_search::space::{Space, SpaceFile};
use serde::{Deserialize, Serialize};

use super::aim::Aim;
use super::export::export;
use super::print_json;
use super::progress::Bar;
use super::retrain::retrain_all;
use super::training::{Activations, Computing};
use crate::report::{Table, kb, percent, thousands};
use crate::run::{RunDir, Settings};

/// Search a network for a board and a data set, retrain it at low bits, and pack it.
#[derive(Debug, Args)]
pub struct Search {
    #[command(flatten)]
    pub plan: Plan,
    /// End after this step.
    #[arg(long, value_enum)]
    stop_after: Option<Step>,
    /// Search nothing: say how large the search would be, what it would take, and what networks
    /// would cost.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Steps of a search that it can end after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Step {
    Search,
    Retrain,
}

/// What to search, for which board, within which limits.
#[derive(Clone, Debug, Args)]
pub struct Plan {
    /// What to search for: a board, an accelerator or a space of accelerators, by a name
    /// `jaq-host boards` lists or the path of its file.
    #[arg(long, default_value = "stm32h7")]
    pub board: String,
    /// Data set: a name `jaq-host data` lists, or a path.
    #[arg(long)]
    pub data: Option<String>,
    /// Search space: fashion-mnist, cifar-10, images-96, imagenet, or a TOML file; the one that
    /// fits the images if left out.
    #[arg(long)]
    pub space: Option<PathBuf>,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How long to search and train.
    #[arg(long, default_value = "demo")]
    pub budget: String,
    /// Most instructions of an inference.
    #[arg(long, value_name = "N")]
    pub max_instructions: Option<u64>,
    /// Longest latency of an inference, as the board's cost model predicts it.
    #[arg(long, value_name = "MS")]
    pub max_latency_ms: Option<f64>,
    /// Most flash for the packed model; the board's if left out.
    #[arg(long, value_name = "KB")]
    pub max_flash_kb: Option<f64>,
    /// Most RAM for the arena; the board's if left out.
    #[arg(long, value_name = "KB")]
    pub max_ram_kb: Option<f64>,
    /// How the steps of tensors between layers learn.
    #[arg(long, value_enum, default_value = "lsq")]
    pub activations: Activations,
    #[command(flatten)]
    pub computing: Computing,
    #[command(flatten)]
    pub aim: Aim,
    /// Run directory; `runs/<board>-<data>-seed<seed>` if left out.
    #[arg(long)]
    pub run: Option<PathBuf>,
}

/// How long each stage trains.
#[derive(Clone, Debug)]
pub struct Budget {
    pub search: SearchConfig,
    epochs: Factor,
}

/// What a budget makes of the usual numbers of epochs.
#[derive(Clone, Copy, Debug)]
enum Factor {
    Small,
    Times(u64),
}

impl Budget {
    /// The budget of that name.
    pub fn named(name: &str) -> Result<Budget> {
        let (search, epochs) = match name {
            "smoke" => (SearchConfig::small(), Factor::Small),
            "demo" => (SearchConfig::default(), Factor::Times(1)),
            "full" => (
                SearchConfig {
                    epochs: SearchConfig::default().epochs * 4,
                    ..SearchConfig::default()
                },
                Factor::Times(5),
            ),
            _ => bail!(
                "there is no budget `{name}`: smoke (seconds, for tests), demo (minutes), full (an hour)"
            ),
        };
        Ok(Budget { search, epochs })
    }

    /// Settings of a retraining.
    pub fn retrain(&self, mode: Mode) -> RetrainConfig {
        match self.epochs {
            Factor::Small => RetrainConfig::small(),
            Factor::Times(factor) => {
                let usual = RetrainConfig::usual(mode);
                RetrainConfig { epochs: usual.epochs * factor, ..usual }
            }
        }
    }
}

/// What the search chose.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Chosen {
    pub network: Network,
    pub mean_weight_bits: f64,
    pub arena_bytes: u32,
    pub weights_bytes: u64,
}

impl Plan {
    fn settings(&self) -> Settings {
        Settings {
            tool: concat!("jaq-host ", env!("CARGO_PKG_VERSION")).to_owned(),
            board: self.board.clone(),
            data: self.data.clone().unwrap_or_else(|| jaq_search::data::DEFAULT.to_owned()),
            seed: self.seed,
            budget: self.budget.clone(),
            space: self.space.clone(),
            max_instructions: self.max_instructions,
            max_latency_ms: self.max_latency_ms,
            max_flash_kb: self.max_flash_kb,
            max_ram_kb: self.max_ram_kb,
            activations: self.activations,
            aim: self.aim.clone(),
        }
    }

    /// The limits that were asked for.
    pub fn limits(&self) -> Limits {
        let kb = |kb: Option<f64>| kb.map(|kb| (kb * 1024.0) as u64);
        Limits {
            flash_bytes: kb(self.max_flash_kb),
            ram_bytes: kb(self.max_ram_kb),
            instructions: self.max_instructions.map(|n| n as f64),
            latency_s: self.max_latency_ms.map(|ms| ms / 1e3),
            ..self.aim.limits()
        }
    }

    /// Opens everything, starts or continues the run on a microcontroller, and says what was
    /// assumed.
    pub fn open(&self) -> Result<Job> {
        let board = Mcu::load(&self.board)?;
        let limits = Limits::of(&board).and(&self.limits());
        let begin = || self.begin(limits, &board.name);
        let Start { settings, data, space, limits, run, computing } = begin()?;
        let model = McuModel::new(board)?;
        Ok(Job { settings, data, space, limits, model, run, computing })
    }

    /// What every target needs: data, space, and the run.
    pub fn begin(&self, limits: Limits, board: &str) -> Result<Start> {
        let settings = self.settings();
        let data = Dataset::open(&settings.data)?;
        let space = match &self.space {
            Some(path) => {
                Space::new(&SpaceFile::load(&path.to_string_lossy())?, data.shape, &data.classes)?
            }
            None => Space::new(&SpaceFile::for_images(data.shape)?, data.shape, &data.classes)?,
        };
        Budget::named(&self.budget)?;
        let path = self.run.clone().unwrap_or_else(|| {
            let name =
                |s: &str| s.rsplit('/').next().unwrap_or(s).trim_end_matches(".toml").to_owned();
            PathBuf::from(format!(
                "runs/{}-{}-seed{}",
                name(&self.board),
                name(&settings.data),
                self.seed
            ))
        });
        let run = RunDir::start(&path, &settings)?;
        let mut assumed = vec![format!("board {board}")];
        if self.data.is_none() {
            assumed.push(format!("data {} (--data chooses another)", data.name));
        }
        if self.space.is_none() {
            assumed.push(format!("space {}", space.name));
        }
        assumed.push(format!(
            "seed {}, budget {}, run directory {}",
            self.seed,
            self.budget,
            path.display()
        ));
        tracing::info!("{}", assumed.join("; "));
        Ok(Start { settings, data, space, limits, run, computing: self.computing })
    }
}

/// A run without its target.
pub struct Start {
    pub settings: Settings,
    pub data: Dataset,
    pub space: Space,
    pub limits: Limits,
    pub run: RunDir,
    pub computing: Computing,
}

/// A run with everything it needs.
pub struct Job {
    pub settings: Settings,
    pub data: Dataset,
    pub space: Space,
    pub limits: Limits,
    pub model: McuModel,
    pub run: RunDir,
    pub computing: Computing,
}

impl Search {
    pub fn run(self) -> Result<()> {
        if self.dry_run {
            return super::dry_run::run(&self.plan, self.json);
        }
        if describe(&self.plan.board)?.0 != Kind::Mcu {
            return self.accelerator();
        }
        let job = self.plan.open()?;
        let chosen = stage_one(&job)?;
        let mut result = serde_json::json!({ "run": job.run.path(), "chosen": chosen });
        if self.stop_after != Some(Step::Search) {
            let accuracies =
                retrain_all(&job.run, &job.settings, &job.data, &job.computing, false)?;
            result["accuracy"] = serde_json::to_value(accuracies)?;
            if self.stop_after.is_none() {
                let packed = export(&job.run, &job.settings, "quantized", "model.jaq")?;
                result["weights_bytes"] = packed.weights_bytes.into();
                result["arena_bytes"] = packed.arena_bytes.into();
                result["model"] = serde_json::to_value(job.run.join("model.jaq"))?;
            }
            if !self.json {
                println!(
                    "float twin {}, at its own bits {} ({})",
                    percent(accuracies.float.top1),
                    percent(accuracies.quantized.top1),
                    job.data.test_label
                );
            }
        }
        if self.json {
            result["prediction"] = job.run.read_json("prediction.json", "search")?;
            if job.run.has("timing.json") {
                result["timing"] = job.run.read_json("timing.json", "search")?;
            }
            return print_json(&result);
        }
        println!("everything lies in {}", job.run.path().display());
        Ok(())
    }
}

impl Search {
    /// The way on accelerators: it ends at the network, the accelerator, its schedule, a report.
    fn accelerator(self) -> Result<()> {
        let start = self.plan.begin(self.plan.limits(), &self.plan.board)?;
        let (chosen, report) = super::accelerator::stage_one(&start)?;
        let mut result = serde_json::json!({
            "run": start.run.path(), "chosen": chosen, "hardware": report,
        });
        if self.stop_after != Some(Step::Search) {
            let accuracies =
                retrain_all(&start.run, &start.settings, &start.data, &start.computing, false)?;
            result["accuracy"] = serde_json::to_value(accuracies)?;
            if !self.json {
                println!(
                    "float twin {}, at its own bits {} ({})",
                    percent(accuracies.float.top1),
                    percent(accuracies.quantized.top1),
                    start.data.test_label
                );
            }
        }
        start.run.write_json("report.json", &result)?;
        if self.json {
            return print_json(&result);
        }
        println!("everything lies in {}", start.run.path().display());
        Ok(())
    }
}

/// Stage 1: searches unless the run's directory holds the outcome, and prints it.
pub fn stage_one(job: &Job) -> Result<Chosen> {
    if job.run.has("chosen.json") {
        tracing::info!("{} is there already", job.run.join("chosen.json").display());
        return job.run.read_json("chosen.json", "search");
    }
    let budget = Budget::named(&job.settings.budget)?;
    let config = SearchConfig {
        seed: job.settings.seed,
        cost: job.settings.aim.weights(false),
        threads: job.computing.threads,
        library: job.computing.library(),
        ..budget.search
    };
    let folder = job.run.join("search");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let bar = Bar::new("search", 1);
    let mut progress = |p: &SearchProgress| {
        bar.total(p.steps);
        bar.step(
            p.step,
            &format!(
                "loss {:.3}, {}, {:.2} M predicted",
                p.loss,
                percent(p.accuracy),
                p.work / 1e6
            ),
        );
    };
    let control = Control { progress: &mut progress, folder: Some(&folder), stop_after: None };
    let found = search(&job.space, &job.data, &job.model, &job.limits, &config, control)?;
    drop(bar);
    save_values(&folder.join("values.safetensors"), &found.values)?;
    save_values(&folder.join("supernet.safetensors"), &found.supernet)?;
    let cost = job.model.network(&found.network)?;
    let plan = jaq_cost::plan(&found.network, &job.model.kernels(&found.network)?);
    let chosen = Chosen {
        mean_weight_bits: found.network.mean_weight_bits(),
        arena_bytes: plan.schedule.arena_bytes,
        weights_bytes: jaq_cost::model_bytes(found.network.layers.len(), cost.total.weights_bytes),
        network: found.network,
    };
    job.run.write_json("prediction.json", &prediction(&job.model, &cost))?;
    job.run.write_json("timing.json", &found.timing)?;
    // Last: its presence says that the search is complete.
    job.run.write_json("chosen.json", &chosen)?;
    print_choice(&chosen, &cost);
    Ok(chosen)
}

/// The prediction as it is kept for validation.
pub fn prediction(model: &McuModel, cost: &NetworkCost) -> Prediction {
    let unit = model.table().unit;
    let figure = |cost: &jaq_cost::Cost| match unit {
        Unit::Instructions => cost.instructions.unwrap_or(0.0),
        Unit::Cycles => cost.cycles.map_or(0.0, |cycles| cycles.typical),
    };
    Prediction {
        board: model.board().name.clone(),
        unit,
        registry: jaq_shared::kernels::registry_hash(),
        total: figure(&cost.total),
        layers: cost
            .layers
            .iter()
            .map(|layer| LayerPrediction {
                name: layer.name.clone(),
                spec: layer.spec.clone(),
                bits: layer.bits.clone(),
                kernel: layer.kernel.clone(),
                predicted: figure(&layer.cost),
            })
            .collect(),
    }
}

fn print_choice(chosen: &Chosen, cost: &NetworkCost) {
    let mut table = Table::new(&["layer", "spec", "bits", "kernel", "predicted instructions"]);
    for layer in &cost.layers {
        let count = thousands(layer.cost.instructions.unwrap_or(0.0) as u64);
        table.row(&[&layer.name, &layer.spec, &layer.bits, &layer.kernel, &count]);
    }
    eprint!("{table}");
    let latency = cost.total.cycles.zip(cost.total.latency_s).map(|(cycles, s)| {
        format!(
            ", {:.2} ms ({:.2} to {:.2})",
            s * 1e3,
            s * 1e3 * cycles.low / cycles.typical,
            s * 1e3 * cycles.high / cycles.typical
        )
    });
    eprintln!(
        "  predicted {} instructions{}; {} of weights, {} arena, {:.2} bits a weight",
        thousands(cost.total.instructions.unwrap_or(0.0) as u64),
        latency.unwrap_or_default(),
        kb(chosen.weights_bytes as usize),
        kb(chosen.arena_bytes as usize),
        chosen.mean_weight_bits
    );
}
