//! `jaq-host search` for accelerators: a fixed one, or a space of them that is searched together
//! with the network. Ends at the network, the accelerator as a board file of its own, the mapping
//! of every layer, and a report.

use anyhow::{Context, Result, bail};
use jaq_cost::batch_tile::pareto;
use jaq_cost::tile::Problem;
use jaq_cost::{
    CostModel, DesignSpace, Kind, Limits, NetworkCost, Target, TiledModel, Workload, describe,
    least_product, names, simulator,
};
use jaq_network::Network;
use jaq_search::checkpoint::save_values;
use jaq_search::cosearch::{
    Begin, Found, SearchConfig, SearchProgress, search, search_with_hardware,
};
use jaq_search::hardware::{Designs, Method, mapping_objective};
use jaq_search::objective::Objective;
use jaq_search::retrain::Control;
use serde::Serialize;

use super::progress::Bar;
use super::search::{Budget, Chosen, Start};
use crate::report::{Table, percent, thousands};

/// Figures of a network on an accelerator.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub accelerator: String,
    pub latency_s: f64,
    pub energy_pj: f64,
    pub area_mm2: Option<f64>,
    /// Seconds times picojoules.
    pub edp: f64,
    pub edap: Option<f64>,
    pub cycles: u64,
    /// Cycles of the cycle-stepping simulator on the same mappings; layers without weights, which
    /// have none, as predicted. `null` for accelerators that have no mappings.
    pub simulated_cycles: Option<u64>,
    /// Whether cycles and traffic of every layer are those of the simulator.
    pub simulator_agrees: Option<bool>,
    pub edp_simulated: Option<f64>,
    /// The least of all schedules, over all mappings of every layer.
    pub edp_best_schedule: Option<f64>,
}

/// What an accelerator search reports, beside the network.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub board: String,
    pub seed: u64,
    pub space: String,
    pub log10_networks: f64,
    pub configurations: usize,
    pub cells: usize,
    pub distinct_cells: usize,
    pub method: Option<Method>,
    pub limits: Limits,
    pub weights: jaq_search::objective::CostWeights,
    /// Medians over the search's iterations, in seconds.
    pub timing: jaq_search::cosearch::Timing,
    /// The accelerator found (or given) with the network found.
    pub found: Figures,
    /// Its values of what was ranged over.
    pub configuration: Option<String>,
    /// The best configuration for the same network within the limits, by trying all.
    pub optimum: Option<Figures>,
    /// How much the found configuration's price lies above the optimum's.
    pub above_optimum: Option<f64>,
    /// The published accelerator with the same network.
    pub published: Option<Figures>,
    /// EDP of the found accelerator to that of the published one; and by the simulator.
    pub edp_to_published: Option<f64>,
    pub edp_to_published_simulated: Option<f64>,
    pub provenance: jaq_network::Provenance,
}

/// A layer with its mapping.
#[derive(Serialize)]
struct Scheduled<'a> {
    name: &'a str,
    spec: &'a str,
    bits: &'a str,
    cycles: f64,
    energy_pj: f64,
    mapping: Option<&'a jaq_cost::tile::Mapping>,
    explanation: String,
}

/// Name of the found accelerator, and of its file without its ending.
const ACCELERATOR: &str = "accelerator";

