//! The loop of `bytes` for RISC-V cores with the PULP extensions as CV32E40P has them, in
//! assembly, and the requantization of outputs of 8 bits.
//!
//! Instructions by number, as compilers do not know them: CV32E40P user manual, "Instruction Set
//! Extensions" (post-increment load, hardware loop, `cv.sdotusp.b`: unsigned times signed bytes; `cv.addRN`,
//! `cv.clipu`).
//! Sixteen accumulators (`s0`-`s11`, `a4`-`a7`); `t0`-`t3`: activations; `t4`, `t5`: weights;
//! `a0`-`a3`: rows of weights; `ra`: where the activations come from; `t6`: rounds.

use core::arch::global_asm;

use super::store::{self, Pixels, Rule};
use super::{Accumulators, BLOCK, WORDS};

/// Arguments in the order of the assembly.
#[repr(C)]
struct Arguments {
    expanded: *const [u32; WORDS],
    /// Words of four positions; not 0.
    rounds: usize,
    weights: *const u8,
    /// Bytes of a row of weights.
    row: usize,
    out: *mut Accumulators,
}

unsafe extern "C" {
    fn jaq_xpulp_bytes(arguments: *const Arguments);
    fn jaq_xpulp_wide(
        acc: *const Accumulators,
        m: *const i32,
        b: *const i32,
        output: *mut u8,
        pixel_bytes: usize,
    );
}

/// As [`store::store`]; whole blocks of outputs of 8 bits in assembly.
pub fn store(rule: Rule, acc: &Accumulators, m: &[i32], b: &[i32], pixels: Pixels<'_>) {
    let Pixels { output, pixel_bytes, group } = pixels;
    let whole = output.len() >= (WORDS - 1) * pixel_bytes + BLOCK && pixel_bytes >= BLOCK;
    if rule != Rule::Wide || m.len() < BLOCK || b.len() < BLOCK || group != WORDS || !whole {
        return store::store(rule, acc, m, b, Pixels { output, pixel_bytes, group });
    }
    // SAFETY: the tables have a block's entries; of the output the routine writes `BLOCK` bytes at
    // `WORDS` places, `pixel_bytes` apart, which were found to lie in it; it keeps to the C calling
    // convention and its own frame.
    unsafe { jaq_xpulp_wide(acc, m.as_ptr(), b.as_ptr(), output.as_mut_ptr(), pixel_bytes) }
}

/// As the twin; nothing happens where a slice is too short.
pub fn block(expanded: &[[u32; WORDS]], weights: &[u8], out: &mut Accumulators) {
    let row = 4 * expanded.len();
    if expanded.is_empty() || weights.len() < BLOCK * row {
        return;
    }
    let (rounds, weights) = (expanded.len(), weights.as_ptr());
    let arguments = Arguments { expanded: expanded.as_ptr(), rounds, weights, row, out };
    // SAFETY: `expanded` has `rounds` entries and `weights` four rows of as many words, all of which
    // the routine reads and no more; it keeps to the C calling convention and its own frame.
    unsafe { jaq_xpulp_bytes(&arguments) }
}

