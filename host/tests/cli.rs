//! The command line as a user meets it: one run of the smallest budget, then everything that can
//! be wrong with what it reads. Needs no device.

mod command;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use command::{fails, host, succeeds, text};

fn search(run: &Path) -> Vec<String> {
    let run = text(run);
    ["search", "--board", "stm32h7", "--budget", "smoke", "--seed", "3", "--json", "--run", run]
        .map(str::to_owned)
        .to_vec()
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// A finished run of the smallest budget, made once.
fn finished() -> &'static Path {
    static RUN: OnceLock<PathBuf> = OnceLock::new();
    RUN.get_or_init(|| {
        let run = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-finished");
        let _ = fs::remove_dir_all(&run);
        let json: Value = serde_json::from_str(&succeeds(&words(&search(&run)))).unwrap();
        assert!(json["weights_bytes"].as_u64().unwrap() > 0, "{json}");
        run
    })
}

fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn killed_search_ends_with_the_same_model() {
    let run = scratch("cli-killed");
    let arguments = search(&run);
    let mut child =
        host(&words(&arguments)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Killed as soon as there is something to resume from, wherever it then is.
    let started = Instant::now();
    let checkpoint = |path: &Path| {
        fs::read_dir(path.join("search")).is_ok_and(|mut files| {
            files.any(|f| f.is_ok_and(|f| f.path().extension().is_some_and(|e| e == "safetensors")))
        })
    };
    while !checkpoint(&run) && started.elapsed() < Duration::from_secs(240) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(checkpoint(&run), "no checkpoint was written");
    assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be killed");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!run.join("model.jaq").exists());

    succeeds(&words(&arguments));
    for file in ["chosen.json", "prediction.json", "model.jaq"] {
        let (a, b) = (fs::read(run.join(file)).unwrap(), fs::read(finished().join(file)).unwrap());
        assert!(a == b, "{file} differs from that of the uninterrupted run");
    }
}

#[test]
fn steps_can_be_repeated_alone() {
    let run = finished();
    let before = fs::read(run.join("model.jaq")).unwrap();
    succeeds(&["export", "--run", text(run)]);
    assert_eq!(fs::read(run.join("model.jaq")).unwrap(), before);
    let json = succeeds(&["inspect", text(&run.join("model.jaq")), "--json"]);
    let model: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(model["board"], "stm32h7");
    let layers = model["layers"].as_array().unwrap();
    let prediction: Value =
        serde_json::from_slice(&fs::read(run.join("prediction.json")).unwrap()).unwrap();
    assert_eq!(prediction["layers"].as_array().unwrap().len(), layers.len() + 1);
    let json = succeeds(&["eval", text(&run.join("model.jaq")), "--images", "200", "--json"]);
    let eval: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(eval["images"], 200);
    assert!(eval["top1"].as_f64().unwrap() > 0.15, "no better than chance: {eval}");
}

#[test]
fn retrainings_of_other_kinds_stand_beside_the_usual_one() {
    let run = finished();
    let before = fs::read(run.join("model.jaq")).unwrap();
    let train = |more: &[&str]| -> Value {
        let usual = ["retrain", "--run", text(run), "--json"];
        serde_json::from_str(&succeeds(&[&usual[..], more].concat())).unwrap()
    };
    let taught = train(&["--teacher", "supernet", "--integer-epochs", "1"]);
    assert_eq!(taught["variant"], "supernet-supernet-integer1");
    assert!(taught["float"].is_null());
    // What was trained by the integers' roundings is what the integers do.
    let accuracy = |key: &str| taught[key].as_f64().unwrap();
    let apart = accuracy("integer") - taught["quantized"]["top1"].as_f64().unwrap();
    assert!(apart.abs() < 0.01, "{taught}");
    let alone = train(&["--from", "scratch", "--teacher", "none"]);
    assert!(run.join("model-scratch-none.jaq").is_file());
    assert!(alone["integer"].as_f64().unwrap() < accuracy("integer"), "{alone} {taught}");
    assert_eq!(fs::read(run.join("model.jaq")).unwrap(), before);
    let message = fails(&["retrain", "--run", text(run), "--integer-epochs", "99"]);
    assert!(message.contains("99") && message.contains("smoke"), "{message}");
}

#[test]
fn damaged_models_are_refused_by_name() {
    let good = fs::read(finished().join("model.jaq")).unwrap();
    let folder = scratch("cli-damaged");
    let path = folder.join("bad.jaq");
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let message = fails(&["eval", text(&path)]);
        assert!(message.contains("bad.jaq"), "{message}");
        assert_eq!(fails(&["inspect", text(&path)]), message);
        message
    };
    assert!(refused(&good[..good.len() / 2]).contains("truncated"));
    assert!(refused(&good[..5]).contains("truncated"));
    assert!(refused(b"").contains("truncated"));
    let mut flipped = good.clone();
    flipped[good.len() * 2 / 3] ^= 4;
    assert!(refused(&flipped).contains("damaged"));
    let mut newer = good.clone();
    newer[4] = 9;
    let message = refused(&newer);
    assert!(message.contains("version 9") && message.contains("version 1"), "{message}");
    assert!(refused(b"GIF89a, and more than thirty-two bytes of it").contains("JAQ"));
    let missing = fails(&["eval", text(&folder.join("none.jaq"))]);
    assert!(missing.contains("none.jaq"), "{missing}");
}

