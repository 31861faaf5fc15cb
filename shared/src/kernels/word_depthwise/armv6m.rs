//! The routines of [`super::portable`] for Armv6-M, in assembly.
//!
//! A term of four sums takes twelve instructions: a load of four words, one of the weight, and a
//! `MULS` with an `ADD` a word.

use core::arch::global_asm;

use super::call::{ColumnsCall, FinishCall, SpreadCall, SumsCall, finisher};
use super::plan::Scheme;
use super::{Columns, Finish, Spread, Sums, portable};

unsafe extern "C" {
    fn jaq_v6m_dw_sums(call: *const SumsCall);
    fn jaq_v6m_dw_sums_3(call: *const SumsCall);
    fn jaq_v6m_dw_bytes2_count(call: *const FinishCall);
    fn jaq_v6m_dw_bytes1_count(call: *const FinishCall);
    fn jaq_v6m_dw_bytes2_narrow(call: *const FinishCall);
    fn jaq_v6m_dw_bytes1_narrow(call: *const FinishCall);
    fn jaq_v6m_dw_pairs_narrow(call: *const FinishCall);
    fn jaq_v6m_dw_single_narrow(call: *const FinishCall);
    fn jaq_v6m_dw_bytes2_wide(call: *const FinishCall);
    fn jaq_v6m_dw_bytes1_wide(call: *const FinishCall);
    fn jaq_v6m_dw_pairs_wide(call: *const FinishCall);
    fn jaq_v6m_dw_single_wide(call: *const FinishCall);
    fn jaq_v6m_dw_spread_2(call: *const SpreadCall);
    fn jaq_v6m_dw_spread_4(call: *const SpreadCall);
    fn jaq_v6m_dw_spread_8(call: *const SpreadCall);
    fn jaq_v6m_dw_spread_bytes_2(call: *const SpreadCall);
    fn jaq_v6m_dw_spread_bytes_4(call: *const SpreadCall);
    fn jaq_v6m_dw_columns_2(call: *const ColumnsCall);
    fn jaq_v6m_dw_columns_4(call: *const ColumnsCall);
    fn jaq_v6m_dw_columns_8(call: *const ColumnsCall);
}

type Finisher = unsafe extern "C" fn(*const FinishCall);

/// Requantizing routines in the order of [`finisher`].
const FINISHERS: [[Option<Finisher>; 3]; 4] = [
    [Some(jaq_v6m_dw_bytes2_count), Some(jaq_v6m_dw_bytes2_narrow), Some(jaq_v6m_dw_bytes2_wide)],
    [Some(jaq_v6m_dw_bytes1_count), Some(jaq_v6m_dw_bytes1_narrow), Some(jaq_v6m_dw_bytes1_wide)],
    [None, Some(jaq_v6m_dw_pairs_narrow), Some(jaq_v6m_dw_pairs_wide)],
    [None, Some(jaq_v6m_dw_single_narrow), Some(jaq_v6m_dw_single_wide)],
];

/// As the twin; nothing happens where a slice is too short.
pub fn sums(mut sums: Sums<'_>) {
    let threes = matches!(sums.offsets.len(), 3 | 6 | 9 | 12 | 15);
    let Some(call) = SumsCall::new(&mut sums) else { return };
    // SAFETY: `SumsCall` checked every length that the loops run over.
    unsafe { if threes { jaq_v6m_dw_sums_3(&call) } else { jaq_v6m_dw_sums(&call) } }
}

/// As the twin.
pub fn finish(mut finish: Finish<'_>) {
    let Some(routine) = finisher(&finish, &FINISHERS) else { return portable::finish(finish) };
    let Some(call) = FinishCall::new(&mut finish) else { return };
    // SAFETY: `FinishCall` checked every length that the loops run over, and the alignment of
    // what is written in words.
    unsafe { routine(&call) }
}

