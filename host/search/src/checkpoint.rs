//! Checkpoints: everything a killed run needs to end as if it had not been killed, in one file
//! that is whole or absent. Random numbers need no state: they are addressed by the step
//! ([`crate::rng`]).
//!
//! Must not know: what is trained.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use jaq_network::write_whole;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::optim::{Moments, Optimizer};

/// Named vectors of real values: parameters, running statistics.
pub type Values = BTreeMap<String, Vec<f32>>;

/// Why a checkpoint could not be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CheckpointError {
    #[error("cannot access {path}: {source}", path = path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("cannot write {path}: {source}; the last one is whole, and the same command resumes there", path = path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("the checkpoint {path} is damaged ({reason}); remove it to start this step again", path = path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("the checkpoint {path} belongs to a run with other settings; use these again, or another run directory", path = path.display())]
    Settings { path: PathBuf },
}

/// A training's state after some steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoint {
    /// Steps done.
    pub step: u64,
    /// Parameters, running statistics.
    pub values: Values,
    /// Every optimizer's memory, in the order of the trainer.
    pub optimizers: Vec<BTreeMap<String, Moments>>,
    /// What was reported so far, as JSON.
    pub report: String,
}

impl Checkpoint {
    /// Copies optimizers' memories.
    pub fn remember(&mut self, optimizers: &[&Optimizer]) {
        self.optimizers = optimizers.iter().map(|o| o.state.clone()).collect();
    }

    /// Writes the file whole or not at all. `settings` must be the same when it is read again.
    pub fn save(&self, path: &Path, settings: &impl Serialize) -> Result<(), CheckpointError> {
        let io = |source| CheckpointError::Write { path: path.to_owned(), source };
        let mut tensors: BTreeMap<String, &[f32]> = BTreeMap::new();
        for (name, values) in &self.values {
            tensors.insert(format!("value/{name}"), values);
        }
        let mut steps: Vec<BTreeMap<&str, u64>> = Vec::new();
        for (i, optimizer) in self.optimizers.iter().enumerate() {
            steps.push(optimizer.iter().map(|(name, m)| (&**name, m.steps)).collect());
            for (name, moments) in optimizer {
                tensors.insert(format!("first{i}/{name}"), &moments.first);
                tensors.insert(format!("second{i}/{name}"), &moments.second);
            }
        }
        let json = |value: serde_json::Result<String>| value.map_err(|e| io(e.into()));
        let head = HashMap::from([
            ("settings".to_owned(), json(serde_json::to_string(settings))?),
            ("step".to_owned(), self.step.to_string()),
            ("steps".to_owned(), json(serde_json::to_string(&steps))?),
            ("report".to_owned(), self.report.clone()),
        ]);
        let bytes = encode(&tensors, Some(head)).map_err(io)?;
        write_whole(path, &bytes).map_err(io)
    }

    /// Reads a checkpoint; `None` where there is none.
    pub fn load(
        path: &Path,
        settings: &impl Serialize,
    ) -> Result<Option<Checkpoint>, CheckpointError> {
        let damaged = |reason: &str| CheckpointError::Damaged {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CheckpointError::Io { path: path.to_owned(), source }),
        };
        let (_, head) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(&e.to_string()))?;
        let head = head.metadata().clone().ok_or_else(|| damaged("no metadata"))?;
        let entry = |name: &str| head.get(name).ok_or_else(|| damaged("an entry is missing"));
        let wanted = serde_json::to_string(settings).map_err(|e| damaged(&e.to_string()))?;
        if *entry("settings")? != wanted {
            return Err(CheckpointError::Settings { path: path.to_owned() });
        }
        let step = entry("step")?.parse().map_err(|_| damaged("the step is no number"))?;
        let steps: Vec<BTreeMap<String, u64>> =
            parse(entry("steps")?).ok_or_else(|| damaged("the optimizers' steps"))?;
        let report = entry("report")?.clone();
        let mut tensors = decode(&bytes).map_err(|reason| damaged(&reason))?;
        let mut optimizers = Vec::new();
        for (i, steps) in steps.into_iter().enumerate() {
            let mut optimizer = BTreeMap::new();
            for (name, steps) in steps {
                let mut take = |part: &str| {
                    let missing = || damaged("an optimizer's memory is missing");
                    tensors.remove(&format!("{part}{i}/{name}")).ok_or_else(missing)
                };
                let (first, second) = (take("first")?, take("second")?);
                optimizer.insert(name, Moments { first, second, steps });
            }
            optimizers.push(optimizer);
        }
        let values = tensors
            .into_iter()
            .filter_map(|(name, v)| Some((name.strip_prefix("value/")?.to_owned(), v)))
            .collect();
        Ok(Some(Checkpoint { step, values, optimizers, report }))
    }
}

