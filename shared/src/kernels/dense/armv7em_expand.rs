//! The expansion of [`super::expand`] for Armv7E-M with DSP instructions, in assembly.

use core::arch::global_asm;

use super::expand::Rows;
use super::scheme::{Family, Scheme};
use super::served::{DUAL, OUTER};
use crate::format::Bits;

type Routine = unsafe extern "C" fn(rows: *const *const u8, fours: usize, out: *mut u32);

unsafe extern "C" {
    fn jaq_v7em_expand_outer_2_3(rows: *const *const u8, fours: usize, out: *mut u32);
    fn jaq_v7em_expand_outer_4_3(rows: *const *const u8, fours: usize, out: *mut u32);
    fn jaq_v7em_expand_outer_2(rows: *const *const u8, fours: usize, out: *mut u32);
    fn jaq_v7em_expand_outer_4_14(rows: *const *const u8, fours: usize, out: *mut u32);
    fn jaq_v7em_expand_outer_4_15(rows: *const *const u8, fours: usize, out: *mut u32);
    fn jaq_v7em_expand_outer_8(rows: *const *const u8, fours: usize, out: *mut u32);
    fn jaq_v7em_expand_dual_2(rows: *const *const u8, fours: usize, out: *mut u32);
    fn jaq_v7em_expand_dual_4(rows: *const *const u8, fours: usize, out: *mut u32);
    fn jaq_v7em_expand_dual_8(rows: *const *const u8, fours: usize, out: *mut u32);
    fn jaq_v7em_expand_dual_8_nibbles(rows: *const *const u8, fours: usize, out: *mut u32);
    fn jaq_v7em_expand_none(rows: *const *const u8, fours: usize, out: *mut u32);
    fn jaq_v7em_sum_pairs(words: *const u32, eights: usize, sums: *mut [u32; 2]);
    fn jaq_v7em_sum_halves(words: *const u32, eights: usize, sums: *mut [i32; 4]);
}

/// Expands segments of one layer.
pub struct Expander {
    routine: Routine,
    group: usize,
    /// Fours of codes in a segment, and the bytes of their words.
    fours: usize,
    bytes: usize,
}

impl Expander {
    /// For segments of `segment` codes of `input` bits under `scheme`.
    pub fn new(scheme: Scheme, input: Bits, segment: usize) -> Self {
        let routine: Routine = match (scheme.family, input, scheme.pixels) {
            (Family::Outer, Bits::B2, 3) if const { OUTER.any(0, 0, 2, 3) } => {
                jaq_v7em_expand_outer_2_3
            }
            (Family::Outer, Bits::B2, 2) if const { OUTER.any(0, 0, 2, 2) } => {
                jaq_v7em_expand_outer_2
            }
            (Family::Outer, Bits::B3 | Bits::B4, 3) if const { OUTER.any(0, 0, 4, 3) } => {
                jaq_v7em_expand_outer_4_3
            }
            (Family::Outer, Bits::B3 | Bits::B4, 2)
                if const { OUTER.any(0, 14, 4, 2) } && scheme.spacing == 14 =>
            {
                jaq_v7em_expand_outer_4_14
            }
            (Family::Outer, Bits::B3 | Bits::B4, 2) if const { OUTER.any(0, 15, 4, 2) } => {
                jaq_v7em_expand_outer_4_15
            }
            (Family::Outer, Bits::B8, _) if const { OUTER.any(0, 0, 8, 0) } => {
                jaq_v7em_expand_outer_8
            }
            (Family::Dual, Bits::B2, _) if const { DUAL.any(0, 0, 2, 0) } => jaq_v7em_expand_dual_2,
            (Family::Dual, Bits::B3 | Bits::B4, _) if const { DUAL.any(0, 0, 4, 0) } => {
                jaq_v7em_expand_dual_4
            }
            (Family::Dual, Bits::B8, _) if const { DUAL.any(4, 0, 8, 0) } && scheme.stored == 4 => {
                jaq_v7em_expand_dual_8_nibbles
            }
            (Family::Dual, Bits::B8, _) if const { DUAL.any(8, 0, 8, 0) } => jaq_v7em_expand_dual_8,
            // Refused at load.
            _ => jaq_v7em_expand_none,
        };
        let bytes = (segment * input.storage() as usize).div_ceil(32) * 4;
        Expander { routine, group: scheme.group(), fours: segment / 4, bytes }
    }

    /// Expands one segment of every row into `out`; nothing happens where a slice is too short.
    #[inline(always)]
    pub fn run(&self, rows: &Rows<'_>, out: &mut [u32]) {
        let short = rows.iter().take(self.group).any(|row| row.len() < self.bytes);
        if short || self.fours == 0 || out.len() < 8 * self.fours {
            return;
        }
        // SAFETY: every row of the group has the whole words that hold `fours * 4` codes, and
        // `out` takes eight words for every four.
        unsafe {
            (self.routine)(rows.map(<[u8]>::as_ptr).as_ptr(), self.fours, out.as_mut_ptr());
        }
    }
}

