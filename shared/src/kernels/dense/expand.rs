//! From packed activations of a pixel group to the words the inner loops multiply: two A-words a
//! code (Outer), or one word a pixel for every two codes, the pairs (0, 2) and (1, 3) of every
//! four (Dual). Filler codes are zero, and so are their words.

#[cfg(jaq_armv7em)]
use super::armv7em_expand as isa;
#[cfg(not(jaq_armv7em))]
use super::portable as isa;
use super::scheme::{Family, Scheme};

pub use isa::Expander;

/// The rows of a group: one slice of packed codes a pixel, in whole words; groups of four leave
/// two empty.
pub type Rows<'a> = [&'a [u8]; 6];

/// Works out where the accumulators of every chunk start: `lift - offset * sum(a)` for each pixel,
/// so that unsigned weights give signed results.
pub struct Starter {
    scheme: Scheme,
    /// The lift in the field of every pixel.
    lifts: u32,
    /// Reduction positions of a chunk.
    chunk: usize,
}

impl Starter {
    /// For chunks of `chunk` positions under `scheme`.
    pub fn new(scheme: Scheme, lift: u32, chunk: usize) -> Starter {
        let ones = (0..scheme.pixels).fold(0, |ones, i| ones | 1u32 << (i * scheme.spacing));
        Starter { scheme, lifts: lift.wrapping_mul(ones), chunk }
    }

    /// Fills in the starts of one group.
    #[inline(always)]
    pub fn run(&self, expanded: &[u32], out: &mut [u32]) {
        let scheme = self.scheme;
        match scheme.family {
            Family::Outer => {
                // Both channels: the fields at bit 0 and again at `shift`, 28 or 30.
                let shift = scheme.channel_shift() & 31;
                let mut rest = expanded;
                for start in out.as_chunks_mut::<4>().0 {
                    let Some((words, next)) = rest.split_at_checked(2 * self.chunk) else { return };
                    rest = next;
                    let fields = isa::sum_pairs(words)
                        .map(|s| self.lifts.wrapping_sub(s.wrapping_mul(scheme.offset)));
                    let low = fields.map(|fields| fields | fields << shift);
                    let high = fields.map(|fields| fields >> ((32 - shift) & 31));
                    *start = [low[0], high[0], low[1], high[1]];
                }
            }
            Family::Dual if scheme.offset == 0 => {}
            Family::Dual => {
                // Of every eight words the last four hold `16 * odd - even`, of the first the even
                // codes: 16 * sum(odd) is their sum. Halves are added apart.
                let sums = isa::sum_halves(expanded);
                for (start, sum) in out.iter_mut().zip(sums) {
                    *start = 0u32.wrapping_sub((sum as u32).wrapping_mul(scheme.offset));
                }
            }
        }
    }
}
