//! Arm's MPS2 AN505, a Cortex-M33, as QEMU emulates it.
#![no_std]
#![no_main]

include!(concat!(env!("OUT_DIR"), "/board.rs"));

// Addresses and clock: QEMU's hw/arm/mps2-tz.c; the secure aliases.
jaq_harness::mps2_main!(uart = 0x5020_0000, timer = 0x5000_0000, hz = 20_000_000);
