//! The command line as the tests call it.
#![allow(dead_code)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// A command that is to be run.
pub fn host(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jaq-host"));
    command.args(arguments).env("RUST_BACKTRACE", "0");
    command
}

/// What a command gave.
pub fn output(arguments: &[&str]) -> Output {
    host(arguments).output().unwrap()
}

/// Stdout of a command that must succeed.
pub fn succeeds(arguments: &[&str]) -> String {
    let found = output(arguments);
    let errors = String::from_utf8_lossy(&found.stderr).into_owned();
    assert!(found.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(found.stdout).unwrap()
}

/// The JSON of a command that must succeed.
pub fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&succeeds(arguments)).unwrap()
}

/// The one error message of a command that must fail, by exit code 1 and not by a panic.
pub fn fails(arguments: &[&str]) -> String {
    let found = output(arguments);
    let text = String::from_utf8_lossy(&found.stderr).into_owned();
    assert_eq!(found.status.code(), Some(1), "{arguments:?}: {text}");
    assert!(!text.contains("panicked"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{text}");
    text[text.find("error: ").unwrap()..].to_owned()
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
