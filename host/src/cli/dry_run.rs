//! `jaq-host search --dry-run`: how large a search would be, what it would take, what its networks
//! would cost, and how long one iteration's hardware side takes. Nothing is searched or written.

use std::time::Instant;

use anyhow::Result;
use jaq_cost::{CostModel, DesignSpace, Figure, Kind, Limits, Mcu, McuModel, Target, describe};
use jaq_network::Shape;
use jaq_search::cosearch::SearchConfig;
use jaq_search::data::Dataset;
use jaq_search::dry_run::{hardware_seconds, size, step_seconds};
use jaq_search::hardware::{Designs, mapping_objective};
use jaq_search::objective::{Objective, Probabilities};
use jaq_search::space::{Space, SpaceFile};
use serde::Serialize;

use super::print_json;
use super::search::{Budget, Plan};
use crate::report::{kb, thousands};

/// What a dry run tells.
#[derive(Serialize)]
struct Report {
    board: String,
    space: String,
    images: [u16; 3],
    classes: usize,
    log10_networks: f64,
    sections: usize,
    genes: usize,
    /// Layers at their widths; those that differ; configurations of hardware.
    cells: usize,
    distinct_cells: usize,
    configurations: usize,
    parameters: usize,
    /// Parameters with gradients and the optimizer's memory.
    parameter_bytes: usize,
    batch: usize,
    /// Feature maps of a batch, from above.
    activation_bytes: usize,
    /// Seconds of a step of the supernet on a batch, from one step of a smaller batch here.
    step_s: f64,
    epochs: u64,
    train_images: Option<usize>,
    /// Seconds of the whole search, where the data set is known.
    search_s: Option<f64>,
    /// Median and least seconds of an iteration's hardware side.
    hardware_s: f64,
    hardware_least_s: f64,
    /// Seconds of pricing the space, once.
    pricing_s: f64,
    /// Ranges of figures over the space.
    costs: Vec<Range>,
}

#[derive(Serialize)]
struct Range {
    figure: String,
    least: f64,
    mean: f64,
    most: f64,
}

/// Times the hardware side this often.
const ROUNDS: u64 = 101;

pub fn run(plan: &Plan, json: bool) -> Result<()> {
    let (space, images) = open(plan)?;
    let budget = Budget::named(&plan.budget)?;
    let (kind, ..) = describe(&plan.board)?;
    let accelerator = kind != Kind::Mcu;
    let cost = plan.aim.weights(accelerator);
    let config = SearchConfig { cost, hardware: plan.aim.method(), ..budget.search };
    let found = size(&space);
    let uniform = Probabilities::uniform(&space);
    let started = Instant::now();
    let mut costs = Vec::new();
    let (hardware, counts) = match kind {
        Kind::DesignSpace => {
            let designs =
                Designs::new(&space, DesignSpace::load(&plan.board)?, &cost, &plan.limits());
            let reference = designs.reference(&space)?;
            let objective = Objective::on_hardware(reference, &plan.limits(), cost);
            // The first iterations price what they need; only the later ones are timed.
            let priced = hardware_seconds(&space, &objective, Some(&designs), &config, 1);
            priced?;
            let pricing = started.elapsed().as_secs_f64();
            let times = hardware_seconds(&space, &objective, Some(&designs), &config, ROUNDS)?;
            for (name, value) in ["latency_s", "energy_pj", "area_mm2"].iter().zip(reference) {
                let figure = format!("{name}, undecided network, median configuration");
                costs.push(Range { figure, least: value, mean: value, most: value });
            }
            ((times, pricing), designs.size())
        }
        _ => {
            let limits = plan.limits();
            let (objective, pricing) = match kind {
                Kind::Mcu => {
                    let board = Mcu::load(&plan.board)?;
                    let limits = Limits::of(&board).and(&limits);
                    priced(&space, &McuModel::new(board)?, &limits, &config, started)?
                }
                _ => {
                    let goal = mapping_objective(&cost, &limits);
                    let target = Target::load(&plan.board, goal)?;
                    priced(&space, &target, &limits, &config, started)?
                }
            };
            let some = uniform.likeliest();
            for term in &objective.terms {
                let of = |choice| term.costs.of(&space, &choice) + term.constant;
                let name = match term.figure {
                    Figure::Work if accelerator => "cycles",
                    Figure::Work => "instructions",
                    Figure::Flash => "flash_bytes",
                    Figure::Latency => "latency_s",
                    Figure::Energy => "energy_pj",
                };
                costs.push(Range {
                    figure: name.to_owned(),
                    least: of(term.costs.cheapest(&space, &some)),
                    mean: term.reference,
                    most: of(term.costs.dearest(&space, &some)),
                });
            }
            let cells = jaq_search::objective::Costs::shapes(&space).len();
            let times = hardware_seconds(&space, &objective, None, &config, ROUNDS)?;
            ((times, pricing), [cells, cells, 1])
        }
    };
    // One step of a batch that any machine has memory for.
    let pixels = space.input.h as usize * space.input.w as usize;
    let small = (16_384 / pixels.max(1)).clamp(2, config.batch);
    let step_s = step_seconds(&space, small, config.threads)? * config.batch as f64 / small as f64;
    let epochs = config.warmup_epochs + config.epochs;
    let used = images.map(|n| config.images.map_or(n, |limit| limit.min(n)));
    let ([hardware_s, hardware_least_s], pricing_s) = hardware;
    let report = Report {
        board: plan.board.clone(),
        space: space.name.clone(),
        images: [space.input.h, space.input.w, space.input.c],
        classes: space.classes.len(),
        log10_networks: space.log10_networks(),
        sections: space.sections.len(),
        genes: space.genes.len(),
        cells: counts[0],
        distinct_cells: counts[1],
        configurations: counts[2],
        parameters: found.parameters,
        parameter_bytes: found.parameter_bytes,
        batch: config.batch,
        activation_bytes: found.image_bytes * config.batch,
        step_s,
        epochs,
        train_images: used,
        search_s: used.map(|n| step_s * (n / 2 / config.batch.max(1)) as f64 * epochs as f64),
        hardware_s,
        hardware_least_s,
        pricing_s,
        costs,
    };
    if json {
        return print_json(&report);
    }
    print(&report);
    Ok(())
}

