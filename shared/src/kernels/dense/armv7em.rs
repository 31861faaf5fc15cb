//! The inner loops of [`super::tile`] for Armv7E-M with DSP instructions and single-precision
//! registers (Cortex-M4F, M7), in assembly.
//!
//! One entry copies its arguments into its frame and jumps through code addresses in it: block of
//! channels -> (chunks of the reduction ->) extraction of the fields -> store -> next block. The
//! inner loops use all fourteen general registers, so counters and weights wait in `s0`-`s11`.
//! `UMLAL` and `LDRD` take two cycles on an M4; all other instructions of the loops take one.
//!
//! Frame: 96 bytes of accumulators `[pixel][channel]`, then [`Arguments`].

use core::arch::global_asm;
use core::marker::PhantomData;

use super::count::unrolled_positions;
use super::scheme::{BLOCK, Family};
use super::served::*;
use super::tile::{Store, Tile};
use crate::format::Bits;

/// What the assembly reads, in its order; the frame offsets below follow it.
#[repr(C)]
struct Arguments {
    weights: *const u8,
    multipliers: *const i32,
    biases: *const i32,
    pixel_bytes: usize,
    blocks: usize,
    chunks: usize,
    /// Bytes of a chunk's expanded activations that the unrolled loop covers.
    unrolled: usize,
    /// Bytes of a chunk's expanded activations.
    chunk: usize,
    group: usize,
    block_entry: Code,
    chunk_entry: Code,
    first_extract: Code,
    next_extract: Code,
    store: Code,
}

/// What differs between groups.
#[repr(C)]
struct Group {
    output: *mut u8,
    starts: *const u32,
    expanded: *const u32,
}

type Code = unsafe extern "C" fn();

unsafe extern "C" {
    fn jaq_v7em_tile(arguments: *const Arguments, group: *const Group);
    fn jaq_v7em_block_outer();
    fn jaq_v7em_block_dual_8();
    fn jaq_v7em_block_dual_4();
    fn jaq_v7em_chunk_2();
    fn jaq_v7em_chunk_4();
    fn jaq_v7em_extract_10();
    fn jaq_v7em_extract_14();
    fn jaq_v7em_extract_15();
    fn jaq_v7em_add_10();
    fn jaq_v7em_add_14();
    fn jaq_v7em_add_15();
    fn jaq_v7em_store_2();
    fn jaq_v7em_store_3();
    fn jaq_v7em_store_4();
    fn jaq_v7em_store_8();
    fn jaq_v7em_store_8_narrow();
    fn jaq_v7em_store_raw();
}

/// [`super::tile::Runner`].
pub struct Runner<'a> {
    arguments: Arguments,
    /// Words and bytes that a run reads and writes; no run is sound where weights are too few.
    starts: usize,
    expanded: usize,
    output: usize,
    tile: PhantomData<Tile<'a>>,
}

impl<'a> Runner<'a> {
    /// For the tile.
    pub fn new(tile: Tile<'a>) -> Self {
        let (plan, scheme) = (tile.plan, tile.plan.scheme);
        let unrolled = unrolled_positions(&scheme);
        // What is left is refused at load.
        const NONE: (Code, Code) = (jaq_v7em_store_raw, jaq_v7em_store_raw);
        let (block_entry, chunk_entry): (Code, Code) = match (scheme.family, scheme.stored) {
            (Family::Outer, 2) if OUTER_2 => (jaq_v7em_block_outer, jaq_v7em_chunk_2),
            (Family::Outer, 4) if OUTER_4 => (jaq_v7em_block_outer, jaq_v7em_chunk_4),
            (Family::Dual, 4) if DUAL_4 => (jaq_v7em_block_dual_4, jaq_v7em_block_dual_4),
            (Family::Dual, 8) if DUAL_8 => (jaq_v7em_block_dual_8, jaq_v7em_block_dual_8),
            _ => NONE,
        };
        let (first_extract, next_extract): (Code, Code) = match scheme.spacing {
            10 if FIELDS_10 => (jaq_v7em_extract_10, jaq_v7em_add_10),
            14 if FIELDS_14 => (jaq_v7em_extract_14, jaq_v7em_add_14),
            15 if FIELDS_15 => (jaq_v7em_extract_15, jaq_v7em_add_15),
            _ => NONE,
        };
        let arguments = Arguments {
            weights: tile.weights.as_ptr(),
            multipliers: tile.multipliers.as_ptr(),
            biases: tile.biases.as_ptr(),
            pixel_bytes: tile.pixel_bytes,
            blocks: tile.multipliers.len() / BLOCK,
            chunks: plan.chunks,
            // A position takes two words in either family.
            unrolled: plan.chunk / unrolled * unrolled * 8,
            chunk: plan.chunk * 8,
            group: scheme.group(),
            block_entry,
            chunk_entry,
            first_extract,
            next_extract,
            store: match tile.store {
                Store::Narrow(Bits::B2) if NARROW_2 => jaq_v7em_store_2,
                Store::Narrow(Bits::B3) if NARROW_3 => jaq_v7em_store_3,
                Store::Narrow(Bits::B4) if NARROW_4 => jaq_v7em_store_4,
                Store::Narrow(Bits::B8) if NARROW_8 => jaq_v7em_store_8_narrow,
                Store::Wide if WIDE => jaq_v7em_store_8,
                _ => jaq_v7em_store_raw,
            },
        };
        Runner {
            arguments,
            starts: plan.start_words(),
            expanded: plan.expanded_words(),
            output: if tile.is_sound() { tile.output_bytes() } else { usize::MAX },
            tile: PhantomData,
        }
    }

