//! `jaq-host doctor`: what this machine can do, and how to get what it cannot.

use std::process::{Command, Stdio};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::print_json;
use crate::report::Table;

/// Check the tools that deploying and emulating need. Searching needs none of them.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Finding {
    tool: &'static str,
    needed_for: &'static str,
    found: Option<String>,
    remedy: &'static str,
}

impl Doctor {
    pub fn run(self) -> Result<()> {
        let findings = [
            Finding {
                tool: "cargo",
                needed_for: "building firmware",
                found: first_line("cargo", &["--version"]),
                remedy: "install Rust (rustup.rs)",
            },
            Finding {
                tool: "thumbv7em-none-eabihf",
                needed_for: "firmware of Cortex-M4 and M7",
                found: installed_target("thumbv7em-none-eabihf"),
                remedy: "rustup target add thumbv7em-none-eabihf, or `cargo xtask setup`",
            },
            Finding {
                tool: "qemu-system-arm",
                needed_for: "emulated boards (--via qemu)",
                found: first_line("qemu-system-arm", &["--version"]),
                remedy: "apt-get install qemu-system-arm, or `cargo xtask setup`",
            },
        ];
        if self.json {
            return print_json(&findings);
        }
        let mut table = Table::new(&["tool", "for", "found", "otherwise"]);
        for finding in &findings {
            let found = finding.found.as_deref().unwrap_or("no");
            let remedy = if finding.found.is_some() { "" } else { finding.remedy };
            table.row(&[&finding.tool, &finding.needed_for, &found, &remedy]);
        }
        print!("{table}");
        Ok(())
    }
}

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.lines().next().unwrap_or("").to_owned())
}

/// The target's `core` library lies in the compiler's sysroot.
fn installed_target(target: &str) -> Option<String> {
    let sysroot = first_line("rustc", &["--print", "sysroot"])?;
    let library = std::path::Path::new(&sysroot).join("lib/rustlib").join(target).join("lib");
    library.is_dir().then(|| "installed".to_owned())
}
