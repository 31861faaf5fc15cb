//! The seeded generator of everything random in training: SplitMix64, addressed by position.
//!
//! [`Rng::at`] names a stream by (seed, purpose, step), so a resumed run draws what an
//! uninterrupted one would have drawn from nothing but the step it stands at.
//!
//! Must not know: what the numbers are for.

use jaq_network::SplitMix64;

/// What a stream of numbers is drawn for; streams of different purposes are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Initial weights.
    Init = 1,
    /// Order of the samples of an epoch.
    Order = 2,
    /// Augmentation of a batch.
    Augment = 3,
    /// Gumbel noise and sampled paths of a weight step.
    Weights = 4,
    /// Gumbel noise and sampled paths of an architecture step.
    Architecture = 5,
    /// Channels quantized at random.
    Channels = 6,
    /// Networks drawn by random search and evolution.
    Trials = 7,
    /// Samples drawn again from samples.
    Bootstrap = 8,
    /// Draws of the hardware generation network.
    Hardware = 9,
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Rng(SplitMix64);

impl Rng {
    /// The stream of `purpose` at `step` (an epoch or a batch) under `seed`.
    pub fn at(seed: u64, purpose: Purpose, step: u64) -> Rng {
        let mut rng = Rng(SplitMix64(seed ^ 0x6a61_7100));
        for part in [purpose as u64, step] {
            rng.0.0 = rng.bits() ^ part.wrapping_mul(0xd6e8_feb8_6659_fd93);
        }
        rng.bits();
        rng
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.bits()
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Uniform in `0..n`; `n` is at least 1.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// Standard normal (Box and Muller).
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f32::consts::TAU * self.unit()).cos()
    }

    /// Standard Gumbel: `-ln(-ln(u))`.
    pub fn gumbel(&mut self) -> f32 {
        -(-(self.unit().max(1e-7)).ln()).max(1e-7).ln()
    }

    /// An index drawn with the given probabilities (which sum to about 1).
    pub fn choose(&mut self, probabilities: &[f32]) -> usize {
        let mut left = self.unit();
        for (i, p) in probabilities.iter().enumerate() {
            left -= p;
            if left < 0.0 {
                return i;
            }
        }
        probabilities.iter().rposition(|p| *p > 0.0).unwrap_or(0)
    }

    /// Shuffles in place (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_and_repeat() {
        let first = |seed, purpose, step| Rng::at(seed, purpose, step).bits();
        assert_eq!(first(1, Purpose::Order, 2), first(1, Purpose::Order, 2));
        let streams = [
            first(1, Purpose::Order, 2),
            first(1, Purpose::Order, 3),
            first(1, Purpose::Augment, 2),
            first(2, Purpose::Order, 2),
        ];
        for (i, a) in streams.iter().enumerate() {
            assert!(streams[..i].iter().all(|b| a != b));
        }
    }

    #[test]
    fn moments_are_right() {
        let mut rng = Rng::at(7, Purpose::Init, 0);
        let n = 20_000;
        let (mut sum, mut square, mut gumbel) = (0.0f64, 0.0f64, 0.0f64);
        let mut counts = [0usize; 3];
        for _ in 0..n {
            let x = f64::from(rng.normal());
            (sum, square) = (sum + x, square + x * x);
            gumbel += f64::from(rng.gumbel());
            counts[rng.choose(&[0.5, 0.2, 0.3])] += 1;
        }
        let n = f64::from(n);
        assert!((sum / n).abs() < 0.03 && (square / n - 1.0).abs() < 0.05);
        assert!((gumbel / n - 0.5772).abs() < 0.04);
        assert!((counts[1] as f64 / n - 0.2).abs() < 0.02);
    }
}
