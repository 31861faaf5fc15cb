//! The expansion of [`super::expand`] in Rust: the portable twin of the assembly.

use super::expand::Rows;
use super::scheme::{Family, Scheme};
use crate::format::Bits;

/// Sums of the even and of the odd words.
pub fn sum_pairs(words: &[u32]) -> [u32; 2] {
    words
        .as_chunks::<2>()
        .0
        .iter()
        .fold([0; 2], |sums, pair| [sums[0].wrapping_add(pair[0]), sums[1].wrapping_add(pair[1])])
}

/// Sums of the signed halves of every fourth word.
pub fn sum_halves(words: &[u32]) -> [i32; 4] {
    let mut sums = [0i32; 4];
    for words in words.as_chunks::<4>().0 {
        for (sum, &word) in sums.iter_mut().zip(words) {
            *sum += i32::from(word as i16) + i32::from((word >> 16) as i16);
        }
    }
    sums
}

/// Expands segments of one layer.
pub struct Expander {
    scheme: Scheme,
    input: Bits,
}

impl Expander {
    /// For activations of `input` bits under `scheme`.
    pub fn new(scheme: Scheme, input: Bits, _segment: usize) -> Self {
        Expander { scheme, input }
    }

    /// Expands one segment of every row into `out`.
    pub fn run(&self, rows: &Rows<'_>, out: &mut [u32]) {
        let scheme = self.scheme;
        match (scheme.family, self.input, scheme.pixels) {
            (Family::Outer, Bits::B2, 3) => outer_2_of_3(rows, out),
            (Family::Outer, Bits::B2, _) => outer_2(rows, out),
            (Family::Outer, Bits::B3 | Bits::B4, 3) => outer_4_of_3(rows, out),
            (Family::Outer, Bits::B3 | Bits::B4, _) if scheme.spacing == 14 => {
                outer_4::<14>(rows, out);
            }
            (Family::Outer, Bits::B3 | Bits::B4, _) => outer_4::<15>(rows, out),
            (Family::Outer, Bits::B8, _) => outer_8(rows, out),
            (Family::Dual, Bits::B2, _) => dual_2(rows, out),
            (Family::Dual, Bits::B3 | Bits::B4, _) => dual_4(rows, out),
            (Family::Dual, Bits::B8, _) => dual_8(rows, scheme.stored == 4, out),
        }
    }
}

/// The difference of two pairs of halves.
#[inline(always)]
fn subtract_halves(a: u32, b: u32) -> u32 {
    let low = a.wrapping_sub(b) & 0xffff;
    (a & 0xffff_0000).wrapping_sub(b & 0xffff_0000) | low
}

/// The `index`-th word of a row; what lies beyond the row is zero.
#[inline(always)]
fn word(row: &[u8], index: usize) -> u32 {
    match row.get(4 * index..4 * index + 4) {
        Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
        _ => {
            let at = |i: usize| u32::from(row.get(4 * index + i).copied().unwrap_or(0));
            at(0) | at(1) << 8 | at(2) << 16
        }
    }
}

/// Calls `four` for every four codes of `PER` bits: the low bits of its arguments are the codes of
/// the first `N` pixels.
#[inline(always)]
fn by_fours<const N: usize, const BITS: u32>(
    rows: &Rows<'_>,
    out: &mut [u32],
    four: impl Fn([u32; N], &mut [u32; 8]),
) {
    // A word holds this many fours.
    let fours = (8 / BITS) as usize;
    for (index, part) in out.chunks_mut(8 * fours).enumerate() {
        let mut words = [0; N];
        for (word_of, row) in words.iter_mut().zip(rows) {
            *word_of = word(row, index);
        }
        for target in part.as_chunks_mut::<8>().0 {
            four(words, target);
            for value in &mut words {
                *value = value.checked_shr(4 * BITS).unwrap_or(0);
            }
        }
    }
}

#[inline(always)]
fn outer_2_of_3(rows: &Rows<'_>, out: &mut [u32]) {
    const MASK: u32 = 0b11 << 20 | 0b11 << 10 | 0b11;
    by_fours::<6, 2>(rows, out, |x, out| {
        let low = |i: usize| x[i] & 0xff;
        let first = low(0) | low(1) << 10 | low(2) << 20;
        let second = low(3) | low(4) << 10 | low(5) << 20;
        for (j, pair) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            *pair = [first >> (2 * j) & MASK, second >> (2 * j) & MASK];
        }
    });
}

