//! Turns the defmt log of a device into lines of text, with the strings its ELF file holds.

use std::fs;
use std::path::Path;

use defmt_decoder::{DecodeError, Table};

/// Every complete message of `log`, oldest first, as `level message`.
///
/// A firmware without a defmt table, or bytes that do not decode, give no lines: a log never
/// fails what it was to explain.
pub fn lines(elf: &Path, log: &[u8]) -> Vec<String> {
    let table = fs::read(elf).ok().and_then(|elf| Table::parse(&elf).ok().flatten());
    let Some(table) = table else { return Vec::new() };
    let mut decoder = table.new_stream_decoder();
    decoder.received(log);
    let mut lines = Vec::new();
    loop {
        match decoder.decode() {
            Ok(frame) => {
                let level = frame.level().map_or("log", |level| level.as_str());
                lines.push(format!("{level} {}", frame.display_message()));
            }
            Err(DecodeError::UnexpectedEof) => return lines,
            Err(DecodeError::Malformed) if table.encoding().can_recover() => {}
            Err(DecodeError::Malformed) => return lines,
        }
    }
}
