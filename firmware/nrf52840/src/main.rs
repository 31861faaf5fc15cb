//! nRF52840: crystal, instruction cache and the debug port; all else is the harness.
//!
//! The core always runs at 64 MHz. The DC/DC converter stays off, because not every board has its
//! inductor. Built and inspected, never run on hardware.
#![no_std]
#![no_main]

mod chip;

use jaq_harness::clock::Cycles;
use jaq_harness::{note, rtt, stack};

include!(concat!(env!("OUT_DIR"), "/board.rs"));

#[cortex_m_rt::entry]
fn main() -> ! {
    stack::paint();
    let mut core = cortex_m::Peripherals::take().expect("taken once");
    if let Err(reason) = chip::start() {
        note(reason);
    }
    let clock = Cycles::start(&mut core);
    rtt::run(NAME, BUILD, MODEL, clock)
}
