//! How often the parts of a kernel run on a layer: what cost tables put prices to.
//!
//! Counts are exact and follow from the layer alone. Instructions on a core are
//! `sum(coefficient * count)` with coefficients that depend on kernel, core and the count's name, not
//! on the layer: a part that is compiled apart for some widths has a name of its own for them, and
//! what is known instruction by instruction is counted in instructions. Must not know: prices.

/// Most counts that one layer's [`Work`] has.
pub const WORK_COUNTS: usize = 24;

/// Counts by name; those that are 0 are left out, and `calls` is always 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    counts: heapless::Vec<(&'static str, u64), WORK_COUNTS>,
}

impl Work {
    /// The counts, and one call. Names may repeat: their counts are added.
    pub fn new<const N: usize>(parts: [(&'static str, u64); N]) -> Work {
        const { assert!(N < WORK_COUNTS) };
        let mut work = Work { counts: heapless::Vec::new() };
        for (name, count) in parts {
            work.add(name, count);
        }
        work.add("calls", 1);
        work
    }

    /// Adds to a count.
    fn add(&mut self, name: &'static str, count: u64) {
        if let Some((_, known)) = self.counts.iter_mut().find(|(known, _)| *known == name) {
            *known += count;
        } else if count > 0 {
            // There is room: `new` has at most as many names.
            let _ = self.counts.push((name, count));
        }
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
