//! Outcomes of cells as a table: means over seeds with intervals, and the difference to the
//! co-search by seed. As JSON, Markdown and CSV.

use std::fmt::Write as _;

use jaq_search::statistics::{Estimate, mean};
use serde::Serialize;

use super::cell::{Figures, Outcome};

/// A method (at a target) over all its seeds.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub method: String,
    pub target: String,
    pub seeds: Vec<u64>,
    /// Why a seed has no network, the first of them.
    pub problem: Option<String>,
    /// On the integer engine.
    pub accuracy: Option<Estimate>,
    /// Accuracy less that of the co-search at the same seed and target.
    pub against_co_search: Option<Estimate>,
    pub instructions: Option<Estimate>,
    pub latency_ms: Option<Estimate>,
    pub weights_bytes: Option<Estimate>,
    pub arena_bytes: Option<Estimate>,
    pub mean_weight_bits: Option<Estimate>,
    pub search_seconds: Option<Estimate>,
    pub search_peak_bytes: Option<Estimate>,
    /// Images seen by one run, by purpose.
    pub images: jaq_search::baselines::Images,
    pub images_total: u64,
}

/// Rows in the order in which methods and targets first occur.
pub fn rows(outcomes: &[Outcome]) -> Vec<Row> {
    let mut keys: Vec<(&str, &str)> = Vec::new();
    for outcome in outcomes {
        let key = (&*outcome.method, &*outcome.target);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.into_iter().map(|key| row(outcomes, key)).collect()
}

fn row(outcomes: &[Outcome], (method, target): (&str, &str)) -> Row {
    let of = |m: &str| -> Vec<&Outcome> {
        outcomes.iter().filter(|o| o.method == m && o.target == target).collect()
    };
    let own = of(method);
    let figures = |get: &dyn Fn(&Figures) -> Option<f64>| {
        let all: Vec<f64> = own.iter().filter_map(|o| o.figures.as_ref()).filter_map(get).collect();
        mean(&all)
    };
    let reference = of("co-search");
    let against: Vec<f64> = own
        .iter()
        .filter_map(|o| {
            let twin = reference.iter().find(|r| r.seed == o.seed)?;
            Some(o.figures.as_ref()?.accuracy - twin.figures.as_ref()?.accuracy)
        })
        .collect();
    let images = own.first().map(|o| o.images).unwrap_or_default();
    Row {
        method: method.to_owned(),
        target: target.to_owned(),
        seeds: own.iter().map(|o| o.seed).collect(),
        problem: own.iter().find_map(|o| o.problem.clone()),
        accuracy: figures(&|f| Some(f.accuracy)),
        against_co_search: if method == "co-search" { None } else { mean(&against) },
        instructions: figures(&|f| Some(f.instructions)),
        latency_ms: figures(&|f| Some(f.latency_s? * 1e3)),
        weights_bytes: figures(&|f| Some(f.weights_bytes as f64)),
        arena_bytes: figures(&|f| Some(f.arena_bytes as f64)),
        mean_weight_bits: figures(&|f| Some(f.mean_weight_bits)),
        search_seconds: figures(&|f| f.search_seconds),
        search_peak_bytes: figures(&|f| Some(f.search_peak_bytes? as f64)),
        images,
        images_total: images.total(),
    }
}

const HEADER: [&str; 11] = [
    "method",
    "accuracy [95 % t interval]",
    "less co-search, by seed",
    "instructions, M",
    "latency, ms",
    "weights and tables, KB",
    "arena, KB",
    "bits a weight",
    "images seen, k",
    "search, s",
    "peak, MB",
];

fn cells(row: &Row) -> [String; 11] {
    let plain = |e: &Option<Estimate>, scale: f64, digits: usize| {
        e.map_or("".to_owned(), |e| format!("{:.digits$}", e.value * scale))
    };
    let interval = |e: &Estimate, scale: f64| {
        let [low, value, high] = [e.low, e.value, e.high].map(|v| v * scale);
        match e.samples {
            1 => format!("{value:.2}"),
            _ => format!("{value:.2} [{low:.2}, {high:.2}]"),
        }
    };
    let name = match row.target.is_empty() {
        true => row.method.clone(),
        false => format!("{} at {}", row.method, row.target),
    };
    let accuracy = match (&row.accuracy, &row.problem) {
        (Some(e), None) => format!("{} %", interval(e, 100.0)),
        (Some(e), Some(_)) => format!("{} %, {} seeds only", interval(e, 100.0), e.samples),
        (None, problem) => problem.clone().unwrap_or_default(),
    };
    [
        name,
        accuracy,
        row.against_co_search.map_or("".to_owned(), |e| interval(&e, 100.0)),
        plain(&row.instructions, 1e-6, 3),
        plain(&row.latency_ms, 1.0, 2),
        plain(&row.weights_bytes, 1.0 / 1024.0, 1),
        plain(&row.arena_bytes, 1.0 / 1024.0, 1),
        plain(&row.mean_weight_bits, 1.0, 2),
        format!("{:.0}", row.images_total as f64 / 1e3),
        plain(&row.search_seconds, 1.0, 0),
        plain(&row.search_peak_bytes, 1e-6, 0),
    ]
}

/// The table in Markdown.
pub fn markdown(rows: &[Row]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&HEADER.map(str::to_owned)) + &"|---".repeat(HEADER.len()) + "|\n";
    rows.iter().for_each(|row| text += &line(&cells(row)));
    text
}

