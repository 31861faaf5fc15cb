//! Softmax and the losses over it, on small matrices.

use super::tape::Value;
use super::{Candle, dims, floats, tensor, unary};

/// `softmax(row / temperature)`.
pub fn softmax(row: &[f32], temperature: f32) -> Vec<f32> {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exps: Vec<f32> = row.iter().map(|x| ((x - max) / temperature).exp()).collect();
    let sum: f32 = exps.iter().sum();
    exps.into_iter().map(|e| e / sum).collect()
}

/// Targets of labels with smoothing.
pub fn smoothed(labels: &[u32], classes: usize, smoothing: f32) -> Vec<f32> {
    let mut targets = vec![smoothing / classes as f32; labels.len() * classes];
    for (row, label) in targets.chunks_exact_mut(classes).zip(labels) {
        row[*label as usize] += 1.0 - smoothing;
    }
    targets
}

/// `-sum t log t`.
pub fn entropy(targets: &[f32]) -> f64 {
    targets.iter().filter(|t| **t > 0.0).map(|t| -f64::from(*t) * f64::from(*t).ln()).sum()
}

impl Candle {
    /// `temperature^2 * (mean_n sum_c -target * log softmax(logits / temperature) - entropy)`.
    pub(super) fn soft_cross_entropy(
        &self,
        logits: &Value,
        targets: Vec<f32>,
        temperature: f32,
        entropy: f64,
    ) -> Value {
        let [n, classes] = dims("a cross-entropy", logits);
        let mut total = 0.0f64;
        let mut grads = Vec::with_capacity(n * classes);
        let rows = floats(&logits.tensor);
        for (row, target) in rows.chunks_exact(classes).zip(targets.chunks_exact(classes)) {
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let p = softmax(row, temperature);
            let exp = |x: &f32| f64::from((x - max) / temperature).exp();
            let log_sum = row.iter().map(exp).sum::<f64>().ln();
            for ((x, t), p) in row.iter().zip(target).zip(&p) {
                total -= f64::from(*t) * (f64::from((x - max) / temperature) - log_sum);
                grads.push((p - t) * temperature / n as f32);
            }
        }
        drop(rows);
        let value = f64::from(temperature * temperature) * (total / n as f64 - entropy);
        unary(logits, tensor(vec![value as f32], &[1]), move |grad| {
            let factor = floats(grad)[0];
            tensor(grads.iter().map(|g| g * factor).collect(), &[n, classes])
        })
    }
}
