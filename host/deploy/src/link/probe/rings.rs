//! The session's bytes through rings in the chip's RAM: finds the control block by its symbol,
//! moves bytes both ways while the core runs, and notices when it no longer does.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use probe_rs::rtt::{Rtt, ScanRegion, find_rtt_control_block_in_raw_file};
use probe_rs::{Core, Session};

use super::error::{ProbeError, attaching, chain};
use super::{Command, Event, Setup, watch};

/// Rings of the firmware: the protocol both ways, and its log.
const PROTOCOL: usize = 0;
const LOG: usize = 1;
/// Longest pause between two looks at a ring that had nothing.
const PAUSE: Duration = Duration::from_millis(4);
/// How often the core's state is looked at while nothing moves.
const WATCH: Duration = Duration::from_millis(50);

/// Whom the thread serves.
pub struct Line<'a> {
    pub elf: &'a Path,
    pub log: &'a Mutex<Vec<u8>>,
    pub inbox: &'a Receiver<Command>,
    pub outbox: &'a Sender<Event>,
}

/// Starts the halted core, tells when its rings are `ready`, and carries bytes until nobody sends
/// commands any more.
pub fn serve(
    session: &mut Session,
    setup: &Setup,
    line: &Line<'_>,
    ready: impl FnOnce() -> Event,
) -> Result<(), ProbeError> {
    let Line { elf, log, inbox, outbox } = *line;
    let symbol = fs::read(elf)
        .ok()
        .and_then(|file| find_rtt_control_block_in_raw_file(&file).ok().flatten());
    let Some(address) = symbol else {
        return Err(ProbeError::NoSymbol(elf.display().to_string()));
    };
    let region = ScanRegion::Exact(address);
    let mut core = session.core(0).map_err(|error| attaching(&setup.chip, &error))?;
    // What an earlier firmware has left there would be taken for this one's.
    Rtt::clear_control_block(&mut core, &region).map_err(|error| lost(&error))?;
    watch::forget_reset(&mut core)?;
    core.run().map_err(|error| attaching(&setup.chip, &error))?;
    let mut rtt = open(&mut core, &region, setup, elf)?;
    // Nobody may listen any more: then the inbox is closed, too.
    let _ = outbox.send(ready());

    let mut pending: VecDeque<u8> = VecDeque::new();
    let mut buffer = vec![0; 4096];
    let mut pause = Duration::from_micros(200);
    let mut looked = Instant::now();
    loop {
        let mut moved = false;
        if !pending.is_empty() {
            let ring = rtt.down_channel(PROTOCOL).ok_or_else(vanished)?;
            let sent = ring.write(&mut core, pending.make_contiguous());
            let sent = sent.map_err(|error| broken(&mut core, &error))?;
            pending.drain(..sent);
            moved |= sent > 0;
        }
        for (number, is_log) in [(PROTOCOL, false), (LOG, true)] {
            let ring = rtt.up_channel(number).ok_or_else(vanished)?;
            let count = ring.read(&mut core, &mut buffer);
            let count = count.map_err(|error| broken(&mut core, &error))?;
            if count == 0 {
                continue;
            }
            moved = true;
            let bytes = &buffer[..count];
            if is_log {
                log.lock().unwrap_or_else(|e| e.into_inner()).extend_from_slice(bytes);
            } else {
                let _ = outbox.send(Event::Bytes(bytes.to_owned()));
            }
        }
        if !moved && looked.elapsed() > WATCH {
            watch::check(&mut core, elf)?;
            looked = Instant::now();
        }
        // A core that is asked too often gets nothing else done.
        pause = if moved { Duration::from_micros(200) } else { (pause * 2).min(PAUSE) };
        match inbox.recv_timeout(pause) {
            Ok(Command::Send(bytes)) => pending.extend(bytes),
            Ok(Command::State) => {
                let _ = outbox.send(Event::State(watch::state(&mut core, elf)));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// Waits for the firmware to set its rings up.
fn open(
    core: &mut Core<'_>,
    region: &ScanRegion,
    setup: &Setup,
    elf: &Path,
) -> Result<Rtt, ProbeError> {
    let until = Instant::now() + setup.timeout;
    loop {
        match Rtt::attach_region(core, region) {
            Ok(rtt) if rtt.up_channels.len() > LOG && !rtt.down_channels.is_empty() => {
                return Ok(rtt);
            }
            // Not there yet, or half set up.
            Ok(_)
            | Err(
                probe_rs::rtt::Error::ControlBlockNotFound
                | probe_rs::rtt::Error::ControlBlockCorrupted(_),
            ) => {}
            Err(error) => return Err(lost(&error)),
        }
        watch::check(core, elf)?;
        if Instant::now() > until {
            let seconds = setup.timeout.as_secs_f64();
            return Err(ProbeError::NoRings { seconds, state: watch::state(core, elf) });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Why bytes could not be moved: a chip that was reset has set its rings up anew.
fn broken(core: &mut Core<'_>, error: &probe_rs::rtt::Error) -> ProbeError {
    match watch::was_reset(core) {
        Ok(true) => ProbeError::Reset,
        _ => lost(error),
    }
}

fn lost(error: &probe_rs::rtt::Error) -> ProbeError {
    ProbeError::Lost(chain(error))
}

fn vanished() -> ProbeError {
    ProbeError::Lost("the firmware's rings are gone".into())
}
