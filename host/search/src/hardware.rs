//! The hardware side of a co-search: a space of accelerators beside the space of networks.
//!
//! Two ways, with one objective and one result. **Exact** ([`Method::Exact`]): the cost tensor of
//! all cells on all configurations; an iteration takes the soft minimum over all of them, so that
//! the hardware is always the best answer to the network as it stands. **Generator**
//! ([`Method::Generator`]): the hardware generation network proposes draws and learns by their
//! price; only what it draws is ever priced, so that the space may be too large for a table.
//!
//! A cell is a layer at its widths. On arrays that store whole accumulators the output's width
//! changes nothing, and those cells are one.
//!
//! Must not know: supernets, training images.

use std::sync::OnceLock;

use jaq_cost::{
    Demand, DesignSpace, FinalBits, HardwareCosts, HardwareTable, Limits, ModelError, TiledModel,
    Workload,
};
use jaq_network::{Bits, LayerShape, Network};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::checkpoint::Values;
use crate::cosearch::SearchConfig;
use crate::discretize::{Discretizer, Infeasible, Priced};
use crate::generator::{Generator, draw, gradient};
use crate::objective::{
    Chances, CostWeights, Costs, Duals, Evaluation, Hardware, Objective, Probabilities,
};
use crate::ops::Backend;
use crate::optim::{Moments, Optimizer, Rule};
use crate::rng::{Purpose, Rng};
use crate::space::Space;

/// How hardware is searched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The cost tensor of all configurations.
    #[default]
    Exact,
    /// The hardware generation network.
    Generator,
}

/// Draws of the generation network in a step, and steps of it in one of the architecture.
const DRAWS: usize = 16;
const UPDATES: u64 = 4;
/// Its learning rate (Adam).
const RATE: f32 = 0.02;
/// Temperature of the soft minimum, first and last, relative to the least price.
const TEMPERATURE: [f64; 2] = [0.5, 0.02];
/// Configurations that a network is sought on before the search gives up.
const TRIES: usize = 48;

/// A space of accelerators with the cells of a space of networks.
pub struct Designs {
    space: DesignSpace,
    costs: HardwareCosts,
    table: OnceLock<HardwareTable>,
}

