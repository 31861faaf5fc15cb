//! Sessions as files: a recorder between host and device, and a replay that stands for the device,
//! so that what happened on somebody's board can be looked at without it.
//!
//! The file is text. After a line with the format's version and one about the device (JSON) comes a
//! line for everything sent (`> hex`) or received (`< hex`), for a wait in vain (`?`), for the end of
//! the stream (`! why`) and for every line the device has logged (`# text`). The last line, `end` and
//! a CRC-32 of all before it, is missing where the recording was cut off. A replay answers only what
//! was asked when it was recorded.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use jaq_network::Provenance;
use jaq_shared::format::crc32;
use serde::{Deserialize, Serialize};

use super::Wire;
use crate::firmware::Parts;

/// First line of a recording.
const HEAD: &str = "jaq session 2";

/// What a recording knows of the device beside its words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// What its figures are.
    pub provenance: Provenance,
    /// The link that was recorded.
    pub via: String,
    /// The board.
    pub board: String,
    /// Build of its firmware.
    pub build: String,
    /// Sizes of its firmware.
    pub parts: Parts,
    /// Version of the host.
    pub host: String,
}

impl About {
    /// About a device that runs a firmware of that board and build.
    pub fn new(wire: &dyn Wire, board: &str, build: &str, parts: Parts) -> About {
        About {
            provenance: wire.provenance(),
            via: wire.via().to_owned(),
            board: board.to_owned(),
            build: build.to_owned(),
            parts,
            host: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// Hands everything on to a device and writes it down.
pub struct Recorder<W: Wire> {
    wire: W,
    file: BufWriter<File>,
    /// All that was written, for the checksum.
    text: String,
    /// The stream has ended and why is not written down yet.
    broken: bool,
}

impl<W: Wire> Recorder<W> {
    /// Records what goes over `wire` to a new file at `path`.
    pub fn new(wire: W, about: &About, path: &Path) -> io::Result<Self> {
        let file = BufWriter::new(File::create(path)?);
        let mut recorder = Recorder { wire, file, text: String::new(), broken: false };
        recorder.line(HEAD)?;
        recorder.line(&serde_json::to_string(about)?)?;
        Ok(recorder)
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        self.text += line;
        self.text.push('\n');
        writeln!(self.file, "{line}")?;
        // Whatever happens next, this is on disk.
        self.file.flush()
    }

    fn note(&mut self, direction: char, bytes: &[u8]) -> io::Result<()> {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.line(&format!("{direction} {hex}"))
    }
}

impl<W: Wire> Wire for Recorder<W> {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.note('>', bytes)?;
        self.wire.send(bytes)
    }

    fn receive(&mut self, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
        match self.wire.receive(timeout) {
            Ok(Some(bytes)) => {
                self.note('<', &bytes)?;
                Ok(Some(bytes))
            }
            Ok(None) => {
                self.line("?")?;
                Ok(None)
            }
            Err(error) => {
                self.broken = true;
                Err(error)
            }
        }
    }

    fn last_words(&mut self) -> String {
        let words = self.wire.last_words();
        self.broken = false;
        // The session has failed already; why matters more than a recording that did.
        let _ = self.line(&format!("! {}", words.replace('\n', " ")));
        words
    }

    fn log(&self) -> Vec<String> {
        self.wire.log()
    }

    fn locate(&self, address: u64) -> Option<String> {
        self.wire.locate(address)
    }

    fn provenance(&self) -> Provenance {
        self.wire.provenance()
    }

    fn via(&self) -> &'static str {
        self.wire.via()
    }
}

impl<W: Wire> Drop for Recorder<W> {
    fn drop(&mut self) {
        if self.broken {
            let _ = self.line("!");
        }
        for line in self.wire.log() {
            let _ = self.line(&format!("# {}", line.replace('\n', " ")));
        }
        let crc = crc32(&[self.text.as_bytes()]);
        let _ = self.line(&format!("end {crc:08x}"));
    }
}

/// Why a file is no recording.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ReplayError {
    #[error("cannot read the recording {path}: {source}")]
    Io { path: String, source: io::Error },
    #[error("{path} is no recorded session: it begins with {found}, not with `{HEAD}`")]
    Head { path: String, found: String },
    #[error("the recording {path} was damaged: line {line} is not understood")]
    Line { path: String, line: usize },
    #[error(
        "the recording {path} was changed after it was made: its checksum is {found:08x}, not {expected:08x}"
    )]
    Checksum { path: String, expected: u32, found: u32 },
}

