//! What the tests of JAQ share: a debug probe made of software, so that flashing and debugging can
//! be tested where no board is.

pub mod virtual_probe;
