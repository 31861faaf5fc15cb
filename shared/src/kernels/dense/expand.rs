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

/// Writes where the accumulators of every chunk start: `lift - offset * sum(a)` for each pixel,
/// so that unsigned weights give signed results.
pub fn starts(scheme: Scheme, lift: u32, expanded: &[u32], chunk: usize, out: &mut [u32]) {
    match scheme.family {
        Family::Outer => {
            let ones = (0..scheme.pixels).fold(0, |ones, i| ones | 1u32 << (i * scheme.spacing));
            let lifts = lift.wrapping_mul(ones);
            let chunks = expanded.chunks_exact((2 * chunk).max(1));
            for (words, start) in chunks.zip(out.as_chunks_mut::<4>().0) {
                let [first, second] = isa::sum_pairs(words);
                let both = |sum: u32| {
                    let fields = u64::from(lifts.wrapping_sub(sum.wrapping_mul(scheme.offset)));
                    fields | fields << scheme.channel_shift()
                };
                let (first, second) = (both(first), both(second));
                *start = [first as u32, (first >> 32) as u32, second as u32, (second >> 32) as u32];
            }
        }
        Family::Dual if scheme.offset == 0 => out.fill(0),
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