impl Designs {
    /// Prices nothing yet. Mappings are the best for what `weights` ask for.
    pub fn new(
        networks: &Space,
        space: DesignSpace,
        weights: &CostWeights,
        limits: &Limits,
    ) -> Designs {
        let whole = space.at(0).is_ok_and(|array| array.outputs.r#final == FinalBits::Accumulator)
            && !space.axes().any(|(path, _)| path.starts_with("outputs"));
        let cell = |shape: &LayerShape| {
            let mut shape = *shape;
            if whole && shape.op.has_weights() {
                shape.bits.output = Bits::B8;
            }
            vec![Workload::from(&shape)]
        };
        let cells = Costs::shapes(networks).iter().map(cell).collect();
        let make = {
            let space = space.clone();
            move |index: usize| Ok(space.at(index)?)
        };
        let costs =
            HardwareCosts::new(space.len(), make, cells, mapping_objective(weights, limits));
        Designs { space, costs, table: OnceLock::new() }
    }

    /// The space of accelerators.
    pub fn space(&self) -> &DesignSpace {
        &self.space
    }

    /// Number of cells, of those that differ, and of configurations.
    pub fn size(&self) -> [usize; 3] {
        let (cells, configurations) = self.costs.size();
        [cells, self.costs.distinct(), configurations]
    }

    /// A configuration's cost model.
    pub fn model(&self, configuration: usize) -> Result<&TiledModel, ModelError> {
        self.costs.model(configuration)
    }

    /// The whole cost tensor, made once.
    pub fn table(&self) -> Result<&HardwareTable, ModelError> {
        if let Some(table) = self.table.get() {
            return Ok(table);
        }
        let made = self.costs.table()?;
        Ok(self.table.get_or_init(|| made))
    }

    /// Latency, energy and area where nothing is decided: medians over a few configurations spread
    /// over the space, the same for both methods.
    pub fn reference(&self, networks: &Space) -> Result<[f64; 3], ModelError> {
        let count = self.space.len().min(15);
        // Coprime to the sizes of axes, so that all of them change.
        let some: Vec<usize> =
            (0..count).map(|i| (i * self.space.len() / count + 7 * i) % self.space.len()).collect();
        let table = self.costs.table_of(&some)?;
        let [seconds, pj] =
            table.totals(&Costs::chances(networks, &Probabilities::uniform(networks)));
        let median = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let area = (0..table.hardware()).map(|h| table.area_mm2(h)).collect();
        Ok([median(seconds), median(pj), median(area)])
    }

    /// Fails where no network on any of the likeliest configurations meets the limits.
    pub fn check(
        &self,
        networks: &Space,
        objective: &Objective,
        limits: &Limits,
    ) -> Result<(), Infeasible> {
        let limited = limits.on_work() || limits.energy_pj.is_some() || limits.area_mm2.is_some();
        if !limited {
            return Ok(());
        }
        let p = Probabilities::uniform(networks);
        let order = self.by_speed(limits)?;
        choose_hardware(networks, self, objective, limits, &p, &order, Method::Generator)
            .map(|_| ())
    }

    /// Configurations within the area, those with the widest arrays and the most bandwidth last
    /// in their axes, first; all by area where none is within.
    fn by_speed(&self, limits: &Limits) -> Result<Vec<usize>, ModelError> {
        let allowed = limits.area_mm2.unwrap_or(f64::INFINITY);
        let areas: Vec<f64> = (0..self.space.len())
            .into_par_iter()
            .map(|h| Ok(self.space.at(h)?.prices().map_or(f64::INFINITY, |p| p.area_mm2)))
            .collect::<Result<_, ModelError>>()?;
        let mut within: Vec<usize> = (0..areas.len()).filter(|h| areas[*h] <= allowed).collect();
        if within.is_empty() {
            let least = (0..areas.len()).min_by(|a, b| areas[*a].total_cmp(&areas[*b]));
            return Ok(least.into_iter().collect());
        }
        let height = |h: &usize| -> usize { self.space.indices(*h).iter().sum() };
        within.sort_by_key(|h| std::cmp::Reverse(height(h)));
        within.truncate(TRIES / 4);
        Ok(within)
    }

    /// The configuration on which a network is cheapest within the limits, by trying all of them:
    /// its index, latency, energy and area.
    pub fn optimum(
        &self,
        network: &Network,
        objective: &Objective,
        limits: &Limits,
    ) -> Result<Option<(usize, [f64; 3])>, ModelError> {
        let layers = Workload::of(network, None);
        let found: Vec<Option<[f64; 3]>> = (0..self.space.len())
            .into_par_iter()
            .map(|h| {
                let model = self.model(h)?;
                let area = model.prices.area_mm2;
                if limits.area_mm2.is_some_and(|limit| area > limit) {
                    return Ok(None);
                }
                let mut sum = [0.0, 0.0, area];
                for (_, work) in &layers {
                    let cost = match jaq_cost::CostModel::workload(model, work) {
                        Err(ModelError::Unsupported { .. }) => return Ok(None),
                        other => other?,
                    };
                    sum[0] += cost.latency_s.unwrap_or(0.0);
                    sum[1] += cost.energy_pj.unwrap_or(0.0);
                }
                let over = |figure: f64, limit: Option<f64>| limit.is_some_and(|l| figure > l);
                let late = over(sum[0], limits.latency_s) || over(sum[1], limits.energy_pj);
                Ok((!late).then_some(sum))
            })
            .collect::<Result<_, ModelError>>()?;
        let found = found.into_iter().enumerate().filter_map(|(h, f)| Some((h, f?)));
        Ok(found.min_by(|a, b| objective.price_of(a.1).total_cmp(&objective.price_of(b.1))))
    }
}

/// What mappings are the best of.
pub fn mapping_objective(weights: &CostWeights, limits: &Limits) -> jaq_cost::Objective {
    let products = weights.edp + weights.edap;
    let latency = weights.latency + products > 0.0 || limits.latency_s.is_some();
    let energy = weights.energy + products > 0.0 || limits.energy_pj.is_some();
    match (latency, energy) {
        (true, true) => jaq_cost::Objective::Edp,
        (false, true) => jaq_cost::Objective::Energy,
        _ => jaq_cost::Objective::Latency,
    }
}

/// A network and an accelerator that together meet every limit: the likeliest network on the first
/// of the proposed configurations that allows it; then, of the exact method, the best configuration
/// for that network.
pub fn choose_hardware(
    networks: &Space,
    designs: &Designs,
    objective: &Objective,
    limits: &Limits,
    p: &Probabilities,
    proposals: &[usize],
    method: Method,
) -> Result<(Priced, usize), Infeasible> {
    let weights = CostWeights { work: 0.0, flash: 0.0, ..objective.price.weights() };
    let on = |configuration: usize| -> Result<Priced, Infeasible> {
        let model = designs.model(configuration)?;
        let fixed = Objective::new(networks, model, limits, weights)?;
        Discretizer::new(networks, model, &fixed, limits).choose(p)
    };
    let fastest = match proposals.is_empty() {
        true => designs.by_speed(limits)?,
        false => Vec::new(),
    };
    let mut failed = None;
    for &configuration in proposals.iter().chain(&fastest).take(TRIES) {
        match on(configuration) {
            Ok(priced) if method == Method::Exact => {
                return better(networks, designs, objective, limits, priced, configuration);
            }
            Ok(priced) => return Ok((priced, configuration)),
            // The first is the most promising: its complaint is the one to tell.
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.unwrap_or_else(|| Infeasible::Limits {
        space: designs.space.name.clone(),
        misses: Vec::new(),
    }))
}

fn better(
    networks: &Space,
    designs: &Designs,
    objective: &Objective,
    limits: &Limits,
    priced: Priced,
    configuration: usize,
) -> Result<(Priced, usize), Infeasible> {
    let network = networks.network(&priced.choice);
    let best = designs.optimum(&network, objective, limits)?;
    let Demand { latency_s, energy_pj, area_mm2, .. } = priced.demand;
    let own = objective.price_of([latency_s, energy_pj, area_mm2].map(|f| f.unwrap_or(0.0)));
    let Some((best, _)) = best.filter(|(_, figures)| objective.price_of(*figures) < own) else {
        return Ok((priced, configuration));
    };
    let cost = jaq_cost::CostModel::network(designs.model(best)?, &network)?;
    let demand = Demand::of(&network, &cost.total, 0);
    match limits.check(&demand).is_empty() {
        true => Ok((Priced { cost, demand, ..priced }, best)),
        false => Ok((priced, configuration)),
    }
}

/// One search's hardware side.
pub struct Side<'a, B: Backend> {
    designs: &'a Designs,
    networks: &'a Space,
    seed: u64,
    generated: Option<(Generator<B>, Optimizer)>,
}

impl<'a, B: Backend> Side<'a, B> {
    /// Prices the table, or sets up the generation network.
    pub fn new(
        b: &B,
        designs: &'a Designs,
        networks: &'a Space,
        config: &SearchConfig,
    ) -> Result<Side<'a, B>, ModelError> {
        let seed = config.seed;
        let generated = match config.hardware {
            Method::Exact => {
                designs.table()?;
                None
            }
            Method::Generator => {
                let features = features(&Probabilities::uniform(networks)).len();
                let options: Vec<usize> = designs.space.axes().map(|(_, n)| n).collect();
                let rule = Rule::Adam { beta1: 0.5, beta2: 0.99, weight_decay: 0.0 };
                Some((Generator::new(b, features, &options, seed), Optimizer::new(rule)))
            }
        };
        Ok(Side { designs, networks, seed, generated })
    }

