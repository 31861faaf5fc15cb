//! Statistics of experiments: means with intervals over seeds, rank correlations, bootstrap.
//!
//! Pure functions of `f64`. Must not know: what the numbers are of.

use serde::{Deserialize, Serialize};

use crate::rng::{Purpose, Rng};

/// A figure with the interval it is believed to lie in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The figure.
    pub value: f64,
    /// Lower end; the figure itself where there is nothing to tell it from.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Samples.
    pub samples: usize,
}

/// Two-sided 95 % quantiles of Student's t by degrees of freedom, 1 to 30; 1.96 beyond.
const T95: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

/// Mean of samples with its 95 % t interval; `None` of nothing.
pub fn mean(samples: &[f64]) -> Option<Estimate> {
    let n = samples.len();
    let value = samples.iter().sum::<f64>() / n as f64;
    let variance = samples.iter().map(|x| (x - value).powi(2)).sum::<f64>() / (n as f64 - 1.0);
    let half = match n {
        0 => return None,
        1 => 0.0,
        _ => T95.get(n - 2).copied().unwrap_or(1.96) * (variance / n as f64).sqrt(),
    };
    Some(Estimate { value, low: value - half, high: value + half, samples: n })
}

/// Kendall's tau-b of pairs `(x[i], y[i])`, which allows for ties; 0 where one side is constant.
pub fn kendall(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len(), "pairs are wanted");
    let (mut agree, mut tied_x, mut tied_y, mut pairs) = (0i64, 0i64, 0i64, 0i64);
    for i in 0..x.len() {
        for j in 0..i {
            let (a, b) = (x[i].total_cmp(&x[j]) as i64, y[i].total_cmp(&y[j]) as i64);
            agree += a * b;
            tied_x += i64::from(a == 0);
            tied_y += i64::from(b == 0);
            pairs += 1;
        }
    }
    let untied = ((pairs - tied_x) * (pairs - tied_y)) as f64;
    if untied > 0.0 { agree as f64 / untied.sqrt() } else { 0.0 }
}

/// Spearman's rho: the correlation of ranks, equal values sharing their mean rank; 0 where one
/// side is constant.
pub fn spearman(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len(), "pairs are wanted");
    pearson(&ranks(x), &ranks(y))
}

fn ranks(x: &[f64]) -> Vec<f64> {
    let rank = |v: &f64| {
        let below = x.iter().filter(|other| other.total_cmp(v).is_lt()).count();
        let equal = x.iter().filter(|other| other.total_cmp(v).is_eq()).count();
        below as f64 + (equal as f64 + 1.0) / 2.0
    };
    x.iter().map(rank).collect()
}

fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let n = x.len() as f64;
    let (mx, my) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let product = |a: &[f64], ma: f64, b: &[f64], mb: f64| -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - ma) * (b - mb)).sum()
    };
    let scale = (product(x, mx, x, mx) * product(y, my, y, my)).sqrt();
    if scale > 0.0 { product(x, mx, y, my) / scale } else { 0.0 }
}

/// A statistic of pairs with its 95 % percentile interval over `draws` bootstrap samples of the
/// pairs.
pub fn bootstrap(
    x: &[f64],
    y: &[f64],
    statistic: impl Fn(&[f64], &[f64]) -> f64,
    draws: usize,
    seed: u64,
) -> Estimate {
    let n = x.len();
    let mut rng = Rng::at(seed, Purpose::Bootstrap, n as u64);
    let mut found: Vec<f64> = (0..draws)
        .map(|_| {
            let some: Vec<usize> = (0..n).map(|_| rng.below(n.max(1))).collect();
            let of = |v: &[f64]| -> Vec<f64> { some.iter().map(|i| v[*i]).collect() };
            statistic(&of(x), &of(y))
        })
        .collect();
    found.sort_by(f64::total_cmp);
    let value = statistic(x, y);
    let at = |share: f64| {
        let index = (share * found.len() as f64) as usize;
        found.get(index.min(found.len().saturating_sub(1))).copied().unwrap_or(value)
    };
    Estimate { value, low: at(0.025), high: at(0.975), samples: n }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_by_hand() {
        // Mean 2, standard deviation 1, three samples: 4.303 / sqrt(3).
        let e = mean(&[1.0, 2.0, 3.0]).unwrap();
        assert_eq!((e.value, e.samples), (2.0, 3));
        assert!((e.high - 2.0 - 2.4843).abs() < 1e-3 && (2.0 - e.low - 2.4843).abs() < 1e-3);
        let one = mean(&[5.0]).unwrap();
        assert_eq!((one.low, one.high), (5.0, 5.0));
        assert!(mean(&[]).is_none());
    }

    #[test]
    fn rank_correlations_by_hand() {
        let x = [1.0, 2.0, 3.0, 4.0];
        assert_eq!((kendall(&x, &x), spearman(&x, &x)), (1.0, 1.0));
        let back = [4.0, 3.0, 2.0, 1.0];
        assert_eq!((kendall(&x, &back), spearman(&x, &back)), (-1.0, -1.0));
        // One of six pairs swapped: (5 - 1) / 6; rho = 1 - 6 * 2 / (4 * 15).
        let swapped = [1.0, 3.0, 2.0, 4.0];
        assert!((kendall(&x, &swapped) - 4.0 / 6.0).abs() < 1e-12);
        assert!((spearman(&x, &swapped) - 0.8).abs() < 1e-12);
        // A tie in y: 5 agree, 1 is tied: 5 / sqrt(6 * 5); ranks 1, 2.5, 2.5, 4 give
        // 4.5 / sqrt(5 * 4.5).
        let tied = [1.0, 2.0, 2.0, 4.0];
        assert!((kendall(&x, &tied) - 5.0 / 30f64.sqrt()).abs() < 1e-12);
        assert!((spearman(&x, &tied) - 4.5 / 22.5f64.sqrt()).abs() < 1e-12);
        assert_eq!((kendall(&x, &[1.0; 4]), spearman(&x, &[1.0; 4])), (0.0, 0.0));
    }

    #[test]
    fn bootstrap_intervals_hold_the_figure_and_repeat() {
        let x: Vec<f64> = (0..40).map(f64::from).collect();
        let mut rng = Rng::at(3, Purpose::Augment, 0);
        let y: Vec<f64> = x.iter().map(|x| x + 12.0 * f64::from(rng.normal())).collect();
        let e = bootstrap(&x, &y, kendall, 500, 1);
        assert!(e.low < e.value && e.value < e.high, "{e:?}");
        assert!(e.low > 0.2 && e.high < 0.9, "{e:?}");
        assert_eq!(e, bootstrap(&x, &y, kendall, 500, 1));
        assert_ne!(e, bootstrap(&x, &y, kendall, 500, 2));
        // The fewer pairs, the wider.
        let few = bootstrap(&x[..10], &y[..10], kendall, 500, 1);
        assert!(few.high - few.low > e.high - e.low);
    }
}
