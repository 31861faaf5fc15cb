//! Depthwise layers on Armv7E-M: a block of channels row by row, with the assembly of
//! [`super::armv7em_rows`] and [`super::armv7em_planes`]. Lengths are checked once a block, so
//! that a row costs little beside its routines.

use super::armv7em_planes::{Gather, Narrow, Pack, Spread, gather, narrow, pack, spread};
use super::armv7em_rows::{
    MOST_ROWS, PACKED_WORDS, PORTABLE, PackedLane, Routine, RowCall, cut, pack_lane, routine,
};
use super::depthwise::{Block, LANES, Lane, Memory, OCTET, Planes, Rule, word_lanes};
use super::portable_planes;
use crate::format::{Bits, Requant};

/// [`portable_planes::Rows`].
pub struct Rows {
    block: Block,
    routine: Option<(Routine, Spread)>,
    gather: Gather,
    pack: Pack,
    narrow: Option<Narrow>,
    /// Distance of two lanes in the ring, less the bytes a lane's run advances by.
    row_next: usize,
}

impl Rows {
    /// For blocks as described.
    pub fn new(block: Block) -> Rows {
        let Block { planes, words, outputs, window, .. } = block;
        let (stride, columns) = (usize::from(window.stride), usize::from(window.kw));
        let (lane, places, advance) = match planes {
            Planes::Bytes | Planes::Triples => {
                let places = 1 + outputs / planes.pixels();
                (4, places, 4 * OCTET * places)
            }
            Planes::Halves => {
                let places = (outputs.saturating_sub(1) * stride + columns + 1).div_ceil(2);
                // Rows of five are read by position and stay where they are.
                (4 * words, places, if columns == 5 { 0 } else { 2 * outputs * stride })
            }
        };
        let width = usize::from(block.output.shape.w);
        let sound = places <= words
            && (planes != Planes::Halves || words.is_multiple_of(2))
            && block.out_plane > outputs
            && block.out_plane >= width.next_multiple_of(4)
            && outputs >= width.max(1)
            && outputs.is_multiple_of(planes.step())
            && usize::from(window.kh) <= MOST_ROWS
            && block.input.shape.w > 0;
        let routine = routine(&block).filter(|_| sound).zip(spread(block.input.bits, planes));
        Rows {
            routine,
            gather: gather(block.input.pixel_bytes()),
            pack: pack(block.output.bits),
            narrow: narrow(block.output.pixel_bytes()),
            row_next: usize::wrapping_sub(lane, advance),
            block,
        }
    }