/// Every outcome, one a line.
pub fn csv(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "method,target,seed,accuracy,simulated,instructions,latency_s,weights_bytes,arena_bytes,mean_weight_bits,search_seconds,search_peak_bytes,images_warm_up,images_weights,images_architecture,images_evaluation,images_retraining\n",
    );
    for outcome in outcomes {
        let number = |get: &dyn Fn(&Figures) -> Option<f64>| {
            let value = outcome.figures.as_ref().and_then(get);
            value.map_or(String::new(), |v| v.to_string())
        };
        let figures = [
            number(&|f| Some(f.accuracy)),
            number(&|f| Some(f.simulated)),
            number(&|f| Some(f.instructions)),
            number(&|f| f.latency_s),
            number(&|f| Some(f.weights_bytes as f64)),
            number(&|f| Some(f.arena_bytes as f64)),
            number(&|f| Some(f.mean_weight_bits)),
            number(&|f| f.search_seconds),
            number(&|f| Some(f.search_peak_bytes? as f64)),
        ];
        let i = &outcome.images;
        let images = [i.warm_up, i.weights, i.architecture, i.evaluation, i.retraining];
        let images = images.map(|n| n.to_string()).join(",");
        let Outcome { method, target, seed, .. } = outcome;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{method},{target},{seed},{},{images}", figures.join(","));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use jaq_search::baselines::Images;

    fn outcome(method: &str, seed: u64, accuracy: Option<f64>) -> Outcome {
        let figures = accuracy.map(|accuracy| Figures {
            accuracy,
            simulated: accuracy,
            test_images: 100,
            instructions: 2e6,
            latency_s: Some(5e-3),
            weights_bytes: 2048,
            arena_bytes: 1024,
            mean_weight_bits: 4.0,
            search_seconds: Some(3.0),
            search_peak_bytes: None,
        });
        let problem = accuracy.is_none().then(|| "too much".to_owned());
        let images = Images { warm_up: 1000, retraining: 2000, ..Images::default() };
        let (method, target) = (method.to_owned(), String::new());
        Outcome { method, target, seed, problem, figures, images }
    }

    #[test]
    fn rows_are_means_and_differences_go_by_seed() {
        let outcomes = [
            outcome("co-search", 1, Some(0.80)),
            outcome("co-search", 2, Some(0.90)),
            outcome("random", 1, Some(0.79)),
            outcome("random", 2, Some(0.89)),
            outcome("uniform8", 1, None),
        ];
        let rows = rows(&outcomes);
        assert_eq!(rows.len(), 3);
        assert!((rows[0].accuracy.unwrap().value - 0.85).abs() < 1e-12);
        assert!(rows[0].against_co_search.is_none());
        // The seeds differ by 10 points, the methods by one at every seed.
        let against = rows[1].against_co_search.unwrap();
        assert!((against.value + 0.01).abs() < 1e-12 && against.high - against.low < 1e-9);
        let text = markdown(&rows);
        assert!(
            text.contains("| random | 84.00 % ") || text.contains("| random | 84.00 ["),
            "{text}"
        );
        assert!(
            text.contains("| -1.00 [-1.00, -1.00] | 2.000 | 5.00 | 2.0 | 1.0 | 4.00 | 3 |"),
            "{text}"
        );
        assert!(text.contains("| uniform8 | too much |"), "{text}");
        let csv = csv(&outcomes);
        assert_eq!(csv.lines().count(), 6);
        let columns = |line: &str| line.split(',').count();
        assert!(csv.lines().all(|line| columns(line) == columns(csv.lines().next().unwrap())));
    }
}
