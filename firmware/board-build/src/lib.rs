//! The build script that every board crate shares. It hands the memory map of the board file
//! (`boards/<crate>.toml`) and the harness's `model.x` to the linker and writes `board.rs`: the
//! crate's name, the identity of the build (`JAQ_BUILD_ID`), the model (`JAQ_MODEL`, a path) and
//! the raw inputs (`JAQ_INPUTS`) to build in, if any.
//!
//! A crate may add a `board.x` of its own for sections that only its chip has; one with a
//! `memory.x` is no board and keeps its map. Must not know any board.

mod memory;

use std::path::{Path, PathBuf};
use std::{env, fs};

/// Does all of it for a board; call it from `build.rs`.
pub fn board() {
    build(&["link.x", "model.x", "defmt.x"]);
}

/// The same for a program without logs.
pub fn product() {
    build(&["link.x", "model.x"]);
}

fn build(linker_scripts: &[&'static str]) {
    let out = PathBuf::from(variable("OUT_DIR"));
    write(&out.join("memory.x"), memory_map().as_bytes());
    write(&out.join("model.x"), read("../harness/model.x").as_bytes());
    println!("cargo::rustc-link-search={}", out.display());
    // The linker script of cortex-m-rt includes the memory map, that of riscv-rt does not.
    let memory = variable("TARGET").starts_with("riscv").then_some("memory.x");
    for script in memory.into_iter().chain(linker_scripts.iter().copied()) {
        println!("cargo::rustc-link-arg-bins=-T{script}");
    }
    // Keeps the last page of one section and the first of the next apart in the file.
    println!("cargo::rustc-link-arg-bins=--nmagic");

    println!("cargo::rerun-if-env-changed=JAQ_BUILD_ID");
    let build = env::var("JAQ_BUILD_ID").unwrap_or_else(|_| "unnamed".to_owned());
    let mut model = match built_in("JAQ_MODEL", &out.join("model.jaq")) {
        Some(len) => {
            section("FILE", ".model", len, "model.jaq")
                + "/// The model that is built in.\nconst MODEL: Option<&[u8]> = Some(&FILE.0);\n"
        }
        None => "/// No model is built in.\nconst MODEL: Option<&[u8]> = None;\n".to_owned(),
    };
    if let Some(len) = built_in("JAQ_INPUTS", &out.join("inputs.bin")) {
        // The harness finds them by the section.
        model += &section("INPUTS", ".inputs", len, "inputs.bin");
    }
    let board = format!(
        "/// Name of the board.\nconst NAME: &str = {:?};\n\
         /// Identity of the build.\nconst BUILD: &str = {build:?};\n{model}",
        variable("CARGO_PKG_NAME"),
    );
    write(&out.join("board.rs"), board.as_bytes());
}

/// Copies the file that an environment variable names to `copy`: its length, if there is one.
fn built_in(name: &str, copy: &Path) -> Option<usize> {
    println!("cargo::rerun-if-env-changed={name}");
    let path = env::var(name).ok().filter(|path| !path.is_empty())?;
    println!("cargo::rerun-if-changed={path}");
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{name}={path}: {error}"));
    write(copy, &bytes);
    Some(bytes.len())
}

/// A static that holds a file of the output folder in a section of its own.
fn section(name: &str, section: &str, len: usize, file: &str) -> String {
    format!(
        "#[repr(C, align(8))]\n#[allow(non_camel_case_types)]\nstruct {name}Bytes([u8; {len}]);\n\
         // SAFETY: the section holds nothing but this read-only data.\n\
         #[used]\n#[unsafe(link_section = {section:?})]\n\
         static {name}: {name}Bytes = {name}Bytes(*include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{file}\")));\n"
    )
}

/// The linker's memory map: the crate's own, or that of its board file and its `board.x`.
fn memory_map() -> String {
    if Path::new("memory.x").is_file() {
        return read("memory.x");
    }
    let file = format!("../../boards/{}.toml", variable("CARGO_PKG_NAME"));
    println!("cargo::rerun-if-env-changed=JAQ_MODEL");
    let built_in = env::var("JAQ_MODEL").is_ok_and(|path| !path.is_empty());
    let mut text = memory::Board::parse(&read(&file))
        .and_then(|board| board.script(variable("TARGET").starts_with("riscv"), built_in))
        .unwrap_or_else(|reason| panic!("{file}: {reason}"));
    if Path::new("board.x").is_file() {
        text += &read("board.x");
    }
    text
}

fn read(path: &str) -> String {
    println!("cargo::rerun-if-changed={path}");
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("{name}: {error}; cargo sets it"))
}

fn write(path: &Path, bytes: &[u8]) {
    // An unchanged file keeps its date, so that nothing is rebuilt for it.
    if fs::read(path).ok().as_deref() != Some(bytes) {
        fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
