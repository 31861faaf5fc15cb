//! Boards behind a debug probe: the unchanged probe-rs library flashes our firmware through a virtual
//! probe onto an emulated core, and the session goes over rings in its RAM.
//!
//! Where the embedded target or QEMU is missing the tests say what they skip and why; with
//! `JAQ_REQUIRE_DEVICE=1`, as `cargo xtask test` sets it, that is a failure.

mod emulator;
#[path = "../../host/deploy/tests/random/mod.rs"]
mod random;

use std::time::Duration;

use jaq_cost::Mcu;
use jaq_deploy::engine::Engine;
use jaq_deploy::firmware::{self, Firmware, Transport};
use jaq_deploy::link::probe::{Phase, Probe, Setup};
use jaq_deploy::link::{Expected, LinkError, Session, Severity};
use jaq_deploy::validate::{Ask, Device};
use jaq_network::Provenance;
use jaq_shared::kernels::Isa;
use jaq_tests::virtual_probe::{Fault, Order, VirtualProbe, When, machines};
use object::{Object, ObjectSection, ObjectSymbol};

use random::{image, network, packed_for};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Whether a test on `board` can run; says so where it is skipped.
fn available(board: &str, test: &str) -> bool {
    let missing = emulator::missing(firmware::target(board).unwrap());
    missing.iter().for_each(|reason| emulator::skip(test, reason));
    missing.is_none()
}

fn probe(machine: &str) -> VirtualProbe {
    VirtualProbe::start(machines::target(machine).unwrap()).unwrap()
}

fn setup(board: &str, probe: &VirtualProbe) -> Setup {
    let board = Mcu::load(board).unwrap();
    Setup {
        chip: board.links.probe.unwrap(),
        description: board.links.probe_target.as_deref().and_then(jaq_cost::probe_target),
        core: board.core.name,
        selector: Some(probe.selector()),
        provenance: Provenance::Emulated,
        allow_erase_all: false,
        timeout: TIMEOUT,
    }
}

fn open_firmware(board: &str) -> Firmware {
    firmware::build_open_for(Transport::Probe, board).unwrap()
}

/// Flashes, verifies, starts, reads the log, and runs a model on it bit for bit.
fn flash_and_run(board: &str) {
    if !available(board, &format!("flashing {board}")) {
        return;
    }
    let (firmware, probe) = (open_firmware(board), probe(board));
    let mut phases = Vec::new();
    let wire = Probe::start(&setup(board, &probe), &firmware.elf, |progress| {
        if phases.last() != Some(&progress.phase) {
            phases.push(progress.phase);
        }
        assert!(progress.done <= progress.total, "{progress:?}");
    })
    .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(phases.first(), Some(&Phase::Attach));
    for phase in [Phase::Erase, Phase::Program, Phase::Verify] {
        assert!(phases.contains(&phase), "{phases:?}");
    }
    assert_eq!(phases.last(), Some(&Phase::Start));

    let expected = Expected { board: board.into(), build: Some(firmware.build.clone()) };
    let mut session = Session::start(wire, &expected, TIMEOUT).unwrap();
    // Real probe or not: the core is an emulated one.
    assert_eq!(session.provenance(), Provenance::Emulated);
    assert_eq!(session.via(), "probe");
    let mut counts = Vec::new();
    for seed in 0..3 {
        let trained = network(seed);
        let (file, _) = packed_for(&trained, Isa::Armv7em);
        session.open(&file).unwrap();
        let mut engine = Engine::new(&file).unwrap();
        for index in 0..2 {
            let raw = image(&trained, seed * 100 + index);
            let found = session.infer(&raw, Ask::Checksums).unwrap();
            let (output, crcs) = engine.infer_with_crcs(&raw).unwrap();
            assert_eq!((found.output, found.crcs), (output, crcs), "seed {seed}, image {index}");
            counts.push(found.layers);
        }
    }
    // Being watched through a probe changes no count.
    assert_eq!(counts[0], counts[1]);
    let log = session.log();
    assert!(log[0].contains(&firmware.build), "{log:?}");
    assert!(log.iter().any(|line| line.contains("opened (harness/src/serve.rs:")), "{log:?}");
    session.bye().unwrap();
}

/// The error of a fault in the middle of a session.
fn fault_in_session(fault: Fault, timeout: Duration) -> Option<LinkError> {
    const BOARD: &str = "mps2-an386";
    if !available(BOARD, &format!("{fault:?} in a session")) {
        return None;
    }
    let (firmware, probe) = (open_firmware(BOARD), probe(BOARD));
    let setup = Setup { timeout, ..setup(BOARD, &probe) };
    let wire = Probe::start(&setup, &firmware.elf, |_| {}).unwrap();
    let expected = Expected { board: BOARD.into(), build: Some(firmware.build.clone()) };
    let mut session = Session::start(wire, &expected, timeout).unwrap();
    session.stats().unwrap();
    probe.order(Order { fault, when: When::Always });
    // The first answers may have been on their way.
    let error = (0..100).find_map(|_| session.stats().err()).expect("the fault shows");
    assert_eq!(error.severity(), Some(Severity::Failed), "{error}");
    Some(error)
}

