//! CV32E40P, simulated at register-transfer level by the simulator of `rtl/`.
#![no_std]
#![no_main]

include!(concat!(env!("OUT_DIR"), "/board.rs"));

jaq_harness::cv32e40p_main!();
