//! Row routines of depthwise layers for Armv7E-M with DSP instructions and single-precision
//! registers, in assembly; [`super::portable_planes`] is their twin.
//!
//! Instructions an output of 3 x 3, without what a lane costs: 4.1 on [`Planes::Bytes`] (three
//! `SMLAL` serve four outputs), 7.2 on [`Planes::Triples`], 12.3 on [`Planes::Halves`]; 32.5 of
//! 5 x 5. `SMLAL`, `LDRD` and `MLA` take two cycles on an M4, the others one.

use core::arch::global_asm;

use super::depthwise::{Block, Lane, Planes, Rule};
use super::requant::WIDE_UPPER;
use super::{KernelId, linked};
use crate::format::{Bits, Requant};

/// A lane's weights and tables, in the order the assembly loads them.
///
/// Bytes: third threshold, the rows' W-words, first and second threshold. Triples: lift of the
/// carry, W-words, multiplier, bias. Halves: of every row weights (0, 1) and (1, 2), or (0, 1),
/// (2, 3), (1, 2) and (3, 4); multiplier, bias, bias.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct PackedLane(pub [u32; PACKED_WORDS]);

/// Words of a packed lane; the assembly knows it as `LANE_BYTES`.
pub const PACKED_WORDS: usize = 23;

/// Arguments of the row routines, which run one lane after the other.
#[repr(C)]
pub struct RowCall {
    /// From the end of a lane's rows to the next lane in the ring.
    pub row_next: usize,
    /// The same in the output.
    pub out_next: usize,
    /// Bytes of a lane's outputs.
    pub span: usize,
    /// The first lane.
    pub lanes: *const PackedLane,
    /// Lanes.
    pub left: usize,
    /// Outputs of the first lane.
    pub out: *mut u8,
    /// Rows of the first lane.
    pub rows: [*const u32; MOST_ROWS],
}

/// Most rows of a window that has a routine.
pub const MOST_ROWS: usize = 5;

/// Convolves a row of lanes.
pub type Routine = unsafe extern "C" fn(*const RowCall);

/// What lifts the fields of [`Planes::Triples`]: accumulators of 4-bit codes stay within 12 bits.
const TRIPLE_LIFT: i32 = 1 << 11;

unsafe extern "C" {
    fn jaq_v7em_bytes(call: *const RowCall);
    fn jaq_v7em_triples_narrow2(call: *const RowCall);
    fn jaq_v7em_triples_narrow3(call: *const RowCall);
    fn jaq_v7em_triples_narrow4(call: *const RowCall);
    fn jaq_v7em_triples_narrow8(call: *const RowCall);
    fn jaq_v7em_triples_wide(call: *const RowCall);
    fn jaq_v7em_halves_narrow2(call: *const RowCall);
    fn jaq_v7em_halves_narrow3(call: *const RowCall);
    fn jaq_v7em_halves_narrow4(call: *const RowCall);
    fn jaq_v7em_halves_narrow8(call: *const RowCall);
    fn jaq_v7em_halves_wide(call: *const RowCall);
    fn jaq_v7em_halves_s2_narrow2(call: *const RowCall);
    fn jaq_v7em_halves_s2_narrow3(call: *const RowCall);
    fn jaq_v7em_halves_s2_narrow4(call: *const RowCall);
    fn jaq_v7em_halves_s2_narrow8(call: *const RowCall);
    fn jaq_v7em_halves_s2_wide(call: *const RowCall);
    fn jaq_v7em_five_narrow2(call: *const RowCall);
    fn jaq_v7em_five_narrow3(call: *const RowCall);
    fn jaq_v7em_five_narrow4(call: *const RowCall);
    fn jaq_v7em_five_narrow8(call: *const RowCall);
    fn jaq_v7em_five_wide(call: *const RowCall);
    fn jaq_v7em_five_s2_narrow2(call: *const RowCall);
    fn jaq_v7em_five_s2_narrow3(call: *const RowCall);
    fn jaq_v7em_five_s2_narrow4(call: *const RowCall);
    fn jaq_v7em_five_s2_narrow8(call: *const RowCall);
    fn jaq_v7em_five_s2_wide(call: *const RowCall);
}

