//! The stack's high-water mark: unused stack is painted once at the start, and the paint that is
//! gone later tells how deep the stack has been.

/// What unused memory holds: the stack, and the arena before an inference.
pub(crate) const PAINT: u32 = 0xa5c3_5ac3;

unsafe extern "C" {
    // Provided by the linker scripts of cortex-m-rt and, for RISC-V, the board; only their addresses mean anything.
    static mut _stack_end: u32;
    static mut _stack_start: u32;
}

/// Lowest and highest address of the stack.
fn bounds() -> (*mut u32, *mut u32) {
    (&raw mut _stack_end, &raw mut _stack_start)
}

/// Paints everything below the caller's frame. Call it first, from the entry point.
#[inline(never)]
pub fn paint() {
    let (end, _) = bounds();
    let mut at = pointer() as *mut u32;
    // A few words of distance: this function's own frame lies below the caller's.
    at = at.wrapping_sub(16);
    while at > end {
        at = at.wrapping_sub(1);
        // SAFETY: between the end of the stack region and the stack pointer lies memory that
        // belongs to the stack and holds nothing yet.
        unsafe { at.write_volatile(PAINT) };
    }
}

/// The stack pointer.
fn pointer() -> usize {
    let pointer: usize;
    #[cfg(target_arch = "arm")]
    // SAFETY: copies a register.
    unsafe {
        core::arch::asm!("mov {}, sp", out(reg) pointer, options(nomem, nostack))
    };
    #[cfg(target_arch = "riscv32")]
    // SAFETY: copies a register.
    unsafe {
        core::arch::asm!("mv {}, sp", out(reg) pointer, options(nomem, nostack))
    };
    pointer
}

/// Bytes of stack used at the deepest moment since [`paint`].
pub fn used() -> u32 {
    let (end, start) = bounds();
    let mut at = end;
    // SAFETY: the whole range is RAM of the stack region.
    while at < start && unsafe { at.read_volatile() } == PAINT {
        at = at.wrapping_add(1);
    }
    (start as usize - at as usize) as u32
}

/// Bytes the stack may take.
pub fn capacity() -> u32 {
    let (end, start) = bounds();
    (start as usize - end as usize) as u32
}
