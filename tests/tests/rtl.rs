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
use jaq_deploy::oracle;
use jaq_deploy::single::{Single, Values};
use jaq_deploy::validate::{Ask, Device, Inference, Unit};
use jaq_network::{LayerSpec, Provenance};
use jaq_shared::format::{Bits, LayerBits, Requant};
use jaq_shared::kernels::KernelId;
use jaq_shared::runtime;

use random::{image, network, packed_for};

const BOARD: &str = "cv32e40p";
/// The same core, and the instructions that only it has.
const XPULP: &str = "cv32e40p-xpulp";

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

/// Cycles of a layer of 8 bits on a board, its output held to the wide-integer oracle's.
fn cycles(session: &mut Session, spec: &str) -> u64 {
    let layer: LayerSpec = spec.parse().unwrap();
    let layer = layer.shape(LayerBits::uniform(Bits::B8, Bits::B8)).unwrap();
    let mut total = 0;
    for values in Values::ALL {
        let single = Single::of(&layer, Requant::Wide, values, 3);
        let packed = single.pack(KernelId::Word).unwrap();
        let raw = single.input(5);
        session.open(&packed.bytes).unwrap();
        let found = session.infer(&raw, Ask::Layers).unwrap();
        let expected = oracle::infer(&single.trained, &single.integers, &raw);
        let engine = Engine::new(&packed.bytes).unwrap();
        let codes = runtime::codes(engine.output(), &found.output).map(i64::from);
        assert!(codes.eq(expected.last().unwrap().iter().copied()), "{spec}, {values:?}");
        total = found.layers.last().copied().unwrap();
    }
    total
}

#[test]
fn dot_products_of_bytes_equal_the_oracle_and_pay() {
    if !available("dot_products_of_bytes_equal_the_oracle_and_pay") {
        return;
    }
    let xpulp = firmware::build_open(XPULP).unwrap();
    let mut xpulp = link::simulate(&xpulp, Waits::default(), TIMEOUT).unwrap();
    // Channels of every remainder, windows at every edge, strides, groups that are not full.
    for spec in ["conv3x3:5x5x3-5", "conv3x3s2:7x5x2-4", "conv3x3:4x3x6-9", "pw:3x3x1-3"] {
        cycles(&mut xpulp, spec);
    }
    let spec = "conv3x3:6x6x16-16";
    let (fast, plain) = (cycles(&mut xpulp, spec), cycles(&mut session(Waits::default()), spec));
    assert!(fast * 3 < plain, "{fast} cycles with dot products, {plain} without");
    xpulp.bye().unwrap();
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
