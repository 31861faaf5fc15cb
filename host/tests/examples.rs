//! What lies in `examples/` is what the commands beside it make, and does what it is said to do.

mod command;

use std::fs;
use std::path::{Path, PathBuf};

use command::{json, text};
use serde_json::Value;

/// The shipped networks: run directories without checkpoints.
fn networks() -> Vec<PathBuf> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let folders = fs::read_dir(examples).unwrap().map(|entry| entry.unwrap().path());
    let mut networks: Vec<PathBuf> =
        folders.filter(|folder| folder.join("model.jaq").is_file()).collect();
    networks.sort();
    networks
}

/// Packing the trained network again gives the shipped file. After a change of the kernels'
/// packing: `jaq-host export --run examples/NAME`.
#[test]
fn examples_are_packed_for_todays_kernels() {
    assert!(!networks().is_empty());
    for network in networks() {
        let copy = tempfile::tempdir().unwrap();
        let from = |name: &str| network.join(name);
        fs::create_dir(copy.path().join("quantized")).unwrap();
        for name in ["run.json", "quantized/network.json", "quantized/tensors.safetensors"] {
            fs::copy(from(name), copy.path().join(name)).unwrap();
        }
        json(&["export", "--run", text(copy.path()), "--json"]);
        let again = fs::read(copy.path().join("model.jaq")).unwrap();
        let shipped = fs::read(from("model.jaq")).unwrap();
        assert!(again == shipped, "{}: export it again", network.display());
    }
}

/// The accuracy on the images that are shipped too is the one in the report beside the model.
#[test]
fn examples_reach_what_their_report_says() {
    for network in networks() {
        let report: Value =
            serde_json::from_slice(&fs::read(network.join("report.json")).unwrap()).unwrap();
        if !report["accuracy_data"].as_str().unwrap().contains("subset") {
            continue;
        }
        let model = network.join("model.jaq");
        let found = json(&["eval", text(&model), "--json"]);
        if found["images"] != report["accuracy_images"] {
            // The full test set is installed here and stands in for the shipped part.
            println!("SKIPPED {}: other test images here: {found}", network.display());
            continue;
        }
        assert_eq!(found["top1"], report["accuracy"]["integer"], "{}", network.display());
    }
}
