//! `--via probe` as a user meets it, through a virtual debug probe: one good deployment, its
//! recording and replay, and everything that can go wrong on a bench, each with its message and exit
//! code.
//!
//! Where the embedded target or QEMU is missing the tests say what they skip and why; with
//! `JAQ_REQUIRE_DEVICE=1`, as `cargo xtask test` sets it, that is a failure.

mod command;
#[path = "../../tests/tests/emulator/mod.rs"]
mod emulator;

use std::fs;
use std::path::{Path, PathBuf};

use jaq_deploy::firmware;
use jaq_tests::virtual_probe::{VirtualProbe, machines};
use serde_json::Value;

use command::{host, text};

const BOARD: &str = "mps2-an500";
/// The way to a device, and its exit codes: see `docs/devices.md`.
const UNREACHABLE: i32 = 3;
const REFUSED: i32 = 4;
const FAILED: i32 = 5;

fn available(test: &str) -> bool {
    let missing = emulator::missing(firmware::target(BOARD).unwrap());
    missing.iter().for_each(|reason| emulator::skip(test, reason));
    missing.is_none()
}

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/fashion-mnist-stm32h7/model.jaq")
}

/// Runs `deploy` with `probes` attached; exit code, stdout, and the error.
fn deploy(probes: &str, arguments: &[&str]) -> (i32, String, String) {
    let model = model();
    let mut words = vec!["deploy", "--via", "probe", "--model", text(&model), "--json"];
    if !arguments.contains(&"--board") {
        words.extend(["--board", BOARD]);
    }
    if arguments.contains(&"--session") {
        words.drain(1..3);
    }
    words.extend(arguments);
    let found = host(&words).env("JAQ_PROBES", probes).output().unwrap();
    let errors = String::from_utf8_lossy(&found.stderr).into_owned();
    assert!(!errors.contains("panicked"), "{errors}");
    let error = errors.find("error: ").map_or(String::new(), |at| errors[at..].to_owned());
    let code = found.status.code().unwrap_or(-1);
    (
        code,
        String::from_utf8_lossy(&found.stdout).into_owned(),
        format!("{error}{}", if code == 0 { errors } else { String::new() }),
    )
}

/// A deployment that must fail with an exit code and with words in its message.
fn fails(probes: &str, arguments: &[&str], code: i32, words: &[&str]) {
    let (found, _, error) = deploy(probes, arguments);
    assert_eq!(found, code, "{arguments:?}: {error}");
    assert!(words.iter().all(|word| error.contains(word)), "{words:?} in {error}");
}

/// A probe with a machine on it, and with faults.
fn probe(machine: &str, faults: &[&str]) -> VirtualProbe {
    let probe = VirtualProbe::start(machines::target(machine).unwrap()).unwrap();
    faults.iter().for_each(|fault| probe.order(fault.parse().unwrap()));
    probe
}

/// A board like one of ours with another chip.
fn board_with_chip(folder: &Path, board: &str, chip: &str) -> PathBuf {
    let boards = Path::new(env!("CARGO_MANIFEST_DIR")).join("../boards");
    let text = fs::read_to_string(boards.join(format!("{board}.toml"))).unwrap();
    let path = folder.join(format!("{board}.toml"));
    fs::write(&path, text.replace(&format!("\"jaq-{board}\""), &format!("\"{chip}\""))).unwrap();
    path
}

