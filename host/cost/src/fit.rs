//! Non-negative least squares, and the relative errors of a fit.
//!
//! Coefficients of a cost model are numbers of instructions: they cannot be negative. The active
//! set method is that of Lawson and Hanson, "Solving Least Squares Problems" (1974), chapter 23,
//! on Householder QR, with unit columns. Must not know what the numbers mean.

/// Minimizes `|A x - y|` over `x >= 0`. `rows` are the rows of A, all as long as the result.
pub fn nnls(rows: &[Vec<f64>], y: &[f64]) -> Vec<f64> {
    let n = rows.first().map_or(0, Vec::len);
    // Unit columns: features differ by many orders of magnitude.
    let norm = |j: usize| rows.iter().map(|row| row[j] * row[j]).sum::<f64>().sqrt();
    let norms: Vec<f64> = (0..n).map(norm).collect();
    let columns: Vec<Vec<f64>> =
        (0..n).map(|j| rows.iter().map(|row| row[j] / norms[j].max(1e-300)).collect()).collect();

    let scale = y.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-300);
    let tolerance = 1e-11 * scale;
    let mut x = vec![0.0; n];
    let mut passive = vec![false; n];
    for _ in 0..3 * n {
        let residual: Vec<f64> = residual(&columns, &x, y);
        let gradient = |j: usize| dot(&columns[j], &residual);
        let candidate = (0..n)
            .filter(|&j| !passive[j] && norms[j] > 0.0)
            .map(|j| (j, gradient(j)))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        match candidate {
            Some((j, g)) if g > tolerance => passive[j] = true,
            _ => break,
        }
        // Move towards the unconstrained optimum of the passive set, dropping what turns negative.
        loop {
            let set: Vec<usize> = (0..n).filter(|&j| passive[j]).collect();
            if set.is_empty() {
                break;
            }
            let chosen: Vec<&[f64]> = set.iter().map(|&j| &columns[j][..]).collect();
            let z = least_squares(&chosen, y);
            if z.iter().all(|&v| v > 0.0) {
                for (&j, &v) in set.iter().zip(&z) {
                    x[j] = v;
                }
                break;
            }
            let step = set
                .iter()
                .zip(&z)
                .filter(|&(_, &v)| v <= 0.0)
                .map(|(&j, &v)| x[j] / (x[j] - v).max(1e-300))
                .fold(1.0, f64::min);
            for (&j, &v) in set.iter().zip(&z) {
                x[j] += step * (v - x[j]);
                if v <= 0.0 && x[j] <= 1e-14 * scale {
                    x[j] = 0.0;
                    passive[j] = false;
                }
            }
        }
    }
    (0..n).map(|j| if norms[j] > 0.0 { x[j] / norms[j] } else { 0.0 }).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn residual(columns: &[Vec<f64>], x: &[f64], y: &[f64]) -> Vec<f64> {
    let mut r = y.to_vec();
    for (column, &x) in columns.iter().zip(x) {
        for (r, c) in r.iter_mut().zip(column) {
            *r -= c * x;
        }
    }
    r
}

/// Minimizes `|A x - y|`; a column that depends on earlier ones gets 0.
fn least_squares(columns: &[&[f64]], y: &[f64]) -> Vec<f64> {
    let (m, n) = (y.len(), columns.len());
    let mut a: Vec<Vec<f64>> = columns.iter().map(|c| c.to_vec()).collect();
    let mut b = y.to_vec();
    let mut diagonal = vec![0.0; n];
    let mut row = vec![usize::MAX; n];
    let mut next = 0;
    for j in 0..n {
        if next == m {
            break;
        }
        let length = dot(&a[j][next..], &a[j][next..]).sqrt();
        if length < 1e-10 {
            continue;
        }
        let alpha = if a[j][next] > 0.0 { -length } else { length };
        let mut v = a[j][next..].to_vec();
        v[0] -= alpha;
        let vv = dot(&v, &v);
        let reflect = |target: &mut [f64]| {
            let factor = 2.0 * dot(&v, target) / vv;
            for (t, v) in target.iter_mut().zip(&v) {
                *t -= factor * v;
            }
        };
        for column in &mut a[j + 1..] {
            reflect(&mut column[next..]);
        }
        reflect(&mut b[next..]);
        (diagonal[j], row[j]) = (alpha, next);
        next += 1;
    }
    let mut x = vec![0.0; n];
    for j in (0..n).rev().filter(|&j| row[j] != usize::MAX) {
        let known: f64 = (j + 1..n).map(|k| a[k][row[j]] * x[k]).sum();
        x[j] = (b[row[j]] - known) / diagonal[j];
    }
    x
}

