//! The inner loops over one pixel group and a block of four output channels, in Rust: what RISC-V
//! and Armv7-M run, and the twin that the assembly of others is held against.

use super::scheme::{Plan, Scheme};
use super::{Accumulators, BLOCK, PIXELS, WORDS};

/// Rows of weights taken together: as many as the registers hold accumulators for.
const ROWS: usize = if cfg!(jaq_rv32im) { 2 } else { 1 };

/// Accumulators of a block: `start` is where the fields of the words begin (Quad).
pub fn block(
    plan: &Plan,
    expanded: &[[u32; WORDS]],
    start: &[u32; WORDS],
    weights: &[u8],
    out: &mut Accumulators,
) {
    match plan.scheme {
        Scheme::Quad { stored: 2, chunk, .. } => quad::<2, 8>(chunk, expanded, start, weights, out),
        Scheme::Quad { chunk, .. } => quad::<4, 4>(chunk, expanded, start, weights, out),
        Scheme::Pair { stored: 2, chunk } => pair::<2, 16>(chunk, expanded, weights, out),
        Scheme::Pair { stored: 4, chunk } => pair::<4, 8>(chunk, expanded, weights, out),
        Scheme::Pair { chunk, .. } => pair::<8, 4>(chunk, expanded, weights, out),
        Scheme::Single => single(expanded, weights, out),
    }
}

/// Two channels a row, in words of `UNIT` positions.
#[inline(never)]
fn quad<const STORED: u32, const UNIT: usize>(
    chunk: usize,
    expanded: &[[u32; WORDS]],
    start: &[u32; WORDS],
    weights: &[u8],
    out: &mut Accumulators,
) {
    const FIELDS: u32 = 0x00ff_00ff;
    let mask = ((1 << STORED) - 1) * 0x0101;
    let positions = |j: u32| j / (8 / STORED) * 16 + j % (8 / STORED) * STORED;
    let rows = weights.chunks_exact((weights.len() / 2 * ROWS).max(1));
    for (channels, weights) in out.chunks_exact_mut(2 * ROWS).zip(rows) {
        let mut sums = [[*start; 2]; ROWS];
        let mut rows = split::<ROWS>(weights);
        for part in expanded.chunks(chunk.max(UNIT)) {
            let acc = products::<UNIT, ROWS>(part, &mut rows, |packed, j| {
                packed >> positions(j as u32) & mask
            });
            for (sums, acc) in sums.iter_mut().zip(acc) {
                for (i, acc) in acc.into_iter().enumerate() {
                    sums[0][i] = sums[0][i].wrapping_add(acc & FIELDS);
                    sums[1][i] = sums[1][i].wrapping_add(acc >> 8 & FIELDS);
                }
            }
        }
        for (channel, sums) in channels.iter_mut().zip(sums.iter().flatten()) {
            for (pixels, sum) in channel.as_chunks_mut::<2>().0.iter_mut().zip(sums) {
                *pixels = [(sum & 0xffff) as i32, (sum >> 16) as i32];
            }
        }
    }
}

/// One channel a row, two pixels a word.
#[inline(never)]
fn pair<const STORED: u32, const UNIT: usize>(
    chunk: usize,
    expanded: &[[u32; WORDS]],
    weights: &[u8],
    out: &mut Accumulators,
) {
    *out = [[0; PIXELS]; BLOCK];
    let rows = weights.chunks_exact((weights.len() / BLOCK * ROWS).max(1));
    for (channels, weights) in out.chunks_exact_mut(ROWS).zip(rows) {
        let mut rows = split::<ROWS>(weights);
        for part in expanded.chunks(chunk.max(UNIT)) {
            let acc = products::<UNIT, ROWS>(part, &mut rows, signed::<STORED>);
            for (channel, acc) in channels.iter_mut().zip(acc) {
                for (pixels, acc) in channel.as_chunks_mut::<2>().0.iter_mut().zip(acc) {
                    let low = i32::from(acc as i16);
                    pixels[0] += low;
                    // Without the borrow of the lower field.
                    pixels[1] += (acc as i32).wrapping_sub(low) >> 16;
                }
            }
        }
    }
}

/// One channel a row, one pixel a word.
#[inline(never)]
fn single(expanded: &[[u32; WORDS]], weights: &[u8], out: &mut Accumulators) {
    let rows = weights.chunks_exact((weights.len() / BLOCK * ROWS).max(1));
    for (channels, weights) in out.chunks_exact_mut(ROWS).zip(rows) {
        let acc = products::<4, ROWS>(expanded, &mut split::<ROWS>(weights), signed::<8>);
        for (channel, acc) in channels.iter_mut().zip(acc) {
            let (pixels, _) = channel.split_at_mut(PIXELS / 2);
            pixels.copy_from_slice(&acc.map(|acc| acc as i32));
        }
    }
}

/// The signed weight at `index` of a word.
#[inline(always)]
fn signed<const STORED: u32>(packed: u32, index: usize) -> u32 {
    let top = 32 - STORED * (index as u32 + 1);
    ((packed << top) as i32 >> (32 - STORED)) as u32
}

type Words<'a> = core::slice::Iter<'a, [u8; 4]>;

/// The words of every row.
#[inline(always)]
fn split<const N: usize>(weights: &[u8]) -> [Words<'_>; N] {
    let mut rows = weights.chunks_exact((weights.len() / N).max(1));
    core::array::from_fn(|_| rows.next().unwrap_or_default().as_chunks().0.iter())
}

/// Sums of words times weights; `weight` takes one out of the next word of every row.
#[inline(always)]
fn products<const UNIT: usize, const N: usize>(
    expanded: &[[u32; WORDS]],
    rows: &mut [Words<'_>; N],
    weight: impl Fn(u32, usize) -> u32,
) -> [[u32; WORDS]; N] {
    let mut acc = [[0u32; WORDS]; N];
    for positions in expanded.as_chunks::<UNIT>().0 {
        let packed: [u32; N] = core::array::from_fn(|row| {
            u32::from_le_bytes(rows[row].next().copied().unwrap_or_default())
        });
        for (j, a) in positions.iter().enumerate() {
            for row in 0..N {
                let w = weight(packed[row], j);
                for i in 0..WORDS {
                    acc[row][i] = acc[row][i].wrapping_add(a[i].wrapping_mul(w));
                }
            }
        }
    }
    acc
}
