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
    let model = match env::var("JAQ_MODEL") {
        Ok(path) if !path.is_empty() => {
            println!("cargo::rerun-if-changed={path}");
            let bytes = fs::read(&path).unwrap_or_else(|error| panic!("JAQ_MODEL={path}: {error}"));
            write(&out.join("model.jaq"), &bytes);
            model(bytes.len())
        }
        _ => "/// No model is built in.\nconst MODEL: Option<&[u8]> = None;\n".to_owned(),
    };
    let board = format!(
        "/// Name of the board.\nconst NAME: &str = {:?};\n\
         /// Identity of the build.\nconst BUILD: &str = {build:?};\n{model}",
        variable("CARGO_PKG_NAME"),
    );
    write(&out.join("board.rs"), board.as_bytes());
}

fn model(len: usize) -> String {
    format!(
        "#[repr(C, align(8))]\nstruct Aligned([u8; {len}]);\n\
         // SAFETY: the section holds nothing but this read-only data.\n\
         #[unsafe(link_section = \".model\")]\n\
         static FILE: Aligned = Aligned(*include_bytes!(concat!(env!(\"OUT_DIR\"), \"/model.jaq\")));\n\
         /// The model that is built in.\nconst MODEL: Option<&[u8]> = Some(&FILE.0);\n"
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