global_asm!(
    r#"
    .option push
    .option arch, +m
    # A hardware loop has no compressed instructions.
    .option norvc

    .macro XP_LOAD word, pointer
    .insn i 0x0b, 2, \word, \pointer, 4
    .endm

    .macro XP_DOT sum, activations, weights
    .insn r 0x7b, 1, 0x50, \sum, \activations, \weights
    .endm

    .macro XP_DOTS a, b, c, d, weights
    XP_DOT \a, t0, \weights
    XP_DOT \b, t1, \weights
    XP_DOT \c, t2, \weights
    XP_DOT \d, t3, \weights
    .endm

    .section .text.jaq_xpulp_bytes,"ax",@progbits
    .p2align 2
    .global jaq_xpulp_bytes
    .type jaq_xpulp_bytes, @function
    jaq_xpulp_bytes:
    addi sp, sp, -64
    sw ra, 0(sp)
    sw s0, 4(sp)
    sw s1, 8(sp)
    sw s2, 12(sp)
    sw s3, 16(sp)
    sw s4, 20(sp)
    sw s5, 24(sp)
    sw s6, 28(sp)
    sw s7, 32(sp)
    sw s8, 36(sp)
    sw s9, 40(sp)
    sw s10, 44(sp)
    sw s11, 48(sp)
    lw ra, 0(a0)
    lw t6, 4(a0)
    lw t0, 12(a0)
    lw t1, 16(a0)
    lw a0, 8(a0)
    sw t1, 52(sp)
    add a1, a0, t0
    add a2, a1, t0
    add a3, a2, t0
    .irp sum, s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, a4, a5, a6, a7
    li \sum, 0
    .endr
    # Loop 0, t6 rounds of the next 24 instructions.
    .insn i 0x2b, 4, x14, t6, 25
    XP_LOAD t0, ra
    XP_LOAD t1, ra
    XP_LOAD t2, ra
    XP_LOAD t3, ra
    XP_LOAD t4, a0
    XP_LOAD t5, a1
    XP_DOTS s0, s1, s2, s3, t4
    XP_LOAD t4, a2
    XP_DOTS s4, s5, s6, s7, t5
    XP_LOAD t5, a3
    XP_DOTS s8, s9, s10, s11, t4
    XP_DOTS a4, a5, a6, a7, t5
    lw t4, 52(sp)
    sw s0, 0(t4)
    sw s1, 4(t4)
    sw s2, 8(t4)
    sw s3, 12(t4)
    sw s4, 32(t4)
    sw s5, 36(t4)
    sw s6, 40(t4)
    sw s7, 44(t4)
    sw s8, 64(t4)
    sw s9, 68(t4)
    sw s10, 72(t4)
    sw s11, 76(t4)
    sw a4, 96(t4)
    sw a5, 100(t4)
    sw a6, 104(t4)
    sw a7, 108(t4)
    lw ra, 0(sp)
    lw s0, 4(sp)
    lw s1, 8(sp)
    lw s2, 12(sp)
    lw s3, 16(sp)
    lw s4, 20(sp)
    lw s5, 24(sp)
    lw s6, 28(sp)
    lw s7, 32(sp)
    lw s8, 36(sp)
    lw s9, 40(sp)
    lw s10, 44(sp)
    lw s11, 48(sp)
    addi sp, sp, 64
    ret

    # ((acc + b) * m + 2^21) >> 22 by two products, the sum split at bit 10; limited to a byte.
    .macro XP_CODE sum, m, b
    add \sum, \sum, \b
    srai t6, \sum, 10
    andi \sum, \sum, 1023
    mul t6, t6, \m
    mul \sum, \sum, \m
    srai \sum, \sum, 10
    # cv.addRN sum, sum, t6, 12
    .insn r 0x5b, 2, 0x4c, \sum, \sum, t6
    # cv.clipu sum, sum, 9
    .insn r 0x2b, 3, 0x39, \sum, \sum, x9
    .endm

    .section .text.jaq_xpulp_wide,"ax",@progbits
    .p2align 2
    .global jaq_xpulp_wide
    .type jaq_xpulp_wide, @function
    jaq_xpulp_wide:
    addi sp, sp, -16
    sw s0, 0(sp)
    sw s1, 4(sp)
    sw s2, 8(sp)
    sw s3, 12(sp)
    lw t0, 0(a1)
    lw t1, 4(a1)
    lw t2, 8(a1)
    lw t3, 12(a1)
    lw a5, 0(a2)
    lw a6, 4(a2)
    lw a7, 8(a2)
    lw t4, 12(a2)
    .set XP_AT, 0
    .rept 4
    lw s0, XP_AT(a0)
    lw s1, XP_AT+32(a0)
    lw s2, XP_AT+64(a0)
    lw s3, XP_AT+96(a0)
    XP_CODE s0, t0, a5
    XP_CODE s1, t1, a6
    XP_CODE s2, t2, a7
    XP_CODE s3, t3, t4
    slli s1, s1, 8
    slli s2, s2, 16
    slli s3, s3, 24
    or s0, s0, s1
    or s2, s2, s3
    or s0, s0, s2
    sw s0, 0(a3)
    add a3, a3, a4
    .set XP_AT, XP_AT+4
    .endr
    lw s0, 0(sp)
    lw s1, 4(sp)
    lw s2, 8(sp)
    lw s3, 12(sp)
    addi sp, sp, 16
    ret
    .option pop
"#
);
