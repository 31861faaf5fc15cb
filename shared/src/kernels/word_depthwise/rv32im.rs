//! The routines of [`super::portable`] for RV32IM, in assembly.

use core::arch::global_asm;

use super::call::{ColumnsCall, FinishCall, SpreadCall, SumsCall, finisher};
use super::plan::Scheme;
use super::{Columns, Finish, Spread, Sums, portable};

unsafe extern "C" {
    fn jaq_rv_dw_sums(call: *const SumsCall);
    fn jaq_rv_dw_sums_3(call: *const SumsCall);
    fn jaq_rv_dw_bytes2_count(call: *const FinishCall);
    fn jaq_rv_dw_bytes1_count(call: *const FinishCall);
    fn jaq_rv_dw_bytes2_narrow(call: *const FinishCall);
    fn jaq_rv_dw_bytes1_narrow(call: *const FinishCall);
    fn jaq_rv_dw_pairs_narrow(call: *const FinishCall);
    fn jaq_rv_dw_single_narrow(call: *const FinishCall);
    fn jaq_rv_dw_bytes2_wide(call: *const FinishCall);
    fn jaq_rv_dw_bytes1_wide(call: *const FinishCall);
    fn jaq_rv_dw_pairs_wide(call: *const FinishCall);
    fn jaq_rv_dw_single_wide(call: *const FinishCall);
    fn jaq_rv_dw_spread_2(call: *const SpreadCall);
    fn jaq_rv_dw_spread_4(call: *const SpreadCall);
    fn jaq_rv_dw_spread_8(call: *const SpreadCall);
    fn jaq_rv_dw_spread_bytes_2(call: *const SpreadCall);
    fn jaq_rv_dw_spread_bytes_4(call: *const SpreadCall);
    fn jaq_rv_dw_columns_2(call: *const ColumnsCall);
    fn jaq_rv_dw_columns_4(call: *const ColumnsCall);
    fn jaq_rv_dw_columns_8(call: *const ColumnsCall);
}

type Finisher = unsafe extern "C" fn(*const FinishCall);

/// Requantizing routines in the order of [`finisher`].
const FINISHERS: [[Option<Finisher>; 3]; 4] = [
    [Some(jaq_rv_dw_bytes2_count), Some(jaq_rv_dw_bytes2_narrow), Some(jaq_rv_dw_bytes2_wide)],
    [Some(jaq_rv_dw_bytes1_count), Some(jaq_rv_dw_bytes1_narrow), Some(jaq_rv_dw_bytes1_wide)],
    [None, Some(jaq_rv_dw_pairs_narrow), Some(jaq_rv_dw_pairs_wide)],
    [None, Some(jaq_rv_dw_single_narrow), Some(jaq_rv_dw_single_wide)],
];

/// As the twin; nothing happens where a slice is too short.
pub fn sums(mut sums: Sums<'_>) {
    let threes = matches!(sums.offsets.len(), 3 | 6 | 9 | 12 | 15);
    let Some(call) = SumsCall::new(&mut sums) else { return };
    // SAFETY: `SumsCall` checked every length that the loops run over.
    unsafe { if threes { jaq_rv_dw_sums_3(&call) } else { jaq_rv_dw_sums(&call) } }
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
        (Scheme::Bytes, 2) => jaq_rv_dw_spread_bytes_2,
        (Scheme::Bytes, _) => jaq_rv_dw_spread_bytes_4,
        (_, 2) => jaq_rv_dw_spread_2,
        (_, 4) => jaq_rv_dw_spread_4,
        _ => jaq_rv_dw_spread_8,
    };
    SpreadCall::each(&mut spread, |call| {
        // SAFETY: `SpreadCall` checked that the line and the rows have all words of the plan.
        unsafe { routine(call) }
    });
}

/// As the twin; nothing happens where a slice is too short.
pub fn columns(mut columns: Columns<'_>) {
    let routine = match columns.storage {
        2 => jaq_rv_dw_columns_2,
        4 => jaq_rv_dw_columns_4,
        _ => jaq_rv_dw_columns_8,
    };
    let Some(call) = ColumnsCall::new(&mut columns) else { return };
    // SAFETY: `ColumnsCall` checked that every lane has whole fours and every pixel its byte.
    unsafe { routine(&call) }
}