    /// Runs all blocks on one group.
    #[inline(always)]
    pub fn run(&self, starts: &[u32], expanded: &[u32], output: &mut [u8]) {
        let short = starts.len() < self.starts || expanded.len() < self.expanded;
        if short || output.len() < self.output {
            return;
        }
        let group = Group {
            starts: starts.as_ptr(),
            expanded: expanded.as_ptr(),
            output: output.as_mut_ptr(),
        };
        // SAFETY: every length that the loops run over was checked, those of the group above, of
        // the weights and tables in `new`; the routine keeps to the C calling convention, aligned
        // words and its own frame.
        unsafe { jaq_v7em_tile(&self.arguments, &group) }
    }
}

global_asm!(
    env!("JAQ_ASM_CPU"),
    r#"
    .syntax unified
    .fpu fpv4-sp-d16
    .thumb
    .equ OUTPUT, 96
    .equ STARTS, 100
    .equ EXPANDED, 104
    .equ WEIGHTS, 108
    .equ TABLES, 112
    .equ PIXEL, 120
    .equ BLOCKS, 124
    .equ CHUNKS, 128
    .equ UNROLLED, 132
    .equ GROUP, 140
    .equ BLOCK_ENTRY, 144
    .equ CHUNK_ENTRY, 148
    .equ FIRST_EXTRACT, 152
    .equ NEXT_EXTRACT, 156
    .equ STORE, 160
    .equ EXTRACT, 164
    .equ LEFT, 168
    .equ START, 172
    .equ FRAME, 176

    @ In a section of its own: a build links those that its layers need.
    .macro ROUTINE name
    .section .text.\name,"ax",%progbits
    .p2align 2
    .global \name
    .type \name, %function
    .thumb_func
    \name:
    .endm

    ROUTINE jaq_v7em_tile
    push {{r4-r11, lr}}
    sub sp, #FRAME
    add r12, sp, #OUTPUT
    ldmia r1, {{r2-r4}}
    ldmia r0!, {{r5-r11}}
    stmia r12!, {{r2-r11}}
    ldmia r0!, {{r2-r8}}
    stmia r12!, {{r2-r8}}
    ldr r8, [sp, #WEIGHTS]
    vmov s9, r8
    ldr pc, [sp, #BLOCK_ENTRY]

    @ Outer product. r0-r7: four 64-bit accumulators, (A0,W0) (A0,W1) (A1,W0) (A1,W1);
    @ r8, r9: A-words; r10: W-word; r11: packed weights; r12: expanded; lr: mask.
    @ s9: weights; s10, s11: ends of the unrolled loop and of the chunk.
    ROUTINE jaq_v7em_block_outer
    ldrd r8, r12, [sp, #STARTS]
    ldr r9, [sp, #CHUNKS]
    ldr r10, [sp, #FIRST_EXTRACT]
    str r8, [sp, #START]
    strd r10, r9, [sp, #EXTRACT]
    ldr pc, [sp, #CHUNK_ENTRY]

    .macro POSITION first, second
    ldrd r8, r9, [r12], #8
    and r10, lr, r11, ror #\first
    umlal r0, r1, r8, r10
    umlal r4, r5, r9, r10
    .if \second == 0
    and r10, lr, r11
    .else
    and r10, lr, r11, ror #\second
    .endif
    umlal r2, r3, r8, r10
    umlal r6, r7, r9, r10
    .endm

    .macro POSITIONS_2
    POSITION 2, 6
    POSITION 10, 14
    POSITION 18, 22
    POSITION 26, 30
    .endm

    .macro POSITIONS_4
    POSITION 4, 12
    POSITION 20, 28
    .endm

    .macro CHUNK positions, low, high
    ldr r8, [sp, #START]
    movw lr, #\low
    movt lr, #\high
    ldrd r0, r1, [r8]
    ldrd r2, r3, [r8]
    ldrd r4, r5, [r8, #8]
    ldrd r6, r7, [r8, #8]
    adds r8, #16
    str r8, [sp, #START]
    ldrd r8, r9, [sp, #UNROLLED]
    add r8, r12
    add r9, r12
    vmov s10, s11, r8, r9
    cmp r12, r8
    beq 2f
1:
    vmov r11, s9
    vldmia r11!, {{s0-s7}}
    vmov s9, r11
    vmov r11, s0
    \positions
    vmov r11, s1
    \positions
    vmov r11, s2
    \positions
    vmov r11, s3
    \positions
    vmov r11, s4
    \positions
    vmov r11, s5
    \positions
    vmov r11, s6
    \positions
    vmov r11, s7
    \positions
    vmov r8, s10
    cmp r12, r8
    bne 1b
2:
    vmov r8, s11
    cmp r12, r8
    beq 4f
3:
    vmov r10, s9
    ldr r11, [r10], #4
    vmov s9, r10
    \positions
    vmov r8, s11
    cmp r12, r8
    bne 3b
4:
    ldr pc, [sp, #EXTRACT]
    .endm

    ROUTINE jaq_v7em_chunk_2
    CHUNK POSITIONS_2, 0x0003, 0xc000
    ROUTINE jaq_v7em_chunk_4
    CHUNK POSITIONS_4, 0x000f, 0xf000

    @ Fields of the accumulators to the frame: stored after the first chunk, added after others.
    .macro NEXT_CHUNK
    ldr r8, [sp, #LEFT]
    subs r8, #1
    bne 1f
    ldr pc, [sp, #STORE]
1:
    ldr r9, [sp, #NEXT_EXTRACT]
    strd r9, r8, [sp, #EXTRACT]
    ldr pc, [sp, #CHUNK_ENTRY]
    .endm

    .macro ACCUMULATE at
    ldrd r10, r11, [sp, #\at]
    add r8, r10
    add r9, r11
    strd r8, r9, [sp, #\at]
    .endm

    .macro EXTRACT_3 lo, hi, at
    ubfx r8, \lo, #0, #10
    ubfx r9, \lo, #10, #10
    ubfx r10, \lo, #20, #10
    lsr r11, \lo, #30
    bfi r11, \hi, #2, #8
    ubfx \lo, \hi, #8, #10
    lsr \hi, \hi, #18
    strd r8, r11, [sp, #\at]
    strd r9, \lo, [sp, #\at+16]
    strd r10, \hi, [sp, #\at+32]
    .endm

    .macro ADD_3 lo, hi, at
    ubfx r8, \lo, #0, #10
    lsr r9, \lo, #30
    bfi r9, \hi, #2, #8
    ACCUMULATE \at
    ubfx r8, \lo, #10, #10
    ubfx r9, \hi, #8, #10
    ACCUMULATE \at+16
    ubfx r8, \lo, #20, #10
    lsr r9, \hi, #18
    ACCUMULATE \at+32
    .endm

    .macro EXTRACT_2 lo, hi, at, s
    ubfx r8, \lo, #0, #\s
    ubfx r9, \lo, #\s, #\s
    lsr r10, \lo, #2*\s
    bfi r10, \hi, #32-2*\s, #3*\s-32
    ubfx r11, \hi, #3*\s-32, #\s
    strd r8, r10, [sp, #\at]
    strd r9, r11, [sp, #\at+16]
    .endm

    .macro ADD_2 lo, hi, at, s
    ubfx r8, \lo, #0, #\s
    lsr r9, \lo, #2*\s
    bfi r9, \hi, #32-2*\s, #3*\s-32
    ACCUMULATE \at
    ubfx r8, \lo, #\s, #\s
    ubfx r9, \hi, #3*\s-32, #\s
    ACCUMULATE \at+16
    .endm

    ROUTINE jaq_v7em_extract_10
    EXTRACT_3 r0, r1, 0
    EXTRACT_3 r2, r3, 8
    EXTRACT_3 r4, r5, 48
    EXTRACT_3 r6, r7, 56
    NEXT_CHUNK
    ROUTINE jaq_v7em_add_10
    ADD_3 r0, r1, 0
    ADD_3 r2, r3, 8
    ADD_3 r4, r5, 48
    ADD_3 r6, r7, 56
    NEXT_CHUNK
    ROUTINE jaq_v7em_extract_14
    EXTRACT_2 r0, r1, 0, 14
    EXTRACT_2 r2, r3, 8, 14
    EXTRACT_2 r4, r5, 32, 14
    EXTRACT_2 r6, r7, 40, 14
    NEXT_CHUNK
    ROUTINE jaq_v7em_add_14
    ADD_2 r0, r1, 0, 14
    ADD_2 r2, r3, 8, 14
    ADD_2 r4, r5, 32, 14
    ADD_2 r6, r7, 40, 14
    NEXT_CHUNK
    ROUTINE jaq_v7em_extract_15
    EXTRACT_2 r0, r1, 0, 15
    EXTRACT_2 r2, r3, 8, 15
    EXTRACT_2 r4, r5, 32, 15
    EXTRACT_2 r6, r7, 40, 15
    NEXT_CHUNK
    ROUTINE jaq_v7em_add_15
    ADD_2 r0, r1, 0, 15
    ADD_2 r2, r3, 8, 15
    ADD_2 r4, r5, 32, 15
    ADD_2 r6, r7, 40, 15
    NEXT_CHUNK

    @ Pairs of 16-bit operands. r0-r7: accumulators of 4 pixels x 2 channels; r8, r9: activations;
    @ r10, r11: weights of either channel; r12: expanded; lr: weights.
    .macro DUAL_START
    movs r8, #0
1:
    str r8, [sp, #LEFT]
    vmov lr, s9
    ldrd r9, r12, [sp, #STARTS]
    ldr r0, [r9]
    ldr r2, [r9, #4]
    ldr r4, [r9, #8]
    ldr r6, [r9, #12]
    mov r1, r0
    mov r3, r2
    mov r5, r4
    mov r7, r6
    ldrd r8, r9, [sp, #UNROLLED]
    add r8, r12
    add r9, r12
    vmov s10, s11, r8, r9
    cmp r12, r8
    beq 3f
    .endm

    .macro MULTIPLY
    ldrd r8, r9, [r12], #8
    smlad r0, r8, r10, r0
    smlad r1, r8, r11, r1
    smlad r2, r9, r10, r2
    smlad r3, r9, r11, r3
    ldrd r8, r9, [r12], #8
    smlad r4, r8, r10, r4
    smlad r5, r8, r11, r5
    smlad r6, r9, r10, r6
    smlad r7, r9, r11, r7
    .endm

    .macro FOUR_8
    ldr r11, [lr], #4
    sxtb16 r10, r11
    sxtb16 r11, r11, ror #8
    MULTIPLY
    ldr r11, [lr], #4
    sxtb16 r10, r11
    sxtb16 r11, r11, ror #8
    MULTIPLY
    .endm

    .macro FOUR_4
    ldr r11, [lr], #4
    sxtb16 r10, r11
    sxtb16 r11, r11, ror #8
    MULTIPLY
    and r10, r10, #0x000f000f
    and r11, r11, #0x000f000f
    MULTIPLY
    .endm

    .macro DUAL four, turns
    DUAL_START
2:
    .rept \turns
    \four
    .endr
    vmov r8, s10
    cmp r12, r8
    bne 2b
3:
    vmov r8, s11
    cmp r12, r8
    beq 5f
4:
    \four
    vmov r8, s11
    cmp r12, r8
    bne 4b
5:
    vmov s9, lr
    .endm

    .macro DUAL_END
    ldr r8, [sp, #LEFT]
    add r9, sp, r8
    strd r0, r1, [r9]
    strd r2, r3, [r9, #16]
    strd r4, r5, [r9, #32]
    strd r6, r7, [r9, #48]
    eors r8, #8
    bne 1b
    ldr pc, [sp, #STORE]
    .endm

    ROUTINE jaq_v7em_block_dual_8
    DUAL FOUR_8, 4
    DUAL_END
    ROUTINE jaq_v7em_block_dual_4
    DUAL FOUR_4, 8
    asr r0, r0, #4
    asr r1, r1, #4
    asr r2, r2, #4
    asr r3, r3, #4
    asr r4, r4, #4
    asr r5, r5, #4
    asr r6, r6, #4
    asr r7, r7, #4
    DUAL_END

    @ Requantization and store. r4-r7: multipliers; r8-r11: biases; r12: output; lr: distance.
    .macro NARROW bits, place, acc, m, b
    mla \acc, \acc, \m, \b
    usat \acc, #\bits, \acc, asr #18
    .endm

    .macro WIDE bits, place, acc, m, b
    add \acc, \b
    smmulr \acc, \acc, \m
    usat \acc, #\bits, \acc
    .endm

    .macro PIXEL rule, put, bits, place, at, target:vararg
    ldrd r0, r1, [sp, #\at]
    ldrd r2, r3, [sp, #\at+8]
    \rule \bits, \place, r0, r4, r8
    \rule \bits, \place, r1, r5, r9
    \rule \bits, \place, r2, r6, r10
    \rule \bits, \place, r3, r7, r11
    orr r0, r0, r1, lsl #\place
    orr r2, r2, r3, lsl #\place
    orr r0, r0, r2, lsl #2*\place
    \put r0, [\target]
    .endm

    .macro STORE_CODES rule, put, bits, place
    ldrd r0, r1, [sp, #TABLES]
    ldmia r0!, {{r4-r7}}
    ldmia r1!, {{r8-r11}}
    strd r0, r1, [sp, #TABLES]
    ldr r12, [sp, #OUTPUT]
    ldr lr, [sp, #PIXEL]
    PIXEL \rule, \put, \bits, \place, 0, r12
    PIXEL \rule, \put, \bits, \place, 16, r12, lr
    PIXEL \rule, \put, \bits, \place, 32, r12, lr, lsl #1
    add r12, lr
    PIXEL \rule, \put, \bits, \place, 48, r12, lr, lsl #1
    ldr r0, [sp, #GROUP]
    cmp r0, #4
    beq 1f
    add r12, r12, lr, lsl #1
    PIXEL \rule, \put, \bits, \place, 64, r12, lr
    PIXEL \rule, \put, \bits, \place, 80, r12, lr, lsl #1
1:
    ldr r12, [sp, #OUTPUT]
    ldr r0, [sp, #BLOCKS]
    add r12, #\place/2
    str r12, [sp, #OUTPUT]
    b jaq_v7em_next_block
    .endm

    ROUTINE jaq_v7em_store_2
    STORE_CODES NARROW, strb, 2, 2
    ROUTINE jaq_v7em_store_3
    STORE_CODES NARROW, strh, 3, 4
    ROUTINE jaq_v7em_store_4
    STORE_CODES NARROW, strh, 4, 4
    ROUTINE jaq_v7em_store_8
    STORE_CODES WIDE, str, 8, 8
    ROUTINE jaq_v7em_store_8_narrow
    STORE_CODES NARROW, str, 8, 8

    ROUTINE jaq_v7em_store_raw
    ldr r12, [sp, #OUTPUT]
    mov r0, sp
    ldmia r0!, {{r4-r11}}
    stmia r12!, {{r4-r11}}
    ldmia r0!, {{r4-r11}}
    stmia r12!, {{r4-r11}}
    ldr r1, [sp, #GROUP]
    cmp r1, #4
    beq 1f
    ldmia r0!, {{r4-r11}}
    stmia r12!, {{r4-r11}}
1:
    str r12, [sp, #OUTPUT]
    ldr r0, [sp, #BLOCKS]

    @ Behind the routine before, in its section.
    .type jaq_v7em_next_block, %function
    .thumb_func
    jaq_v7em_next_block:
    subs r0, #1
    str r0, [sp, #BLOCKS]
    beq 1f
    ldr pc, [sp, #BLOCK_ENTRY]
1:
    add sp, #FRAME
    pop {{r4-r11, pc}}
    "#
);
