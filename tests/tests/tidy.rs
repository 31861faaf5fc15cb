//! Keeps the invariants of ARCHITECTURE.md: who depends on whom, where `unsafe` lives, how long a
//! file may be, that every module says what it is for.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every Rust file of the repository with its path from the root, build outputs left out.
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, root: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" && name != "runs" {
                    walk(&path, root, found);
                }
            } else if name.ends_with(".rs") {
                let relative = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.push((relative, fs::read_to_string(path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), &root(), &mut found);
    assert!(found.len() > 20, "the walk found only {} files", found.len());
    found
}

/// The keyword, spelled so that this file does not find itself.
const KEYWORD: &str = concat!("un", "safe");

fn failures(what: &str, list: Vec<String>) {
    assert!(list.is_empty(), "{what}:\n  {}", list.join("\n  "));
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent = sources()
        .into_iter()
        .filter(|(path, text)| !path.ends_with("build.rs") && !text.starts_with("//!"))
        .map(|(path, _)| path);
    failures("these files do not start with `//!`", silent.collect());
}

#[test]
fn no_file_is_too_long() {
    let long = sources()
        .into_iter()
        .filter(|(_, text)| text.lines().count() > 600)
        .map(|(path, text)| format!("{path}: {} lines", text.lines().count()));
    failures("these files pass 600 lines; split them by idea", long.collect());
}

#[test]
fn unsafe_stays_where_it_belongs_and_is_justified() {
    // Micro-kernels, the tensor operators of the search, the firmware.
    let allowed = ["host/search/src/ops/", "firmware/"];
    let micro_kernel = |path: &str| {
        path.starts_with("shared/src/kernels/")
            && ["/armv", "/rv32"].iter().any(|isa| path.contains(isa))
    };
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            let words = code.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '"');
            if !words.into_iter().any(|word| word == KEYWORD) {
                continue;
            }
            if !micro_kernel(&path) && !allowed.iter().any(|place| path.starts_with(place)) {
                wrong.push(format!("{path}:{}: `{KEYWORD}` outside its places", index + 1));
            }
            let declares = ["(", " extern", " fn"]
                .iter()
                .any(|next| code.contains(&format!("{KEYWORD}{next}")));
            let justified =
                lines[index.saturating_sub(8)..=index].iter().any(|l| l.contains("SAFETY:"));
            if !declares && !justified {
                wrong.push(format!("{path}:{}: no SAFETY line", index + 1));
            }
        }
    }
    failures("unsafe", wrong);
}

#[test]
fn dependencies_point_downwards() {
    // Package, folder, and the packages of this repository it may use.
    let allowed: [(&str, &str, &[&str]); 5] = [
        ("jaq-shared", "shared", &[]),
        ("jaq-network", "host/network", &["jaq-shared"]),
        ("jaq-cost", "host/cost", &["jaq-network", "jaq-shared"]),
        ("jaq-search", "host/search", &["jaq-cost", "jaq-network", "jaq-shared"]),
        ("jaq-deploy", "host/deploy", &["jaq-cost", "jaq-network", "jaq-shared"]),
    ];
    let mut wrong = Vec::new();
    for (package, folder, may_use) in allowed {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dev-dependencies]").next().unwrap();
        for line in dependencies.lines().filter(|line| line.starts_with("jaq-")) {
            let name = line.split([' ', '=', '.']).next().unwrap();
            if !may_use.contains(&name) {
                wrong.push(format!("{package} uses {name}"));
            }
        }
    }
    for (path, text) in sources() {
        if path.starts_with("firmware/") && !path.ends_with("build.rs") {
            for name in ["jaq_network", "jaq_search", "jaq_deploy"] {
                if text.contains(name) {
                    wrong.push(format!("{path} uses {name}"));
                }
            }
        }
    }
    failures("dependencies that ARCHITECTURE.md forbids", wrong);
}

#[test]
fn the_device_side_has_no_floats_and_allocates_nothing() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let test = path.contains("/tests/") || path.ends_with("tests.rs");
        if !path.starts_with("shared/src/") || test {
            continue;
        }
        let body = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (index, line) in body.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            let words: Vec<&str> = code.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            if words.iter().any(|word| ["f32", "f64", "alloc", "Box", "Vec"].contains(word))
                && !code.contains("heapless")
            {
                wrong.push(format!("{path}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    failures("floats or allocation in shared code", wrong);
}
