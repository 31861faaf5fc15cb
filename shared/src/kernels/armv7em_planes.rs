//! Transposes between pixels and planes for Armv7E-M with DSP instructions and single-precision
//! registers, in assembly; [`super::portable_planes`] is their twin.
//!
//! Four words of bytes are transposed in twelve instructions, with `SEL` on GE flags set once.

use core::arch::global_asm;

use super::KernelId;
use super::depthwise::Planes;
use super::linked::{serves, serves_input};
use crate::format::Bits;

/// Copies `count` pixels' words, `step` bytes apart, or narrower pixels.
pub type Gather = unsafe extern "C" fn(*const u8, step: usize, count: usize, to: *mut u32);
/// Spreads a line to `words` words a lane; `lane` is their size in bytes.
pub type Spread = unsafe extern "C" fn(*const u32, words: usize, to: *mut u32, lane: usize);
/// Packs `fours` times four pixels of lanes `plane` bytes apart into words `step` bytes apart.
pub type Pack = unsafe extern "C" fn(*const u8, plane: usize, fours: usize, *mut u8, step: usize);
/// Copies words to pixels of 1 or 2 bytes.
pub type Narrow = unsafe extern "C" fn(from: *const u32, count: usize, to: *mut u8);

unsafe extern "C" {
    fn jaq_v7em_gather_1(from: *const u8, step: usize, count: usize, to: *mut u32);
    fn jaq_v7em_gather_2(from: *const u8, step: usize, count: usize, to: *mut u32);
    fn jaq_v7em_gather_4(from: *const u8, step: usize, count: usize, to: *mut u32);
    fn jaq_v7em_narrow_1(from: *const u32, count: usize, to: *mut u8);
    fn jaq_v7em_narrow_2(from: *const u32, count: usize, to: *mut u8);
    fn jaq_v7em_bytes_2(line: *const u32, words: usize, out: *mut u32, lane: usize);
    fn jaq_v7em_triples_2(line: *const u32, words: usize, out: *mut u32, lane: usize);
    fn jaq_v7em_triples_4(line: *const u32, words: usize, out: *mut u32, lane: usize);
    fn jaq_v7em_halves_2(line: *const u32, words: usize, out: *mut u32, lane: usize);
    fn jaq_v7em_halves_4(line: *const u32, words: usize, out: *mut u32, lane: usize);
    fn jaq_v7em_halves_8(line: *const u32, words: usize, out: *mut u32, lane: usize);
    fn jaq_v7em_pack_2(from: *const u8, plane: usize, fours: usize, to: *mut u8, step: usize);
    fn jaq_v7em_pack_4(from: *const u8, plane: usize, fours: usize, to: *mut u8, step: usize);
    fn jaq_v7em_pack_8(from: *const u8, plane: usize, fours: usize, to: *mut u8, step: usize);
}

/// The routine for pixels of `step` bytes: 1, 2, or whole words.
pub fn gather(step: usize) -> Gather {
    match step {
        1 => jaq_v7em_gather_1,
        2 => jaq_v7em_gather_2,
        _ => jaq_v7em_gather_4,
    }
}

/// Whether depthwise layers with inputs of so many stored bits run in this build.
const fn input(storage: u32) -> bool {
    serves_input(KernelId::Depthwise, storage)
}

/// The routine for an even number of words.
pub fn spread(bits: Bits, planes: Planes) -> Option<Spread> {
    Some(match (planes, bits) {
        (Planes::Bytes, Bits::B2) if const { input(2) } => jaq_v7em_bytes_2,
        (Planes::Triples, Bits::B2) if const { input(2) } => jaq_v7em_triples_2,
        (Planes::Triples, Bits::B3 | Bits::B4) if const { input(4) } => jaq_v7em_triples_4,
        (Planes::Halves, Bits::B2) if const { input(2) } => jaq_v7em_halves_2,
        (Planes::Halves, Bits::B3 | Bits::B4) if const { input(4) } => jaq_v7em_halves_4,
        (Planes::Halves, Bits::B8) if const { input(8) } => jaq_v7em_halves_8,
        _ => return None,
    })
}

/// Whether those with outputs of a width do.
const fn output(property: &str) -> bool {
    serves(KernelId::Depthwise, property)
}

/// The routine for codes of `bits`.
pub fn pack(bits: Bits) -> Pack {
    match bits {
        Bits::B2 if const { output("o2") } => jaq_v7em_pack_2,
        Bits::B3 | Bits::B4 if const { output("o3") || output("o4") } => jaq_v7em_pack_4,
        // Of the others there is none.
        _ => jaq_v7em_pack_8,
    }
}

