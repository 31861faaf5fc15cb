//! Recorded sessions, replayed without a device: what a user's bug report looks like to a developer.
//!
//! A change of the protocol makes them anew:
//! `jaq-host deploy --board mps2-an500 --model M --probe P --record tests/sessions/FILE`, P being a
//! virtual probe (`docs/devices.md`), with `--fault reset@200` for `reset.jaqlog`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jaq_deploy::link::replay::Replay;
use jaq_deploy::link::{LinkError, Session, Severity};
use jaq_network::Provenance;

const TIMEOUT: Duration = Duration::from_secs(1);

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sessions").join(name)
}

/// What a session asks of a model's file: its length, and the checksum in its header.
fn model(bytes: usize, crc: u32) -> Vec<u8> {
    let mut file = vec![0; bytes];
    file[28..32].copy_from_slice(&crc.to_le_bytes());
    file
}

#[test]
fn a_deployment_through_a_probe_replays() {
    let replay = Replay::open(&path("deploy.jaqlog")).unwrap();
    let about = replay.about().clone();
    assert_eq!((about.board.as_str(), about.via.as_str()), ("mps2-an500", "probe"));
    assert!(about.parts.code > 0);
    let mut session = Session::replay(replay, TIMEOUT).unwrap();
    assert_eq!(session.provenance(), Provenance::Emulated);
    assert_eq!(session.via(), "replay");
    let embedded = session.identity().embedded;
    // The build names the checksum of the whole file; the header's is found by being refused.
    let error = session.open(&model(embedded, 0)).unwrap_err().to_string();
    let crc = error.split("CRC ").nth(1).and_then(|rest| rest.get(..8)).unwrap();
    let crc = u32::from_str_radix(crc, 16).unwrap();

    let mut session =
        Session::replay(Replay::open(&path("deploy.jaqlog")).unwrap(), TIMEOUT).unwrap();
    let opened = session.open(&model(embedded, crc)).unwrap();
    let stats = session.stats().unwrap();
    assert_eq!(stats.arena_bytes, opened.arena_bytes);
    assert!(stats.stack_bytes > 0 && stats.stack_bytes < stats.stack_capacity);
    assert!(session.log().iter().any(|line| line.contains(&about.build)), "{:?}", session.log());
    session.bye().unwrap();
}

#[test]
fn a_session_that_broke_breaks_again_for_the_recorded_reason() {
    let replay = Replay::open(&path("reset.jaqlog")).unwrap();
    let mut ended = Session::replay(replay, TIMEOUT).map(drop);
    if ended.is_ok() {
        let mut session =
            Session::replay(Replay::open(&path("reset.jaqlog")).unwrap(), TIMEOUT).unwrap();
        let embedded = session.identity().embedded;
        // Whichever question it was that got no answer.
        ended = session.open(&model(embedded, 0)).map(drop);
    }
    let error = ended.unwrap_err();
    assert!(matches!(error, LinkError::Gone { .. }), "{error}");
    assert_eq!(error.severity(), Some(Severity::Failed));
    assert!(error.to_string().contains("recorded: the chip was reset"), "{error}");
}
