//! The JAQ objective: task loss plus expected hardware cost under constraints.
//!
//! ```text
//! L = CE(weights, p) + sum_f lambda_f F_f(p) / F_f(uniform)
//!       + lambda_EDP  E T   / its value at uniform
//!       + lambda_EDAP E T A / its value at uniform
//!       + sum_c s_c / (2 rho) (max(0, mu_c + rho g_c(p))^2 - mu_c^2),    g_c = F_c / limit_c - 1
//! ```
//!
//! with `p` the search's probabilities of operators and widths, `f` the figures of the cost model
//! (work, flash; latency `T`, energy `E`, area `A`) and `c` the limits. `CE` is the supernet's;
//! everything else is computed here, exactly, with its exact gradient ([`Costs`]). Live RAM is a
//! smooth stand-in for the arena.
//!
//! **Limits** are an augmented Lagrangian ([`Duals`]): the multiplier `mu_c` rises by the relative
//! violation of every step and falls with slack, so that in the end a limit pushes exactly as hard
//! as the task pushes against it. `s_c` measures both in one unit: it is the ratio of the norms of
//! the task's gradient and of `g_c`'s on the architecture's logits. A plain penalty in loss units
//! does not do: Adam divides by the root mean square of the sum, so that a penalty that is large
//! against the (small, noisy) task gradient erases the task's direction, and a small one never
//! meets the limit.
//!
//! **Hardware** (design spaces): `T`, `E`, `A` exist on every configuration `h`, and
//! `J(p) = sum_h q_h f(T_h(p), E_h(p), A_h)` takes their place, `q` the soft minimum over all
//! configurations (exact) or draws of the generation network. The price of a configuration is that
//! of one piece of hardware, never a product of means over several.
//!
//! Must not know: the supernet, tensors of training, how a configuration is proposed.

mod costs;
mod duals;
mod ram;

use jaq_cost::{CostModel, Figure, HardwareTable, Limits, ModelError, model_bytes};

use crate::space::Space;

pub use costs::{Costs, Probabilities};
pub use duals::{Duals, Limited};
use ram::live_ram;

/// Weights of the objective's terms: what each adds to the cross-entropy at its value where
/// nothing is decided yet.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CostWeights {
    /// `lambda` of work: instructions, or cycles. Work that is limited, by itself or as latency,
    /// has none.
    pub work: f64,
    /// `lambda` of flash.
    pub flash: f64,
    /// `lambda` of latency.
    pub latency: f64,
    /// `lambda` of energy.
    pub energy: f64,
    /// `lambda` of area.
    pub area: f64,
    /// `lambda` of energy times latency.
    pub edp: f64,
    /// `lambda` of energy times latency times area.
    pub edap: f64,
    /// `rho` of the limits: how stiff they are before their multipliers have grown.
    pub limit: f64,
}

impl Default for CostWeights {
    /// Those of microcontrollers.
    fn default() -> Self {
        CostWeights { work: 0.04, flash: 0.03, ..CostWeights::NONE }
    }
}

impl CostWeights {
    /// Limits alone.
    pub const NONE: CostWeights = CostWeights {
        work: 0.0,
        flash: 0.0,
        latency: 0.0,
        energy: 0.0,
        area: 0.0,
        edp: 0.0,
        edap: 0.0,
        limit: 4.0,
    };

    /// Whether the figure `f` or a product with it counts.
    fn wants(&self, figure: Figure) -> bool {
        let products = self.edp + self.edap;
        match figure {
            Figure::Work => self.work > 0.0,
            Figure::Flash => self.flash > 0.0,
            Figure::Latency => self.latency + products > 0.0,
            Figure::Energy => self.energy + products > 0.0,
        }
    }
}

/// The price of seconds, picojoules and square millimetres.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    weights: CostWeights,
    /// Latency, energy, area where nothing is decided.
    pub reference: [f64; 3],
}

impl Price {
    /// What counts.
    pub fn weights(&self) -> CostWeights {
        self.weights
    }

