//! Project commands: `cargo xtask setup | fw | test | bench | demo`. Results go to stdout, everything
//! else to stderr.

mod bench;
mod libtorch;
mod rtl;
mod setup;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use jaq_deploy::firmware::{self, Parts, TARGETS, Transport};
use jaq_deploy::inspect::Layout;
use jaq_deploy::reference;
use libtorch::Libtorch;

/// Project commands of JAQ.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what building and emulating firmware need and this machine lacks.
    Setup {
        /// Something optional to set up instead.
        #[arg(value_enum)]
        what: Option<Extra>,
    },
    /// Build the firmware of every board and print its size by part.
    Fw {
        /// Lint the firmware instead, warnings denied.
        #[arg(long)]
        clippy: bool,
    },
    /// Run every test of the host workspace, and of the firmware on emulated cores.
    Test {
        /// Run the heavier checks as well, those of libtorch among them.
        #[arg(long)]
        full: bool,
        /// Run the tests of training on libtorch alone; fetches it (526 MB).
        #[arg(long, conflicts_with = "full")]
        libtorch: bool,
        /// Arguments of `cargo test`, for example a test's name.
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Measure: kernels and networks on emulated cores, training on this machine.
    Bench {
        #[command(subcommand)]
        what: bench::Bench,
    },
    /// Run the main job end to end on the shipped data: search, retrain, export, firmware,
    /// emulated board, comparison, report.
    Demo {
        /// Arguments of `jaq-host run`, for example `--json` or `--seed 2`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// What only some need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Extra {
    /// libtorch, the optional backend of training.
    Tch,
    /// The simulator of CV32E40P, for cycles of a real core.
    Rtl,
}

fn main() -> ExitCode {
    match Arguments::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Task {
    fn run(self) -> Result<()> {
        match self {
            Task::Setup { what: None } => setup::run(),
            Task::Setup { what: Some(Extra::Tch) } => Libtorch::setup().map(drop),
            Task::Setup { what: Some(Extra::Rtl) } => rtl::setup(),
            Task::Fw { clippy } => {
                setup::run()?;
                if clippy { lint_firmware() } else { build_firmware() }
            }
            Task::Test { libtorch: true, arguments, .. } => test_libtorch(&arguments),
            Task::Test { full, arguments, .. } => {
                setup::run()?;
                rtl::setup()?;
                test(full, &arguments)
            }
            Task::Bench { what } => what.run(),
            Task::Demo { arguments } => {
                setup::run()?;
                demo(&arguments)
            }
        }
    }
}

/// The repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository")
}

/// The cargo that runs this.
fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot run {program}"))?;
    if !status.success() {
        bail!("`{program}` failed: {status}");
    }
    Ok(())
}

fn build_firmware() -> Result<()> {
    let heads = ["flash", "code", "kernels", "runtime", "harness", "constants", "variables"];
    let ram = ["stack", "arena", "slot", "weights", "tables"];
    let row = |name: &str, cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:>11}")).collect();
        println!("{name:<15}{}", cells.concat());
    };
    row("board", &heads.iter().chain(&ram).map(|head| (*head).to_owned()).collect::<Vec<_>>());
    for target in TARGETS {
        let built = firmware::build_open(target.board)?;
        let Parts { code, kernels, runtime, harness, constants, variables, .. } = built.parts;
        let flash = built.parts.flash_bytes();
        let Layout { stack_bytes, arena_bytes, slot_bytes } = built.layout;
        let [stack, arena, slot] = [stack_bytes, arena_bytes, slot_bytes].map(|b| b as usize);
        let (weights, tables) = reference::sizes(target.isa, target.board)?;
        let cells = [
            flash, code, kernels, runtime, harness, constants, variables, stack, arena, slot,
            weights, tables,
        ];
        row(target.board, &cells.map(|size| size.to_string()));
        eprintln!("{}", built.elf.display());
    }
    println!("weights and tables: what {} at W4A4 adds to flash", reference::NAME);
    // Inference alone, with every kernel; it links only if no panic can be reached.
    let mut done = Vec::new();
    for target in TARGETS {
        if done.contains(&target.triple) {
            continue;
        }
        done.push(target.triple);
        let parts = firmware::product(target, None)?;
        let Parts { code, kernels, runtime, harness, constants, variables, .. } = parts;
        let sizes = [parts.flash_bytes(), code, kernels, runtime, harness, constants, variables];
        println!(
            "{:<15}{}  {}",
            "product",
            sizes.map(|size| format!("{size:>11}")).concat(),
            target.triple
        );
    }
    Ok(())
}

/// Lints the harness and every board for the board's target.
fn lint_firmware() -> Result<()> {
    for target in TARGETS {
        let usual = target.transport();
        for transport in [Transport::Emulator, Transport::Probe] {
            let features = firmware::features(target, transport);
            if transport != usual && features.is_empty() {
                continue;
            }
            let mut clippy = firmware::cargo(target, "clippy")?;
            clippy.args(["--release", "--locked", "--package", target.board]).args(features);
            clippy.args(["--package", "jaq-harness", "--", "-D", "warnings"]);
            run(&mut clippy)?;
        }
    }
    Ok(())
}

fn test(full: bool, arguments: &[OsString]) -> Result<()> {
    let mut cargo = cargo();
    // A missing emulator is a failure here, not a reason to skip.
    cargo.args(["test", "--workspace"]).args(arguments).env("JAQ_REQUIRE_DEVICE", "1");
    if full {
        cargo.env("JAQ_FULL", "1");
    }
    run(&mut cargo)?;
    if full { test_libtorch(arguments) } else { Ok(()) }
}

/// The tests of training, the backends held to each other among them, on libtorch as well.
fn test_libtorch(arguments: &[OsString]) -> Result<()> {
    let libtorch = Libtorch::setup()?;
    let mut cargo = cargo();
    cargo.args(["test", "--package", "jaq-search", "--features", "tch"]).args(arguments);
    run(libtorch.apply(&mut cargo))
}

/// Where cargo builds.
fn target() -> PathBuf {
    let named = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    root().join(named.unwrap_or_else(|| "target".into()))
}

fn demo(arguments: &[OsString]) -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--release", "--package", "jaq-host"]);
    run(build.stdout(Stdio::from(io::stderr())))?;
    let mut host = Command::new(target().join("release/jaq-host"));
    host.current_dir(root()).args(["run", "--board", "stm32h7", "--via", "qemu"]).args(arguments);
    run(&mut host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_demo_hands_its_arguments_on() {
        let parsed = Arguments::parse_from(["xtask", "demo", "--json", "--seed", "2"]);
        let Task::Demo { arguments } = parsed.command else { panic!("{parsed:?}") };
        assert_eq!(arguments, ["--json", "--seed", "2"]);
    }

    #[test]
    fn test_keeps_the_arguments_of_cargo_apart() {
        let parsed = Arguments::parse_from(["xtask", "test", "--full", "--", "-p", "xtask"]);
        let Task::Test { full: true, arguments, .. } = parsed.command else { panic!("{parsed:?}") };
        assert_eq!(arguments, ["-p", "xtask"]);
    }
}
