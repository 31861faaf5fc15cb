//! The firmware on emulated cores, against the host's integer engine.
//!
//! Where the embedded target or QEMU is missing the tests say what they skip and why; with
//! `JAQ_REQUIRE_DEVICE=1`, as `cargo xtask test` sets it, that is a failure.

mod emulator;
#[path = "../../host/deploy/tests/random/mod.rs"]
mod random;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use jaq_deploy::engine::Engine;
use jaq_deploy::firmware::{self, Firmware, TARGETS, Transport};
use jaq_deploy::link::qemu::Qemu;
use jaq_deploy::link::replay::{About, Recorder, Replay};
use jaq_deploy::link::{self, Expected, LinkError, Session, TIMEOUT, Wire};
use jaq_deploy::validate::{Ask, Device, Unit, compare};
use jaq_network::Provenance;
use jaq_shared::kernels::Isa;
use jaq_shared::protocol::{self, Request};

use random::{image, network, packed_for};

const BOARD: &str = "mps2-an500";

/// Whether a device test can run; says so where it is skipped.
fn available(test: &str) -> bool {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    let reason = MISSING.get_or_init(|| TARGETS.iter().find_map(emulator::missing));
    reason.iter().for_each(|reason| emulator::skip(test, reason));
    reason.is_none()
}

fn open_firmware() -> &'static Firmware {
    static FIRMWARE: OnceLock<Firmware> = OnceLock::new();
    FIRMWARE.get_or_init(|| firmware::build_open(BOARD).unwrap())
}

fn session() -> Session {
    link::emulate(open_firmware(), TIMEOUT).unwrap()
}

#[test]
fn the_device_says_who_it_is() {
    if !available("the_device_says_who_it_is") {
        return;
    }
    let mut session = session();
    let identity = session.identity();
    assert_eq!(identity.board, BOARD);
    assert_eq!(identity.embedded, 0);
    assert!(identity.capacity >= 1 << 20 && identity.arena >= 1 << 20);
    assert_eq!(session.unit(), Unit::Instructions);
    assert_eq!(session.provenance(), Provenance::Emulated);
    let stats = session.stats().unwrap();
    assert!(stats.stack_bytes > 0 && stats.stack_bytes < stats.stack_capacity);
    session.bye().unwrap();
}

#[test]
fn models_over_the_link_equal_the_host() {
    if !available("models_over_the_link_equal_the_host") {
        return;
    }
    let networks = if std::env::var_os("JAQ_FULL").is_some() { 1000 } else { 60 };
    for target in TARGETS.iter().filter(|target| target.machine.is_some()) {
        let firmware = firmware::build_open(target.board).unwrap();
        let mut session = link::emulate(&firmware, TIMEOUT).unwrap();
        for seed in 0..networks {
            let trained = network(seed);
            let (file, _) = packed_for(&trained, target.isa);
            session.open(&file).unwrap();
            let mut engine = Engine::new(&file).unwrap();
            for index in 0..4 {
                let raw = image(&trained, seed * 100 + index);
                let device = session.infer(&raw, Ask::Checksums).unwrap();
                let (output, crcs) = engine.infer_with_crcs(&raw).unwrap();
                let place = format!("{}, seed {seed}, image {index}", target.board);
                assert_eq!(device.crcs, crcs, "{place}");
                assert_eq!(device.output, output, "{place}");
            }
            let stats = session.stats().unwrap();
            assert_eq!(stats.arena_bytes as usize, engine.model().arena_words() * 4);
            // What the inference touched ends where the plan does, padding and scratch left out.
            let touched = session.infer(&image(&trained, seed), Ask::Output).unwrap().arena_bytes;
            assert!(touched > stats.arena_bytes / 2 && touched <= stats.arena_bytes, "{touched}");
            assert_eq!(stats.damaged_frames, 0);
        }
    }
}

