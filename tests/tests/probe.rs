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
use jaq_deploy::link::{Expected, Session};
use jaq_deploy::validate::{Ask, Device};
use jaq_network::Provenance;
use jaq_shared::kernels::Isa;
use jaq_tests::virtual_probe::{VirtualProbe, machines};

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
    assert!(log[0].contains(&firmware.build) && log[1].contains("opened"), "{log:?}");
    session.bye().unwrap();
}

#[test]
fn a_cortex_m7_is_flashed_and_runs_a_model() {
    flash_and_run("mps2-an500");
}

#[test]
fn a_cortex_m4_is_flashed_and_runs_a_model() {
    flash_and_run("mps2-an386");
}
