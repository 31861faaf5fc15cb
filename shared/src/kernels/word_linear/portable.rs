//! The inner loop in Rust: what Armv7-M runs, and the twin that the assembly is held against.

use super::{BLOCK, Scheme};

/// Sums of a block of channels, offset included.
#[inline(never)]
pub fn block(scheme: Scheme, expanded: &[u32], weights: &[u8]) -> [u32; BLOCK] {
    let mut sums = [0u32; BLOCK];
    let units = expanded.chunks_exact(scheme.products().max(1));
    let (mask, stored, top) = (scheme.mask(), scheme.stored(), scheme.top());
    let apart = matches!(scheme, Scheme::Four { sums: false, .. });
    for (a, words) in units.zip(weights.as_chunks::<16>().0) {
        for (sum, word) in sums.iter_mut().zip(words.as_chunks::<4>().0) {
            let mut word = u32::from_le_bytes(*word);
            let mut products = 0u32;
            for &a in a {
                let product = (word & mask).wrapping_mul(a);
                products = products.wrapping_add(if apart { product >> top } else { product });
                word >>= stored;
            }
            *sum = sum.wrapping_add(if apart { products } else { products >> top });
        }
    }
    sums
}
