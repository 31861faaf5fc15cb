//! A board behind a debug probe, by the probe-rs library: flashes the firmware, verifies it, starts
//! it, and carries the session and the log over rings in the chip's RAM (RTT).
//!
//! The library runs in a thread of its own: whatever a probe does, or does not, every wait of the
//! caller ends. Must not know what is said over the wire.

mod attach;
mod error;
mod load;
mod rings;
mod watch;

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use jaq_network::Provenance;

pub use attach::{Found, check, list};
pub use error::ProbeError;

use super::{LinkError, Wire, log, source};

/// How much longer the caller waits than the thread, whose own message says more.
const GRACE: Duration = Duration::from_secs(2);
/// Name of the thread the library runs in.
pub const THREAD: &str = "debug probe";

/// What is expected on the probe's other side.
#[derive(Clone, Debug)]
pub struct Setup {
    /// probe-rs' name of the chip.
    pub chip: String,
    /// Its description (YAML), where probe-rs has none of its own.
    pub description: Option<&'static str>,
    /// Its core, as board files spell it: `cortex-m7`.
    pub core: String,
    /// Which probe: `VID:PID[:SERIAL]`; without it the only one there is.
    pub selector: Option<String>,
    /// What figures of this chip are.
    pub provenance: Provenance,
    /// Whether a locked chip may be erased to unlock it.
    pub allow_erase_all: bool,
    /// Longest wait for any sign of progress.
    pub timeout: Duration,
}

/// What the link does before a session can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Phase {
    Attach,
    Erase,
    Program,
    Verify,
    Start,
}

impl Phase {
    /// For people: what is being done.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Attach => "attaching",
            Phase::Erase => "erasing",
            Phase::Program => "programming",
            Phase::Verify => "verifying",
            Phase::Start => "starting the firmware",
        }
    }
}

/// How far a phase has come, in bytes where there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Progress {
    pub phase: Phase,
    pub done: u64,
    pub total: u64,
}

/// What the thread tells.
enum Event {
    Progress(Progress),
    /// The rings are open. Of `software`: the probe is not a real one.
    Ready {
        software: bool,
    },
    Bytes(Vec<u8>),
    Failed(ProbeError),
    /// What the core does, as it was asked.
    State(String),
}

/// What the thread is told. It ends when nobody is left to tell it anything.
enum Command {
    Send(Vec<u8>),
    State,
}

/// A chip running a firmware, behind a debug probe.
pub struct Probe {
    commands: Option<Sender<Command>>,
    events: Receiver<Event>,
    thread: Option<thread::JoinHandle<()>>,
    log: Arc<Mutex<Vec<u8>>>,
    elf: PathBuf,
    provenance: Provenance,
    failed: Option<ProbeError>,
}

impl Probe {
    /// Flashes the firmware `elf` to the chip and starts it.
    ///
    /// `progress` hears of every phase.
    pub fn start(
        setup: &Setup,
        elf: &Path,
        mut progress: impl FnMut(Progress),
    ) -> Result<Probe, LinkError> {
        let (commands, inbox) = mpsc::channel();
        let (outbox, events) = mpsc::channel();
        let log = Arc::new(Mutex::new(Vec::new()));
        let thread = {
            let (setup, elf, log) = (setup.clone(), elf.to_owned(), Arc::clone(&log));
            thread::Builder::new()
                .name(THREAD.to_owned())
                .spawn(move || {
                    let end = outbox.clone();
                    let run = || work(&setup, &elf, &log, &inbox, &outbox);
                    // The library panics where some probes break off.
                    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
                    let error = match result {
                        Ok(Ok(())) => return,
                        Ok(Err(error)) => error,
                        Err(panic) => ProbeError::Driver(message(&*panic)),
                    };
                    // Nobody may listen any more.
                    let _ = end.send(Event::Failed(error));
                })
                .map_err(|error| ProbeError::Driver(error.to_string()))?
        };
        let mut probe = Probe {
            commands: Some(commands),
            events,
            thread: Some(thread),
            log,
            elf: elf.to_owned(),
            provenance: setup.provenance,
            failed: None,
        };
        let mut phase = Phase::Attach;
        loop {
            match probe.events.recv_timeout(setup.timeout + GRACE) {
                Ok(Event::Progress(now)) => {
                    phase = now.phase;
                    progress(now);
                }
                Ok(Event::Ready { software }) => {
                    if software && probe.provenance == Provenance::Measured {
                        probe.provenance = Provenance::Emulated;
                    }
                    return Ok(probe);
                }
                Ok(Event::Failed(error)) => return Err(error.into()),
                Ok(Event::Bytes(_) | Event::State(_)) => {}
                Err(_) => {
                    // The thread hangs in the library: it is left behind.
                    probe.thread = None;
                    let seconds = setup.timeout.as_secs_f64();
                    return Err(ProbeError::Silent { doing: phase.name(), seconds }.into());
                }
            }
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.commands = None;
        let Some(thread) = self.thread.take() else { return };
        // It detaches from the chip; one that hangs is left behind.
        let until = Instant::now() + GRACE;
        while !thread.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Wire for Probe {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let commands = self.commands.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        let command = Command::Send(bytes.to_owned());
        commands.send(command).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn receive(&mut self, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
        let until = Instant::now() + timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(Event::Bytes(bytes)) => return Ok(Some(bytes)),
                Ok(Event::Failed(error)) => {
                    self.failed = Some(error);
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }

    fn last_words(&mut self) -> String {
        let mut words = match &self.failed {
            Some(error) => error.to_string(),
            None => self.state(),
        };
        if let Some(last) = self.log().last() {
            words += &format!("; last log line: {last}");
        }
        words
    }

    fn log(&self) -> Vec<String> {
        log::lines(&self.elf, &self.log.lock().unwrap_or_else(|e| e.into_inner()))
    }

    fn locate(&self, address: u64) -> Option<String> {
        source::locate(&self.elf, address)
    }

    fn provenance(&self) -> Provenance {
        self.provenance
    }

    fn via(&self) -> &'static str {
        "probe"
    }
}

impl Probe {
    /// What the core does now; it is halted for the question.
    fn state(&mut self) -> String {
        let silent = || "the probe does not answer".to_owned();
        if self.commands.as_ref().is_none_or(|to| to.send(Command::State).is_err()) {
            return silent();
        }
        let until = Instant::now() + GRACE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(Event::State(state)) => return state,
                Ok(Event::Failed(error)) => return error.to_string(),
                Ok(_) => {}
                Err(_) => return silent(),
            }
        }
    }
}

/// All the thread does: from attaching to the end of the session.
fn work(
    setup: &Setup,
    elf: &Path,
    log: &Mutex<Vec<u8>>,
    inbox: &Receiver<Command>,
    outbox: &Sender<Event>,
) -> Result<(), ProbeError> {
    let tell = |phase, done, total| {
        // Nobody may listen any more: that shows when the session begins.
        let _ = outbox.send(Event::Progress(Progress { phase, done, total }));
    };
    tell(Phase::Attach, 0, 0);
    let attach::Attached { mut session, software } = attach::attach(setup)?;
    load::load(&mut session, setup, elf, &tell)?;
    tell(Phase::Start, 0, 0);
    let line = rings::Line { elf, log, inbox, outbox };
    rings::serve(&mut session, setup, &line, || Event::Ready { software })
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
}
