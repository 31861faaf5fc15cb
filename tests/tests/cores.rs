//! Every kernel on every emulated core against the wide-integer oracle: long reductions of extreme
//! values, random ones, every pair of widths.
//!
//! A core whose compiler target or emulator is missing is skipped aloud; with
//! `JAQ_REQUIRE_DEVICE=1`, as `cargo xtask test` sets it, that is a failure.

mod emulator;

use jaq_deploy::firmware::{self, TARGETS, Target};
use jaq_deploy::link::{self, Session, TIMEOUT};
use jaq_deploy::oracle;
use jaq_deploy::single::{Single, Values};
use jaq_deploy::validate::{Ask, Device};
use jaq_network::LayerSpec;
use jaq_shared::format::{Bits, LayerBits, LayerShape, Requant, TensorFormat};
use jaq_shared::kernels::candidates;
use jaq_shared::runtime::codes;

/// Reductions of 576, 1152 and 2304, windows and strides, channels nobody tuned for.
const LAYERS: [&str; 12] = [
    "conv3x3:3x3x64-5",
    "conv3x3:2x3x128-4",
    "conv3x3:2x2x256-3",
    "pw:1x9x1152-4",
    "pw:3x5x24-40",
    "conv5x3s2:7x8x3-10",
    "fc:2304-9",
    "dw3x3:5x7x20",
    "dw3x3s2:7x8x24",
    "dw5x5:6x6x8",
    "add:3x5x13",
    "avgpool3x3:6x6x13",
];

fn run(board: &str) {
    let target = firmware::target(board).unwrap();
    if let Some(reason) = emulator::missing(target) {
        emulator::skip(&format!("the kernels on {board}"), &reason);
        return;
    }
    let firmware = firmware::build_open(board).unwrap();
    let mut session = link::emulate(&firmware, TIMEOUT).unwrap();
    let full = std::env::var_os("JAQ_FULL").is_some();
    for (index, text) in LAYERS.iter().enumerate() {
        let spec: LayerSpec = text.parse().unwrap();
        let pairs = Bits::ALL.into_iter().flat_map(|w| Bits::ALL.map(|a| (w, a)));
        for (pair, (weight, input)) in pairs.enumerate() {
            let layer = spec.shape(LayerBits::uniform(weight, input)).unwrap();
            let requant = Requant::usual(layer.bits.output);
            for (number, values) in Values::ALL.into_iter().enumerate() {
                // Each pair of widths meets two of the six, over the layers all.
                if !full && (index + pair + number) % 3 != 0 {
                    continue;
                }
                check(&mut session, target, &layer, requant, values);
            }
        }
    }
    // From narrow codes, where scales may be above 1/2, in every form.
    let forms = [22, 26].map(|shift| Requant::General { shift });
    for text in ["dw3x3:5x7x20", "dw3x3s2:7x8x24", "dw5x5:6x6x8", "dw5x5s2:7x5x4", "pw:3x5x24-40"] {
        let spec: LayerSpec = text.parse().unwrap();
        for (weight, input) in [(Bits::B2, Bits::B2), (Bits::B4, Bits::B4), (Bits::B8, Bits::B2)] {
            for output in Bits::ALL {
                let layer = spec.shape(LayerBits { weight, input, output }).unwrap();
                let wide = (output == Bits::B8).then_some(Requant::Wide);
                for requant in [Requant::Narrow].into_iter().chain(wide).chain(forms) {
                    check(&mut session, target, &layer, requant, Values::Random);
                }
            }
        }
    }
    session.bye().unwrap();
}

/// One layer on the device against the oracle.
fn check(
    session: &mut Session,
    target: &Target,
    layer: &LayerShape,
    requant: Requant,
    values: Values,
) {
    let single = Single::of(layer, requant, values, 7);
    let raw = single.input(11);
    let kernel = candidates(layer, requant, target.isa).next().unwrap();
    session.open(&single.pack(kernel).unwrap().bytes).unwrap();
    let found = session.infer(&raw, Ask::Output).unwrap().output;
    let tensors = oracle::infer(&single.trained, &single.integers, &raw);
    let format = TensorFormat { shape: layer.output, bits: layer.bits.output };
    let found: Vec<i64> = codes(format, &found).map(i64::from).collect();
    let place = format!("{}: {layer:?} {requant:?} {values:?} by {kernel:?}", target.board);
    assert_eq!(&found, tensors.last().unwrap(), "{place}");
}

#[test]
fn cortex_m7_equals_the_oracle() {
    run("mps2-an500");
}

#[test]
fn cortex_m4_equals_the_oracle() {
    run("mps2-an386");
}

#[test]
fn cortex_m33_equals_the_oracle() {
    run("mps2-an505");
}

#[test]
fn cortex_m3_equals_the_oracle() {
    run("mps2-an385");
}

#[test]
fn cortex_m0_plus_equals_the_oracle() {
    run("mps2-an385-v6m");
}

#[test]
fn rv32imc_equals_the_oracle() {
    run("virt-rv32");
}

#[test]
fn inference_cannot_panic() {
    let mut triples = Vec::new();
    for target in TARGETS {
        if triples.contains(&target.triple) {
            continue;
        }
        triples.push(target.triple);
        if let Some(reason) = emulator::missing(target) {
            assert!(std::env::var_os("JAQ_REQUIRE_DEVICE").is_none(), "{reason}");
            eprintln!("SKIPPED inference_cannot_panic on {}: {reason}", target.triple);
            continue;
        }
        // With all kernels. It links only if no panic can be reached.
        let parts = firmware::product(target, None).unwrap_or_else(|error| panic!("{error}"));
        assert!(parts.kernels > 4096 && parts.harness < 8192, "{}: {parts:?}", target.triple);
    }
}

#[test]
fn every_emulated_core_is_tested() {
    let this = include_str!("cores.rs");
    for target in TARGETS.iter().filter(|target| target.machine.is_some()) {
        assert!(this.contains(&format!("run(\"{}\")", target.board)), "{}", target.board);
    }
}
