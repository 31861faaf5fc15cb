//! Row routines of depthwise layers for Armv7E-M with DSP instructions and single-precision
//! registers, in assembly; [`super::portable`] is their twin.

use core::arch::global_asm;

use super::depthwise::{LANES, Lane, Rows};
use super::portable;
use crate::format::{Bits, Requant};

/// A lane's weights in halves, multiplier and bias, in the order the assembly loads them.
///
/// 3 x 3: weights 0 and 2 of the three rows, weight 1 of rows 0 and 1, of row 2, bias,
/// multiplier. 5 x 5: multiplier, bias, and of every row weights 0 and 2, 1 and 3, 4.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct PackedLane([u32; 17]);

/// Arguments of the row routines, which step through them lane by lane.
#[repr(C)]
struct RowCall<const K: usize> {
    rows: [*const u8; K],
    out: *mut u8,
    plane: usize,
    out_plane: usize,
    outputs: usize,
    lanes: *const PackedLane,
    left: usize,
}

type Row3 = RowCall<3>;
type Row5 = RowCall<5>;

unsafe extern "C" {
    fn jaq_v7em_row3_narrow2(call: *mut Row3);
    fn jaq_v7em_row3_narrow3(call: *mut Row3);
    fn jaq_v7em_row3_narrow4(call: *mut Row3);
    fn jaq_v7em_row3_narrow8(call: *mut Row3);
    fn jaq_v7em_row3_wide(call: *mut Row3);
    fn jaq_v7em_row3s2_narrow2(call: *mut Row3);
    fn jaq_v7em_row3s2_narrow3(call: *mut Row3);
    fn jaq_v7em_row3s2_narrow4(call: *mut Row3);
    fn jaq_v7em_row3s2_narrow8(call: *mut Row3);
    fn jaq_v7em_row3s2_wide(call: *mut Row3);
    fn jaq_v7em_row5_narrow2(call: *mut Row5);
    fn jaq_v7em_row5_narrow3(call: *mut Row5);
    fn jaq_v7em_row5_narrow4(call: *mut Row5);
    fn jaq_v7em_row5_narrow8(call: *mut Row5);
    fn jaq_v7em_row5_wide(call: *mut Row5);
    fn jaq_v7em_row5s2_narrow2(call: *mut Row5);
    fn jaq_v7em_row5s2_narrow3(call: *mut Row5);
    fn jaq_v7em_row5s2_narrow4(call: *mut Row5);
    fn jaq_v7em_row5s2_narrow8(call: *mut Row5);
    fn jaq_v7em_row5s2_wide(call: *mut Row5);
}

/// The packed form of `lane`.
pub fn pack_lane(lane: &Lane, columns: usize) -> PackedLane {
    let w = &lane.weights;
    let (multiplier, bias) = (lane.finish.multiplier as u32, lane.finish.bias as u32);
    let mut packed = [0; 17];
    if columns == 3 {
        let [s0, s1, s2, m0, m1, b, m, ..] = &mut packed;
        [*s0, *s1, *s2] = [halves(w[0], w[2]), halves(w[3], w[5]), halves(w[6], w[8])];
        [*m0, *m1, *b, *m] = [halves(w[1], w[4]), halves(w[7], 0), bias, multiplier];
    } else {
        let [m, b, rows @ ..] = &mut packed;
        (*m, *b) = (multiplier, bias);
        for (to, w) in rows.as_chunks_mut::<3>().0.iter_mut().zip(w.as_chunks::<5>().0) {
            *to = [halves(w[0], w[2]), halves(w[1], w[3]), halves(w[4], 0)];
        }
    }
    PackedLane(packed)
}

fn halves(low: i32, high: i32) -> u32 {
    (low & 0xffff) as u32 | (high as u32) << 16
}

