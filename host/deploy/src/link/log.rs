//! Turns the defmt log of a device into lines of text, with the strings and source lines its ELF
//! file holds.

use std::fs;
use std::path::Path;

use defmt_decoder::{DecodeError, Table};

use super::source;

/// Every complete message of `log`, oldest first, as `level message (file:line)`; without the
/// place where the file has no debug information.
///
/// A firmware without a defmt table, or bytes that do not decode, give no lines: a log never
/// fails what it was to explain.
pub fn lines(elf: &Path, log: &[u8]) -> Vec<String> {
    let Ok(elf) = fs::read(elf) else { return Vec::new() };
    let Ok(Some(table)) = Table::parse(&elf) else { return Vec::new() };
    let places = table.get_locations(&elf).unwrap_or_default();
    let mut decoder = table.new_stream_decoder();
    decoder.received(log);
    let mut lines = Vec::new();
    loop {
        match decoder.decode() {
            Ok(frame) => {
                let level = frame.level().map_or("log", |level| level.as_str());
                let place = places.get(&frame.index()).map_or_else(String::new, |place| {
                    format!(" ({}:{})", source::tail(&place.file.to_string_lossy()), place.line)
                });
                lines.push(format!("{level} {}{place}", frame.display_message()));
            }
            Err(DecodeError::UnexpectedEof) => return lines,
            Err(DecodeError::Malformed) if table.encoding().can_recover() => {}
            Err(DecodeError::Malformed) => return lines,
        }
    }
}