/// Codes in nibbles, spacing 10: two at a time.
#[inline(always)]
fn outer_4_of_3(rows: &Rows<'_>, out: &mut [u32]) {
    const MASK: u32 = 0xf << 20 | 0xf << 10 | 0xf;
    by_fours::<6, 4>(rows, out, |x, out| {
        let triple = |a: u32, b: u32, c: u32, shift: u32| {
            let low = |x: u32| (x >> shift) & 0xff;
            low(a) | low(b) << 10 | low(c) << 20
        };
        for (half, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let first = triple(x[0], x[1], x[2], 8 * half as u32);
            let second = triple(x[3], x[4], x[5], 8 * half as u32);
            *out = [first & MASK, second & MASK, first >> 4 & MASK, second >> 4 & MASK];
        }
    });
}

/// 2-bit codes, spacing 14.
#[inline(always)]
fn outer_2(rows: &Rows<'_>, out: &mut [u32]) {
    const MASK: u32 = 0b11 << 14 | 0b11;
    by_fours::<4, 2>(rows, out, |x, out| {
        let first = x[0] & 0xff | (x[1] & 0xff) << 14;
        let second = x[2] & 0xff | (x[3] & 0xff) << 14;
        for (j, pair) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            *pair = [first >> (2 * j) & MASK, second >> (2 * j) & MASK];
        }
    });
}

/// Codes in nibbles, two at a time: spacing 14 and 15 leave room for three.
#[inline(always)]
fn outer_4<const SPACING: u32>(rows: &Rows<'_>, out: &mut [u32]) {
    let mask = 0xf << SPACING | 0xf;
    by_fours::<4, 4>(rows, out, |x, out| {
        let pair =
            |a: u32, b: u32, shift: u32| ((a >> shift) & 0xff) | ((b >> shift) & 0xff) << SPACING;
        let (first, second) = (pair(x[0], x[1], 0), pair(x[2], x[3], 0));
        let (third, fourth) = (pair(x[0], x[1], 8), pair(x[2], x[3], 8));
        *out = [
            first & mask,
            second & mask,
            first >> 4 & mask,
            second >> 4 & mask,
            third & mask,
            fourth & mask,
            third >> 4 & mask,
            fourth >> 4 & mask,
        ];
    });
}

/// Bytes, spacing 15.
#[inline(always)]
fn outer_8(rows: &Rows<'_>, out: &mut [u32]) {
    by_fours::<4, 8>(rows, out, |x, out| {
        for (j, pair) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let code = |i: usize| (x[i] >> (8 * j)) & 0xff;
            *pair = [code(0) | code(1) << 15, code(2) | code(3) << 15];
        }
    });
}

/// Two pairs of every pixel: codes (0, 2) and (1, 3) of four, as halves of a word.
#[inline(always)]
fn pairs<const N: usize>(even: [u32; N], odd: [u32; N], nibbles: bool, out: &mut [u32; 8]) {
    for i in 0..4 {
        out[i] = even[i];
        // Nibble weights: the first product takes the whole byte `16 * w0 + u1` times the even
        // code, so the second takes `u1` times `16 * odd - even`.
        out[4 + i] = if nibbles { subtract_halves(odd[i] << 4, even[i]) } else { odd[i] };
    }
}

#[inline(always)]
fn dual_2(rows: &Rows<'_>, out: &mut [u32]) {
    by_fours::<4, 2>(rows, out, |x, out| {
        let both = x.map(|x| x & 0xff | (x & 0xff) << 12);
        pairs(both.map(|x| x & 0x0003_0003), both.map(|x| x >> 2 & 0x0003_0003), false, out);
    });
}

#[inline(always)]
fn dual_4(rows: &Rows<'_>, out: &mut [u32]) {
    by_fours::<4, 4>(rows, out, |x, out| {
        let both = x.map(|x| x & 0xffff | (x & 0xff00) << 8);
        pairs(both.map(|x| x & 0x000f_000f), both.map(|x| x >> 4 & 0x000f_000f), false, out);
    });
}

#[inline(always)]
fn dual_8(rows: &Rows<'_>, nibbles: bool, out: &mut [u32]) {
    by_fours::<4, 8>(rows, out, |x, out| {
        pairs(x.map(|x| x & 0x00ff_00ff), x.map(|x| x >> 8 & 0x00ff_00ff), nibbles, out);
    });
}
