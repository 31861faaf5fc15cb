//! Boards: what a target is, read from `boards/*.toml`.
//!
//! The shipped files are part of the library, so that commands work from anywhere; a path to a
//! user's own file is taken wherever a board name is. A board file is data with sources: a number
//! without an entry in `[sources]` is refused. Must not know: layers, costs, devices.

use std::collections::BTreeMap;
use std::path::Path;

use jaq_shared::kernels::Isa;
use serde::{Deserialize, Serialize};

/// Lists written by the build script.
#[allow(dead_code)] // Measurements are read by tests alone.
mod files {
    include!(concat!(env!("OUT_DIR"), "/boards.rs"));
}
use files::BOARDS;
#[cfg(test)]
pub(crate) use files::MEASUREMENTS;
pub(crate) use files::TABLES;

/// A microcontroller board or an emulated machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mcu {
    /// Name, that of the file.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// What kind of target the file describes.
    pub kind: Kind,
    /// The emulated board that runs the same kernels, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emulated_by: Option<String>,
    /// Whether our firmware has run on this chip itself.
    #[serde(default)]
    pub hardware: Hardware,
    /// Instruction set and cost table.
    pub core: Core,
    /// From instructions to cycles; absent on emulated machines, which have no latency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
    /// Energy; absent where no source is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy: Option<Energy>,
    /// Memories.
    pub memory: Vec<Memory>,
    /// How the board is reached.
    #[serde(default)]
    pub links: Links,
    /// What is not available to a model.
    pub reserve: Reserve,
    /// Where the numbers come from, by the name of the field.
    pub sources: BTreeMap<String, String>,
}

/// Kinds of targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A processor that runs the project's kernels.
    Mcu,
    /// A compute array with buffers, priced by a model of its own.
    Accelerator,
    /// Ranges of accelerators.
    DesignSpace,
}

/// Whether our firmware has run on a chip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hardware {
    /// It was built and inspected, at most; every figure is a prediction or another machine's.
    #[default]
    NeverRun,
    /// It has; `[sources]` says when and what was seen.
    Run,
}

/// A processor core.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Core {
    /// For example `cortex-m7`.
    pub name: String,
    /// Which micro-kernels it runs.
    pub isa: IsaName,
    /// Rust target of the firmware.
    pub target: String,
    /// Cost table, a file of `boards/tables/` without its ending.
    pub cost_table: String,
}

/// An instruction set as board files spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IsaName {
    /// No assembly.
    Portable,
    /// Armv7E-M with DSP instructions and single-precision registers.
    Armv7em,
    /// Armv7-M without DSP instructions.
    Armv7m,
    /// Armv6-M.
    Armv6m,
    /// RV32IM.
    Rv32im,
}

impl From<IsaName> for Isa {
    fn from(name: IsaName) -> Isa {
        match name {
            IsaName::Portable => Isa::Portable,
            IsaName::Armv7em => Isa::Armv7em,
            IsaName::Armv7m => Isa::Armv7m,
            IsaName::Armv6m => Isa::Armv6m,
            IsaName::Rv32im => Isa::Rv32im,
        }
    }
}

/// What turns instructions into time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// Clock in Hz.
    pub clock_hz: f64,
    /// Instructions the core can start in one cycle.
    pub issue_width: u32,
    /// Wait states of flash at this clock, without cache.
    pub flash_wait_states: u32,
    /// Instruction cache, 0 for none.
    pub instruction_cache_bytes: u32,
    /// Data cache, 0 for none.
    pub data_cache_bytes: u32,
    /// Low and high cycles of an executed instruction.
    pub cycles_per_instruction: [f64; 2],
}

/// Energy of the core with its memories.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Energy {
    /// Picojoules of an active cycle.
    pub pj_per_cycle: f64,
    /// How far the truth may lie from that to either side, 0..1.
    pub uncertainty: f64,
}

/// A range of memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// For example `flash`.
    pub name: String,
    /// First address.
    pub address: u32,
    /// Size in bytes.
    pub size: u32,
    /// What the firmware puts there.
    #[serde(rename = "use")]
    pub usage: Vec<Use>,
}

