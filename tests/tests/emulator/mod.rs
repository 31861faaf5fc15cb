//! Whether a core can be emulated here, and what to say where not.

use std::io::Write;
use std::process::Command;

use jaq_deploy::firmware::{Target, Toolchain};
use jaq_deploy::link::qemu::{WAY_OUT, emulator};

/// Why a core cannot be emulated here, if it cannot.
pub fn missing(target: &Target) -> Option<String> {
    if let Err(error) = Toolchain::detect(target.triple) {
        return Some(error.to_string());
    }
    let qemu = emulator(target.machine?);
    let error = Command::new(qemu).arg("--version").output().err()?;
    Some(format!("{qemu}: {error}; {WAY_OUT}"))
}

/// Says that a test is skipped and why; where devices are required that is a failure.
pub fn skip(what: &str, reason: &str) {
    assert!(
        std::env::var_os("JAQ_REQUIRE_DEVICE").is_none(),
        "device tests are required, but {what}: {reason}"
    );
    let text = format!("SKIPPED {what}: {reason}\n");
    // Past the capture of the test harness, so that a plain `cargo test` shows it.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