/// Limits every byte to the codes of `bits`: what the wide routines leave too large of codes
/// narrower than bytes ([`Requant::COARSE`]).
pub fn cut(words: &mut [u32], bits: Bits) {
    let most = bits.max_unsigned();
    let (codes, above) = (most * 0x0101_0101, (0xff - most) * 0x0101_0101);
    for word in words {
        let over = *word & above;
        // Bit 7 of every byte that is not 0.
        let over = (((over & 0x7f7f_7f7f) + 0x7f7f_7f7f) | over) & 0x8080_8080;
        *word = (*word | (over >> 7) * most) & codes;
    }
}

/// A lane's tables for its routine, and by how much its weights are shifted to the left.
///
/// [`Requant::COARSE`], `((acc + B) * M + 2^21) >> 22`, is the upper word of `((acc + B) << l) * (M << (10 - l))`,
/// rounded, for any `l` that keeps both factors within 32 bits; shifting the weights shifts the
/// accumulator at no cost. `None` where weights, bias or accumulator leave no room.
#[inline(always)]
fn tables(lane: &Lane, block: &Block) -> Option<(i32, i32, u32)> {
    let (m, b) = (lane.multiplier, lane.bias);
    if !matches!(block.rule, Rule::Scale(Requant::COARSE, _)) {
        return Some((m, b, 0));
    }
    let widest = block.weight.half();
    let left = (32 - m.unsigned_abs().leading_zeros()).saturating_sub(31 - WIDE_UPPER);
    let reach = u64::from(block.input.bits.max_unsigned() * widest) * block.window.taps() as u64
        + u64::from(b.unsigned_abs());
    let fits = left <= WIDE_UPPER && reach << left < 1 << 31 && widest << left < 1 << 15;
    fits.then(|| (m << (WIDE_UPPER - left), b << left, left))
}

/// Fills in the packed form of `lane`. Returns whether it can go through its rule's routine.
#[inline(always)]
pub fn pack_lane(lane: &Lane, block: &Block, packed: &mut PackedLane) -> bool {
    let Some((m, b, left)) = tables(lane, block) else { return false };
    let Block { planes, rule, .. } = *block;
    let w = &lane.weights;
    let half = |w: i8| u32::from((i32::from(w) << left) as u16);
    let halves = |low: i8, high: i8| half(low) | half(high) << 16;
    let spaced = |row: usize| {
        let [w0, w1, w2] = [0, 1, 2].map(|i| i32::from(w[3 * row + i]));
        let s = planes.spacing();
        (w2 + (w1 << s) + (w0 << (2 * s))) as u32
    };
    let words = &mut packed.0;
    match (planes, block.window.kw) {
        (Planes::Bytes, _) => {
            let [t1, t2, t3] = [0, 8, 16].map(|i| (m as u32 >> i & 0xff) * 0x0101_0101);
            words[..6].copy_from_slice(&[t3, spaced(0), spaced(1), spaced(2), t1, t2]);
        }
        (Planes::Triples, _) => {
            // Lifts fields 2 to 4; the last two carry it to fields 0 and 1.
            let lift = (TRIPLE_LIFT >> 8 | TRIPLE_LIFT << 4 | TRIPLE_LIFT << 16) as u32;
            let b = match rule {
                Rule::Scale(Requant::Narrow, _) => b.wrapping_sub(TRIPLE_LIFT.wrapping_mul(m)),
                _ => b.wrapping_sub(TRIPLE_LIFT),
            };
            words[..6].copy_from_slice(&[
                lift,
                spaced(0),
                spaced(1),
                spaced(2),
                m as u32,
                b as u32,
            ]);
        }
        (Planes::Halves, 3) => {
            for (to, w) in words.as_chunks_mut::<2>().0.iter_mut().zip(w.as_chunks::<3>().0).take(3)
            {
                *to = [halves(w[0], w[1]), halves(w[1], w[2])];
            }
            words[6..9].copy_from_slice(&[m as u32, b as u32, b as u32]);
        }
        (Planes::Halves, _) => {
            words[..3].copy_from_slice(&[m as u32, b as u32, b as u32]);
            let rows = words[3..].as_chunks_mut::<4>().0.iter_mut();
            for (to, w) in rows.zip(w.as_chunks::<5>().0) {
                *to = [
                    halves(w[0], w[1]),
                    halves(w[2], w[3]),
                    halves(w[1], w[2]),
                    halves(w[3], w[4]),
                ];
            }
        }
    }
    true
}

