//! The build script that every board crate shares. It hands the crate's `memory.x` and the
//! harness's `model.x` to the linker and writes `board.rs`: the crate's name, the identity of the
//! build (`JAQ_BUILD_ID`) and the model to build in (`JAQ_MODEL`, a path), if any.
//!
//! Must not know any board.

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
    for script in ["memory.x", "../harness/model.x"] {
        println!("cargo::rerun-if-changed={script}");
        let name = Path::new(script).file_name().expect("a file");
        let text = fs::read(script).unwrap_or_else(|error| panic!("{script}: {error}"));
        write(&out.join(name), &text);
    }
    println!("cargo::rustc-link-search={}", out.display());
    // The linker script of cortex-m-rt includes the memory map, that of riscv-rt does not.
    let memory = variable("TARGET").starts_with("riscv").then_some("memory.x");
    for script in memory.into_iter().chain(linker_scripts.iter().copied()) {
        println!("cargo::rustc-link-arg-bins=-T{script}");
    }
    // Keeps the last page of one section and the first of the next apart in the file.
    println!("cargo::rustc-link-arg-bins=--nmagic");

    println!("cargo::rerun-if-env-changed=JAQ_BUILD_ID");
    println!("cargo::rerun-if-env-changed=JAQ_MODEL");
    let build = env::var("JAQ_BUILD_ID").unwrap_or_else(|_| "unnamed".to_owned());
    println!("cargo::rerun-if-env-changed=JAQ_INPUTS");
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

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("{name}: {error}; cargo sets it"))
}

fn write(path: &Path, bytes: &[u8]) {
    // An unchanged file keeps its date, so that nothing is rebuilt for it.
    if fs::read(path).ok().as_deref() != Some(bytes) {
        fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
