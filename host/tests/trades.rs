//! The search really trades: tighter limits give networks that are faster on the emulated core,
//! not only in the prediction. The smallest budget, so the accuracies are only for the eye.

mod command;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use command::json;

/// Limits in instructions: loose, middle, tight.
const LIMITS: [u64; 3] = [4_000_000, 2_200_000, 1_000_000];

/// Whether emulated boards can run here; says so where not.
fn emulates() -> bool {
    let tools = json(&["doctor", "--json"]);
    let missing: Vec<_> =
        tools.as_array().unwrap().iter().filter(|tool| tool["found"].is_null()).collect();
    if missing.is_empty() {
        return true;
    }
    let text = format!("SKIPPED tighter_limits_give_networks_that_run_faster: {missing:?}\n");
    assert!(std::env::var_os("JAQ_REQUIRE_DEVICE").is_none(), "{text}");
    // Past the capture of the test harness, so that a plain `cargo test` shows it.
    let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), text.as_bytes());
    false
}

#[test]
fn tighter_limits_give_networks_that_run_faster() {
    if !emulates() {
        return;
    }
    let mut table = String::from("limit      predicted   emulated  accuracy  widths of weights\n");
    let found = LIMITS.map(|limit| {
        let run = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("trades-{limit}"));
        let _ = fs::remove_dir_all(&run);
        let (run, limit_text) = (run.to_str().unwrap(), limit.to_string());
        let plan = ["run", "--board", "stm32h7", "--budget", "smoke", "--seed", "3"];
        let more = ["--images", "16", "--via", "qemu", "--json", "--run", run];
        let limits = ["--max-instructions", &limit_text];
        let report = json(&[plan.as_slice(), &more, &limits].concat());
        assert_eq!(
            (report["images_compared"].as_u64(), report["mismatches"].as_u64()),
            (Some(16), Some(0))
        );
        let predicted = report["predicted_total"].as_f64().unwrap();
        let emulated = report["observed_total"].as_f64().unwrap();
        let widths: BTreeSet<_> = report["layers"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|layer| layer["bits"].as_str()?.strip_prefix('W')?.chars().next())
            .collect();
        let accuracy = report["accuracy"]["integer"].as_f64().unwrap();
        table +=
            &format!("{limit:>9}{predicted:>11.0}{emulated:>11}{accuracy:>10.3}  {widths:?}\n");
        assert!(predicted <= limit as f64, "{table}");
        assert!(emulated <= 1.1 * limit as f64, "{table}");
        (predicted, emulated, widths)
    });
    println!("{table}");
    for pair in found.windows(2) {
        assert!(pair[0].0 > pair[1].0 && pair[0].1 > pair[1].1, "{table}");
    }
    assert!(found.iter().any(|(_, _, widths)| widths.len() > 1), "{table}");
}
