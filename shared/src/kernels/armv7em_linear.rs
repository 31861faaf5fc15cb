//! Linear layers and residual sums for Armv7E-M with DSP instructions and single-precision
//! registers, in assembly; [`super::portable`] is their twin.

use core::arch::global_asm;

use super::elementwise::Sum;
use super::linear::{BLOCK, Blocks, Operands, Store};
use super::{KernelId, linked, portable};
use crate::format::Bits;

/// Arguments of the residual sums, in the order the assembly loads them.
#[repr(C)]
struct Sums {
    a: *const u8,
    b: *const u8,
    out: *mut u8,
    /// Where `out` ends.
    end: *mut u8,
    multipliers: [i32; 3],
    /// Bits of an input code.
    bits: u32,
}

unsafe extern "C" {
    fn jaq_v7em_add_2(sums: *const Sums);
    fn jaq_v7em_add_3(sums: *const Sums);
    fn jaq_v7em_add_4(sums: *const Sums);
    fn jaq_v7em_add_8(sums: *const Sums);
    fn jaq_v7em_linear(arguments: *const Arguments);
    fn jaq_v7em_dot_spaced();
    fn jaq_v7em_dot_2();
    fn jaq_v7em_dot_4();
    fn jaq_v7em_dot_8();
    fn jaq_v7em_linear_narrow2();
    fn jaq_v7em_linear_narrow3();
    fn jaq_v7em_linear_narrow4();
    fn jaq_v7em_linear_narrow8();
    fn jaq_v7em_linear_wide();
    fn jaq_v7em_linear_raw();
    fn jaq_v7em_linear_spaced(packed: *const u32, words: usize, out: *mut u32) -> i32;
    fn jaq_v7em_linear_2(packed: *const u32, words: usize, out: *mut u32) -> i32;
    fn jaq_v7em_linear_4(packed: *const u32, words: usize, out: *mut u32) -> i32;
    fn jaq_v7em_linear_8(packed: *const u32, words: usize, out: *mut u32) -> i32;
}

type Expand = unsafe extern "C" fn(*const u32, words: usize, *mut u32) -> i32;

/// Whether linear layers of a property run in this build.
const fn serves(property: &str) -> bool {
    linked::serves(KernelId::Dot, property)
}

/// Whether sums of a property do.
const fn sums(property: &str) -> bool {
    linked::serves(KernelId::Add, property)
}

/// [`portable::add`] for summands of equal width.
pub fn add(sum: &Sum, a: &[u8], b: &[u8], out: &mut [u8], fours: usize) {
    let [a_four, b_four, out_four] = sum.widths.map(|bits| bits as usize / 2);
    // Inputs are read by whole words: the last three fours of 2 bits may end before theirs.
    let room = a.len().min(b.len()).saturating_sub(4) / a_four.max(1);
    let whole = fours.min(room).min(out.len() / out_four.max(1));
    let done = if a_four == b_four && a_four > 0 && whole > 0 {
        let routine = match sum.output {
            Bits::B2 if const { sums("o2") } => jaq_v7em_add_2,
            Bits::B3 if const { sums("o3") } => jaq_v7em_add_3,
            Bits::B4 if const { sums("o4") } => jaq_v7em_add_4,
            Bits::B8 if const { sums("o8") } => jaq_v7em_add_8,
            // Refused at load.
            _ => return,
        };
        let start = out.as_mut_ptr();
        let arguments = Sums {
            a: a.as_ptr(),
            b: b.as_ptr(),
            out: start,
            end: start.wrapping_add(whole * out_four),
            multipliers: sum.multipliers,
            bits: sum.widths[0],
        };
        // SAFETY: `whole` steps of `a_four` bytes read a word each, which ends within both
        // inputs, and write `out_four` bytes each, all checked above.
        unsafe { routine(&arguments) };
        whole
    } else {
        0
    };
    let (a, b) = (a.get(done * a_four..), b.get(done * b_four..));
    let out = out.get_mut(done * out_four..).unwrap_or_default();
    portable::add(sum, a.unwrap_or_default(), b.unwrap_or_default(), out, fours - done);
}

/// Arguments of the linear routine, in the order the assembly loads them.
#[repr(C)]
struct Arguments {
    expanded: *const u32,
    end: *const u32,
    weights: *const u8,
    start: i32,
    multipliers: *const i32,
    biases: *const i32,
    output: *mut u8,
    blocks: usize,
    mask: u32,
    dot: Code,
    store: Code,
}

type Code = unsafe extern "C" fn();

