//! Every firmware against its board file: what cannot be run here is built and inspected.

mod emulator;

use std::fs;

use jaq_cost::Mcu;
use jaq_deploy::firmware::{self, TARGETS};
use jaq_deploy::inspect::inspect;

#[test]
fn every_firmware_lies_where_its_board_file_says() {
    for target in TARGETS {
        if let Some(reason) = emulator::missing(target) {
            emulator::skip(&format!("the firmware of {}", target.board), &reason);
            continue;
        }
        // The build inspects what it has linked.
        let built = firmware::build_open(target.board).unwrap();
        let board = Mcu::load(target.board).unwrap();
        let (parts, layout) = (built.parts, built.layout);
        assert!(parts.code_bytes() <= board.reserve.code_bytes as usize, "{parts:?}");
        assert!(parts.variables <= board.reserve.data_bytes as usize, "{}: {parts:?}", board.name);
        // Without a model there is room for one.
        assert!(layout.slot_bytes >= 32 * 1024 && layout.arena_bytes >= 32 * 1024, "{layout:?}");
        assert!(layout.stack_bytes >= u64::from(board.reserve.stack_bytes), "{layout:?}");
    }
}

#[test]
fn a_firmware_of_another_board_is_noticed() {
    if let Some(reason) = emulator::missing(firmware::target("nrf52840").unwrap()) {
        return emulator::skip("a_firmware_of_another_board_is_noticed", &reason);
    }
    let built = firmware::build_open("nrf52840").unwrap();
    let file = fs::read(built.elf).unwrap();
    let board = Mcu::load("nrf52840").unwrap();
    inspect(&board, &file).unwrap();
    let refusal = |change: fn(&mut Mcu)| {
        let mut board = board.clone();
        change(&mut board);
        inspect(&board, &file).unwrap_err()
    };
    let error = refusal(|board| board.memory[0].address = 0x0800_0000);
    assert!(error.contains("outside `flash`"), "{error}");
    let error = refusal(|board| board.memory[0].size = 4096);
    assert!(error.contains("outside `flash`"), "{error}");
    let error = refusal(|board| board.memory[1].size = 0x4000);
    assert!(error.contains("the stack is 0x2000"), "{error}");
    let error = refusal(|board| board.memory[1].size -= 4);
    assert!(error.contains("the slot"), "{error}");
    let error = refusal(|board| board.reserve.stack_bytes = 1 << 20);
    assert!(error.contains("of stack"), "{error}");
    // The stack pointer in the vector table.
    let mut other = file.clone();
    let table = other.windows(4).position(|w| w == 0x2000_6000_u32.to_le_bytes()).unwrap();
    other[table] ^= 0x10;
    let error = inspect(&board, &other).unwrap_err();
    assert!(error.contains("vector table says 0x20006010"), "{error}");
}