#[test]
fn counts_are_exact_and_do_not_depend_on_what_is_asked() {
    if !available("counts_are_exact_and_do_not_depend_on_what_is_asked") {
        return;
    }
    let trained = network(7);
    let (file, _) = packed_for(&trained, Isa::Armv7em);
    let raw = image(&trained, 1);
    let count = |ask| {
        let mut session = session();
        session.open(&file).unwrap();
        session.infer(&raw, ask).unwrap()
    };
    let first = count(Ask::Layers);
    let second = count(Ask::Layers);
    assert_eq!(first, second);
    assert_eq!(first.layers.len(), trained.network.layers.len());
    let sum: u64 = first.layers.iter().sum();
    assert!(sum > 10_000 && sum < first.total, "{sum} of {}", first.total);
    let plain = count(Ask::Output);
    assert!(plain.layers.is_empty());
    let apart = plain.total.abs_diff(first.total);
    // A handful of instructions a layer: the call that reports it.
    assert!(apart <= 30 * first.layers.len() as u64, "{} and {}", plain.total, first.total);
}

#[test]
fn inputs_may_be_built_in() {
    if !available("inputs_may_be_built_in") {
        return;
    }
    let trained = network(9);
    let (file, _) = packed_for(&trained, Isa::Armv7em);
    let inputs: Vec<_> = (0..3).map(|seed| image(&trained, seed)).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.jaq");
    fs::write(&path, &file).unwrap();
    let elf = folder.path().join("fw.elf");
    let plain = firmware::build(BOARD, Some(&path), &elf).unwrap();
    let built =
        firmware::build_with(Transport::Emulator, BOARD, Some(&path), &inputs.concat(), &elf)
            .unwrap();
    assert_eq!(built.parts.inputs, inputs.concat().len().next_multiple_of(8));
    // No part of what a product takes: only the identity is longer.
    assert!(built.parts.flash_bytes().abs_diff(plain.parts.flash_bytes()) < 40);
    assert_ne!(built.build, plain.build);

    let mut session = link::emulate(&built, TIMEOUT).unwrap();
    session.open(&file).unwrap();
    let error = session.built_in(&[1]).unwrap_err().to_string();
    assert!(error.contains("built-in inputs is"), "{error}");
    session.built_in(&inputs.concat()).unwrap();
    let mut engine = Engine::new(&file).unwrap();
    // The last one is sent.
    let streamed = image(&trained, 77);
    for raw in inputs.iter().rev().chain([&streamed]) {
        let found = session.infer(raw, Ask::Layers).unwrap();
        assert_eq!(found.output, engine.infer(raw).unwrap());
        assert!(found.stack_bytes >= 200 && found.arena_bytes > 0);
        // One reading of the clock is nothing beside a layer.
        let overhead = u64::from(session.identity().overhead);
        assert!((1..40).contains(&overhead), "{overhead}");
        assert!(found.layers.iter().all(|count| *count > 20 * overhead));
    }
    session.bye().unwrap();
}

