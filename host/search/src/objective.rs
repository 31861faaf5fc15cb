//! The JAQ objective: task loss plus expected hardware cost under constraints.
//!
//! ```text
//! L = CE(weights, p) + sum_f lambda_f * E_p[f] / E_uniform[f] + mu * sum_f max(0, E_p[f] / limit_f - 1)
//! ```
//!
//! with `p` the search's probabilities of operators and widths and `f` the figures of the cost
//! model: work (instructions or cycles), flash, latency where it is limited, and live RAM. `CE` is
//! the supernet's; everything else is computed here, exactly, with its exact gradient: the cost of
//! a network is a sum over layers, a layer's cost depends on its operator and on three widths, and
//! those are drawn independently, so that the expectation is a contraction of a table of costs
//! (the cost tensor) with the probabilities. A skipped block hands on the widths of its input:
//! with `q` the distribution of a section's input width, `q' = p_skip * q + (1 - p_skip) * p_out`.
//!
//! Live RAM is a smooth stand-in for the arena: the largest sum over sections of expected bytes
//! that one layer holds. The arena itself is planned exactly when the result is discretized.
//!
//! Must not know: the supernet, tensors of training.

use jaq_cost::{CostModel, CostTable3, Figure, Limits, ModelError, model_bytes};
use jaq_network::{Bits, LayerBits, LayerShape, Op, TensorFormat};

use crate::space::{Choice, Space, Template};

/// Probabilities of every operator of every section and of every option of every gene; also used
/// for derivatives with respect to them.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Probabilities {
    pub operators: Vec<Vec<f64>>,
    pub widths: Vec<Vec<f64>>,
}

impl Probabilities {
    /// The same value `f(options)` everywhere.
    fn filled(space: &Space, f: impl Fn(usize) -> f64) -> Probabilities {
        let row = |n: usize| vec![f(n); n];
        Probabilities {
            operators: space.sections.iter().map(|s| row(s.operators.len())).collect(),
            widths: space.genes.iter().map(|g| row(g.options.len())).collect(),
        }
    }

    /// Nothing preferred.
    pub fn uniform(space: &Space) -> Probabilities {
        Probabilities::filled(space, |n| 1.0 / n as f64)
    }

    /// All on one network.
    pub fn certain(space: &Space, choice: &Choice) -> Probabilities {
        let mut p = Probabilities::filled(space, |_| 0.0);
        p.operators.iter_mut().zip(&choice.operators).for_each(|(row, i)| row[*i] = 1.0);
        p.widths.iter_mut().zip(&choice.widths).for_each(|(row, i)| row[*i] = 1.0);
        p
    }

    /// The likeliest network, the first of equals.
    pub fn likeliest(&self) -> Choice {
        let top = |row: &Vec<f64>| {
            (0..row.len()).rev().max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap_or(0)
        };
        Choice {
            operators: self.operators.iter().map(top).collect(),
            widths: self.widths.iter().map(top).collect(),
        }
    }

    fn add(&mut self, other: &Probabilities, factor: f64) {
        let rows = self.operators.iter_mut().chain(&mut self.widths);
        for (row, more) in rows.zip(other.operators.iter().chain(&other.widths)) {
            row.iter_mut().zip(more).for_each(|(a, b)| *a += factor * b);
        }
    }
}

/// One figure of every layer that may be chosen, by widths.
#[derive(Clone, Debug)]
pub struct Costs {
    /// By section, operator, layer.
    tables: Vec<Vec<Vec<CostTable3>>>,
}

impl Costs {
    /// Prices every layer of the space at every combination of widths.
    pub fn build(
        space: &Space,
        model: &impl CostModel,
        figure: Figure,
    ) -> Result<Costs, ModelError> {
        let mut tables = Vec::new();
        for (index, section) in space.sections.iter().enumerate() {
            let mut operators = Vec::new();
            for (_, layers) in &section.operators {
                let mut priced = Vec::new();
                for at in 0..layers.len() {
                    let (second, first) = inputs(space, index, layers, at);
                    let outputs = &space.genes[layers[at].activation].options;
                    let make = |w, i, o| shape(&layers[at], w, i, o);
                    priced.push(CostTable3::build(model, figure, make, second, first, outputs)?);
                }
                operators.push(priced);
            }
            tables.push(operators);
        }
        Ok(Costs { tables })
    }

