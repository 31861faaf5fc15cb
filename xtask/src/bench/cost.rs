//! `cargo xtask bench cost`: the speed of the mapping search, of the full cost tensor, and of one
//! step of a search over it; beside ZigZag where that is installed.
//!
//! Times are of this machine; counts are exact. CPU seconds are those of all threads.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use jaq_cost::batch_tile::{Pruning, search};
use jaq_cost::tile::Problem;
use jaq_cost::{
    Block, DesignSpace, HardwareCosts, ModelError, Objective, Target, TiledModel, Widths, Workload,
};
use jaq_network::LayerSpec;
use serde::Serialize;

use super::fresh::Fresh;

/// Measure the mapping search and the cost tensor.
#[derive(Debug, Args)]
pub struct CostBench {
    /// Configurations of the full tensor.
    #[arg(long, default_value_t = 1000)]
    hardware: usize,
    /// Python with `zigzag-dse` and `six`; `python3` if left out.
    #[arg(long)]
    python: Option<PathBuf>,
    #[command(flatten)]
    pub fresh: Fresh,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One layer's whole mapping space, evaluated without pruning, and as the search does it.
#[derive(Debug, Serialize)]
struct LayerRow {
    target: String,
    layer: String,
    bits: String,
    /// Mappings of the space, none excluded.
    mappings: u64,
    /// Those evaluated without pruning: the others' smallest blocks do not fit.
    evaluated_without_pruning: u64,
    without_pruning_s: f64,
    ns_per_mapping: f64,
    evaluated: u64,
    search_s: f64,
    /// CPU seconds of ZigZag for the same layer on its own `tpu_like`, where installed.
    zigzag_s: Option<f64>,
    /// ZigZag's seconds to ours, on `tpu-like`.
    ratio: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Report {
    layers: Vec<LayerRow>,
    tensor: Tensor,
    /// Seconds of one contraction of the full tensor with its gradient, the median of many.
    iteration_s: f64,
    threads: usize,
}

#[derive(Debug, Serialize)]
struct Tensor {
    blocks: usize,
    operators: usize,
    bit_pairs: usize,
    cells: usize,
    hardware: usize,
    seconds: f64,
    cpu_seconds: f64,
    mapping_searches: usize,
}

/// Layers of the first part.
const LAYERS: [&str; 4] =
    ["conv3x3:16x16x32-32", "conv3x3:8x8x64-64", "pw:14x14x96-24", "pw:7x7x160-960"];

impl CostBench {
    pub fn run(self) -> Result<()> {
        if self.fresh.mcu {
            return self.fresh.run(self.json);
        }
        let mut layers = Vec::new();
        for (target, objective) in [
            ("bitfusion", Objective::Latency),
            ("gemmini", Objective::Latency),
            ("tpu-like", Objective::Edp),
        ] {
            let Target::Tiled(model) = Target::load(target, objective)? else {
                bail!("{target} has no mapping space")
            };
            for spec in LAYERS {
                layers.push(layer(target, &model, objective, spec)?);
            }
        }
        for row in layers.iter_mut().filter(|row| row.target == "tpu-like") {
            row.zigzag_s = self.zigzag(&row.layer);
            row.ratio = row.zigzag_s.map(|seconds| seconds / row.search_s);
        }
        let (tensor, iteration_s) = tensor(self.hardware)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let report = Report { layers, tensor, iteration_s, threads };
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
            return Ok(());
        }
        println!(
            "{:<10} {:<21} {:>9} {:>9} {:>8} {:>9} {:>9} {:>8}",
            "target",
            "layer",
            "mappings",
            "all (ms)",
            "ns each",
            "evaluated",
            "best (ms)",
            "ZigZag/"
        );
        for row in &report.layers {
            println!(
                "{:<10} {:<21} {:>9} {:>9.3} {:>8.1} {:>9} {:>9.3} {:>8}",
                row.target,
                row.layer,
                row.mappings,
                row.without_pruning_s * 1e3,
                row.ns_per_mapping,
                row.evaluated,
                row.search_s * 1e3,
                row.ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.0}"))
            );
        }
        let t = &report.tensor;
        println!(
            "full cost tensor: {} blocks x {} operators x {} bit pairs x {} configurations = {} cells, \
             {} mapping searches, in {:.1} s ({:.1} s of CPU) on {} threads",
            t.blocks,
            t.operators,
            t.bit_pairs,
            t.hardware,
            t.cells,
            t.mapping_searches,
            t.seconds,
            t.cpu_seconds,
            report.threads
        );
        println!("one iteration, contraction and gradient: {:.3} ms", report.iteration_s * 1e3);
        Ok(())
    }

    /// CPU seconds of ZigZag for a layer on its `tpu_like`, or `None` where it does not run.
    fn zigzag(&self, spec: &str) -> Option<f64> {
        let spec: LayerSpec = spec.parse().ok()?;
        let work = Workload::block(&spec, Widths::W8A8)[0];
        let ([oh, ow, oc], [_, _, ic]) = (work.output(), work.input());
        let window = work.op().window();
        let python = self.python.clone().unwrap_or_else(|| "python3".into());
        let numbers = [oh, ow, oc, ic, window.kh.into(), window.pads.top.into()];
        let output = Command::new(python)
            .args(["-c", include_str!("zigzag.py")])
            .args(numbers.map(|n: u64| n.to_string()))
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        text.lines().last()?.trim().parse().ok().filter(|_| output.status.success())
    }
}

