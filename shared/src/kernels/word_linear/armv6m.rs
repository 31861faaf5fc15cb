//! The inner loops of [`super::portable`] for Armv6-M, in assembly.

use core::arch::global_asm;

use super::{BLOCK, Scheme};

/// Sums of a block: expanded activations, their end, packed weights, the sums.
type Routine = unsafe extern "C" fn(*const u32, *const u32, *const u8, *mut [u32; BLOCK]);

unsafe extern "C" {
    fn jaq_v6m_fc_four_2(a: *const u32, end: *const u32, w: *const u8, out: *mut [u32; BLOCK]);
    fn jaq_v6m_fc_apart_2(a: *const u32, end: *const u32, w: *const u8, out: *mut [u32; BLOCK]);
    fn jaq_v6m_fc_apart_4(a: *const u32, end: *const u32, w: *const u8, out: *mut [u32; BLOCK]);
    fn jaq_v6m_fc_two_2(a: *const u32, end: *const u32, w: *const u8, out: *mut [u32; BLOCK]);
    fn jaq_v6m_fc_two_4(a: *const u32, end: *const u32, w: *const u8, out: *mut [u32; BLOCK]);
    fn jaq_v6m_fc_two_8(a: *const u32, end: *const u32, w: *const u8, out: *mut [u32; BLOCK]);
    fn jaq_v6m_fc_one(a: *const u32, end: *const u32, w: *const u8, out: *mut [u32; BLOCK]);
}

