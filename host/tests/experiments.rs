//! `ablate`, `sweep` and `fidelity` as a user meets them, on synthetic images and a space of three
//! sections: seconds each. Needs no device.

mod command;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use command::{fails, host, json, succeeds, text};
use serde_json::Value;

/// Four classes of 28x28 images: a bright bar at one of four heights, on noise; as IDX files.
fn images(folder: &Path, prefix: &str, count: usize) {
    let header = |kind: u8, sizes: &[usize]| -> Vec<u8> {
        let sizes = sizes.iter().flat_map(|n| (*n as u32).to_be_bytes());
        [0, 0, 8, kind].into_iter().chain(sizes).collect()
    };
    let noise = |i: usize| ((i.wrapping_mul(2_654_435_761) >> 7) % 90) as u8;
    let pixel = |i: usize, p: usize| {
        let (row, class) = (p / 28, i % 4);
        let bar = (row / 7 == class) as u8;
        noise(i * 784 + p) + 120 * bar
    };
    let pixels = (0..count).flat_map(|i| (0..784).map(move |p| pixel(i, p)));
    let write = |name: &str, bytes: Vec<u8>| {
        fs::write(folder.join(format!("{prefix}-{name}-ubyte")), bytes).unwrap();
    };
    write("images-idx3", header(3, &[count, 28, 28]).into_iter().chain(pixels).collect());
    let labels = (0..count).map(|i| (i % 4) as u8);
    write("labels-idx1", header(1, &[count]).into_iter().chain(labels).collect());
}

const SPACE: &str = r#"
name = "tiny"
input = [28, 28, 1]
weight_bits = [2, 4, 8]
activation_bits = [2, 4, 8]
stem = { kernel = 3, stride = 4, channels = 8 }
head = { channels = 16 }
[[stage]]
blocks = 1
stride = 2
channels = 8
operators = ["separable3", "bottleneck3e2", "fused3e2"]
"#;

/// Data, space, and the options that name them with a budget of seconds.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        images(folder.path(), "train", 256);
        images(folder.path(), "test", 80);
        fs::write(folder.path().join("space.toml"), SPACE).unwrap();
        Bench { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, words: &[&str], run: &str) -> Vec<String> {
        let common = ["--data", text(self.folder.path()), "--budget", "smoke"];
        let more = ["--warmup-epochs", "1", "--search-epochs", "2", "--threads", "1", "--json"];
        let (space, run) = (self.path("space.toml"), self.path(run));
        let own = ["--space", text(&space), "--run", text(&run)];
        [words, &common, &more, &own].concat().into_iter().map(str::to_owned).collect()
    }
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

fn named<'a>(rows: &'a Value, method: &str) -> &'a Value {
    rows.as_array().unwrap().iter().find(|row| row["method"] == method).unwrap()
}

/// Files of a run directory that say what was found, without times.
fn findings(run: &Path) -> Vec<(String, Vec<u8>)> {
    let mut cells: Vec<PathBuf> =
        fs::read_dir(run.join("cells")).unwrap().map(|e| e.unwrap().path()).collect();
    cells.sort();
    let model = |cell: PathBuf| {
        let name = cell.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read(cell.join("model.jaq")).unwrap_or_default())
    };
    cells.into_iter().map(model).collect()
}

#[test]
fn a_killed_ablation_goes_on_to_the_same_models() {
    let bench = Bench::new();
    let methods = "co-search,random,sequential,csq50,uniform2";
    let ablate = ["ablate", "--methods", methods, "--seeds", "1"];
    let whole = bench.command(&ablate, "whole");
    let rows = json(&words(&whole));
    assert_eq!(rows.as_array().unwrap().len(), 5);
    let images = |method: &str| named(&rows, method)["images_total"].as_u64().unwrap();
    let joint = images("co-search");
    assert!(joint > 0 && images("sequential") == joint && images("csq50") == joint, "{rows}");
    // As many images, in whole judgements, at least two of them.
    let judged = named(&rows, "random")["images"]["evaluation"].as_u64().unwrap();
    assert!(judged > 0 && images("random") <= joint + judged, "{rows}");
    assert_eq!(named(&rows, "uniform2")["mean_weight_bits"]["value"], 2.0);
    assert!(named(&rows, "random")["against_co_search"]["value"].is_number(), "{rows}");
    for file in ["table.json", "table.md", "table.csv", "accuracy.svg"] {
        assert!(bench.path("whole").join(file).is_file(), "{file}");
    }

    let killed = bench.command(&ablate, "killed");
    let mut child =
        host(&words(&killed)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (started, second) = (Instant::now(), bench.path("killed/cells/random-seed1"));
    while !second.exists() && started.elapsed() < Duration::from_secs(240) {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(second.exists() && !bench.path("killed/table.json").exists());
    assert_eq!(json(&words(&killed)).as_array().unwrap().len(), 5);
    assert_eq!(findings(&bench.path("killed")), findings(&bench.path("whole")));

    // Finished: nothing is made again, and other settings do not overwrite it.
    assert_eq!(json(&words(&whole)), rows);
    let mut other = whole.clone();
    other[words(&whole).iter().position(|w| *w == "2").unwrap()] = "3".to_owned();
    assert!(fails(&words(&other)).contains("other settings"), "{}", fails(&words(&other)));
}

#[test]
fn a_sweep_draws_the_front_of_its_targets() {
    let bench = Bench::new();
    let sweep = ["sweep", "--instructions", "200000,150000", "--methods", "co-search,evolution"];
    let points = json(&words(&bench.command(&sweep, "sweep")));
    let points = points.as_array().unwrap();
    assert_eq!(points.len(), 4, "{points:?}");
    for point in points {
        let target = point["target"].as_str().unwrap().trim_start_matches('i');
        let limit: f64 = target.parse().unwrap();
        assert!(point["instructions"].as_f64().unwrap() * 1e6 <= limit, "{point}");
    }
    assert!(points.iter().any(|point| point["on_front"] == true));
    let run = bench.path("sweep");
    assert!(fs::read_to_string(run.join("front.svg")).unwrap().contains("evolution"));
    // One warm-up and one supernet for all points.
    assert_eq!(fs::read_dir(run.join("seed1")).unwrap().count(), 2);
    let message = fails(&["sweep", "--run", text(&bench.path("none"))]);
    assert!(message.contains("--latency-ms"), "{message}");
}

#[test]
fn fidelity_correlates_supernets_with_networks_alone() {
    let bench = Bench::new();
    let command = bench.command(&["fidelity", "--networks", "6"], "fidelity");
    let report = json(&words(&command));
    assert_eq!(report["networks"].as_array().unwrap().len(), 6);
    let supernets = report["supernets"].as_array().unwrap();
    let names: Vec<&str> = supernets.iter().map(|s| s["quantized"].as_str().unwrap()).collect();
    assert_eq!(names, ["csq-ranked", "csq-random", "everything"]);
    for supernet in supernets {
        for figure in ["kendall", "spearman"] {
            let of = |key: &str| supernet[figure][key].as_f64().unwrap();
            assert!(-1.0 <= of("low") && of("low") <= of("high") && of("high") <= 1.0);
        }
    }
    assert_ne!(supernets[0]["accuracy"], supernets[1]["accuracy"]);
    assert_eq!(json(&words(&command)), report);
    assert!(bench.path("fidelity").join("fidelity.svg").is_file());
    assert!(succeeds(&["fidelity", "--help"]).contains("CSQ"));
    assert!(fails(&["fidelity", "--networks", "1"]).contains("3 networks"));
}
