//! The cost tables against every emulated core, on layers that no table was fitted to.
//!
//! A core whose compiler target or emulator is missing is skipped aloud; with
//! `JAQ_REQUIRE_DEVICE=1`, as `cargo xtask test` sets it, that is a failure.

mod emulator;

use jaq_cost::calibrate::Subject;
use jaq_cost::corpus::fresh;
use jaq_cost::{Mcu, McuModel, fit};
use jaq_deploy::count::count;
use jaq_deploy::firmware;
use jaq_deploy::link::{self, TIMEOUT};

/// Layers of a core; `cargo xtask bench cost --mcu` takes any number of any seed.
const LAYERS: usize = 40;
/// Largest median and worst relative error.
const LIMITS: (f64, f64) = (0.03, 0.10);

fn holds(board: &str) {
    let target = firmware::target(board).unwrap();
    if let Some(reason) = emulator::missing(target) {
        emulator::skip(&format!("the cost table on {board}"), &reason);
        return;
    }
    let model = McuModel::new(Mcu::load(board).unwrap()).unwrap();
    let firmware = firmware::build_open(board).unwrap();
    let mut session = link::emulate(&firmware, TIMEOUT).unwrap();
    let (mut predicted, mut observed, mut worst) = (Vec::new(), Vec::new(), String::new());
    let mut most = 0.0;
    for (index, layer) in fresh(model.isa(), 0xf2e5, LAYERS).iter().enumerate() {
        let [run, _] = count(&mut session, layer, model.isa(), index as u64).unwrap();
        assert!(matches!(run.subject, Subject::Layer(..)) && run.count > 0);
        let found = model.predict(&run.subject).unwrap().counted;
        let error = (found / run.count as f64 - 1.0).abs();
        if error > most {
            most = error;
            let (spec, bits) = (run.subject.spec(), run.subject.bits());
            worst = format!("{spec} {bits}: {} counted, {found:.0} predicted", run.count);
        }
        predicted.push(found);
        observed.push(run.count as f64);
    }
    session.bye().unwrap();
    let errors = fit::errors(&predicted, &observed);
    assert!(errors.0 <= LIMITS.0 && errors.1 <= LIMITS.1, "{board}: {errors:?}, {worst}");
}

#[test]
fn cortex_m7() {
    holds("mps2-an500");
}

#[test]
fn cortex_m4() {
    holds("mps2-an386");
}

#[test]
fn cortex_m0plus() {
    holds("mps2-an385-v6m");
}

#[test]
fn rv32() {
    holds("virt-rv32");
}
