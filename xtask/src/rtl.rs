//! `cargo xtask setup rtl`: builds the simulator of CV32E40P. The core's RTL comes from a Python
//! package whose hash is checked, Verilator from Debian; `firmware/cv32e40p/rtl` says what is built
//! and holds the microcontroller around the core.
//!
//! The result is kept under `firmware/target` by the hash of that folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use jaq_deploy::link::rtl;
use serde::Deserialize;

use crate::setup::{apt_install, run_quietly};

/// `core.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Core {
    package: Package,
    build: Build,
    correction: Vec<Correction>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Package {
    name: String,
    version: String,
    sha256: String,
    folder: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Build {
    include: Vec<PathBuf>,
    files: Vec<PathBuf>,
    verilator: Vec<String>,
}

/// Text that is replaced, and must occur once.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Correction {
    file: PathBuf,
    from: String,
    to: String,
}

/// What builds a simulator, with the Debian package that has it.
const TOOLS: [(&str, &str); 4] =
    [("verilator", "verilator"), ("g++", "g++"), ("make", "make"), ("python3", "python3-pip")];

/// Builds the simulator if it is not there, and installs what that needs.
pub fn setup() -> Result<()> {
    let simulator = rtl::place()?;
    if simulator.is_file() {
        eprintln!("setup: the simulator of CV32E40P is ready: {}", simulator.display());
        return Ok(());
    }
    let why = "the simulator of CV32E40P cannot be built";
    let source = rtl::sources()?;
    let text = fs::read_to_string(source.join("core.toml")).context("cannot read core.toml")?;
    let core: Core = toml::from_str(&text).context("core.toml")?;
    tools().with_context(|| why)?;

    let folder = simulator.parent().context("the simulator lies in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let package = fetch(&core.package, folder).with_context(|| why)?;
    for Correction { file, from, to } in &core.correction {
        let path = package.join(file);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("the package has no {}", file.display()))?;
        let corrected = correct(&text, from, to)
            .map_err(|found| anyhow::anyhow!(
                "{}: `{from}` occurs {found} times where once was expected; core.toml was written for another version of the core",
                file.display()
            ))?;
        fs::write(&path, corrected).with_context(|| format!("cannot write {}", path.display()))?;
    }
    eprintln!("setup: building the simulator of CV32E40P (about a minute)");
    let built = build(&core.build, &package, &source, folder).with_context(|| why)?;
    fs::rename(&built, &simulator)
        .with_context(|| format!("cannot move {} to its place", built.display()))?;
    eprintln!("setup: the simulator of CV32E40P is ready: {}", simulator.display());
    Ok(())
}

/// Installs the tools that are missing.
fn tools() -> Result<()> {
    let works = |tool: &str| match tool {
        "python3" => run_quietly(Command::new(tool).args(["-m", "pip", "--version"])),
        _ => run_quietly(Command::new(tool).arg("--version")),
    };
    let missing: Vec<&str> = TOOLS
        .iter()
        .filter(|(tool, _)| works(tool).is_err())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    eprintln!("setup: installing {names}, for the simulator of CV32E40P");
    if let Err(reason) = apt_install(&missing) {
        bail!(
            "{names} cannot be installed: {reason}; by hand: as root `apt-get install {names}`, or the packages of your system"
        );
    }
    Ok(())
}

/// Downloads and unpacks the package: the folder its paths are relative to.
fn fetch(package: &Package, folder: &Path) -> Result<PathBuf> {
    let Package { name, version, sha256, .. } = package;
    let downloads = folder.join("package");
    // What an earlier attempt has left may be half of something.
    let _ = fs::remove_dir_all(&downloads);
    fs::create_dir_all(&downloads)?;
    let wanted = downloads.join("requirements.txt");
    fs::write(&wanted, format!("{name}=={version} --hash=sha256:{sha256}\n"))?;
    eprintln!("setup: downloading {name} {version} (2 MB), the core's RTL");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--only-binary", ":all:", "--require-hashes", "--dest"]);
    pip.arg(&downloads).arg("--requirement").arg(&wanted);
    run_quietly(&mut pip).map_err(|reason| anyhow::anyhow!(
        "the Python package {name} {version} cannot be downloaded: {reason}; this needs a connection to the Python package index once"
    ))?;
    let wheel = fs::read_dir(&downloads)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .with_context(|| format!("pip downloaded no wheel of {name}"))?;
    let mut unpack = Command::new("python3");
    unpack.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&downloads);
    run_quietly(&mut unpack).map_err(anyhow::Error::msg)?;
    Ok(downloads.join(&package.folder))
}

/// `text` with `from`, which occurs once, replaced; else how often it occurs.
fn correct(text: &str, from: &str, to: &str) -> Result<String, usize> {
    match text.matches(from).count() {
        1 => Ok(text.replace(from, to)),
        found => Err(found),
    }
}

/// Runs Verilator and the compiler: the executable.
fn build(build: &Build, package: &Path, source: &Path, folder: &Path) -> Result<PathBuf> {
    let objects = folder.join("build");
    let _ = fs::remove_dir_all(&objects);
    let mut verilator = Command::new("verilator");
    verilator.args(["--cc", "--exe", "--build", "-j", "0", "-o", "simulator", "--Mdir"]);
    verilator.arg(&objects).args(&build.verilator);
    verilator.args(build.include.iter().map(|path| format!("-I{}", package.join(path).display())));
    verilator.args(build.files.iter().map(|path| package.join(path)));
    verilator.arg(source.join("soc.sv")).arg(source.join("main.cpp"));
    run_quietly(&mut verilator).map_err(|reason| {
        anyhow::anyhow!(
            "{reason}; it was written for Verilator 5.006, `verilator --version` says what is here"
        )
    })?;
    Ok(objects.join("simulator"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_correction_wants_its_text_once() {
        assert_eq!(correct("a = b;", "b", "c").as_deref(), Ok("a = c;"));
        assert_eq!(correct("a = b;", "x", "c"), Err(0));
        assert_eq!(correct("b = b;", "b", "c"), Err(2));
    }

    #[test]
    fn the_recipe_is_read() {
        let text = fs::read_to_string(rtl::sources().unwrap().join("core.toml")).unwrap();
        let core: Core = toml::from_str(&text).unwrap();
        assert_eq!(core.package.sha256.len(), 64);
        for correction in &core.correction {
            assert!(core.build.files.contains(&correction.file), "{:?}", correction.file);
        }
    }
}
