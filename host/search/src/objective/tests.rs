//! The objective against drawn networks and finite differences.

use super::*;
use crate::rng::{Purpose, Rng};
use crate::space::Choice;
use crate::space::tests::{random_choice, space};
use jaq_cost::{
    Block, Cost, DesignSpace, HardwareCosts, HardwareTable, LayerCost, NetworkCost, Workload,
};
use jaq_network::{Bits, LayerBits, LayerShape, Network};

/// A processor whose work grows with the product of widths, and 2-bit weights cost `dear`
/// times as much.
pub(crate) struct Toy {
    pub dear: f64,
}

impl CostModel for Toy {
    fn layer(&self, layer: &LayerShape) -> Result<Cost, ModelError> {
        let LayerBits { weight, input, output } = layer.bits;
        let (w, i, o) = (weight.get() as f64, input.get() as f64, output.get() as f64);
        let dear = if weight == Bits::B2 && layer.op.has_weights() { self.dear } else { 1.0 };
        let macs = layer.macs() as f64 * (0.3 + w * i / 40.0) * dear;
        let moved = layer.output.elements() as f64 * (3.0 + o + (i - w).abs());
        let weights_bytes = (layer.weights() as u64 * u64::from(weight.get())).div_ceil(8);
        let instructions = macs + moved;
        Ok(Cost {
            instructions: Some(instructions),
            latency_s: Some(instructions * 2e-9),
            energy_pj: Some(macs * 3.0 + moved),
            weights_bytes,
            ..Cost::zero()
        })
    }

    fn network(&self, network: &Network) -> Result<NetworkCost, ModelError> {
        let area_mm2 = Some(2.0);
        let encode =
            Cost { instructions: Some(1000.0), latency_s: Some(2e-6), area_mm2, ..Cost::zero() };
        let mut total = encode;
        let mut layers = Vec::new();
        for (layer, shape) in network.layers.iter().zip(network.shapes()) {
            let cost = self.layer(&shape)?;
            total = total.plus(&cost);
            layers.push(LayerCost::new(&layer.name, &shape, "toy", cost));
        }
        Ok(NetworkCost { total, layers })
    }
}

pub(crate) fn random_probabilities(space: &Space, seed: u64) -> Probabilities {
    let mut rng = Rng::at(seed, Purpose::Init, 1);
    let mut p = Probabilities::uniform(space);
    for row in p.operators.iter_mut().chain(&mut p.widths) {
        row.iter_mut().for_each(|v| *v = f64::from(rng.unit()) + 0.05);
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|v| *v /= sum);
    }
    p
}

#[test]
fn certain_probabilities_give_the_network_itself() {
    let (space, model) = (space(), Toy { dear: 1.0 });
    let costs = Costs::build(&space, &model, Figure::Work).unwrap();
    for seed in 0..50 {
        let choice = random_choice(&space, seed);
        let exact = model.network(&space.network(&choice)).unwrap().total;
        let exact = exact.instructions.unwrap() - 1000.0;
        let certain = Probabilities::certain(&space, &choice);
        let close = |value: f64| (value / exact - 1.0).abs() < 1e-9;
        assert!(close(costs.of(&space, &choice)));
        assert!(close(costs.expected(&space, &certain).0));
        // Unused genes may differ, the network may not.
        let network = |c: &Choice| space.network(c);
        assert_eq!(network(&certain.likeliest()), network(&choice));
    }
}

#[test]
fn expectation_is_the_mean_over_drawn_networks() {
    let (space, model) = (space(), Toy { dear: 1.0 });
    let costs = Costs::build(&space, &model, Figure::Work).unwrap();
    let p = random_probabilities(&space, 3);
    let mut rng = Rng::at(5, Purpose::Init, 2);
    let draws = 20_000;
    let mut sum = 0.0;
    for _ in 0..draws {
        let mut draw =
            |row: &Vec<f64>| rng.choose(&row.iter().map(|v| *v as f32).collect::<Vec<_>>());
        let operators = p.operators.iter().map(&mut draw).collect();
        let choice = Choice { operators, widths: p.widths.iter().map(&mut draw).collect() };
        sum += costs.of(&space, &choice);
    }
    let (exact, mean) = (costs.expected(&space, &p).0, sum / f64::from(draws));
    assert!((mean / exact - 1.0).abs() < 0.01, "{mean} {exact}");
}

