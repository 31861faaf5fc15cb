//! Multipliers of the limits: an augmented Lagrangian whose forces are measured in units of the
//! task's gradient.
//!
//! Must not know: what the figures are, how gradients are made.

use jaq_cost::Figure;

use super::costs::Probabilities;
use super::{Evaluation, Excess};
use crate::checkpoint::Values;

/// A figure that may be limited while searching. (Area has no derivative by the network: what is
/// too large is left out.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Limited {
    Work,
    Flash,
    Latency,
    Energy,
    Ram,
}

impl Limited {
    /// How many there are.
    const COUNT: usize = 5;

    /// The limit on a figure.
    pub fn of(figure: Figure) -> Limited {
        match figure {
            Figure::Work => Limited::Work,
            Figure::Flash => Limited::Flash,
            Figure::Latency => Limited::Latency,
            Figure::Energy => Limited::Energy,
        }
    }
}

/// Multipliers and units of all limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Duals {
    /// Stiffness.
    rho: f64,
    /// Rise of a multiplier for a step at twice the limit.
    rate: f64,
    /// Multipliers, in units of the task's gradient.
    mu: [f64; Limited::COUNT],
    /// Running norm of every limit's gradient, 0 before the first.
    norms: [f64; Limited::COUNT],
    /// Running norm of the task's gradient.
    task: f64,
}

/// Name among a checkpoint's values.
const NAME: &str = "duals";
/// Weight of the past in running norms.
const PAST: f64 = 0.98;
/// No multiplier passes this: a limit that cannot be met is the discretization's to report.
const MOST: f64 = 100.0;

impl Duals {
    /// Nothing pushes yet. A limit that is exceeded by half of itself throughout a search of
    /// `steps` steps pushes as hard as the task after a tenth of them.
    pub fn new(rho: f64, steps: u64) -> Duals {
        let count = [0.0; Limited::COUNT];
        Duals { rho, rate: 20.0 / steps.max(1) as f64, mu: count, norms: count, task: 0.0 }
    }

    /// The multiplier of a limit.
    pub fn multiplier(&self, what: Limited) -> f64 {
        self.mu[what as usize]
    }

    /// From units of the task's gradient to the loss; 1 before anything was observed.
    fn scale(&self, what: Limited) -> f64 {
        let norm = self.norms[what as usize];
        if norm > 0.0 && self.task > 0.0 { self.task / norm } else { 1.0 }
    }

    /// What a limit that is exceeded by `share` adds to the loss.
    pub fn penalty(&self, what: Limited, share: f64) -> f64 {
        let mu = self.mu[what as usize];
        let active = (mu + self.rho * share).max(0.0);
        self.scale(what) * (active * active - mu * mu) / (2.0 * self.rho.max(1e-12))
    }

    /// Derivative of [`Self::penalty`] by `share`.
    pub fn force(&self, what: Limited, share: f64) -> f64 {
        self.scale(what) * (self.mu[what as usize] + self.rho * share).max(0.0)
    }

    /// Measures the units: the norm of the task's gradient on the architecture's logits, and those
    /// of the limits at the probabilities `p`.
    pub fn observe(&mut self, evaluation: &Evaluation, p: &Probabilities, task_norm: f64) {
        let follow = |past: &mut f64, now: f64| {
            *past = if *past > 0.0 { PAST * *past + (1.0 - PAST) * now } else { now };
        };
        follow(&mut self.task, task_norm);
        for Excess { what, gradient, .. } in &evaluation.limits {
            let squares = gradient.by_logits(p).into_iter().flatten().map(|g| f64::from(g).powi(2));
            follow(&mut self.norms[*what as usize], squares.sum::<f64>().sqrt());
        }
    }

    /// Dual ascent: multipliers rise by what limits are exceeded by, and fall with slack.
    pub fn ascend(&mut self, evaluation: &Evaluation) {
        for Excess { what, share, .. } in &evaluation.limits {
            let mu = &mut self.mu[*what as usize];
            *mu = (*mu + self.rate * share).clamp(0.0, MOST);
        }
    }

    /// For a checkpoint. Bits of doubles, halved: a resumed search must go on exactly.
    pub fn values(&self) -> Values {
        let all = self.mu.iter().chain(&self.norms).chain([&self.task]);
        let halves = |v: &f64| {
            let bits = v.to_bits();
            [(bits >> 48) as u16, (bits >> 32) as u16, (bits >> 16) as u16, bits as u16]
        };
        let values = all.flat_map(halves).map(f32::from).collect();
        Values::from([(NAME.to_owned(), values)])
    }

    /// Takes over what [`Duals::values`] gave.
    pub fn restore(&mut self, values: &Values) {
        let Some(parts) = values.get(NAME) else { return };
        let all = self.mu.iter_mut().chain(&mut self.norms).chain([&mut self.task]);
        for (value, parts) in all.zip(parts.chunks_exact(4)) {
            let join = |bits: u64, part: &f32| bits << 16 | *part as u64;
            *value = f64::from_bits(parts.iter().fold(0, join));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multipliers_survive_a_checkpoint_exactly() {
        let mut duals = Duals::new(4.0, 100);
        duals.mu = [0.1, 1.0 / 3.0, 1e-17, 99.0, 0.0];
        (duals.norms, duals.task) = ([1e-5; 5], 0.2);
        let mut other = Duals::new(4.0, 100);
        other.restore(&duals.values());
        assert_eq!(other, duals);
    }

    #[test]
    fn forces_by_hand() {
        let mut duals = Duals::new(4.0, 100);
        assert_eq!(duals.force(Limited::Work, 0.5), 2.0);
        assert_eq!(duals.penalty(Limited::Work, 0.5), 0.5);
        assert_eq!(duals.force(Limited::Work, -0.5), 0.0);
        duals.mu[Limited::Work as usize] = 3.0;
        // Slack of a half leaves one of three; the penalty of a satisfied limit is negative.
        assert_eq!(duals.force(Limited::Work, -0.5), 1.0);
        assert_eq!(duals.penalty(Limited::Work, -0.5), (1.0 - 9.0) / 8.0);
        (duals.task, duals.norms[0]) = (0.1, 0.5);
        assert!((duals.force(Limited::Work, 0.0) - 0.6).abs() < 1e-12);
    }
}
