//! The inner loops of [`super::portable`] for RV32IM, in assembly.

use core::arch::global_asm;

use super::{BLOCK, Scheme};

/// Sums of a block: expanded activations, their end, packed weights, the sums.
type Routine = unsafe extern "C" fn(*const u32, *const u32, *const u8, *mut [u32; BLOCK]);

unsafe extern "C" {
    fn jaq_rv_fc_four_2(a: *const u32, end: *const u32, w: *const u8, out: *mut [u32; BLOCK]);
    fn jaq_rv_fc_apart_2(a: *const u32, end: *const u32, w: *const u8, out: *mut [u32; BLOCK]);
    fn jaq_rv_fc_apart_4(a: *const u32, end: *const u32, w: *const u8, out: *mut [u32; BLOCK]);
    fn jaq_rv_fc_two_2(a: *const u32, end: *const u32, w: *const u8, out: *mut [u32; BLOCK]);
    fn jaq_rv_fc_two_4(a: *const u32, end: *const u32, w: *const u8, out: *mut [u32; BLOCK]);
    fn jaq_rv_fc_two_8(a: *const u32, end: *const u32, w: *const u8, out: *mut [u32; BLOCK]);
    fn jaq_rv_fc_one(a: *const u32, end: *const u32, w: *const u8, out: *mut [u32; BLOCK]);
}

/// As the twin; zeros where a slice is too short.
pub fn block(scheme: Scheme, expanded: &[u32], weights: &[u8]) -> [u32; BLOCK] {
    let routine: Routine = match scheme {
        Scheme::Four { stored: 2, sums: true } => jaq_rv_fc_four_2,
        Scheme::Four { stored: 2, .. } => jaq_rv_fc_apart_2,
        Scheme::Four { .. } => jaq_rv_fc_apart_4,
        Scheme::Two { stored: 2 } => jaq_rv_fc_two_2,
        Scheme::Two { stored: 4 } => jaq_rv_fc_two_4,
        Scheme::Two { .. } => jaq_rv_fc_two_8,
        Scheme::One => jaq_rv_fc_one,
    };
    let mut sums = [0; BLOCK];
    let products = scheme.products();
    let units = expanded.len() >> products.trailing_zeros();
    let range = expanded.as_ptr_range();
    let whole = units << products.trailing_zeros() == expanded.len();
    if units > 0 && whole && weights.len() >= 4 * BLOCK * units {
        // SAFETY: whole units of activations, and a word of weights of every channel for each.
        unsafe { routine(range.start, range.end, weights.as_ptr(), &mut sums) }
    }
    sums
}

global_asm!(
    r#"
    # The assembler does not know the target's extensions.
    .option push
    .option arch, +m, +c

    # Sums: a4-a7; a0: activations; a1: their end; a2: weights; a3: out; t0-t3: words of
    # activations; t4: weights; t5: free; t6: sum of a word; s0: mask.
    .macro RVF_START name, mask
    .section .text.\name,"ax",@progbits
    .p2align 2
    .global \name
    .type \name, @function
    \name:
    addi sp, sp, -16
    sw s0, 0(sp)
    li a4, 0
    li a5, 0
    li a6, 0
    li a7, 0
    li s0, \mask
    .endm
    .macro RVF_LOAD count
    lw t0, 0(a0)
    lw t1, 4(a0)
    .if \count > 2
    lw t2, 8(a0)
    lw t3, 12(a0)
    .endif
    addi a0, a0, 4*\count
    .endm
    .macro RVF_TIMES to, at
    .if \at == 0
    mul \to, \to, t0
    .elseif \at == 1
    mul \to, \to, t1
    .elseif \at == 2
    mul \to, \to, t2
    .else
    mul \to, \to, t3
    .endif
    .endm
    .macro RVF_FIELDS to, shift
    .if \shift == 0
    and \to, t4, s0
    .else
    srli \to, t4, \shift
    and \to, \to, s0
    .endif
    .endm
    .macro RVF_SUM acc, lane, top, shifts:vararg
    lw t4, 4*\lane(a2)
    .set RVF_AT, 0
    .irp shift, \shifts
    .if RVF_AT == 0
    RVF_FIELDS t6, \shift
    RVF_TIMES t6, 0
    .else
    RVF_FIELDS t5, \shift
    RVF_TIMES t5, RVF_AT
    add t6, t6, t5
    .endif
    .set RVF_AT, RVF_AT+1
    .endr
    srli t6, t6, \top
    add \acc, \acc, t6
    .endm
    .macro RVF_SUMS top, shifts:vararg
    RVF_SUM a4, 0, \top, \shifts
    RVF_SUM a5, 1, \top, \shifts
    RVF_SUM a6, 2, \top, \shifts
    RVF_SUM a7, 3, \top, \shifts
    .endm
    .macro RVF_NEXT
    addi a2, a2, 16
    beq a0, a1, 2f
    j 1b
2:
    sw a4, 0(a3)
    sw a5, 4(a3)
    sw a6, 8(a3)
    sw a7, 12(a3)
    lw s0, 0(sp)
    addi sp, sp, 16
    ret
    .endm
    .macro RVF_ROUTINE name, mask, count, top, shifts:vararg
    RVF_START \name, \mask
1:
    RVF_LOAD \count
    RVF_SUMS \top, \shifts
    RVF_NEXT
    .endm

    RVF_ROUTINE jaq_rv_fc_four_2, 0x03030303, 4, 24, 0, 2, 4, 6
    RVF_ROUTINE jaq_rv_fc_two_4, 0x000f000f, 4, 16, 0, 4, 8, 12
    RVF_ROUTINE jaq_rv_fc_two_8, 0x00ff00ff, 2, 16, 0, 8

    RVF_START jaq_rv_fc_two_2, 0x00030003
1:
    RVF_LOAD 4
    RVF_SUMS 16, 0, 2, 4, 6
    RVF_LOAD 4
    RVF_SUMS 16, 8, 10, 12, 14
    RVF_NEXT

    # Products one by one.
    .macro RVF_APART acc, lane, shifts:vararg
    lw t4, 4*\lane(a2)
    .set RVF_AT, 0
    .irp shift, \shifts
    RVF_FIELDS t5, \shift
    RVF_TIMES t5, RVF_AT
    srli t5, t5, 24
    add \acc, \acc, t5
    .set RVF_AT, RVF_AT+1
    .endr
    .endm
    .macro RVF_APART_ROUTINE name, mask, count, shifts:vararg
    RVF_START \name, \mask
1:
    RVF_LOAD \count
    RVF_APART a4, 0, \shifts
    RVF_APART a5, 1, \shifts
    RVF_APART a6, 2, \shifts
    RVF_APART a7, 3, \shifts
    RVF_NEXT
    .endm
    RVF_APART_ROUTINE jaq_rv_fc_apart_2, 0x03030303, 4, 0, 2, 4, 6
    RVF_APART_ROUTINE jaq_rv_fc_apart_4, 0x0f0f0f0f, 2, 0, 4

    .macro RVF_BYTES acc, lane
    .set RVF_AT, 0
    .rept 4
    lbu t4, 4*\lane+RVF_AT(a2)
    RVF_TIMES t4, RVF_AT
    add \acc, \acc, t4
    .set RVF_AT, RVF_AT+1
    .endr
    .endm
    RVF_START jaq_rv_fc_one, 0xff
1:
    RVF_LOAD 4
    RVF_BYTES a4, 0
    RVF_BYTES a5, 1
    RVF_BYTES a6, 2
    RVF_BYTES a7, 3
    RVF_NEXT
    .option pop
"#
);