    /// The figure of one network: the sum over its layers.
    pub fn of(&self, space: &Space, choice: &Choice) -> f64 {
        let mut entry = 0;
        let mut sum = 0.0;
        for (s, operator) in choice.operators.iter().enumerate() {
            let layers = &space.sections[s].operators[*operator].1;
            let mut current = entry;
            for (layer, table) in layers.iter().zip(&self.tables[s][*operator]) {
                let output = choice.widths[layer.activation];
                sum += match (layer.op, layer.weight) {
                    (Op::Add, _) => table.at(current, entry, output),
                    (_, Some(gene)) => table.at(choice.widths[gene], current, output),
                    (_, None) => table.at(0, current, output),
                };
                current = output;
            }
            entry = current;
        }
        sum
    }

    /// Expectation under `p` and its derivatives, exact.
    pub fn expected(&self, space: &Space, p: &Probabilities) -> (f64, Probabilities) {
        let widths = section_inputs(space, p);
        let mut value = 0.0;
        let mut grad = Probabilities::filled(space, |_| 0.0);
        let mut back = Back::new(&widths);
        for (s, section) in space.sections.iter().enumerate().rev() {
            back.hand_on(space, s, p, &widths, &mut grad);
            for (o, (_, layers)) in section.operators.iter().enumerate() {
                let probability = p.operators[s][o];
                let mut cost = 0.0;
                for (at, layer) in layers.iter().enumerate() {
                    let table = &self.tables[s][o][at];
                    let output = &p.widths[layer.activation];
                    let source = Source::of(layers, at);
                    let input = match source.first {
                        None => &widths[s],
                        Some(gene) => &p.widths[gene],
                    };
                    let certain = [1.0];
                    let second = source.second.map_or(&certain[..], |gene| &p.widths[gene]);
                    let g = table.gradient(second, input, output);
                    cost += g.output.iter().zip(output).map(|(g, p)| g * p).sum::<f64>();
                    let into = |row: &mut [f64], more: &[f64]| {
                        row.iter_mut().zip(more).for_each(|(a, b)| *a += probability * b);
                    };
                    into(&mut grad.widths[layer.activation], &g.output);
                    if let Some(gene) = source.second {
                        into(&mut grad.widths[gene], &g.weight);
                    }
                    match source.first {
                        None => into(&mut back.section[s], &g.input),
                        Some(gene) => into(&mut grad.widths[gene], &g.input),
                    }
                }
                value += probability * cost;
                grad.operators[s][o] += cost;
            }
        }
        // The network's input has one width, so nothing is left to hand on.
        (value, grad)
    }

    /// The network with the least figure, exactly (dynamic programming along the chain); genes it
    /// does not use are those of `others`.
    pub fn cheapest(&self, space: &Space, others: &Choice) -> Choice {
        // Best way to each width of the current tensor.
        let mut ways: Vec<Option<(f64, Choice)>> = vec![Some((0.0, others.clone()))];
        for (s, section) in space.sections.iter().enumerate() {
            let width =
                |layers: &Vec<Template>| Some(space.genes[layers.last()?.activation].options.len());
            let outputs =
                section.operators.iter().find_map(|(_, l)| width(l)).unwrap_or(ways.len());
            let mut next: Vec<Option<(f64, Choice)>> = vec![None; outputs];
            for (entry, way) in ways.iter().enumerate() {
                let Some((cost, choice)) = way else { continue };
                for (o, (_, layers)) in section.operators.iter().enumerate() {
                    let mut choice = choice.clone();
                    choice.operators[s] = o;
                    let mut inner = vec![None; entry + 1];
                    inner[entry] = Some((*cost, choice));
                    for (layer, table) in layers.iter().zip(&self.tables[s][o]) {
                        inner = step(space, layer, table, entry, &inner);
                    }
                    for (slot, way) in next.iter_mut().zip(inner) {
                        keep(slot, way);
                    }
                }
            }
            ways = next;
        }
        let best = ways.into_iter().flatten().min_by(|a, b| a.0.total_cmp(&b.0));
        best.map_or_else(|| others.clone(), |(_, choice)| choice)
    }
}

fn keep(slot: &mut Option<(f64, Choice)>, way: Option<(f64, Choice)>) {
    if let Some(way) = way
        && slot.as_ref().is_none_or(|best| way.0 < best.0)
    {
        *slot = Some(way);
    }
}

