//! The inner loops of [`super::portable`] for RV32IM, in assembly.
//!
//! All rows of weights meet four words of activations at once: sixteen accumulators (`s0`-`s11`,
//! `a4`-`a7`), eight for Quad. `t0`-`t3`: activations; `t4`: weight; `t5`: product; `t6`, `a1`-`a3`:
//! packed weights; `a0`: where they come from; `ra`: where the activations do.
//!
//! Frame: 64 bytes of sums (Quad), the variables named below, the registers of the caller.

use core::arch::global_asm;

use super::call::Arguments;
use super::scheme::{Plan, Scheme};
use super::{Accumulators, WORDS};

unsafe extern "C" {
    fn jaq_rv_quad_2(arguments: *const Arguments);
    fn jaq_rv_quad_4(arguments: *const Arguments);
    fn jaq_rv_pair_2(arguments: *const Arguments);
    fn jaq_rv_pair_4(arguments: *const Arguments);
    fn jaq_rv_pair_8(arguments: *const Arguments);
    fn jaq_rv_single(arguments: *const Arguments);
}

/// As the twin; nothing happens where a slice is too short.
pub fn block(
    plan: &Plan,
    expanded: &[[u32; WORDS]],
    start: &[u32; WORDS],
    weights: &[u8],
    out: &mut Accumulators,
) {
    let Some(arguments) = Arguments::new(plan, expanded, start, weights, out) else { return };
    let routine = match plan.scheme {
        Scheme::Quad { stored: 2, .. } => jaq_rv_quad_2,
        Scheme::Quad { .. } => jaq_rv_quad_4,
        Scheme::Pair { stored: 2, .. } => jaq_rv_pair_2,
        Scheme::Pair { stored: 4, .. } => jaq_rv_pair_4,
        Scheme::Pair { .. } => jaq_rv_pair_8,
        Scheme::Single => jaq_rv_single,
    };
    // SAFETY: `Arguments` checked every length that the loops run over; the routine keeps to the
    // C calling convention, aligned words and its own frame.
    unsafe { routine(&arguments) }
}

