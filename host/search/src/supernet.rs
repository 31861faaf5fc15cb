//! The weight-sharing supernet: every operator of every section, with probabilities of operators
//! and widths.
//!
//! Kernel sizes share the centre of the largest kernel, expansions the first channels of the
//! widest; normalizations belong to each operator, because their statistics differ. A quantizer
//! is the expectation over its widths as one operator
//! ([`Backend::mixed_quant`]), so memory does not grow with the
//! number of widths. Of the operators of a section one or two run in a step.
//!
//! Must not know: data sets, costs, schedules.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use jaq_network::{Op, Window};
use serde::{Deserialize, Serialize};

use crate::checkpoint::Values;
use crate::csq::Marks;
use crate::objective::Probabilities;
use crate::ops::{Activation, Backend, Grid, Norm, Options, Slide};
use crate::optim::Parameter;
use crate::quant::{first_step, first_steps};
use crate::rng::{Purpose, Rng};
use crate::space::{Choice, Space, Template};
use crate::subnet::grid;

/// A parameter with its shape.
struct Shared<V> {
    var: V,
    shape: Vec<usize>,
}

/// What runs in a step.
pub struct Path<T> {
    /// Operators of every section.
    pub operators: Vec<Vec<usize>>,
    /// Weights of a section's operators, `[k]`, where several run.
    pub mix: Vec<Option<T>>,
    /// Probabilities of every gene's widths, `[options]`; `None` for real values.
    pub widths: Option<Vec<T>>,
    /// Quantized channels by normalization; all where there is no entry.
    pub channels: Rc<Marks>,
}

/// Which operators of a section run in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mixture {
    /// One for the weights, two mixed by their logits for the architecture: the memory of two.
    #[default]
    Drawn,
    /// All, mixed by their logits, for both: the memory of all.
    Full,
}

/// What a pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Weights and quantizer steps get gradients.
    Weights,
    /// They do not: the path's probabilities may.
    Architecture,
    /// Steps are set to fit the batch.
    Calibrate,
}

/// The supernet with its architecture parameters.
pub struct Supernet<'a, B: Backend> {
    space: &'a Space,
    shared: BTreeMap<String, Shared<B::Var>>,
    /// Logits of every section's operators and of every gene's widths.
    operators: Vec<B::Var>,
    widths: Vec<B::Var>,
}

