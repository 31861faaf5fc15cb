//! The run directory: what each step writes and the next one reads, every file whole or absent.
//!
//! ```text
//! run.json          settings the run was started with; another start must agree
//! search/           checkpoints of the search
//! timing.json       how long its iterations took
//! chosen.json       the network found, and the cost predicted for it at that time
//! quantized/ float/ w8a8/   checkpoints, then trained tensors, accuracy and log of each retraining
//! model.jaq, model-w8a8.jaq
//! accelerator.toml, schedule.json, accelerator.json
//!                   of an accelerator: the one found, the mapping of every layer, the report
//! observation.json  what a device did, beside the prediction
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cli::Activations;
use crate::cli::aim::Aim;

/// Settings of a run: a resumed run must have the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub tool: String,
    pub board: String,
    pub data: String,
    pub seed: u64,
    pub budget: String,
    pub space: Option<PathBuf>,
    pub max_instructions: Option<u64>,
    pub max_latency_ms: Option<f64>,
    pub max_flash_kb: Option<f64>,
    pub max_ram_kb: Option<f64>,
    #[serde(default, skip_serializing_if = "Activations::is_usual")]
    pub activations: Activations,
    #[serde(flatten)]
    pub aim: Aim,
}

/// An open run directory.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Makes the directory, or opens it again if it was started with the same settings.
    pub fn start(path: &Path, settings: &impl Serialize) -> Result<RunDir> {
        let run = RunDir { path: path.to_owned() };
        if run.has("run.json") {
            let found: serde_json::Value = run.read_json("run.json", "search")?;
            let wanted = serde_json::to_value(settings)?;
            if found != wanted {
                let differs: Vec<String> = found
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter(|(key, value)| wanted.get(key.as_str()) != Some(value))
                    .map(|(key, value)| format!("{key} is {value} there, {} now", wanted[key]))
                    .collect();
                bail!(
                    "the run directory {} holds a run with other settings ({}); continue it with the same settings, or choose another with --run",
                    path.display(),
                    differs.join("; ")
                );
            }
            return Ok(run);
        }
        fs::create_dir_all(path).with_context(|| {
            format!("cannot make the run directory {}; choose another with --run", path.display())
        })?;
        run.write_json("run.json", settings)?;
        Ok(run)
    }

    /// Opens the directory of an earlier run.
    pub fn open(path: &Path) -> Result<(RunDir, Settings)> {
        let run = RunDir { path: path.to_owned() };
        let settings = run.read_json("run.json", "search")?;
        Ok((run, settings))
    }

    /// Path of a file or folder in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a step has written `name`.
    pub fn has(&self, name: &str) -> bool {
        self.join(name).exists()
    }

    /// Reads what `step` wrote.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str, step: &str) -> Result<T> {
        let bytes = self.read(name, step)?;
        serde_json::from_slice(&bytes).with_context(|| {
            format!(
                "{} is damaged; remove it and run `jaq-host {step}` again",
                self.join(name).display()
            )
        })
    }

    /// Reads what `step` wrote.
    pub fn read(&self, name: &str, step: &str) -> Result<Vec<u8>> {
        let path = self.join(name);
        fs::read(&path).with_context(|| {
            format!(
                "cannot read {}; `jaq-host {step} --run {}` writes it",
                path.display(),
                self.path.display()
            )
        })
    }

    /// Writes a value as JSON.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        self.write(name, &serde_json::to_vec_pretty(value)?)
    }

    /// Writes beside the target and renames, so that a killed run or a full disk loses nothing.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        write_whole(&self.join(name), bytes)
    }
}

/// Writes a file whole or not at all.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    jaq_network::write_whole(path, bytes)
        .with_context(|| format!("cannot write {}: nothing was overwritten", path.display()))
}
