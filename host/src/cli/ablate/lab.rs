//! What the cells of an experiment share: data, space, board, limits, settings of training, and for
//! every seed one warm-up and one supernet without preferences.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use jaq_cost::{Limits, Mcu, McuModel};
use jaq_search::baselines::{Images, even_supernet, warm_up};
use jaq_search::checkpoint::{Checkpoint, Values};
use jaq_search::cosearch::{Begin, SearchConfig, SearchProgress};
use jaq_search::data::{DEFAULT, Dataset};
use jaq_search::retrain::{Control, Mode, RetrainConfig};
use jaq_search::space::{Space, SpaceFile};
use serde::Serialize;

use super::super::progress::Bar;
use super::super::search::Budget;
use super::super::training::Computing;
use crate::report::percent;
use crate::run::RunDir;

/// Where and how long everything is trained.
#[derive(Clone, Debug, Args, Serialize)]
pub struct Terms {
    /// Board: a name `jaq-host boards` lists, or the path of a board file.
    #[arg(long, default_value = "stm32h7")]
    pub board: String,
    /// Data set: a name `jaq-host data` lists, or a path.
    #[arg(long, default_value = DEFAULT)]
    pub data: String,
    /// Search space, a TOML file; the space that fits the images if left out.
    #[arg(long)]
    pub space: Option<PathBuf>,
    /// How long to search and train; the options below change parts of it.
    #[arg(long, default_value = "demo")]
    pub budget: String,
    /// Passes of the shared warm-up over its half of the training images.
    #[arg(long, value_name = "N")]
    pub warmup_epochs: Option<u64>,
    /// Passes of a search over each half of the training images.
    #[arg(long, value_name = "N")]
    pub search_epochs: Option<u64>,
    /// Passes of a retraining over all training images.
    #[arg(long, value_name = "N")]
    pub retrain_epochs: Option<u64>,
    /// Train on no more images than this.
    #[arg(long, value_name = "N")]
    pub images: Option<usize>,
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
    #[command(flatten)]
    #[serde(skip)]
    pub computing: Computing,
}

/// An open experiment.
pub struct Lab {
    pub terms: Terms,
    pub data: Dataset,
    pub space: Space,
    pub board: Mcu,
    pub model: McuModel,
    pub limits: Limits,
    pub run: RunDir,
    search: SearchConfig,
    retrain: RetrainConfig,
}

/// Version of the program, for files it writes.
pub const TOOL: &str = concat!("jaq-host ", env!("CARGO_PKG_VERSION"));

impl Lab {
    /// Opens all of it; `settings` are the experiment's own beside the terms, and a directory that
    /// was started with others is refused.
    pub fn open(terms: &Terms, path: &std::path::Path, settings: impl Serialize) -> Result<Lab> {
        let board = Mcu::load(&terms.board)?;
        let data = Dataset::open(&terms.data)?;
        let file = match &terms.space {
            Some(path) => SpaceFile::load(&path.to_string_lossy())?,
            None => SpaceFile::for_images(data.shape)?,
        };
        let space = Space::new(&file, data.shape, &data.classes)?;
        let kb = |kb: Option<f64>| kb.map(|kb| (kb * 1024.0) as u64);
        let memory = Limits {
            flash_bytes: kb(terms.max_flash_kb),
            ram_bytes: kb(terms.max_ram_kb),
            ..Limits::default()
        };
        let work = Limits {
            instructions: terms.max_instructions.map(|n| n as f64),
            latency_s: terms.max_latency_ms.map(|ms| ms / 1e3),
            ..Limits::default()
        };
        let limits = Limits::of(&board).and(&memory).and(&work);
        let budget = Budget::named(&terms.budget)?;
        let (threads, library) = (terms.computing.threads, terms.computing.library());
        let mut search = SearchConfig { threads, library, ..budget.search.clone() };
        let mut retrain = terms.computing.retrain(budget.retrain(Mode::Quantized));
        search.warmup_epochs = terms.warmup_epochs.unwrap_or(search.warmup_epochs);
        search.epochs = terms.search_epochs.unwrap_or(search.epochs);
        retrain.epochs = terms.retrain_epochs.unwrap_or(retrain.epochs);
        search.images = terms.images.or(search.images);
        retrain.images = terms.images.or(retrain.images);
        let model = McuModel::new(board.clone())?;
        let all = serde_json::json!({ "tool": TOOL, "terms": terms, "settings": settings });
        let run = RunDir::start(path, &all)?;
        let terms = terms.clone();
        Ok(Lab { terms, data, space, board, model, limits, run, search, retrain })
    }

    /// Settings of a search with this seed.
    pub fn search(&self, seed: u64) -> SearchConfig {
        SearchConfig { seed, ..self.search.clone() }
    }

    /// Settings of a retraining with this seed.
    pub fn retrain(&self, seed: u64) -> RetrainConfig {
        RetrainConfig { seed, ..self.retrain.clone() }
    }

    /// Images that a retraining is shown.
    pub fn retrain_images(&self, config: &RetrainConfig) -> u64 {
        let count = self.data.train.len();
        let few = config.images.unwrap_or(count).min(count);
        (few / config.batch.max(1) * config.batch) as u64 * config.epochs
    }

    /// Images of a whole search with these settings.
    pub fn search_images(&self, config: &SearchConfig) -> Images {
        Images::of_search(&self.data, config)
    }

    /// The warm-up of a seed, made once.
    pub fn warm(&self, seed: u64) -> Result<Checkpoint> {
        self.with_bar(&format!("seed{seed}/warm-up"), |control| {
            Ok(warm_up(&self.space, &self.data, &self.search(seed), control)?)
        })
    }

    /// The supernet of a seed that prefers nothing, made once.
    pub fn even(&self, seed: u64) -> Result<Values> {
        self.even_with(seed, &format!("seed{seed}/even"), &self.search(seed))
    }

    /// The same with other settings, in a folder of its own.
    pub fn even_with(&self, seed: u64, folder: &str, config: &SearchConfig) -> Result<Values> {
        let warm = self.warm(seed)?;
        self.with_bar(folder, |control| {
            Ok(even_supernet(&self.space, &self.data, config, Begin::Warm(&warm), control)?)
        })
    }

    /// Runs something that searches or trains a supernet, with a folder for its checkpoints.
    pub fn with_bar<T>(
        &self,
        folder: &str,
        work: impl FnOnce(Control<'_, SearchProgress>) -> Result<T>,
    ) -> Result<T> {
        let path = self.run.join(folder);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        let bar = Bar::new(folder, 1);
        let mut progress = |p: &SearchProgress| {
            bar.total(p.steps);
            let rate = p.images_per_second;
            let message =
                format!("loss {:.3}, {}, {rate:.0} images/s", p.loss, percent(p.accuracy));
            bar.step(p.step, &message);
        };
        work(Control { progress: &mut progress, folder: Some(&path), stop_after: None })
    }
}

/// Highest resident memory of this process so far in bytes, where the system tells.
pub fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}
