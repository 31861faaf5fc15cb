//! Parts of a space: at one width, or with operators that are decided. What is a baseline of its
//! own to a joint search is the same search in such a part.
//!
//! Must not know: probabilities, training, costs.

use std::collections::BTreeSet;

use jaq_network::Bits;

use super::{Choice, Space};

impl Space {
    /// The same operators with all weights and all tensors between layers at two widths, whether
    /// the space has these or not. Input and logits keep theirs.
    pub fn at_widths(&self, weight: Bits, activation: Bits) -> Space {
        let mut space = self.clone();
        let layers = self.sections.iter().flat_map(|s| &s.operators).flat_map(|(_, l)| l);
        let of_weights: BTreeSet<usize> = layers.filter_map(|layer| layer.weight).collect();
        for (index, gene) in space.genes.iter_mut().enumerate() {
            if of_weights.contains(&index) {
                gene.options = vec![weight];
            } else if gene.options.len() > 1 {
                gene.options = vec![activation];
            }
        }
        space
    }

    /// The same widths with one operator in every section.
    pub fn with_operators(&self, operators: &[usize]) -> Space {
        let mut space = self.clone();
        for (section, operator) in space.sections.iter_mut().zip(operators) {
            section.operators = vec![section.operators[*operator].clone()];
        }
        space
    }

    /// The network with the most multiplications: in every section the operator that has most.
    pub fn largest(&self) -> Choice {
        let none = vec![0; self.sections.len()];
        let mut largest = Choice { operators: none, widths: vec![0; self.genes.len()] };
        for (s, section) in self.sections.iter().enumerate() {
            let macs = |o: &usize| {
                let mut choice = largest.clone();
                choice.operators[s] = *o;
                self.network(&choice).macs()
            };
            largest.operators[s] = (0..section.operators.len()).max_by_key(macs).unwrap_or(0);
        }
        largest
    }

    /// The choice with all genes that its network does not use at their first option: equal
    /// networks are equal choices.
    pub fn canonical(&self, choice: &Choice) -> Choice {
        let mut canonical =
            Choice { operators: choice.operators.clone(), widths: vec![0; self.genes.len()] };
        for layer in self.templates(choice) {
            for gene in layer.weight.into_iter().chain([layer.activation]) {
                canonical.widths[gene] = choice.widths[gene];
            }
        }
        canonical
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::tests::{random_choice, space};

    #[test]
    fn one_width_is_that_of_every_layer() {
        let full = space();
        let part = full.at_widths(Bits::B3, Bits::B4);
        for seed in 0..20 {
            let network = part.network(&random_choice(&part, seed));
            network.validate().unwrap();
            let wanted = full.network(&random_choice(&full, seed));
            assert_eq!(network, wanted.with_uniform_bits(Bits::B3, Bits::B4));
        }
    }

    #[test]
    fn nothing_is_larger_than_the_largest() {
        let space = space();
        let most = space.network(&space.largest()).macs();
        let of = |seed| space.network(&random_choice(&space, seed)).macs();
        assert!((0..100).all(|seed| of(seed) <= most));
    }

    #[test]
    fn decided_operators_leave_the_widths_open() {
        let full = space();
        for seed in 0..50 {
            let choice = random_choice(&full, seed);
            let part = full.with_operators(&choice.operators);
            let first = Choice { operators: vec![0; part.sections.len()], ..choice.clone() };
            assert_eq!(part.network(&first), full.network(&choice));
            let widths = (0..part.sections.len()).map(|s| part.input_widths(s).len());
            assert!(widths.skip(1).all(|n| n == 3));
        }
    }

    #[test]
    fn canonical_choices_name_the_same_network() {
        let space = space();
        for seed in 0..50 {
            let choice = random_choice(&space, seed);
            let canonical = space.canonical(&choice);
            assert_eq!(space.network(&canonical), space.network(&choice));
            let used: BTreeSet<usize> = space
                .templates(&choice)
                .flat_map(|t| t.weight.into_iter().chain([t.activation]))
                .collect();
            let mut other = choice.clone();
            for gene in (0..space.genes.len()).filter(|gene| !used.contains(gene)) {
                other.widths[gene] = (other.widths[gene] + 1) % space.genes[gene].options.len();
            }
            assert!(other != choice, "every gene is in use");
            assert_eq!(space.canonical(&other), canonical);
        }
    }
}
