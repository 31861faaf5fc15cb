//! The inner loops of [`super::portable`] for Armv6-M, in assembly.
//!
//! `MULS` destroys an operand, so one weight meets four words of activations that are used once:
//! a position is one `LDMIA`, two instructions for the weight, and a `MULS` with an `ADD` a word.
//! Accumulators lie in `r8`-`r11`, which `ADD` reaches.
//!
//! Frame: 32 bytes of sums (Quad), then the variables named below.

use core::arch::global_asm;

use super::call::Arguments;
use super::scheme::{Plan, Scheme};
use super::{Accumulators, WORDS};

unsafe extern "C" {
    fn jaq_v6m_quad_2(arguments: *const Arguments);
    fn jaq_v6m_quad_4(arguments: *const Arguments);
    fn jaq_v6m_pair_2(arguments: *const Arguments);
    fn jaq_v6m_pair_4(arguments: *const Arguments);
    fn jaq_v6m_pair_8(arguments: *const Arguments);
    fn jaq_v6m_single(arguments: *const Arguments);
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
        Scheme::Quad { stored: 2, .. } => jaq_v6m_quad_2,
        Scheme::Quad { .. } => jaq_v6m_quad_4,
        Scheme::Pair { stored: 2, .. } => jaq_v6m_pair_2,
        Scheme::Pair { stored: 4, .. } => jaq_v6m_pair_4,
        Scheme::Pair { .. } => jaq_v6m_pair_8,
        Scheme::Single => jaq_v6m_single,
    };
    // SAFETY: `Arguments` checked every length that the loops run over; the routine keeps to the
    // C calling convention, aligned words and its own frame.
    unsafe { routine(&arguments) }
}

