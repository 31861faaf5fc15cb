//! The cost tensor of the search: for every layer that may be chosen, its best cost at every
//! combination of weight, input and output widths; the expectation under the search's
//! probabilities, and its exact gradient.
//!
//! Pure functions of `f64`. Must not know: tensors of training, how a cost is obtained.

use jaq_shared::format::{Bits, LayerShape};

use crate::{CostModel, ModelError};

/// Cost of one candidate layer by widths: `cost[w][i][o]` at `weights[w]`, `inputs[i]`,
/// `outputs[o]`, in the unit of what built it.
#[derive(Clone, Debug, PartialEq)]
pub struct CostTable3 {
    weights: usize,
    inputs: usize,
    outputs: usize,
    cost: Vec<f64>,
}

/// Derivatives of an expected cost with respect to every probability.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Gradient {
    pub weight: Vec<f64>,
    pub input: Vec<f64>,
    pub output: Vec<f64>,
}

/// A figure of a cost that a table can be built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Executed instructions; typical cycles where the target has no instructions.
    Work,
    /// Seconds.
    Latency,
    /// Picojoules.
    Energy,
    /// Bytes of packed weights and tables.
    Flash,
}

impl CostTable3 {
    /// Evaluates `make_layer(weight, input, output)` at every combination of widths.
    pub fn build(
        model: &impl CostModel,
        figure: Figure,
        make_layer: impl Fn(Bits, Bits, Bits) -> LayerShape,
        weights: &[Bits],
        inputs: &[Bits],
        outputs: &[Bits],
    ) -> Result<CostTable3, ModelError> {
        let mut cost = Vec::with_capacity(weights.len() * inputs.len() * outputs.len());
        for &w in weights {
            for &i in inputs {
                for &o in outputs {
                    let found = model.layer(&make_layer(w, i, o))?;
                    let value = match figure {
                        Figure::Work => found.instructions.or(found.cycles.map(|c| c.typical)),
                        Figure::Latency => found.latency_s,
                        Figure::Energy => found.energy_pj,
                        Figure::Flash => Some(found.weights_bytes as f64),
                    };
                    cost.push(value.ok_or_else(|| {
                        let reason = format!("its {figure:?} is not known there").to_lowercase();
                        let layer = make_layer(w, i, o);
                        ModelError::unsupported("this target", &(&layer).into(), &reason)
                    })?);
                }
            }
        }
        let (weights, inputs, outputs) = (weights.len(), inputs.len(), outputs.len());
        Ok(CostTable3 { weights, inputs, outputs, cost })
    }

    /// A table of known costs, in the order weights, inputs, outputs (the fastest).
    pub fn of(weights: usize, inputs: usize, outputs: usize, cost: Vec<f64>) -> CostTable3 {
        assert_eq!(cost.len(), weights * inputs * outputs, "a cost a combination of widths");
        CostTable3 { weights, inputs, outputs, cost }
    }

    /// The same table with the costs at the `w`-th weight width multiplied by `factors[w]`: what a
    /// search would do if those widths were dearer or cheaper.
    pub fn with_weight_factors(mut self, factors: &[f64]) -> CostTable3 {
        assert_eq!(factors.len(), self.weights, "one factor a weight width");
        let per_weight = (self.inputs * self.outputs).max(1);
        for (costs, factor) in self.cost.chunks_mut(per_weight).zip(factors) {
            costs.iter_mut().for_each(|cost| *cost *= factor);
        }
        self
    }

    /// Cost at the indices of weight, input and output widths.
    pub fn at(&self, weight: usize, input: usize, output: usize) -> f64 {
        self.cost[(weight * self.inputs + input) * self.outputs + output]
    }

