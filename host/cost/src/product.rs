//! Schedules of a whole network under a product of energy and latency: which mapping of every layer
//! makes the *network's* energy-delay product least.
//!
//! Latency and energy of a network are sums over its layers, their product is not: the mapping that
//! is best for a layer's own product need not be best for the network's. A product of two positive
//! numbers is quasi-concave, so the least of it over all schedules lies on a corner of their convex
//! hull; the corners are the sums of the layers' own, met in the order of what an edge saves of
//! energy for a second. Walking them finds the optimum exactly. Pure functions.

/// The best schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Product {
    /// Index of the point that every layer takes.
    pub picks: Vec<usize>,
    /// Seconds of the whole.
    pub latency: f64,
    /// Picojoules of the whole.
    pub energy: f64,
}

impl Product {
    /// Energy times latency of the schedule.
    pub fn value(&self) -> f64 {
        self.latency * self.energy
    }
}

/// The schedule with the least product; `layers` are points (latency, energy), at least one a
/// layer, none of them negative. `None` where there are no layers.
pub fn least_product(layers: &[Vec<(f64, f64)>]) -> Option<Product> {
    if layers.is_empty() || layers.iter().any(Vec::is_empty) {
        return None;
    }
    let hulls: Vec<Vec<usize>> = layers.iter().map(|points| hull(points)).collect();
    let mut at = Product {
        picks: hulls.iter().map(|hull| hull[0]).collect(),
        latency: layers.iter().zip(&hulls).map(|(points, hull)| points[hull[0]].0).sum(),
        energy: layers.iter().zip(&hulls).map(|(points, hull)| points[hull[0]].1).sum(),
    };
    let slope = |points: &[(f64, f64)], [from, to]: [usize; 2]| {
        (points[to].1 - points[from].1) / (points[to].0 - points[from].0)
    };
    let mut edges: Vec<(f64, usize, [usize; 2])> = Vec::new();
    for (layer, (points, hull)) in layers.iter().zip(&hulls).enumerate() {
        edges.extend(hull.windows(2).map(|pair| {
            let edge = [pair[0], pair[1]];
            (slope(points, edge), layer, edge)
        }));
    }
    // Steepest first; edges of one layer keep their order, for its hull is convex.
    edges.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut best = at.clone();
    for (_, layer, [from, to]) in edges {
        let points = &layers[layer];
        at.picks[layer] = to;
        at.latency += points[to].0 - points[from].0;
        at.energy += points[to].1 - points[from].1;
        if at.value() < best.value() {
            best = at.clone();
        }
    }
    // Without what adding and subtracting has rounded away.
    let total = |part: fn(&(f64, f64)) -> f64| {
        layers.iter().zip(&best.picks).map(|(points, pick)| part(&points[*pick])).sum()
    };
    (best.latency, best.energy) = (total(|p| p.0), total(|p| p.1));
    Some(best)
}

/// Corners of the points' convex hull from the least latency to the least energy.
fn hull(points: &[(f64, f64)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (points[*a], points[*b]);
        a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    let mut corners: Vec<usize> = Vec::new();
    for index in order {
        let (t, e) = points[index];
        if corners.last().is_some_and(|last| points[*last].1 <= e) {
            continue;
        }
        while let [.., before, last] = corners[..] {
            let (p, q) = (points[before], points[last]);
            // `last` lies on or above the line from `before` to here.
            if (q.1 - p.1) * (t - p.0) < (e - p.1) * (q.0 - p.0) {
                break;
            }
            corners.pop();
        }
        corners.push(index);
    }
    corners
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
        fn no_schedule_is_better(
            layers in prop::collection::vec(
                prop::collection::vec((0.1..10.0f64, 0.1..10.0f64), 1..5), 1..6),
        ) {
            let found = least_product(&layers).unwrap();
            let exact = brute(&layers);
            prop_assert!((found.value() - exact).abs() <= exact * 1e-9, "{} {exact}", found.value());
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
