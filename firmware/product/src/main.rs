//! The least a product links: one model, its kernels and the runtime; no link to a host, no logs.
//!
//! Tells what inference alone takes of flash, and that it cannot panic: the panic handler calls a
//! function that is nowhere, so that the linker refuses a program from which it can be reached.
#![no_std]
#![no_main]
#![allow(dead_code)]

use core::hint::black_box;

use jaq_shared::format::Model;
use jaq_shared::runtime;

include!(concat!(env!("OUT_DIR"), "/board.rs"));

unsafe extern "C" {
    static mut _arena_start: u32;
    static mut _arena_end: u32;
    fn a_panic_can_be_reached() -> !;
}

/// Loads the model and runs it once.
#[cfg_attr(target_arch = "arm", cortex_m_rt::entry)]
#[cfg_attr(target_arch = "riscv32", riscv_rt::entry)]
fn main() -> ! {
    let (start, end) = (&raw mut _arena_start, &raw mut _arena_end);
    let words = (end as usize).saturating_sub(start as usize) / 4;
    // SAFETY: the symbols bound RAM in which the linker places nothing; this runs once.
    let arena = unsafe { core::slice::from_raw_parts_mut(start, words) };
    // Not known to the compiler, which would otherwise run part of the inference itself.
    let file = black_box(MODEL.unwrap_or_default());
    if let Ok(model) = Model::load(file)
        && let Some(raw) = black_box(file).get(..model.input_bytes())
    {
        let _ = black_box(runtime::infer(&model, raw, arena, &mut ()));
    }
    loop {
        core::hint::spin_loop();
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: it is not called: where it could be, there is no program.
    unsafe { a_panic_can_be_reached() }
}