#[test]
fn a_fault_on_the_device_is_told_with_its_source_line() {
    if let Some(error) = fault_in_session(Fault::BadInstruction, TIMEOUT) {
        let text = error.to_string();
        assert!(matches!(error, LinkError::Device { .. }), "{text}");
        // It waits for a byte from the host.
        assert!(text.contains("hard fault at pc 0x") && text.contains(".rs:"), "{text}");
    }
}

#[test]
fn what_happens_in_the_middle_of_a_session_is_told() {
    for (fault, words) in [
        (Fault::Reset, "the chip was reset in the middle"),
        (Fault::Lost, "the connection to the chip broke"),
        (Fault::Drop, "the connection to the chip broke"),
        (Fault::Silence, "the probe does not answer"),
        (Fault::Freeze, "waited 2 s"),
    ] {
        if let Some(error) = fault_in_session(fault, Duration::from_secs(2)) {
            let text = error.to_string();
            assert!(text.contains(words), "{fault:?}: {text}");
        }
    }
}

#[test]
fn a_firmware_that_never_says_hello_is_told_with_where_it_is() {
    const BOARD: &str = "mps2-an500";
    if !available(BOARD, "a_firmware_that_never_says_hello_is_told_with_where_it_is") {
        return;
    }
    let (firmware, probe) = (open_firmware(BOARD), probe(BOARD));
    let mut bytes = std::fs::read(&firmware.elf).unwrap();
    let (start, place) = {
        let file = object::File::parse(&*bytes).unwrap();
        let reset = file.symbols().find(|symbol| symbol.name() == Ok("Reset")).unwrap();
        let address = reset.address() & !1;
        let section = file.section_by_index(reset.section_index().unwrap()).unwrap();
        let (offset, _) = section.file_range().unwrap();
        (address, (offset + address - section.address()) as usize)
    };
    // b .
    bytes[place..place + 2].copy_from_slice(&[0xfe, 0xe7]);
    let folder = tempfile::tempdir().unwrap();
    let silent = folder.path().join("silent.elf");
    std::fs::write(&silent, bytes).unwrap();
    let timeout = Duration::from_secs(1);
    let setup = Setup { timeout, ..setup(BOARD, &probe) };
    let error = Probe::start(&setup, &silent, |_| {}).err().unwrap();
    let text = error.to_string();
    assert_eq!(error.severity(), Some(Severity::Failed));
    assert!(text.contains("never opened its link: waited 1 s"), "{text}");
    assert!(text.contains(&format!("pc {start:#010x}")), "{text}");

    // No firmware for a probe at all.
    let usual = firmware::build_open_for(Transport::Emulator, BOARD).unwrap();
    let error = Probe::start(&setup, &usual.elf, |_| {}).err().unwrap().to_string();
    assert!(error.contains("_SEGGER_RTT"), "{error}");
}

#[test]
fn the_flash_algorithm_is_the_one_of_the_target_files() {
    if !available("mps2-an385-v6m", "the_flash_algorithm_is_the_one_of_the_target_files") {
        return;
    }
    let target = firmware::target("mps2-an385-v6m").unwrap();
    let mut build = firmware::cargo(target, "build").unwrap();
    let status = build.args(["--release", "--locked", "--package", "flash-ram"]).status().unwrap();
    assert!(status.success());
    let output = firmware::folder().unwrap().join("target").join(target.triple);
    let bytes = std::fs::read(output.join("release/flash-ram")).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let section = file.section_by_name(".algorithm").unwrap();
    let description = jaq_cost::probe_target("mps2").unwrap();
    let field = |name: &str| {
        let line = description.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap();
        line.trim_start_matches(':').trim().to_owned()
    };
    assert_eq!(unbase64(&field("instructions")), section.data().unwrap());
    for (name, routine) in [
        ("pc_init", "Init"),
        ("pc_uninit", "UnInit"),
        ("pc_program_page", "ProgramPage"),
        ("pc_erase_sector", "EraseSector"),
    ] {
        let symbol = file.symbols().find(|symbol| symbol.name() == Ok(routine)).unwrap();
        assert_eq!(field(name), format!("{:#x}", symbol.address() - section.address()), "{name}");
    }
}

/// Bytes from their base 64 (RFC 4648).
fn unbase64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let value = |byte| DIGITS.iter().position(|digit| *digit == byte).unwrap() as u32;
    let digits: Vec<u32> = text.bytes().filter(|byte| *byte != b'=').map(value).collect();
    let group = |digits: &[u32]| {
        let word =
            digits.iter().fold(0, |word, digit| word << 6 | digit) << (24 - 6 * digits.len());
        word.to_be_bytes()[1..digits.len()].to_vec()
    };
    digits.chunks(4).flat_map(group).collect()
}

#[test]
fn a_cortex_m7_is_flashed_and_runs_a_model() {
    flash_and_run("mps2-an500");
}

#[test]
fn a_cortex_m4_is_flashed_and_runs_a_model() {
    flash_and_run("mps2-an386");
}
