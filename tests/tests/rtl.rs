//! The firmware on CV32E40P's RTL, against the host's integer engine: outputs bit for bit, cycles the
//! same in every run, wait states seen in the cycles and nowhere else.
//!
//! Where the simulator is not built the tests say that they are skipped; with `JAQ_REQUIRE_DEVICE=1`,
//! as `cargo xtask test` sets it, that is a failure.

#[allow(dead_code)]
mod emulator;
#[path = "../../host/deploy/tests/random/mod.rs"]
mod random;

use std::sync::OnceLock;
use std::time::Duration;

use jaq_deploy::engine::Engine;
use jaq_deploy::firmware::{self, Firmware, Toolchain};
use jaq_deploy::link::rtl::{self, Rtl, Waits};
use jaq_deploy::link::{self, Expected, LinkError, Session, TIMEOUT};
use jaq_deploy::validate::{Ask, Device, Inference, Unit};
use jaq_network::Provenance;

use random::{image, network, packed_for};

const BOARD: &str = "cv32e40p";

/// Whether the simulator can run; says so where a test is skipped.
fn available(test: &str) -> bool {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    let reason = MISSING.get_or_init(|| {
        let target = firmware::target(BOARD).unwrap();
        let toolchain = Toolchain::detect(target.triple).err().map(|error| error.to_string());
        toolchain.or_else(|| rtl::simulator().err().map(|error| error.to_string()))
    });
    reason.iter().for_each(|reason| emulator::skip(test, reason));
    reason.is_none()
}

fn open_firmware() -> &'static Firmware {
    static FIRMWARE: OnceLock<Firmware> = OnceLock::new();
    FIRMWARE.get_or_init(|| firmware::build_open(BOARD).unwrap())
}

fn session(waits: Waits) -> Session {
    link::simulate(open_firmware(), waits, TIMEOUT).unwrap()
}

/// One inference in a session of its own.
fn run(seed: u64, waits: Waits) -> Inference {
    let trained = network(seed);
    let (file, _) = packed_for(&trained, open_firmware().target.isa);
    let mut session = session(waits);
    session.open(&file).unwrap();
    let found = session.infer(&image(&trained, 1), Ask::Checksums).unwrap();
    session.bye().unwrap();
    found
}

#[test]
fn the_simulated_core_says_who_it_is_and_counts_cycles() {
    if !available("the_simulated_core_says_who_it_is_and_counts_cycles") {
        return;
    }
    let mut session = session(Waits::default());
    assert_eq!(session.identity().board, BOARD);
    assert_eq!(session.unit(), Unit::Cycles);
    assert_eq!(session.provenance(), Provenance::RtlSimulated);
    assert_eq!(session.via(), "rtl");
    assert!(session.identity().capacity >= 768 << 10 && session.identity().arena >= 768 << 10);
    let stats = session.stats().unwrap();
    assert!(stats.stack_bytes > 0 && stats.stack_bytes < stats.stack_capacity);
    assert!(session.log().iter().any(|line| line.contains(BOARD)), "{:?}", session.log());
    session.bye().unwrap();
}

#[test]
fn outputs_on_the_simulated_core_equal_the_hosts() {
    if !available("outputs_on_the_simulated_core_equal_the_hosts") {
        return;
    }
    let networks = if std::env::var_os("JAQ_FULL").is_some() { 200 } else { 16 };
    let mut session = session(Waits::default());
    for seed in 0..networks {
        let trained = network(seed);
        let (file, _) = packed_for(&trained, open_firmware().target.isa);
        session.open(&file).unwrap();
        let mut engine = Engine::new(&file).unwrap();
        for index in 0..2 {
            let raw = image(&trained, seed * 100 + index);
            let device = session.infer(&raw, Ask::Checksums).unwrap();
            let (output, crcs) = engine.infer_with_crcs(&raw).unwrap();
            assert_eq!(device.crcs, crcs, "seed {seed}, image {index}");
            assert_eq!(device.output, output, "seed {seed}, image {index}");
        }
    }
    assert_eq!(session.stats().unwrap().damaged_frames, 0);
    session.bye().unwrap();
}

#[test]
fn cycles_are_the_same_in_every_run_and_wait_states_add_to_them_only() {
    if !available("cycles_are_the_same_in_every_run_and_wait_states_add_to_them_only") {
        return;
    }
    let first = run(7, Waits::default());
    assert_eq!(first, run(7, Waits::default()));
    let sum: u64 = first.layers.iter().sum();
    assert!(sum > 10_000 && sum < first.total, "{sum} of {}", first.total);
    let mut last = first.total;
    for waits in [Waits { fetch: 0, data: 2 }, Waits { fetch: 2, data: 0 }, Waits::all(2)] {
        let slower = run(7, waits);
        assert_eq!((&slower.output, &slower.crcs), (&first.output, &first.crcs), "{waits:?}");
        assert!(slower.total > last, "{waits:?}: {} after {last}", slower.total);
        last = slower.total;
    }
}

#[test]
fn a_firmware_that_is_none_is_named() {
    if !available("a_firmware_that_is_none_is_named") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("no.elf");
    std::fs::write(&path, "not an ELF file at all, but long enough to hold a header of one")
        .unwrap();
    let wire = Rtl::start(&path, Waits::default()).unwrap();
    let expected = Expected { board: BOARD.to_owned(), build: None };
    let error = Session::start(wire, &expected, Duration::from_secs(20)).err().unwrap();
    assert!(matches!(error, LinkError::Gone { .. }), "{error:?}");
    assert!(error.to_string().contains("no 32-bit RISC-V ELF file"), "{error}");
}

#[test]
fn an_impatient_host_names_the_limit() {
    if !available("an_impatient_host_names_the_limit") {
        return;
    }
    let error = link::simulate(open_firmware(), Waits::all(200), Duration::from_millis(1));
    let error = error.err().unwrap();
    assert!(matches!(error, LinkError::Timeout { .. }), "{error:?}");
    assert!(error.to_string().contains("--timeout"), "{error}");
}
