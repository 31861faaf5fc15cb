//! STM32F405: clocks and flash; all else is the harness.
//!
//! Built and inspected, never run on hardware.
#![no_std]
#![no_main]

mod clock;

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
    let clock = Cycles::start(&mut core);
    rtt::run(NAME, BUILD, MODEL, clock)
}
