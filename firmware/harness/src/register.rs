//! Device registers by address.

/// A register.
#[derive(Clone, Copy)]
pub struct Register<T>(*mut T);

impl<T> Register<T> {
    /// The register at `address`.
    ///
    /// # Safety
    /// A device register must lie there, and its writes must be the caller's to make.
    pub const unsafe fn at(address: usize) -> Self {
        Register(address as *mut T)
    }

    /// Reads it.
    pub fn read(self) -> T {
        // SAFETY: a register lies there, as `at` asks.
        unsafe { self.0.read_volatile() }
    }

    /// Writes it.
    pub fn write(self, value: T) {
        // SAFETY: as for `read`.
        unsafe { self.0.write_volatile(value) }
    }
}
