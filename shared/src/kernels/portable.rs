//! Row routines of depthwise and linear layers in Rust: what runs where a core has no assembly,
//! and the twin that the assembly is held against.

use super::depthwise::{Finish, LANES};
use crate::format::Bits;

/// One output row of one channel for a 3 x 3 window: `count` outputs at `stride` into `out`.
pub fn row3(
    rows: [&[u8]; 3],
    weights: &[i32; 9],
    stride: usize,
    out: &mut [u8],
    count: usize,
    finish: &Finish,
) {
    let [w0, w1, w2] = [0, 3, 6].map(|i| [weights[i], weights[i + 1], weights[i + 2]]);
    let positions = rows[0].windows(3).zip(rows[1].windows(3)).zip(rows[2].windows(3));
    for (((a, b), c), out) in positions.step_by(stride.max(1)).zip(out).take(count) {
        let dot = |codes: &[u8], w: [i32; 3]| match codes {
            &[x, y, z] => i32::from(x) * w[0] + i32::from(y) * w[1] + i32::from(z) * w[2],
            _ => 0,
        };
        *out = finish.code(dot(a, w0) + dot(b, w1) + dot(c, w2));
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
