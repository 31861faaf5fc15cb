//! What the assembly reads, one structure a routine for every instruction set.

use super::finish::Rule;
use super::plan::Scheme;
use super::{Columns, Finish, Spread, Sums, TABLES, WORDS};

/// Arguments of `sums`, in the order the assembly loads them.
#[repr(C)]
pub struct SumsCall {
    offsets: *const u32,
    /// Where `offsets` end.
    end: *const u32,
    tables: *const u32,
    ring: *const u32,
    /// Bytes from one lane to the next.
    lane: usize,
    quads: usize,
    lanes: usize,
    start: u32,
    raw: *mut u32,
}

impl SumsCall {
    /// Of `sums`, if every slice is as long as the loops assume.
    pub fn new(sums: &mut Sums<'_>) -> Option<SumsCall> {
        let terms = sums.offsets.len();
        let step = terms + TABLES;
        let mut lanes = 0;
        let mut left = sums.tables.len();
        while left >= step {
            (lanes, left) = (lanes + 1, left - step);
        }
        let furthest = sums.offsets.iter().fold(0, |most, &offset| most.max(offset)) as usize / 4;
        let read = furthest + lanes.max(1) * sums.lane - sums.lane + WORDS * sums.quads;
        let sound = terms > 0
            && lanes > 0
            && sums.quads > 0
            && read <= sums.ring.len()
            && lanes * WORDS * sums.quads <= sums.raw.len();
        let range = sums.offsets.as_ptr_range();
        sound.then_some(SumsCall {
            offsets: range.start,
            end: range.end,
            tables: sums.tables.as_ptr(),
            ring: sums.ring.as_ptr(),
            lane: 4 * sums.lane,
            quads: sums.quads,
            lanes,
            start: sums.start,
            raw: sums.raw.as_mut_ptr(),
        })
    }
}

/// Arguments of the routines that requantize.
#[repr(C)]
pub struct FinishCall {
    raw: *const u32,
    /// Behind the first lane's weights.
    table: *const u32,
    out: *mut u8,
    /// The largest code.
    most: u32,
    quads: usize,
    lanes: usize,
    /// Bytes of a lane's weights.
    weights: usize,
}

impl FinishCall {
    /// Of `finish`, if every slice is as long as the loops assume.
    pub fn new(finish: &mut Finish<'_>) -> Option<FinishCall> {
        let plan = finish.plan;
        let step = plan.terms + TABLES;
        let mut lanes = 0;
        let mut left = finish.tables.len();
        while left >= step {
            (lanes, left) = (lanes + 1, left - step);
        }
        let table = finish.tables.get(plan.terms..)?;
        let sound = lanes > 0
            && plan.quads > 0
            && finish.raw.len() >= lanes * plan.sums()
            && plan.plane == plan.sums() * plan.outputs
            && finish.out.len() >= lanes * plan.plane
            && finish.out.as_ptr().addr() & 3 == 0;
        sound.then_some(FinishCall {
            raw: finish.raw.as_ptr(),
            table: table.as_ptr(),
            out: finish.out.as_mut_ptr(),
            most: match finish.rule {
                Rule::Narrow(bits) => bits.max_unsigned(),
                _ => 0xff,
            },
            quads: plan.quads,
            lanes,
            weights: 4 * plan.terms,
        })
    }
}

/// The routine of a plan and its rule among those of Bytes with two outputs, Bytes with one, Pairs
/// and Single, each for [`Rule::Thresholds`], [`Rule::Narrow`] and [`Rule::Wide`].
pub fn finisher<R: Copy>(finish: &Finish<'_>, routines: &[[Option<R>; 3]; 4]) -> Option<R> {
    let row = match (finish.plan.scheme, finish.plan.outputs) {
        (Scheme::Bytes, 2) => 0,
        (Scheme::Bytes, _) => 1,
        (Scheme::Pairs, _) => 2,
        (Scheme::Single, _) => 3,
    };
    let column = match finish.rule {
        Rule::Thresholds => 0,
        Rule::Narrow(_) => 1,
        Rule::Wide => 2,
        Rule::General(..) => return None,
    };
    *routines.get(row)?.get(column)?
}

/// Arguments of the routines that spread one run of words of all lanes.
#[repr(C)]
pub struct SpreadCall {
    first: *const u32,
    second: *const u32,
    /// Bytes from one word's pixels to the next's.
    step: usize,
    /// Words.
    count: usize,
    rows: *mut u32,
    /// Bytes from one lane to the next.
    lane: usize,
    mask: u32,
}

impl SpreadCall {
    /// Of every run of words, if both slices are as long as the loops assume.
    pub fn each(spread: &mut Spread<'_>, mut run: impl FnMut(&SpreadCall)) {
        let plan = spread.plan;
        let lanes = (32 >> spread.storage.trailing_zeros()) as usize;
        if spread.line.len() < plan.line || spread.rows.len() < lanes * plan.lane || plan.run == 0 {
            return;
        }
        let codes = (1 << spread.storage) - 1;
        for phase in 0..plan.phases {
            let first = spread.line.as_ptr().wrapping_add(phase);
            run(&SpreadCall {
                first,
                // Of single pixels the second is masked.
                second: match plan.scheme {
                    Scheme::Pairs => first.wrapping_add(plan.stride),
                    _ => first,
                },
                step: 4 * plan.unit,
                count: plan.run,
                rows: spread.rows.as_mut_ptr().wrapping_add(phase * plan.run),
                lane: 4 * plan.lane,
                mask: codes * plan.scheme.ones(),
            });
        }
    }
}

/// Arguments of the routines that pack a byte of every pixel.
#[repr(C)]
pub struct ColumnsCall {
    planes: *const u8,
    plane: usize,
    /// Whole fours of pixels, and pixels behind them.
    fours: usize,
    left: usize,
    output: *mut u8,
    pixel_bytes: usize,
}

impl ColumnsCall {
    /// Of `columns`, if both slices are as long as the loops assume.
    pub fn new(columns: &mut Columns<'_>) -> Option<ColumnsCall> {
        let shared = (8 >> columns.storage.trailing_zeros()) as usize;
        let width = columns.width;
        let sound = width > 0
            && columns.plane & 3 == 0
            && columns.planes.as_ptr().addr() & 3 == 0
            && columns.planes.len() >= (shared - 1) * columns.plane + ((width + 3) & !3)
            && columns.output.len() > (width - 1) * columns.pixel_bytes;
        sound.then_some(ColumnsCall {
            planes: columns.planes.as_ptr(),
            plane: columns.plane,
            fours: width / 4,
            left: width % 4,
            output: columns.output.as_mut_ptr(),
            pixel_bytes: columns.pixel_bytes,
        })
    }
}
