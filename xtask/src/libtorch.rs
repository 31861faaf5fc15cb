//! libtorch for the optional training backend: fetched as its Python wheel where `LIBTORCH` names
//! none, because pip is what reaches it on most machines. Nothing of Python is run or linked.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The version that the `tch` crate binds, and the two libraries of CUDA that it loads even where
/// it computes on the CPU.
const WHEELS: [&str; 3] =
    ["torch==2.13.0", "nvidia-cuda-runtime==13.5.37", "nvidia-cuda-cupti==13.5.25"];

/// An unpacked libtorch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Libtorch {
    /// Holds `lib` and `include`.
    root: PathBuf,
}

impl Libtorch {
    /// The one that `LIBTORCH` names, or an earlier fetched one.
    pub fn find() -> Option<Libtorch> {
        let named = std::env::var_os("LIBTORCH").filter(|path| !path.is_empty());
        let root = named.map_or_else(|| folder().join("torch"), PathBuf::from);
        root.join("lib").is_dir().then_some(Libtorch { root })
    }

    /// As [`Libtorch::find`]; fetches it where there is none (526 MB, 1.2 GB unpacked).
    pub fn setup() -> Result<Libtorch> {
        if let Some(found) = Libtorch::find() {
            eprintln!("setup: libtorch is in {}", found.root.display());
            return Ok(found);
        }
        if let Some(named) = std::env::var_os("LIBTORCH") {
            bail!("LIBTORCH names {}, which holds no `lib`", Path::new(&named).display());
        }
        let (folder, partial) = (folder(), folder().with_extension("partial"));
        eprintln!("setup: fetching libtorch into {} (526 MB)", folder.display());
        let _ = std::fs::remove_dir_all(&partial);
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]);
        pip.arg("--target").arg(&partial).args(WHEELS).stdin(Stdio::null());
        let by_hand = "unpack a libtorch of version 2.13 and name its folder in LIBTORCH";
        crate::run(&mut pip).with_context(|| format!("cannot fetch libtorch; {by_hand}"))?;
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::rename(&partial, &folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        Libtorch::find().with_context(|| format!("the wheel holds no libtorch; {by_hand}"))
    }

    /// Lets `command` build and run with it.
    pub fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let before = std::env::var_os("LD_LIBRARY_PATH");
        command.env("LIBTORCH", &self.root).env("LD_LIBRARY_PATH", self.search_path(before))
    }

    /// Folders of its libraries, and of those of CUDA that wheels put beside it, before `others`.
    fn search_path(&self, others: Option<OsString>) -> OsString {
        let mut folders = vec![self.root.join("lib")];
        let beside = self.root.parent().map(|site| site.join("nvidia"));
        let parts = beside.and_then(|path| std::fs::read_dir(path).ok()).into_iter().flatten();
        folders.extend(parts.flatten().map(|part| part.path().join("lib")).filter(|p| p.is_dir()));
        folders.extend(others.iter().flat_map(std::env::split_paths));
        std::env::join_paths(folders).unwrap_or_default()
    }
}

/// Where it is fetched to: beside what cargo builds.
fn folder() -> PathBuf {
    crate::target().join("libtorch")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_cuda_lie_beside() {
        let site = std::env::temp_dir().join(format!("jaq-libtorch-{}", std::process::id()));
        std::fs::create_dir_all(site.join("nvidia/cu13/lib")).unwrap();
        std::fs::create_dir_all(site.join("torch/lib")).unwrap();
        let found = Libtorch { root: site.join("torch") }.search_path(Some("/elsewhere".into()));
        let found: Vec<PathBuf> = std::env::split_paths(&found).collect();
        let wanted = [site.join("torch/lib"), site.join("nvidia/cu13/lib"), "/elsewhere".into()];
        assert_eq!(found, wanted);
        std::fs::remove_dir_all(site).unwrap();
    }
}