#[test]
fn a_model_is_deployed_recorded_and_replayed() {
    if !available("a_model_is_deployed_recorded_and_replayed") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session.jaqlog");
    let probe = probe(BOARD, &[]);
    let arguments = ["--probe", &probe.selector(), "--record", text(&path)];
    let (code, live, error) = deploy("", &arguments);
    assert_eq!(code, 0, "{error}");
    let live: Value = serde_json::from_str(&live).unwrap();
    assert_eq!((&live["board"], &live["via"]), (&BOARD.into(), &"probe".into()));
    // The core is an emulated one: nothing was measured.
    assert_eq!(live["provenance"], "emulated");
    assert!(live["stack_bytes"].as_u64().unwrap() > 0, "{live}");
    drop(probe);

    let (code, again, error) = deploy("", &["--session", text(&path)]);
    assert_eq!(code, 0, "{error}");
    let again: Value = serde_json::from_str(&again).unwrap();
    assert_eq!(again["via"], "replay");
    for field in ["board", "build", "provenance", "parts", "arena_bytes", "stack_bytes"] {
        assert_eq!(again[field], live[field], "{field}");
    }

    // Recordings that do not fit, or no longer.
    let good = fs::read_to_string(&path).unwrap();
    let replayed = |text_of: String, code, words: &[&str]| {
        fs::write(&path, text_of).unwrap();
        fails("", &["--session", text(&path)], code, words);
    };
    replayed(good.replacen("< ", "< 00", 1), UNREACHABLE, &["checksum", "session.jaqlog"]);
    replayed("nothing".into(), UNREACHABLE, &["no recorded session"]);
    let open: String =
        good.lines().filter(|l| !l.starts_with("end")).map(|l| format!("{l}\n")).collect();
    let build = live["build"].as_str().unwrap();
    let board = open.replacen(&format!("\"board\":\"{BOARD}\""), "\"board\":\"shelf\"", 1);
    replayed(board, REFUSED, &["board is mps2-an500, the host expects shelf"]);
    replayed(open.replacen(build, "b7", 1), REFUSED, &["build is", "expects b7"]);
    let cut: String = open.lines().take(5).map(|l| format!("{l}\n")).collect();
    replayed(cut, FAILED, &["the recording ends here"]);
}

#[test]
fn without_one_right_probe_there_is_a_way_out() {
    if !available("without_one_right_probe_there_is_a_way_out") {
        return;
    }
    fails("", &[], UNREACHABLE, &["no debug probe is attached", "--via qemu"]);
    let several = "1d50:6018:127.0.0.1:1, 1d50:6018:127.0.0.1:2";
    fails(several, &[], UNREACHABLE, &["several", "1d50:6018:127.0.0.1:2", "--probe"]);
    fails("", &["--probe", "the blue one"], UNREACHABLE, &["the blue one", "VID:PID"]);
    let nobody = "1d50:6018:127.0.0.1:1";
    fails("", &["--probe", nobody], UNREACHABLE, &["nothing answers at 127.0.0.1:1"]);
    fails("", &["--probe", nobody, "--timeout", "0"], 1, &["--timeout"]);
    let folder = tempfile::tempdir().unwrap();
    let path = board_with_chip(folder.path(), BOARD, "STM32H999ZZ");
    fails(nobody, &["--board", text(&path)], REFUSED, &["STM32H999ZZ", "links.probe"]);
}

#[test]
fn a_chip_that_is_not_the_right_one_is_refused() {
    if !available("a_chip_that_is_not_the_right_one_is_refused") {
        return;
    }
    let other = probe("mps2-an386", &[]);
    // One probe that is present needs no selector.
    fails(&other.selector(), &[], REFUSED, &["cortex-m7", "cortex-m4", "--board"]);
    drop(other);
    let dead = probe(BOARD, &["wrong-ack"]);
    fails(&dead.selector(), &[], UNREACHABLE, &["no chip answers", "power"]);
    drop(dead);
    let folder = tempfile::tempdir().unwrap();
    let path = board_with_chip(folder.path(), "mps2-an386", "nRF52840_xxAA");
    let locked = probe("mps2-an386", &["locked"]);
    let words = ["locked", "nRF52840_xxAA", "--allow-erase-all"];
    fails(&locked.selector(), &["--board", text(&path)], REFUSED, &words);
}

#[test]
fn a_bad_day_ends_with_one_clear_message() {
    if !available("a_bad_day_ends_with_one_clear_message") {
        return;
    }
    for (fault, words) in [
        ("silence", &["does not answer", "waited 1.5 s while attaching"][..]),
        ("bad-cell", &["the flash does not hold what was written"]),
        ("drop@30", &["the connection to the chip broke"]),
        ("reset@60", &["the chip was reset"]),
        ("lost@60", &["the connection to the chip broke"]),
        ("freeze@60", &["waited 1.5 s", "pc 0x"]),
    ] {
        let probe = probe(BOARD, &[fault]);
        fails(&probe.selector(), &["--timeout", "1.5"], FAILED, words);
    }
}