    /// The price, and its derivatives.
    pub fn at(&self, figures: [f64; 3]) -> (f64, [f64; 3]) {
        let scale = self.reference.map(|r| if r > 0.0 { 1.0 / r } else { 0.0 });
        let [t, e, a] = [0, 1, 2].map(|i| figures[i] * scale[i]);
        let CostWeights { latency, energy, area, edp, edap, .. } = self.weights;
        let value = latency * t + energy * e + area * a + edp * t * e + edap * t * e * a;
        let slopes = [
            latency + edp * e + edap * e * a,
            energy + edp * t + edap * t * a,
            area + edap * t * e,
        ];
        (value, [0, 1, 2].map(|i| slopes[i] * scale[i]))
    }
}

/// One figure of the objective on a fixed target.
#[derive(Clone, Debug)]
pub struct Term {
    /// Which.
    pub figure: Figure,
    /// Its cost tensor.
    pub costs: Costs,
    /// Its value where nothing is decided.
    pub reference: f64,
    /// What is not of any layer: the input's encoding, the model's header.
    pub constant: f64,
    weight: f64,
    limit: Option<f64>,
}

/// All of the objective but the cross-entropy.
#[derive(Clone, Debug)]
pub struct Objective {
    /// Work and flash; latency and energy where they count, on a fixed target.
    pub terms: Vec<Term>,
    /// Of latency, energy and area.
    pub price: Price,
    limits: Limits,
    /// Area of a fixed target.
    area_mm2: f64,
}

/// Configurations of a design space, and how one is taken of them.
pub struct Hardware<'a> {
    /// Their costs.
    pub table: &'a HardwareTable,
    /// How.
    pub chances: Chances<'a>,
}

/// Probabilities of configurations.
pub enum Chances<'a> {
    /// The soft minimum of their prices: `q_h ~ exp(-(f_h / min f - 1) / temperature)`. Those above
    /// the area that is allowed have none.
    SoftMinimum(f64),
    /// Given, one a configuration of the table.
    Given(&'a [f64]),
}

/// A limit at some probabilities.
#[derive(Clone, Debug)]
pub struct Excess {
    /// Of which figure.
    pub what: Limited,
    /// `g`: how much of the limit the figure is above it; negative where it is below.
    pub share: f64,
    /// Derivatives of `share`.
    pub gradient: Probabilities,
}

/// The objective at some probabilities.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// What the weighted figures add to the cross-entropy; limits are apart.
    pub value: f64,
    /// Derivatives of `value`.
    pub gradient: Probabilities,
    /// The limits.
    pub limits: Vec<Excess>,
    /// Expected figures, in the order of the terms.
    pub figures: Vec<f64>,
    /// Expected latency in seconds, energy in picojoules, area in square millimetres; 0 where
    /// the figure does not count.
    pub hardware: [f64; 3],
    /// Expected live RAM in bytes.
    pub ram_bytes: f64,
    /// Probability of every configuration, and its price with what limits add.
    pub configurations: Vec<(f64, f64)>,
}

impl Objective {
    /// Prices the space on a target.
    pub fn new(
        space: &Space,
        model: &impl CostModel,
        limits: &Limits,
        weights: CostWeights,
    ) -> Result<Objective, ModelError> {
        let uniform = Probabilities::uniform(space);
        let some = uniform.likeliest();
        let network = space.network(&some);
        let total = model.network(&network)?.total;
        let mut terms = Vec::new();
        let term = |figure, weight, limit: Option<f64>, whole: Option<f64>| {
            let costs = Costs::build(space, model, figure)?;
            let constant = whole.map_or(0.0, |whole| whole - costs.of(space, &some)).max(0.0);
            let reference = costs.expected(space, &uniform).0 + constant;
            Ok::<Term, ModelError>(Term { figure, costs, reference, constant, weight, limit })
        };
        let work = total.instructions.or(total.cycles.map(|c| c.typical));
        // Whoever sets a limit wants the best network within it, not a cheaper one.
        let lambda = if limits.on_work() { 0.0 } else { weights.work };
        terms.push(term(Figure::Work, lambda, limits.instructions, work)?);
        let flash = model_bytes(network.layers.len(), total.weights_bytes) as f64;
        let limit = limits.flash_bytes.map(|b| b as f64);
        terms.push(term(Figure::Flash, weights.flash, limit, Some(flash))?);
        let mut reference = [0.0, 0.0, total.area_mm2.unwrap_or(0.0)];
        for (i, (figure, limit, whole)) in [
            (Figure::Latency, limits.latency_s, total.latency_s),
            (Figure::Energy, limits.energy_pj, total.energy_pj),
        ]
        .into_iter()
        .enumerate()
        {
            if limit.is_some() || weights.wants(figure) {
                let found = term(figure, 0.0, limit, whole)?;
                reference[i] = found.reference;
                terms.push(found);
            }
        }
        let price = Price { weights, reference };
        let area_mm2 = total.area_mm2.unwrap_or(0.0);
        Ok(Objective { terms, price, limits: limits.clone(), area_mm2 })
    }

