//! What was observed before: one JSON line a validation, so that drift between versions shows.
//!
//! Must not know how an observation is made.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::validate::{Observation, Unit};

/// One validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Seconds since 1970.
    pub time: u64,
    /// Version of the tool.
    pub version: String,
    /// Hash of its kernel registry.
    pub registry: u32,
    /// Board, link and model: what is compared with what.
    pub board: String,
    /// See `board`; with wait states where a link has them.
    pub via: String,
    /// See `board`.
    pub model: String,
    /// Checksum of the packed model, which changes with a kernel's packing.
    pub model_crc: u32,
    /// Unit of the figures.
    pub unit: Unit,
    /// The prediction.
    pub predicted_total: f64,
    /// The whole inference.
    pub observed_total: u64,
    /// Every layer by name.
    pub layers: BTreeMap<String, u64>,
    /// Images that differed from the host.
    pub mismatches: usize,
    #[allow(missing_docs)]
    pub flash_bytes: usize,
    #[allow(missing_docs)]
    pub arena_bytes: usize,
    #[allow(missing_docs)]
    pub stack_bytes: usize,
}

/// How a validation differs from the one before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// The version before, and when, in seconds since 1970.
    pub version: String,
    /// See `version`.
    pub time: u64,
    /// Whether the packed model is still the same file.
    pub same_model: bool,
    /// The total over that of before, less 1.
    pub total: f64,
    /// Layers that changed: over before, less 1.
    pub layers: BTreeMap<String, f64>,
    /// Bytes of flash more than before.
    pub flash_bytes: i64,
    /// Bytes of arena and stack more than before.
    pub ram_bytes: i64,
}

/// Why a history cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum HistoryError {
    #[error("{what} the history {path}: {source}; name another with --history")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "line {line} of the history {path} is no entry: {source}; remove it or name another with --history"
    )]
    Line { line: usize, path: PathBuf, source: serde_json::Error },
}

impl Entry {
    /// The entry of an observation.
    pub fn new(observation: &Observation, via: String, model_crc: u32, time: u64) -> Entry {
        let layers = observation.layers.iter().map(|l| (l.name.clone(), l.observed)).collect();
        Entry {
            time,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            registry: jaq_shared::kernels::registry_hash(),
            board: observation.board.clone(),
            via,
            model: observation.model.clone(),
            model_crc,
            unit: observation.unit,
            predicted_total: observation.predicted_total,
            observed_total: observation.observed_total,
            layers,
            mismatches: observation.mismatches,
            flash_bytes: observation.flash_bytes,
            arena_bytes: observation.arena_bytes,
            stack_bytes: observation.stack_bytes,
        }
    }

    fn comparable(&self, other: &Entry) -> bool {
        (&self.board, &self.via, &self.model, self.unit)
            == (&other.board, &other.via, &other.model, other.unit)
    }

    fn since(&self, before: &Entry) -> Drift {
        let change = |now: u64, before: u64| now as f64 / before.max(1) as f64 - 1.0;
        let layers = self.layers.iter().filter_map(|(name, now)| {
            let before = *before.layers.get(name)?;
            (before != *now).then(|| (name.clone(), change(*now, before)))
        });
        let ram = |entry: &Entry| (entry.arena_bytes + entry.stack_bytes) as i64;
        Drift {
            version: before.version.clone(),
            time: before.time,
            same_model: self.model_crc == before.model_crc,
            total: change(self.observed_total, before.observed_total),
            layers: layers.collect(),
            flash_bytes: self.flash_bytes as i64 - before.flash_bytes as i64,
            ram_bytes: ram(self) - ram(before),
        }
    }
}

/// Appends `entry` to the history at `path`; how it differs from the last one of the same board,
/// link and model, if there is one.
pub fn append(path: &Path, entry: &Entry) -> Result<Option<Drift>, HistoryError> {
    let fail = |what| move |source| HistoryError::Io { what, path: path.to_owned(), source };
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text.map_err(fail("cannot read"))?,
    };
    let mut before = None;
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let found: Entry = serde_json::from_str(line).map_err(|source| HistoryError::Line {
            line: index + 1,
            path: path.to_owned(),
            source,
        })?;
        if entry.comparable(&found) {
            before = Some(found);
        }
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(fail("cannot make the folder of"))?;
    }
    let mut line = serde_json::to_string(entry).expect("plain data can always be written");
    line.push('\n');
    let mut file = OpenOptions::new().create(true).append(true).open(path);
    // In one piece, so that two commands at a time leave two lines.
    file.as_mut()
        .map_err(|error| io::Error::new(error.kind(), error.to_string()))
        .and_then(|file| file.write_all(line.as_bytes()))
        .map_err(fail("cannot write"))?;
    Ok(before.map(|before| entry.since(&before)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(board: &str, total: u64) -> Entry {
        Entry {
            time: 1,
            version: "0.1.0".into(),
            registry: 1,
            board: board.into(),
            via: "qemu".into(),
            model: "m".into(),
            model_crc: 7,
            unit: Unit::Instructions,
            predicted_total: 100.0,
            observed_total: total,
            layers: [("a".into(), total / 2), ("b".into(), 50)].into(),
            mismatches: 0,
            flash_bytes: 1000,
            arena_bytes: 100,
            stack_bytes: 10,
        }
    }

    #[test]
    fn drift_is_against_the_last_of_the_same_kind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/history.jsonl");
        assert_eq!(append(&path, &entry("one", 100)).unwrap(), None);
        assert_eq!(append(&path, &entry("other", 900)).unwrap(), None);
        let other = Entry { flash_bytes: 900, model_crc: 8, ..entry("one", 110) };
        let drift = append(&path, &other).unwrap().unwrap();
        assert!((drift.total - 0.1).abs() < 1e-9 && !drift.same_model);
        assert_eq!((drift.flash_bytes, drift.ram_bytes), (-100, 0));
        assert_eq!(drift.layers.keys().collect::<Vec<_>>(), ["a"]);
        let same = append(&path, &other).unwrap().unwrap();
        assert!(same.total == 0.0 && same.layers.is_empty() && same.same_model);
        fs::write(&path, "{}\n").unwrap();
        let error = append(&path, &other).unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("--history"), "{error}");
    }
}
