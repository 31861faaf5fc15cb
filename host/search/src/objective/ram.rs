//! A smooth stand-in for the arena: the expected bytes that the fullest section holds while one of
//! its layers runs, and its gradient. The arena itself is planned exactly when a network is chosen.
//!
//! Must not know: limits, training.

use jaq_network::{Bits, Op, TensorFormat};

use super::costs::{Back, Probabilities, section_inputs};
use crate::space::{Space, Template};

/// Expected bytes that the fullest section holds while one of its layers runs, with derivatives:
/// input, output and, in a residual block, the block's input.
pub(super) fn live_ram(space: &Space, p: &Probabilities) -> (f64, Probabilities) {
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
