//! The messages between host and device.