/// [`portable::rows`]; may write up to three outputs more, into the room of a lane's row.
pub fn rows(rows: &Rows<'_>, lanes: &[Lane], packed: &mut [PackedLane; LANES], out: &mut [u8]) {
    let outputs = rows.count.next_multiple_of(4);
    let stride = rows.stride;
    let sound = rows.starts.iter().all(|start| start + rows.row <= rows.plane)
        && rows.row >= outputs * stride + 5
        && rows.planes.len() >= lanes.len() * rows.plane
        && rows.out_plane >= outputs
        && out.len() >= lanes.len() * rows.out_plane
        && rows.count > 0
        && (1..=LANES).contains(&lanes.len())
        && (1..=2).contains(&stride);
    if let (true, Some(lane)) = (sound, lanes.first()) {
        // SAFETY (of both calls): every row holds `outputs * stride + 5` bytes within its plane,
        // more than the routine reads, and every lane of `out` the outputs it writes, all checked
        // above for as many lanes as `packed` has at most; bytes need no alignment.
        match (rows.columns, rows.starts.try_into().ok(), rows.starts.try_into().ok()) {
            (3, Some(starts), _) => {
                if let Some(routine) = row3(lane, stride) {
                    let mut call = row_call(rows, starts, packed, out, outputs, lanes.len());
                    // SAFETY: as said above.
                    return unsafe { routine(&mut call) };
                }
            }
            (5, _, Some(starts)) => {
                if let Some(routine) = row5(lane, stride) {
                    let outputs = rows.count.next_multiple_of(2);
                    let mut call = row_call(rows, starts, packed, out, outputs, lanes.len());
                    // SAFETY: as said above.
                    return unsafe { routine(&mut call) };
                }
            }
            _ => {}
        }
    }
    portable::rows(rows, lanes, &mut [(); LANES], out);
}

#[inline(always)]
fn row_call<const K: usize>(
    rows: &Rows<'_>,
    starts: &[usize; K],
    packed: &[PackedLane; LANES],
    out: &mut [u8],
    outputs: usize,
    left: usize,
) -> RowCall<K> {
    let first = rows.planes.as_ptr();
    RowCall {
        rows: starts.map(|start| first.wrapping_add(start)),
        out: out.as_mut_ptr(),
        plane: rows.plane,
        out_plane: rows.out_plane,
        outputs,
        lanes: packed.as_ptr(),
        left,
    }
}

fn row3(lane: &Lane, stride: usize) -> Option<unsafe extern "C" fn(*mut Row3)> {
    Some(match (lane.finish.requant, lane.finish.output, stride) {
        (Requant::Wide, Bits::B8, 1) => jaq_v7em_row3_wide,
        (Requant::Wide, Bits::B8, _) => jaq_v7em_row3s2_wide,
        (Requant::Narrow, Bits::B2, 1) => jaq_v7em_row3_narrow2,
        (Requant::Narrow, Bits::B2, _) => jaq_v7em_row3s2_narrow2,
        (Requant::Narrow, Bits::B3, 1) => jaq_v7em_row3_narrow3,
        (Requant::Narrow, Bits::B3, _) => jaq_v7em_row3s2_narrow3,
        (Requant::Narrow, Bits::B4, 1) => jaq_v7em_row3_narrow4,
        (Requant::Narrow, Bits::B4, _) => jaq_v7em_row3s2_narrow4,
        (Requant::Narrow, Bits::B8, 1) => jaq_v7em_row3_narrow8,
        (Requant::Narrow, Bits::B8, _) => jaq_v7em_row3s2_narrow8,
        _ => return None,
    })
}

fn row5(lane: &Lane, stride: usize) -> Option<unsafe extern "C" fn(*mut Row5)> {
    Some(match (lane.finish.requant, lane.finish.output, stride) {
        (Requant::Wide, Bits::B8, 1) => jaq_v7em_row5_wide,
        (Requant::Wide, Bits::B8, _) => jaq_v7em_row5s2_wide,
        (Requant::Narrow, Bits::B2, 1) => jaq_v7em_row5_narrow2,
        (Requant::Narrow, Bits::B2, _) => jaq_v7em_row5s2_narrow2,
        (Requant::Narrow, Bits::B3, 1) => jaq_v7em_row5_narrow3,
        (Requant::Narrow, Bits::B3, _) => jaq_v7em_row5s2_narrow3,
        (Requant::Narrow, Bits::B4, 1) => jaq_v7em_row5_narrow4,
        (Requant::Narrow, Bits::B4, _) => jaq_v7em_row5s2_narrow4,
        (Requant::Narrow, Bits::B8, 1) => jaq_v7em_row5_narrow8,
        (Requant::Narrow, Bits::B8, _) => jaq_v7em_row5s2_narrow8,
        _ => return None,
    })
}