#[test]
fn boards_that_cannot_be_are_named() {
    let folder = scratch("cli-boards");
    let run = folder.join("run");
    let search = |board: &str| {
        let message =
            fails(&["search", "--board", board, "--budget", "smoke", "--run", text(&run)]);
        assert!(!run.join("chosen.json").exists());
        message
    };
    let unknown = search("stm32x1");
    assert!(unknown.contains("stm32x1") && unknown.contains("stm32h7"), "{unknown}");

    let shipped =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("boards/stm32h7.toml");
    let toml = fs::read_to_string(shipped).unwrap().replace("\"stm32h7\"", "\"tiny\"");
    let path = folder.join("tiny.toml");
    assert!(toml.contains("size = 524288"));
    fs::write(&path, toml.replace("size = 524288", "size = 1024")).unwrap();
    let small = search(text(&path));
    assert!(small.contains("RAM") && small.contains("too much"), "{small}");
    fs::write(&path, toml.replace("size = 524288", "size = \"large\"")).unwrap();
    let wrong = search(text(&path));
    assert!(wrong.contains("tiny.toml") && wrong.contains("size"), "{wrong}");
}

#[test]
fn limits_that_cannot_be_met_are_named_with_the_difference() {
    let run = scratch("cli-limits").join("run");
    for (option, value, word) in
        [("--max-instructions", "1000", "instructions"), ("--max-flash-kb", "1", "flash")]
    {
        let _ = fs::remove_dir_all(&run);
        let message = fails(&["search", "--budget", "smoke", option, value, "--run", text(&run)]);
        assert!(message.contains(word) && message.contains("too much"), "{message}");
    }
}

#[test]
fn missing_data_and_unwritable_runs_are_named() {
    let folder = scratch("cli-data");
    let run = folder.join("run");
    let found = host(&["search", "--data", "cifar-10", "--run", text(&run)])
        .env("JAQ_DATA", &folder)
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&found.stderr).into_owned();
    assert_eq!(found.status.code(), Some(1), "{message}");
    assert!(message.contains("jaq-host data get cifar-10"), "{message}");
    assert!(!run.exists());
    let message = fails(&["search", "--data", "no-such-set", "--run", text(&run)]);
    assert!(message.contains("no-such-set"), "{message}");

    // A file where the directory should be: refused by every user, root too.
    fs::write(&run, "mine").unwrap();
    let message = fails(&["search", "--budget", "smoke", "--run", text(&run)]);
    assert!(message.contains("--run") || message.contains("cannot"), "{message}");
    assert_eq!(fs::read_to_string(&run).unwrap(), "mine");
}

#[test]
fn a_run_with_other_settings_is_not_overwritten() {
    let run = finished();
    let before = fs::read(run.join("run.json")).unwrap();
    let message = fails(&["search", "--budget", "smoke", "--seed", "4", "--run", text(run)]);
    assert!(message.contains("seed is 3 there, 4 now"), "{message}");
    assert_eq!(fs::read(run.join("run.json")).unwrap(), before);
    let message = fails(&["export", "--run", text(&run.join("nothing"))]);
    assert!(message.contains("jaq-host search"), "{message}");
}

#[test]
fn lists_are_json() {
    for command in ["boards", "data", "doctor"] {
        let json: Value = serde_json::from_str(&succeeds(&[command, "--json"])).unwrap();
        assert!(!json.as_array().unwrap().is_empty(), "{command}");
    }
}

#[test]
fn layers_blocks_and_networks_are_priced() {
    let cost = |arguments: &[&str]| -> Value {
        serde_json::from_str(&succeeds(&[&["cost", "--json", "--board"], arguments].concat()))
            .unwrap()
    };
    let layer = cost(&["bitfusion", "--layer", "conv3x3:16x16x32-32", "--bits", "W2A8"]);
    for key in ["cycles", "energy_pj", "area_mm2", "mappings_evaluated"] {
        assert!(layer[key].as_f64().unwrap() > 0.0, "{key}: {layer}");
    }
    assert!(layer["mapping"]["tile"].is_array() && layer["bytes"]["memory"].is_u64());
    assert_eq!(layer["provenance"], "predicted");
    let network = cost(&["ethos-u55-128", "--network", "dscnn", "--bits", "W7A8"]);
    let layers = network["layers"].as_array().unwrap();
    let sum: f64 = layers.iter().map(|l| l["cycles"].as_f64().unwrap()).sum();
    assert_eq!(network["cycles"].as_f64().unwrap(), sum);
    assert_eq!(layers[1]["bits"], "W7A8");
    let board = cost(&["stm32h7", "--layer", "dw3x3:16x16x64+pw:16x16x64-64", "--bits", "W2A4"]);
    assert!(board["instructions"].as_f64().unwrap() > 0.0);
    assert!(board["cycles_low"].as_f64() < board["cycles_high"].as_f64());
    assert_eq!(board["layers"].as_array().unwrap().len(), 2);
    let message = fails(&["cost", "--board", "stm32h7", "--layer", "pw:4x4x8-8", "--bits", "W5A8"]);
    assert!(message.contains("stm32h7") && message.contains("2, 3, 4 and 8"), "{message}");
}