#[test]
fn a_built_in_model_equals_the_host_and_is_told_by_size() {
    if !available("a_built_in_model_equals_the_host_and_is_told_by_size") {
        return;
    }
    let trained = network(4);
    let (file, _) = packed_for(&trained, Isa::Armv7em);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.jaq");
    fs::write(&path, &file).unwrap();
    let built = firmware::build(BOARD, Some(&path), &folder.path().join("fw.elf")).unwrap();
    assert_eq!(built.parts.model, file.len().next_multiple_of(8));
    let parts = built.parts;
    assert!(parts.kernels > 10_000 && parts.runtime > 100 && parts.harness > 1000, "{parts:?}");
    assert!(parts.kernels + parts.runtime + parts.harness < parts.code, "{parts:?}");

    let mut session = link::emulate(&built, TIMEOUT).unwrap();
    assert_eq!(session.identity().embedded, file.len());
    session.open(&file).unwrap();
    let images: Vec<_> = (0..20).map(|seed| image(&trained, seed)).collect();
    let mut engine = Engine::new(&file).unwrap();
    let mut done = 0;
    let images = images.iter().map(Vec::as_slice);
    let outcome = compare(&mut session, &mut engine, images, |count| done = count).unwrap();
    assert_eq!((outcome.images, outcome.mismatches, done), (20, 0, 20));
    // Both stay within what the board file keeps free for them when a search is limited by it.
    let reserve = jaq_cost::Mcu::load(BOARD).unwrap().reserve;
    let stack = session.stats().unwrap().stack_bytes;
    assert!(parts.code_bytes() <= reserve.code_bytes as usize, "{parts:?}");
    assert!((200..=reserve.stack_bytes).contains(&stack), "{stack} bytes of stack");

    // The device's log comes out as text, by the strings of the linked file.
    let log = session.log();
    let opened = format!("info model of {} bytes opened", file.len());
    assert!(
        log[0].contains(&built.build) && log.iter().any(|line| line.starts_with(&opened)),
        "{log:?}"
    );

    // Another model than the one built in is noticed, and so is another build.
    let (other, _) = packed_for(&network(5), Isa::Armv7em);
    assert!(matches!(
        session.open(&other),
        Err(LinkError::Mismatch { what: "built-in model", .. })
    ));
    drop(session);
    let wire = Qemu::start(built.target.machine.unwrap(), &built.elf).unwrap();
    let expected = Expected { board: BOARD.into(), build: Some("0.0.0".into()) };
    let error = Session::start(wire, &expected, TIMEOUT).err().unwrap().to_string();
    assert!(error.contains("build") && error.contains("0.0.0"), "{error}");
}

#[test]
fn another_board_is_refused() {
    if !available("another_board_is_refused") {
        return;
    }
    let firmware = open_firmware();
    let wire = Qemu::start(firmware.target.machine.unwrap(), &firmware.elf).unwrap();
    let expected = Expected { board: "stm32h7".into(), build: None };
    let error = Session::start(wire, &expected, TIMEOUT).err().unwrap().to_string();
    assert!(error.contains("stm32h7") && error.contains(BOARD), "{error}");
}

#[test]
fn bad_models_and_inputs_are_refused_and_the_session_goes_on() {
    if !available("bad_models_and_inputs_are_refused_and_the_session_goes_on") {
        return;
    }
    let trained = network(2);
    let (file, _) = packed_for(&trained, Isa::Armv7em);
    let mut session = session();
    assert!(session.infer(&[0; 4], Ask::Output).is_err());
    for at in [3, 4, 40, file.len() - 1] {
        let mut bad = file.clone();
        bad[at] ^= 0x10;
        match session.open(&bad) {
            Err(LinkError::Device { text, .. }) => assert!(text.len() > 8, "{text}"),
            other => panic!("byte {at}: {other:?}"),
        }
    }
    session.open(&file).unwrap();
    assert!(session.infer(&[0; 3], Ask::Output).is_err());
    let raw = image(&trained, 3);
    let expected = Engine::new(&file).unwrap().infer(&raw).unwrap();
    assert_eq!(session.infer(&raw, Ask::Output).unwrap().output, expected);
}

#[test]
fn damaged_frames_are_reported_and_the_next_one_is_read() {
    if !available("damaged_frames_are_reported_and_the_next_one_is_read") {
        return;
    }
    let firmware = open_firmware();
    let mut wire = Qemu::start(firmware.target.machine.unwrap(), &firmware.elf).unwrap();
    let mut frame = protocol::encode(&Request::Stats, &mut [0; protocol::FRAME]).unwrap().to_vec();
    frame[2] ^= 1;
    let noise: Vec<u8> = (0..3000u32).map(|i| (i * 7 % 255 + 1) as u8).chain([0]).collect();
    wire.send(&frame).unwrap();
    wire.send(&noise).unwrap();
    let mut framer = protocol::Framer::new();
    let mut answers = Vec::new();
    while answers.len() < 2 {
        let bytes = wire.receive(TIMEOUT).unwrap().expect("an answer");
        for byte in bytes {
            if framer.push(byte) == Some(Ok(())) {
                answers.push(format!(
                    "{:?}",
                    protocol::decode::<protocol::Response>(framer.payload())
                ));
            }
        }
    }
    assert!(answers[0].contains("damaged") && answers[1].contains("longer"), "{answers:?}");
    let expected = Expected { board: BOARD.into(), build: None };
    let mut session = Session::start(wire, &expected, TIMEOUT).unwrap();
    assert_eq!(session.stats().unwrap().damaged_frames, 2);
}

