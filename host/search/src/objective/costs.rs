//! The cost tensor of a space: one figure of every layer that may be chosen, at all its widths; its
//! expectation under the search's probabilities, the exact gradient, and the cheapest network.
//!
//! A layer's cost depends on its operator and on three widths, which are drawn independently, so
//! that the expectation is a contraction. A skipped block hands on the widths of its input: with
//! `q` the distribution of a section's input width, `q' = p_skip * q + (1 - p_skip) * p_out`.
//!
//! Must not know: limits, weights of figures, training.

use jaq_cost::{CostModel, CostTable3, Figure, ModelError};
use jaq_network::{Bits, LayerBits, LayerShape, Op};

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
    pub(super) fn filled(space: &Space, f: impl Fn(usize) -> f64) -> Probabilities {
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

    pub(super) fn scale(&mut self, factor: f64) {
        let rows = self.operators.iter_mut().chain(&mut self.widths);
        rows.flatten().for_each(|v| *v *= factor);
    }

    /// Derivatives by the logits whose softmax is `p`, where these are derivatives by `p`:
    /// operators, then widths.
    pub fn by_logits(&self, p: &Probabilities) -> Vec<Vec<f32>> {
        let rows = self.operators.iter().chain(&self.widths);
        let rows = rows.zip(p.operators.iter().chain(&p.widths));
        rows.map(|(g, p)| {
            let mean: f64 = g.iter().zip(p).map(|(g, p)| g * p).sum();
            g.iter().zip(p).map(|(g, p)| (p * (g - mean)) as f32).collect()
        })
        .collect()
    }

    pub(super) fn add(&mut self, other: &Probabilities, factor: f64) {
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

    /// Every layer at every combination of widths, in the order of cells: section, operator, layer,
    /// second input or weights, input, output (the fastest).
    pub fn shapes(space: &Space) -> Vec<LayerShape> {
        let mut cells = Vec::new();
        visit(space, |section, layers, at| {
            let (second, first) = inputs(space, section, layers, at);
            for &w in second {
                for &i in first {
                    for &o in &space.genes[layers[at].activation].options {
                        cells.push(shape(&layers[at], w, i, o));
                    }
                }
            }
        });
        cells
    }

    /// Costs that are known cell by cell.
    pub fn of_cells(space: &Space, values: &[f32]) -> Costs {
        let mut left = values;
        let mut tables: Vec<Vec<Vec<CostTable3>>> =
            space.sections.iter().map(|s| vec![Vec::new(); s.operators.len()]).collect();
        for (s, section) in space.sections.iter().enumerate() {
            for (o, (_, layers)) in section.operators.iter().enumerate() {
                for at in 0..layers.len() {
                    let (second, first) = inputs(space, s, layers, at);
                    let outputs = space.genes[layers[at].activation].options.len();
                    let (own, rest) = left.split_at(second.len() * first.len() * outputs);
                    let own = own.iter().map(|v| f64::from(*v)).collect();
                    tables[s][o].push(CostTable3::of(second.len(), first.len(), outputs, own));
                    left = rest;
                }
            }
        }
        Costs { tables }
    }

    /// The probability of every cell to be part of a drawn network.
    pub fn chances(space: &Space, p: &Probabilities) -> Vec<f32> {
        let widths = section_inputs(space, p);
        let mut chances = Vec::new();
        for (s, section) in space.sections.iter().enumerate() {
            for ((_, layers), operator) in section.operators.iter().zip(&p.operators[s]) {
                for (at, layer) in layers.iter().enumerate() {
                    let source = Source::of(layers, at);
                    let first = source.first.map_or(&widths[s], |gene| &p.widths[gene]);
                    let certain = [1.0];
                    let second = source.second.map_or(&certain[..], |gene| &p.widths[gene]);
                    for w in second {
                        for i in first {
                            let joint = operator * w * i;
                            let output = &p.widths[layer.activation];
                            chances.extend(output.iter().map(|o| (joint * o) as f32));
                        }
                    }
                }
            }
        }
        chances
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

    /// The network with the largest figure, exactly.
    pub fn dearest(&self, space: &Space, others: &Choice) -> Choice {
        let mut tables = self.tables.clone();
        visit(space, |section, layers, at| {
            let count = inputs(space, section, layers, at).0.len();
            let operators = &space.sections[section].operators;
            let own = operators.iter().position(|(_, l)| std::ptr::eq(&l[..], layers));
            let table = &mut tables[section][own.expect("visited there")][at];
            *table = table.clone().with_weight_factors(&vec![-1.0; count]);
        });
        Costs { tables }.cheapest(space, others)
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

/// Calls `f(section, layers of an operator, index of the layer)` in the order of cells.
fn visit(space: &Space, mut f: impl FnMut(usize, &[Template], usize)) {
    for (index, section) in space.sections.iter().enumerate() {
        for (_, layers) in &section.operators {
            (0..layers.len()).for_each(|at| f(index, layers, at));
        }
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
pub(super) fn section_inputs(space: &Space, p: &Probabilities) -> Vec<Vec<f64>> {
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
pub(super) struct Back {
    pub(super) section: Vec<Vec<f64>>,
}

impl Back {
    pub(super) fn new(widths: &[Vec<f64>]) -> Back {
        Back { section: widths.iter().map(|row| vec![0.0; row.len()]).collect() }
    }

    /// From a section's output to what made it: `section_inputs` backwards.
    pub(super) fn hand_on(
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
