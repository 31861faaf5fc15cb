//! Channel-wise sparse quantization (CSQ): during the search only the most important channels of
//! a feature map go through the bit options, the others stay real.
//!
//! Importance is the batch norm's scale, as in the paper (arXiv 2501.05339); what the paper leaves
//! open is a setting here. *Weights* are quantized whole: they are shared by all images of a
//! batch, so their copies are small beside the feature maps', and a layer's integer weights are
//! what the search prices. Towards the end the share of quantized channels rises to all, so that
//! the last decisions see the network that will be exported.
//!
//! Must not know: supernets, hardware.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::rng::{Purpose, Rng};

/// Quantized channels by the name of the normalization before the quantizer.
pub type Marks = BTreeMap<String, Vec<bool>>;

/// What decides which channels are quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rank {
    /// Those with the largest batch-norm scales.
    Scale,
    /// As many drawn at random: the control.
    Random,
}

/// Settings of CSQ.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Csq {
    /// Share of the channels that is quantized, above 0 to 1.
    pub keep: f32,
    /// Steps between two rankings, at least 1.
    pub refresh: u64,
    /// Share of the search, 0..1, after which `keep` rises linearly, to 1 at the end.
    pub anneal: f32,
    /// What ranks.
    pub rank: Rank,
}

impl Default for Csq {
    /// Half of the channels, ranked anew every 50 steps, rising over the last half of the search.
    fn default() -> Csq {
        Csq { keep: 0.5, refresh: 50, anneal: 0.5, rank: Rank::Scale }
    }
}

impl Csq {
    /// What is wrong with the settings, if anything.
    pub fn problem(&self) -> Option<String> {
        let Csq { keep, refresh, anneal, .. } = *self;
        if !(keep > 0.0 && keep <= 1.0) {
            return Some(format!("csq.keep is {keep}; a share above 0 and at most 1 is wanted"));
        }
        if !(0.0..=1.0).contains(&anneal) {
            return Some(format!("csq.anneal is {anneal}; a share from 0 to 1 is wanted"));
        }
        (refresh == 0).then(|| "csq.refresh is 0; at least 1 step is wanted".into())
    }

    /// Share of quantized channels at `step` of `steps`.
    pub fn share(&self, step: u64, steps: u64) -> f32 {
        let t = (step + 1) as f32 / steps.max(1) as f32;
        let risen = ((t - self.anneal) / (1.0 - self.anneal).max(1e-6)).clamp(0.0, 1.0);
        self.keep + (1.0 - self.keep) * risen
    }
}

/// Marks the `share` of channels with the largest absolute `scales`, at least one; equal ones in
/// their order.
pub fn largest(scales: &[f32], share: f32) -> Vec<bool> {
    let mut order: Vec<usize> = (0..scales.len()).collect();
    order.sort_by(|a, b| scales[*b].abs().total_cmp(&scales[*a].abs()).then(a.cmp(b)));
    let count = ((share * scales.len() as f32).ceil() as usize).clamp(1, scales.len().max(1));
    let mut marks = vec![false; scales.len()];
    order.iter().take(count).for_each(|c| marks[*c] = true);
    marks
}

/// The current marks, ranked anew on schedule.
#[derive(Clone, Debug)]
pub struct Ranking {
    settings: Csq,
    seed: u64,
    marks: Rc<Marks>,
}

/// Names of marks among a checkpoint's values.
const PREFIX: &str = "csq.";

impl Ranking {
    /// Nothing marked: the first [`Ranking::update`] ranks.
    pub fn new(settings: Csq, seed: u64) -> Ranking {
        Ranking { settings, seed, marks: Rc::default() }
    }

    /// The marks to quantize by.
    pub fn marks(&self) -> Rc<Marks> {
        self.marks.clone()
    }

    /// Ranks if it is time at `step` of `steps`; `scales` are the batch-norm scales by name.
    pub fn update(&mut self, step: u64, steps: u64, scales: impl Fn() -> Vec<(String, Vec<f32>)>) {
        if !self.marks.is_empty() && !step.is_multiple_of(self.settings.refresh) {
            return;
        }
        let share = self.settings.share(step, steps);
        let mut rng = Rng::at(self.seed, Purpose::Channels, step);
        let mark = |(name, scales): (String, Vec<f32>)| {
            let marks = match self.settings.rank {
                Rank::Scale => largest(&scales, share),
                Rank::Random => {
                    let drawn: Vec<f32> = scales.iter().map(|_| rng.unit()).collect();
                    largest(&drawn, share)
                }
            };
            (name, marks)
        };
        self.marks = Rc::new(scales().into_iter().map(mark).collect());
    }