/// The routine for pixels of `step` bytes, if they are narrower than a word.
pub fn narrow(step: usize) -> Option<Narrow> {
    match step {
        1 => Some(jaq_v7em_narrow_1),
        2 => Some(jaq_v7em_narrow_2),
        _ => None,
    }
}

global_asm!(
    armv7em_head!("PLANES_ROUTINE"),
    r#"
    @ r0: pixels; r1: step; r2: count; r3: line. 9 instructions for four words.
    PLANES_ROUTINE jaq_v7em_gather_4
    push {{r4-r7}}
    subs r2, #4
    blo 2f
1:
    ldr r4, [r0]
    ldr r5, [r0, r1]
    add r0, r0, r1, lsl #1
    ldr r6, [r0]
    ldr r7, [r0, r1]
    add r0, r0, r1, lsl #1
    stmia r3!, {{r4-r7}}
    subs r2, #4
    bhs 1b
2:
    adds r2, #4
    beq 4f
3:
    ldr r4, [r0]
    add r0, r1
    str r4, [r3], #4
    subs r2, #1
    bne 3b
4:
    pop {{r4-r7}}
    bx lr

    .macro GATHER_NARROW load, size
1:
    \load r12, [r0], #\size
    str r12, [r3], #4
    subs r2, #1
    bne 1b
    bx lr
    .endm

    PLANES_ROUTINE jaq_v7em_gather_1
    GATHER_NARROW ldrb, 1
    PLANES_ROUTINE jaq_v7em_gather_2
    GATHER_NARROW ldrh, 2

    .macro NARROW_PIXELS store, size
1:
    ldr r12, [r0], #4
    subs r1, #1
    \store r12, [r2], #\size
    bne 1b
    bx lr
    .endm

    PLANES_ROUTINE jaq_v7em_narrow_1
    NARROW_PIXELS strb, 1
    PLANES_ROUTINE jaq_v7em_narrow_2
    NARROW_PIXELS strh, 2

    @ Lets SEL take the even bytes of its first operand.
    .macro SEL_EVEN
    mov r4, #0x00ff00ff
    uadd8 r4, r4, r4
    .endm

    @ Byte k of r4-r7, in order, to the k-th of r4-r7. Uses r8, r9.
    .macro TRANSPOSE
    pkhbt r8, r4, r6, lsl #16
    pkhtb r6, r6, r4, asr #16
    pkhbt r9, r5, r7, lsl #16
    pkhtb r7, r7, r5, asr #16
    lsl r4, r9, #8
    sel r4, r8, r4
    lsr r8, r8, #8
    sel r5, r8, r9
    lsl r9, r7, #8
    lsr r8, r6, #8
    sel r7, r8, r7
    sel r6, r6, r9
    .endm

    @ Spreads. r0: line; r1: words left; r2: first octet; r3: second octet; r4-r7: pixels, then
    @ fields; r8-r11: lanes; r12: mask.
    .macro LANES_OF field, octet
    and r8, r12, \field
    and r9, r12, \field, lsr #2
    and r10, r12, \field, lsr #4
    and r11, r12, \field, lsr #6
    stmia \octet!, {{r8-r11}}
    .endm

    PLANES_ROUTINE jaq_v7em_bytes_2
    push {{r4-r11, lr}}
    add r3, r2, r3, lsl #3
    mov r12, #0x03030303
    SEL_EVEN
1:
    ldmia r0!, {{r4-r7}}
    TRANSPOSE
    LANES_OF r4, r2
    LANES_OF r5, r2
    LANES_OF r6, r3
    LANES_OF r7, r3
    subs r1, #1
    bne 1b
    pop {{r4-r11, pc}}

    @ Byte \from of r4-r6 to fields 12 bits apart in r7.
    .macro TRIPLE from
    .if \from == 0
    uxtb r7, r4
    bfi r7, r5, #12, #8
    orr r7, r7, r6, lsl #24
    .elseif \from == 24
    lsr r7, r4, #24
    lsr lr, r5, #24
    orr r7, r7, lr, lsl #12
    and lr, r6, #0xff000000
    orr r7, r7, lr
    .else
    ubfx r7, r4, #\from, #8
    ubfx lr, r5, #\from, #8
    orr r7, r7, lr, lsl #12
    lsr lr, r6, #\from
    orr r7, r7, lr, lsl #24
    .endif
    .endm

    PLANES_ROUTINE jaq_v7em_triples_2
    push {{r4-r11, lr}}
    add r3, r2, r3, lsl #3
    movw r12, #0x3003
    movt r12, #0x0300
1:
    ldmia r0!, {{r4-r6}}
    TRIPLE 0
    LANES_OF r7, r2
    TRIPLE 8
    LANES_OF r7, r2
    TRIPLE 16
    LANES_OF r7, r3
    TRIPLE 24
    LANES_OF r7, r3
    subs r1, #1
    bne 1b
    pop {{r4-r11, pc}}

    PLANES_ROUTINE jaq_v7em_triples_4
    push {{r4-r11, lr}}
    movw r12, #0xf00f
    movt r12, #0x0f00
1:
    ldmia r0!, {{r4-r6}}
    .irp from, 0, 16
    TRIPLE \from
    and r8, r12, r7
    and r9, r12, r7, lsr #4
    TRIPLE \from+8
    and r10, r12, r7
    and r11, r12, r7, lsr #4
    stmia r2!, {{r8-r11}}
    .endr
    subs r1, #1
    bne 1b
    pop {{r4-r11, pc}}

    @ Pairs of pixels. r0: line; r1: free; r2, r12: lane and the lane half a word further;
    @ r3: lane's bytes; r4-r7: pixels; r8-r11: two lanes each; lr: mask. s0: fours left;
    @ s1: back to the first lane.
    .macro HALVES_LANES bits, from
    .if \from == 0
    and r8, lr, r4
    and r9, lr, r5
    and r10, lr, r6
    and r11, lr, r7
    .else
    and r8, lr, r4, lsr #\from
    and r9, lr, r5, lsr #\from
    and r10, lr, r6, lsr #\from
    and r11, lr, r7, lsr #\from
    .endif
    pkhbt r1, r8, r9, lsl #16
    pkhtb r9, r9, r8, asr #16
    pkhbt r8, r10, r11, lsl #16
    pkhtb r11, r11, r10, asr #16
    strd r1, r8, [r2]
    strd r9, r11, [r12]
    add r2, r3
    add r12, r3
    .if \from+\bits < 16
    HALVES_LANES \bits, (\from+\bits)
    .endif
    .endm

    .macro HALVES bits, shift, mask
    push {{r4-r11, lr}}
    lsrs r1, #1
    lsl r4, r3, #\shift
    add r12, r2, r4
    subs r4, #8
    vmov s0, s1, r1, r4
    mov lr, #\mask
1:
    ldmia r0!, {{r4-r7}}
    HALVES_LANES \bits, 0
    vmov r1, r4, s0, s1
    sub r2, r4
    sub r12, r4
    subs r1, #1
    vmov s0, r1
    bne 1b
    pop {{r4-r11, pc}}
    .endm

    PLANES_ROUTINE jaq_v7em_halves_2
    HALVES 2, 3, 0x00030003
    PLANES_ROUTINE jaq_v7em_halves_4
    HALVES 4, 2, 0x000f000f
    PLANES_ROUTINE jaq_v7em_halves_8
    HALVES 8, 1, 0x00ff00ff

    @ Packs. r0: planes; r1: plane; r2: fours left; r3: pixels; r4-r7: bytes of four pixels, then
    @ pixels; r10: three planes; r11: back to the first lane, and on; r12: step.
    .macro PACK_START
    push {{r4-r11}}
    ldr r12, [sp, #32]
    add r10, r1, r1, lsl #1
    SEL_EVEN
    .endm

    .macro PACK_END
    TRANSPOSE
    str r4, [r3]
    str r5, [r3, r12]
    add r3, r3, r12, lsl #1
    str r6, [r3]
    str r7, [r3, r12]
    add r3, r3, r12, lsl #1
    subs r2, #1
    bne 1b
    pop {{r4-r11}}
    bx lr
    .endm

    PLANES_ROUTINE jaq_v7em_pack_2
    PACK_START
    lsl r11, r1, #4
    subs r11, #4
1:
    .irp four, r4, r5, r6, r7
    ldr \four, [r0]
    ldr r8, [r0, r1]
    ldr r9, [r0, r1, lsl #1]
    orr \four, \four, r8, lsl #2
    ldr r8, [r0, r10]
    orr \four, \four, r9, lsl #4
    orr \four, \four, r8, lsl #6
    add r0, r0, r1, lsl #2
    .endr
    sub r0, r11
    PACK_END

    PLANES_ROUTINE jaq_v7em_pack_4
    PACK_START
    lsl r11, r1, #3
    subs r11, #4
1:
    .irp pair, r4, r5, r6, r7
    ldr \pair, [r0]
    ldr r8, [r0, r1]
    orr \pair, \pair, r8, lsl #4
    add r0, r0, r1, lsl #1
    .endr
    sub r0, r11
    PACK_END

    PLANES_ROUTINE jaq_v7em_pack_8
    PACK_START
1:
    ldr r4, [r0]
    ldr r5, [r0, r1]
    ldr r6, [r0, r1, lsl #1]
    ldr r7, [r0, r10]
    adds r0, #4
    PACK_END
    "#
);
