//! Lists `boards/*.toml`, `boards/targets/*` and `boards/tables/*` so that the library carries them: a board or a table
//! is added by adding its file.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let boards = Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../boards");
    let mut code = String::new();
    for (name, folder, ending) in [
        ("BOARDS", boards.clone(), ".toml"),
        ("PROBE_TARGETS", boards.join("targets"), ".yaml"),
        ("TABLES", boards.join("tables"), ".toml"),
        ("MEASUREMENTS", boards.join("tables"), ".measurements.csv"),
    ] {
        println!("cargo:rerun-if-changed={}", folder.display());
        writeln!(code, "pub(crate) const {name}: &[(&str, &str)] = &[").unwrap();
        for (stem, path) in files(&folder, ending) {
            writeln!(code, "    ({stem:?}, include_str!({path:?})),").unwrap();
        }
        writeln!(code, "];").unwrap();
    }
    let out = Path::new(&env::var("OUT_DIR").unwrap()).join("boards.rs");
    fs::write(out, code).unwrap();
}

/// Files of a folder with an ending, by name without it.
fn files(folder: &Path, ending: &str) -> Vec<(String, PathBuf)> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| {
            let stem = path.file_name()?.to_str()?.strip_suffix(ending)?.to_owned();
            Some((stem, path.canonicalize().unwrap()))
        })
        .collect();
    found.sort();
    found
}
