//! `cargo run --release -p jaq-search --example bench_hardware [search]`: what the hardware
//! side of a co-search takes and finds.
//!
//! Without an argument: seconds of one iteration's hardware side (expected cost of network and hardware,
//! limits, all gradients) on `stm32h7` and on the whole of `bitfusion-space`, by both ways to search
//! hardware, beside the supernet's step. With `search`: a co-search of seconds on the shipped images by both
//! ways as well; the accelerator found against the best one for the same network and the published one.
//! Prints JSON.

use std::time::Instant;

use jaq_cost::tile::Problem;
use jaq_cost::{
    CostModel, DesignSpace, Limits, Mcu, McuModel, Target, TiledModel, Workload, simulator,
};
use jaq_network::Network;
use jaq_search::cosearch::{Begin, SearchConfig, SearchProgress, search_with_hardware};
use jaq_search::data::subset;
use jaq_search::dry_run::{hardware_seconds, step_seconds};
use jaq_search::hardware::{Designs, Method, mapping_objective};
use jaq_search::objective::{CostWeights, Objective};
use jaq_search::retrain::Control;
use jaq_search::space::{Space, SpaceFile};
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error>;

const ROUNDS: u64 = 201;

fn main() -> Result<(), Failure> {
    let search = std::env::args().any(|argument| argument == "search");
    let data = subset::open()?;
    let space = Space::new(&SpaceFile::for_images(data.shape)?, data.shape, &data.classes)?;
    let mut found = Vec::new();

    let board = Mcu::load("stm32h7")?;
    let limits = Limits::of(&board).and(&Limits { instructions: Some(2e6), ..Limits::default() });
    let model = McuModel::new(board)?;
    let config = SearchConfig::small();
    let objective = Objective::new(&space, &model, &limits, config.cost)?;
    let cpu = cpu_seconds();
    let times = hardware_seconds(&space, &objective, None, &config, ROUNDS)?;
    found.push(row("stm32h7", None, [0, 0, 1], 0.0, times, cpu_seconds() - cpu));

    let weights = CostWeights { edp: 0.05, ..CostWeights::NONE };
    let limits = Limits::default();
    let designs = Designs::new(&space, DesignSpace::load("bitfusion-space")?, &weights, &limits);
    let objective = Objective::on_hardware(designs.reference(&space)?, &limits, weights);
    let mut searches = Vec::new();
    for method in [Method::Exact, Method::Generator] {
        let config = SearchConfig { hardware: method, cost: weights, ..SearchConfig::small() };
        let started = Instant::now();
        if method == Method::Exact {
            designs.table()?;
        }
        let priced = started.elapsed().as_secs_f64();
        // Once before: the generation network's draws are priced when they are first met.
        hardware_seconds(&space, &objective, Some(&designs), &config, ROUNDS)?;
        let cpu = cpu_seconds();
        let times = hardware_seconds(&space, &objective, Some(&designs), &config, ROUNDS)?;
        let cpu = cpu_seconds() - cpu;
        found.push(row("bitfusion-space", Some(method), designs.size(), priced, times, cpu));
        if search {
            let mut progress = |_: &SearchProgress| {};
            let control = Control { progress: &mut progress, folder: None, stop_after: None };
            let (result, index) = search_with_hardware(
                &space,
                &data,
                &designs,
                &limits,
                &config,
                Begin::Fresh,
                control,
            )?;
            let network = &result.network;
            let own = figures(designs.model(index)?, network)?;
            let best = designs.optimum(network, &objective, &limits)?.ok_or("nothing fits")?;
            let goal = mapping_objective(&weights, &limits);
            let Target::Tiled(published) = Target::load("bitfusion", goal)? else {
                return Err("bitfusion is tiled".into());
            };
            searches.push(json!({
                "method": method,
                "configuration": designs.space().describe(index),
                "found": own,
                "optimum": designs.space().describe(best.0),
                "optimum_edp": best.1[0] * best.1[1],
                "published": figures(&published, network)?,
                "timing": result.timing,
            }));
        }
    }
    let step = step_seconds(&space, 64, 0)?;
    let report = json!({
        "space": space.name, "rounds": ROUNDS, "hardware_side": found,
        "network_step_s_batch_64": step, "searches": searches,
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

fn row(
    board: &str,
    method: Option<Method>,
    [cells, distinct, configurations]: [usize; 3],
    priced_s: f64,
    [median_s, least_s]: [f64; 2],
    cpu_s: f64,
) -> Value {
    json!({
        "board": board, "method": method, "cells": cells, "distinct_cells": distinct,
        "configurations": configurations, "priced_s": priced_s, "median_s": median_s,
        "least_s": least_s, "cpu_s": cpu_s / ROUNDS as f64,
    })
}

/// CPU seconds of this process, all threads; 0 where the kernel does not tell.
fn cpu_seconds() -> f64 {
    let Ok(text) = std::fs::read_to_string("/proc/self/stat") else { return 0.0 };
    let fields = text.rsplit(')').next().unwrap_or("").split_whitespace();
    fields.skip(11).take(2).filter_map(|v| v.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// A network on an accelerator, predicted and simulated.
fn figures(model: &TiledModel, network: &Network) -> Result<Value, Failure> {
    let cost = model.network(network)?;
    let (mut simulated, mut agrees) = (0.0, true);
    for ((_, work), layer) in Workload::of(network, None).iter().zip(&cost.layers) {
        match (Problem::of(work), &layer.cost.mapping) {
            (Some(problem), Some(mapping)) => {
                let walk = simulator::walk(&problem, &model.array, mapping);
                let closed = mapping.evaluate(&problem, &model.array, &model.prices);
                agrees &= closed.is_some_and(|closed| walk.agrees(&closed));
                simulated += walk.cycles as f64;
            }
            _ => simulated += layer.cost.cycles.map_or(0.0, |c| c.typical),
        }
    }
    let (latency, energy) =
        (cost.total.latency_s.unwrap_or(0.0), cost.total.energy_pj.unwrap_or(0.0));
    Ok(json!({
        "latency_s": latency, "energy_pj": energy, "area_mm2": cost.total.area_mm2,
        "edp": latency * energy, "edp_simulated": simulated / model.array.clock_hz * energy,
        "simulator_agrees": agrees,
    }))
}