/// The best way to each output width of a layer, from the best ways to each width before it.
fn step(
    space: &Space,
    layer: &Template,
    table: &CostTable3,
    entry: usize,
    before: &[Option<(f64, Choice)>],
) -> Vec<Option<(f64, Choice)>> {
    let mut after = vec![None; space.genes[layer.activation].options.len()];
    for (input, way) in before.iter().enumerate() {
        let Some((cost, choice)) = way else { continue };
        for (output, slot) in after.iter_mut().enumerate() {
            let weights = layer.weight.map_or(1, |gene| space.genes[gene].options.len());
            for w in 0..weights {
                let more = match layer.op {
                    Op::Add => table.at(input, entry, output),
                    _ => table.at(w, input, output),
                };
                if slot.as_ref().is_none_or(|(best, _): &(f64, Choice)| cost + more < *best) {
                    let mut choice = choice.clone();
                    choice.widths[layer.activation] = output;
                    layer.weight.into_iter().for_each(|gene| choice.widths[gene] = w);
                    *slot = Some((cost + more, choice));
                }
            }
        }
    }
    after
}

/// Genes of a layer's two inputs. First: the tensor (`None`: the section's input); second: the
/// weights, or the other summand of an addition.
struct Source {
    first: Option<usize>,
    second: Option<usize>,
}

impl Source {
    fn of(layers: &[Template], at: usize) -> Source {
        let before = at.checked_sub(1).map(|i| layers[i].activation);
        match layers[at].op {
            Op::Add => Source { first: None, second: before },
            _ => Source { first: before, second: layers[at].weight },
        }
    }
}

/// Options of a layer's (weights or second input, first input).
fn inputs<'a>(
    space: &'a Space,
    section: usize,
    layers: &[Template],
    at: usize,
) -> (&'a [Bits], &'a [Bits]) {
    let source = Source::of(layers, at);
    let options = |gene: usize| &space.genes[gene].options[..];
    let first = source.first.map_or_else(|| space.input_widths(section), options);
    // A single entry stands for the width that a layer without weights does not have.
    (source.second.map_or(&[Bits::B8], options), first)
}

fn shape(layer: &Template, second: Bits, input: Bits, output: Bits) -> LayerShape {
    let plain = !layer.op.has_weights() && layer.op != Op::Add;
    let bits = LayerBits { weight: if plain { input } else { second }, input, output };
    LayerShape { op: layer.op, input: layer.input, output: layer.output, bits }
}

/// Distribution of the width of every section's input, and of what leaves the last.
fn section_inputs(space: &Space, p: &Probabilities) -> Vec<Vec<f64>> {
    let mut all = vec![p.widths[0].clone()];
    for (section, operators) in space.sections.iter().zip(&p.operators) {
        let mut next: Vec<f64> = Vec::new();
        for ((_, layers), probability) in section.operators.iter().zip(operators) {
            let leaves = layers.last().map_or(&all[all.len() - 1], |l| &p.widths[l.activation]);
            next.resize(leaves.len(), 0.0);
            next.iter_mut().zip(leaves).for_each(|(a, b)| *a += probability * b);
        }
        all.push(next);
    }
    all
}

/// Derivatives with respect to the width of every section's input.
struct Back {
    section: Vec<Vec<f64>>,
}

impl Back {
    fn new(widths: &[Vec<f64>]) -> Back {
        Back { section: widths.iter().map(|row| vec![0.0; row.len()]).collect() }
    }

    /// From a section's output to what made it: `section_inputs` backwards.
    fn hand_on(
        &mut self,
        space: &Space,
        s: usize,
        p: &Probabilities,
        widths: &[Vec<f64>],
        grad: &mut Probabilities,
    ) {
        let after = std::mem::take(&mut self.section[s + 1]);
        for (o, (_, layers)) in space.sections[s].operators.iter().enumerate() {
            let probability = p.operators[s][o];
            let (leaves, into) = match layers.last() {
                None => (&widths[s], &mut self.section[s]),
                Some(l) => (&p.widths[l.activation], &mut grad.widths[l.activation]),
            };
            grad.operators[s][o] += after.iter().zip(leaves).map(|(a, b)| a * b).sum::<f64>();
            into.iter_mut().zip(&after).for_each(|(a, b)| *a += probability * b);
        }
    }
}