    /// For a checkpoint: 1 where a channel is marked.
    pub fn values(&self) -> BTreeMap<String, Vec<f32>> {
        let value = |(name, marks): (&String, &Vec<bool>)| {
            (format!("{PREFIX}{name}"), marks.iter().map(|m| f32::from(u8::from(*m))).collect())
        };
        self.marks.iter().map(value).collect()
    }

    /// Takes over what [`Ranking::values`] gave.
    pub fn restore(&mut self, values: &BTreeMap<String, Vec<f32>>) {
        let marks = values.iter().filter_map(|(name, marks)| {
            let name = name.strip_prefix(PREFIX)?;
            Some((name.to_owned(), marks.iter().map(|m| *m != 0.0).collect()))
        });
        self.marks = Rc::new(marks.collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scales() -> Vec<(String, Vec<f32>)> {
        vec![("a".into(), vec![0.1, -0.9, 0.5, 0.2]), ("b".into(), vec![1.0, 1.0, 1.0])]
    }

    #[test]
    fn largest_scales_are_marked() {
        let [a, b] = [0, 1].map(|i| scales()[i].1.clone());
        assert_eq!(largest(&a, 0.5), [false, true, true, false]);
        assert_eq!(largest(&b, 0.5), [true, true, false]);
        assert_eq!(largest(&a, 0.01), [false, true, false, false]);
        assert_eq!(largest(&a, 1.0), [true; 4]);
    }

    #[test]
    fn share_rises_to_all() {
        let csq = Csq { keep: 0.2, anneal: 0.5, ..Csq::default() };
        assert_eq!(csq.share(0, 100), 0.2);
        assert_eq!(csq.share(49, 100), 0.2);
        assert!((csq.share(74, 100) - 0.6).abs() < 1e-5);
        assert_eq!(csq.share(99, 100), 1.0);
        assert_eq!(Csq { keep: 1.0, anneal: 1.0, ..csq }.share(3, 10), 1.0);
    }

    #[test]
    fn ranking_keeps_its_schedule_and_survives_a_checkpoint() {
        let csq = Csq { refresh: 10, ..Csq::default() };
        let mut ranking = Ranking::new(csq, 1);
        ranking.update(3, 1000, scales);
        let first = ranking.marks();
        assert_eq!(first["a"], [false, true, true, false]);
        let other = || vec![("a".into(), vec![1.0, 0.0, 0.0, 1.0])];
        ranking.update(9, 1000, other);
        assert_eq!(ranking.marks(), first);
        let mut resumed = Ranking::new(csq, 1);
        resumed.restore(&ranking.values());
        assert_eq!(resumed.marks(), first);
        ranking.update(10, 1000, other);
        assert_eq!(ranking.marks()["a"], [true, false, false, true]);
    }

    #[test]
    fn control_marks_as_many_at_random() {
        let csq = Csq { rank: Rank::Random, refresh: 1, ..Csq::default() };
        let mut ranking = Ranking::new(csq, 1);
        let wide = || vec![("a".into(), (0..64).map(|i| i as f32).collect())];
        let mut seen = Vec::new();
        for step in 0..3 {
            ranking.update(step, 1000, wide);
            let marks = ranking.marks()["a"].clone();
            assert_eq!(marks.iter().filter(|m| **m).count(), 32);
            assert!(!seen.contains(&marks));
            seen.push(marks);
        }
    }

    #[test]
    fn mistakes_are_named() {
        assert!(Csq::default().problem().is_none());
        for bad in [
            Csq { keep: 0.0, ..Csq::default() },
            Csq { keep: f32::NAN, ..Csq::default() },
            Csq { anneal: 1.5, ..Csq::default() },
            Csq { refresh: 0, ..Csq::default() },
        ] {
            assert!(bad.problem().is_some());
        }
    }
}
