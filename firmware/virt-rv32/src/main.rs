//! QEMU's RISC-V machine `virt`, running RV32IMC code.
#![no_std]
#![no_main]

include!(concat!(env!("OUT_DIR"), "/board.rs"));

jaq_harness::virt_main!();