    /// Least cost of all.
    pub fn min(&self) -> f64 {
        self.cost.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Expected cost where widths are drawn independently with these probabilities.
    pub fn expected(&self, weight: &[f64], input: &[f64], output: &[f64]) -> f64 {
        let gradient = self.gradient(weight, input, output);
        weight.iter().zip(&gradient.weight).map(|(p, g)| p * g).sum()
    }

    /// Derivatives of [`Self::expected`]; exact, the expectation being linear in each argument.
    pub fn gradient(&self, weight: &[f64], input: &[f64], output: &[f64]) -> Gradient {
        assert_eq!(
            (weight.len(), input.len()),
            (self.weights, self.inputs),
            "a probability a width"
        );
        assert_eq!(output.len(), self.outputs, "a probability a width");
        let mut gradient = Gradient {
            weight: vec![0.0; self.weights],
            input: vec![0.0; self.inputs],
            output: vec![0.0; self.outputs],
        };
        for (w, pw) in weight.iter().enumerate() {
            for (i, pi) in input.iter().enumerate() {
                for (o, po) in output.iter().enumerate() {
                    let cost = self.at(w, i, o);
                    gradient.weight[w] += cost * pi * po;
                    gradient.input[i] += cost * pw * po;
                    gradient.output[o] += cost * pw * pi;
                }
            }
        }
        gradient
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cost, NetworkCost};
    use jaq_network::Network;
    use jaq_shared::format::{LayerBits, Op, Shape, Window};
    use proptest::prelude::*;

    /// Instructions: 100 w + 10 i + o.
    struct Digits;

    impl CostModel for Digits {
        fn layer(&self, layer: &LayerShape) -> Result<Cost, ModelError> {
            let LayerBits { weight, input, output } = layer.bits;
            let value = 100 * weight.get() + 10 * input.get() + output.get();
            Ok(Cost { instructions: Some(value.into()), latency_s: None, ..Cost::zero() })
        }
        fn network(&self, _: &Network) -> Result<NetworkCost, ModelError> {
            unreachable!("not asked for")
        }
    }

    fn layer(weight: Bits, input: Bits, output: Bits) -> LayerShape {
        let bits = LayerBits { weight, input, output };
        LayerShape::new(Op::Conv(Window::POINT), Shape::new(4, 4, 8), 8, bits).unwrap()
    }

    const WIDTHS: [Bits; 3] = [Bits::B2, Bits::B4, Bits::B8];

    fn digits() -> CostTable3 {
        CostTable3::build(&Digits, Figure::Work, layer, &WIDTHS, &WIDTHS[..2], &WIDTHS).unwrap()
    }

    #[test]
    fn cells_are_the_models() {
        let table = digits();
        assert_eq!(table.at(0, 1, 2), 248.0);
        assert_eq!(table.expected(&[0.0, 1.0, 0.0], &[1.0, 0.0], &[0.0, 0.0, 1.0]), 428.0);
        assert_eq!(table.min(), 222.0);
        let dear = digits().with_weight_factors(&[10.0, 1.0, 1.0]);
        assert_eq!((dear.at(0, 1, 2), dear.at(1, 0, 0)), (2480.0, 422.0));
        let error = CostTable3::build(&Digits, Figure::Latency, layer, &WIDTHS, &WIDTHS, &WIDTHS);
        assert!(error.unwrap_err().to_string().contains("latency is not known"));
    }

    proptest! {
        #[test]
        fn gradient_is_the_finite_difference(
            pw in prop::collection::vec(0.0..1.0f64, 3),
            pi in prop::collection::vec(0.0..1.0f64, 2),
            po in prop::collection::vec(0.0..1.0f64, 3),
        ) {
            let table = digits();
            let gradient = table.gradient(&pw, &pi, &po);
            let base = table.expected(&pw, &pi, &po);
            let step = 0.5;
            let bumped = |p: &[f64], at: usize| {
                let mut p = p.to_vec();
                p[at] += step;
                p
            };
            for k in 0..3 {
                let dw = (table.expected(&bumped(&pw, k), &pi, &po) - base) / step;
                let d_o = (table.expected(&pw, &pi, &bumped(&po, k)) - base) / step;
                prop_assert!((dw - gradient.weight[k]).abs() < 1e-6);
                prop_assert!((d_o - gradient.output[k]).abs() < 1e-6);
            }
            for k in 0..2 {
                let di = (table.expected(&pw, &bumped(&pi, k), &po) - base) / step;
                prop_assert!((di - gradient.input[k]).abs() < 1e-6);
            }
        }
    }
}