/// The routines of a kind by rule.
macro_rules! by_rule {
    ($rule:expr, $narrow2:ident $narrow3:ident $narrow4:ident $narrow8:ident $wide:ident) => {
        match $rule {
            Rule::Scale(Requant::Wide, Bits::B8) | Rule::Scale(Requant::COARSE, _)
                if const { serves("wide") || serves("general") } =>
            {
                Some($wide as Routine)
            }
            Rule::Scale(Requant::Narrow, Bits::B2) if const { narrow(Bits::B2) } => {
                Some($narrow2 as Routine)
            }
            Rule::Scale(Requant::Narrow, Bits::B3) if const { narrow(Bits::B3) } => {
                Some($narrow3 as Routine)
            }
            Rule::Scale(Requant::Narrow, Bits::B4) if const { narrow(Bits::B4) } => {
                Some($narrow4 as Routine)
            }
            Rule::Scale(Requant::Narrow, Bits::B8) if const { narrow(Bits::B8) } => {
                Some($narrow8 as Routine)
            }
            _ => None,
        }
    };
}

/// Whether layers of a property run here in this build.
const fn serves(property: &str) -> bool {
    linked::serves(KernelId::Depthwise, property)
}

/// Whether layers with [`Requant::Narrow`] and outputs of `bits` run here in this build.
const fn narrow(bits: Bits) -> bool {
    linked::serves_output(KernelId::Depthwise, "narrow", bits)
}

/// Whether layers whose weights and inputs are both narrower than bytes run here in this build.
const fn narrow_codes() -> bool {
    (serves("w2") || serves("w3") || serves("w4")) && (serves("a2") || serves("a3") || serves("a4"))
}

/// Whether there are layers that lie in pairs whatever their window.
const fn wide_codes() -> bool {
    serves("w8") || serves("a8") || serves("general")
}

/// Whether there are layers without a routine: windows or rules that have none, scales that leave
/// no room for [`pack_lane`].
pub const PORTABLE: bool = serves("window") || serves("general") || serves("1x1s1");

/// The routine for a block.
pub fn routine(block: &Block) -> Option<Routine> {
    let (window, rule) = (block.window, block.rule);
    match (block.planes, window.kh, window.kw, window.stride) {
        (Planes::Bytes, 3, 3, 1)
            if const { serves("3x3s1") && serves("w2") && serves("a2") && narrow(Bits::B2) } =>
        {
            Some(jaq_v7em_bytes)
        }
        (Planes::Triples, 3, 3, 1) if const { serves("3x3s1") && narrow_codes() } => by_rule!(rule,
            jaq_v7em_triples_narrow2 jaq_v7em_triples_narrow3 jaq_v7em_triples_narrow4 jaq_v7em_triples_narrow8 jaq_v7em_triples_wide),
        (Planes::Halves, 3, 3, 1) if const { serves("3x3s1") && wide_codes() } => by_rule!(rule,
            jaq_v7em_halves_narrow2 jaq_v7em_halves_narrow3 jaq_v7em_halves_narrow4 jaq_v7em_halves_narrow8 jaq_v7em_halves_wide),
        (Planes::Halves, 3, 3, 2) if const { serves("3x3s2") } => by_rule!(rule,
            jaq_v7em_halves_s2_narrow2 jaq_v7em_halves_s2_narrow3 jaq_v7em_halves_s2_narrow4 jaq_v7em_halves_s2_narrow8 jaq_v7em_halves_s2_wide),
        (Planes::Halves, 5, 5, 1) if const { serves("5x5s1") } => by_rule!(rule,
            jaq_v7em_five_narrow2 jaq_v7em_five_narrow3 jaq_v7em_five_narrow4 jaq_v7em_five_narrow8 jaq_v7em_five_wide),
        (Planes::Halves, 5, 5, 2) if const { serves("5x5s2") } => by_rule!(rule,
            jaq_v7em_five_s2_narrow2 jaq_v7em_five_s2_narrow3 jaq_v7em_five_s2_narrow4 jaq_v7em_five_s2_narrow8 jaq_v7em_five_s2_wide),
        _ => None,
    }
}