/// [`portable::expand`].
pub fn expand(input: Bits, operands: Operands, packed: &[u32], out: &mut [u32]) -> i32 {
    let (routine, words): (Expand, usize) = match (operands, input) {
        (Operands::Spaced, _) => (jaq_v7em_linear_spaced, 4),
        (_, Bits::B2) => (jaq_v7em_linear_2, 8),
        (_, Bits::B3 | Bits::B4) => (jaq_v7em_linear_4, 4),
        (_, Bits::B8) => (jaq_v7em_linear_8, 2),
    };
    let Some((out, rest)) = out.split_at_mut_checked(words * packed.len()) else { return 0 };
    rest.fill(0);
    if packed.is_empty() {
        return 0;
    }
    // SAFETY: reads all of `packed`, and writes `words` words for each of its.
    unsafe { routine(packed.as_ptr(), packed.len(), out.as_mut_ptr()) }
}

/// [`portable::run`].
pub fn run(blocks: Blocks<'_>) {
    if !blocks.is_sound() {
        return;
    }
    let range = blocks.expanded.as_ptr_range();
    let (dot, mask): (Code, u32) = match blocks.operands {
        Operands::Spaced if const { serves("w2") && serves("a2") } => {
            (jaq_v7em_dot_spaced, 0x3003_3003)
        }
        Operands::Pairs(2) if const { serves("w2") } => (jaq_v7em_dot_2, 0x0003_0003),
        Operands::Pairs(4) if const { serves("w3") || serves("w4") } => {
            (jaq_v7em_dot_4, 0x000f_000f)
        }
        Operands::Pairs(8) if const { serves("w8") } => (jaq_v7em_dot_8, 0),
        // Refused at load.
        _ => return,
    };
    let arguments = Arguments {
        expanded: range.start,
        end: range.end,
        weights: blocks.weights.as_ptr(),
        start: blocks.start,
        multipliers: blocks.multipliers.as_ptr(),
        biases: blocks.biases.as_ptr(),
        output: blocks.output.as_mut_ptr(),
        blocks: blocks.multipliers.len() / BLOCK,
        mask,
        dot,
        store: match blocks.store {
            Store::Narrow(Bits::B2) => jaq_v7em_linear_narrow2,
            Store::Narrow(Bits::B3) => jaq_v7em_linear_narrow3,
            Store::Narrow(Bits::B4) => jaq_v7em_linear_narrow4,
            Store::Narrow(Bits::B8) => jaq_v7em_linear_narrow8,
            Store::Wide => jaq_v7em_linear_wide,
            Store::Raw => jaq_v7em_linear_raw,
        },
    };
    // SAFETY: `is_sound` checked that the expanded activations are whole units and that every
    // block has its weights, tables and room for its outputs.
    unsafe { jaq_v7em_linear(&arguments) }
}