fn layer(target: &str, model: &TiledModel, objective: Objective, text: &str) -> Result<LayerRow> {
    let spec: LayerSpec = text.parse()?;
    let work = Workload::block(&spec, Widths::W8A8)[0];
    let problem = Problem::of(&work).context("a layer with weights")?;
    let run = |pruning| {
        search(&problem, &model.array, &model.prices, objective, pruning)
            .with_context(|| format!("nothing fits {target}"))
    };
    let timed = |pruning| -> Result<_> {
        let found = run(pruning)?;
        let seconds = median(31, || {
            std::hint::black_box(run(pruning)).ok();
        });
        Ok((found, seconds))
    };
    let (all, without_pruning_s) = timed(Pruning::None)?;
    let (found, search_s) = timed(Pruning::Bounds)?;
    Ok(LayerRow {
        target: target.to_owned(),
        layer: text.to_owned(),
        bits: Widths::W8A8.to_string(),
        mappings: all.mappings,
        evaluated_without_pruning: all.mappings_evaluated,
        without_pruning_s,
        ns_per_mapping: without_pruning_s * 1e9 / all.mappings_evaluated as f64,
        evaluated: found.mappings_evaluated,
        search_s,
        zigzag_s: None,
        ratio: None,
    })
}

/// The median time of some runs.
fn median(runs: usize, mut run: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[runs / 2]
}

const BIT_PAIRS: [&str; 9] =
    ["W2A2", "W2A4", "W2A8", "W4A2", "W4A4", "W4A8", "W8A2", "W8A4", "W8A8"];

/// Operators: kernel and expansion; the last one skips.
const OPERATORS: [Option<(u16, u16)>; 7] =
    [Some((3, 3)), Some((5, 3)), Some((7, 3)), Some((3, 6)), Some((5, 6)), Some((7, 6)), None];

/// Twenty blocks as MobileNetV2 has them, for 32x32 images: size of the input, channels in and out,
/// stride.
fn blocks() -> Vec<(u16, u16, u16, u16)> {
    let mut blocks = Vec::new();
    let (mut size, mut channels) = (32, 16);
    for (out, count, stride) in
        [(16, 2, 1), (24, 3, 1), (32, 4, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)]
    {
        for i in 0..count {
            let stride = if i == 0 { stride } else { 1 };
            blocks.push((size, channels, out, stride));
            (size, channels) = (size / stride, out);
        }
    }
    blocks
}

/// The layers of every block under every operator and bit pair.
fn cells() -> Result<Vec<Block>> {
    let mut cells = Vec::new();
    for (size, channels, out, stride) in blocks() {
        for operator in OPERATORS {
            for bits in BIT_PAIRS {
                let Some((k, expansion)) = operator else {
                    cells.push(Vec::new());
                    continue;
                };
                let (wide, small) = (channels * expansion, size / stride);
                let spec: LayerSpec = format!(
                    "pw:{size}x{size}x{channels}-{wide}+dw{k}x{k}s{stride}:{size}x{size}x{wide}+pw:{small}x{small}x{wide}-{out}"
                )
                .parse()?;
                cells.push(Workload::block(&spec, bits.parse()?));
            }
        }
    }
    Ok(cells)
}

fn tensor(hardware: usize) -> Result<(Tensor, f64)> {
    let cells = cells()?;
    let space = DesignSpace::load("bitfusion-space")?;
    let step = space.len() / hardware.clamp(1, space.len());
    let hardware = hardware.clamp(1, space.len());
    let make = move |index: usize| space.at(index * step).map_err(ModelError::from);
    let count = cells.len();
    let costs = HardwareCosts::new(hardware, make, cells, Objective::Latency);
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let table = costs.table()?;
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let mut searches = 0;
    for h in 0..hardware {
        searches += costs.model(h)?.searched();
    }
    let per_block = OPERATORS.len() * BIT_PAIRS.len();
    let probabilities = vec![1.0 / per_block as f32; count];
    let of_hardware = vec![1.0 / hardware as f32; hardware];
    let iteration_s = median(101, || {
        let found = table.contract(&probabilities, &of_hardware, [1.0, 1e-12, 1e-3]);
        std::hint::black_box(found);
    });
    let tensor = Tensor {
        blocks: count / per_block,
        operators: OPERATORS.len(),
        bit_pairs: BIT_PAIRS.len(),
        cells: count * hardware,
        hardware,
        seconds,
        cpu_seconds: cpu,
        mapping_searches: searches,
    };
    Ok((tensor, iteration_s))
}

/// CPU seconds of this process, all threads, user and system; 0 where the kernel does not tell.
fn cpu_seconds() -> f64 {
    let Ok(text) = std::fs::read_to_string("/proc/self/stat") else { return 0.0 };
    // Fields after the name, which may hold spaces: 12 and 13 are user and system time in ticks of
    // a hundredth of a second.
    let fields = text.rsplit(')').next().unwrap_or("").split_whitespace();
    fields.skip(11).take(2).filter_map(|v| v.parse::<f64>().ok()).sum::<f64>() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_space_is_twenty_blocks_that_fit_one_another() {
        let blocks = blocks();
        assert_eq!(blocks.len(), 20);
        for pair in blocks.windows(2) {
            let ((size, _, out, stride), (next, channels, ..)) = (pair[0], pair[1]);
            assert_eq!((size / stride, out), (next, channels));
        }
        assert_eq!(cells().unwrap().len(), 20 * 7 * 9);
    }
}