/// What the device did next.
enum Heard {
    Bytes(Vec<u8>),
    Silence,
}

/// A device that answers from a recording.
pub struct Replay {
    about: About,
    /// What was heard after so many bytes were sent, in order.
    heard: VecDeque<(usize, Heard)>,
    sent: Vec<u8>,
    /// Bytes of `sent` that were asked again.
    asked: usize,
    strayed: bool,
    /// How the recorded session ended, if it was not by a goodbye.
    end: Option<String>,
    log: Vec<String>,
}

impl Replay {
    /// Reads a recording.
    pub fn open(path: &Path) -> Result<Replay, ReplayError> {
        let name = || path.display().to_string();
        let bytes = fs::read(path).map_err(|source| ReplayError::Io { path: name(), source })?;
        let text = String::from_utf8_lossy(&bytes);
        let bad = |line: usize| ReplayError::Line { path: name(), line };
        let mut lines = text.lines().zip(1..);
        let (head, _) = lines.next().unwrap_or_default();
        if head != HEAD {
            let found = format!("`{}`", head.chars().take(40).collect::<String>());
            return Err(ReplayError::Head { path: name(), found });
        }
        let (about, _) = lines.next().ok_or_else(|| bad(2))?;
        let about = serde_json::from_str(about).map_err(|_| bad(2))?;
        let mut replay = Replay {
            about,
            heard: VecDeque::new(),
            sent: Vec::new(),
            asked: 0,
            strayed: false,
            end: None,
            log: Vec::new(),
        };
        for (line, number) in lines {
            let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
            match kind {
                ">" => replay.sent.extend(unhex(rest).ok_or_else(|| bad(number))?),
                "<" => {
                    let bytes = unhex(rest).ok_or_else(|| bad(number))?;
                    replay.heard.push_back((replay.sent.len(), Heard::Bytes(bytes)));
                }
                "?" => replay.heard.push_back((replay.sent.len(), Heard::Silence)),
                "!" => replay.end = Some(rest.to_owned()),
                "#" => replay.log.push(rest.to_owned()),
                "end" => {
                    let expected = u32::from_str_radix(rest, 16).map_err(|_| bad(number))?;
                    let length = text.rfind("end ").unwrap_or(0);
                    let found = crc32(&[text.as_bytes().get(..length).unwrap_or_default()]);
                    if found != expected {
                        return Err(ReplayError::Checksum { path: name(), expected, found });
                    }
                }
                _ => return Err(bad(number)),
            }
        }
        Ok(replay)
    }

    /// What the recording knows of the device.
    pub fn about(&self) -> &About {
        &self.about
    }
}

fn unhex(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

impl Wire for Replay {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let left = self.sent.get(self.asked..).unwrap_or_default();
        if left.len() < bytes.len() && bytes.starts_with(left) {
            // The same question, and nothing more was recorded.
            self.heard.clear();
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.strayed |= !left.starts_with(bytes);
        self.asked += bytes.len();
        match self.strayed {
            true => Err(io::ErrorKind::InvalidInput.into()),
            false => Ok(()),
        }
    }

    fn receive(&mut self, _: Duration) -> io::Result<Option<Vec<u8>>> {
        match self.heard.front() {
            // It waits for what came only after a question that it has not asked.
            Some((after, _)) if *after > self.asked => self.strayed = true,
            _ => {}
        }
        if self.strayed {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match self.heard.pop_front() {
            Some((_, Heard::Bytes(bytes))) => Ok(Some(bytes)),
            Some((_, Heard::Silence)) => Ok(None),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn last_words(&mut self) -> String {
        match &self.end {
            _ if self.strayed => "the recording has another question here: it was made of another model, other inputs, or by another version".into(),
            Some(words) if !words.is_empty() => format!("recorded: {words}"),
            _ => "the recording ends here".into(),
        }
    }

    fn log(&self) -> Vec<String> {
        self.log.clone()
    }

    fn provenance(&self) -> Provenance {
        self.about.provenance
    }

    fn via(&self) -> &'static str {
        "replay"
    }
}