global_asm!(
    r#"
    .syntax unified
    .thumb

    .equ V6_SUMS, 0
    .equ V6_EXPANDED, 32
    .equ V6_END, 36
    .equ V6_WEIGHTS, 40
    .equ V6_ROW, 44
    .equ V6_CHUNK, 48
    .equ V6_START, 52
    .equ V6_OUT, 56
    .equ V6_LEFT, 60
    .equ V6_FRAME, 64

    .macro V6_ROUTINE name, rows
    .section .text.\name,"ax",%progbits
    .p2align 2
    .global \name
    .type \name, %function
    .thumb_func
    \name:
    push {{r4-r7, lr}}
    mov r4, r8
    mov r5, r9
    mov r6, r10
    mov r7, r11
    push {{r4-r7}}
    sub sp, #V6_FRAME
    ldmia r0!, {{r1-r7}}
    add r0, sp, #V6_EXPANDED
    stmia r0!, {{r1-r7}}
    movs r1, #\rows
    str r1, [sp, #V6_LEFT]
    .endm

    .macro V6_RETURN
    add sp, #V6_FRAME
    pop {{r4-r7}}
    mov r8, r4
    mov r9, r5
    mov r10, r6
    mov r11, r7
    pop {{r4-r7, pc}}
    .endm

    @ Accumulators to zero, and the end of the chunk to r12.
    .macro V6_CHUNK_START
    movs r1, #0
    mov r8, r1
    mov r9, r1
    mov r10, r1
    mov r11, r1
    ldr r1, [sp, #V6_CHUNK]
    ldr r2, [sp, #V6_END]
    adds r1, r1, r0
    cmp r1, r2
    bls 7f
    mov r1, r2
7:
    mov r12, r1
    .endm

    @ r5: weight; r0: activations.
    .macro V6_POSITION
    ldmia r0!, {{r1-r4}}
    muls r1, r5, r1
    muls r2, r5, r2
    muls r3, r5, r3
    muls r4, r5, r4
    add r8, r1
    add r9, r2
    add r10, r3
    add r11, r4
    .endm

    .macro V6_SIGNED stored, index
    .if 32-\stored*(\index+1) == 0
    asrs r5, r6, #32-\stored
    .elseif \stored == 8 && \index == 0
    sxtb r5, r6
    .else
    lsls r5, r6, #32-\stored*(\index+1)
    asrs r5, r5, #32-\stored
    .endif
    V6_POSITION
    .endm

    .macro V6_UNIT_2
    .irp index, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    V6_SIGNED 2, \index
    .endr
    .endm
    .macro V6_UNIT_4
    .irp index, 0, 1, 2, 3, 4, 5, 6, 7
    V6_SIGNED 4, \index
    .endr
    .endm
    .macro V6_UNIT_8
    .irp index, 0, 1, 2, 3
    V6_SIGNED 8, \index
    .endr
    .endm

    @ Two pixels a word: r7 packed weights, r6 a word of them.
    .macro V6_EXTRACT_PAIR acc
    mov r1, \acc
    sxth r2, r1
    subs r1, r1, r2
    asrs r1, r1, #16
    ldr r3, [r5]
    ldr r4, [r5, #4]
    adds r3, r3, r2
    adds r4, r4, r1
    stmia r5!, {{r3, r4}}
    .endm

    .macro V6_PAIR unit
    ldr r5, [sp, #V6_OUT]
    movs r1, #0
    movs r2, #0
    movs r3, #0
    movs r4, #0
    .rept 8
    stmia r5!, {{r1-r4}}
    .endr
    ldr r7, [sp, #V6_WEIGHTS]
1:
    ldr r0, [sp, #V6_EXPANDED]
2:
    V6_CHUNK_START
3:
    ldmia r7!, {{r6}}
    \unit
    cmp r0, r12
    beq 4f
    b 3b
4:
    ldr r5, [sp, #V6_OUT]
    V6_EXTRACT_PAIR r8
    V6_EXTRACT_PAIR r9
    V6_EXTRACT_PAIR r10
    V6_EXTRACT_PAIR r11
    ldr r1, [sp, #V6_END]
    cmp r0, r1
    beq 5f
    b 2b
5:
    str r5, [sp, #V6_OUT]
    ldr r1, [sp, #V6_LEFT]
    subs r1, #1
    str r1, [sp, #V6_LEFT]
    beq 6f
    b 1b
6:
    V6_RETURN
    .endm

    V6_ROUTINE jaq_v6m_pair_2, 4
    V6_PAIR V6_UNIT_2
    V6_ROUTINE jaq_v6m_pair_4, 4
    V6_PAIR V6_UNIT_4
    V6_ROUTINE jaq_v6m_pair_8, 4
    V6_PAIR V6_UNIT_8

    @ One pixel a word.
    V6_ROUTINE jaq_v6m_single, 4
    ldr r7, [sp, #V6_WEIGHTS]
1:
    ldr r0, [sp, #V6_EXPANDED]
    V6_CHUNK_START
3:
    ldmia r7!, {{r6}}
    V6_UNIT_8
    cmp r0, r12
    bne 3b
    ldr r5, [sp, #V6_OUT]
    mov r1, r8
    mov r2, r9
    mov r3, r10
    mov r4, r11
    stmia r5!, {{r1-r4}}
    adds r5, #16
    str r5, [sp, #V6_OUT]
    ldr r1, [sp, #V6_LEFT]
    subs r1, #1
    str r1, [sp, #V6_LEFT]
    bne 1b
    V6_RETURN

    @ Two channels a weight word. lr: packed weights; r7: mask of two weights.
    .macro V6_FIELDS acc
    mov r1, \acc
    lsrs r2, r1, #8
    ands r1, r7
    ands r2, r7
    ldr r3, [r5]
    ldr r4, [r5, #4]
    adds r3, r3, r1
    adds r4, r4, r2
    stmia r5!, {{r3, r4}}
    .endm

    .macro V6_MASKED shift
    lsrs r5, r6, #\shift
    ands r5, r7
    V6_POSITION
    .endm

    .macro V6_MASKS_2
    mov r5, r6
    ands r5, r7
    V6_POSITION
    .irp shift, 2, 4, 6, 16, 18, 20, 22
    V6_MASKED \shift
    .endr
    .endm
    .macro V6_MASKS_4
    mov r5, r6
    ands r5, r7
    V6_POSITION
    .irp shift, 4, 16, 20
    V6_MASKED \shift
    .endr
    .endm

    .macro V6_QUAD unit, mask
    ldr r1, [sp, #V6_WEIGHTS]
    mov lr, r1
1:
    ldr r0, [sp, #V6_START]
    ldmia r0!, {{r1, r3, r5, r7}}
    mov r2, r1
    mov r4, r3
    mov r6, r5
    add r0, sp, #V6_SUMS
    stmia r0!, {{r1-r6}}
    str r7, [r0]
    str r7, [r0, #4]
    ldr r0, [sp, #V6_EXPANDED]
2:
    V6_CHUNK_START
    ldr r7, =\mask
3:
    mov r5, lr
    ldmia r5!, {{r6}}
    mov lr, r5
    \unit
    cmp r0, r12
    bne 3b
    ldr r7, =0x00ff00ff
    add r5, sp, #V6_SUMS
    V6_FIELDS r8
    V6_FIELDS r9
    V6_FIELDS r10
    V6_FIELDS r11
    ldr r1, [sp, #V6_END]
    cmp r0, r1
    beq 4f
    b 2b
4:
    @ Words of both channels' pairs to one accumulator a pixel.
    add r5, sp, #V6_SUMS
    ldr r6, [sp, #V6_OUT]
    .rept 4
    ldmia r5!, {{r1, r3}}
    lsrs r2, r1, #16
    uxth r1, r1
    lsrs r4, r3, #16
    uxth r3, r3
    stmia r6!, {{r1, r2}}
    str r3, [r6, #24]
    str r4, [r6, #28]
    .endr
    adds r6, #32
    str r6, [sp, #V6_OUT]
    ldr r1, [sp, #V6_LEFT]
    subs r1, #1
    str r1, [sp, #V6_LEFT]
    beq 5f
    b 1b
5:
    V6_RETURN
    .ltorg
    .endm

    V6_ROUTINE jaq_v6m_quad_2, 2
    V6_QUAD V6_MASKS_2, 0x00000303
    V6_ROUTINE jaq_v6m_quad_4, 2
    V6_QUAD V6_MASKS_4, 0x00000f0f
"#
);
