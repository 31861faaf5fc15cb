//! Static memory that is handed out once, on cores with and without atomic swaps.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// A value in static memory.
pub struct Once<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through the one reference that `take` gives out.
unsafe impl<T: Send> Sync for Once<T> {}

impl<T> Once<T> {
    /// A value nobody has yet.
    pub const fn new(value: T) -> Self {
        Once { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// The value, for the first caller.
    // The flag keeps the references from being two.
    #[allow(clippy::mut_from_ref)]
    pub fn take(&'static self) -> Option<&'static mut T> {
        // Load and store apart: firmware runs one thread, and no interrupt comes here.
        if self.taken.load(Ordering::Relaxed) {
            return None;
        }
        self.taken.store(true, Ordering::Relaxed);
        // SAFETY: the flag lets one caller pass.
        Some(unsafe { &mut *self.value.get() })
    }
}