impl<'a, B: Backend> Supernet<'a, B> {
    /// Fresh weights, nothing preferred.
    pub fn new(backend: &B, space: &'a Space, seed: u64) -> Supernet<'a, B> {
        let mut net =
            Supernet { space, shared: BTreeMap::new(), operators: Vec::new(), widths: Vec::new() };
        let zeros = |n: usize| backend.var(&vec![0.0; n], &[n]);
        net.operators = space.sections.iter().map(|s| zeros(s.operators.len())).collect();
        net.widths = space.genes.iter().map(|g| zeros(g.options.len())).collect();
        for (s, o, layer) in all_layers(space) {
            let largest = largest(space, layer);
            let (oc, ic) = (usize::from(largest.output.c), usize::from(largest.input.c));
            let window = largest.op.window();
            let (kh, kw) = (usize::from(window.kh), usize::from(window.kw));
            let shape = match layer.op {
                Op::Conv(_) => vec![oc, ic, kh, kw],
                Op::Depthwise(_) => vec![oc, kh, kw],
                Op::Linear => vec![oc, ic],
                _ => Vec::new(),
            };
            let weight = format!("{}.weight", layer.shared);
            if !shape.is_empty() && !net.shared.contains_key(&weight) {
                let mut rng = Rng::at(seed, Purpose::Init, net.shared.len() as u64);
                let count: usize = shape.iter().product();
                let deviation = (2.0 * oc as f32 / count as f32).sqrt();
                let fresh: Vec<f32> = (0..count).map(|_| rng.normal() * deviation).collect();
                net.insert(backend, weight.clone(), &fresh, shape);
                let options = layer.weight.map_or(1, |g| space.genes[g].options.len());
                net.insert(
                    backend,
                    format!("{weight}.step"),
                    &vec![1.0; options * oc],
                    vec![options, oc],
                );
            }
            let channels = usize::from(layer.output.c);
            let (gamma, beta) = norm_names(space, s, o, layer);
            if matches!(layer.op, Op::Conv(_) | Op::Depthwise(_)) {
                net.insert(backend, gamma, &vec![1.0; channels], vec![channels]);
            }
            if layer.op.has_weights() {
                net.insert(backend, beta, &vec![0.0; channels], vec![channels]);
            }
            let gene = &space.genes[layer.activation];
            let (n, name) = (gene.options.len(), format!("{}.step", gene.name));
            net.insert(backend, name, &vec![1.0; n], vec![n]);
        }
        net
    }

    fn insert(&mut self, backend: &B, name: String, data: &[f32], shape: Vec<usize>) {
        let make = || Shared { var: backend.var(data, &shape), shape: shape.clone() };
        self.shared.entry(name).or_insert_with(make);
    }

    /// Weights, normalizations and quantizer steps.
    pub fn weights(&self) -> Vec<Parameter<B::Var>> {
        let kind = |(name, shared): (&String, &Shared<B::Var>)| {
            let (name, var) = (name.clone(), shared.var.clone());
            match () {
                () if name.ends_with(".step") => Parameter::step(name, var),
                () if name.ends_with(".weight") => Parameter::new(name, var),
                () => Parameter::undecayed(name, var),
            }
        };
        self.shared.iter().map(kind).collect()
    }

    /// Scales of all batch normalizations by name.
    pub fn scales(&self, backend: &B) -> Vec<(String, Vec<f32>)> {
        let gammas = self.shared.iter().filter(|(name, _)| name.ends_with(".gamma"));
        gammas.map(|(name, shared)| (name.clone(), backend.var_to_vec(&shared.var))).collect()
    }

    /// Logits of operators, then of widths.
    pub fn architecture(&self) -> Vec<Parameter<B::Var>> {
        let operators = self.space.sections.iter().zip(&self.operators);
        let operators = operators.map(|(s, v)| (format!("{}.operators", s.name), v));
        let widths = self.space.genes.iter().zip(&self.widths);
        let widths = widths.map(|(g, v)| (format!("{}.widths", g.name), v));
        let named = operators.chain(widths);
        named.map(|(name, var)| Parameter::undecayed(name, var.clone())).collect()
    }

    /// Everything by name, for checkpoints.
    pub fn values(&self, backend: &B) -> Values {
        let all = self.weights().into_iter().chain(self.architecture());
        all.map(|p| (p.name, backend.var_to_vec(&p.var))).collect()
    }

    /// Takes over what [`Supernet::values`] gave; false where something does not fit.
    pub fn restore(&self, backend: &B, values: &Values) -> bool {
        self.weights().into_iter().chain(self.architecture()).all(|p| {
            let found = values.get(&p.name);
            let found = found.filter(|v| v.len() == backend.var_to_vec(&p.var).len());
            found.map(|v| backend.assign(&p.var, v)).is_some()
        })
    }

    /// Takes over the weights that [`Supernet::values`] of a supernet gave which may have other
    /// widths: what has its name and its length. Says which.
    pub fn adopt(&self, backend: &B, values: &Values) -> BTreeSet<String> {
        let mut taken = BTreeSet::new();
        for p in self.weights() {
            let fits = |v: &&Vec<f32>| v.len() == backend.var_to_vec(&p.var).len();
            if let Some(found) = values.get(&p.name).filter(fits) {
                backend.assign(&p.var, found);
                taken.insert(p.name);
            }
        }
        taken
    }

    /// The inverse of [`Supernet::inherit`]: puts a network's values where it has its place. What
    /// it shares with larger layers is left alone.
    pub fn place(&self, backend: &B, choice: &Choice, values: &Values) {
        for (s, o) in choice.operators.iter().enumerate() {
            let section = &self.space.sections[s];
            for layer in &section.operators[*o].1 {
                let (gamma, beta) = norm_names(self.space, s, *o, layer);
                let weight = format!("{}.weight", layer.shared);
                for (to, part) in [(weight, "weight"), (gamma, "gamma"), (beta, "beta")] {
                    let from = values.get(&format!("{}.{}.{part}", section.name, layer.role));
                    let (Some(shared), Some(from)) = (self.shared.get(&to), from) else { continue };
                    if shared.shape.iter().product::<usize>() == from.len() {
                        backend.assign(&shared.var, from);
                    }
                }
            }
        }
    }

    /// Softmax of the logits, as leaves that gradients flow to: operators, then widths.
    pub fn distributions(&self, backend: &B) -> (Vec<B::Tensor>, Vec<B::Tensor>) {
        let softmax = |v: &B::Var| backend.softmax(&backend.leaf(v));
        (self.operators.iter().map(softmax).collect(), self.widths.iter().map(softmax).collect())
    }

    /// The same as plain numbers.
    pub fn probabilities(&self, backend: &B) -> Probabilities {
        let (operators, widths) = self.distributions(backend);
        let rows = |all: Vec<B::Tensor>| -> Vec<Vec<f64>> {
            let row = |t: &B::Tensor| backend.to_vec(t).into_iter().map(f64::from).collect();
            all.iter().map(row).collect()
        };
        Probabilities { operators: rows(operators), widths: rows(widths) }
    }

    /// Draws a path: operators as `mixture` says, widths by Gumbel-softmax at `temperature`
    /// (`None`: real values). Gradients reach the logits in an architecture pass only.
    pub fn draw(
        &self,
        backend: &B,
        rng: &mut Rng,
        pass: Pass,
        mixture: Mixture,
        temperature: Option<f32>,
    ) -> Path<B::Tensor> {
        let b = backend;
        let p = self.probabilities(b);
        let learns = pass == Pass::Architecture;
        let leaf = |v: &B::Var| if learns { b.leaf(v) } else { b.detach(&b.leaf(v)) };
        let mut path =
            Path { operators: Vec::new(), mix: Vec::new(), widths: None, channels: Rc::default() };
        for (row, logits) in p.operators.iter().zip(&self.operators) {
            let n = row.len();
            let chosen: Vec<usize> = match mixture {
                Mixture::Full => (0..n).collect(),
                Mixture::Drawn => {
                    let row: Vec<f32> = row.iter().map(|p| *p as f32).collect();
                    draw_some(row, if learns { 2 } else { 1 }, rng)
                }
            };
            path.mix.push((chosen.len() > 1).then(|| {
                let logits = leaf(logits);
                if chosen.len() == n && mixture == Mixture::Full {
                    return b.softmax(&logits);
                }
                let mut select = vec![0.0; chosen.len() * n];
                for (i, operator) in chosen.iter().enumerate() {
                    select[i * n + operator] = 1.0;
                }
                let select = b.tensor(&select, &[chosen.len(), n]);
                let some = b.linear(&b.reshape(&logits, &[1, n]), &select, None);
                b.softmax(&b.reshape(&some, &[chosen.len()]))
            }));
            path.operators.push(chosen);
        }
        path.widths = temperature.map(|temperature| {
            let draw = |logits: &B::Var| {
                let logits = leaf(logits);
                let n = b.shape(&logits)[0];
                let noise: Vec<f32> = (0..n).map(|_| rng.gumbel()).collect();
                let noisy = b.add(&logits, &b.tensor(&noise, &[n]));
                b.softmax(&b.scale(&noisy, 1.0 / temperature))
            };
            self.widths.iter().map(draw).collect()
        });
        path
    }

    /// Every operator once, one a section and path: what calibration runs.
    pub fn sweep(&self, backend: &B) -> Vec<Path<B::Tensor>> {
        let most = self.space.sections.iter().map(|s| s.operators.len()).max().unwrap_or(1);
        let widths = || self.widths.iter().map(|v| backend.softmax(&backend.leaf(v))).collect();
        let path = |i: usize| Path {
            operators: self.space.sections.iter().map(|s| vec![i % s.operators.len()]).collect(),
            mix: self.space.sections.iter().map(|_| None).collect(),
            widths: Some(widths()),
            channels: Rc::default(),
        };
        (0..most).map(path).collect()
    }

    /// Logits `[N, classes]` of images `[N, C, H, W]` along `path`.
    pub fn forward(
        &self,
        backend: &B,
        images: B::Tensor,
        path: &Path<B::Tensor>,
        pass: Pass,
    ) -> B::Tensor {
        let batch = backend.shape(&images)[0];
        let mut x = images;
        for (s, section) in self.space.sections.iter().enumerate() {
            let run = |o: &usize| {
                let mut current = x.clone();
                for layer in &section.operators[*o].1 {
                    current = self.layer(backend, (s, *o), layer, &x, current, path, pass);
                }
                current
            };
            let branches: Vec<B::Tensor> = path.operators[s].iter().map(run).collect();
            x = match &path.mix[s] {
                Some(mix) => backend.weighted_sum(&branches, mix),
                None => branches.into_iter().next().expect("a path names an operator"),
            };
        }
        let classes = backend.shape(&x)[1];
        backend.reshape(&x, &[batch, classes])
    }

    #[allow(clippy::too_many_arguments)]
    fn layer(
        &self,
        b: &B,
        (s, o): (usize, usize),
        layer: &Template,
        entry: &B::Tensor,
        x: B::Tensor,
        path: &Path<B::Tensor>,
        pass: Pass,
    ) -> B::Tensor {
        let batch = b.shape(&x)[0];
        let leaf = |name: &str| {
            let value = b.leaf(&self.shared[name].var);
            if pass == Pass::Weights { value } else { b.detach(&value) }
        };
        let weights = layer.op.has_weights().then(|| {
            let name = format!("{}.weight", layer.shared);
            let sliced = self.slice(b, layer, leaf(&name));
            let (Some(widths), Some(gene)) = (&path.widths, layer.weight) else { return sliced };
            let grids = self.grids(gene, true);
            let step = format!("{name}.step");
            if pass == Pass::Calibrate {
                let shared = &self.shared[&name];
                let values = b.var_to_vec(&shared.var);
                let fit = |g: &Grid| first_steps(&values, shared.shape[0], *g);
                b.assign(&self.shared[&step].var, &grids.iter().flat_map(fit).collect::<Vec<_>>());
            }
            let channels = b.shape(&sliced)[0];
            let mut steps = leaf(&step);
            if b.shape(&steps)[1] != channels {
                steps = b.narrow(&steps, 1, 0, channels);
            }
            b.mixed_quant(&sliced, &steps, &widths[gene], &grids, false, None)
        });
        let slide = |w: Window| Slide {
            stride: w.stride.into(),
            pads: [w.pads.top, w.pads.bottom, w.pads.left, w.pads.right].map(usize::from),
        };
        let (gamma, beta) = norm_names(self.space, s, o, layer);
        let made = match (layer.op, &weights) {
            (Op::Conv(w), Some(weights)) => b.conv2d(&x, weights, slide(w)),
            (Op::Depthwise(w), Some(weights)) => b.depthwise(&x, weights, slide(w)),
            (Op::Linear, Some(weights)) => {
                let features = b.shape(&x)[1];
                let flat = b.reshape(&x, &[batch, features]);
                let out = b.linear(&flat, weights, Some(&leaf(&beta)));
                b.reshape(&out, &[batch, layer.output.c.into(), 1, 1])
            }
            (Op::Add, _) => b.add(entry, &x),
            _ => {
                let channels = b.shape(&x)[1];
                b.reshape(&b.global_avg_pool(&x), &[batch, channels, 1, 1])
            }
        };
        let relu = if layer.signed { Activation::Identity } else { Activation::Relu };
        let norm =
            |made: &B::Tensor| b.batch_norm(made, &leaf(&gamma), &leaf(&beta), Norm::Batch, relu);
        let normal = matches!(layer.op, Op::Conv(_) | Op::Depthwise(_));
        let Some(widths) = &path.widths else {
            return if normal { norm(&made) } else { made };
        };
        let grids = self.grids(layer.activation, layer.signed);
        let step = format!("{}.step", self.space.genes[layer.activation].name);
        if pass == Pass::Calibrate {
            let values = b.to_vec(&if normal { norm(&made) } else { made.clone() });
            let steps: Vec<f32> = grids.iter().map(|g| first_step(&values, *g)).collect();
            b.assign(&self.shared[&step].var, &steps);
        }
        let (steps, p) = (&leaf(&step), &widths[layer.activation]);
        match normal {
            true => {
                let channels = path.channels.get(&gamma).map(Vec::as_slice);
                let options = Options { grids: &grids, steps, p, channels };
                let (gamma, beta) = (leaf(&gamma), leaf(&beta));
                b.batch_norm_quant(&made, &gamma, &beta, Norm::Batch, relu, &options)
            }
            false => b.mixed_quant(&made, steps, p, &grids, true, None),
        }
    }

    fn grids(&self, gene: usize, signed: bool) -> Vec<Grid> {
        self.space.genes[gene].options.iter().map(|bits| grid(signed, bits.get())).collect()
    }

    /// The part of the shared weights that a layer uses.
    fn slice(&self, b: &B, layer: &Template, mut w: B::Tensor) -> B::Tensor {
        let shape = b.shape(&w);
        let (oc, ic) = (usize::from(layer.output.c), usize::from(layer.input.c));
        if shape[0] != oc {
            w = b.narrow(&w, 0, 0, oc);
        }
        if !matches!(layer.op, Op::Depthwise(_)) && shape[1] != ic {
            w = b.narrow(&w, 1, 0, ic);
        }
        if let Op::Conv(window) | Op::Depthwise(window) = layer.op {
            let (kh, kw) = (usize::from(window.kh), usize::from(window.kw));
            if shape[shape.len() - 1] != kw || shape[shape.len() - 2] != kh {
                w = b.crop(&w, kh, kw);
            }
        }
        w
    }

    /// What a chosen network inherits: values by layer name, without quantizer steps, which are
    /// fitted to the chosen widths anew.
    pub fn inherit(&self, backend: &B, choice: &Choice) -> Values {
        let mut values = Values::new();
        for (s, o) in choice.operators.iter().enumerate() {
            let section = &self.space.sections[s];
            for layer in section.operators[*o].1.iter().filter(|l| l.op.has_weights()) {
                let name = format!("{}.{}", section.name, layer.role);
                let weight = backend.leaf(&self.shared[&format!("{}.weight", layer.shared)].var);
                let weight = self.slice(backend, layer, backend.detach(&weight));
                values.insert(format!("{name}.weight"), backend.to_vec(&weight));
                let (gamma, beta) = norm_names(self.space, s, *o, layer);
                for (from, to) in [(gamma, "gamma"), (beta, "beta")] {
                    if let Some(shared) = self.shared.get(&from) {
                        values.insert(format!("{name}.{to}"), backend.var_to_vec(&shared.var));
                    }
                }
            }
        }
        values
    }

    /// [`Supernet::inherit`] with the steps that the supernet learned for the chosen widths: the
    /// network as the supernet sees it.
    pub fn inherit_steps(&self, backend: &B, choice: &Choice) -> Values {
        let mut values = self.inherit(backend, choice);
        for (section, o) in self.space.sections.iter().zip(&choice.operators) {
            for layer in &section.operators[*o].1 {
                let name = format!("{}.{}", section.name, layer.role);
                let all = |step: &str| backend.var_to_vec(&self.shared[step].var);
                let gene = &self.space.genes[layer.activation].name;
                let output = all(&format!("{gene}.step"))[choice.widths[layer.activation]];
                values.insert(format!("{name}.output.step"), vec![output]);
                let Some(gene) = layer.weight else { continue };
                let shared = format!("{}.weight.step", layer.shared);
                let row = self.shared[&shared].shape[1];
                let from = choice.widths[gene] * row;
                let steps = all(&shared)[from..from + usize::from(layer.output.c)].to_vec();
                values.insert(format!("{name}.weight.step"), steps);
            }
        }
        values
    }
}

/// Up to `count` different operators, drawn by the probabilities in `row`.
fn draw_some(mut row: Vec<f32>, count: usize, rng: &mut Rng) -> Vec<usize> {
    let mut chosen = Vec::new();
    while chosen.len() < count.min(row.len()) {
        let operator = match rng.choose(&row) {
            // All others have the probability 0.
            same if chosen.contains(&same) => (same + 1) % row.len(),
            other => other,
        };
        chosen.push(operator);
        row[operator] = 0.0;
        let sum = row.iter().sum::<f32>().max(1e-12);
        row.iter_mut().for_each(|p| *p /= sum);
    }
    chosen
}

fn all_layers(space: &Space) -> impl Iterator<Item = (usize, usize, &Template)> {
    space.sections.iter().enumerate().flat_map(|(s, section)| {
        let operators = section.operators.iter().enumerate();
        operators.flat_map(move |(o, (_, layers))| layers.iter().map(move |l| (s, o, l)))
    })
}

/// Shapes and window of the largest layer that shares weights with `layer`: each size on its own.
fn largest(space: &Space, layer: &Template) -> Template {
    let mut largest = layer.clone();
    for (_, _, other) in all_layers(space).filter(|(_, _, l)| l.shared == layer.shared) {
        largest.output.c = largest.output.c.max(other.output.c);
        largest.input.c = largest.input.c.max(other.input.c);
        if other.op.window().kh > largest.op.window().kh {
            largest.op = other.op;
        }
    }
    largest
}

/// Names of a layer's scale and shift; each operator has its own.
fn norm_names(space: &Space, s: usize, o: usize, layer: &Template) -> (String, String) {
    let section = &space.sections[s];
    let base = format!("{}.{}.{}", section.name, section.operators[o].0, layer.role);
    (format!("{base}.gamma"), format!("{base}.beta"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::candle::Candle;
    use crate::space::tests::kinds;

    /// Every kind of block runs, and its gradients reach what belongs to the operator that ran.
    #[test]
    fn every_operator_learns() {
        let (b, space) = (Candle, kinds());
        let net = Supernet::new(&b, &space, 1);
        let mut rng = Rng::at(2, Purpose::Augment, 0);
        let images: Vec<f32> = (0..8 * 3 * 256).map(|_| rng.unit()).collect();
        let images = b.tensor(&images, &[8, 3, 16, 16]);
        let weights = net.weights();
        let vars: Vec<_> = weights.iter().map(|p| p.var.clone()).collect();
        let mut reached = vec![false; vars.len()];
        for path in net.sweep(&b) {
            net.forward(&b, images.clone(), &path, Pass::Calibrate);
            let logits = net.forward(&b, images.clone(), &path, Pass::Weights);
            let loss = b.cross_entropy(&logits, &[0, 1, 0, 1, 0, 1, 0, 1], 0.0);
            assert!(b.to_scalar(&loss).is_finite());
            for (reached, grad) in reached.iter_mut().zip(b.grad(loss, &vars)) {
                *reached |= grad.is_some_and(|g| g.iter().any(|g| *g != 0.0));
            }
        }
        let left: Vec<&str> =
            weights.iter().zip(&reached).filter(|(_, r)| !**r).map(|(p, _)| &*p.name).collect();
        assert!(left.is_empty(), "no gradient reaches {left:?}");
    }

    /// Where all operators run, all of them learn from one architecture pass, and the weights of
    /// a section's operators are the probabilities of its logits.
    #[test]
    fn full_mixture_runs_all_operators() {
        let (b, space) = (Candle, kinds());
        let net = Supernet::new(&b, &space, 1);
        let mut rng = Rng::at(3, Purpose::Architecture, 0);
        let path = net.draw(&b, &mut rng, Pass::Architecture, Mixture::Full, None);
        let several = |n: usize| n > 1;
        for ((section, chosen), mix) in space.sections.iter().zip(&path.operators).zip(&path.mix) {
            assert_eq!(chosen.len(), section.operators.len());
            let sum = mix.as_ref().map(|mix| b.to_vec(mix).iter().sum::<f32>());
            assert_eq!(sum.is_some(), several(chosen.len()));
            assert!((sum.unwrap_or(1.0) - 1.0).abs() < 1e-6);
        }
        let images = b.tensor(&[0.5; 2 * 3 * 256], &[2, 3, 16, 16]);
        let logits = net.forward(&b, images, &path, Pass::Architecture);
        let loss = b.cross_entropy(&logits, &[0, 1], 0.0);
        let vars: Vec<_> = net.architecture().iter().map(|p| p.var.clone()).collect();
        let grads = b.grad(loss, &vars[..space.sections.len()]);
        for (section, grad) in space.sections.iter().zip(grads) {
            assert_eq!(grad.is_some(), several(section.operators.len()), "{}", section.name);
        }
    }
}