/// Holds derivatives to differences of `value`.
fn check_gradient(
    p: &Probabilities,
    gradient: &Probabilities,
    step: f64,
    value: impl Fn(&Probabilities) -> f64,
) {
    let largest = gradient.operators.iter().chain(&gradient.widths).flatten();
    let largest = largest.fold(0.0f64, |a, g| a.max(g.abs()));
    assert!(largest > 0.0);
    let check = |bump: &dyn Fn(&mut Probabilities, f64), expected: f64| {
        let moved = |by: f64| {
            let mut p = p.clone();
            bump(&mut p, by);
            value(&p)
        };
        let slope = (moved(step) - moved(-step)) / (2.0 * step);
        let error = (slope - expected).abs();
        assert!(error < 1e-3 * (largest * 0.01 + expected.abs()), "{slope} {expected}");
    };
    for (s, row) in gradient.operators.iter().enumerate() {
        for (o, g) in row.iter().enumerate() {
            check(&|p, by| p.operators[s][o] += by, *g);
        }
    }
    for (gene, row) in gradient.widths.iter().enumerate().skip(1) {
        for (i, g) in row.iter().enumerate() {
            check(&|p, by| p.widths[gene][i] += by, *g);
        }
    }
}

/// Multipliers after some steps of a search whose task pushes with `task`.
fn some_duals(objective: &Objective, space: &Space, p: &Probabilities, task: f64) -> Duals {
    let mut duals = Duals::new(4.0, 100);
    for _ in 0..3 {
        let found = objective.evaluate(space, p, &duals, None);
        duals.observe(&found, p, task);
        duals.ascend(&found);
    }
    duals
}

const ALL: CostWeights = CostWeights {
    work: 0.1,
    flash: 0.2,
    latency: 0.3,
    energy: 0.4,
    area: 0.5,
    edp: 0.6,
    edap: 0.7,
    limit: 4.0,
};

#[test]
fn gradient_is_the_finite_difference() {
    let (space, model) = (space(), Toy { dear: 1.0 });
    let limits = Limits {
        instructions: Some(1e5),
        latency_s: Some(1e-4),
        flash_bytes: Some(4000),
        ram_bytes: Some(1000),
        energy_pj: Some(1e5),
        area_mm2: None,
    };
    let p = random_probabilities(&space, 9);
    for weights in [CostWeights::default(), ALL] {
        let objective = Objective::new(&space, &model, &limits, weights).unwrap();
        let duals = some_duals(&objective, &space, &p, 0.02);
        let found = objective.evaluate(&space, &p, &duals, None);
        assert_eq!(found.limits.len(), 5);
        assert!(found.limits.iter().all(|l| l.share > 0.0 && duals.multiplier(l.what) > 0.0));
        let (value, gradient) = found.with_limits(&duals);
        assert!(value > found.value);
        check_gradient(&p, &gradient, 1e-6, |p| {
            objective.evaluate(&space, p, &duals, None).with_limits(&duals).0
        });
    }
}

#[test]
fn forces_of_limits_are_measured_by_the_task() {
    let (space, model) = (space(), Toy { dear: 1.0 });
    let limits = Limits { instructions: Some(1e5), ..Limits::default() };
    let objective = Objective::new(&space, &model, &limits, CostWeights::NONE).unwrap();
    let p = random_probabilities(&space, 9);
    let pushes = |task: f64| -> f64 {
        let mut duals = Duals::new(4.0, 100);
        let found = objective.evaluate(&space, &p, &duals, None);
        duals.observe(&found, &p, task);
        let (_, gradient) = found.with_limits(&duals);
        let squares = gradient.by_logits(&p).into_iter().flatten().map(|g| f64::from(g).powi(2));
        squares.sum::<f64>().sqrt() / found.limits[0].share
    };
    // Exceeded by a quarter: as hard as the task, whatever the scale of either.
    for task in [1e-4, 3.0] {
        assert!((pushes(task) / (4.0 * task) - 1.0).abs() < 1e-4, "{} {task}", pushes(task));
    }
}

#[test]
fn prices_by_hand() {
    let weights = CostWeights { latency: 0.5, energy: 0.25, area: 2.0, ..CostWeights::NONE };
    let price = Price { weights, reference: [1e-3, 1e6, 4.0] };
    // Twice the latency, the same energy, half the area: 1 + 0.25 + 1.
    let (value, slopes) = price.at([2e-3, 1e6, 2.0]);
    assert!((value - 2.25).abs() < 1e-12);
    assert_eq!(slopes, [500.0, 0.25e-6, 0.5]);
    let weights = CostWeights { edp: 1.0, edap: 0.1, ..CostWeights::NONE };
    let price = Price { weights, ..price };
    let (value, slopes) = price.at([2e-3, 3e6, 2.0]);
    assert!((value - (6.0 + 0.1 * 3.0)).abs() < 1e-12);
    for (slope, by_hand) in slopes.iter().zip([(3.0 + 0.15) * 1e3, (2.0 + 0.1) * 1e-6, 0.1 * 1.5]) {
        assert!((slope / by_hand - 1.0).abs() < 1e-9, "{slope} {by_hand}");
    }
}