global_asm!(
    r#"
    # The assembler does not know the target's extensions.
    .option push
    .option arch, +m, +c

    .macro RVD_ROUTINE name
    .section .text.\name,"ax",@progbits
    .p2align 2
    .global \name
    .type \name, @function
    \name:
    .endm

    # a1: offsets; a2: their end; a3: weights; a4: the words of the four sums in the first row;
    # a5: start; a6: fours left; a7: sums; s0-s3: four sums; s4: the lane's ring; s5: lanes left.
    .macro RVD_SUMS name, unroll
    RVD_ROUTINE \name
    addi sp, sp, -32
    sw s0, 0(sp)
    sw s1, 4(sp)
    sw s2, 8(sp)
    sw s3, 12(sp)
    sw s4, 16(sp)
    sw s5, 20(sp)
    sw s6, 24(sp)
    lw a2, 4(a0)
    lw s6, 8(a0)
    lw s4, 12(a0)
    lw s5, 24(a0)
    lw a5, 28(a0)
    lw a7, 32(a0)
1:
    mv a4, s4
    lw a6, 20(a0)
2:
    lw a1, 0(a0)
    mv a3, s6
    mv s0, a5
    mv s1, a5
    mv s2, a5
    mv s3, a5
3:
    .set RVD_AT, 0
    .rept \unroll
    lw t5, RVD_AT(a1)
    lw t4, RVD_AT(a3)
    add t5, t5, a4
    lw t0, 0(t5)
    lw t1, 4(t5)
    lw t2, 8(t5)
    lw t3, 12(t5)
    mul t0, t0, t4
    mul t1, t1, t4
    mul t2, t2, t4
    mul t3, t3, t4
    add s0, s0, t0
    add s1, s1, t1
    add s2, s2, t2
    add s3, s3, t3
    .set RVD_AT, RVD_AT+4
    .endr
    addi a1, a1, 4*\unroll
    addi a3, a3, 4*\unroll
    bne a1, a2, 3b
    sw s0, 0(a7)
    sw s1, 4(a7)
    sw s2, 8(a7)
    sw s3, 12(a7)
    addi a7, a7, 16
    addi a4, a4, 16
    addi a6, a6, -1
    bnez a6, 2b
    addi s6, a3, 12
    lw t0, 16(a0)
    add s4, s4, t0
    addi s5, s5, -1
    bnez s5, 1b
    lw s0, 0(sp)
    lw s1, 4(sp)
    lw s2, 8(sp)
    lw s3, 12(sp)
    lw s4, 16(sp)
    lw s5, 20(sp)
    lw s6, 24(sp)
    addi sp, sp, 32
    ret
    .endm

    RVD_SUMS jaq_rv_dw_sums, 1
    RVD_SUMS jaq_rv_dw_sums_3, 3

    # a1: sums; a2: table; a3: out; a4: largest code; a5: fours left; a6: lanes left;
    # t4, t5, t6: table; t0, t1: outputs; t2, t3: free; a7: a one in every byte.
    .macro RVD_LIMIT value
    bgeu a4, \value, 9f
    srai \value, \value, 31
    not \value, \value
    and \value, \value, a4
9:
    .endm
    .macro RVD_NARROW value
    mul \value, \value, t4
    add \value, \value, t5
    srai \value, \value, 18
    RVD_LIMIT \value
    .endm
    .macro RVD_WIDE value
    add \value, \value, t5
    mulh t3, \value, t6
    mul \value, \value, t6
    srli \value, \value, 31
    add \value, \value, t3
    RVD_LIMIT \value
    .endm
    .macro RVD_PAIRS rule, at, index
    lw t1, \at(a1)
    slli t0, t1, 16
    srai t0, t0, 16
    sub t1, t1, t0
    srai t1, t1, 16
    \rule t0
    sb t0, \index(a3)
    \rule t1
    sb t1, \index+1(a3)
    .endm
    .macro RVD_BYTES2 rule, at, index
    lbu t0, \at+2(a1)
    lbu t1, \at+3(a1)
    \rule t0
    sb t0, \index(a3)
    \rule t1
    sb t1, \index+1(a3)
    .endm
    .macro RVD_BYTES1 rule, at, index
    lbu t0, \at+2(a1)
    \rule t0
    sb t0, \index(a3)
    .endm
    .macro RVD_SINGLE rule, at, index
    lw t0, \at(a1)
    \rule t0
    sb t0, \index(a3)
    .endm
    .macro RVD_TWO kind, rule
    \kind \rule, 0, 0
    \kind \rule, 4, 2
    \kind \rule, 8, 4
    \kind \rule, 12, 6
    addi a3, a3, 8
    .endm
    .macro RVD_ONE kind, rule
    \kind \rule, 0, 0
    \kind \rule, 4, 1
    \kind \rule, 8, 2
    \kind \rule, 12, 3
    addi a3, a3, 4
    .endm

    # t0: four lifted outputs.
    .macro RVD_COUNT
    add t1, t0, t4
    add t2, t0, t5
    add t0, t0, t6
    xor t1, t1, t2
    xor t1, t1, t0
    srli t1, t1, 7
    and t1, t1, a7
    srli t2, t2, 7
    and t2, t2, a7
    slli t2, t2, 1
    or t1, t1, t2
    sw t1, 0(a3)
    addi a3, a3, 4
    .endm
    .macro RVD_COUNT_BYTES2 unused
    .irp at, 0, 8
    lw t0, \at(a1)
    lw t1, \at+4(a1)
    srli t0, t0, 16
    srli t1, t1, 16
    slli t1, t1, 16
    or t0, t0, t1
    RVD_COUNT
    .endr
    .endm
    .macro RVD_COUNT_BYTES1 unused
    lbu t0, 2(a1)
    lbu t1, 6(a1)
    lbu t2, 10(a1)
    lbu t3, 14(a1)
    slli t1, t1, 8
    slli t2, t2, 16
    slli t3, t3, 24
    or t0, t0, t1
    or t2, t2, t3
    or t0, t0, t2
    RVD_COUNT
    .endm

    .macro RVD_FINISH name, body, kind, rule
    RVD_ROUTINE \name
    lw a1, 0(a0)
    lw a2, 4(a0)
    lw a3, 8(a0)
    lw a4, 12(a0)
    lw a6, 20(a0)
    li a7, 0x01010101
1:
    lw t4, 0(a2)
    lw t5, 4(a2)
    lw t6, 8(a2)
    .ifc \rule, RVD_WIDE
    slli t6, t4, 10
    .endif
    lw a5, 24(a0)
    add a2, a2, a5
    addi a2, a2, 12
    lw a5, 16(a0)
2:
    \body \kind \rule
    addi a1, a1, 16
    addi a5, a5, -1
    beqz a5, 3f
    j 2b
3:
    addi a6, a6, -1
    beqz a6, 4f
    j 1b
4:
    ret
    .endm

    RVD_FINISH jaq_rv_dw_bytes2_count, RVD_COUNT_BYTES2
    RVD_FINISH jaq_rv_dw_bytes1_count, RVD_COUNT_BYTES1
    RVD_FINISH jaq_rv_dw_bytes2_narrow, RVD_TWO, RVD_BYTES2, RVD_NARROW
    RVD_FINISH jaq_rv_dw_bytes1_narrow, RVD_ONE, RVD_BYTES1, RVD_NARROW
    RVD_FINISH jaq_rv_dw_pairs_narrow, RVD_TWO, RVD_PAIRS, RVD_NARROW
    RVD_FINISH jaq_rv_dw_single_narrow, RVD_ONE, RVD_SINGLE, RVD_NARROW
    RVD_FINISH jaq_rv_dw_bytes2_wide, RVD_TWO, RVD_BYTES2, RVD_WIDE
    RVD_FINISH jaq_rv_dw_bytes1_wide, RVD_ONE, RVD_BYTES1, RVD_WIDE
    RVD_FINISH jaq_rv_dw_pairs_wide, RVD_TWO, RVD_PAIRS, RVD_WIDE
    RVD_FINISH jaq_rv_dw_single_wide, RVD_ONE, RVD_SINGLE, RVD_WIDE

    # a1, a2: pixels; a3: to the next; a4: words left; a5: rows; a6: from lane to lane; a7: mask;
    # t6: a lane's word; t5: free.
    .macro RVD_SPREAD_START name
    RVD_ROUTINE \name
    lw a1, 0(a0)
    lw a2, 4(a0)
    lw a3, 8(a0)
    lw a4, 12(a0)
    lw a5, 16(a0)
    lw a6, 20(a0)
    lw a7, 24(a0)
    .endm
    .macro RVD_EMIT value, shifts:vararg
    .irp shift, \shifts
    .if \shift == 0
    and t5, \value, a7
    .else
    srli t5, \value, \shift
    and t5, t5, a7
    .endif
    sw t5, 0(t6)
    add t6, t6, a6
    .endr
    .endm
    .macro RVD_NEXT
    addi a5, a5, 4
    addi a4, a4, -1
    beqz a4, 2f
    j 1b
2:
    ret
    .endm

    .macro RVD_SPREAD name, shifts:vararg
    RVD_SPREAD_START \name
1:
    lw t0, 0(a1)
    lw t1, 0(a2)
    add a1, a1, a3
    add a2, a2, a3
    mv t6, a5
    slli t2, t0, 16
    srli t2, t2, 16
    slli t3, t1, 16
    or t2, t2, t3
    srli t0, t0, 16
    srli t1, t1, 16
    slli t1, t1, 16
    or t0, t0, t1
    RVD_EMIT t2, \shifts
    RVD_EMIT t0, \shifts
    RVD_NEXT
    .endm
    RVD_SPREAD jaq_rv_dw_spread_2, 0, 2, 4, 6, 8, 10, 12, 14
    RVD_SPREAD jaq_rv_dw_spread_4, 0, 4, 8, 12
    RVD_SPREAD jaq_rv_dw_spread_8, 0, 8

    # Bytes 0 and 1 of x and y, which have those of pixels 0 and 2, 1 and 3; a0: every other byte.
    .macro RVD_BYTE_PAIR x, y, shifts:vararg
    and t2, \x, a0
    and t3, \y, a0
    slli t3, t3, 8
    or t2, t2, t3
    RVD_EMIT t2, \shifts
    srli t2, \x, 8
    and t2, t2, a0
    srli t3, \y, 8
    and t3, t3, a0
    slli t3, t3, 8
    or t2, t2, t3
    RVD_EMIT t2, \shifts
    .endm
    .macro RVD_SPREAD_BYTES name, shifts:vararg
    RVD_SPREAD_START \name
    li a0, 0x00ff00ff
1:
    lw t0, 0(a1)
    lw t1, 4(a1)
    lw t2, 8(a1)
    lw t3, 12(a1)
    add a1, a1, a3
    mv t6, a5
    srli t4, t0, 16
    srli t5, t2, 16
    slli t5, t5, 16
    or t4, t4, t5
    slli t0, t0, 16
    srli t0, t0, 16
    slli t2, t2, 16
    or t0, t0, t2
    srli a2, t1, 16
    srli t5, t3, 16
    slli t5, t5, 16
    or a2, a2, t5
    slli t1, t1, 16
    srli t1, t1, 16
    slli t3, t3, 16
    or t1, t1, t3
    RVD_BYTE_PAIR t0, t1, \shifts
    RVD_BYTE_PAIR t4, a2, \shifts
    RVD_NEXT
    .endm
    RVD_SPREAD_BYTES jaq_rv_dw_spread_bytes_2, 0, 2, 4, 6
    RVD_SPREAD_BYTES jaq_rv_dw_spread_bytes_4, 0, 4

    # a1: planes; a2: from lane to lane; a3: fours; a4: pixels behind them; a5: out; a6: from pixel
    # to pixel; t0: a byte of four pixels.
    .macro RVD_FOUR shifts:vararg
    lw t0, 0(a1)
    .ifnb \shifts
    mv t1, a1
    .irp shift, \shifts
    add t1, t1, a2
    lw t2, 0(t1)
    slli t2, t2, \shift
    or t0, t0, t2
    .endr
    .endif
    .endm
    .macro RVD_COLUMNS name, shifts:vararg
    RVD_ROUTINE \name
    lw a1, 0(a0)
    lw a2, 4(a0)
    lw a3, 8(a0)
    lw a4, 12(a0)
    lw a5, 16(a0)
    lw a6, 20(a0)
    beqz a3, 2f
1:
    RVD_FOUR \shifts
    sb t0, 0(a5)
    add a5, a5, a6
    .rept 3
    srli t0, t0, 8
    sb t0, 0(a5)
    add a5, a5, a6
    .endr
    addi a1, a1, 4
    addi a3, a3, -1
    bnez a3, 1b
2:
    beqz a4, 4f
    RVD_FOUR \shifts
3:
    sb t0, 0(a5)
    add a5, a5, a6
    srli t0, t0, 8
    addi a4, a4, -1
    bnez a4, 3b
4:
    ret
    .endm
    RVD_COLUMNS jaq_rv_dw_columns_2, 2, 4, 6
    RVD_COLUMNS jaq_rv_dw_columns_4, 4
    RVD_COLUMNS jaq_rv_dw_columns_8
    .option pop
"#
);