/// As the twin; nothing happens where a slice is too short.
pub fn spread(mut spread: Spread<'_>) {
    let routine = match (spread.plan.scheme, spread.storage) {
        (Scheme::Bytes, 2) => jaq_v6m_dw_spread_bytes_2,
        (Scheme::Bytes, _) => jaq_v6m_dw_spread_bytes_4,
        (_, 2) => jaq_v6m_dw_spread_2,
        (_, 4) => jaq_v6m_dw_spread_4,
        _ => jaq_v6m_dw_spread_8,
    };
    SpreadCall::each(&mut spread, |call| {
        // SAFETY: `SpreadCall` checked that the line and the rows have all words of the plan.
        unsafe { routine(call) }
    });
}

/// As the twin; nothing happens where a slice is too short.
pub fn columns(mut columns: Columns<'_>) {
    let routine = match columns.storage {
        2 => jaq_v6m_dw_columns_2,
        4 => jaq_v6m_dw_columns_4,
        _ => jaq_v6m_dw_columns_8,
    };
    let Some(call) = ColumnsCall::new(&mut columns) else { return };
    // SAFETY: `ColumnsCall` checked that every lane has whole fours and every pixel its byte.
    unsafe { routine(&call) }
}

global_asm!(
    r#"
    .syntax unified
    .thumb

    .macro V6D_ROUTINE name
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
    .endm

    .macro V6D_RETURN
    pop {{r4-r7}}
    mov r8, r4
    mov r9, r5
    mov r10, r6
    mov r11, r7
    pop {{r4-r7, pc}}
    .endm

    @ Sums: r8-r11; r12: the words of the four sums in the first row; lr: end of the offsets.
    .equ V6D_OFFSETS, 0
    .equ V6D_END, 4
    .equ V6D_TABLE, 8
    .equ V6D_RING, 12
    .equ V6D_LANE, 16
    .equ V6D_QUADS, 20
    .equ V6D_LANES, 24
    .equ V6D_START, 28
    .equ V6D_RAW, 32
    .equ V6D_LEFT, 36
    .equ V6D_FRAME, 40

    .macro V6D_SUMS name, unroll
    V6D_ROUTINE \name
    sub sp, #V6D_FRAME
    mov r1, sp
    ldmia r0!, {{r2-r7}}
    stmia r1!, {{r2-r7}}
    ldmia r0!, {{r2-r4}}
    stmia r1!, {{r2-r4}}
    ldr r0, [sp, #V6D_END]
    mov lr, r0
1:
    ldr r0, [sp, #V6D_RING]
    mov r12, r0
    ldr r0, [sp, #V6D_QUADS]
    str r0, [sp, #V6D_LEFT]
2:
    ldr r1, [sp, #V6D_START]
    mov r8, r1
    mov r9, r1
    mov r10, r1
    mov r11, r1
    ldr r7, [sp, #V6D_OFFSETS]
    ldr r6, [sp, #V6D_TABLE]
3:
    .rept \unroll
    ldmia r7!, {{r0}}
    ldmia r6!, {{r5}}
    add r0, r12
    ldmia r0!, {{r1-r4}}
    muls r1, r5, r1
    muls r2, r5, r2
    muls r3, r5, r3
    muls r4, r5, r4
    add r8, r1
    add r9, r2
    add r10, r3
    add r11, r4
    .endr
    cmp r7, lr
    bne 3b
    ldr r0, [sp, #V6D_RAW]
    mov r1, r8
    mov r2, r9
    mov r3, r10
    mov r4, r11
    stmia r0!, {{r1-r4}}
    str r0, [sp, #V6D_RAW]
    movs r0, #16
    add r12, r0
    ldr r0, [sp, #V6D_LEFT]
    subs r0, #1
    str r0, [sp, #V6D_LEFT]
    bne 2b
    adds r6, #12
    str r6, [sp, #V6D_TABLE]
    ldr r0, [sp, #V6D_RING]
    ldr r1, [sp, #V6D_LANE]
    adds r0, r0, r1
    str r0, [sp, #V6D_RING]
    ldr r0, [sp, #V6D_LANES]
    subs r0, #1
    str r0, [sp, #V6D_LANES]
    bne 1b
    add sp, #V6D_FRAME
    V6D_RETURN
    .endm

    V6D_SUMS jaq_v6m_dw_sums, 1
    V6D_SUMS jaq_v6m_dw_sums_3, 3

    @ r0: sums; r4: out; r5, r6: multiplier, bias; r7: largest code; r1, r3: outputs; r2: free;
    @ r10: table; r11: bytes between tables; r12: fours left; lr: lanes left.
    .macro V6D_LIMIT value
    cmp \value, r7
    bls 9f
    asrs \value, \value, #31
    mvns \value, \value
    ands \value, r7
9:
    .endm
    .macro V6D_NARROW value
    muls \value, r5, \value
    adds \value, \value, r6
    asrs \value, \value, #18
    V6D_LIMIT \value
    .endm
    .macro V6D_WIDE value
    adds \value, \value, r6
    asrs r2, \value, #10
    lsls \value, \value, #22
    lsrs \value, \value, #22
    muls \value, r5, \value
    asrs \value, \value, #10
    muls r2, r5, r2
    adds \value, \value, r2
    asrs \value, \value, #11
    adds \value, #1
    asrs \value, \value, #1
    V6D_LIMIT \value
    .endm

    .macro V6D_PAIRS rule, index
    ldmia r0!, {{r3}}
    sxth r1, r3
    subs r3, r3, r1
    asrs r3, r3, #16
    \rule r1
    strb r1, [r4, #\index]
    \rule r3
    strb r3, [r4, #\index+1]
    .endm
    .macro V6D_BYTES2 rule, index
    ldmia r0!, {{r3}}
    lsls r1, r3, #8
    lsrs r1, r1, #24
    \rule r1
    strb r1, [r4, #\index]
    lsrs r3, r3, #24
    \rule r3
    strb r3, [r4, #\index+1]
    .endm
    .macro V6D_BYTES1 rule, index
    ldmia r0!, {{r1}}
    lsls r1, r1, #8
    lsrs r1, r1, #24
    \rule r1
    strb r1, [r4, #\index]
    .endm
    .macro V6D_SINGLE rule, index
    ldmia r0!, {{r1}}
    \rule r1
    strb r1, [r4, #\index]
    .endm
    .macro V6D_TWO kind, rule
    \kind \rule, 0
    \kind \rule, 2
    \kind \rule, 4
    \kind \rule, 6
    adds r4, #8
    .endm
    .macro V6D_ONE kind, rule
    \kind \rule, 0
    \kind \rule, 1
    \kind \rule, 2
    \kind \rule, 3
    adds r4, #4
    .endm

    @ r1: four lifted outputs; r5-r7: what is added to them; r8: a one in every byte.
    .macro V6D_COUNT
    adds r3, r1, r5
    adds r2, r1, r6
    adds r1, r1, r7
    eors r3, r2
    eors r3, r1
    mov r1, r8
    lsrs r3, r3, #7
    ands r3, r1
    lsrs r2, r2, #7
    ands r2, r1
    lsls r2, r2, #1
    orrs r3, r2
    stmia r4!, {{r3}}
    .endm
    .macro V6D_COUNT_BYTES2 unused
    .rept 2
    ldmia r0!, {{r1, r2}}
    lsrs r1, r1, #16
    lsrs r2, r2, #16
    lsls r2, r2, #16
    orrs r1, r2
    V6D_COUNT
    .endr
    .endm
    .macro V6D_COUNT_BYTES1 unused
    ldmia r0!, {{r1, r2}}
    lsls r1, r1, #8
    lsrs r1, r1, #24
    lsls r2, r2, #8
    lsrs r2, r2, #24
    lsls r2, r2, #8
    orrs r1, r2
    ldmia r0!, {{r2, r3}}
    lsls r2, r2, #8
    lsrs r2, r2, #24
    lsls r2, r2, #16
    orrs r1, r2
    lsrs r3, r3, #16
    lsls r3, r3, #24
    orrs r1, r3
    V6D_COUNT
    .endm

    .macro V6D_FINISH name, counts, body, kind, rule
    V6D_ROUTINE \name
    ldmia r0!, {{r1-r7}}
    mov r0, r1
    mov r10, r2
    mov r11, r7
    mov lr, r6
    push {{r4, r5}}
    mov r4, r3
    .if \counts
    ldr r1, =0x01010101
    mov r8, r1
    .endif
1:
    mov r1, r10
    ldmia r1!, {{r5-r7}}
    add r1, r11
    mov r10, r1
    .if \counts == 0
    ldr r7, [sp]
    .endif
    ldr r1, [sp, #4]
    mov r12, r1
2:
    \body \kind \rule
    mov r1, r12
    subs r1, #1
    mov r12, r1
    beq 3f
    b 2b
3:
    mov r1, lr
    subs r1, #1
    mov lr, r1
    beq 4f
    b 1b
4:
    pop {{r4, r5}}
    V6D_RETURN
    .ltorg
    .endm

    V6D_FINISH jaq_v6m_dw_bytes2_count, 1, V6D_COUNT_BYTES2
    V6D_FINISH jaq_v6m_dw_bytes1_count, 1, V6D_COUNT_BYTES1
    V6D_FINISH jaq_v6m_dw_bytes2_narrow, 0, V6D_TWO, V6D_BYTES2, V6D_NARROW
    V6D_FINISH jaq_v6m_dw_bytes1_narrow, 0, V6D_ONE, V6D_BYTES1, V6D_NARROW
    V6D_FINISH jaq_v6m_dw_pairs_narrow, 0, V6D_TWO, V6D_PAIRS, V6D_NARROW
    V6D_FINISH jaq_v6m_dw_single_narrow, 0, V6D_ONE, V6D_SINGLE, V6D_NARROW
    V6D_FINISH jaq_v6m_dw_bytes2_wide, 0, V6D_TWO, V6D_BYTES2, V6D_WIDE
    V6D_FINISH jaq_v6m_dw_bytes1_wide, 0, V6D_ONE, V6D_BYTES1, V6D_WIDE
    V6D_FINISH jaq_v6m_dw_pairs_wide, 0, V6D_TWO, V6D_PAIRS, V6D_WIDE
    V6D_FINISH jaq_v6m_dw_single_wide, 0, V6D_ONE, V6D_SINGLE, V6D_WIDE

    .macro V6D_SPREAD_START name
    V6D_ROUTINE \name
    ldmia r0!, {{r1-r7}}
    mov r8, r3
    mov r9, r4
    mov r10, r1
    mov r11, r2
    mov r2, r5
    mov r3, r6
    .endm

    @ Two words of a lane. r2: out; r3: from lane to lane, less both words; r7: mask of codes.
    .macro V6D_EMIT2 first, second, shifts:vararg
    .irp shift, \shifts
    .if \shift == 0
    mov r0, \first
    mov r5, \second
    .else
    lsrs r0, \first, #\shift
    lsrs r5, \second, #\shift
    .endif
    ands r0, r7
    ands r5, r7
    stmia r2!, {{r0, r5}}
    adds r2, r2, r3
    .endr
    .endm

    .macro V6D_SPREAD name, shifts:vararg
    V6D_SPREAD_START \name
    subs r3, #8
    push {{r2, r7}}
1:
    mov r0, r10
    ldr r4, [r0]
    add r0, r8
    ldr r6, [r0]
    add r0, r8
    mov r10, r0
    mov r0, r11
    ldr r5, [r0]
    add r0, r8
    ldr r1, [r0]
    add r0, r8
    mov r11, r0
    lsrs r0, r4, #16
    lsrs r7, r5, #16
    lsls r7, r7, #16
    orrs r0, r7
    mov r12, r0
    uxth r4, r4
    lsls r5, r5, #16
    orrs r4, r5
    lsrs r0, r6, #16
    lsrs r7, r1, #16
    lsls r7, r7, #16
    orrs r0, r7
    mov lr, r0
    uxth r6, r6
    lsls r1, r1, #16
    orrs r6, r1
    ldr r2, [sp]
    ldr r7, [sp, #4]
    mov r1, r2
    adds r1, #8
    str r1, [sp]
    V6D_EMIT2 r4, r6, \shifts
    mov r4, r12
    mov r6, lr
    V6D_EMIT2 r4, r6, \shifts
    mov r5, r9
    subs r5, #2
    mov r9, r5
    beq 2f
    b 1b
2:
    pop {{r2, r7}}
    V6D_RETURN
    .endm
    V6D_SPREAD jaq_v6m_dw_spread_2, 0, 2, 4, 6, 8, 10, 12, 14
    V6D_SPREAD jaq_v6m_dw_spread_4, 0, 4, 8, 12
    V6D_SPREAD jaq_v6m_dw_spread_8, 0, 8

    @ A word of a lane. r2: out; r3: from lane to lane; r7: mask of codes; r5: free.
    .macro V6D_EMIT value, shifts:vararg
    .irp shift, \shifts
    .if \shift == 0
    mov r5, \value
    .else
    lsrs r5, \value, #\shift
    .endif
    ands r5, r7
    str r5, [r2]
    adds r2, r2, r3
    .endr
    .endm

    @ Bytes 0 and 1 of r4 and r5, which have those of pixels 0 and 2, 1 and 3.
    .macro V6D_BYTE_PAIR shifts:vararg
    mov r1, r8
    mov r6, r4
    ands r6, r1
    mov r7, r5
    ands r7, r1
    lsls r7, r7, #8
    orrs r6, r7
    lsrs r4, r4, #8
    ands r4, r1
    bics r5, r1
    orrs r4, r5
    mov r7, r11
    V6D_EMIT r6, \shifts
    V6D_EMIT r4, \shifts
    .endm

    .macro V6D_SPREAD_BYTES name, shifts:vararg
    V6D_SPREAD_START \name
    mov r0, r10
    mov r11, r7
    ldr r1, =0x00ff00ff
    mov r8, r1
1:
    ldmia r0!, {{r4, r5}}
    ldr r6, [r0]
    ldr r1, [r0, #4]
    mov r12, r2
    lsrs r7, r6, #16
    lsls r7, r7, #16
    lsrs r2, r4, #16
    orrs r7, r2
    mov r10, r7
    uxth r4, r4
    lsls r6, r6, #16
    orrs r4, r6
    lsrs r7, r1, #16
    lsls r7, r7, #16
    lsrs r2, r5, #16
    orrs r7, r2
    mov lr, r7
    uxth r5, r5
    lsls r1, r1, #16
    orrs r5, r1
    mov r2, r12
    V6D_BYTE_PAIR \shifts
    mov r4, r10
    mov r5, lr
    V6D_BYTE_PAIR \shifts
    mov r2, r12
    adds r2, #4
    mov r5, r9
    subs r5, #1
    mov r9, r5
    beq 2f
    b 1b
2:
    V6D_RETURN
    .ltorg
    .endm
    V6D_SPREAD_BYTES jaq_v6m_dw_spread_bytes_2, 0, 2, 4, 6
    V6D_SPREAD_BYTES jaq_v6m_dw_spread_bytes_4, 0, 4

    @ r0: planes; r1: from lane to lane; r2: fours; r3: pixels behind them; r4: out; r5: from pixel
    @ to pixel; r6: a byte of four pixels.
    .macro V6D_FOUR shifts:vararg
    ldr r6, [r0]
    .ifnb \shifts
    mov r12, r0
    .irp shift, \shifts
    adds r0, r0, r1
    ldr r7, [r0]
    lsls r7, r7, #\shift
    orrs r6, r7
    .endr
    mov r0, r12
    .endif
    .endm

    .macro V6D_COLUMNS name, shifts:vararg
    V6D_ROUTINE \name
    ldmia r0!, {{r1-r6}}
    mov r0, r1
    mov r1, r2
    mov r2, r3
    mov r3, r4
    mov r4, r5
    mov r5, r6
    cmp r2, #0
    beq 2f
1:
    V6D_FOUR \shifts
    strb r6, [r4]
    adds r4, r4, r5
    .rept 3
    lsrs r6, r6, #8
    strb r6, [r4]
    adds r4, r4, r5
    .endr
    adds r0, #4
    subs r2, #1
    bne 1b
2:
    cmp r3, #0
    beq 4f
    V6D_FOUR \shifts
3:
    strb r6, [r4]
    adds r4, r4, r5
    lsrs r6, r6, #8
    subs r3, #1
    bne 3b
4:
    V6D_RETURN
    .endm
    V6D_COLUMNS jaq_v6m_dw_columns_2, 2, 4, 6
    V6D_COLUMNS jaq_v6m_dw_columns_4, 4
    V6D_COLUMNS jaq_v6m_dw_columns_8
"#
);