    /// The objective at `p` on the hardware as it is proposed at the share `t` of the search; the
    /// generation network learns.
    pub fn step(
        &mut self,
        b: &B,
        objective: &Objective,
        p: &Probabilities,
        duals: &Duals,
        t: f64,
        step: u64,
    ) -> Result<Evaluation, ModelError> {
        let Some((generator, optimizer)) = &mut self.generated else {
            return exact(self.designs, self.networks, objective, p, duals, t);
        };
        let input = features(p);
        let vars: Vec<B::Var> = generator.parameters().iter().map(|p| p.var.clone()).collect();
        let mut last = None;
        for update in 0..UPDATES {
            let heads = generator.heads(b, &input);
            let q: Vec<Vec<f32>> = heads.iter().map(|head| b.to_vec(head)).collect();
            let mut rng = Rng::at(self.seed, Purpose::Hardware, step * UPDATES + update);
            let draws = draw(&q, DRAWS, &mut rng);
            let indices: Vec<usize> = draws.iter().map(|at| self.designs.space.index(at)).collect();
            let table = self.designs.costs.table_of(&indices)?;
            let chances = [1.0 / DRAWS as f64; DRAWS];
            let hardware = Hardware { table: &table, chances: Chances::Given(&chances) };
            let prices = objective.prices(self.networks, p, duals, &hardware);
            let loss = b.external(0.0, &heads, &gradient(&q, &draws, &prices));
            optimizer.step(b, generator.parameters(), &b.grad(loss, &vars), RATE);
            last = Some(table);
        }
        let table = last.expect("there is an update");
        let chances = [1.0 / DRAWS as f64; DRAWS];
        let hardware = Hardware { table: &table, chances: Chances::Given(&chances) };
        Ok(objective.evaluate(self.networks, p, duals, Some(&hardware)))
    }

