//! Sessions as files: a recorder between host and device, and a replay that stands for the device.
//!
//! The file is text: a line with the provenance of the figures, then one line for everything sent
//! (`> hex`) or received (`< hex`). A replay answers only what was asked when it was recorded.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use jaq_network::Provenance;

use super::Wire;

/// Hands everything on to a device and writes it down.
pub struct Recorder<W> {
    wire: W,
    file: BufWriter<File>,
}

impl<W: Wire> Recorder<W> {
    /// Records what goes over `wire` to a new file at `path`.
    pub fn new(wire: W, path: &Path) -> io::Result<Self> {
        let mut file = BufWriter::new(File::create(path)?);
        let provenance = serde_json::to_string(&wire.provenance())?;
        writeln!(file, "jaq session {}", provenance.trim_matches('"'))?;
        Ok(Recorder { wire, file })
    }

    fn note(&mut self, direction: char, bytes: &[u8]) -> io::Result<()> {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(self.file, "{direction} {hex}")?;
        self.file.flush()
    }
}

impl<W: Wire> Wire for Recorder<W> {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.note('>', bytes)?;
        self.wire.send(bytes)
    }

    fn receive(&mut self, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
        let received = self.wire.receive(timeout)?;
        if let Some(bytes) = &received {
            self.note('<', bytes)?;
        }
        Ok(received)
    }

    fn last_words(&mut self) -> String {
        self.wire.last_words()
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

/// A device that answers from a recording.
pub struct Replay {
    provenance: Provenance,
    /// What was received after all sent before it, in order.
    received: Vec<(usize, Vec<u8>)>,
    sent: Vec<u8>,
    /// Bytes of `sent` that were asked again, and pieces of `received` that were handed out.
    asked: usize,
    answered: usize,
    strayed: bool,
}

impl Replay {
    /// Reads a recording.
    pub fn open(path: &Path) -> io::Result<Replay> {
        let text = fs::read_to_string(path)?;
        let bad = |line: usize| {
            let path = path.display();
            io::Error::other(format!("{path}: line {} is not of a recorded session", line + 1))
        };
        let mut lines = text.lines().enumerate();
        let provenance = lines
            .next()
            .and_then(|(_, line)| line.strip_prefix("jaq session "))
            .and_then(|name| serde_json::from_str(&format!("\"{name}\"")).ok())
            .ok_or_else(|| bad(0))?;
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        for (number, line) in lines {
            match line.split_once(' ').map(|(way, hex)| (way, unhex(hex))) {
                Some((">", Some(bytes))) => sent.extend(bytes),
                Some(("<", Some(bytes))) => received.push((sent.len(), bytes)),
                _ => return Err(bad(number)),
            }
        }
        Ok(Replay { provenance, received, sent, asked: 0, answered: 0, strayed: false })
    }
}

fn unhex(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

impl Wire for Replay {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let expected = self.sent.get(self.asked..self.asked + bytes.len());
        self.strayed |= expected != Some(bytes);
        self.asked += bytes.len();
        match self.strayed {
            true => Err(io::ErrorKind::InvalidInput.into()),
            false => Ok(()),
        }
    }

    fn receive(&mut self, _: Duration) -> io::Result<Option<Vec<u8>>> {
        match self.received.get(self.answered) {
            _ if self.strayed => Err(io::ErrorKind::InvalidInput.into()),
            Some((after, bytes)) if *after <= self.asked => {
                self.answered += 1;
                Ok(Some(bytes.clone()))
            }
            Some(_) => Ok(None),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn last_words(&mut self) -> String {
        match self.strayed {
            true => "the recording has another question here; record it again".into(),
            false => "the recording ends here".into(),
        }
    }

    fn provenance(&self) -> Provenance {
        self.provenance
    }

    fn via(&self) -> &'static str {
        "replay"
    }
}