/// Stage 1 on an accelerator or a space of them; what is there already is not made again.
pub fn stage_one(job: &Start) -> Result<(Chosen, serde_json::Value)> {
    if job.run.has("chosen.json") {
        tracing::info!("{} is there already", job.run.join("chosen.json").display());
        let chosen = job.run.read_json("chosen.json", "search")?;
        return Ok((chosen, job.run.read_json("accelerator.json", "search")?));
    }
    let budget = Budget::named(&job.settings.budget)?;
    let mut config = SearchConfig { seed: job.settings.seed, ..budget.search };
    config.cost = job.settings.aim.weights(true);
    config.hardware = job.settings.aim.method();
    config.threads = job.computing.threads;
    config.library = job.computing.library();
    let folder = job.run.join("search");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let bar = Bar::new("search", 1);
    let mut progress = |p: &SearchProgress| {
        bar.total(p.steps);
        let [s, pj, mm2] = p.hardware;
        let hardware = format!("{:.3} ms, {:.2} uJ, {:.2} mm2 predicted", s * 1e3, pj / 1e6, mm2);
        bar.step(p.step, &format!("loss {:.3}, {}, {hardware}", p.loss, percent(p.accuracy)));
    };
    let control = Control { progress: &mut progress, folder: Some(&folder), stop_after: None };
    let goal = mapping_objective(&config.cost, &job.limits);
    let (kind, ..) = describe(&job.settings.board)?;
    let (found, report) = match kind {
        Kind::DesignSpace => {
            let space = DesignSpace::load(&job.settings.board)?;
            let designs = Designs::new(&job.space, space, &config.cost, &job.limits);
            let [cells, distinct, configurations] = designs.size();
            if config.hardware == Method::Exact {
                tracing::info!(
                    "pricing {distinct} different cells on {configurations} configurations"
                );
                designs.table()?;
            }
            let (found, index) = search_with_hardware(
                &job.space,
                &job.data,
                &designs,
                &job.limits,
                &config,
                Begin::Fresh,
                control,
            )?;
            let reference = designs.reference(&job.space)?;
            let objective = Objective::on_hardware(reference, &job.limits, config.cost);
            let model = designs.model(index)?;
            save_accelerator(job, &designs, index)?;
            save_schedule(job, &Target::Tiled(model.clone()), &found.cost)?;
            let figures = tiled(ACCELERATOR, model, &found.network)?;
            let optimum = designs.optimum(&found.network, &objective, &job.limits)?;
            let price = |f: &Figures| {
                objective.price_of([f.latency_s, f.energy_pj, f.area_mm2.unwrap_or(0.0)])
            };
            let best = optimum
                .map(|(best, _)| {
                    tiled(&designs.space().describe(best), designs.model(best)?, &found.network)
                })
                .transpose()?;
            let published = published(&job.settings.board, goal, &found.network)?;
            let report = Report {
                configurations,
                cells,
                distinct_cells: distinct,
                method: Some(config.hardware),
                configuration: Some(designs.space().describe(index)),
                above_optimum: best.as_ref().map(|best| price(&figures) / price(best) - 1.0),
                optimum: best,
                edp_to_published: published.as_ref().map(|p| figures.edp / p.edp),
                edp_to_published_simulated: published
                    .as_ref()
                    .and_then(|p| Some(figures.edp_simulated? / p.edp_simulated?)),
                published,
                ..report(job, &config, &found, figures)
            };
            (found, report)
        }
        _ => {
            let target = Target::load(&job.settings.board, goal)?;
            let found = search(&job.space, &job.data, &target, &job.limits, &config, control)?;
            save_schedule(job, &target, &found.cost)?;
            let figures = match &target {
                Target::Tiled(model) => tiled(target.name(), model, &found.network)?,
                _ => plain(target.name(), &found.cost)?,
            };
            let report = report(job, &config, &found, figures);
            (found, report)
        }
    };
    drop(bar);
    save_values(&folder.join("values.safetensors"), &found.values)?;
    job.run.write_json("accelerator.json", &report)?;
    let chosen = Chosen {
        mean_weight_bits: found.network.mean_weight_bits(),
        arena_bytes: 0,
        weights_bytes: found.cost.total.weights_bytes,
        network: found.network,
    };
    // Last: its presence says that the search is complete.
    job.run.write_json("chosen.json", &chosen)?;
    print(&report, &found.cost);
    Ok((chosen, serde_json::to_value(&report)?))
}

fn report(job: &Start, config: &SearchConfig, found: &Found, figures: Figures) -> Report {
    Report {
        board: job.settings.board.clone(),
        seed: job.settings.seed,
        space: job.space.name.clone(),
        log10_networks: job.space.log10_networks(),
        configurations: 1,
        cells: 0,
        distinct_cells: 0,
        method: None,
        limits: job.limits.clone(),
        weights: config.cost,
        timing: found.timing,
        found: figures,
        configuration: None,
        optimum: None,
        above_optimum: None,
        published: None,
        edp_to_published: None,
        edp_to_published_simulated: None,
        provenance: jaq_network::Provenance::Predicted,
    }
}

/// The found accelerator as a board file, which every command reads.
fn save_accelerator(job: &Start, designs: &Designs, index: usize) -> Result<()> {
    let space = designs.space();
    let mut array = space.at(index)?;
    array.name = ACCELERATOR.to_owned();
    array.description = format!("found in {} by a search: {}", space.name, space.describe(index));
    let chosen = format!("chosen by a search of `{}`, seed {}", space.name, job.settings.seed);
    array.sources.insert("ranges".to_owned(), chosen);
    let text = toml::to_string(&array).context("the accelerator's description")?;
    job.run.write(&format!("{ACCELERATOR}.toml"), text.as_bytes())
}

fn save_schedule(job: &Start, target: &Target, cost: &NetworkCost) -> Result<()> {
    let network = cost.layers.iter().map(|layer| {
        let bits = layer.bits.parse();
        let explanation = match (layer.spec.parse(), bits) {
            (Ok(spec), Ok(widths)) => match Workload::block(&spec, widths).first() {
                Some(work) => target.explain(work)?,
                None => String::new(),
            },
            _ => String::new(),
        };
        Ok(Scheduled {
            name: &layer.name,
            spec: &layer.spec,
            bits: &layer.bits,
            cycles: layer.cost.cycles.map_or(0.0, |c| c.typical),
            energy_pj: layer.cost.energy_pj.unwrap_or(0.0),
            mapping: layer.cost.mapping.as_ref(),
            explanation,
        })
    });
    let layers: Vec<Scheduled<'_>> = network.collect::<Result<_>>()?;
    job.run.write_json("schedule.json", &layers)
}

