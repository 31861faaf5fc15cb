//! The inner loops over one pixel group and its blocks of output channels, in Rust: the portable
//! twin of the assembly, on the same packing.

use super::super::requant;
use super::scheme::{BLOCK, Family, Plan};
use crate::format::Bits;

/// What becomes of an accumulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// `Requant::Narrow` to codes of any width.
    Narrow(Bits),
    /// `Requant::Wide` to bytes; multipliers are stored times `2^10`.
    Wide,
    /// `i32` accumulators, four a pixel.
    Raw,
}

impl Store {
    /// Bytes of one pixel's block of outputs.
    pub const fn block_bytes(self) -> usize {
        match self {
            Store::Narrow(Bits::B2) => 1,
            Store::Narrow(Bits::B3 | Bits::B4) => 2,
            Store::Narrow(Bits::B8) | Store::Wide => 4,
            Store::Raw => 16,
        }
    }
}

/// Blocks of output channels, to be run on one pixel group after the other.
#[derive(Clone, Copy)]
pub struct Tile<'a> {
    /// Sizes and packing.
    pub plan: &'a Plan,
    /// Packed weights from the first block on.
    pub weights: &'a [u8],
    /// Stored multipliers, a multiple of four of them.
    pub multipliers: &'a [i32],
    /// Stored biases, as many.
    pub biases: &'a [i32],
    /// What becomes of the accumulators.
    pub store: Store,
    /// Distance of two pixels in the output.
    pub pixel_bytes: usize,
}

impl Tile<'_> {
    /// Whether weights and tables are as long as the loops assume.
    pub fn is_sound(&self) -> bool {
        let blocks = self.multipliers.len() / BLOCK;
        blocks > 0
            && self.weights.len() >= self.plan.block_bytes() * blocks
            && self.biases.len() >= blocks * BLOCK
    }

    /// Bytes of output that a group takes.
    pub fn output_bytes(&self) -> usize {
        let last = (self.plan.scheme.group() - 1) * self.pixel_bytes;
        last + self.multipliers.len() / BLOCK * self.store.block_bytes()
    }
}

/// A tile, ready to run.
#[cfg_attr(jaq_armv7em, allow(dead_code))]
pub struct Runner<'a>(Tile<'a>);

#[cfg_attr(jaq_armv7em, allow(dead_code))]
impl<'a> Runner<'a> {
    /// For the tile.
    pub fn new(tile: Tile<'a>) -> Self {
        Runner(tile)
    }

    /// Runs all blocks on one group, from where the accumulators start (four words a chunk) and
    /// the expanded activations; nothing happens where a slice is too short.
    pub fn run(&self, starts: &[u32], expanded: &[u32], output: &mut [u8]) {
        let (tile, plan) = (&self.0, self.0.plan);
        let sound = tile.is_sound()
            && starts.len() >= plan.start_words()
            && expanded.len() >= plan.expanded_words()
            && output.len() >= tile.output_bytes();
        if !sound {
            return;
        }
        let weights = tile.weights.chunks_exact(plan.block_bytes().max(1));
        let tables = tile.multipliers.as_chunks::<BLOCK>().0.iter().zip(tile.biases.as_chunks().0);
        for (block, (weights, (m, b))) in weights.zip(tables).enumerate() {
            let mut accumulators = [[0i32; BLOCK]; 6];
            match plan.scheme.family {
                Family::Outer => outer(plan, starts, expanded, weights, &mut accumulators),
                Family::Dual => dual(plan, starts, expanded, weights, &mut accumulators),
            }
            let size = tile.store.block_bytes();
            for (pixel, acc) in accumulators.iter().take(plan.scheme.group()).enumerate() {
                let start = pixel * tile.pixel_bytes + block * size;
                if let Some(out) = output.get_mut(start..start + size) {
                    store(tile.store, acc, m, b, out);
                }
            }
        }
    }
}