global_asm!(
    armv7em_head!("FLAT_ROUTINE"),
    r#"
    @ A place in the section of the routine before.
    .macro FLAT_ENTRY name
    .global \name
    .type \name, %function
    .thumb_func
    \name:
    .endm

    @ Residual sums. r0, r1: inputs; r2: out; r4-r6: multipliers; r7, r8: four codes each, from the
    @ highest; r9: distance of four codes to the top; r3, r10: codes; r11: outputs; r12: bits;
    @ lr: 32 - bits. s0: end.
    .macro ADD_LANE bits, place
    lsr r10, r7, lr
    lsl r7, r7, r12
    mla r10, r10, r4, r6
    lsr r3, r8, lr
    lsl r8, r8, r12
    mla r10, r3, r5, r10
    usat r10, #\bits, r10, asr #18
    orr r11, r10, r11, lsl #\place
    .endm

    .macro ADD_FOURS bits, place, put
    push {{r4-r11, lr}}
    ldmia r0, {{r0-r6, r12}}
    vmov s0, r3
    rsb lr, r12, #32
    lsl r9, r12, #2
    rsb r9, r9, #32
1:
    ldr r7, [r0]
    ldr r8, [r1]
    add r0, r0, r12, lsr #1
    add r1, r1, r12, lsr #1
    lsl r7, r7, r9
    lsl r8, r8, r9
    movs r11, #0
    ADD_LANE \bits, \place
    ADD_LANE \bits, \place
    ADD_LANE \bits, \place
    ADD_LANE \bits, \place
    \put r11, [r2], #\place/2
    vmov r3, s0
    cmp r2, r3
    bne 1b
    pop {{r4-r11, pc}}
    .endm

    FLAT_ROUTINE jaq_v7em_add_2
    ADD_FOURS 2, 2, strb
    FLAT_ROUTINE jaq_v7em_add_3
    ADD_FOURS 3, 4, strh
    FLAT_ROUTINE jaq_v7em_add_4
    ADD_FOURS 4, 4, strh
    FLAT_ROUTINE jaq_v7em_add_8
    ADD_FOURS 8, 8, str

    @ Linear layers. r0-r3: accumulators; r4-r7: activations; r8, r9: weights; r10: mask or
    @ weights; r11: end; r12: activations; lr: packed weights. s0, s1: expanded activations and
    @ their end; s2: packed weights; s3: start; s4, s5: tables; s6: output; s7: blocks left;
    @ s8: mask; s9, s10: dot product and store; s12-s15: sums of the chunks before.
    FLAT_ROUTINE jaq_v7em_linear
    push {{r4-r11, lr}}
    vldmia r0, {{s0-s10}}
    FLAT_ENTRY jaq_v7em_linear_block
    vmov r12, r11, s0, s1
    vmov lr, r0, s2, s3
    vmov r10, r4, s8, s9
    bx r4

    .macro DOT_ENTRY
    mov r1, r0
    mov r2, r0
    mov r3, r0
    .endm

    .macro DOT_END
    cmp r12, r11
    bne 1b
    .endm

    .macro DOT_STORE
    vmov s2, lr
    vmov r8, s10
    bx r8
    .endm

    .macro DOT_8 acc
    ldrd r8, r9, [lr], #8
    sxtb16 r10, r8
    smlad \acc, r4, r10, \acc
    sxtb16 r10, r8, ror #8
    smlad \acc, r5, r10, \acc
    sxtb16 r10, r9
    smlad \acc, r6, r10, \acc
    sxtb16 r10, r9, ror #8
    smlad \acc, r7, r10, \acc
    .endm

    .macro DOT_LOW acc, bits, from
    .if \from == 0
    and r9, r10, r8
    .else
    and r9, r10, r8, lsr #\from
    .endif
    smlad \acc, r4, r9, \acc
    and r9, r10, r8, lsr #\from+\bits
    smlad \acc, r5, r9, \acc
    and r9, r10, r8, lsr #\from+2*\bits
    smlad \acc, r6, r9, \acc
    and r9, r10, r8, lsr #\from+3*\bits
    smlad \acc, r7, r9, \acc
    .endm

    .macro DOT_LOWS bits, from
    ldmia r12!, {{r4-r7}}
    .irp acc, r0, r1, r2, r3
    ldr r8, [lr], #4
    DOT_LOW \acc, \bits, \from
    .endr
    .endm

    .macro DOT_SPACED acc
    ldr r8, [lr], #4
    and r9, r10, r8
    smlad \acc, r4, r9, \acc
    and r9, r10, r8, ror #2
    smlad \acc, r5, r9, \acc
    and r9, r10, r8, ror #8
    smlad \acc, r6, r9, \acc
    and r9, r10, r8, ror #10
    smlad \acc, r7, r9, \acc
    .endm

    FLAT_ROUTINE jaq_v7em_dot_8
    DOT_ENTRY
1:
    .rept 2
    ldmia r12!, {{r4-r7}}
    .irp acc, r0, r1, r2, r3
    DOT_8 \acc
    .endr
    .endr
    DOT_END
    DOT_STORE

    FLAT_ROUTINE jaq_v7em_dot_4
    DOT_ENTRY
1:
    DOT_LOWS 4, 0
    DOT_LOWS 4, 0
    DOT_END
    DOT_STORE

    FLAT_ROUTINE jaq_v7em_dot_2
    DOT_ENTRY
1:
    DOT_LOWS 2, 0
    ldmia r12!, {{r4-r7}}
    ldr r8, [lr, #-16]
    DOT_LOW r0, 2, 8
    ldr r8, [lr, #-12]
    DOT_LOW r1, 2, 8
    ldr r8, [lr, #-8]
    DOT_LOW r2, 2, 8
    ldr r8, [lr, #-4]
    DOT_LOW r3, 2, 8
    DOT_END
    DOT_STORE

    FLAT_ROUTINE jaq_v7em_dot_spaced
    vmov s12, s13, r0, r0
    vmov s14, s15, r0, r0
6:
    movs r0, #0
    movs r1, #0
    movs r2, #0
    movs r3, #0
    vmov r8, s1
    add r11, r12, #448
    cmp r11, r8
    it hi
    movhi r11, r8
1:
    .rept 2
    ldmia r12!, {{r4-r7}}
    .irp acc, r0, r1, r2, r3
    DOT_SPACED \acc
    .endr
    .endr
    DOT_END
    vmov r4, r5, s12, s13
    vmov r6, r7, s14, s15
    ubfx r0, r0, #12, #12
    ubfx r1, r1, #12, #12
    ubfx r2, r2, #12, #12
    ubfx r3, r3, #12, #12
    add r0, r4
    add r1, r5
    add r2, r6
    add r3, r7
    vmov r8, s1
    cmp r12, r8
    beq 7f
    vmov s12, s13, r0, r1
    vmov s14, s15, r2, r3
    b 6b
7:
    DOT_STORE

    .macro LINEAR_NARROW bits, acc, m, b
    mla \acc, \acc, \m, \b
    usat \acc, #\bits, \acc, asr #18
    .endm
    .macro LINEAR_WIDE bits, acc, m, b
    add \acc, \b
    smmulr \acc, \acc, \m
    usat \acc, #\bits, \acc
    .endm

    .macro LINEAR_STORE rule, put, bits, place
    vmov r8, r9, s4, s5
    ldmia r8!, {{r4-r7}}
    ldmia r9!, {{r10-r12, lr}}
    vmov s4, s5, r8, r9
    \rule \bits, r0, r4, r10
    \rule \bits, r1, r5, r11
    \rule \bits, r2, r6, r12
    \rule \bits, r3, r7, lr
    orr r0, r0, r1, lsl #\place
    orr r2, r2, r3, lsl #\place
    orr r0, r0, r2, lsl #2*\place
    vmov r8, r9, s6, s7
    \put r0, [r8], #\place/2
    subs r9, #1
    vmov s6, s7, r8, r9
    bne jaq_v7em_linear_block
    pop {{r4-r11, pc}}
    .endm

    FLAT_ROUTINE jaq_v7em_linear_narrow2
    LINEAR_STORE LINEAR_NARROW, strb, 2, 2
    FLAT_ROUTINE jaq_v7em_linear_narrow3
    LINEAR_STORE LINEAR_NARROW, strh, 3, 4
    FLAT_ROUTINE jaq_v7em_linear_narrow4
    LINEAR_STORE LINEAR_NARROW, strh, 4, 4
    FLAT_ROUTINE jaq_v7em_linear_narrow8
    LINEAR_STORE LINEAR_NARROW, str, 8, 8
    FLAT_ROUTINE jaq_v7em_linear_wide
    LINEAR_STORE LINEAR_WIDE, str, 8, 8
    FLAT_ROUTINE jaq_v7em_linear_raw
    vmov r8, r9, s6, s7
    stmia r8!, {{r0-r3}}
    subs r9, #1
    vmov s6, s7, r8, r9
    bne jaq_v7em_linear_block
    pop {{r4-r11, pc}}

    @ Expansion. r0: packed words; r1: words left; r2: out; r3: the word; r4-r11: operands; r12:
    @ sum; lr: mask or zero. Words of two operands are summed against ones, spaced ones against
    @ 0x10011001, in bits 12 to 23.
    .macro EXPAND_WORDS mask
    push {{r4-r11, lr}}
    mov r12, #0
    mov lr, #\mask
1:
    ldr r3, [r0], #4
    .endm

    .macro EXPAND_END
    subs r1, #1
    bne 1b
    mov r0, r12
    pop {{r4-r11, pc}}
    .endm

    FLAT_ROUTINE jaq_v7em_linear_8
    EXPAND_WORDS 0
    uxtb16 r4, r3
    uxtb16 r5, r3, ror #8
    usada8 r12, r3, lr, r12
    strd r4, r5, [r2], #8
    EXPAND_END

    FLAT_ROUTINE jaq_v7em_linear_4
    EXPAND_WORDS 0x000f000f
    mov r8, #0x00010001
    and r4, lr, r3
    and r5, lr, r3, lsr #4
    and r6, lr, r3, lsr #8
    and r7, lr, r3, lsr #12
    .irp word, r4, r5, r6, r7
    smlad r12, \word, r8, r12
    .endr
    stmia r2!, {{r4-r7}}
    EXPAND_END

    FLAT_ROUTINE jaq_v7em_linear_2
    EXPAND_WORDS 0x00030003
    mov r8, #0x00010001
    .irp from, 2, 10
    and r4, lr, r3, ror #(\from+30)%32
    and r5, lr, r3, lsr #\from
    and r6, lr, r3, lsr #\from+2
    and r7, lr, r3, lsr #\from+4
    .irp word, r4, r5, r6, r7
    smlad r12, \word, r8, r12
    .endr
    stmia r2!, {{r4-r7}}
    .endr
    EXPAND_END

    FLAT_ROUTINE jaq_v7em_linear_spaced
    push {{r4-r11, lr}}
    mov r12, #0
    movw lr, #0x3003
    movt lr, #0x3003
    movw r8, #0x1001
    movt r8, #0x1001
1:
    ldr r3, [r0], #4
    and r4, lr, r3
    and r5, lr, r3, ror #2
    and r6, lr, r3, ror #8
    and r7, lr, r3, ror #10
    stmia r2!, {{r4-r7}}
    smuad r4, r4, r8
    smlad r4, r5, r8, r4
    smlad r4, r6, r8, r4
    smlad r4, r7, r8, r4
    ubfx r4, r4, #12, #12
    add r12, r4
    EXPAND_END
    "#
);