    /// Configurations, the most promising first: by price on the table, by probability else.
    pub fn proposals(
        &self,
        b: &B,
        objective: &Objective,
        p: &Probabilities,
        duals: &Duals,
    ) -> Result<Vec<usize>, ModelError> {
        let Some((generator, _)) = &self.generated else {
            let found = exact(self.designs, self.networks, objective, p, duals, 1.0)?;
            let mut order: Vec<usize> = (0..found.configurations.len())
                .filter(|h| found.configurations[*h].0 > 0.0)
                .collect();
            let price = |h: usize| found.configurations[h].1;
            order.sort_by(|a, b| price(*a).total_cmp(&price(*b)));
            return Ok(order);
        };
        let heads = generator.heads(b, &features(p));
        let q: Vec<Vec<f32>> = heads.iter().map(|head| b.to_vec(head)).collect();
        let mode: Vec<usize> = q
            .iter()
            .map(|head| {
                (0..head.len()).rev().max_by(|a, b| head[*a].total_cmp(&head[*b])).unwrap_or(0)
            })
            .collect();
        // The mode, then what differs in one parameter, then draws: each once, the likelier first.
        let mut around = vec![mode.clone()];
        for axis in 0..mode.len() {
            for value in 0..q[axis].len() {
                let mut other = mode.clone();
                other[axis] = value;
                around.push(other);
            }
        }
        around.extend(draw(&q, 64, &mut Rng::at(self.seed, Purpose::Hardware, u64::MAX)));
        let likelihood = |at: &Vec<usize>| -> f64 {
            at.iter().zip(&q).map(|(i, head)| f64::from(head[*i].max(1e-9)).ln()).sum()
        };
        around.sort_by(|a, b| likelihood(b).total_cmp(&likelihood(a)).then(a.cmp(b)));
        around.dedup();
        Ok(around.iter().map(|at| self.designs.space.index(at)).collect())
    }

    /// What a checkpoint must hold of it.
    pub fn values(&self, b: &B) -> Values {
        let parameters = self.generated.iter().flat_map(|(g, _)| g.parameters());
        parameters.map(|p| (p.name.clone(), b.var_to_vec(&p.var))).collect()
    }

    /// The generation network's optimizer.
    pub fn optimizer(&self) -> Option<&Optimizer> {
        self.generated.as_ref().map(|(_, optimizer)| optimizer)
    }

    /// Takes over what a checkpoint holds.
    pub fn restore(
        &mut self,
        b: &B,
        values: &Values,
        memory: Option<&std::collections::BTreeMap<String, Moments>>,
    ) {
        let Some((generator, optimizer)) = &mut self.generated else { return };
        for parameter in generator.parameters() {
            if let Some(value) = values.get(&parameter.name) {
                b.assign(&parameter.var, value);
            }
        }
        optimizer.state = memory.cloned().unwrap_or_default();
    }
}

/// The objective on all configurations, at the share `t` of the search.
fn exact(
    designs: &Designs,
    networks: &Space,
    objective: &Objective,
    p: &Probabilities,
    duals: &Duals,
    t: f64,
) -> Result<Evaluation, ModelError> {
    let [first, last] = TEMPERATURE;
    let temperature = first * (last / first).powf(t);
    let chances = Chances::SoftMinimum(temperature);
    let hardware = Hardware { table: designs.table()?, chances };
    Ok(objective.evaluate(networks, p, duals, Some(&hardware)))
}

/// What the generation network sees: all probabilities.
fn features(p: &Probabilities) -> Vec<f32> {
    p.operators.iter().chain(&p.widths).flatten().map(|p| *p as f32).collect()
}

#[cfg(test)]
pub(crate) mod tests;
