//! Dot products of four bytes: the inner loop on cores that have them, as a twin in Rust that the
//! assembly (`rv32_xpulp`) is held against.
//!
//! Codes and weights of 8 bits, weights packed as for [`Scheme::Single`](super::scheme::Scheme):
//! a word is four positions of a channel already. Activations: see [`Gather::bytes`](super::expand::Gather::bytes).

pub use super::store::store;
use super::{Accumulators, BLOCK, WORDS};

/// Accumulators of a block of four channels and four pixels.
pub fn block(expanded: &[[u32; WORDS]], weights: &[u8], out: &mut Accumulators) {
    let rows = weights.chunks_exact((weights.len() / BLOCK).max(1));
    for (channel, row) in out.iter_mut().zip(rows) {
        for (pixel, sum) in channel.iter_mut().take(WORDS).enumerate() {
            let words = row.as_chunks::<4>().0.iter().zip(expanded);
            *sum = words.fold(0, |sum, (w, a)| {
                let products = w.iter().zip(a[pixel].to_le_bytes());
                products.fold(sum, |sum, (&w, a)| sum + i32::from(w as i8) * i32::from(a))
            });
        }
    }
}
