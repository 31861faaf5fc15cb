//! The objective against drawn networks and finite differences.

use super::*;
use crate::rng::{Purpose, Rng};
use crate::space::tests::{random_choice, space};
use jaq_cost::{Cost, LayerCost, NetworkCost};
use jaq_network::Network;

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
            weights_bytes,
            ..Cost::zero()
        })
    }

    fn network(&self, network: &Network) -> Result<NetworkCost, ModelError> {
        let encode = Cost { instructions: Some(1000.0), latency_s: Some(2e-6), ..Cost::zero() };
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

fn random_probabilities(space: &Space, seed: u64) -> Probabilities {
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

#[test]
fn gradient_is_the_finite_difference() {
    let (space, model) = (space(), Toy { dear: 1.0 });
    let limits = Limits {
        instructions: Some(1e5),
        latency_s: Some(1e-4),
        flash_bytes: Some(4000),
        ram_bytes: Some(1000),
    };
    let objective = Objective::new(&space, &model, &limits, CostWeights::default()).unwrap();
    let p = random_probabilities(&space, 9);
    let at = objective.evaluate(&space, &p);
    assert!(at.value > 4.0, "all limits are exceeded: {}", at.value);
    let step = 1e-6;
    let check = |bump: &mut dyn FnMut(&mut Probabilities), expected: f64| {
        let mut moved = p.clone();
        bump(&mut moved);
        let slope = (objective.evaluate(&space, &moved).value - at.value) / step;
        assert!((slope - expected).abs() < 1e-3 * (1.0 + expected.abs()), "{slope} {expected}");
    };
    for (s, row) in at.gradient.operators.iter().enumerate() {
        for (o, g) in row.iter().enumerate() {
            check(&mut |p| p.operators[s][o] += step, *g);
        }
    }
    for (gene, row) in at.gradient.widths.iter().enumerate().skip(1) {
        for (i, g) in row.iter().enumerate() {
            check(&mut |p| p.widths[gene][i] += step, *g);
        }
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