/// Every cell of a space on a few accelerators.
fn table(space: &Space) -> HardwareTable {
    let designs = DesignSpace::load("bitfusion-space").unwrap();
    let block = |shape: &LayerShape| -> Block { vec![Workload::from(shape)] };
    let cells = Costs::shapes(space).iter().map(block).collect();
    let at = move |index: usize| Ok(designs.at(index * 211)?);
    HardwareCosts::new(5, at, cells, jaq_cost::Objective::Edp).table().unwrap()
}

#[test]
fn hardware_is_priced_as_each_would_be_alone() {
    let space = crate::space::tests::small_space();
    let table = table(&space);
    let limits = Limits { latency_s: Some(1e-6), energy_pj: Some(1e5), ..Limits::default() };
    let objective = Objective::on_hardware([1e-5, 1e7, 1.0], &limits, ALL);
    let p = random_probabilities(&space, 4);
    let duals = some_duals_on(&objective, &space, &p, &table);
    let given = [0.1, 0.2, 0.3, 0.15, 0.25];
    let at = |q: &[f64], p: &Probabilities| {
        let hardware = Hardware { table: &table, chances: Chances::Given(q) };
        objective.evaluate(&space, p, &duals, Some(&hardware))
    };
    // One configuration alone is the fixed target of its layers.
    for h in 0..5 {
        let designs = DesignSpace::load("bitfusion-space").unwrap();
        let array = designs.at(h * 211).unwrap();
        let model = jaq_cost::TiledModel::new(array, jaq_cost::Objective::Edp).unwrap();
        let fixed = Objective::new(&space, &model, &limits, CostWeights::NONE).unwrap();
        let fixed = fixed.evaluate(&space, &p, &duals, None);
        let mut q = [0.0; 5];
        q[h] = 1.0;
        let found = at(&q, &p);
        for i in 0..2 {
            let ratio = found.hardware[i] / fixed.hardware[i];
            assert!((ratio - 1.0).abs() < 1e-5, "{i} {ratio}");
        }
        let alone = objective.price_of(found.hardware);
        assert!((found.value / alone - 1.0).abs() < 1e-5);
    }
    // Derivatives by probabilities of the network: that of the mean price, exact.
    let found = at(&given, &p);
    check_gradient(&p, &found.gradient, 1e-3, |p| at(&given, p).value);
    for excess in &found.limits {
        let share = |p: &Probabilities| {
            at(&given, p).limits.into_iter().find(|l| l.what == excess.what).unwrap().share
        };
        check_gradient(&p, &excess.gradient, 1e-3, share);
    }
}

fn some_duals_on(
    objective: &Objective,
    space: &Space,
    p: &Probabilities,
    table: &HardwareTable,
) -> Duals {
    let mut duals = Duals::new(4.0, 100);
    let hardware = Hardware { table, chances: Chances::SoftMinimum(0.5) };
    let found = objective.evaluate(space, p, &duals, Some(&hardware));
    duals.observe(&found, p, 0.02);
    duals.ascend(&found);
    duals
}

#[test]
fn soft_minimum_prefers_what_is_cheap_and_obeys_the_area() {
    let space = crate::space::tests::small_space();
    let table = table(&space);
    let p = random_probabilities(&space, 4);
    let weights = CostWeights { edp: 1.0, ..CostWeights::NONE };
    let limits = Limits::default();
    let of = |limits: &Limits, temperature: f64| {
        let objective = Objective::on_hardware([1e-5, 1e7, 1.0], limits, weights);
        let chances = Chances::SoftMinimum(temperature);
        let hardware = Hardware { table: &table, chances };
        objective.evaluate(&space, &p, &Duals::new(4.0, 1), Some(&hardware)).configurations
    };
    let sharp = of(&limits, 1e-3);
    let best = (0..5).min_by(|a, b| sharp[*a].1.total_cmp(&sharp[*b].1)).unwrap();
    assert!(sharp[best].0 > 0.99 && of(&limits, 10.0)[best].0 < 0.4);
    let least = (0..5).map(|h| table.area_mm2(h)).fold(f64::INFINITY, f64::min);
    let tight = of(&Limits { area_mm2: Some(least * 1.01), ..limits }, 1.0);
    for (h, (q, _)) in tight.iter().enumerate() {
        assert_eq!(*q > 0.0, table.area_mm2(h) <= least * 1.01, "{h} {q}");
    }
}

#[test]
fn cheapest_is_below_every_draw() {
    let (space, model) = (space(), Toy { dear: 3.0 });
    let costs = Costs::build(&space, &model, Figure::Work).unwrap();
    let cheapest = costs.cheapest(&space, &random_choice(&space, 1));
    let least = costs.of(&space, &cheapest);
    for seed in 0..300 {
        assert!(costs.of(&space, &random_choice(&space, seed)) >= least);
    }
    // No single change of the result is cheaper either.
    for gene in 0..space.genes.len() {
        for option in 0..space.genes[gene].options.len() {
            let mut other = cheapest.clone();
            other.widths[gene] = option;
            assert!(costs.of(&space, &other) >= least);
        }
    }
}
