//! What host and device share, as one source: the packed model [`format`], the integer
//! [`kernels`], the [`runtime`] that executes a model in a caller-owned arena, and the
//! [`protocol`] spoken between host and device.
//!
//! `no_std`, no allocation, no floating point. Must not know: training, cost models, boards.
#![no_std]

pub mod format;
pub mod kernels;
pub mod protocol;
pub mod runtime;

#[cfg(test)]
extern crate std;