global_asm!(
    env!("JAQ_ASM_CPU"),
    r#"
    .syntax unified
    .fpu fpv4-sp-d16
    .thumb

    .macro SECTION_ROUTINE name
    .section .text.\name,"ax",%progbits
    .p2align 2
    .global \name
    .type \name, %function
    .thumb_func
    \name:
    .endm

    @ 3 x 3 rows. r1-r3: input rows; r4-r6: side weights; r7, r8: middle weights; r9: bias;
    @ r10, r11: two outputs; r12: out; r0, lr: codes. s0: multiplier, s1: end of out.
    .macro ROW3_START
    push {{r0, r4-r11, lr}}
5:
    ldr r0, [sp]
    ldmia r0, {{r1-r3, r12}}
    ldrd r10, r11, [r0, #16]
    add r4, r1, r10
    add r5, r2, r10
    add r6, r3, r10
    add r7, r12, r11
    stmia r0, {{r4-r7}}
    ldrd r10, r11, [r0, #24]
    add lr, r12, r10
    ldmia r11, {{r4-r10}}
    adds r11, #68
    str r11, [r0, #28]
    vmov s0, s1, r10, lr
1:
    .endm

    .macro ROW3_TAPS row, sides, middle, low, high
    ldr lr, [\row], #2
    uxtb16 r0, lr
    uxtb16 lr, lr, ror #8
    smlad r10, r0, \sides, r10
    smlad r11, lr, \sides, r11
    \low r10, lr, \middle, r10
    \high r11, r0, \middle, r11
    .endm

    .macro ROW3_FIRST wide
    ldr lr, [r1], #2
    uxtb16 r0, lr
    uxtb16 lr, lr, ror #8
    .if \wide
    smlad r10, r0, r4, r9
    smlad r11, lr, r4, r9
    .else
    smuad r10, r0, r4
    smuad r11, lr, r4
    .endif
    smlabb r10, lr, r7, r10
    smlatb r11, r0, r7, r11
    .endm

    .macro ROW3_FINISH bits, wide
    vmov lr, s0
    .if \wide
    smmulr r10, r10, lr
    smmulr r11, r11, lr
    usat r10, #\bits, r10
    usat r11, #\bits, r11
    .else
    mla r10, r10, lr, r9
    mla r11, r11, lr, r9
    usat r10, #\bits, r10, asr #18
    usat r11, #\bits, r11, asr #18
    .endif
    orr r10, r10, r11, lsl #8
    strh r10, [r12], #2
    .endm

    .macro ROW3_END
    vmov lr, s1
    cmp r12, lr
    bne 1b
    ldr r0, [sp]
    ldr r1, [r0, #32]
    subs r1, #1
    str r1, [r0, #32]
    bne 5b
    pop {{r0, r4-r11, pc}}
    .endm

    .macro ROW3 bits, wide
    ROW3_START
    .rept 2
    ROW3_FIRST \wide
    ROW3_TAPS r2, r5, r7, smlabt, smlatt
    ROW3_TAPS r3, r6, r8, smlabb, smlatb
    ROW3_FINISH \bits, \wide
    .endr
    ROW3_END
    .endm

    @ Stride 2: two outputs, one after the other.
    .macro ROW3S2_TAPS row, sides, middle, low, acc
    ldr lr, [\row], #2
    uxtb16 r0, lr
    ubfx lr, lr, #8, #8
    smlad \acc, r0, \sides, \acc
    \low \acc, lr, \middle, \acc
    .endm

    .macro ROW3S2_OUTPUT acc, wide
    ldr lr, [r1], #2
    uxtb16 r0, lr
    ubfx lr, lr, #8, #8
    .if \wide
    smlad \acc, r0, r4, r9
    .else
    smuad \acc, r0, r4
    .endif
    smlabb \acc, lr, r7, \acc
    ROW3S2_TAPS r2, r5, r7, smlabt, \acc
    ROW3S2_TAPS r3, r6, r8, smlabb, \acc
    .endm

    .macro ROW3S2 bits, wide
    ROW3_START
    .rept 2
    ROW3S2_OUTPUT r10, \wide
    ROW3S2_OUTPUT r11, \wide
    ROW3_FINISH \bits, \wide
    .endr
    ROW3_END
    .endm

    SECTION_ROUTINE jaq_v7em_row3_narrow2
    ROW3 2, 0
    SECTION_ROUTINE jaq_v7em_row3_narrow3
    ROW3 3, 0
    SECTION_ROUTINE jaq_v7em_row3_narrow4
    ROW3 4, 0
    SECTION_ROUTINE jaq_v7em_row3_narrow8
    ROW3 8, 0
    SECTION_ROUTINE jaq_v7em_row3_wide
    ROW3 8, 1
    SECTION_ROUTINE jaq_v7em_row3s2_narrow2
    ROW3S2 2, 0
    SECTION_ROUTINE jaq_v7em_row3s2_narrow3
    ROW3S2 3, 0
    SECTION_ROUTINE jaq_v7em_row3s2_narrow4
    ROW3S2 4, 0
    SECTION_ROUTINE jaq_v7em_row3s2_narrow8
    ROW3S2 8, 0
    SECTION_ROUTINE jaq_v7em_row3s2_wide
    ROW3S2 8, 1

    @ 5 x 5 rows. r0: weights; r1: position; r2: row; r3, r4: codes; r5-r7: weights of the row;
    @ r8, r9: two outputs; r10, r11: pairs; r12: out; lr: end. s0-s4: rows; s5: multiplier;
    @ s6: bias; s7: weights.
    .macro ROW5_START
    push {{r0, r4-r11, lr}}
5:
    ldr r0, [sp]
    vldmia r0, {{s0-s4}}
    ldmia r0, {{r1-r5, r12}}
    ldrd r10, r11, [r0, #24]
    add r1, r10
    add r2, r10
    add r3, r10
    add r4, r10
    add r5, r10
    add r6, r12, r11
    stmia r0, {{r1-r6}}
    ldrd r10, r11, [r0, #32]
    add lr, r12, r10
    add r10, r11, #68
    str r10, [r0, #36]
    vldmia r11!, {{s5, s6}}
    vmov s7, r11
    movs r1, #0
1:
    .endm

    .macro ROW5_TAPS row
    vmov r2, \row
    add r2, r1
    ldmia r0!, {{r5-r7}}
    ldr r3, [r2]
    ldr r4, [r2, #2]
    uxtb16 r10, r3
    uxtb16 r11, r3, ror #8
    smlad r8, r10, r5, r8
    smlad r8, r11, r6, r8
    smlad r9, r11, r5, r9
    uxtb16 r10, r4
    uxtb16 r11, r4, ror #8
    smlad r9, r10, r6, r9
    smlatb r8, r10, r7, r8
    smlatb r9, r11, r7, r9
    .endm

    .macro ROW5S2_TAPS row
    vmov r2, \row
    add r2, r1
    ldmia r0!, {{r5-r7}}
    ldr r3, [r2]
    uxtb16 r10, r3
    uxtb16 r11, r3, ror #8
    smlad r8, r10, r5, r8
    smlad r8, r11, r6, r8
    ldr r3, [r2, #2]
    ldr r4, [r2, #4]
    uxtb16 r10, r3
    uxtb16 r11, r3, ror #8
    smlatb r8, r10, r7, r8
    smlad r9, r10, r5, r9
    smlad r9, r11, r6, r9
    uxtb16 r10, r4
    smlatb r9, r10, r7, r9
    .endm

    .macro ROW5 taps, step, bits, wide
    ROW5_START
    vmov r0, s7
    .if \wide
    vmov r8, s6
    mov r9, r8
    .else
    movs r8, #0
    mov r9, r8
    .endif
    \taps s0
    \taps s1
    \taps s2
    \taps s3
    \taps s4
    vmov r3, r4, s5, s6
    .if \wide
    smmulr r8, r8, r3
    smmulr r9, r9, r3
    usat r8, #\bits, r8
    usat r9, #\bits, r9
    .else
    mla r8, r8, r3, r4
    mla r9, r9, r3, r4
    usat r8, #\bits, r8, asr #18
    usat r9, #\bits, r9, asr #18
    .endif
    orr r8, r8, r9, lsl #8
    strh r8, [r12], #2
    adds r1, #\step
    cmp r12, lr
    bne 1b
    ldr r0, [sp]
    ldr r1, [r0, #40]
    subs r1, #1
    str r1, [r0, #40]
    bne 5b
    pop {{r0, r4-r11, pc}}
    .endm

    SECTION_ROUTINE jaq_v7em_row5_narrow2
    ROW5 ROW5_TAPS, 2, 2, 0
    SECTION_ROUTINE jaq_v7em_row5_narrow3
    ROW5 ROW5_TAPS, 2, 3, 0
    SECTION_ROUTINE jaq_v7em_row5_narrow4
    ROW5 ROW5_TAPS, 2, 4, 0
    SECTION_ROUTINE jaq_v7em_row5_narrow8
    ROW5 ROW5_TAPS, 2, 8, 0
    SECTION_ROUTINE jaq_v7em_row5_wide
    ROW5 ROW5_TAPS, 2, 8, 1
    SECTION_ROUTINE jaq_v7em_row5s2_narrow2
    ROW5 ROW5S2_TAPS, 4, 2, 0
    SECTION_ROUTINE jaq_v7em_row5s2_narrow3
    ROW5 ROW5S2_TAPS, 4, 3, 0
    SECTION_ROUTINE jaq_v7em_row5s2_narrow4
    ROW5 ROW5S2_TAPS, 4, 4, 0
    SECTION_ROUTINE jaq_v7em_row5s2_narrow8
    ROW5 ROW5S2_TAPS, 4, 8, 0
    SECTION_ROUTINE jaq_v7em_row5s2_wide
    ROW5 ROW5S2_TAPS, 4, 8, 1
    "#
);
