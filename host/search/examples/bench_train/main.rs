//! Training speed and memory of the operators: images per second of forward pass, backward pass
//! and optimizer, and the memory of one step, of candle's own operators, the embedded ones,
//! libtorch (feature `tch`) and PyTorch (where `python3` has it).
//!
//! `bench_train [--json] [--rounds N]`. Every case runs in a process of its own, so that its peak
//! memory is its own; all but those of libtorch in the program that `JAQ_BENCH_PLAIN` names, where
//! it is set, which does not link libtorch. The processes step in turn, round after round, so that a busy machine slows
//! all of them alike.

mod cases;
mod child;
mod model;
mod native;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use cases::{Case, memory_cases, speed_cases};
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// Counts what lives: the bytes a step saves for its backward pass.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// Images of a step.
const BATCH: usize = 64;

/// A case in its own process.
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts it and waits for its first step; `None` where this machine cannot run the case.
    fn start(case: &Case, threads: usize) -> Option<Process> {
        let text = serde_json::to_string(case).ok()?;
        let mut command = if case.backend == "pytorch" {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/bench_train/torch_twin.py");
            let mut python = Command::new("python3");
            python.arg(script);
            python
        } else {
            let plain = std::env::var_os("JAQ_BENCH_PLAIN").filter(|_| case.backend != "tch");
            Command::new(plain.map_or_else(std::env::current_exe, |path| Ok(path.into())).ok()?)
        };
        command.args(["--child", &text, &threads.to_string(), &BATCH.to_string()]);
        command.env("OMP_NUM_THREADS", threads.to_string()).stderr(Stdio::null());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        let (input, output) = (child.stdin.take()?, BufReader::new(child.stdout.take()?));
        let mut process = Process { child, input, output };
        process.ask("step")?;
        Some(process)
    }

    /// Sends a line and reads the number that answers it.
    fn ask(&mut self, what: &str) -> Option<f64> {
        writeln!(self.input, "{what}").ok()?;
        let mut line = String::new();
        self.output.read_line(&mut line).ok()?;
        line.trim().parse().ok()
    }

    /// Highest resident memory so far in bytes, where the system tells.
    fn peak(&self) -> Option<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).ok()?;
        let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Images per second (best, median) and peak memory of every case that runs here.
fn speed(threads: usize, rounds: usize) -> Vec<Value> {
    let cases = speed_cases();
    let started =
        |case: Case| Process::start(&case, threads).map(|process| (case, process, vec![]));
    let mut running: Vec<(Case, Process, Vec<f64>)> =
        cases.into_iter().filter_map(started).collect();
    for round in 0..rounds {
        eprintln!("{threads} threads, round {} of {rounds}", round + 1);
        for (_, process, times) in &mut running {
            times.extend(process.ask("step"));
        }
    }
    let report = |(case, process, times): &mut (Case, Process, Vec<f64>)| {
        times.sort_by(f64::total_cmp);
        let rate =
            |seconds: Option<&f64>| seconds.map(|s| (BATCH as f64 / s * 10.0).round() / 10.0);
        json!({
            "backend": case.backend,
            "model": case.model.name(),
            "case": case.name,
            "threads": threads,
            "images_per_second_best": rate(times.first()),
            "images_per_second_median": rate(times.get(times.len() / 2)),
            "peak_bytes": process.peak(),
        })
    };
    running.iter_mut().map(report).collect()
}

/// Bytes that one search step saves for its backward pass, and the process's peak.
fn memory() -> Vec<Value> {
    let measure = |case: Case| {
        eprintln!("memory of {}, {} options", case.name, case.bits.len());
        let mut process = Process::start(&case, 2)?;
        let saved = process.ask("saved")?;
        Some(json!({
            "backend": case.backend,
            "model": case.model.name(),
            "case": case.name,
            "options": case.bits.len(),
            "saved_bytes": saved,
            "peak_bytes": process.peak(),
        }))
    };
    memory_cases().into_iter().filter_map(measure).collect()
}

fn print(speed: &[Value], memory: &[Value]) {
    let text = |v: &Value| match v {
        Value::String(text) => text.clone(),
        Value::Null => "?".into(),
        other => other.to_string(),
    };
    let mib = |v: &Value| v.as_f64().map_or("?".into(), |b| format!("{:.1}", b / 1048576.0));
    println!("images per second, batch {BATCH}; the ratio is that of medians to tch\n");
    println!(
        "{:18}{:22}{:>8} {:10}{:>8}{:>8}{:>7}{:>10}",
        "network", "case", "threads", "backend", "best", "median", "ratio", "peak MiB"
    );
    for f in speed {
        let twin = speed.iter().find(|t| {
            t["backend"] == "tch" && ["model", "case", "threads"].iter().all(|k| t[*k] == f[*k])
        });
        let median = |v: &Value| v["images_per_second_median"].as_f64();
        let ratio = twin.and_then(median).zip(median(f)).map(|(t, f)| format!("{:.2}", f / t));
        println!(
            "{:18}{:22}{:>8} {:10}{:>8}{:>8}{:>7}{:>10}",
            text(&f["model"]),
            text(&f["case"]),
            text(&f["threads"]),
            text(&f["backend"]),
            text(&f["images_per_second_best"]),
            text(&f["images_per_second_median"]),
            ratio.unwrap_or_default(),
            mib(&f["peak_bytes"])
        );
    }
    println!("\nmemory of one search step of {}\n", cases::SEARCHED.name());
    println!("{:34}{:>8}{:>12}{:>10}", "case", "options", "saved MiB", "peak MiB");
    for m in memory {
        let (saved, peak) = (mib(&m["saved_bytes"]), mib(&m["peak_bytes"]));
        println!("{:34}{:>8}{:>12}{:>10}", text(&m["case"]), text(&m["options"]), saved, peak);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, case, threads, ..] = &arguments[..]
        && flag == "--child"
    {
        let parsed = serde_json::from_str::<Case>(case).ok().zip(threads.parse().ok());
        let Some((case, threads)) = parsed else { std::process::exit(2) };
        return child::run(&case, threads);
    }
    let after = |name: &str| arguments.iter().position(|a| a == name).map(|i| &arguments[i + 1..]);
    let rounds = after("--rounds").and_then(|rest| rest.first()?.parse().ok()).unwrap_or(7);
    let figures: Vec<Value> =
        [1, 2].into_iter().flat_map(|threads| speed(threads, rounds)).collect();
    let memory = memory();
    if arguments.iter().any(|a| a == "--json") {
        println!(
            "{}",
            json!({ "batch": BATCH, "rounds": rounds, "speed": figures, "memory": memory })
        );
    } else {
        print(&figures, &memory);
    }
}
