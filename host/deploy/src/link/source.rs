//! Addresses of a linked firmware as lines of its sources.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use addr2line::gimli::{Dwarf, EndianSlice, RunTimeEndian, SectionId};
use object::{Object, ObjectSection};

/// Bytes before an address in which an instruction with a line is looked for.
const BACK: u64 = 64;

/// The function and line an address of the firmware `elf` belongs to, as `file:line in function`.
///
/// `None` where the file knows nothing of it: an answer never fails what it was to explain.
pub fn locate(elf: &Path, address: u64) -> Option<String> {
    // The reader of debug information adds to addresses.
    address.checked_add(1)?;
    let bytes = fs::read(elf).ok()?;
    let file = object::File::parse(&*bytes).ok()?;
    let endian = if file.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
    let section = |id: SectionId| -> Result<Cow<'_, [u8]>, object::Error> {
        match file.section_by_name(id.name()) {
            Some(section) => section.uncompressed_data(),
            None => Ok(Cow::Borrowed(&[])),
        }
    };
    let sections = addr2line::gimli::DwarfSections::load(section).ok()?;
    let dwarf: Dwarf<EndianSlice<'_, RunTimeEndian>> =
        sections.borrow(|section| EndianSlice::new(section, endian));
    let context = addr2line::Context::from_dwarf(dwarf).ok()?;
    // Instructions that the compiler made up have no line: those before them do.
    let location = (0..=address.min(BACK)).step_by(2).find_map(|back| {
        let found = context.find_location(address - back).ok()??;
        (found.file.is_some() && found.line.is_some()).then_some(found)
    })?;
    let line = format!("{}:{}", tail(location.file?), location.line?);
    let mut frames = context.find_frames(address).skip_all_loads().ok()?;
    let function = frames.next().ok().flatten().and_then(|frame| frame.function);
    let name = function.as_ref().and_then(|function| function.demangle().ok());
    Some(match name {
        Some(name) => format!("{line} in {name}"),
        None => line,
    })
}

/// The end of a path that says enough: where sources lie differs between machines.
pub fn tail(path: &str) -> String {
    let parts: Vec<&str> = path.split(['/', '\\']).collect();
    parts[parts.len().saturating_sub(3)..].join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_finds_itself() {
        let program = std::env::current_exe().unwrap();
        let file = fs::read(&program).unwrap();
        let file = object::File::parse(&*file).unwrap();
        let symbol = object::Object::symbols(&file)
            .find(|symbol| {
                object::ObjectSymbol::name(symbol)
                    .is_ok_and(|n| n.contains("this_test_finds_itself"))
            })
            .unwrap();
        let line = locate(&program, object::ObjectSymbol::address(&symbol)).unwrap();
        assert!(line.contains("link/source.rs:"), "{line}");
        assert_eq!(locate(&program, u64::MAX), None);
        assert_eq!(locate(Path::new("no such file"), 0), None);
    }

    #[test]
    fn paths_are_cut_to_what_says_enough() {
        assert_eq!(tail("/home/someone/jaq/firmware/harness/src/serve.rs"), "harness/src/serve.rs");
        assert_eq!(tail("main.rs"), "main.rs");
    }
}
