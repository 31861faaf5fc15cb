//! A firmware on the registers and wires of a real core: starts the simulator that
//! `cargo xtask setup rtl` has built, speaks to the firmware's mailbox through its standard input
//! and output, and collects the defmt log from a file.
//!
//! Simulated time stands still while the firmware waits for the host, so that two runs count the
//! same cycles. The simulator is found by the hash of its sources: one of other sources is none.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use jaq_network::Provenance;
use jaq_shared::format::crc32;

use super::{LinkError, Wire, log};
use crate::firmware;

/// How to come by the simulator.
pub const WAY_OUT: &str = "build it with `cargo xtask setup rtl`";

/// Wait states of the slower memory that calibration compares with. Two are what predictions are
/// judged at, so that neither end of the line is what is asked for.
pub const CALIBRATION_WAITS: u8 = 3;

/// What the memory around the core does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Wait states of an instruction fetch.
    pub fetch: u8,
    /// Wait states of a load or store.
    pub data: u8,
}

impl Waits {
    /// The same for fetches, loads and stores.
    pub fn all(waits: u8) -> Waits {
        Waits { fetch: waits, data: waits }
    }
}

fn error(what: &str, path: &Path, source: io::Error) -> LinkError {
    LinkError::Start {
        what: "the simulator of CV32E40P".to_owned(),
        source,
        way_out: format!("{what} {}", path.display()),
    }
}

/// The folder of the simulator's sources and of its recipe.
pub fn sources() -> Result<PathBuf, LinkError> {
    let firmware = firmware::folder().map_err(|error| LinkError::Model(error.to_string()))?;
    Ok(firmware.join("cv32e40p").join("rtl"))
}

/// Where the simulator of these sources is, or will be.
pub fn place() -> Result<PathBuf, LinkError> {
    let folder = sources()?;
    let mut hash = 0;
    for name in ["core.toml", "soc.sv", "main.cpp"] {
        let path = folder.join(name);
        let bytes = fs::read(&path).map_err(|source| error("it needs", &path, source))?;
        hash = crc32(&[&u32::to_le_bytes(hash), &bytes]);
    }
    let target = folder.join("../../target/rtl").join(format!("{hash:08x}"));
    Ok(target.join("simulator"))
}

/// The simulator, if it was built.
pub fn simulator() -> Result<PathBuf, LinkError> {
    let path = place()?;
    if path.is_file() {
        return Ok(path);
    }
    Err(LinkError::Start {
        what: "the simulator of CV32E40P".to_owned(),
        source: io::Error::new(io::ErrorKind::NotFound, "it was not built from these sources"),
        way_out: WAY_OUT.to_owned(),
    })
}

/// A running simulator. It ends when this is dropped.
pub struct Rtl {
    child: Child,
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
    elf: PathBuf,
    /// Holds the log and what the simulator says.
    folder: tempfile::TempDir,
}

impl Rtl {
    /// Starts the firmware `elf` with a memory of `waits`.
    pub fn start(elf: &Path, waits: Waits) -> Result<Rtl, LinkError> {
        Rtl::start_with(&simulator()?, elf, waits)
    }

    /// As [`Rtl::start`] with another simulator.
    pub fn start_with(simulator: &Path, elf: &Path, waits: Waits) -> Result<Rtl, LinkError> {
        let failed = |source: io::Error| error("started as", simulator, source);
        let folder = tempfile::Builder::new().prefix("jaq-rtl").tempdir().map_err(failed)?;
        let errors = File::create(folder.path().join("errors")).map_err(failed)?;
        let mut child = Command::new(simulator)
            .arg(elf)
            .args(["--fetch-waits", &waits.fetch.to_string()])
            .args(["--data-waits", &waits.data.to_string()])
            .arg("--log")
            .arg(folder.path().join("log"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(failed)?;
        let (sender, output) = mpsc::channel();
        let (Some(input), Some(mut stream)) = (child.stdin.take(), child.stdout.take()) else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed(io::Error::other("no standard streams")));
        };
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = stream.read(&mut buffer) {
                if sender.send(buffer[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        Ok(Rtl { child, input, output, elf: elf.to_owned(), folder })
    }
}

impl Drop for Rtl {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Wire for Rtl {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.input.write_all(bytes)?;
        self.input.flush()
    }

    fn receive(&mut self, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
        match self.output.recv_timeout(timeout) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn last_words(&mut self) -> String {
        // The stream ends a moment before the process does.
        let until = Instant::now() + Duration::from_millis(500);
        let mut status = self.child.try_wait().ok().flatten();
        while status.is_none() && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
            status = self.child.try_wait().ok().flatten();
        }
        let mut words = match status {
            Some(status) => format!("the simulator ended with {status}"),
            None => "the simulator still runs".to_owned(),
        };
        let errors = fs::read_to_string(self.folder.path().join("errors")).unwrap_or_default();
        if !errors.trim().is_empty() {
            words += &format!(", it said: {}", errors.trim());
        }
        if let Some(last) = self.log().last() {
            words += &format!(", last log line: {last}");
        }
        words
    }

    fn log(&self) -> Vec<String> {
        log::lines(&self.elf, &fs::read(self.folder.path().join("log")).unwrap_or_default())
    }

    fn provenance(&self) -> Provenance {
        Provenance::RtlSimulated
    }

    fn via(&self) -> &'static str {
        "rtl"
    }
}
