//! The linker's memory map of a board, from the memories of its board file.
//!
//! Must not know any board, nor how the file is found.

use serde::Deserialize;
use std::fmt::Write;

/// What of a board file places things in memory.
#[derive(Deserialize)]
pub struct Board {
    memory: Vec<Memory>,
    reserve: Reserve,
}

#[derive(Clone, Deserialize)]
struct Memory {
    name: String,
    address: u32,
    size: u32,
    #[serde(rename = "use")]
    usage: Vec<String>,
}

#[derive(Deserialize)]
struct Reserve {
    data_bytes: u32,
    stack_bytes: u32,
}

/// A range of addresses.
#[derive(Clone, Copy)]
struct Range {
    start: u32,
    size: u32,
}

impl Range {
    /// The first `size` bytes, and the rest.
    fn split(self, size: u32) -> (Range, Range) {
        let first = Range { start: self.start, size };
        (first, Range { start: self.start + size, size: self.size - size })
    }
}

impl Board {
    /// Reads the text of a board file.
    pub fn parse(text: &str) -> Result<Board, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    fn memory(&self, usage: &str) -> Option<Range> {
        let memory = self.memory.iter().find(|m| m.usage.iter().any(|u| u == usage))?;
        Some(Range { start: memory.address, size: memory.size })
    }

    /// The text of `memory.x`: FLASH, RAM and ARENA, every memory without a use under its own name
    /// in capitals, and the bounds of arena and slot. `riscv` adds what riscv-rt asks for;
    /// `built_in` says that no model comes over the link.
    pub fn script(&self, riscv: bool, built_in: bool) -> Result<String, String> {
        let one = |usage: &str| self.memory(usage).ok_or(format!("no memory is for `{usage}`"));
        let (flash, mut ram, mut arena) = (one("code")?, one("data")?, one("arena")?);
        if one("weights")?.start != flash.start || one("stack")?.start != ram.start {
            return Err("code and weights, and stack and data, must share a memory".into());
        }
        if arena.start == ram.start {
            // Whole words of 32 bytes, a line of any cache here.
            let taken = (self.reserve.data_bytes + self.reserve.stack_bytes).next_multiple_of(32);
            if taken >= ram.size {
                return Err("stack and data leave nothing for the arena".into());
            }
            (ram, arena) = ram.split(taken);
        }
        let slot = match self.memory("slot") {
            Some(slot) => slot,
            None if built_in => Range { start: arena.start + arena.size, size: 0 },
            None => {
                let (first, rest) = arena.split((arena.size / 2).next_multiple_of(32));
                arena = first;
                rest
            }
        };
        let mut regions =
            vec![("FLASH".into(), flash), ("RAM".into(), ram), ("ARENA".into(), arena)];
        for memory in self.memory.iter().filter(|memory| memory.usage.is_empty()) {
            let name =
                memory.name.to_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
            regions.push((name, Range { start: memory.address, size: memory.size }));
        }
        let mut text =
            String::from("/* Written by jaq-board-build from the board file. */\nMEMORY\n{\n");
        for (name, Range { start, size }) in &regions {
            let _ = writeln!(text, "  {name} : ORIGIN = {start:#010x}, LENGTH = {size:#x}");
        }
        text += "}\n";
        if riscv {
            for (alias, region) in [
                ("TEXT", "FLASH"),
                ("RODATA", "FLASH"),
                ("DATA", "RAM"),
                ("BSS", "RAM"),
                ("HEAP", "RAM"),
                ("STACK", "RAM"),
            ] {
                let _ = writeln!(text, "REGION_ALIAS(\"REGION_{alias}\", {region});");
            }
            // The stack takes what variables leave.
            text += "_stack_end = __ebss;\n";
        }
        for (name, Range { start, size }) in [("arena", arena), ("slot", slot)] {
            let end = u64::from(start) + u64::from(size);
            let _ = writeln!(text, "_{name}_start = {start:#010x};\n_{name}_end = {end:#010x};");
        }
        Ok(text)
    }
}
