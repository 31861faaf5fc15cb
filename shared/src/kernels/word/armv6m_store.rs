//! The expansion of [`super::expand`] and the stores of [`super::store`] for Armv6-M, in assembly.

use core::arch::global_asm;

use super::store::{self, Pixels, Rule};
use super::{Accumulators, BLOCK, WORDS, expand};
use crate::format::Bits;

/// Arguments of a store, in the order the assembly loads them.
#[repr(C)]
struct Arguments {
    accumulators: *const Accumulators,
    multipliers: *const i32,
    biases: *const i32,
    output: *mut u8,
    pixel_bytes: usize,
    /// Fours of pixels.
    fours: usize,
}

unsafe extern "C" {
    fn jaq_v6m_spread_2(a: *const u8, b: *const u8, out: *mut u32, halves: usize);
    fn jaq_v6m_spread_4(a: *const u8, b: *const u8, out: *mut u32, halves: usize);
    fn jaq_v6m_spread_8(a: *const u8, b: *const u8, out: *mut u32, halves: usize);
    fn jaq_v6m_sums(start: *const u32, end: *const u32, sums: *mut [u32; WORDS]);
    fn jaq_v6m_store_2(arguments: *const Arguments);
    fn jaq_v6m_store_3(arguments: *const Arguments);
    fn jaq_v6m_store_4(arguments: *const Arguments);
    fn jaq_v6m_store_8(arguments: *const Arguments);
    fn jaq_v6m_store_wide(arguments: *const Arguments);
}

/// [`expand::spread`].
pub fn spread<const STORAGE: u32>(rows: &[&[u8]; 2], out: &mut [[u32; WORDS]], column: usize) {
    let codes = (16 / STORAGE) as usize;
    let [a, b] = *rows;
    let halves = (a.len().min(b.len()) / 2).min(out.len() / codes);
    let aligned = a.as_ptr().addr().is_multiple_of(2) && b.as_ptr().addr().is_multiple_of(2);
    let (done, rest) = if aligned && column < WORDS { (halves, out) } else { (0, out) };
    if done > 0 {
        let routine = match STORAGE {
            2 => jaq_v6m_spread_2,
            4 => jaq_v6m_spread_4,
            _ => jaq_v6m_spread_8,
        };
        let first = rest.as_mut_ptr().cast::<u32>().wrapping_add(column);
        // SAFETY: `done` half-words of both rows are read, and as many positions as they hold
        // codes are written, checked above; both rows start at half-words.
        unsafe { routine(a.as_ptr(), b.as_ptr(), first, done) }
    }
    let left = [a, b].map(|row| row.get(2 * done..).unwrap_or_default());
    let rest = rest.get_mut(done * codes..).unwrap_or_default();
    if !rest.is_empty() {
        expand::spread::<STORAGE>(&left, rest, column);
    }
}

/// [`expand::sums`].
pub fn sums(expanded: &[[u32; WORDS]]) -> [u32; WORDS] {
    let mut sums = [0; WORDS];
    let words = expanded.as_flattened().as_ptr_range();
    if !expanded.is_empty() {
        // SAFETY: reads the words of the slice, four at a time.
        unsafe { jaq_v6m_sums(words.start, words.end, &mut sums) }
    }
    sums
}

/// [`store::store`].
pub fn store(rule: Rule, acc: &Accumulators, m: &[i32], b: &[i32], pixels: Pixels<'_>) {
    let routine = match rule {
        Rule::Narrow(Bits::B2) => jaq_v6m_store_2,
        Rule::Narrow(Bits::B3) => jaq_v6m_store_3,
        Rule::Narrow(Bits::B4) => jaq_v6m_store_4,
        Rule::Narrow(Bits::B8) => jaq_v6m_store_8,
        Rule::Wide => jaq_v6m_store_wide,
        Rule::General(..) => return store::store(rule, acc, m, b, pixels),
    };
    let step = rule.block_bytes();
    let end = (pixels.group - 1) * pixels.pixel_bytes + step;
    // A power of two: the core has no division.
    let aligned = (pixels.pixel_bytes | pixels.output.as_ptr().addr()) & (step - 1) == 0;
    if m.len() != BLOCK || b.len() != BLOCK || pixels.output.len() < end || !aligned {
        return store::store(rule, acc, m, b, pixels);
    }
    let arguments = Arguments {
        accumulators: acc,
        multipliers: m.as_ptr(),
        biases: b.as_ptr(),
        output: pixels.output.as_mut_ptr(),
        pixel_bytes: pixels.pixel_bytes,
        fours: pixels.group / 4,
    };
    // SAFETY: a whole group of pixels and a whole block of channels, checked above; what is
    // written is aligned to its size.
    unsafe { routine(&arguments) }
}

