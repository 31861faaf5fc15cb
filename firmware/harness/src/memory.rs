//! The memory a board sets aside in its `memory.x`: the arena and the slot for a model that comes
//! over the link (empty where flash is not writable memory).

use core::sync::atomic::{AtomicBool, Ordering};

unsafe extern "C" {
    // Provided by the board's memory.x; only their addresses mean anything.
    static mut _arena_start: u32;
    static mut _arena_end: u32;
    static mut _slot_start: u32;
    static mut _slot_end: u32;
    // Provided by the harness's model.x.
    static _inputs_start: u8;
    static _inputs_end: u8;
}

/// The regions, as words.
pub struct Regions {
    /// Where models are written.
    pub slot: &'static mut [u32],
    /// Tensors and raw input.
    pub arena: &'static mut [u32],
}

impl Regions {
    /// Takes the regions; there is one of each.
    pub fn take() -> Regions {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        // Load and store apart: cores without atomic swaps run one thread here as well.
        assert!(!TAKEN.load(Ordering::Relaxed), "the regions are taken once");
        TAKEN.store(true, Ordering::Relaxed);
        // SAFETY: the symbols bound regions of RAM in which the linker places nothing, and the
        // check above lets one caller pass.
        unsafe {
            Regions {
                slot: words(&raw mut _slot_start, &raw mut _slot_end),
                arena: words(&raw mut _arena_start, &raw mut _arena_end),
            }
        }
    }
}

/// The inputs that are built in, one after the other.
pub fn inputs() -> &'static [u8] {
    let (start, end) = (&raw const _inputs_start, &raw const _inputs_end);
    // SAFETY: the symbols bound a section of flash that nothing writes.
    unsafe { core::slice::from_raw_parts(start, end as usize - start as usize) }
}

/// # Safety
/// `start..end` must be RAM that nothing else refers to, aligned to words.
unsafe fn words(start: *mut u32, end: *mut u32) -> &'static mut [u32] {
    let len = (end as usize).saturating_sub(start as usize) / 4;
    // SAFETY: as the caller says; RAM holds some bytes, and any bytes are words.
    unsafe { core::slice::from_raw_parts_mut(start, len) }
}