/// Sums of the even and of the odd words; a multiple of eight of them.
#[inline(always)]
pub fn sum_pairs(words: &[u32]) -> [u32; 2] {
    let mut sums = [0; 2];
    if words.len() >= 8 {
        // SAFETY: reads whole eights of `words`.
        unsafe { jaq_v7em_sum_pairs(words.as_ptr(), words.len() / 8, &mut sums) };
    }
    sums
}

/// Sums of the signed halves of every fourth word; a multiple of eight of them.
#[inline(always)]
pub fn sum_halves(words: &[u32]) -> [i32; 4] {
    let mut sums = [0; 4];
    if words.len() >= 8 {
        // SAFETY: reads whole eights of `words`.
        unsafe { jaq_v7em_sum_halves(words.as_ptr(), words.len() / 8, &mut sums) };
    }
    sums
}

global_asm!(
    armv7em_head!("EXPAND_ROUTINE"),
    r#"
    EXPAND_ROUTINE jaq_v7em_expand_none
    bx lr

    @ r0: rows, kept in s0; r1: offset; r2: fours left; r3: out; r4-r9: words of the
    @ pixels; r10, r11: fields; r12: mask.
    .macro LOAD_4
    ldmia r0, {{r4-r7}}
    ldr r4, [r4, r1]
    ldr r5, [r5, r1]
    ldr r6, [r6, r1]
    ldr r7, [r7, r1]
    .endm

    .macro LOAD_6
    ldmia r0, {{r4-r9}}
    ldr r4, [r4, r1]
    ldr r5, [r5, r1]
    ldr r6, [r6, r1]
    ldr r7, [r7, r1]
    ldr r8, [r8, r1]
    ldr r9, [r9, r1]
    .endm

    .macro BEGIN load
    push {{r4-r11, lr}}
    mov r3, r2
    mov r2, r1
    movs r1, #0
    vmov s0, r0
1:
    \load
    adds r1, #4
    .endm

    .macro END
    vmov r0, s0
    b 1b
2:
    pop {{r4-r11, pc}}
    .endm

    .macro NEXT_FOUR
    subs r2, #1
    beq 2f
    .endm

    @ A code from both A-words.
    .macro PUT shift
    .if \shift == 0
    and lr, r12, r10
    and r0, r12, r11
    .else
    and lr, r12, r10, lsr #\shift
    and r0, r12, r11, lsr #\shift
    .endif
    strd lr, r0, [r3], #8
    .endm

    @ Eight bits of three rows to either A-word's fields.
    .macro TRIPLES from
    ubfx r10, r4, #\from, #8
    ubfx lr, r5, #\from, #8
    orr r10, r10, lr, lsl #10
    ubfx lr, r6, #\from, #8
    orr r10, r10, lr, lsl #20
    ubfx r11, r7, #\from, #8
    ubfx lr, r8, #\from, #8
    orr r11, r11, lr, lsl #10
    ubfx lr, r9, #\from, #8
    orr r11, r11, lr, lsl #20
    .endm

    @ Eight bits of two rows to either A-word's fields.
    .macro COUPLES from, s
    ubfx r10, r4, #\from, #8
    ubfx lr, r5, #\from, #8
    orr r10, r10, lr, lsl #\s
    ubfx r11, r6, #\from, #8
    ubfx lr, r7, #\from, #8
    orr r11, r11, lr, lsl #\s
    .endm

    .macro PUT_2
    PUT 0
    PUT 2
    PUT 4
    PUT 6
    .endm

    EXPAND_ROUTINE jaq_v7em_expand_outer_2_3
    movw r12, #0x0c03
    movt r12, #0x0030
    BEGIN LOAD_6
    .irp from, 0, 8, 16, 24
    TRIPLES \from
    PUT_2
    NEXT_FOUR
    .endr
    END

    EXPAND_ROUTINE jaq_v7em_expand_outer_4_3
    movw r12, #0x3c0f
    movt r12, #0x00f0
    BEGIN LOAD_6
    .irp from, 0, 16
    TRIPLES \from
    PUT 0
    PUT 4
    TRIPLES \from+8
    PUT 0
    PUT 4
    NEXT_FOUR
    .endr
    END

    EXPAND_ROUTINE jaq_v7em_expand_outer_2
    movw r12, #0xc003
    movt r12, #0x0000
    BEGIN LOAD_4
    .irp from, 0, 8, 16, 24
    COUPLES \from, 14
    PUT_2
    NEXT_FOUR
    .endr
    END

    .macro OUTER_4 s
    BEGIN LOAD_4
    .irp from, 0, 16
    COUPLES \from, \s
    PUT 0
    PUT 4
    COUPLES \from+8, \s
    PUT 0
    PUT 4
    NEXT_FOUR
    .endr
    END
    .endm

    EXPAND_ROUTINE jaq_v7em_expand_outer_4_14
    movw r12, #0xc00f
    movt r12, #0x0003
    OUTER_4 14

    EXPAND_ROUTINE jaq_v7em_expand_outer_4_15
    movw r12, #0x800f
    movt r12, #0x0007
    OUTER_4 15

    EXPAND_ROUTINE jaq_v7em_expand_outer_8
    BEGIN LOAD_4
    .irp from, 0, 8, 16, 24
    COUPLES \from, 15
    strd r10, r11, [r3], #8
    .endr
    NEXT_FOUR
    END

    @ Pairs: the even codes of four pixels, then the odd ones.
    EXPAND_ROUTINE jaq_v7em_expand_dual_8
    BEGIN LOAD_4
    uxtb16 r8, r4
    uxtb16 r9, r5
    uxtb16 r10, r6
    uxtb16 r11, r7
    uxtb16 r4, r4, ror #8
    uxtb16 r5, r5, ror #8
    uxtb16 r6, r6, ror #8
    uxtb16 r7, r7, ror #8
    stmia r3!, {{r8-r11}}
    stmia r3!, {{r4-r7}}
    NEXT_FOUR
    END

    EXPAND_ROUTINE jaq_v7em_expand_dual_8_nibbles
    movw r12, #0x0ff0
    movt r12, #0x0ff0
    BEGIN LOAD_4
    uxtb16 r8, r4
    uxtb16 r9, r5
    uxtb16 r10, r6
    uxtb16 r11, r7
    and r4, r12, r4, lsr #4
    and r5, r12, r5, lsr #4
    and r6, r12, r6, lsr #4
    and r7, r12, r7, lsr #4
    ssub16 r4, r4, r8
    ssub16 r5, r5, r9
    ssub16 r6, r6, r10
    ssub16 r7, r7, r11
    stmia r3!, {{r8-r11}}
    stmia r3!, {{r4-r7}}
    NEXT_FOUR
    END

    @ Four nibbles of a half: the even ones to the halves of one word, the odd ones of another.
    .macro PAIRS_4 even, row, from
    .if \from == 0
    pkhbt \even, \row, \row, lsl #8
    .else
    lsr \even, \row, #16
    pkhbt \even, \even, \even, lsl #8
    .endif
    .endm

    .macro PUT_SPLIT shift
    and lr, r12, r8
    and r0, r12, r9
    strd lr, r0, [r3], #8
    and lr, r12, r10
    and r0, r12, r11
    strd lr, r0, [r3], #8
    and lr, r12, r8, lsr #\shift
    and r0, r12, r9, lsr #\shift
    strd lr, r0, [r3], #8
    and lr, r12, r10, lsr #\shift
    and r0, r12, r11, lsr #\shift
    strd lr, r0, [r3], #8
    .endm

    EXPAND_ROUTINE jaq_v7em_expand_dual_4
    mov r12, #0x000f000f
    BEGIN LOAD_4
    .irp from, 0, 16
    PAIRS_4 r8, r4, \from
    PAIRS_4 r9, r5, \from
    PAIRS_4 r10, r6, \from
    PAIRS_4 r11, r7, \from
    PUT_SPLIT 4
    NEXT_FOUR
    .endr
    END

    .macro PAIRS_2 even, row, from
    ubfx \even, \row, #\from, #8
    orr \even, \even, \even, lsl #12
    .endm

    EXPAND_ROUTINE jaq_v7em_expand_dual_2
    mov r12, #0x00030003
    BEGIN LOAD_4
    .irp from, 0, 8, 16, 24
    PAIRS_2 r8, r4, \from
    PAIRS_2 r9, r5, \from
    PAIRS_2 r10, r6, \from
    PAIRS_2 r11, r7, \from
    PUT_SPLIT 2
    NEXT_FOUR
    .endr
    END

    EXPAND_ROUTINE jaq_v7em_sum_pairs
    push {{r4-r11, lr}}
    movs r3, #0
    mov r12, #0
1:
    ldmia r0!, {{r4-r11}}
    add r3, r4
    add r12, r5
    add r3, r6
    add r12, r7
    add r3, r8
    add r12, r9
    add r3, r10
    add r12, r11
    subs r1, #1
    bne 1b
    strd r3, r12, [r2]
    pop {{r4-r11, pc}}

    EXPAND_ROUTINE jaq_v7em_sum_halves
    push {{r2, r4-r11, lr}}
    mov r4, #0x00010001
    movs r5, #0
    movs r6, #0
    movs r7, #0
    mov r8, #0
1:
    ldmia r0!, {{r2, r3, r9, r10}}
    smlad r5, r2, r4, r5
    smlad r6, r3, r4, r6
    smlad r7, r9, r4, r7
    smlad r8, r10, r4, r8
    ldmia r0!, {{r2, r3, r9, r10}}
    smlad r5, r2, r4, r5
    smlad r6, r3, r4, r6
    smlad r7, r9, r4, r7
    smlad r8, r10, r4, r8
    subs r1, #1
    bne 1b
    pop {{r2}}
    stmia r2, {{r5-r8}}
    pop {{r4-r11, pc}}
    "#
);
