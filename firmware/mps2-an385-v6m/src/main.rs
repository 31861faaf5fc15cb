//! Armv6-M code, as a Cortex-M0+ runs it, on Arm's MPS2 AN385 as QEMU emulates it.
#![no_std]
#![no_main]

include!(concat!(env!("OUT_DIR"), "/board.rs"));

// Addresses and clock: QEMU's hw/arm/mps2.c.
jaq_harness::mps2_main!(uart = 0x4000_4000, timer = 0x4000_0000, hz = 25_000_000);
