//! The routines in Rust: what Armv7-M runs, and the twin that the assembly is held against.

use super::plan::Scheme;
use super::{Columns, Finish, Spread, Sums, TABLES, WORDS};
use crate::kernels::codes::put_small_word;

/// Sums of words times weights.
#[inline(never)]
pub fn sums(sums: Sums<'_>) {
    let terms = sums.offsets.len();
    let raws = sums.raw.chunks_exact_mut((WORDS * sums.quads).max(1));
    let mut base = 0;
    for (table, raw) in sums.tables.chunks_exact((terms + TABLES).max(1)).zip(raws) {
        for (quad, raw) in raw.as_chunks_mut::<WORDS>().0.iter_mut().enumerate() {
            let mut acc = [sums.start; WORDS];
            for (&offset, &weight) in sums.offsets.iter().zip(table) {
                let words = sums.ring.get(base + offset as usize / 4 + WORDS * quad..);
                let words = words.and_then(|words| words.first_chunk::<WORDS>());
                let words = words.unwrap_or(&[0; WORDS]);
                for (acc, word) in acc.iter_mut().zip(words) {
                    *acc = acc.wrapping_add(word.wrapping_mul(weight));
                }
            }
            *raw = acc;
        }
        base += sums.lane;
    }
}

/// Requantizes sums to bytes.
#[inline(never)]
pub fn finish(finish: Finish<'_>) {
    let Finish { plan, rule, .. } = finish;
    let outs = finish.out.chunks_exact_mut(plan.plane.max(1));
    let raws = finish.raw.chunks_exact(plan.sums().max(1));
    let tables = finish.tables.chunks_exact((plan.terms + TABLES).max(1));
    for ((table, raw), out) in tables.zip(raws).zip(outs) {
        let Some(&table) = table.last_chunk::<TABLES>() else { return };
        let code = |output: i32| rule.code(output, table) as u8;
        for (out, &sum) in out.chunks_exact_mut(plan.outputs.max(1)).zip(raw) {
            let low = i32::from(sum as i16);
            match (plan.scheme, out) {
                (Scheme::Bytes, [first, rest @ ..]) => {
                    *first = code((sum >> 16 & 0xff) as i32);
                    rest.iter_mut().for_each(|second| *second = code((sum >> 24) as i32));
                }
                (Scheme::Pairs, [first, second]) => {
                    *first = code(low);
                    *second = code((sum as i32).wrapping_sub(low) >> 16);
                }
                (_, out) => out.iter_mut().for_each(|out| *out = code(sum as i32)),
            }
        }
    }
}

/// Spreads a line to the rows of its lanes.
#[inline(never)]
pub fn spread(spread: Spread<'_>) {
    let Spread { plan, storage, line, rows } = spread;
    let lanes = (32 >> storage.trailing_zeros()) as usize;
    let mask = ((1 << storage) - 1) * plan.scheme.ones();
    for phase in 0..plan.phases {
        for index in 0..plan.run {
            let mut pixels = line.iter().skip(plan.unit * index + phase);
            let mut word = [0u32; 4];
            match plan.scheme {
                Scheme::Bytes => word.iter_mut().zip(pixels).for_each(|(to, &from)| *to = from),
                Scheme::Pairs => {
                    let first = pixels.next().copied().unwrap_or(0);
                    let second = pixels.nth(plan.stride - 1).copied().unwrap_or(0);
                    word = [first, 0, second, 0];
                }
                Scheme::Single => word = [pixels.next().copied().unwrap_or(0), 0, 0, 0],
            }
            for lane in 0..lanes {
                let byte = |i: usize| (word[i] >> (lane as u32 * storage) & mask & 0xff) << (8 * i);
                let places = byte(0) | byte(1) | byte(2) | byte(3);
                if let Some(to) = rows.get_mut(lane * plan.lane + phase * plan.run + index) {
                    *to = places;
                }
            }
        }
    }
}

/// Packs one byte of every pixel.
#[inline(never)]
pub fn columns(columns: Columns<'_>) {
    let Columns { storage, planes, plane, width, output, pixel_bytes } = columns;
    let mut pixels = output.chunks_mut(pixel_bytes.max(1)).take(width);
    for four in 0..width.div_ceil(4) {
        let mut packed = 0u32;
        for (lane, plane) in planes.chunks_exact(plane.max(4)).enumerate() {
            let four = plane.as_chunks::<4>().0.get(four).copied().unwrap_or_default();
            packed |= u32::from_le_bytes(four) << (lane as u32 * storage);
        }
        for byte in packed.to_le_bytes() {
            let Some(pixel) = pixels.next() else { break };
            put_small_word(byte.into(), pixel.get_mut(..1).unwrap_or_default());
        }
    }
}
