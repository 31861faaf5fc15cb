//! Builds the firmware of a board, with or without a model in it, and tells its size by part.
//!
//! The firmware is a Cargo workspace of its own and is built by `cargo` in its folder. Builds are
//! incremental, and a lock keeps two processes from taking each other's result.
//! Must not know how a firmware is run ([`crate::link`]).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use jaq_cost::Mcu;
use jaq_shared::format::{LoadError, Model};
use jaq_shared::kernels::Isa;
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolKind, elf};
use serde::{Deserialize, Serialize};

use crate::inspect::{Layout, inspect};

/// A board that firmware can be built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name of the board and of its firmware crate.
    pub board: &'static str,
    /// What the crate is compiled for.
    pub triple: &'static str,
    /// QEMU's name of the machine, where it emulates the board.
    pub machine: Option<&'static str>,
    /// Whether the simulator of its registers and wires is part of this repository.
    pub rtl: bool,
    /// The micro-kernels its firmware has.
    pub isa: Isa,
}

/// Every board that firmware can be built for.
pub const TARGETS: &[Target] = &[
    emulated("mps2-an500", "thumbv7em-none-eabihf", "mps2-an500", Isa::Armv7em),
    emulated("mps2-an386", "thumbv7em-none-eabihf", "mps2-an386", Isa::Armv7em),
    emulated("mps2-an505", "thumbv8m.main-none-eabihf", "mps2-an505", Isa::Armv7em),
    emulated("mps2-an385", "thumbv7m-none-eabi", "mps2-an385", Isa::Armv7m),
    // QEMU has no Cortex-M0+ with enough memory; an M3 executes Armv6-M code the same.
    emulated("mps2-an385-v6m", "thumbv6m-none-eabi", "mps2-an385", Isa::Armv6m),
    emulated("virt-rv32", "riscv32imc-unknown-none-elf", "virt", Isa::Rv32im),
    simulated("cv32e40p"),
    // The same core by instructions of its own, for the same layouts.
    simulated("cv32e40p-xpulp"),
    real("stm32h7", "thumbv7em-none-eabihf", Isa::Armv7em),
    real("stm32f4", "thumbv7em-none-eabihf", Isa::Armv7em),
    real("nrf52840", "thumbv7em-none-eabihf", Isa::Armv7em),
    real("rp2040", "thumbv6m-none-eabi", Isa::Armv6m),
];

const fn emulated(
    board: &'static str,
    triple: &'static str,
    machine: &'static str,
    isa: Isa,
) -> Target {
    Target { board, triple, machine: Some(machine), rtl: false, isa }
}

const fn simulated(board: &'static str) -> Target {
    let triple = "riscv32imc-unknown-none-elf";
    Target { board, triple, machine: None, rtl: true, isa: Isa::Rv32im }
}

/// How a firmware reaches the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// By the means of an emulator (semihosting and a UART) or simulator (a mailbox).
    Emulator,
    /// Through a debug probe (RTT).
    Probe,
}

const fn real(board: &'static str, triple: &'static str, isa: Isa) -> Target {
    Target { board, triple, machine: None, rtl: false, isa }
}

impl Target {
    /// What reaches the board if nothing else is asked for.
    pub fn transport(&self) -> Transport {
        let emulated = self.machine.is_some() || self.rtl;
        if emulated { Transport::Emulator } else { Transport::Probe }
    }
}

/// Looks a board up in [`TARGETS`].
pub fn target(board: &str) -> Result<&'static Target, BuildError> {
    TARGETS.iter().find(|target| target.board == board).ok_or_else(|| BuildError::Unknown {
        board: board.to_owned(),
        known: TARGETS.iter().map(|target| target.board).collect::<Vec<_>>().join(", "),
    })
}

/// A firmware that was built.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// The linked file.
    pub elf: PathBuf,
    /// What it was built for.
    pub target: &'static Target,
    /// Identity of the build, which the device tells in its hello.
    pub build: String,
    /// Sizes by part.
    pub parts: Parts,
    /// Where it has its memory.
    pub layout: Layout,
}

