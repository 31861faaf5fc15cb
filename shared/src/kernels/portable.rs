//! Row routines of depthwise and linear layers in Rust: what runs where a core has no assembly,
//! and the twin that the assembly is held against.

use super::codes::put_small_word;
use super::depthwise::{LANES, Lane, Rows};
use super::elementwise::Sum;
use crate::format::Bits;

/// A lane's weights as the row routines want them: nothing of the kind is needed here.
#[cfg_attr(jaq_armv7em, allow(dead_code))]
pub type PackedLane = ();

/// The packed form of `lane`.
#[cfg_attr(jaq_armv7em, allow(dead_code))]
pub fn pack_lane(_lane: &Lane, _columns: usize) -> PackedLane {}

/// One output row of every lane into `out`.
pub fn rows(rows: &Rows<'_>, lanes: &[Lane], _packed: &mut [PackedLane; LANES], out: &mut [u8]) {
    let planes = rows.planes.chunks_exact(rows.plane.max(1));
    for ((lane, plane), out) in lanes.iter().zip(planes).zip(out.chunks_exact_mut(rows.out_plane)) {
        for (x, out) in out.iter_mut().take(rows.count).enumerate() {
            let mut acc = 0i32;
            for (start, weights) in rows.starts.iter().zip(lane.weights.chunks(rows.columns)) {
                let row = plane.get(*start..start + rows.row).unwrap_or_default();
                let codes = row.iter().skip(x * rows.stride);
                for (&code, &weight) in codes.zip(weights) {
                    acc = acc.wrapping_add(i32::from(code) * weight);
                }
            }
            *out = lane.finish.code(acc) as u8;
        }
    }
}

/// Spreads the four codes at byte `offset` of `count` pixels, `step` bytes apart, to four planes
/// of one byte a code, `plane` bytes apart.
pub fn spread(
    bits: Bits,
    pixels: &[u8],
    step: usize,
    offset: usize,
    count: usize,
    planes: &mut [u8],
    plane: usize,
) {
    for (x, pixel) in pixels.chunks_exact(step.max(1)).take(count).enumerate() {
        let at = |i: usize| pixel.get(offset + i).copied().unwrap_or(0);
        let codes = match bits {
            Bits::B2 => [at(0) & 3, at(0) >> 2 & 3, at(0) >> 4 & 3, at(0) >> 6],
            Bits::B3 | Bits::B4 => [at(0) & 15, at(0) >> 4, at(1) & 15, at(1) >> 4],
            Bits::B8 => [at(0), at(1), at(2), at(3)],
        };
        for (lane, code) in codes.into_iter().enumerate() {
            if let Some(target) = planes.get_mut(lane * plane + x) {
                *target = code;
            }
        }
    }
}

/// Packs four planes into the four codes at byte `offset` of `count` pixels: undoes [`spread`].
pub fn pack(
    bits: Bits,
    planes: &[u8],
    plane: usize,
    count: usize,
    pixels: &mut [u8],
    step: usize,
    offset: usize,
) {
    let storage = bits.storage();
    for (x, pixel) in pixels.chunks_exact_mut(step.max(1)).take(count).enumerate() {
        let packed = (0..LANES).fold(0, |packed, lane| {
            let code = planes.get(lane * plane + x).copied().unwrap_or(0);
            packed | u32::from(code) << (lane as u32 * storage)
        });
        let bytes = packed.to_le_bytes().into_iter().take(LANES * storage as usize / 8);
        for (to, from) in pixel.iter_mut().skip(offset).zip(bytes) {
            *to = from;
        }
    }
}

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
    let pairs = (16 / stored) as usize;
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