    /// Of a space of networks on a space of hardware: `reference` are latency, energy and area
    /// where nothing is decided.
    pub fn on_hardware(reference: [f64; 3], limits: &Limits, weights: CostWeights) -> Objective {
        let price = Price { weights, reference };
        Objective { terms: Vec::new(), price, limits: limits.clone(), area_mm2: 0.0 }
    }

    /// Value and derivatives at `p`; `duals` tell what limits add to the price of a
    /// configuration of `hardware`.
    pub fn evaluate(
        &self,
        space: &Space,
        p: &Probabilities,
        duals: &Duals,
        hardware: Option<&Hardware<'_>>,
    ) -> Evaluation {
        let mut found = Evaluation {
            value: 0.0,
            gradient: Probabilities::filled(space, |_| 0.0),
            limits: Vec::new(),
            figures: Vec::new(),
            hardware: [0.0, 0.0, self.area_mm2],
            ram_bytes: 0.0,
            configurations: Vec::new(),
        };
        match hardware {
            None => self.on_target(space, p, &mut found),
            Some(hardware) => self.on_table(space, p, duals, hardware, &mut found),
        }
        // Accelerators have no arena: their buffers are part of every cost.
        if let Some(limit) = self.limits.ram_bytes {
            let (bytes, grad) = live_ram(space, p);
            found.limit(Limited::Ram, bytes, limit as f64, grad);
        }
        found
    }

    fn on_target(&self, space: &Space, p: &Probabilities, found: &mut Evaluation) {
        let mut gradients: [Option<Probabilities>; 2] = [None, None];
        for term in &self.terms {
            let (sum, grad) = term.costs.expected(space, p);
            let figure = sum + term.constant;
            let slope = term.weight / term.reference.max(1e-30);
            found.value += slope * figure;
            found.gradient.add(&grad, slope);
            found.figures.push(figure);
            if let Some(limit) = term.limit {
                found.limit(Limited::of(term.figure), figure, limit, grad.clone());
            }
            let priced = [Figure::Latency, Figure::Energy].iter().position(|f| *f == term.figure);
            if let Some(i) = priced {
                found.hardware[i] = figure;
                gradients[i] = Some(grad);
            }
        }
        let (value, slopes) = self.price.at(found.hardware);
        found.value += value;
        for (slope, grad) in slopes.iter().zip(gradients) {
            grad.into_iter().for_each(|grad| found.gradient.add(&grad, *slope));
        }
    }

    fn on_table(
        &self,
        space: &Space,
        p: &Probabilities,
        duals: &Duals,
        hardware: &Hardware<'_>,
        found: &mut Evaluation,
    ) {
        let table = hardware.table;
        let chances = Costs::chances(space, p);
        let [seconds, pj] = table.totals(&chances);
        let figures: Vec<[f64; 3]> =
            (0..seconds.len()).map(|h| [seconds[h], pj[h], table.area_mm2(h)]).collect();
        let prices: Vec<f64> = figures.iter().map(|f| self.with_limits(*f, duals)).collect();
        let q: Vec<f64> = match hardware.chances {
            Chances::Given(q) => q.to_vec(),
            Chances::SoftMinimum(temperature) => {
                let allowed = self.limits.area_mm2.unwrap_or(f64::INFINITY);
                let open = |h: usize| figures[h][2] <= allowed;
                soft_minimum(&prices, temperature, open)
            }
        };
        let mut by = [vec![0.0f32; q.len()], vec![0.0f32; q.len()]];
        for (h, (figures, q)) in figures.iter().zip(&q).enumerate() {
            let (value, slopes) = self.price.at(*figures);
            found.value += q * value;
            (by[0][h], by[1][h]) = ((q * slopes[0]) as f32, (q * slopes[1]) as f32);
            found.hardware[2] += q * figures[2];
        }
        (found.hardware[0], found.hardware[1]) = (dot(&q, &seconds), dot(&q, &pj));
        let mean: Vec<f32> = q.iter().map(|q| *q as f32).collect();
        let [cost, seconds, pj] = table.over_hardware([&by[0], &by[1]], &mean);
        let backward = |cells: &[f32]| Costs::of_cells(space, cells).expected(space, p).1;
        found.gradient.add(&backward(&cost), 1.0);
        let [latency, energy, _] = found.hardware;
        for (what, figure, limit, cells) in [
            (Limited::Latency, latency, self.limits.latency_s, seconds),
            (Limited::Energy, energy, self.limits.energy_pj, pj),
        ] {
            if let Some(limit) = limit {
                found.limit(what, figure, limit, backward(&cells));
            }
        }
        found.configurations = q.into_iter().zip(prices).collect();
    }