/// Flash and static RAM of a firmware by part, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// Machine code and vector table.
    pub code: usize,
    /// Of the code: the kernels.
    pub kernels: usize,
    /// Of the code: the model's format and the runtime.
    pub runtime: usize,
    /// Of the code: request loop and protocol, which a product leaves out.
    pub harness: usize,
    /// Constant tables and texts.
    pub constants: usize,
    /// Initial values of variables.
    pub data: usize,
    /// The model that is built in.
    pub model: usize,
    /// Inputs that are built in; no product has them.
    pub inputs: usize,
    /// Variables in RAM: no arena, no stack.
    pub variables: usize,
}

impl Parts {
    /// Flash without the model.
    pub fn code_bytes(&self) -> usize {
        self.code + self.constants + self.data
    }

    /// All of flash but built-in inputs.
    pub fn flash_bytes(&self) -> usize {
        self.code_bytes() + self.model
    }
}

/// Why a firmware could not be built.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BuildError {
    #[error("there is no firmware for the board {board}; there is for: {known}")]
    Unknown { board: String, known: String },
    #[error(
        "no Rust compiler here builds for {triple}: {reason}; run `cargo xtask setup`, or by hand `rustup target add {triple}`"
    )]
    Toolchain { triple: &'static str, reason: String },
    #[error(
        "the firmware sources are not in {0}; run from a checkout of the repository or set JAQ_FIRMWARE_DIR"
    )]
    Sources(PathBuf),
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} is no model for a firmware: {source}")]
    Model { path: PathBuf, source: LoadError },
    #[error("cargo failed to build the firmware of {board}:\n{output}")]
    Cargo { board: &'static str, output: String },
    #[error(transparent)]
    Board(#[from] jaq_cost::BoardError),
    #[error("{path} is no firmware for its board: {reason}")]
    Elf { path: PathBuf, reason: String },
}

/// Which compiler builds for an embedded target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// The one cargo uses; its target was installed by rustup.
    Installed,
    /// Debian's compiler, which builds the core library from Debian's sources.
    Debian {
        /// Its path.
        rustc: PathBuf,
    },
}

/// Debian's compiler, where it is installed.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

impl Toolchain {
    /// Finds a compiler for `triple`; `JAQ_TOOLCHAIN=debian` skips the one of rustup.
    pub fn detect(triple: &'static str) -> Result<Toolchain, BuildError> {
        let forced = std::env::var("JAQ_TOOLCHAIN").is_ok_and(|name| name == "debian");
        let mut reasons = Vec::new();
        if !forced {
            let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
            match sysroot(Path::new(&rustc)) {
                Ok(root) if root.join("lib/rustlib").join(triple).join("lib").is_dir() => {
                    return Ok(Toolchain::Installed);
                }
                Ok(_) => reasons.push("the target is not installed".to_owned()),
                Err(error) => reasons.push(format!("rustc: {error}")),
            }
        }
        let rustc = PathBuf::from(DEBIAN_RUSTC);
        match sysroot(&rustc) {
            Ok(root) if root.join("lib/rustlib/src/rust/library/core").is_dir() => {
                return Ok(Toolchain::Debian { rustc });
            }
            Ok(_) => reasons.push("Debian's compiler is here without rust-web-src".to_owned()),
            Err(_) => reasons.push("Debian's rustc-web is not installed".to_owned()),
        }
        Err(BuildError::Toolchain { triple, reason: reasons.join("; ") })
    }
}

fn sysroot(rustc: &Path) -> io::Result<PathBuf> {
    let output = Command::new(rustc).args(["--print", "sysroot"]).output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// The folder of the firmware workspace.
pub fn folder() -> Result<PathBuf, BuildError> {
    let folder = match std::env::var_os("JAQ_FIRMWARE_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../firmware"),
    };
    match folder.join("Cargo.toml").is_file() {
        true => folder.canonicalize().map_err(io_error("cannot read", &folder)),
        false => Err(BuildError::Sources(folder)),
    }
}

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> BuildError + 'a {
    move |source| BuildError::Io { what, path: path.to_owned(), source }
}

