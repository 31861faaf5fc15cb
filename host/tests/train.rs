//! `jaq-host train` as a user meets it: on a folder of the user's own, continued, and ended by what
//! can be wrong with what it is given. Needs no device.

mod command;

use std::fs;
use std::path::Path;

use command::{fails, json, text};
use serde_json::Value;

/// Images in CIFAR-10's layout whose class is their brightness.
fn batch(path: &Path, images: usize) {
    let row = |i: usize| {
        let label = (i % 10) as u8;
        let pixel = move |p: usize| label * 25 + ((p * 7 + i * 13) % 11) as u8;
        [label].into_iter().chain((0..3072).map(pixel))
    };
    fs::write(path, (0..images).flat_map(row).collect::<Vec<u8>>()).unwrap();
}

#[test]
fn images_of_the_users_own_become_models() {
    let dir = tempfile::tempdir().unwrap();
    let (data, run) = (dir.path().join("mine"), dir.path().join("run"));
    fs::create_dir(&data).unwrap();
    batch(&data.join("data_batch_1.bin"), 256);
    batch(&data.join("test_batch.bin"), 40);
    let command = [
        &["train", "--network", "resnet8", "--data", text(&data), "--epochs", "6"][..],
        &["--bits", "W8A8,W4A4", "--run", text(&run), "--json"],
    ]
    .concat();
    let report = json(&command);
    let models = report["models"].as_array().unwrap();
    assert_eq!(models.len(), 2);
    for (model, bits) in models.iter().zip(["w8a8", "w4a4"]) {
        let file = run.join(format!("{bits}.jaq"));
        let eval = json(&["eval", text(&file), "--data", text(&data), "--json"]);
        assert_eq!((&eval["top1"], &eval["images"]), (&model["top1"], &Value::from(40)));
        let apart = model["top1"].as_f64().unwrap() - model["simulated"].as_f64().unwrap();
        assert!(apart.abs() <= 0.05, "{model}");
        let log = fs::read(run.join(bits).join("log.json")).unwrap();
        let log: Vec<Value> = serde_json::from_slice(&log).unwrap();
        assert_eq!(log.len(), if bits == "w8a8" { 1 } else { 4 });
    }
    // Half the weights' bits, and as many tables.
    let bytes = |i: usize| models[i]["weights_bytes"].as_u64().unwrap();
    assert!(bytes(1) * 10 < bytes(0) * 7, "{} {}", bytes(0), bytes(1));
    // The same command finds everything done; other settings do not overwrite it.
    assert_eq!(json(&command), report);
    let other = [&command[..], &["--seed", "2"]].concat();
    assert!(fails(&other).contains("seed is 1 there"), "{}", fails(&other));
}

#[test]
fn what_cannot_be_trained_is_named() {
    let subset = ["train", "--data", "fashion-mnist-subset"];
    let message = fails(&subset);
    assert!(message.contains("32x32x3") && message.contains("28x28x1"), "{message}");
    let with = |more: &[&'static str]| fails(&[&subset[..], more].concat());
    assert!(with(&["--network", "resnet9"]).contains("resnet8, mobilenetv1-0.25-96"));
    let dir = tempfile::tempdir().unwrap();
    batch(&dir.path().join("data_batch_1.bin"), 20);
    batch(&dir.path().join("test_batch.bin"), 10);
    let run = dir.path().join("run");
    let mine = ["train", "--data", text(dir.path()), "--run", text(&run)];
    let message = fails(&[&mine[..], &["--bits", "W4A4:O8"]].concat());
    assert!(message.contains("W4A4:O8"), "{message}");
    if cfg!(not(feature = "tch")) {
        let message = fails(&[&mine[..], &["--backend", "tch"]].concat());
        assert!(message.contains("--features tch"), "{message}");
    }
    let mut bytes = fs::read(dir.path().join("test_batch.bin")).unwrap();
    bytes[0] = 77;
    fs::write(dir.path().join("test_batch.bin"), bytes).unwrap();
    assert!(fails(&mine).contains("label is 77"), "{}", fails(&mine));
}