fn outer(plan: &Plan, starts: &[u32], expanded: &[u32], weights: &[u8], acc: &mut [[i32; 4]; 6]) {
    let scheme = plan.scheme;
    let stored = scheme.stored;
    let mask = (1u32 << stored) - 1;
    let mask = mask | mask << (32 - stored);
    // Weight words hold this many positions of four channels.
    let positions = (32 / stored / 4) as usize;
    let (words, _) = weights.as_chunks::<4>();
    let mut words = words.iter();
    let chunks = expanded.chunks_exact(2 * plan.chunk).zip(starts.as_chunks::<4>().0);
    for (expanded, start) in chunks {
        let wide = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let start = [wide(start[0], start[1]), wide(start[2], start[3])];
        let mut sums = [[start[0]; 2], [start[1]; 2]];
        for group in expanded.chunks(2 * positions) {
            let packed = u32::from_le_bytes(words.next().copied().unwrap_or_default());
            for (j, a) in group.as_chunks::<2>().0.iter().enumerate() {
                let turn = 4 * stored * j as u32 + stored;
                let w = [turn, turn + 2 * stored].map(|turn| packed.rotate_right(turn) & mask);
                for (sums, &a) in sums.iter_mut().zip(a) {
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = sum.wrapping_add(u64::from(a) * u64::from(w));
                    }
                }
            }
        }
        let pixels = scheme.pixels as usize;
        for (word, sums) in sums.iter().enumerate() {
            for (half, sum) in sums.iter().enumerate() {
                for field in 0..2 * pixels {
                    let value = sum >> (field as u32 * scheme.spacing);
                    let value = value & ((1 << scheme.spacing) - 1);
                    let (pixel, channel) =
                        (word * pixels + field % pixels, 2 * half + field / pixels);
                    acc[pixel][channel] += value as i32;
                }
            }
        }
    }
}

fn dual(plan: &Plan, starts: &[u32], expanded: &[u32], weights: &[u8], acc: &mut [[i32; 4]; 6]) {
    for (pass, weights) in weights.chunks_exact((plan.block_bytes() / 2).max(1)).enumerate() {
        let bytes = |pair: [u8; 2]| pair.map(|byte| i32::from(byte as i8));
        let mut sums = [[0i32; 2]; 4];
        for (sum, &start) in sums.iter_mut().zip(starts) {
            *sum = [start as i32; 2];
        }
        let mut multiply = |a: &[u32; 4], w: [[i32; 2]; 2]| {
            for (sums, &a) in sums.iter_mut().zip(a) {
                let (low, high) = (i32::from(a as i16), i32::from((a >> 16) as i16));
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = sum.wrapping_add(low * w[0]).wrapping_add(high * w[1]);
                }
            }
        };
        let words = weights.as_chunks::<4>().0;
        let shift = if plan.scheme.stored == 4 {
            for (a, &[c00, c10, c01, c11]) in expanded.as_chunks::<8>().0.iter().zip(words) {
                let [even @ .., _, _, _, _] = a;
                let [_, _, _, _, odd @ ..] = a;
                let whole = [bytes([c00, c01]), bytes([c10, c11])];
                multiply(even, whole);
                multiply(odd, whole.map(|pair| pair.map(|byte| byte & 15)));
            }
            4
        } else {
            for (a, &[c00, c10, c01, c11]) in expanded.as_chunks::<4>().0.iter().zip(words) {
                multiply(a, [bytes([c00, c01]), bytes([c10, c11])]);
            }
            0
        };
        for (acc, sums) in acc.iter_mut().zip(sums) {
            for (acc, sum) in acc.iter_mut().skip(2 * pass).zip(sums) {
                *acc = sum >> shift;
            }
        }
    }
}

fn store(store: Store, acc: &[i32; 4], m: &[i32; 4], b: &[i32; 4], out: &mut [u8]) {
    let all = acc.iter().zip(m).zip(b).map(|((&acc, &m), &b)| (acc, m, b));
    match store {
        Store::Narrow(bits) => {
            let codes = all.map(|(acc, m, b)| requant::narrow(acc, m, b, bits));
            let width = bits.storage();
            let packed = codes.rev().fold(0, |packed, code| packed << width | code);
            for (byte, value) in out.iter_mut().zip(packed.to_le_bytes()) {
                *byte = value;
            }
        }
        Store::Wide => {
            for (byte, (acc, m, b)) in out.iter_mut().zip(all) {
                *byte = requant::wide_upper(acc, m, b, Bits::B8) as u8;
            }
        }
        Store::Raw => {
            for (bytes, acc) in out.as_chunks_mut::<4>().0.iter_mut().zip(acc) {
                *bytes = acc.to_le_bytes();
            }
        }
    }
}
