//! What the firmware's linker scripts say of memory is what the board files say.

use std::fs;
use std::path::Path;

use jaq_cost::{Kind, Mcu, names};
use jaq_deploy::firmware::{TARGETS, folder};

/// `(name, origin, length)` of every region of a linker script.
fn regions(script: &str) -> Vec<(String, u64, u64)> {
    let number = |text: &str| {
        let text = text.trim();
        match (text.strip_prefix("0x"), text.strip_suffix('M'), text.strip_suffix('K')) {
            (Some(hex), _, _) => u64::from_str_radix(hex, 16).unwrap(),
            (_, Some(mega), _) => mega.parse::<u64>().unwrap() << 20,
            (_, _, Some(kilo)) => kilo.parse::<u64>().unwrap() << 10,
            _ => text.parse().unwrap(),
        }
    };
    let parse = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let (origin, length) = rest.split_once("LENGTH =")?;
        let origin = origin.trim().strip_prefix("ORIGIN =")?.trim_end_matches([',', ' ']);
        Some((name.trim().to_owned(), number(origin), number(length)))
    };
    script.lines().filter_map(parse).collect()
}

#[test]
fn memory_maps_lie_within_the_memories_of_their_boards() {
    let mut checked = 0;
    for target in TARGETS.iter().filter(|t| names(Some(Kind::Mcu)).contains(&t.board)) {
        let board = Mcu::load(target.board).unwrap();
        assert_eq!(board.core.target, target.triple);
        assert_eq!(board.links.qemu.as_deref(), target.machine);
        let path = folder().unwrap().join(Path::new(target.board)).join("memory.x");
        let regions = regions(&fs::read_to_string(&path).unwrap());
        assert!(regions.len() >= 3, "{path:?}: {regions:?}");
        for (name, origin, length) in regions {
            let inside = board.memory.iter().any(|memory| {
                let start = u64::from(memory.address);
                (start..=start + u64::from(memory.size)).contains(&origin)
                    && origin + length <= start + u64::from(memory.size)
            });
            assert!(inside, "{path:?}: {name} lies in no memory of the board file");
            checked += 1;
        }
    }
    assert!(checked >= 4);
}
