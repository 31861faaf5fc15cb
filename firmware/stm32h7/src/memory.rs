//! Caches and memory attributes of the STM32H743.
//!
//! Stack and variables, the probe's rings among them, lie in DTCM, which no cache covers; the arena
//! in AXI SRAM, cached write-back; code and weights in flash, cached write-through, as the default
//! map of the core has it (Armv7-M ARM, B3.1). Two regions of the memory protection unit: no
//! speculative access goes to where external memories would be (ST AN4838, 3.1), and the arena's
//! attributes are stated rather than inherited.

use cortex_m::peripheral::MPU;

unsafe extern "C" {
    // Of the memory map; only their addresses mean anything.
    static _arena_start: u32;
}

/// Log2 of the bytes of AXI SRAM.
const AXI_SRAM: u32 = 19;

// Fields of MPU_RASR (Armv7-M ARM, B3.5.9).
const ENABLE: u32 = 1;
const NO_EXECUTION: u32 = 1 << 28;
const FULL_ACCESS: u32 = 0b011 << 24;
/// TEX 1, C, B: normal memory, write-back, allocated by reads and writes.
const WRITE_BACK: u32 = 0b001 << 19 | 1 << 17 | 1 << 16;
/// Eighths of 4 GB the first region leaves alone: 0 to 0x5fffffff, and 0xe0000000 up.
const NOT_EXTERNAL: u32 = 0b1000_0111 << 8;

/// A region of `1 << log2` bytes.
const fn size(log2: u32) -> u32 {
    (log2 - 1) << 1
}

/// Sets the regions and switches the caches on.
pub fn start(core: &mut cortex_m::Peripherals) {
    let arena = &raw const _arena_start as u32;
    region(&core.MPU, 0, 0, NO_EXECUTION | NOT_EXTERNAL | size(32) | ENABLE);
    region(&core.MPU, 1, arena, NO_EXECUTION | FULL_ACCESS | WRITE_BACK | size(AXI_SRAM) | ENABLE);
    // SAFETY: every access of this firmware is to flash, TCM, AXI SRAM or peripherals, which the
    // default map and the regions allow; 4 keeps that map.
    unsafe { core.MPU.ctrl.write(4 | 1) };
    cortex_m::asm::dsb();
    cortex_m::asm::isb();
    core.SCB.enable_icache();
    core.SCB.enable_dcache(&mut core.CPUID);
}

fn region(mpu: &MPU, number: u32, base: u32, attributes: u32) {
    // SAFETY: the unit is still off.
    unsafe {
        mpu.rnr.write(number);
        mpu.rbar.write(base);
        mpu.rasr.write(attributes);
    }
}
