//! RP2040 on the Raspberry Pi Pico: second boot stage and clocks; all else is the harness.
//!
//! One core runs, from external flash through its cache. Built and inspected, never run on hardware.
#![no_std]
#![no_main]

mod clock;

use jaq_harness::clock::Cycles;
use jaq_harness::{note, rtt, stack};

include!(concat!(env!("OUT_DIR"), "/board.rs"));

/// The second stage of the boot, which the chip's ROM runs: it sets the flash chip of the Pico
/// (W25Q080) up for execution in place.
#[used]
// SAFETY: the section is the 256 bytes that the ROM reads.
#[unsafe(link_section = ".boot2")]
static BOOT2: [u8; 256] = rp2040_boot2::BOOT_LOADER_W25Q080;

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