/// A `cargo` command in the firmware workspace, for a target and with the compiler that was found.
pub fn cargo(target: &Target, command: &str) -> Result<Command, BuildError> {
    let folder = folder()?;
    let mut cargo = Command::new("cargo");
    cargo.current_dir(&folder).arg(command).args(["--target", target.triple]);
    cargo.arg("--target-dir").arg(folder.join("target"));
    // What the outer build was told is not meant for another target.
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR"] {
        cargo.env_remove(variable);
    }
    for variable in ["CARGO_BUILD_TARGET", "CARGO_BUILD_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER"] {
        cargo.env_remove(variable);
    }
    if let Toolchain::Debian { rustc } = Toolchain::detect(target.triple)? {
        let linker =
            format!("CARGO_TARGET_{}_LINKER", target.triple.to_uppercase().replace('-', "_"));
        cargo.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1").env(linker, "ld.lld");
        cargo.arg("-Zbuild-std=core");
    }
    Ok(cargo)
}

/// Builds the firmware of `board`, with the packed model at `model` in it if one is given, and
/// puts the linked file at `elf`. Of the kernels, a model links those it runs.
pub fn build(board: &str, model: Option<&Path>, elf: &Path) -> Result<Firmware, BuildError> {
    build_for(target(board)?.transport(), board, model, elf)
}

/// As [`build`], for another way to the host than the board's usual one.
pub fn build_for(
    transport: Transport,
    board: &str,
    model: Option<&Path>,
    elf: &Path,
) -> Result<Firmware, BuildError> {
    build_with(transport, board, model, &[], elf)
}

/// As [`build_for`], with raw inputs in it, one after the other.
pub fn build_with(
    transport: Transport,
    board: &str,
    model: Option<&Path>,
    inputs: &[u8],
    elf: &Path,
) -> Result<Firmware, BuildError> {
    let target = target(board)?;
    let (bytes, build) = compile(target, board, features(target, transport), model, inputs)?;
    let parts = parts(&bytes)
        .map_err(|error| BuildError::Elf { path: elf.to_owned(), reason: error.to_string() })?;
    let file = Mcu::load(board)?;
    let layout = inspect(&file, &bytes)
        .map_err(|reason| BuildError::Elf { path: elf.to_owned(), reason })?;
    jaq_network::write_whole(elf, &bytes).map_err(io_error("cannot write", elf))?;
    Ok(Firmware { elf: elf.to_owned(), target, build, parts, layout })
}

/// The features of a board's crate that choose its way to the host.
pub fn features(target: &Target, transport: Transport) -> &'static [&'static str] {
    match (target.transport(), transport) {
        (Transport::Emulator, Transport::Probe) => &["--no-default-features", "--features", "rtt"],
        _ => &[],
    }
}

/// Sizes of the least that a product for the board's core links: a model (every kernel without
/// one), its kernels and the runtime. Such a program cannot panic: else it does not link.
pub fn product(target: &'static Target, model: Option<&Path>) -> Result<Parts, BuildError> {
    let (bytes, _) = compile(target, "product", &[], model, &[])?;
    parts(&bytes)
        .map_err(|error| BuildError::Elf { path: "product".into(), reason: error.to_string() })
}

