//! Arm's MPS2 AN500, a Cortex-M7, as QEMU emulates it: entry point and memory map.
#![no_std]
#![no_main]

use jaq_harness::memory::Regions;
use jaq_harness::mps2::{self, Console, Timer, Uart};
use jaq_harness::{Board, fatal, serve, stack};

include!(concat!(env!("OUT_DIR"), "/board.rs"));

#[cortex_m_rt::entry]
fn main() -> ! {
    stack::paint();
    // SAFETY: the addresses are those of QEMU's hw/arm/mps2.c; this is the only user.
    let (uart, timer) =
        unsafe { (Uart::<0x4000_4000>::new(), Timer::<0x4000_0000, 25_000_000>::new()) };
    fatal::route(uart.route());
    let Regions { slot, arena } = Regions::take();
    let board = Board { name: NAME, build: BUILD, model: MODEL, slot, arena, exit: mps2::exit };
    serve(board, Console::new(uart), timer)
}
