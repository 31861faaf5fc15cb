//! Inspection of a linked firmware against its board file: every loaded byte in flash, stack,
//! variables and arena in the memories that the file names, and a beginning that the core can
//! start from. What cannot be run here is at least known to lie where it must.
//!
//! Must not know how a firmware is built or run.

use jaq_cost::{Mcu, Memory, Use};
use object::{Endianness, Object, ObjectSection, ObjectSymbol, elf};

/// Where a firmware has its memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// RAM the stack may take.
    pub stack_bytes: u64,
    /// RAM for tensors and raw input.
    pub arena_bytes: u64,
    /// RAM for a model that comes over the link.
    pub slot_bytes: u64,
}

/// Holds a linked firmware against its board file; the error names what lies wrong.
pub fn inspect(board: &Mcu, file: &[u8]) -> Result<Layout, String> {
    let fail = |error: object::Error| error.to_string();
    let object::File::Elf32(parsed) = object::File::parse(file).map_err(fail)? else {
        return Err("no ELF file of 32 bits".into());
    };
    let flash = board.memory(Use::Code);
    let data = board.memory(Use::Data);
    let boot = board.memory.iter().find(|memory| memory.name == "boot2");
    for segment in parsed.elf_program_headers() {
        let (virt, phys) =
            (segment.p_vaddr.get(Endianness::Little), segment.p_paddr.get(Endianness::Little));
        let in_file = segment.p_filesz.get(Endianness::Little);
        let in_memory = segment.p_memsz.get(Endianness::Little);
        if segment.p_type.get(Endianness::Little) != elf::PT_LOAD || in_memory == 0 {
            continue;
        }
        if in_file > 0
            && ![Some(flash), boot].into_iter().flatten().any(|m| holds(m, phys, in_file))
        {
            return Err(format!(
                "{in_file} bytes are loaded at {phys:#010x}, outside `{}`",
                flash.name
            ));
        }
        if ![flash, data].into_iter().chain(boot).any(|m| holds(m, virt, in_memory)) {
            return Err(format!(
                "{in_memory} bytes run at {virt:#010x}, outside every memory in use"
            ));
        }
    }

    let symbol = |name: &str| {
        let found = parsed.symbols().find(|symbol| symbol.name() == Ok(name));
        found.map(|symbol| symbol.address()).ok_or(format!("there is no symbol `{name}`"))
    };
    let span = |name: &str, start: u64, end: u64, usage: Use| {
        let memory = board.memory(usage);
        let size = end.checked_sub(start).filter(|_| start.is_multiple_of(4));
        match size {
            Some(0) => Ok(0),
            Some(size) if holds(memory, start as u32, size as u32) => Ok(size),
            _ => Err(format!("{name} is {start:#010x} to {end:#010x}, outside `{}`", memory.name)),
        }
    };
    let (low, high) = (symbol("_stack_end")?, symbol("_stack_start")?);
    let arena = (symbol("_arena_start")?, symbol("_arena_end")?);
    let slot = (symbol("_slot_start")?, symbol("_slot_end")?);
    let slot_bytes = slot.1.saturating_sub(slot.0);
    let layout = Layout {
        stack_bytes: span("the stack", low.next_multiple_of(4), high, Use::Stack)?,
        arena_bytes: span("the arena", arena.0, arena.1, Use::Arena)?,
        slot_bytes,
    };
    if slot_bytes > 0
        && !board.memory.iter().any(|memory| holds(memory, slot.0 as u32, slot_bytes as u32))
    {
        return Err(format!(
            "the slot is {:#010x} to {:#010x}, outside every memory",
            slot.0, slot.1
        ));
    }
    let reserve = &board.reserve;
    if layout.stack_bytes < u64::from(reserve.stack_bytes) {
        let Layout { stack_bytes, .. } = layout;
        return Err(format!(
            "variables leave {stack_bytes} bytes of stack, the board file reserves {}",
            reserve.stack_bytes
        ));
    }
    if let Ok(rings) = symbol("_SEGGER_RTT")
        && !holds(data, rings as u32, 1)
    {
        return Err(format!("the probe's rings at {rings:#010x} lie outside `{}`", data.name));
    }
    start(board, &parsed, high)?;
    Ok(layout)
}

/// The vector table of a Cortex-M, or the entry point of another core; and the boot block.
fn start(board: &Mcu, parsed: &object::read::elf::ElfFile32<'_>, stack: u64) -> Result<(), String> {
    let section = |name: &str| {
        let section = parsed.section_by_name(name)?;
        Some((section.address(), section.data().ok()?))
    };
    let flash = board.memory(Use::Code);
    let entry = parsed.entry();
    if !holds(flash, entry as u32, 2) {
        return Err(format!("the entry point {entry:#010x} lies outside `{}`", flash.name));
    }
    if board.core.target.starts_with("thumb") {
        let (address, table) = section(".vector_table").ok_or("there is no vector table")?;
        if address != u64::from(flash.address) {
            return Err(format!(
                "the vector table is at {address:#010x}, not at the start of `{}`",
                flash.name
            ));
        }
        let word = |index: usize| {
            let bytes = table.get(index * 4..).and_then(|rest| rest.first_chunk());
            bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        if u64::from(word(0)) != stack {
            return Err(format!(
                "the stack starts at {stack:#010x}, the vector table says {:#010x}",
                word(0)
            ));
        }
        // Reset, and the exceptions that every core has: NMI, HardFault, SVCall, PendSV, SysTick.
        for index in [1, 2, 3, 11, 14, 15] {
            let handler = word(index);
            if handler.is_multiple_of(2) || !holds(flash, handler - 1, 2) {
                return Err(format!(
                    "vector {index} is {handler:#010x}: no Thumb code in `{}`",
                    flash.name
                ));
            }
        }
    }
    if board.memory.iter().any(|memory| memory.name == "boot2") {
        let (_, block) = section(".boot2").ok_or("there is no second boot stage")?;
        let sum = block.get(..252).map(boot_checksum);
        let written = block.last_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        if block.len() != 256 || sum != written {
            return Err("the boot ROM will refuse the second stage: its checksum is wrong".into());
        }
    }
    Ok(())
}

fn holds(memory: &Memory, address: u32, size: u32) -> bool {
    let end = u64::from(address) + u64::from(size);
    address >= memory.address && end <= u64::from(memory.address) + u64::from(memory.size)
}

/// CRC-32 of the RP2040's boot ROM (RP2040 data sheet, 2.8.1.3.1): polynomial 0x04c11db7, all ones
/// first, neither reflected nor inverted.
fn boot_checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            let carry = crc >> 31;
            (crc << 1) ^ (carry * 0x04c1_1db7)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_checksum_is_that_of_the_catalogue() {
        // CRC-32/MPEG-2 of "123456789".
        assert_eq!(boot_checksum(b"123456789"), 0x0376_e6e7);
    }

    #[test]
    fn what_is_no_firmware_is_refused() {
        let board = Mcu::load("stm32h7").unwrap();
        assert!(inspect(&board, b"\x7fELF, but not for long").is_err());
        assert!(inspect(&board, &[]).is_err());
    }
}