/// Writes named vectors as a safetensors file, whole or not at all.
pub fn save_values(path: &Path, values: &Values) -> Result<(), CheckpointError> {
    let io = |source| CheckpointError::Io { path: path.to_owned(), source };
    let views = values.iter().map(|(name, v)| (name.clone(), &v[..])).collect();
    write_whole(path, &encode(&views, None).map_err(io)?).map_err(io)
}

/// Reads what [`save_values`] wrote.
pub fn load_values(path: &Path) -> Result<Values, CheckpointError> {
    let bytes = std::fs::read(path)
        .map_err(|source| CheckpointError::Io { path: path.to_owned(), source })?;
    decode(&bytes).map_err(|reason| CheckpointError::Damaged { path: path.to_owned(), reason })
}

/// FNV-1a over what a run starts from.
pub(crate) fn fingerprint(parts: [Option<&Values>; 2]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for (name, values) in parts.into_iter().flatten().flatten() {
        let words = values.iter().flat_map(|v| v.to_le_bytes());
        for byte in name.bytes().chain(words) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    hash
}

fn parse<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}

fn encode(
    tensors: &BTreeMap<String, &[f32]>,
    head: Option<HashMap<String, String>>,
) -> std::io::Result<Vec<u8>> {
    let bytes: Vec<(&String, Vec<u8>)> = tensors
        .iter()
        .map(|(name, values)| (name, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = bytes.iter().map(|(name, bytes)| {
        let view = TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes);
        view.map(|view| (name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>, _>>().map_err(std::io::Error::other)?;
    safetensors::serialize(views, head).map_err(std::io::Error::other)
}

fn decode(bytes: &[u8]) -> Result<Values, String> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let mut values = Values::new();
    for (name, view) in tensors.tensors() {
        if view.dtype() != Dtype::F32 {
            return Err(format!("`{name}` is not f32"));
        }
        let floats = view.data().chunks_exact(4);
        let floats = floats.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        values.insert(name, floats);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/checkpoint.safetensors");
        assert_eq!(Checkpoint::load(&path, &"x").unwrap(), None);
        let moments = Moments { first: vec![0.1, -2.0], second: vec![], steps: 7 };
        let saved = Checkpoint {
            step: 42,
            values: BTreeMap::from([("b1.weight".to_owned(), vec![1.0, f32::MIN_POSITIVE])]),
            optimizers: vec![BTreeMap::from([("b1.weight".to_owned(), moments)]), BTreeMap::new()],
            report: "[1]".into(),
        };
        saved.save(&path, &"x").unwrap();
        assert_eq!(Checkpoint::load(&path, &"x").unwrap(), Some(saved));
        let other = Checkpoint::load(&path, &"y").unwrap_err();
        assert!(other.to_string().contains("other settings"));
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        let damaged = Checkpoint::load(&path, &"x").unwrap_err().to_string();
        assert!(damaged.contains("damaged") && damaged.contains("checkpoint.safetensors"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn full_disk_leaves_the_last_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint.safetensors");
        let mut checkpoint = Checkpoint { step: 1, ..Checkpoint::default() };
        checkpoint.values.insert("w".into(), vec![1.0; 1 << 16]);
        checkpoint.save(&path, &"x").unwrap();
        // What is written beside it goes to a device that is always full.
        std::os::unix::fs::symlink("/dev/full", dir.path().join("checkpoint.safetensors.partial"))
            .unwrap();
        let failed = Checkpoint { step: 2, ..checkpoint.clone() }.save(&path, &"x").unwrap_err();
        let message = failed.to_string();
        assert!(
            message.contains("checkpoint.safetensors") && message.contains("space"),
            "{message}"
        );
        assert!(message.contains("resumes"), "{message}");
        assert_eq!(Checkpoint::load(&path, &"x").unwrap(), Some(checkpoint));
    }
}