global_asm!(
    armv7em_head!("ROW_ROUTINE"),
    r#"
    .equ LANE_BYTES, 92

    @ r1-r3: rows; r12: out; base: the lane. s7: end of out; s8, s9: to the next lane's rows and
    @ outputs; s10: bytes of outputs; s11: lane; s12: lanes left.
    .macro ROW3_START base
    push {{r4-r11, lr}}
    vldmia r0!, {{s8-s12}}
    ldr r12, [r0], #4
    ldmia r0, {{r1-r3}}
5:
    vmov r0, \base, s10, s11
    add r0, r12
    vmov s7, r0
    add r0, \base, #LANE_BYTES
    vmov s11, r0
    .endm

    .macro ROW3_END x, y
    vmov \x, s7
    cmp r12, \x
    bne 1b
    vmov \x, \y, s8, s9
    add r1, \x
    add r2, \x
    add r3, \x
    vmov \x, s12
    add r12, \y
    subs \x, #1
    vmov s12, \x
    bne 5b
    pop {{r4-r11, pc}}
    .endm

    @ Fields of a product. r4, r5: sum of three rows, the higher word of the sum before carried
    @ into the lower of this one; r6, r7: free; r8-r10: W-words.
    .macro FIELD_ROWS low, high
    ldr r6, [r1], #32
    smlal \low, \high, r6, r8
    ldr r6, [r2], #32
    smlal \low, \high, r6, r9
    ldr r6, [r3], #32
    smlal \low, \high, r6, r10
    .endm

    @ Four outputs: r11, lr, r0: thresholds 1 to 3. The lift is in every byte.
    .macro BYTES_4 low, high
    mov \high, #0x40404040
    FIELD_ROWS \low, \high
    usub8 r7, lr, \low
    sel r6, r11, r0
    usub8 r6, r6, \low
    and r7, r7, #0x80808080
    and r6, r6, #0x80808080
    lsrs r6, r6, #7
    orr r6, r6, r7, lsr #6
    str r6, [r12], #4
    .endm

    ROW_ROUTINE jaq_v7em_bytes
    ROW3_START r4
    ldmia r4, {{r0, r8-r11, lr}}
    mov r4, #0x40404040
    mov r5, r4
    FIELD_ROWS r4, r5
1:
    BYTES_4 r5, r4
    BYTES_4 r4, r5
    ROW3_END r6, r7

    .macro ROW_NARROW bits, acc, m, b
    mla \acc, \acc, \m, \b
    .endm
    .macro ROW_NARROW_CLAMP bits, acc
    usat \acc, #\bits, \acc, asr #18
    .endm
    .macro ROW_WIDE bits, acc, m, b
    add \acc, \b
    smmulr \acc, \acc, \m
    .endm
    .macro ROW_WIDE_CLAMP bits, acc
    usat \acc, #\bits, \acc
    .endm

    @ Three outputs. r0: lift; r11, lr: multiplier, bias. The fields are 12 bits apart.
    .macro TRIPLE_3 low, high, rule, bits
    lsr \low, \low, #4
    mov \high, r0
    FIELD_ROWS \low, \high
    ubfx r6, \low, #0, #12
    ubfx r7, \low, #12, #12
    lsr \low, \low, #24
    bfi \low, \high, #8, #4
    \rule \bits, r6, r11, lr
    \rule \bits, r7, r11, lr
    \rule \bits, \low, r11, lr
    \rule\()_CLAMP \bits, r6
    \rule\()_CLAMP \bits, r7
    \rule\()_CLAMP \bits, \low
    orr r6, r6, r7, lsl #8
    orr r6, r6, \low, lsl #16
    str r6, [r12], #3
    .endm

    .macro ROW_TRIPLES name, rule, bits
    ROW_ROUTINE \name
    ROW3_START r4
    ldmia r4, {{r0, r8-r11, lr}}
    movs r4, #0
    mov r5, r0
    FIELD_ROWS r4, r5
1:
    TRIPLE_3 r5, r4, \rule, \bits
    TRIPLE_3 r4, r5, \rule, \bits
    ROW3_END r6, r7
    .endm

    @ Pairs of 16-bit codes. r4-r9: weights; r10, r11: two outputs; r0, lr: codes. s0: multiplier;
    @ s1, s2: bias.
    .macro HALF_TAPS row, low, high
    ldrd r0, lr, [\row], #4
    smlad r10, r0, \low, r10
    smlabt r10, lr, \high, r10
    smlatb r11, r0, \low, r11
    smlad r11, lr, \high, r11
    .endm

    .macro HALF_TAPS_S2 row, low, high
    ldrd r0, lr, [\row], #8
    smlad r10, r0, \low, r10
    smlabt r10, lr, \high, r10
    ldr r0, [\row]
    smlad r11, lr, \low, r11
    smlabt r11, r0, \high, r11
    .endm

    .macro ACC_START rule, x, y
    .ifc \rule, ROW_WIDE
    vmov \x, \y, s1, s2
    .else
    movs \x, #0
    mov \y, \x
    .endif
    .endm

    .macro ACC_FINISH rule, bits, x, y, m, b
    vmov \m, \b, s0, s1
    .ifc \rule, ROW_WIDE
    smmulr \x, \x, \m
    smmulr \y, \y, \m
    .else
    mla \x, \x, \m, \b
    mla \y, \y, \m, \b
    .endif
    \rule\()_CLAMP \bits, \x
    \rule\()_CLAMP \bits, \y
    orr \x, \x, \y, lsl #8
    strh \x, [r12], #2
    .endm

    .macro HALVES_2 taps, rule, bits
    ACC_START \rule, r10, r11
    \taps r1, r4, r5
    \taps r2, r6, r7
    \taps r3, r8, r9
    ACC_FINISH \rule, \bits, r10, r11, r0, lr
    .endm

    .macro HALVES_3 name, taps, rule, bits
    ROW_ROUTINE \name
    ROW3_START r11
    ldmia r11!, {{r4-r9}}
    vldmia r11, {{s0-s2}}
    vmov r0, s10
    tst r0, #2
    bne 2f
1:
    HALVES_2 \taps, \rule, \bits
2:
    HALVES_2 \taps, \rule, \bits
    ROW3_END r0, lr
    .endm

    @ 5 x 5 on pairs. r0: weights; r1: position; r2: row; r3-r5, lr: codes; r6-r9: weights of the
    @ row; r10, r11: two outputs; r12: out. s0-s2 as above; s3-s7: rows; s8-s12 as above;
    @ s13: end of out; s14: weights.
    .macro FIVE_TAPS row
    vmov r2, \row
    add r2, r1
    ldmia r0!, {{r6-r9}}
    ldrd r3, r4, [r2]
    ldr r5, [r2, #8]
    smlad r10, r3, r6, r10
    smlad r10, r4, r7, r10
    smlabt r10, r5, r9, r10
    smlatb r11, r3, r6, r11
    smlad r11, r4, r8, r11
    smlad r11, r5, r9, r11
    .endm

    .macro FIVE_TAPS_S2 row
    vmov r2, \row
    add r2, r1
    ldmia r0!, {{r6-r9}}
    ldrd r3, r4, [r2]
    ldrd r5, lr, [r2, #8]
    smlad r10, r3, r6, r10
    smlad r10, r4, r7, r10
    smlabt r10, r5, r9, r10
    smlad r11, r4, r6, r11
    smlad r11, r5, r7, r11
    smlabt r11, lr, r9, r11
    .endm

    .macro FIVE name, taps, step, rule, bits
    ROW_ROUTINE \name
    push {{r4-r11, lr}}
    vldmia r0!, {{s8-s12}}
    ldr r12, [r0], #4
    vldmia r0, {{s3-s7}}
5:
    vmov r0, r2, s10, s11
    add r0, r12
    vmov s13, r0
    add r0, r2, #LANE_BYTES
    vmov s11, r0
    vldmia r2!, {{s0-s2}}
    vmov s14, r2
    movs r1, #0
1:
    vmov r0, s14
    ACC_START \rule, r10, r11
    .irp row, s3, s4, s5, s6, s7
    \taps \row
    .endr
    ACC_FINISH \rule, \bits, r10, r11, r3, r4
    vmov r3, s13
    adds r1, #\step
    cmp r12, r3
    bne 1b
    vmov r3, r4, s8, s9
    add r12, r4
    .irp row, s3, s4, s5, s6, s7
    vmov r4, \row
    add r4, r3
    vmov \row, r4
    .endr
    vmov r3, s12
    subs r3, #1
    vmov s12, r3
    bne 5b
    pop {{r4-r11, pc}}
    .endm

    .macro EVERY_RULE kind, name, arguments:vararg
    \kind jaq_v7em_\name\()_narrow2, \arguments ROW_NARROW, 2
    \kind jaq_v7em_\name\()_narrow3, \arguments ROW_NARROW, 3
    \kind jaq_v7em_\name\()_narrow4, \arguments ROW_NARROW, 4
    \kind jaq_v7em_\name\()_narrow8, \arguments ROW_NARROW, 8
    \kind jaq_v7em_\name\()_wide, \arguments ROW_WIDE, 8
    .endm

    EVERY_RULE ROW_TRIPLES, triples
    EVERY_RULE HALVES_3, halves, HALF_TAPS,
    EVERY_RULE HALVES_3, halves_s2, HALF_TAPS_S2,
    EVERY_RULE FIVE, five, FIVE_TAPS, 4,
    EVERY_RULE FIVE, five_s2, FIVE_TAPS_S2, 8,
    "#
);