/// Expected bytes that the fullest section holds while one of its layers runs, with derivatives:
/// input, output and, in a residual block, the block's input.
fn live_ram(space: &Space, p: &Probabilities) -> (f64, Probabilities) {
    let widths = section_inputs(space, p);
    let bytes = |shape, options: &[Bits]| -> Vec<f64> {
        options.iter().map(|b| TensorFormat { shape, bits: *b }.bytes() as f64).collect()
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    // A tensor held: its gene (`None`: the section's input) and its bytes at each width.
    type Held = (Option<usize>, Vec<f64>);
    let mut peak = (f64::NEG_INFINITY, 0, Vec::new());
    for (s, section) in space.sections.iter().enumerate() {
        let entry = space.input_widths(s);
        let held_at = |layers: &[Template], at: usize| -> Vec<Held> {
            let layer = &layers[at];
            let own = |gene: usize, shape| (Some(gene), bytes(shape, &space.genes[gene].options));
            let mut held = vec![own(layer.activation, layer.output)];
            if at > 0 {
                held.push(own(layers[at - 1].activation, layers[at - 1].output));
            }
            let residual = layers.last().is_some_and(|l| l.op == Op::Add);
            if at == 0 || residual {
                held.push((None, bytes(layers[0].input, entry)));
            }
            held
        };
        let size = |held: &Vec<Held>| -> f64 {
            held.iter().map(|(g, b)| dot(g.map_or(&widths[s], |g| &p.widths[g]), b)).sum()
        };
        let fullest = |layers: &Vec<Template>| {
            let all = (0..layers.len()).map(|at| held_at(layers, at));
            all.max_by(|a, b| size(a).total_cmp(&size(b))).unwrap_or_default()
        };
        let held: Vec<Vec<Held>> = section.operators.iter().map(|(_, l)| fullest(l)).collect();
        let expected = held.iter().zip(&p.operators[s]).map(|(h, p)| p * size(h)).sum();
        if expected > peak.0 {
            peak = (expected, s, held);
        }
    }
    let (value, s, held) = peak;
    let mut grad = Probabilities::filled(space, |_| 0.0);
    let mut back = Back::new(&widths);
    for (o, held) in held.iter().enumerate() {
        for (gene, bytes) in held {
            let (row, at) = match gene {
                None => (&widths[s], &mut back.section[s]),
                Some(gene) => (&p.widths[*gene], &mut grad.widths[*gene]),
            };
            grad.operators[s][o] += dot(row, bytes);
            at.iter_mut().zip(bytes).for_each(|(a, b)| *a += p.operators[s][o] * b);
        }
    }
    for before in (0..s).rev() {
        back.hand_on(space, before, p, &widths, &mut grad);
    }
    (value, grad)
}

/// Weights of the objective's terms.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CostWeights {
    /// `lambda` of work: what the whole cost of an undecided search adds to the cross-entropy.
    /// Work that is limited, by itself or as latency, has none.
    pub work: f64,
    /// `lambda` of flash.
    pub flash: f64,
    /// `mu`: what a figure of twice its limit adds.
    pub limit: f64,
}

impl Default for CostWeights {
    fn default() -> Self {
        CostWeights { work: 0.04, flash: 0.03, limit: 4.0 }
    }
}

/// One figure of the objective.
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
    /// Work, flash, and latency where it is limited.
    pub terms: Vec<Term>,
    ram_limit: Option<f64>,
    weights: CostWeights,
}

/// The objective at some probabilities.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// What is added to the cross-entropy.
    pub value: f64,
    /// Derivatives of `value`.
    pub gradient: Probabilities,
    /// Expected figures, in the order of the terms.
    pub figures: Vec<f64>,
    /// Expected live RAM in bytes.
    pub ram_bytes: f64,
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
        if let Some(limit) = limits.latency_s {
            terms.push(term(Figure::Latency, 0.0, Some(limit), total.latency_s)?);
        }
        let ram_limit = limits.ram_bytes.map(|b| b as f64);
        Ok(Objective { terms, ram_limit, weights })
    }

    /// Value and derivatives at `p`.
    pub fn evaluate(&self, space: &Space, p: &Probabilities) -> Evaluation {
        let mut value = 0.0;
        let mut gradient = Probabilities::filled(space, |_| 0.0);
        let mut figures = Vec::new();
        let mut add = |figure: f64, grad: &Probabilities, lambda: f64, limit: Option<f64>| {
            let over = limit.filter(|limit| figure > *limit);
            let slope = lambda + over.map_or(0.0, |limit| self.weights.limit / limit);
            value += lambda * figure
                + over.map_or(0.0, |limit| self.weights.limit * (figure / limit - 1.0));
            gradient.add(grad, slope);
        };
        for term in &self.terms {
            let (sum, grad) = term.costs.expected(space, p);
            let figure = sum + term.constant;
            add(figure, &grad, term.weight / term.reference, term.limit);
            figures.push(figure);
        }
        let (ram_bytes, grad) = live_ram(space, p);
        add(ram_bytes, &grad, 0.0, self.ram_limit);
        Evaluation { value, gradient, figures, ram_bytes }
    }
}

#[cfg(test)]
pub(crate) mod tests;