/// As the twin; zeros where a slice is too short.
pub fn block(scheme: Scheme, expanded: &[u32], weights: &[u8]) -> [u32; BLOCK] {
    let routine: Routine = match scheme {
        Scheme::Four { stored: 2, sums: true } => jaq_v6m_fc_four_2,
        Scheme::Four { stored: 2, .. } => jaq_v6m_fc_apart_2,
        Scheme::Four { .. } => jaq_v6m_fc_apart_4,
        Scheme::Two { stored: 2 } => jaq_v6m_fc_two_2,
        Scheme::Two { stored: 4 } => jaq_v6m_fc_two_4,
        Scheme::Two { .. } => jaq_v6m_fc_two_8,
        Scheme::One => jaq_v6m_fc_one,
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
    .syntax unified
    .thumb

    @ Sums: r8-r11; r12: activations; lr: weights; r1-r4: words of activations; r5: mask; r6:
    @ weights; r0: sum of a word; r7: free; on the stack the end of the activations, and out.
    .macro V6F_START name
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
    push {{r1, r3}}
    mov r12, r0
    mov lr, r2
    movs r1, #0
    mov r8, r1
    mov r9, r1
    mov r10, r1
    mov r11, r1
    .endm

    .macro V6F_RETURN
    pop {{r0, r3}}
    mov r4, r8
    mov r5, r9
    mov r6, r10
    mov r7, r11
    stmia r3!, {{r4-r7}}
    pop {{r4-r7}}
    mov r8, r4
    mov r9, r5
    mov r10, r6
    mov r11, r7
    pop {{r4-r7, pc}}
    .ltorg
    .endm

    .macro V6F_LOAD count
    mov r7, r12
    .if \count == 2
    ldmia r7!, {{r1, r2}}
    .else
    ldmia r7!, {{r1-r4}}
    .endif
    mov r12, r7
    .endm

    @ Sum of a channel's products; `first`: shift of the first.
    .macro V6F_SUM acc, lane, top, first, rest:vararg
    mov r0, lr
    ldr r6, [r0, #4*\lane]
    .if \first == 0
    mov r0, r6
    .else
    lsrs r0, r6, #\first
    .endif
    ands r0, r5
    muls r0, r1, r0
    .set V6F_AT, 2
    .irp shift, \rest
    lsrs r7, r6, #\shift
    ands r7, r5
    .if V6F_AT == 2
    muls r7, r2, r7
    .elseif V6F_AT == 3
    muls r7, r3, r7
    .else
    muls r7, r4, r7
    .endif
    adds r0, r0, r7
    .set V6F_AT, V6F_AT+1
    .endr
    lsrs r0, r0, #\top
    add \acc, r0
    .endm
    .macro V6F_SUMS top, shifts:vararg
    V6F_SUM r8, 0, \top, \shifts
    V6F_SUM r9, 1, \top, \shifts
    V6F_SUM r10, 2, \top, \shifts
    V6F_SUM r11, 3, \top, \shifts
    .endm

    .macro V6F_NEXT
    movs r0, #16
    add lr, r0
    ldr r0, [sp]
    cmp r12, r0
    beq 2f
    b 1b
2:
    V6F_RETURN
    .endm

    .macro V6F_ROUTINE name, mask, count, top, shifts:vararg
    V6F_START \name
    ldr r5, =\mask
1:
    V6F_LOAD \count
    V6F_SUMS \top, \shifts
    V6F_NEXT
    .endm

    V6F_ROUTINE jaq_v6m_fc_four_2, 0x03030303, 4, 24, 0, 2, 4, 6
    V6F_ROUTINE jaq_v6m_fc_two_4, 0x000f000f, 4, 16, 0, 4, 8, 12
    V6F_ROUTINE jaq_v6m_fc_two_8, 0x00ff00ff, 2, 16, 0, 8

    V6F_START jaq_v6m_fc_two_2
    ldr r5, =0x00030003
1:
    V6F_LOAD 4
    V6F_SUMS 16, 0, 2, 4, 6
    V6F_LOAD 4
    V6F_SUMS 16, 8, 10, 12, 14
    V6F_NEXT

    @ Products one by one.
    .macro V6F_APART acc, lane, shifts:vararg
    mov r0, lr
    ldr r6, [r0, #4*\lane]
    .set V6F_AT, 1
    .irp shift, \shifts
    .if \shift == 0
    mov r7, r6
    .else
    lsrs r7, r6, #\shift
    .endif
    ands r7, r5
    .if V6F_AT == 1
    muls r7, r1, r7
    .elseif V6F_AT == 2
    muls r7, r2, r7
    .elseif V6F_AT == 3
    muls r7, r3, r7
    .else
    muls r7, r4, r7
    .endif
    lsrs r7, r7, #24
    add \acc, r7
    .set V6F_AT, V6F_AT+1
    .endr
    .endm
    .macro V6F_APART_ROUTINE name, mask, count, shifts:vararg
    V6F_START \name
    ldr r5, =\mask
1:
    V6F_LOAD \count
    V6F_APART r8, 0, \shifts
    V6F_APART r9, 1, \shifts
    V6F_APART r10, 2, \shifts
    V6F_APART r11, 3, \shifts
    V6F_NEXT
    .endm
    V6F_APART_ROUTINE jaq_v6m_fc_apart_2, 0x03030303, 4, 0, 2, 4, 6
    V6F_APART_ROUTINE jaq_v6m_fc_apart_4, 0x0f0f0f0f, 2, 0, 4

    .macro V6F_BYTES acc, lane
    ldr r6, [r5, #4*\lane]
    uxtb r0, r6
    muls r0, r1, r0
    add \acc, r0
    lsrs r0, r6, #8
    uxtb r0, r0
    muls r0, r2, r0
    add \acc, r0
    lsrs r0, r6, #16
    uxtb r0, r0
    muls r0, r3, r0
    add \acc, r0
    lsrs r0, r6, #24
    muls r0, r4, r0
    add \acc, r0
    .endm
    V6F_START jaq_v6m_fc_one
    mov r5, lr
    mov r7, r12
1:
    ldmia r7!, {{r1-r4}}
    V6F_BYTES r8, 0
    V6F_BYTES r9, 1
    V6F_BYTES r10, 2
    V6F_BYTES r11, 3
    adds r5, #16
    ldr r0, [sp]
    cmp r7, r0
    bne 1b
    V6F_RETURN
"#
);
