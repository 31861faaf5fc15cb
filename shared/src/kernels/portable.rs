//! Routines of linear layers and sums in Rust: what runs where a core has no assembly,
//! and the twin that the assembly is held against.

use super::codes::put_small_word;
use super::elementwise::Sum;

/// Sums `fours` groups of four codes.
pub fn add(sum: &Sum, a: &[u8], b: &[u8], out: &mut [u8], fours: usize) {
    let [a_four, b_four, out_four] = sum.widths.map(|bits| bits as usize / 2);
    let inputs = a.chunks_exact(a_four.max(1)).zip(b.chunks_exact(b_four.max(1)));
    for ((a, b), out) in inputs.zip(out.chunks_exact_mut(out_four.max(1))).take(fours) {
        put_small_word(sum.four(a, b, 4), out);
    }
}

/// Four dot products of expanded activations with packed weights ([`super::linear`] has the
/// layout), each from its start. `stored` is the width of the packed weights.
pub fn dot(expanded: &[u32], weights: &[u8], stored: u32, accumulators: &mut [i32; 4]) {
    let mut multiply = |channel: usize, a: u32, low: i32, high: i32| {
        let sum = i32::from(a as i16) * low + i32::from((a >> 16) as i16) * high;
        accumulators[channel] = accumulators[channel].wrapping_add(sum);
    };
    let words = weights.as_chunks::<4>().0;
    if stored == 8 {
        for (a, words) in expanded.as_chunks::<4>().0.iter().zip(words.as_chunks::<8>().0) {
            for (channel, pair) in words.as_chunks::<2>().0.iter().enumerate() {
                for (a, &[k0, k1, k2, k3]) in a.as_chunks::<2>().0.iter().zip(pair) {
                    multiply(channel, a[0], (k0 as i8).into(), (k2 as i8).into());
                    multiply(channel, a[1], (k1 as i8).into(), (k3 as i8).into());
                }
            }
        }
        return;
    }
    let pairs = if stored == 2 { 8 } else { 4 };
    let mask = (1i32 << stored) - 1;
    for (a, words) in expanded.chunks_exact(pairs).zip(words.as_chunks::<4>().0) {
        for (channel, &word) in words.iter().enumerate() {
            let word = u32::from_le_bytes(word);
            for (j, &a) in a.iter().enumerate() {
                let shift = j as u32 * stored;
                multiply(
                    channel,
                    a,
                    (word >> shift) as i32 & mask,
                    (word >> (16 + shift)) as i32 & mask,
                );
            }
        }
    }
}