/// Compiles a package of the firmware workspace: the linked file and the identity of the build.
fn compile(
    target: &'static Target,
    package: &str,
    features: &[&str],
    model: Option<&Path>,
    inputs: &[u8],
) -> Result<(Vec<u8>, String), BuildError> {
    let model = match model {
        None => None,
        Some(path) => {
            let path = path.canonicalize().map_err(io_error("cannot read the model", path))?;
            let bytes = fs::read(&path).map_err(io_error("cannot read the model", &path))?;
            let kernels = linked_kernels(&bytes)
                .map_err(|source| BuildError::Model { path: path.clone(), source })?;
            Some((path, jaq_shared::format::crc32(&[&bytes]), kernels))
        }
    };
    let mut content = match &model {
        Some((_, crc, _)) => format!("model-{crc:08x}"),
        None => "open".to_owned(),
    };
    if !inputs.is_empty() {
        content += &format!("-inputs-{:08x}", jaq_shared::format::crc32(&[inputs]));
    }
    if !features.is_empty() {
        content += "-probe";
    }
    let sources = sources(package)?;
    let build = format!("{}-{sources:08x}-{content}", env!("CARGO_PKG_VERSION"));

    let mut command = cargo(target, "build")?;
    command.args(["--release", "--locked", "--package", package, "--message-format", "short"]);
    command.args(features);
    command.env("JAQ_BUILD_ID", &build);
    match &model {
        Some((path, _, kernels)) => command.env("JAQ_MODEL", path).env("JAQ_KERNELS", kernels),
        None => command.env_remove("JAQ_MODEL").env_remove("JAQ_KERNELS"),
    };
    // Lives until the build has read it.
    let folder_of_inputs =
        tempfile::tempdir().map_err(io_error("cannot create in", &std::env::temp_dir()))?;
    if inputs.is_empty() {
        command.env_remove("JAQ_INPUTS");
    } else {
        let path = folder_of_inputs.path().join("inputs.bin");
        fs::write(&path, inputs).map_err(io_error("cannot write", &path))?;
        command.env("JAQ_INPUTS", path);
    }

    // Cargo's own lock ends before the result is copied.
    let output = folder()?.join("target");
    fs::create_dir_all(&output).map_err(io_error("cannot create", &output))?;
    let lock_path = output.join("jaq.lock");
    let lock = File::create(&lock_path).map_err(io_error("cannot create", &lock_path))?;
    lock.lock().map_err(io_error("cannot lock", &lock_path))?;
    let result = command.output().map_err(io_error("cannot run cargo in", &output))?;
    if !result.status.success() {
        let output = String::from_utf8_lossy(&result.stderr).trim().to_owned();
        return Err(BuildError::Cargo { board: target.board, output });
    }
    let linked = output.join(target.triple).join("release").join(package);
    let bytes = fs::read(&linked).map_err(io_error("cannot read", &linked))?;
    drop(lock);
    Ok((bytes, build))
}

/// Checksum of all that a firmware is compiled from beside its model: the sources of its package,
/// of the harness and the build script, the code shared with the host, the board file and the
/// versions of every dependency.
fn sources(package: &str) -> Result<u32, BuildError> {
    fn walk(path: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
        if path.is_dir() {
            for entry in fs::read_dir(path)? {
                walk(&entry?.path(), found)?;
            }
        } else if path.is_file() {
            found.push(path.to_owned());
        }
        Ok(())
    }
    let folder = folder()?;
    let mut files = Vec::new();
    let parts = [package, "harness", "board-build", "Cargo.toml", "Cargo.lock", ".cargo"];
    let board = format!("../boards/{package}.toml");
    for part in parts.into_iter().chain(["../shared/src", "../shared/Cargo.toml", &board]) {
        let path = folder.join(part);
        walk(&path, &mut files).map_err(io_error("cannot read", &path))?;
    }
    files.sort();
    let mut pieces = Vec::new();
    for path in &files {
        let name = path.strip_prefix(&folder).unwrap_or(path);
        pieces.push(name.as_os_str().as_encoded_bytes().to_owned());
        pieces.push(fs::read(path).map_err(io_error("cannot read", path))?);
    }
    let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    Ok(jaq_shared::format::crc32(&pieces))
}

/// Names of the kernels a packed model runs, with what its layers need of them, sorted.
fn linked_kernels(model: &[u8]) -> Result<String, LoadError> {
    let aligned = crate::export::aligned(model);
    let bytes = bytemuck::cast_slice::<u64, u8>(&aligned);
    let model = Model::load(bytes.get(..model.len()).unwrap_or_default())?;
    let mut names = BTreeSet::new();
    for layer in model.layers() {
        let kernel = layer.kernel.name();
        names.insert(kernel.to_owned());
        for property in jaq_shared::kernels::linked::properties(&layer.shape(), layer.requant) {
            names.insert(format!("{kernel}.{property}"));
        }
    }
    Ok(names.into_iter().collect::<Vec<_>>().join(","))
}

/// Builds the firmware of `board` that takes its model over the link, in the build folder.
pub fn build_open(board: &str) -> Result<Firmware, BuildError> {
    build_open_for(target(board)?.transport(), board)
}

