//! `cargo xtask setup`: installs what building and emulating firmware need and this machine
//! lacks, or says what, why and how to do it by hand.

use std::io;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};
use jaq_deploy::firmware::{TARGETS, Toolchain};
use jaq_deploy::link::qemu::{QEMU, QEMU_RISCV};

/// Debian's compiler, the source of its core library, and a linker: what builds firmware where
/// rustup cannot install a target.
const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "rust-web-src", "lld"];

/// Checks everything and installs what is missing.
pub fn run() -> Result<()> {
    let mut failures = Vec::new();
    for target in TARGETS {
        if let Err(failure) = compiler(target.triple) {
            failures.push(failure);
        }
    }
    for (qemu, package) in [(QEMU, "qemu-system-arm"), (QEMU_RISCV, "qemu-system-misc")] {
        failures.extend(emulator(qemu, package).err());
    }
    failures.dedup();
    if failures.is_empty() {
        eprintln!("setup: compiler targets and emulator are ready");
        return Ok(());
    }
    bail!("setup is not complete:\n{}", failures.join("\n"));
}

/// Something that builds for `triple`: rustup's target, else Debian's compiler.
fn compiler(triple: &'static str) -> Result<(), String> {
    if Toolchain::detect(triple).is_ok() {
        return Ok(());
    }
    eprintln!("setup: installing the target {triple}, which the firmware is compiled for");
    let by_rustup = run_quietly(Command::new("rustup").args(["target", "add", triple]));
    if by_rustup.is_ok() && Toolchain::detect(triple).is_ok() {
        return Ok(());
    }
    let rustup = by_rustup.err().unwrap_or_else(|| "it is still missing".into());
    eprintln!("setup: rustup could not ({rustup}); installing Debian's compiler instead");
    let by_apt = apt_install(&DEBIAN_COMPILER);
    match Toolchain::detect(triple) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!(
            "- {triple} (firmware is compiled for it): rustup: {rustup}; apt: {}\n  \
             by hand: `rustup target add {triple}`, or as root `apt-get install {}`",
            by_apt
                .err()
                .unwrap_or_else(|| "installed, but it does not build for the target".into()),
            DEBIAN_COMPILER.join(" "),
        )),
    }
}

/// An emulator of boards, with the package that has it.
fn emulator(qemu: &'static str, package: &'static str) -> Result<(), String> {
    let works = || run_quietly(Command::new(qemu).arg("--version"));
    if works().is_ok() {
        return Ok(());
    }
    eprintln!("setup: installing {qemu}, which runs firmware without a board");
    apt_install(&[package]).and_then(|()| works()).map_err(|reason| {
        format!(
            "- {qemu} (runs firmware without a board): {reason}\n  \
             by hand: as root `apt-get install {package}`, or the package of your system"
        )
    })
}

/// Installs Debian packages, as root or by `sudo` where it asks for no password.
pub fn apt_install(packages: &[&str]) -> Result<(), String> {
    let apt = |arguments: &[&str]| {
        let root = run_quietly(Command::new("sh").args(["-c", "test $(id -u) = 0"])).is_ok();
        let mut command = match root {
            true => Command::new("apt-get"),
            false => {
                let mut sudo = Command::new("sudo");
                sudo.args(["-n", "apt-get"]);
                sudo
            }
        };
        run_quietly(command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    // Stale lists name packages that are gone; where the update fails the old ones may still do.
    if let Err(reason) = apt(&["-q", "update"]) {
        eprintln!("setup: apt-get update failed: {reason}");
    }
    apt(&[&["-q", "install", "-y", "--no-install-recommends"], packages].concat())
}

/// Runs a command and keeps its output; the end of it is the error.
pub fn run_quietly(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(format!("there is no {program} here"));
        }
        Err(error) => return Err(format!("{program}: {error}")),
    };
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let end = lines[lines.len().saturating_sub(3)..].join(" / ");
    Err(format!("{program} failed: {end}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_name_the_program_and_its_last_words() {
        assert_eq!(run_quietly(&mut Command::new("true")), Ok(()));
        let missing = run_quietly(&mut Command::new("no-such-program")).unwrap_err();
        assert_eq!(missing, "there is no no-such-program here");
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo one >&2; echo broken >&2; exit 3"]);
        assert_eq!(run_quietly(&mut shell).unwrap_err(), "sh failed: one / broken");
    }
}
