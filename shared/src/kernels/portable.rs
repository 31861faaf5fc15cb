//! Routines of linear layers and sums in Rust: what runs where a core has no assembly,
//! and the twin that the assembly is held against.

#![cfg_attr(jaq_armv7em, allow(dead_code))]

use super::codes::put_small_word;
use super::elementwise::Sum;
use super::linear::{BLOCK, Blocks, CHUNK, Operands, Store};
use super::requant::Finish;
use crate::format::{Bits, Requant};

/// Sums `fours` groups of four codes.
pub fn add(sum: &Sum, a: &[u8], b: &[u8], out: &mut [u8], fours: usize) {
    let [a_four, b_four, out_four] = sum.widths.map(|bits| bits as usize / 2);
    let inputs = a.chunks_exact(a_four.max(1)).zip(b.chunks_exact(b_four.max(1)));
    for ((a, b), out) in inputs.zip(out.chunks_exact_mut(out_four.max(1))).take(fours) {
        put_small_word(sum.four(a, b, 4), out);
    }
}

/// Expands packed codes to the words of [`super::linear`], zeros behind them, and gives their sum.
#[cfg_attr(jaq_armv7em, allow(dead_code))]
pub fn expand(input: Bits, operands: Operands, packed: &[u32], out: &mut [u32]) -> i32 {
    const ROTATIONS: [u32; 4] = [0, 2, 8, 10];
    out.fill(0);
    let mut total = 0;
    let storage = input.storage();
    let places =
        |word: u32| (0..32 / storage).map(move |i| word >> (i * storage) & ((1 << storage) - 1));
    for &word in packed {
        total += places(word).sum::<u32>() as i32;
    }
    match (operands, storage) {
        (Operands::Spaced, _) => {
            for (to, &word) in out.as_chunks_mut().0.iter_mut().zip(packed) {
                *to = ROTATIONS.map(|rotation| word.rotate_right(rotation) & 0x3003_3003);
            }
        }
        (_, 2) => {
            for (to, &word) in out.as_chunks_mut().0.iter_mut().zip(packed) {
                *to = [0, 2, 4, 6, 8, 10, 12, 14].map(|shift| word >> shift & 0x0003_0003);
            }
        }
        (_, 4) => {
            for (to, &word) in out.as_chunks_mut().0.iter_mut().zip(packed) {
                *to = [0, 4, 8, 12].map(|shift| word >> shift & 0x000f_000f);
            }
        }
        _ => {
            for (to, &word) in out.as_chunks_mut().0.iter_mut().zip(packed) {
                *to = [0, 8].map(|shift| word >> shift & 0x00ff_00ff);
            }
        }
    }
    total
}

/// Dot products of expanded activations with packed weights, block by block, requantized.
pub fn run(blocks: Blocks<'_>) {
    if !blocks.is_sound() {
        return;
    }
    let count = blocks.multipliers.len() / BLOCK;
    let tables =
        blocks.multipliers.as_chunks::<BLOCK>().0.iter().zip(blocks.biases.as_chunks::<BLOCK>().0);
    let weights = blocks.weights.chunks_exact(match blocks.operands {
        Operands::Spaced => (blocks.expanded.len() * 4).max(1),
        Operands::Pairs(stored) => (blocks.expanded.len() * stored as usize).max(1),
    });
    let outs = blocks.output.chunks_exact_mut(Blocks::block_bytes(blocks.store).max(1));
    for ((weights, (m, b)), out) in weights.zip(tables).zip(outs).take(count) {
        let mut accumulators = [blocks.start; BLOCK];
        match blocks.operands {
            Operands::Spaced => spaced(blocks.expanded, weights, &mut accumulators),
            Operands::Pairs(stored) => pairs(blocks.expanded, weights, stored, &mut accumulators),
        }
        if blocks.store == Store::Raw {
            for (to, acc) in out.as_chunks_mut::<4>().0.iter_mut().zip(accumulators) {
                *to = acc.to_le_bytes();
            }
            continue;
        }
        let (requant, output) = match blocks.store {
            Store::Narrow(output) => (Requant::Narrow, output),
            _ => (Requant::Wide, Bits::B8),
        };
        let mut packed = 0;
        for (lane, ((&acc, &multiplier), &bias)) in accumulators.iter().zip(m).zip(b).enumerate() {
            let code = Finish { multiplier, bias, requant, output }.code(acc);
            packed |= code << (lane as u32 * output.storage());
        }
        put_small_word(packed, out);
    }
}

/// Sums of products of words of 16-bit operands.
#[inline(always)]
fn multiply(acc: i32, a: u32, w: u32) -> i32 {
    let (low, high) = (i32::from(a as i16) * i32::from(w as i16), (a >> 16) as i16);
    acc.wrapping_add(low).wrapping_add(i32::from(high) * i32::from((w >> 16) as i16))
}

fn spaced(expanded: &[u32], weights: &[u8], accumulators: &mut [i32; BLOCK]) {
    let units = expanded.as_chunks::<4>().0.iter().zip(weights.as_chunks::<16>().0);
    let units = units.map(|(a, w)| (a, w.as_chunks::<4>().0));
    let mut sums = [0; BLOCK];
    for (unit, (a, words)) in units.enumerate() {
        if unit % (CHUNK / 16) == 0 {
            flush(&mut sums, accumulators);
        }
        for (sum, word) in sums.iter_mut().zip(words) {
            let word = u32::from_le_bytes(*word);
            for (&a, rotation) in a.iter().zip([0, 2, 8, 10]) {
                *sum = multiply(*sum, a, word.rotate_right(rotation) & 0x3003_3003);
            }
        }
    }
    flush(&mut sums, accumulators);
}

fn flush(sums: &mut [i32; BLOCK], accumulators: &mut [i32; BLOCK]) {
    for (sum, acc) in sums.iter_mut().zip(accumulators) {
        *acc = acc.wrapping_add(*sum >> 12 & 0xfff);
        *sum = 0;
    }
}

fn pairs(expanded: &[u32], weights: &[u8], stored: u32, accumulators: &mut [i32; BLOCK]) {
    let words = weights.as_chunks::<4>().0;
    if stored == 8 {
        for (a, words) in expanded.as_chunks::<4>().0.iter().zip(words.as_chunks::<8>().0) {
            for (acc, pair) in accumulators.iter_mut().zip(words.as_chunks::<2>().0) {
                for (a, &[k0, k1, k2, k3]) in a.as_chunks::<2>().0.iter().zip(pair) {
                    let halves = |low: u8, high: u8| {
                        u32::from(i16::from(low as i8) as u16)
                            | u32::from(i16::from(high as i8) as u16) << 16
                    };
                    *acc = multiply(*acc, a[0], halves(k0, k2));
                    *acc = multiply(*acc, a[1], halves(k1, k3));
                }
            }
        }
        return;
    }
    let mask = (1u32 << stored) - 1;
    let unit = if stored == 2 { 8 } else { 4 };
    for (a, words) in expanded.chunks_exact(unit).zip(words.as_chunks::<BLOCK>().0) {
        for (acc, &word) in accumulators.iter_mut().zip(words) {
            let word = u32::from_le_bytes(word);
            for (j, &a) in a.iter().enumerate() {
                *acc = multiply(*acc, a, word >> (j as u32 * stored) & (mask << 16 | mask));
            }
        }
    }
}
