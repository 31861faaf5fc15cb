//! Linear layers and residual sums for Armv7E-M with DSP instructions and single-precision
//! registers, in assembly; [`super::portable`] is their twin.

use core::arch::global_asm;

use super::elementwise::Sum;
use super::portable;
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
    fn jaq_v7em_dot_2(a: *const u32, end: *const u32, w: *const u8, accumulators: *mut [i32; 4]);
    fn jaq_v7em_dot_4(a: *const u32, end: *const u32, w: *const u8, accumulators: *mut [i32; 4]);
    fn jaq_v7em_dot_8(a: *const u32, end: *const u32, w: *const u8, accumulators: *mut [i32; 4]);
}

/// [`portable::add`] for summands of equal width.
pub fn add(sum: &Sum, a: &[u8], b: &[u8], out: &mut [u8], fours: usize) {
    let [a_four, b_four, out_four] = sum.widths.map(|bits| bits as usize / 2);
    // Inputs are read by whole words: the last three fours of 2 bits may end before theirs.
    let room = a.len().min(b.len()).saturating_sub(4) / a_four.max(1);
    let whole = fours.min(room).min(out.len() / out_four.max(1));
    let done = if a_four == b_four && a_four > 0 && whole > 0 {
        let routine = match sum.output {
            Bits::B2 => jaq_v7em_add_2,
            Bits::B3 => jaq_v7em_add_3,
            Bits::B4 => jaq_v7em_add_4,
            Bits::B8 => jaq_v7em_add_8,
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

/// [`portable::dot`]; a multiple of eight words.
pub fn dot(expanded: &[u32], weights: &[u8], stored: u32, accumulators: &mut [i32; 4]) {
    let sound = expanded.len().is_multiple_of(8) && !expanded.is_empty();
    if !sound || weights.len() < expanded.len() * stored as usize {
        return portable::dot(expanded, weights, stored, accumulators);
    }
    let routine = match stored {
        2 => jaq_v7em_dot_2,
        4 => jaq_v7em_dot_4,
        _ => jaq_v7em_dot_8,
    };
    let range = expanded.as_ptr_range();
    // SAFETY: whole units of eight words are read up to the end of `expanded`, and two weights of
    // four channels for each word, checked above; the accumulators are four words.
    unsafe { routine(range.start, range.end, weights.as_ptr(), accumulators) }
}

global_asm!(
    env!("JAQ_ASM_CPU"),
    r#"
    .syntax unified
    .fpu fpv4-sp-d16
    .thumb

    .macro FLAT_ROUTINE name
    .section .text.\name,"ax",%progbits
    .p2align 2
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

    @ Linear layers. r0-r3: accumulators; r4-r7: activation pairs; r8, r9: weights; r10: mask or
    @ weights; r11: end; r12: activations; lr: packed weights.
    .macro DOT_START mask
    push {{r3-r11, lr}}
    mov r12, r0
    mov r11, r1
    mov lr, r2
    mov r10, #\mask
    ldmia r3, {{r0-r3}}
1:
    ldmia r12!, {{r4-r7}}
    .endm

    .macro DOT_END
    cmp r12, r11
    bne 1b
    pop {{r4}}
    stmia r4, {{r0-r3}}
    pop {{r4-r11, pc}}
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
    .irp acc, r0, r1, r2, r3
    ldr r8, [lr], #4
    DOT_LOW \acc, \bits, \from
    .endr
    .endm

    FLAT_ROUTINE jaq_v7em_dot_8
    DOT_START 0
    .irp acc, r0, r1, r2, r3
    DOT_8 \acc
    .endr
    DOT_END

    FLAT_ROUTINE jaq_v7em_dot_4
    DOT_START 0x000f000f
    DOT_LOWS 4, 0
    ldmia r12!, {{r4-r7}}
    DOT_LOWS 4, 0
    DOT_END

    FLAT_ROUTINE jaq_v7em_dot_2
    DOT_START 0x00030003
    DOT_LOWS 2, 0
    ldmia r12!, {{r4-r7}}
    subs lr, #16
    DOT_LOWS 2, 8
    DOT_END
    "#
);