#[test]
fn a_device_that_never_answers_is_a_clear_error() {
    if !available("a_device_that_never_answers_is_a_clear_error") {
        return;
    }
    // A program of one instruction that branches to itself.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("silent.bin");
    let mut image = vec![0u8; 64];
    image[..8].copy_from_slice(&[0, 0, 1, 0x20, 0x21, 0, 0, 0]);
    image[32..34].copy_from_slice(&[0xfe, 0xe7]);
    fs::write(&path, image).unwrap();
    let wire = Qemu::start(BOARD, &path).unwrap();
    let expected = Expected { board: BOARD.into(), build: None };
    let timeout = Duration::from_millis(300);
    let error = Session::start(wire, &expected, timeout).err().unwrap();
    assert!(matches!(error, LinkError::Timeout { what: "hello", .. }), "{error}");
}

#[test]
fn an_emulator_that_dies_or_is_missing_is_a_clear_error() {
    let firmware = Path::new("no such file.elf");
    let error = Qemu::start_with("no-such-emulator", BOARD, firmware).err().unwrap().to_string();
    assert!(error.contains("no-such-emulator") && error.contains("apt-get"), "{error}");
    let error = Qemu::start_with("false", BOARD, firmware).err().unwrap().to_string();
    assert!(error.contains("ended at once"), "{error}");
    if !available("an_emulator_that_dies_or_is_missing_is_a_clear_error (QEMU's part)") {
        return;
    }
    let expected = Expected { board: BOARD.into(), build: None };
    let error = Qemu::start(BOARD, firmware)
        .and_then(|wire| Session::start(wire, &expected, TIMEOUT))
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("no such file.elf"), "{error}");
    let firmware = open_firmware();
    let wire = Qemu::start(firmware.target.machine.unwrap(), &firmware.elf).unwrap();
    let id = wire.id().to_string();
    let mut session = Session::start(wire, &expected, TIMEOUT).unwrap();
    assert!(Command::new("kill").args(["-KILL", &id]).status().unwrap().success());
    let error = loop {
        match session.stats() {
            Ok(_) => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("gone") && error.contains("QEMU ended"), "{error}");
}

#[test]
fn a_recorded_emulator_session_replays_to_the_same_figures() {
    if !available("a_recorded_emulator_session_replays_to_the_same_figures") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session.txt");
    let trained = network(9);
    let (file, _) = packed_for(&trained, Isa::Armv7em);
    let raw = image(&trained, 1);
    let firmware = open_firmware();
    let expected = Expected { board: BOARD.into(), build: Some(firmware.build.clone()) };
    let run = |wire: Box<dyn Wire>| {
        let mut session = Session::start(wire, &expected, TIMEOUT).unwrap();
        session.open(&file).unwrap();
        (session.infer(&raw, Ask::Checksums).unwrap(), session.provenance())
    };
    let wire = Qemu::start(firmware.target.machine.unwrap(), &firmware.elf).unwrap();
    let about = About::new(&wire, BOARD, &firmware.build, firmware.parts);
    let live = run(Box::new(Recorder::new(wire, &about, &path).unwrap()));
    assert_eq!(live, run(Box::new(Replay::open(&path).unwrap())));
}