/// Minimizes the sum of squared *relative* errors `(A x / y - 1)^2` over `x >= 0`; rows with
/// `y <= 0` are left out.
pub fn relative_nnls(rows: &[Vec<f64>], y: &[f64]) -> Vec<f64> {
    let scaled: Vec<Vec<f64>> = rows
        .iter()
        .zip(y)
        .filter(|(_, y)| **y > 0.0)
        .map(|(row, y)| row.iter().map(|v| v / y).collect())
        .collect();
    nnls(&scaled, &vec![1.0; scaled.len()])
}

/// Median and worst of absolute relative errors; zeros where there are none.
pub fn errors(predicted: &[f64], observed: &[f64]) -> (f64, f64) {
    let mut all: Vec<f64> =
        predicted.iter().zip(observed).map(|(p, o)| ((p - o) / o).abs()).collect();
    all.sort_by(f64::total_cmp);
    (all.get(all.len() / 2).copied().unwrap_or(0.0), all.last().copied().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_exact_coefficients() {
        let rows: Vec<Vec<f64>> =
            (1..20).map(|i| vec![1.0, (i * i) as f64 * 1e6, (i % 5) as f64]).collect();
        let truth = [250.0, 0.25, 31.0];
        let y: Vec<f64> = rows.iter().map(|row| dot(row, &truth)).collect();
        for solved in [nnls(&rows, &y), relative_nnls(&rows, &y)] {
            for (a, b) in solved.iter().zip(&truth) {
                assert!((a - b).abs() < 1e-6 * b, "{solved:?}");
            }
        }
    }

    #[test]
    fn bound_is_active_where_the_free_optimum_is_negative() {
        // Free optimum (2, -1); the constrained one is a . y / a . a of the first column.
        let rows = vec![vec![1.0, 1.0], vec![1.0, 0.0], vec![0.0, 1.0]];
        let solved = nnls(&rows, &[1.0, 2.0, -1.0]);
        assert!((solved[0] - 1.5).abs() < 1e-12 && solved[1] == 0.0, "{solved:?}");
        assert_eq!(nnls(&rows, &[-1.0, -1.0, -1.0]), [0.0, 0.0]);
        assert_eq!(nnls(&[], &[]), Vec::<f64>::new());
    }

    proptest! {
        /// The conditions of Karush, Kuhn and Tucker: gradient zero on what is positive, and not
        /// improving on what is zero. They are sufficient, the problem being convex.
        #[test]
        fn is_optimal(
            rows in prop::collection::vec(prop::collection::vec(-4.0..4.0f64, 4), 6..14),
            seed in prop::collection::vec(-9.0..9.0f64, 14),
        ) {
            let y = &seed[..rows.len()];
            let x = nnls(&rows, y);
            let r: Vec<f64> = rows.iter().zip(y).map(|(row, y)| y - dot(row, &x)).collect();
            for j in 0..4 {
                let g: f64 = rows.iter().zip(&r).map(|(row, r)| row[j] * r).sum();
                prop_assert!(x[j] >= 0.0);
                if x[j] > 0.0 {
                    prop_assert!(g.abs() < 1e-6, "{g} at {}", x[j]);
                } else {
                    prop_assert!(g < 1e-6, "{g} at 0");
                }
            }
        }
    }
}