    /// The price of every configuration with what limits add.
    pub fn prices(
        &self,
        space: &Space,
        p: &Probabilities,
        duals: &Duals,
        hardware: &Hardware<'_>,
    ) -> Vec<f64> {
        let [seconds, pj] = hardware.table.totals(&Costs::chances(space, p));
        let figures = |h: usize| [seconds[h], pj[h], hardware.table.area_mm2(h)];
        (0..seconds.len()).map(|h| self.with_limits(figures(h), duals)).collect()
    }

    /// The price of one configuration with what limits on latency and energy add; an area above
    /// the limit costs in proportion, for proposals that do not know the limit.
    fn with_limits(&self, figures: [f64; 3], duals: &Duals) -> f64 {
        let share = |figure: f64, limit: Option<f64>| limit.map(|limit| figure / limit - 1.0);
        let latency = share(figures[0], self.limits.latency_s);
        let energy = share(figures[1], self.limits.energy_pj);
        let area = share(figures[2], self.limits.area_mm2);
        let (price, _) = self.price.at(figures);
        price
            + latency.map_or(0.0, |g| duals.penalty(Limited::Latency, g))
            + energy.map_or(0.0, |g| duals.penalty(Limited::Energy, g))
            + area.map_or(0.0, |g| self.price.weights.limit * g.max(0.0))
    }

    /// The objective's price of one piece of hardware and network, limits aside.
    pub fn price_of(&self, figures: [f64; 3]) -> f64 {
        self.price.at(figures).0
    }
}

impl Evaluation {
    fn limit(&mut self, what: Limited, figure: f64, limit: f64, mut gradient: Probabilities) {
        if what == Limited::Ram {
            self.ram_bytes = figure;
        }
        gradient.scale(1.0 / limit.max(1e-30));
        self.limits.push(Excess { what, share: figure / limit.max(1e-30) - 1.0, gradient });
    }

    /// Value and derivatives with what the limits add.
    pub fn with_limits(&self, duals: &Duals) -> (f64, Probabilities) {
        let (mut value, mut gradient) = (self.value, self.gradient.clone());
        for excess in &self.limits {
            value += duals.penalty(excess.what, excess.share);
            gradient.add(&excess.gradient, duals.force(excess.what, excess.share));
        }
        (value, gradient)
    }
}

/// Weights that fall with the price, relative to the least of those that are `open`.
fn soft_minimum(prices: &[f64], temperature: f64, open: impl Fn(usize) -> bool) -> Vec<f64> {
    let least = (0..prices.len()).filter(|h| open(*h)).map(|h| prices[h]);
    let least = least.fold(f64::INFINITY, f64::min);
    let scale = 1.0 / (temperature * least.abs()).max(1e-12);
    let weight = |h: usize| match open(h) {
        true => (-(prices[h] - least) * scale).exp(),
        false => 0.0,
    };
    let mut q: Vec<f64> = (0..prices.len()).map(weight).collect();
    let sum: f64 = q.iter().sum::<f64>().max(1e-300);
    q.iter_mut().for_each(|q| *q /= sum);
    q
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
pub(crate) mod tests;
