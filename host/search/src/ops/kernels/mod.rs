//! The arithmetic of the operators on plain slices: forward and backward loops, blocked for
//! threads and vector units.
//!
//! Must not know: tensors, graphs, libraries of either. Work is split into blocks whose bounds
//! depend on sizes only, and partial sums are added in block order: results do not depend on the
//! number of threads. Vector instructions are chosen at run time.

pub mod conv;
pub mod depthwise;
pub mod matrix;
pub mod norm;
pub mod quantizer;

use std::marker::PhantomData;

/// Runs `f`, compiled once for every vector extension, in the version this CPU has. `f` and what
/// it calls must be `#[inline(always)]`.
#[inline(always)]
pub fn simd<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// Sums in as many lanes as the widest vector unit has.
pub const LANES: usize = 16;

/// Adds lanes pairwise, in a fixed order.
#[inline(always)]
pub fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// A sum over many runs, in lanes that are added up now and then: as exact as pairwise summation,
/// nearly as fast as a plain loop.
#[derive(Clone, Copy)]
pub struct Sum {
    lanes: [f32; LANES],
    /// Elements since the lanes were last added up.
    pending: usize,
    total: f64,
}

impl Sum {
    /// Zero.
    pub const ZERO: Sum = Sum { lanes: [0.0; LANES], pending: 0, total: 0.0 };

    /// The lanes, to which the caller adds `count` elements.
    #[inline(always)]
    pub fn lanes(&mut self, count: usize) -> &mut [f32; LANES] {
        if self.pending > 8192 {
            self.total += f64::from(sum_lanes(self.lanes));
            self.lanes = [0.0; LANES];
            self.pending = 0;
        }
        self.pending += count;
        &mut self.lanes
    }

    /// Gives back a copy of [`Sum::lanes`] that was added to.
    #[inline(always)]
    pub fn put(&mut self, lanes: [f32; LANES]) {
        self.lanes = lanes;
    }

    /// All that was added.
    #[inline(always)]
    pub fn total(&self) -> f64 {
        self.total + f64::from(sum_lanes(self.lanes))
    }
}

/// `n` elements that `write` sets, all of them, before it reads any.
///
/// Large outputs are most of the memory traffic of a small network; clearing them first would
/// double it.
pub fn written(n: usize, write: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut out: Vec<f32> = Vec::with_capacity(n);
    // SAFETY: the capacity is `n`, every bit pattern is an `f32`, and all callers (operators of
    // this directory) set every element.
    #[allow(clippy::uninit_vec)]
    unsafe {
        out.set_len(n);
    }
    write(&mut out);
    out
}

/// A mutable slice that threads write in disjoint parts which are not contiguous chunks.
pub struct Parts<'a> {
    start: *mut f32,
    len: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: access goes through `Parts::part`, whose callers keep the parts disjoint.
unsafe impl Sync for Parts<'_> {}

impl<'a> Parts<'a> {
    /// All of `slice`.
    pub fn new(slice: &'a mut [f32]) -> Parts<'a> {
        Parts { start: slice.as_mut_ptr(), len: slice.len(), borrow: PhantomData }
    }

    /// `len` elements from `start` on.
    ///
    /// # Safety
    /// No two parts that are alive at the same time overlap.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, start: usize, len: usize) -> &mut [f32] {
        assert!(start + len <= self.len);
        // SAFETY: in bounds by the assertion, exclusive by the caller's promise, and the borrow
        // in `self` keeps the slice alive.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