/// Contents of a memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Use {
    /// Machine code.
    Code,
    /// The packed model.
    Weights,
    /// The stack.
    Stack,
    /// Static data.
    Data,
    /// Activations and working memory.
    Arena,
    /// Models that come over the link. Where no memory is for them, a firmware without a model
    /// keeps half of the arena's.
    Slot,
}

/// How a board is reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Links {
    /// Machine of `qemu-system-*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu: Option<String>,
    /// Chip name of probe-rs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<String>,
    /// Description of that chip in `boards/targets/`, where probe-rs has none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_target: Option<String>,
    /// Whether the core is simulated at register-transfer level (`cargo xtask setup rtl`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rtl: bool,
}

/// A chip's description for probe-rs, a file of `boards/targets/` without its ending.
pub fn probe_target(name: &str) -> Option<&'static str> {
    files::PROBE_TARGETS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// Memory that a model cannot have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// Flash for machine code.
    pub code_bytes: u32,
    /// RAM for static variables.
    pub data_bytes: u32,
    /// RAM for the stack.
    pub stack_bytes: u32,
}

/// Why there is no such board.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BoardError {
    #[error("no board is called `{name}`; known: {known} (or the path of a board file)")]
    Unknown { name: String, known: String },
    #[error("cannot read the board file {path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("board file {file}: {reason}")]
    Syntax { file: String, reason: String },
    #[error("board file {file}: field `{field}` {reason}")]
    Field { file: String, field: String, reason: String },
    #[error("`{name}` is no processor; this needs a microcontroller board: {known}")]
    NotAnMcu { name: String, known: String },
    #[error("`{name}` is a space of accelerators; this needs one of them")]
    IsSpace { name: String },
}

impl BoardError {
    /// What is wrong with a field of a board file.
    pub(crate) fn field(file: &str, field: &str, reason: impl Into<String>) -> BoardError {
        let (file, field) = (file.to_owned(), field.to_owned());
        BoardError::Field { file, field, reason: reason.into() }
    }
}

/// Names of the shipped boards of a kind (of every kind for `None`), sorted.
pub fn names(kind: Option<Kind>) -> Vec<&'static str> {
    let wanted = |text: &str| kind.is_none() || kind_of("", text).ok() == kind;
    BOARDS.iter().filter(|(_, text)| wanted(text)).map(|(name, _)| *name).collect()
}

/// The text of a shipped board file, or of the user's own where `name` is a path.
pub(crate) fn source(name: &str) -> Result<std::borrow::Cow<'static, str>, BoardError> {
    if let Some((_, text)) = BOARDS.iter().find(|(known, _)| *known == name) {
        return Ok((*text).into());
    }
    if name.ends_with(".toml") || Path::new(name).is_file() {
        let fail = |source| BoardError::Io { path: name.to_owned(), source };
        return std::fs::read_to_string(name).map(Into::into).map_err(fail);
    }
    Err(BoardError::Unknown { name: name.to_owned(), known: names(None).join(", ") })
}

/// What any board file says of its target: kind, a line for people, and the whole text.
pub fn describe(name: &str) -> Result<(Kind, String, String), BoardError> {
    #[derive(Deserialize)]
    struct Head {
        kind: Kind,
        description: String,
    }
    let text = source(name)?;
    let Head { kind, description } = parse(name, &text)?;
    Ok((kind, description, text.into_owned()))
}

/// Kind of the target that a board file describes.
pub(crate) fn kind_of(file: &str, text: &str) -> Result<Kind, BoardError> {
    #[derive(Deserialize)]
    struct Head {
        kind: Kind,
    }
    parse::<Head>(file, text).map(|head| head.kind)
}

/// Parses a board file; the error names file, line and field.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(
    file: &str,
    text: &str,
) -> Result<T, BoardError> {
    toml::from_str(text).map_err(|error| BoardError::Syntax {
        file: file.to_owned(),
        reason: error.to_string().trim_end().to_owned(),
    })
}

