//! Schedules of a whole network under a product of energy and latency: which mapping of every layer
//! makes the *network's* energy-delay product least, and how far from the least it may be.
//!
//! Latency and energy of a network are sums over its layers, their product is not: the mapping that
//! is best for a layer's own product need not be best for the network's. Each layer offers the
//! points that no other of its mappings beats in both ([`crate::batch_tile::pareto`]). For any price
//! `l` of a second, `m(l) = sum over layers of min(energy + l * latency)` bounds every schedule:
//! `E + l T >= m(l)`, and of all `E T` on that line the least is `m(l)^2 / (4 l)`. The largest of
//! these bounds and the best schedule met on the way enclose the optimum. Pure functions.

/// A schedule and its bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Product {
    /// Index of the point that every layer takes.
    pub picks: Vec<usize>,
    /// Seconds of the whole.
    pub latency: f64,
    /// Picojoules of the whole.
    pub energy: f64,
    /// No schedule has a smaller product.
    pub bound: f64,
}

impl Product {
    /// Energy times latency of the schedule.
    pub fn value(&self) -> f64 {
        self.latency * self.energy
    }
}

/// Prices of a second that are tried.
const PRICES: usize = 400;

/// The best schedule found, and the bound; `layers` are points (latency, energy), at least one a
/// layer. `None` where there are no layers.
pub fn least_product(layers: &[Vec<(f64, f64)>]) -> Option<Product> {
    if layers.is_empty() || layers.iter().any(Vec::is_empty) {
        return None;
    }
    let at = |price: f64| {
        let (mut picks, mut total) = (Vec::with_capacity(layers.len()), (0.0, 0.0));
        for points in layers {
            let value = |i: &usize| points[*i].1 + price * points[*i].0;
            let best = (0..points.len()).min_by(|a, b| value(a).total_cmp(&value(b)))?;
            total = (total.0 + points[best].0, total.1 + points[best].1);
            picks.push(best);
        }
        Some((picks, total))
    };
    // The optimum's own price is its energy over its latency: between those of the extremes.
    let ends = [1e-300, 1e300].map(|price| at(price).map(|(_, (t, e))| e / t.max(1e-300)));
    let [a, b] = [ends[0]?, ends[1]?];
    let (low, high) = (a.min(b).max(1e-300) / 2.0, a.max(b).max(1e-300) * 2.0);
    let mut best: Option<Product> = None;
    let mut bound = 0.0f64;
    for i in 0..PRICES {
        let price = low * (high / low).powf(i as f64 / (PRICES - 1) as f64);
        let (picks, (latency, energy)) = at(price)?;
        bound = bound.max((energy + price * latency).powi(2) / (4.0 * price));
        if best.as_ref().is_none_or(|b| latency * energy < b.value()) {
            best = Some(Product { picks, latency, energy, bound: 0.0 });
        }
    }
    best.map(|best| Product { bound, ..best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn brute(layers: &[Vec<(f64, f64)>]) -> f64 {
        let mut sums = vec![(0.0, 0.0)];
        for points in layers {
            sums = sums
                .iter()
                .flat_map(|(t, e)| points.iter().map(move |(u, f)| (t + u, e + f)))
                .collect();
        }
        sums.iter().map(|(t, e)| t * e).fold(f64::INFINITY, f64::min)
    }

    proptest! {
        #[test]
        fn optimum_lies_between_bound_and_schedule(
            layers in prop::collection::vec(
                prop::collection::vec((0.1..10.0f64, 0.1..10.0f64), 1..5), 1..6),
        ) {
            let found = least_product(&layers).unwrap();
            let exact = brute(&layers);
            prop_assert!(found.bound <= exact * (1.0 + 1e-9), "{} {exact}", found.bound);
            prop_assert!(found.value() >= exact * (1.0 - 1e-9));
            let sum = |part: fn(&(f64, f64)) -> f64| -> f64 {
                layers.iter().zip(&found.picks).map(|(l, i)| part(&l[*i])).sum()
            };
            prop_assert!((sum(|p| p.0) - found.latency).abs() < 1e-9);
            prop_assert!((sum(|p| p.1) - found.energy).abs() < 1e-9);
        }
    }

    #[test]
    fn single_points_are_met_exactly() {
        let found = least_product(&[vec![(2.0, 3.0)], vec![(1.0, 4.0)]]).unwrap();
        assert_eq!((found.value(), found.picks), (21.0, vec![0, 0]));
        assert!(found.bound > 20.99 && found.bound <= 21.0);
        assert_eq!(least_product(&[]), None);
    }

    /// A layer's own best product is not the network's: (1, 9) is worse alone than (2.9, 3), and
    /// better beside a slow layer whose energy is small.
    #[test]
    fn the_network_decides_not_the_layer() {
        let layers = [vec![(1.0, 9.0), (2.9, 3.0)], vec![(1.0, 100.0)]];
        let found = least_product(&layers).unwrap();
        assert_eq!(found.picks, [0, 0]);
    }
}