    /// Computes the outputs of `lanes`, channels `first` and on.
    pub fn run(
        &self,
        memory: &mut Memory<'_>,
        input: &[u8],
        output: &mut [u8],
        first: usize,
        lanes: &[Lane],
    ) {
        let block = &self.block;
        let Block { planes, words, slot, window, .. } = *block;
        let height = usize::from(window.kh);
        let count = usize::from(block.input.shape.w).min(memory.line.len() - block.start);
        let in_lanes = word_lanes(block.input.bits);
        let out_lanes = word_lanes(block.output.bits);
        let (words_in, words_out) =
            (lanes.len().div_ceil(in_lanes), lanes.len().div_ceil(out_lanes));
        let (in_first, out_first) = (first / in_lanes, first / out_lanes);
        let (in_step, out_step) = (block.input.pixel_bytes(), block.output.pixel_bytes());
        let sound = input.len() >= block.input.bytes()
            && output.len() >= block.output.bytes()
            && 4 * (in_first + words_in) <= in_step.next_multiple_of(4)
            && 4 * (out_first + words_out) <= out_step.next_multiple_of(4)
            && memory.line.len() >= words * planes.pixels()
            && slot >= in_lanes * words_in * words
            && memory.ring.len() >= height * slot
            && memory.out.len() >= out_lanes * words_out * block.out_plane
            && (self.narrow.is_none() || memory.narrow.len() >= block.output.shape.w.into())
            && lanes.len() <= LANES;
        let mut packed = [PackedLane([0; PACKED_WORDS]); LANES];
        let mut fits =
            || lanes.iter().zip(&mut packed).all(|(lane, packed)| pack_lane(lane, block, packed));
        let Some((routine, spread)) = self.routine.filter(|_| sound && fits()) else {
            if const { PORTABLE } {
                portable_planes::Rows::new(*block).run(memory, input, output, first, lanes);
            }
            return;
        };
        let (ring, line, out) =
            (memory.ring.as_mut_ptr(), memory.line.as_mut_ptr(), memory.out.as_mut_ptr());
        let first_place = line.wrapping_add(block.start);
        let batch = if planes == Planes::Halves { LANES } else { OCTET };
        let mut call = RowCall {
            row_next: self.row_next,
            out_next: block.out_plane - block.outputs,
            span: block.outputs,
            lanes: packed.as_ptr(),
            left: 0,
            out,
            rows: [ring.cast_const(); MOST_ROWS],
        };
        for (row, start) in call.rows.iter_mut().take(height).enumerate() {
            *start = ring.wrapping_add(row * slot);
        }
        let in_row = usize::from(block.input.shape.w) * in_step;
        let width = usize::from(block.output.shape.w);
        let (stride, in_height) = (usize::from(window.stride), usize::from(block.input.shape.h));
        let new = stride.min(height);
        let mut target = output.as_mut_ptr().wrapping_add(4 * out_first);
        let input = input.as_ptr().wrapping_add(4 * in_first);
        let cuts =
            block.output.bits != Bits::B8 && matches!(block.rule, Rule::Scale(Requant::COARSE, _));
        let mut bottom = 0;
        for oy in 0..usize::from(block.output.shape.h) {
            let top = oy * stride;
            // The oldest rows of the ring make room for the newest.
            for _ in 0..if oy == 0 { 0 } else { new } {
                let oldest = call.rows[0];
                for i in 1..height.min(MOST_ROWS) {
                    call.rows[i - 1] = call.rows[i];
                }
                call.rows[(height - 1).min(MOST_ROWS - 1)] = oldest;
            }
            for row in bottom.max(top)..top + height {
                let mut to = call.rows[(row - top).min(MOST_ROWS - 1)].cast_mut();
                let y = row.wrapping_sub(window.pads.top.into());
                if y >= in_height {
                    // SAFETY: a slot of the ring, which has `height` of them.
                    unsafe { core::slice::from_raw_parts_mut(to, slot) }.fill(block.padding);
                    continue;
                }
                let mut from = input.wrapping_add(y * in_row);
                for _ in 0..words_in {
                    // SAFETY: word by word, `count` pixels of a row of the input are read; from
                    // `start` on the line has room for them.
                    unsafe { (self.gather)(from, in_step, count, first_place) };
                    // SAFETY: the line has `words` times the layout's pixels; a slot has room for
                    // `words` words of the lanes of all `words_in`.
                    unsafe { spread(line, words, to, 4 * words) };
                    from = from.wrapping_add(4);
                    to = to.wrapping_add(in_lanes * words);
                }
            }
            bottom = top + height;
            let rows = call.rows;
            (call.lanes, call.left, call.out) = (packed.as_ptr(), lanes.len().min(batch), out);
            // SAFETY: a lane's rows hold the words under all outputs and the one that is loaded
            // with the last, its output row has room for one byte more than the outputs, and
            // `left` lanes are packed.
            unsafe { routine(&call) };
            if lanes.len() > batch {
                call.rows = rows.map(|row| row.wrapping_add(batch * words));
                call.lanes = call.lanes.wrapping_add(batch);
                call.left = lanes.len() - batch;
                call.out = out.wrapping_add(batch * block.out_plane);
                // SAFETY: the same for the lanes that are left.
                unsafe { routine(&call) };
                call.rows = rows;
            }
            if cuts {
                // SAFETY: the output planes of these lanes, whole words of scratch memory.
                let planes = unsafe {
                    core::slice::from_raw_parts_mut(
                        out.cast::<u32>(),
                        lanes.len() * block.out_plane / 4,
                    )
                };
                cut(planes, block.output.bits);
            }
            // Fours that end in the rows below are written again with those.
            let below = (usize::from(block.output.shape.h) - oy - 1) * width;
            let spill = self.narrow.is_none() && below >= 4;
            for word in 0..words_out {
                let from = out.wrapping_add(word * out_lanes * block.out_plane);
                match self.narrow {
                    None => {
                        // SAFETY: reads whole fours of the lanes of a word, which their planes
                        // have room for, and writes a word of each pixel of an output row.
                        unsafe { self.pack_row(from, width, target.wrapping_add(4 * word), spill) };
                    }
                    Some(narrow) => {
                        let words = memory.narrow.as_mut_ptr();
                        // SAFETY: the same to `narrow`, a row of words; from there to pixels of
                        // an output row.
                        unsafe {
                            self.pack_row(from, width, words.cast(), false);
                            narrow(words, width, target);
                        }
                    }
                }
            }
            target = target.wrapping_add(width * out_step);
        }
    }

    /// Packs a row of `width` pixels.
    ///
    /// # Safety
    /// `planes` are as many as a word has lanes, each with room for whole fours; `pixels` has a
    /// word for each pixel, `pixel_bytes` apart, but side by side where those are fewer than 4;
    /// with `spill`, for three pixels more.
    #[inline(always)]
    unsafe fn pack_row(&self, planes: *const u8, width: usize, pixels: *mut u8, spill: bool) {
        let (plane, step) = (self.block.out_plane, self.block.output.pixel_bytes().max(4));
        if spill {
            // SAFETY: as the caller says.
            return unsafe { (self.pack)(planes, plane, width.div_ceil(4), pixels, step) };
        }
        if width >= 4 {
            // SAFETY: as the caller says.
            unsafe { (self.pack)(planes, plane, width / 4, pixels, step) };
        }
        let done = width & !3;
        if done < width {
            let mut last = [0u32; 4];
            // SAFETY: the planes' last four, to four words; then as many as there are pixels.
            unsafe {
                (self.pack)(planes.wrapping_add(done), plane, 1, last.as_mut_ptr().cast(), 4);
                for (i, word) in (done..width).zip(last) {
                    pixels.wrapping_add(i * step).cast::<u32>().write(word);
                }
            }
        }
    }
}
