//! How often the parts of a kernel run on a layer: what cost tables put prices to.
//!
//! Counts are exact and follow from the layer alone. Instructions on a core are
//! `sum(coefficient * count)` with coefficients that depend on kernel, core and the count's name, not
//! on the layer: a part that is compiled apart for some widths has a name of its own for them, and
//! what is known instruction by instruction is counted in instructions. Must not know: prices.

/// Most counts that one layer's [`Work`] has.
pub const WORK_COUNTS: usize = 32;

/// Counts by name; those that are 0 are left out, and `calls` is always 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    counts: heapless::Vec<(&'static str, u64), WORK_COUNTS>,
}

impl Work {
    /// The counts, and one call. Names may repeat: their counts are added.
    pub fn new<const N: usize>(parts: [(&'static str, u64); N]) -> Work {
        const { assert!(N < WORK_COUNTS) };
        Work { counts: heapless::Vec::new() }.and([("calls", 1)]).and(parts)
    }

    /// With more counts; what passes [`WORK_COUNTS`] names is dropped.
    pub fn and<const N: usize>(mut self, parts: [(&'static str, u64); N]) -> Work {
        for (name, count) in parts.into_iter().filter(|(_, count)| *count > 0) {
            match self.counts.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known += count,
                None => drop(self.counts.push((name, count))),
            }
        }
        self
    }

    /// With `times` fills of `bytes` bytes: by bytes where they are few, else by words first.
    pub fn and_fills(self, times: u64, bytes: u64) -> Work {
        const BY_WORDS: u64 = 16;
        let (words, left) = if bytes < BY_WORDS { (0, bytes) } else { (bytes / 4, bytes % 4) };
        self.and([
            ("filled words", times * words),
            ("filled bytes", times * left),
            ("fills by words", if words > 0 { times } else { 0 }),
        ])
    }

    /// Every count that is not 0, with its name.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.counts.iter().copied()
    }

    /// The count of a name.
    pub fn count(&self, name: &str) -> u64 {
        self.counts().find(|(known, _)| *known == name).map_or(0, |(_, count)| count)
    }
}
