//! A search of a network together with its accelerator, as a user meets it: what it writes, what
//! other commands make of that, limits, and dry runs.

mod command;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use command::{fails, json, succeeds, text};

fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

/// A space of 16 accelerators, and one of small networks.
fn spaces(folder: &Path) -> (PathBuf, PathBuf) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let shipped = fs::read_to_string(root.join("boards/bitfusion-space.toml")).unwrap();
    let (head, rest) = shipped.split_once("[ranges]").unwrap();
    let (_, rest) = rest.split_once("[array]").unwrap();
    let ranges = "\"array.rows\" = [4, 16]\n\"array.columns\" = [4, 16]\n\
                  \"buffer.0.bytes\" = [8192, 65536]\n\"memory.bits_per_cycle\" = [64, 192]\n";
    let board = format!("{head}[ranges]\n{ranges}\n[array]{rest}");
    let boards = folder.join("few.toml");
    fs::write(&boards, board.replace("name = \"bitfusion-space\"", "name = \"few\"")).unwrap();
    let networks = folder.join("little.toml");
    let text = r#"
        name = "little"
        input = [28, 28, 1]
        weight_bits = [2, 4, 8]
        activation_bits = [2, 4, 8]
        stem = { kernel = 3, stride = 4, channels = 8 }
        head = { channels = 16 }
        [[stage]]
        blocks = 2
        channels = 12
        operators = ["bottleneck3e2", "fused3e2", "separable3", "skip"]
    "#;
    fs::write(&networks, text).unwrap();
    (boards, networks)
}

#[test]
fn an_accelerator_is_found_written_and_read_again() {
    let folder = scratch("accelerator");
    let (boards, networks) = spaces(&folder);
    let run = folder.join("run");
    let plan = ["search", "--board", text(&boards), "--space", text(&networks)];
    let plan = [&plan[..], &["--budget", "smoke", "--seed", "3"]].concat();
    let search = |run: &Path, more: &[&str]| -> Value {
        json(&[&plan[..], &["--stop-after", "search", "--json", "--run", text(run)], more].concat())
    };
    let found = search(&run, &[]);
    let hardware = &found["hardware"];
    assert_eq!(hardware["configurations"], 16);
    assert_eq!(hardware["above_optimum"], 0.0, "{hardware}");
    assert_eq!(hardware["found"]["simulator_agrees"], true);
    assert_eq!(hardware["found"]["simulated_cycles"], hardware["found"]["cycles"]);
    let edp = hardware["found"]["edp"].as_f64().unwrap();
    assert!(hardware["found"]["edp_best_schedule"].as_f64().unwrap() <= edp * (1.0 + 1e-9));
    assert!(hardware["timing"]["iterations"].as_u64().unwrap() > 0);
    // The board file is read by the commands that know nothing of the search.
    let chosen = run.join("chosen.json");
    let board = run.join("accelerator.toml");
    let cost = json(&[
        "cost",
        "--board",
        text(&board),
        "--network",
        text(&chosen),
        "--objective",
        "edp",
        "--json",
    ]);
    let [latency, energy] = ["latency_s", "energy_pj"].map(|key| cost[key].as_f64().unwrap());
    // The search prices layers; `cost` prices depthwise and pointwise ones as pairs where that is
    // cheaper.
    assert!(latency * energy <= edp * (1.0 + 1e-9), "{cost}");
    assert_eq!(cost["area_mm2"], hardware["found"]["area_mm2"]);
    let schedule: Value =
        serde_json::from_slice(&fs::read(run.join("schedule.json")).unwrap()).unwrap();
    let layers = schedule.as_array().unwrap();
    assert_eq!(layers.len(), found["chosen"]["network"]["layers"].as_array().unwrap().len());
    assert!(layers[0]["mapping"]["tile"].is_array());
    for alone in cost["layers"].as_array().unwrap().iter().filter(|l| l["mapping"].is_object()) {
        let same = layers.iter().find(|layer| layer["name"] == alone["name"]);
        assert_eq!(same.unwrap()["mapping"], alone["mapping"]);
    }

    // The same seed gives the same bytes; another way to search hardware gives a report on itself.
    let again = folder.join("again");
    search(&again, &[]);
    for file in ["chosen.json", "accelerator.toml", "schedule.json"] {
        assert_eq!(
            fs::read(run.join(file)).unwrap(),
            fs::read(again.join(file)).unwrap(),
            "{file}"
        );
    }
    let generated = search(&folder.join("generated"), &["--hardware", "generator"]);
    assert!(generated["hardware"]["above_optimum"].as_f64().unwrap() >= -1e-9);
    assert_eq!(generated["hardware"]["method"], "generator");

    // Time alone asks for a large accelerator; a limit on the area is obeyed; one that nothing
    // meets is named.
    let area = |name: &str, more: &[&str]| -> f64 {
        let words = [&["--objective", "latency"], more].concat();
        let found = search(&folder.join(name), &words);
        found["hardware"]["found"]["area_mm2"].as_f64().unwrap()
    };
    let (large, small) = (area("large", &[]), area("small", &["--lambda", "area=5000"]));
    assert!(small < large, "{small} {large}");
    let limit = (small + large) / 2.0;
    let limited = area("limited", &["--max-area-mm2", &limit.to_string()]);
    assert!(limited <= limit, "{limited} {limit}");
    let never = folder.join("never");
    let message = fails(&[&plan[..], &["--max-area-mm2", "0.001", "--run", text(&never)]].concat());
    assert!(message.contains("area") && message.contains("too much"), "{message}");
    let message = fails(
        &[&plan[..], &["--max-energy-uj", "1e-9", "--run", text(&folder.join("cold"))]].concat(),
    );
    assert!(message.contains("energy"), "{message}");
}

#[test]
fn dry_runs_estimate_every_shipped_space() {
    for (space, board, classes) in [("images-96", "bitfusion", 2), ("cifar-10", "stm32h7", 10)] {
        let found = json(&["search", "--dry-run", "--space", space, "--board", board, "--json"]);
        assert_eq!(found["classes"], classes);
        for key in ["cells", "parameter_bytes", "activation_bytes", "step_s", "hardware_s"] {
            assert!(found[key].as_f64().unwrap() > 0.0, "{space} {key}: {found}");
        }
        for range in found["costs"].as_array().unwrap() {
            let [least, mean, most] = ["least", "mean", "most"].map(|k| range[k].as_f64().unwrap());
            assert!(least < mean && mean < most, "{range}");
        }
    }
    let folder = scratch("dry");
    let (boards, networks) = spaces(&folder);
    let words =
        succeeds(&["search", "--dry-run", "--space", text(&networks), "--board", text(&boards)]);
    assert!(words.contains("16 configurations") && words.contains("hardware side"), "{words}");
}
