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
