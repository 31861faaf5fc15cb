//! STM32H743 on the NUCLEO-H743ZI2: clocks, caches and memory attributes; all else is the harness.
//!
//! Built and inspected, never run on hardware.
#![no_std]
#![no_main]

mod clock;
mod memory;

use jaq_harness::clock::Cycles;
use jaq_harness::{note, rtt, stack};

include!(concat!(env!("OUT_DIR"), "/board.rs"));

#[cortex_m_rt::entry]
fn main() -> ! {
    stack::paint();
    let mut core = cortex_m::Peripherals::take().expect("taken once");
    if let Err(reason) = clock::start() {
        note(reason);
    }
    memory::start(&mut core);
    let clock = Cycles::start(&mut core);
    rtt::run(NAME, BUILD, MODEL, clock)
}