/// A target's name is that of its file.
pub(crate) fn check_name(file: &str, name: &str) -> Result<(), BoardError> {
    let stem = Path::new(file).file_stem().and_then(|s| s.to_str()).unwrap_or(file);
    if name == stem {
        return Ok(());
    }
    Err(BoardError::field(file, "name", format!("must be that of the file, `{stem}`")))
}

/// Every number has a source: the keys that `[sources]` must have.
pub(crate) fn check_sources(
    file: &str,
    sources: &BTreeMap<String, String>,
    wanted: &[&str],
) -> Result<(), BoardError> {
    match wanted.iter().find(|key| !sources.contains_key(**key)) {
        None => Ok(()),
        Some(missing) => {
            let reason = "is missing: every number has a source";
            Err(BoardError::field(file, &format!("sources.\"{missing}\""), reason))
        }
    }
}

impl Mcu {
    /// The shipped board `name`, or the user's own file of that path.
    pub fn load(name: &str) -> Result<Mcu, BoardError> {
        let text = source(name)?;
        if kind_of(name, &text)? != Kind::Mcu {
            let known = names(Some(Kind::Mcu)).join(", ");
            return Err(BoardError::NotAnMcu { name: name.to_owned(), known });
        }
        Mcu::parse(name, &text)
    }

    /// Parses and validates the text of a board file; `file` is named in errors.
    pub fn parse(file: &str, text: &str) -> Result<Mcu, BoardError> {
        let board: Mcu = parse(file, text)?;
        board.validate(file)?;
        Ok(board)
    }

    fn validate(&self, file: &str) -> Result<(), BoardError> {
        let fail = |field: &str, reason: &str| Err(BoardError::field(file, field, reason));
        check_name(file, &self.name)?;
        if let Some(timing) = &self.timing {
            let [low, high] = timing.cycles_per_instruction;
            if !(timing.clock_hz.is_finite() && timing.clock_hz > 0.0) {
                return fail("timing.clock_hz", "must be a positive frequency in Hz");
            }
            if timing.issue_width == 0 {
                return fail("timing.issue_width", "must be at least 1");
            }
            if !(low.is_finite() && high.is_finite() && 0.0 < low && low <= high) {
                return fail(
                    "timing.cycles_per_instruction",
                    "must be [low, high], 0 < low <= high",
                );
            }
            if low * f64::from(timing.issue_width) < 1.0 {
                return fail(
                    "timing.cycles_per_instruction",
                    "is less than the issue width allows",
                );
            }
        }
        if let Some(energy) = &self.energy {
            if !(energy.pj_per_cycle.is_finite() && energy.pj_per_cycle > 0.0) {
                return fail("energy.pj_per_cycle", "must be positive");
            }
            if !(0.0..1.0).contains(&energy.uncertainty) {
                return fail("energy.uncertainty", "must be a fraction, at least 0 and below 1");
            }
            if self.timing.is_none() {
                return fail("energy", "needs a [timing] section: it counts cycles");
            }
        }
        for usage in [Use::Code, Use::Weights, Use::Stack, Use::Data, Use::Arena] {
            if self.memory.iter().filter(|m| m.usage.contains(&usage)).count() != 1 {
                return fail("memory.use", &format!("must name {usage:?} in exactly one memory"));
            }
        }
        if self.memory.iter().filter(|m| m.usage.contains(&Use::Slot)).count() > 1 {
            return fail("memory.use", "must name Slot in one memory at most");
        }
        for (i, memory) in self.memory.iter().enumerate() {
            let end = u64::from(memory.address) + u64::from(memory.size);
            if memory.size == 0 || end > 1 << 32 {
                return fail(&format!("memory.{}.size", memory.name), "does not fit 32 bits");
            }
            for other in &self.memory[..i] {
                let other_end = u64::from(other.address) + u64::from(other.size);
                if u64::from(memory.address) < other_end && u64::from(other.address) < end {
                    return fail(
                        &format!("memory.{}", memory.name),
                        &format!("overlaps `{}`", other.name),
                    );
                }
            }
        }
        if self.flash_bytes() == 0 || self.ram_bytes() == 0 {
            return fail("reserve", "leaves no memory for a model");
        }
        let mut wanted = vec!["memory"];
        if self.timing.is_some() {
            wanted.extend([
                "timing.clock_hz",
                "timing.issue_width",
                "timing.flash_wait_states",
                "timing.caches",
                "timing.cycles_per_instruction",
            ]);
        }
        if self.energy.is_some() {
            wanted.extend(["energy.pj_per_cycle", "energy.uncertainty"]);
        }
        if self.hardware == Hardware::Run {
            wanted.push("hardware");
        }
        check_sources(file, &self.sources, &wanted)
    }

