//! CV32E40P with the PULP instructions of its own, which the simulator of `../cv32e40p/rtl` has too.
#![no_std]
#![no_main]

// Names the crate whose feature brings the instructions.
use jaq_shared as _;

include!(concat!(env!("OUT_DIR"), "/board.rs"));

jaq_harness::cv32e40p_main!();