global_asm!(
    r#"
    .syntax unified
    .thumb

    .macro V6_LEAF name
    .section .text.\name,"ax",%progbits
    .p2align 2
    .global \name
    .type \name, %function
    .thumb_func
    \name:
    push {{r4-r7, lr}}
    .endm

    @ r0, r1: rows; r2: out; r3: half-words; r7: mask.
    .macro V6_SPREAD storage, mask, shifts:vararg
    ldr r7, =\mask
1:
    ldrh r4, [r0]
    ldrh r5, [r1]
    adds r0, #2
    adds r1, #2
    lsls r5, r5, #16
    orrs r4, r5
    mov r5, r4
    ands r5, r7
    str r5, [r2]
    .set V6_AT, 16
    .irp shift, \shifts
    lsrs r5, r4, #\shift
    ands r5, r7
    str r5, [r2, #V6_AT]
    .set V6_AT, V6_AT+16
    .endr
    adds r2, #256/\storage
    subs r3, #1
    bne 1b
    pop {{r4-r7, pc}}
    .ltorg
    .endm

    V6_LEAF jaq_v6m_spread_2
    V6_SPREAD 2, 0x00030003, 2, 4, 6, 8, 10, 12, 14
    V6_LEAF jaq_v6m_spread_4
    V6_SPREAD 4, 0x000f000f, 4, 8, 12
    V6_LEAF jaq_v6m_spread_8
    V6_SPREAD 8, 0x00ff00ff, 8

    @ r0: start; r1: end; r2: sums.
    V6_LEAF jaq_v6m_sums
    push {{r2}}
    mov r12, r1
    movs r1, #0
    movs r2, #0
    movs r3, #0
    mov lr, r1
1:
    ldmia r0!, {{r4-r7}}
    adds r1, r1, r4
    adds r2, r2, r5
    adds r3, r3, r6
    add lr, r7
    cmp r0, r12
    bne 1b
    pop {{r0}}
    mov r4, lr
    stmia r0!, {{r1-r4}}
    pop {{r4-r7, pc}}

    @ r0: accumulators; r1-r4: those of four pixels; r6: multiplier; r7: bias;
    @ r8-r11: packed codes; r12, lr: tables.
    .macro V6_LIMIT value, bits
    cmp \value, #(1<<\bits)-1
    bls 9f
    asrs \value, \value, #31
    mvns \value, \value
    lsrs \value, \value, #32-\bits
9:
    .endm

    .macro V6_NARROW value, bits
    muls \value, r6, \value
    adds \value, \value, r7
    asrs \value, \value, #18
    V6_LIMIT \value, \bits
    .endm

    .macro V6_WIDE value, bits
    adds \value, \value, r7
    asrs r5, \value, #10
    lsls \value, \value, #22
    lsrs \value, \value, #22
    muls \value, r6, \value
    asrs \value, \value, #10
    muls r5, r6, r5
    adds \value, \value, r5
    movs r5, #1
    lsls r5, r5, #11
    adds \value, \value, r5
    asrs \value, \value, #12
    V6_LIMIT \value, 8
    .endm

    .macro V6_LANE rule, bits, storage, lane
    mov r5, r12
    ldr r6, [r5, #4*\lane]
    mov r5, lr
    ldr r7, [r5, #4*\lane]
    ldmia r0!, {{r1-r4}}
    adds r0, #16
    \rule r1, \bits
    \rule r2, \bits
    \rule r3, \bits
    \rule r4, \bits
    .if \lane == 0
    mov r8, r1
    mov r9, r2
    mov r10, r3
    mov r11, r4
    .else
    lsls r1, r1, #\storage*\lane
    lsls r2, r2, #\storage*\lane
    lsls r3, r3, #\storage*\lane
    lsls r4, r4, #\storage*\lane
    add r8, r1
    add r9, r2
    add r10, r3
    add r11, r4
    .endif
    .endm

    .macro V6_STORE name, rule, bits, storage, put
    V6_LEAF \name
    mov r4, r8
    mov r5, r9
    mov r6, r10
    mov r7, r11
    push {{r4-r7}}
    sub sp, #12
    ldmia r0!, {{r1-r6}}
    mov r0, r1
    mov r12, r2
    mov lr, r3
    str r4, [sp]
    str r5, [sp, #4]
    str r6, [sp, #8]
1:
    V6_LANE \rule, \bits, \storage, 0
    V6_LANE \rule, \bits, \storage, 1
    V6_LANE \rule, \bits, \storage, 2
    V6_LANE \rule, \bits, \storage, 3
    subs r0, #112
    ldr r5, [sp]
    ldr r6, [sp, #4]
    mov r1, r8
    mov r2, r9
    mov r3, r10
    mov r4, r11
    \put r1, [r5]
    adds r5, r5, r6
    \put r2, [r5]
    adds r5, r5, r6
    \put r3, [r5]
    adds r5, r5, r6
    \put r4, [r5]
    adds r5, r5, r6
    str r5, [sp]
    ldr r5, [sp, #8]
    subs r5, #1
    str r5, [sp, #8]
    beq 2f
    b 1b
2:
    add sp, #12
    pop {{r4-r7}}
    mov r8, r4
    mov r9, r5
    mov r10, r6
    mov r11, r7
    pop {{r4-r7, pc}}
    .endm

    V6_STORE jaq_v6m_store_2, V6_NARROW, 2, 2, strb
    V6_STORE jaq_v6m_store_3, V6_NARROW, 3, 4, strh
    V6_STORE jaq_v6m_store_4, V6_NARROW, 4, 4, strh
    V6_STORE jaq_v6m_store_8, V6_NARROW, 8, 8, str
    V6_STORE jaq_v6m_store_wide, V6_WIDE, 8, 8, str
"#
);