/// As [`build_open`], for another way to the host than the board's usual one.
pub fn build_open_for(transport: Transport, board: &str) -> Result<Firmware, BuildError> {
    let name = match transport {
        Transport::Emulator => format!("{board}-open.elf"),
        Transport::Probe => format!("{board}-open-rtt.elf"),
    };
    build_for(transport, board, None, &folder()?.join("target").join(name))
}

/// Sizes by part of a linked firmware.
pub fn parts(file: &[u8]) -> Result<Parts, object::Error> {
    let file = object::File::parse(file)?;
    let mut parts = Parts::default();
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else { continue };
        if sh_flags.0 & elf::SHF_ALLOC.0 == 0 {
            continue;
        }
        let size = section.size() as usize;
        let slot = match section.name()? {
            ".model" => &mut parts.model,
            ".inputs" => &mut parts.inputs,
            ".data" => {
                parts.variables += size;
                &mut parts.data
            }
            ".bss" | ".uninit" => &mut parts.variables,
            // What RAM leaves, in the linker scripts of riscv-rt.
            ".stack" | ".heap" => continue,
            ".vector_table" => &mut parts.code,
            _ if sh_flags.0 & elf::SHF_EXECINSTR.0 != 0 => &mut parts.code,
            _ => &mut parts.constants,
        };
        *slot += size;
    }
    attribute(&file, &mut parts);
    Ok(parts)
}

/// Tells the code by whose it is. A function's code reaches to the next one's: assembly carries
/// no sizes.
fn attribute(file: &object::File<'_>, parts: &mut Parts) {
    let mut functions: Vec<(u64, &str)> = file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text)
        // Bit 0 of the address says Thumb.
        .filter_map(|symbol| Some((symbol.address() & !1, symbol.name().ok()?)))
        // `$t` and its like mark the kind of code, not its beginning.
        .filter(|(_, name)| !name.starts_with('$'))
        .collect();
    functions.sort();
    let end = file
        .sections()
        .find(|section| section.name() == Ok(".text"))
        .map_or(0, |section| section.address() + section.size());
    for (index, (start, name)) in functions.iter().enumerate() {
        let next = functions.get(index + 1).map_or(end, |(next, _)| *next);
        let size = next.saturating_sub(*start) as usize;
        let has = |part: &str| name.contains(part);
        if has("jaq_shared7kernels") || name.starts_with("jaq_v") {
            parts.kernels += size;
        } else if ["jaq_harness", "jaq_shared8protocol", "postcard", "cobs"].into_iter().any(has) {
            parts.harness += size;
        } else if has("jaq_shared") {
            parts.runtime += size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_board_is_named_with_the_known_ones() {
        let error = target("stm32z9").unwrap_err().to_string();
        assert!(error.contains("stm32z9") && error.contains("mps2-an500"), "{error}");
    }

    #[test]
    fn every_target_is_a_crate_of_the_firmware_workspace() {
        for target in TARGETS {
            let manifest = folder().unwrap().join(target.board).join("Cargo.toml");
            let text = fs::read_to_string(&manifest).unwrap();
            assert!(text.contains(&format!("name = \"{}\"", target.board)), "{manifest:?}");
            // What its board file says again.
            let board = Mcu::load(target.board).unwrap();
            assert_eq!((board.core.target.as_str(), board.isa()), (target.triple, target.isa));
            assert_eq!(board.links.qemu.as_deref(), target.machine, "{}", target.board);
            assert_eq!(board.links.rtl, target.rtl, "{}", target.board);
            let reached = target.machine.is_some() || target.rtl || board.links.probe.is_some();
            assert!(reached, "{}", target.board);
        }
    }

    #[test]
    fn a_build_is_named_after_all_its_sources() {
        let [one, other] = ["mps2-an500", "mps2-an386"].map(|board| sources(board).unwrap());
        assert_ne!(one, other);
        assert_eq!(one, sources("mps2-an500").unwrap());
    }

    #[test]
    fn a_file_that_is_no_program_has_no_parts() {
        assert!(parts(b"\x7fELF, but not for long").is_err());
        assert!(parts(&[]).is_err());
    }
}