fn priced<M: CostModel>(
    space: &Space,
    model: &M,
    limits: &Limits,
    config: &SearchConfig,
    started: Instant,
) -> Result<(Objective, f64)> {
    let objective = Objective::new(space, model, limits, config.cost)?;
    Ok((objective, started.elapsed().as_secs_f64()))
}

/// The space, with the data set's classes where it has the space's images, and its number of
/// training images.
fn open(plan: &Plan) -> Result<(Space, Option<usize>)> {
    let named = |path: &std::path::PathBuf| SpaceFile::load(&path.to_string_lossy());
    let file = plan.space.as_ref().map(named).transpose()?;
    let wanted = file.as_ref().map(|file| Shape::new(file.input[0], file.input[1], file.input[2]));
    let default = jaq_search::data::DEFAULT.to_owned();
    let data = match (&plan.data, wanted) {
        (None, Some(_)) => None,
        (data, _) => Some(Dataset::open(data.as_ref().unwrap_or(&default))?),
    };
    if let Some(data) = data {
        let file = match file {
            Some(file) => file,
            None => SpaceFile::for_images(data.shape)?,
        };
        return Ok((Space::new(&file, data.shape, &data.classes)?, Some(data.train.len())));
    }
    let (Some(file), Some(shape)) = (file, wanted) else { unreachable!("a space or a data set") };
    let classes: Vec<String> = (0..file.classes).map(|c| c.to_string()).collect();
    Ok((Space::new(&file, shape, &classes)?, None))
}

fn print(r: &Report) {
    let [h, w, c] = r.images;
    println!(
        "space {}: {h}x{w}x{c}, {} classes, {} sections, {} widths to choose, 10^{:.1} networks",
        r.space, r.classes, r.sections, r.genes, r.log10_networks
    );
    println!(
        "{}: {} layers at their widths, {} of them different, {} configurations; priced in {:.1} s",
        r.board,
        thousands(r.cells as u64),
        thousands(r.distinct_cells as u64),
        thousands(r.configurations as u64),
        r.pricing_s
    );
    println!(
        "supernet: {} parameters, {} with gradients and moments; feature maps of a batch of {}: up to {}",
        thousands(r.parameters as u64),
        kb(r.parameter_bytes),
        r.batch,
        kb(r.activation_bytes)
    );
    println!(
        "a step on the embedded operators: {:.2} s (estimated from a smaller batch)",
        r.step_s
    );
    match (r.search_s, r.train_images) {
        (Some(s), Some(images)) => println!(
            "the search: about {:.0} minutes for {} epochs of {} images",
            s / 60.0,
            r.epochs,
            thousands(images as u64)
        ),
        _ => println!(
            "the search: {:.2} hours for each million images shown, weights and architecture",
            r.step_s / r.batch as f64 * 1e6 / 3600.0
        ),
    }
    println!(
        "hardware side of an iteration: {:.3} ms (median), {:.3} ms (least)",
        r.hardware_s * 1e3,
        r.hardware_least_s * 1e3
    );
    for range in &r.costs {
        let Range { figure, least, mean, most } = range;
        println!("{figure}: {least:.4e} to {most:.4e}, {mean:.4e} where nothing is decided");
    }
}