global_asm!(
    r#"
    # The assembler does not know the target's extensions.
    .option push
    .option arch, +m, +c

    .equ RV_SUMS, 0
    .equ RV_END, 64
    .equ RV_ROW, 68
    .equ RV_CHUNK, 72
    .equ RV_OUT, 76
    .equ RV_CHUNK_END, 80
    .equ RV_SAVED, 84
    .equ RV_FRAME, 144

    .macro RV_ROUTINE name
    .section .text.\name,"ax",@progbits
    .p2align 2
    .global \name
    .type \name, @function
    \name:
    addi sp, sp, -RV_FRAME
    sw ra, RV_SAVED(sp)
    sw s0, RV_SAVED+4(sp)
    sw s1, RV_SAVED+8(sp)
    sw s2, RV_SAVED+12(sp)
    sw s3, RV_SAVED+16(sp)
    sw s4, RV_SAVED+20(sp)
    sw s5, RV_SAVED+24(sp)
    sw s6, RV_SAVED+28(sp)
    sw s7, RV_SAVED+32(sp)
    sw s8, RV_SAVED+36(sp)
    sw s9, RV_SAVED+40(sp)
    sw s10, RV_SAVED+44(sp)
    sw s11, RV_SAVED+48(sp)
    lw ra, 0(a0)
    lw t0, 4(a0)
    lw t1, 12(a0)
    lw t2, 16(a0)
    lw t3, 20(a0)
    lw t4, 24(a0)
    lw a0, 8(a0)
    sw t0, RV_END(sp)
    sw t1, RV_ROW(sp)
    sw t2, RV_CHUNK(sp)
    sw t4, RV_OUT(sp)
    .endm

    .macro RV_RETURN
    lw ra, RV_SAVED(sp)
    lw s0, RV_SAVED+4(sp)
    lw s1, RV_SAVED+8(sp)
    lw s2, RV_SAVED+12(sp)
    lw s3, RV_SAVED+16(sp)
    lw s4, RV_SAVED+20(sp)
    lw s5, RV_SAVED+24(sp)
    lw s6, RV_SAVED+28(sp)
    lw s7, RV_SAVED+32(sp)
    lw s8, RV_SAVED+36(sp)
    lw s9, RV_SAVED+40(sp)
    lw s10, RV_SAVED+44(sp)
    lw s11, RV_SAVED+48(sp)
    addi sp, sp, RV_FRAME
    ret
    .endm

    .macro RV_CHUNK_START
    lw t0, RV_CHUNK(sp)
    lw t1, RV_END(sp)
    add t0, t0, ra
    bleu t0, t1, 7f
    mv t0, t1
7:
    sw t0, RV_CHUNK_END(sp)
    .endm

    .macro RV_ZERO accs:vararg
    .irp acc, \accs
    li \acc, 0
    .endr
    .endm

    .macro RV_ACTIVATIONS offset
    lw t0, \offset(ra)
    lw t1, \offset+4(ra)
    lw t2, \offset+8(ra)
    lw t3, \offset+12(ra)
    .endm

    .macro RV_MULTIPLY a, b, c, d
    mul t5, t0, t4
    add \a, \a, t5
    mul t5, t1, t4
    add \b, \b, t5
    mul t5, t2, t4
    add \c, \c, t5
    mul t5, t3, t4
    add \d, \d, t5
    .endm

    .macro RV_SIGNED packed, stored, index
    .if 32-\stored*(\index+1) == 0
    srai t4, \packed, 32-\stored
    .else
    slli t4, \packed, 32-\stored*(\index+1)
    srai t4, t4, 32-\stored
    .endif
    .endm

    .macro RV_POSITION stored, index
    RV_ACTIVATIONS 16*\index
    RV_SIGNED t6, \stored, \index
    RV_MULTIPLY s0, s1, s2, s3
    RV_SIGNED a1, \stored, \index
    RV_MULTIPLY s4, s5, s6, s7
    RV_SIGNED a2, \stored, \index
    RV_MULTIPLY s8, s9, s10, s11
    RV_SIGNED a3, \stored, \index
    RV_MULTIPLY a4, a5, a6, a7
    .endm

    .macro RV_UNIT stored, indices:vararg
    lw t4, RV_ROW(sp)
    lw t6, 0(a0)
    add t5, a0, t4
    lw a1, 0(t5)
    add t5, t5, t4
    lw a2, 0(t5)
    add t5, t5, t4
    lw a3, 0(t5)
    addi a0, a0, 4
    .irp index, \indices
    RV_POSITION \stored, \index
    .endr
    addi ra, ra, 512/\stored
    .endm

    .macro RV_FOUR_ROWS stored, indices:vararg
1:
    RV_CHUNK_START
    RV_ZERO s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, a4, a5, a6, a7
2:
    RV_UNIT \stored, \indices
    lw t5, RV_CHUNK_END(sp)
    beq ra, t5, 3f
    j 2b
3:
    lw t4, RV_OUT(sp)
    .endm

    .macro RV_EXTRACT_PAIR acc, at
    slli t5, \acc, 16
    srai t5, t5, 16
    sub \acc, \acc, t5
    srai \acc, \acc, 16
    lw t0, \at(t4)
    lw t1, \at+4(t4)
    add t0, t0, t5
    add t1, t1, \acc
    sw t0, \at(t4)
    sw t1, \at+4(t4)
    .endm

    .macro RV_EXTRACT_PAIRS at, accs:vararg
    .set RV_AT, \at
    .irp acc, \accs
    RV_EXTRACT_PAIR \acc, RV_AT
    .set RV_AT, RV_AT+8
    .endr
    .endm

    .macro RV_PAIR stored, indices:vararg
    .set RV_AT, 0
    .rept 32
    sw zero, RV_AT(t4)
    .set RV_AT, RV_AT+4
    .endr
    RV_FOUR_ROWS \stored, \indices
    RV_EXTRACT_PAIRS 0, s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, a4, a5, a6, a7
    lw t5, RV_END(sp)
    beq ra, t5, 4f
    j 1b
4:
    RV_RETURN
    .endm

    RV_ROUTINE jaq_rv_pair_2
    RV_PAIR 2, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    RV_ROUTINE jaq_rv_pair_4
    RV_PAIR 4, 0, 1, 2, 3, 4, 5, 6, 7
    RV_ROUTINE jaq_rv_pair_8
    RV_PAIR 8, 0, 1, 2, 3

    .macro RV_PUT at, accs:vararg
    .set RV_AT, \at
    .irp acc, \accs
    sw \acc, RV_AT(t4)
    .set RV_AT, RV_AT+4
    .endr
    .endm

    RV_ROUTINE jaq_rv_single
    RV_FOUR_ROWS 8, 0, 1, 2, 3
    RV_PUT 0, s0, s1, s2, s3
    RV_PUT 32, s4, s5, s6, s7
    RV_PUT 64, s8, s9, s10, s11
    RV_PUT 96, a4, a5, a6, a7
    RV_RETURN

    # Quad: rows in t6 and a1, mask of two weights in a4, of two fields in a5.
    .macro RV_MASKED packed, shift
    .if \shift == 0
    and t4, \packed, a4
    .else
    srli t4, \packed, \shift
    and t4, t4, a4
    .endif
    .endm

    .macro RV_FIELDS acc, at
    and t0, \acc, a5
    srli t1, \acc, 8
    and t1, t1, a5
    lw t2, \at(sp)
    lw t3, \at+4(sp)
    add t2, t2, t0
    add t3, t3, t1
    sw t2, \at(sp)
    sw t3, \at+4(sp)
    .endm

    .macro RV_QUAD stored, mask, shifts:vararg
    .set RV_AT, 0
    .rept 4
    lw t0, RV_AT(t3)
    sw t0, RV_SUMS+2*RV_AT(sp)
    sw t0, RV_SUMS+2*RV_AT+4(sp)
    sw t0, RV_SUMS+2*RV_AT+32(sp)
    sw t0, RV_SUMS+2*RV_AT+36(sp)
    .set RV_AT, RV_AT+4
    .endr
    li a4, \mask
    li a5, 0x00ff00ff
1:
    RV_CHUNK_START
    RV_ZERO s0, s1, s2, s3, s4, s5, s6, s7
2:
    lw t4, RV_ROW(sp)
    lw t6, 0(a0)
    add t5, a0, t4
    lw a1, 0(t5)
    addi a0, a0, 4
    .set RV_AT, 0
    .irp shift, \shifts
    RV_ACTIVATIONS RV_AT
    RV_MASKED t6, \shift
    RV_MULTIPLY s0, s1, s2, s3
    RV_MASKED a1, \shift
    RV_MULTIPLY s4, s5, s6, s7
    .set RV_AT, RV_AT+16
    .endr
    addi ra, ra, 256/\stored
    lw t5, RV_CHUNK_END(sp)
    bne ra, t5, 2b
    .set RV_AT, 0
    .irp acc, s0, s1, s2, s3, s4, s5, s6, s7
    RV_FIELDS \acc, RV_AT
    .set RV_AT, RV_AT+8
    .endr
    lw t5, RV_END(sp)
    bne ra, t5, 1b
    # Words of both channels' pairs to one accumulator a pixel.
    lw t4, RV_OUT(sp)
    .set RV_AT, 0
    .rept 8
    lw t0, RV_AT(sp)
    lw t1, RV_AT+4(sp)
    srli t2, t0, 16
    slli t0, t0, 16
    srli t0, t0, 16
    srli t3, t1, 16
    slli t1, t1, 16
    srli t1, t1, 16
    sw t0, RV_AT+RV_AT/32*32(t4)
    sw t2, RV_AT+RV_AT/32*32+4(t4)
    sw t1, RV_AT+RV_AT/32*32+32(t4)
    sw t3, RV_AT+RV_AT/32*32+36(t4)
    .set RV_AT, RV_AT+8
    .endr
    RV_RETURN
    .endm

    RV_ROUTINE jaq_rv_quad_2
    RV_QUAD 2, 0x0303, 0, 2, 4, 6, 16, 18, 20, 22
    RV_ROUTINE jaq_rv_quad_4
    RV_QUAD 4, 0x0f0f, 0, 4, 16, 20
    .option pop
"#
);