/// The accelerator that a design space `NAME-space` was made around, where one is shipped.
fn published(space: &str, goal: jaq_cost::Objective, network: &Network) -> Result<Option<Figures>> {
    let Some(name) = space.strip_suffix("-space") else { return Ok(None) };
    if !names(Some(Kind::Accelerator)).contains(&name) {
        return Ok(None);
    }
    match Target::load(name, goal)? {
        Target::Tiled(model) => Ok(Some(tiled(name, &model, network)?)),
        _ => Ok(None),
    }
}

fn plain(name: &str, cost: &NetworkCost) -> Result<Figures> {
    let total = &cost.total;
    let Some(latency_s) = total.latency_s else { bail!("`{name}` has no latency") };
    let energy_pj = total.energy_pj.unwrap_or(0.0);
    let edp = latency_s * energy_pj;
    Ok(Figures {
        accelerator: name.to_owned(),
        latency_s,
        energy_pj,
        area_mm2: total.area_mm2,
        edp,
        edap: total.area_mm2.map(|area| area * edp),
        cycles: total.cycles.map_or(0, |c| c.typical.round() as u64),
        simulated_cycles: None,
        simulator_agrees: None,
        edp_simulated: None,
        edp_best_schedule: None,
    })
}

/// A network on an array with mappings, predicted and simulated, beside its best schedule.
fn tiled(name: &str, model: &TiledModel, network: &Network) -> Result<Figures> {
    let cost = model.network(network)?;
    let figures = plain(name, &cost)?;
    let (mut simulated, mut agrees) = (0, true);
    let mut points = Vec::new();
    let clock = model.array.clock_hz;
    for ((_, work), layer) in Workload::of(network, None).iter().zip(&cost.layers) {
        let cycles = layer.cost.cycles.map_or(0.0, |c| c.typical);
        match (Problem::of(work), &layer.cost.mapping) {
            (Some(problem), Some(mapping)) => {
                let walk = simulator::walk(&problem, &model.array, mapping);
                let closed = mapping.evaluate(&problem, &model.array, &model.prices);
                agrees &= closed.is_some_and(|closed| walk.agrees(&closed));
                simulated += walk.cycles;
                let all = pareto(&problem, &model.array, &model.prices).into_iter();
                let point = |e: jaq_cost::tile::Evaluation| (e.cycles as f64 / clock, e.energy_pj);
                points.push(all.map(|(_, e)| point(e)).collect());
            }
            _ => {
                simulated += cycles.round() as u64;
                points.push(vec![(cycles / clock, layer.cost.energy_pj.unwrap_or(0.0))]);
            }
        }
    }
    Ok(Figures {
        simulated_cycles: Some(simulated),
        simulator_agrees: Some(agrees),
        edp_simulated: Some(simulated as f64 / clock * figures.energy_pj),
        edp_best_schedule: least_product(&points).map(|best| best.value()),
        ..figures
    })
}

fn print(report: &Report, cost: &NetworkCost) {
    let mut table = Table::new(&["layer", "spec", "bits", "cycles", "energy (uJ)"]);
    for layer in &cost.layers {
        let cycles = thousands(layer.cost.cycles.map_or(0.0, |c| c.typical) as u64);
        let energy = format!("{:.3}", layer.cost.energy_pj.unwrap_or(0.0) / 1e6);
        table.row(&[&layer.name, &layer.spec, &layer.bits, &cycles, &energy]);
    }
    eprint!("{table}");
    let mut table = Table::new(&[
        "accelerator",
        "ms",
        "uJ",
        "mm2",
        "EDP (uJ ms)",
        "EDP simulated",
        "EDP, best schedule",
    ]);
    let ujms = |edp: Option<f64>| edp.map_or("-".to_owned(), |edp| format!("{:.4}", edp * 1e-3));
    let mut line = |name: &str, f: &Figures| {
        table.row(&[
            &name,
            &format!("{:.4}", f.latency_s * 1e3),
            &format!("{:.3}", f.energy_pj / 1e6),
            &f.area_mm2.map_or("-".to_owned(), |a| format!("{a:.3}")),
            &ujms(Some(f.edp)),
            &ujms(f.edp_simulated),
            &ujms(f.edp_best_schedule),
        ]);
    };
    line("found", &report.found);
    report.optimum.iter().for_each(|f| line("best for this network", f));
    report.published.iter().for_each(|f| line(&format!("{}, as published", f.accelerator), f));
    eprint!("{table}");
    if let Some(configuration) = &report.configuration {
        eprintln!("  {configuration}");
    }
    if let Some(ratio) = report.edp_to_published {
        eprintln!("  EDP of the found accelerator: {ratio:.3} of the published one's");
    }
    let (hardware, network) = (report.timing.hardware_s * 1e3, report.timing.network_s * 1e3);
    eprintln!(
        "  an iteration's hardware side took {hardware:.3} ms, the supernet's {network:.1} ms"
    );
}
