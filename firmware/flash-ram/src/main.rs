//! The flash algorithm of emulated boards: a debug probe loads it into RAM and calls it on the core
//! to erase and program, as it does on every chip. There the flash is memory like any other.
//!
//! Assembly for every Cortex-M, so that its bytes do not depend on the compiler: they stand in
//! `boards/targets/mps2.yaml`, and a test holds both together. Routines and registers are those of
//! Arm's CMSIS pack specification, "Flash programming algorithms".
#![no_std]
#![no_main]

core::arch::global_asm!(
    r#"
    .syntax unified
    .thumb
    .section .algorithm, "ax"

    // Init(address, clock, operation), UnInit(operation): nothing to unlock.
    .global Init, UnInit, EraseSector, ProgramPage
    .thumb_func
Init:
    .thumb_func
UnInit:
    movs r0, #0
    bx lr

    // EraseSector(address): 4 KiB of ones.
    .thumb_func
EraseSector:
    movs r1, #0
    mvns r1, r1
    movs r2, #1
    lsls r2, r2, #12
1:  subs r2, r2, #4
    str r1, [r0, r2]
    bne 1b
    movs r0, #0
    bx lr

    // ProgramPage(address, bytes, data): whole words, backwards.
    .thumb_func
ProgramPage:
    adds r1, r1, #3
    lsrs r1, r1, #2
    lsls r1, r1, #2
    beq 2f
1:  subs r1, r1, #4
    ldr r3, [r2, r1]
    str r3, [r0, r1]
    bne 1b
2:  movs r0, #0
    bx lr
    .align 2
"#
);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