    /// The memory that holds `usage`.
    pub fn memory(&self, usage: Use) -> &Memory {
        self.memory.iter().find(|m| m.usage.contains(&usage)).expect("validated when parsed")
    }

    /// Flash a packed model may take: what code leaves.
    pub fn flash_bytes(&self) -> u64 {
        let weights = self.memory(Use::Weights);
        let code = if weights.usage.contains(&Use::Code) { self.reserve.code_bytes } else { 0 };
        u64::from(weights.size.saturating_sub(code))
    }

    /// RAM an arena may take: what stack and variables leave.
    pub fn ram_bytes(&self) -> u64 {
        let arena = self.memory(Use::Arena);
        let shared = |usage, bytes| if arena.usage.contains(&usage) { bytes } else { 0 };
        let taken = shared(Use::Stack, self.reserve.stack_bytes)
            .saturating_add(shared(Use::Data, self.reserve.data_bytes));
        u64::from(arena.size.saturating_sub(taken))
    }

    /// Which micro-kernels the core runs.
    pub fn isa(&self) -> Isa {
        self.core.isa.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_board_is_valid() {
        assert!(names(Some(Kind::Mcu)).contains(&"stm32h7"));
        for (name, text) in BOARDS {
            if kind_of(name, text).unwrap() == Kind::Mcu {
                let board = Mcu::parse(name, text).unwrap_or_else(|e| panic!("{e}"));
                if let Some(description) = &board.links.probe_target {
                    assert!(probe_target(description).is_some(), "{name}: no {description}");
                }
                if let Some(other) = &board.emulated_by {
                    let other = Mcu::load(other).unwrap_or_else(|e| panic!("{name}: {e}"));
                    assert_eq!(other.core.isa, board.core.isa, "{name}: another instruction set");
                    assert!(other.links.qemu.is_some(), "{name}: {} is not emulated", other.name);
                }
            }
        }
        assert_eq!(Mcu::load("stm32h7").unwrap().ram_bytes(), 512 * 1024);
    }

    #[test]
    fn mistakes_are_named() {
        let (_, text) = BOARDS.iter().find(|(name, _)| *name == "stm32h7").unwrap();
        let error = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            Mcu::parse("stm32h7", &text.replace(from, to)).unwrap_err().to_string()
        };
        for (from, to, expected) in [
            ("clock_hz = 480_000_000", "clock_hz = -1.0", "timing.clock_hz"),
            ("clock_hz = 480_000_000", "clock = 1", "clock"),
            ("[0.6, 1.2]", "[0.4, 1.2]", "issue width"),
            ("use = [\"arena\"]", "use = []", "Arena"),
            ("size = 524288", "size = 0", "axi-sram"),
            ("0x3800_0000", "0x3000_1000", "overlaps"),
            ("\"memory\" = ", "\"memoir\" = ", "every number has a source"),
            ("name = \"stm32h7\"", "name = \"h7\"", "stm32h7"),
            ("isa = \"armv7em\"", "isa = \"avr\"", "avr"),
        ] {
            let message = error(from, to);
            assert!(message.contains(expected), "{to}: {message}");
            assert!(message.contains("stm32h7"), "{message}");
        }
        let unknown = Mcu::load("stm32h8").unwrap_err().to_string();
        assert!(unknown.contains("stm32h7") && unknown.contains("mps2-an500"), "{unknown}");
    }
}
