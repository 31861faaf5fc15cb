//! Transposes between pixels and planes for Armv7E-M, in assembly; [`super::portable`] is their
//! twin.

use core::arch::global_asm;

use super::depthwise::LANES;
use super::portable;
use crate::format::Bits;

unsafe extern "C" {
    fn jaq_v7em_spread_2(from: *const u8, step: usize, fours: usize, to: *mut u8, plane: usize);
    fn jaq_v7em_spread_4(from: *const u8, step: usize, fours: usize, to: *mut u8, plane: usize);
    fn jaq_v7em_spread_8(from: *const u8, step: usize, fours: usize, to: *mut u8, plane: usize);
    fn jaq_v7em_pack_2(from: *const u8, plane: usize, fours: usize, to: *mut u8, step: usize);
    fn jaq_v7em_pack_4(from: *const u8, plane: usize, fours: usize, to: *mut u8, step: usize);
    fn jaq_v7em_pack_8(from: *const u8, plane: usize, fours: usize, to: *mut u8, step: usize);
}

/// [`portable::spread`] for four pixels at a time.
pub fn spread(
    bits: Bits,
    pixels: &[u8],
    step: usize,
    offset: usize,
    count: usize,
    planes: &mut [u8],
    plane: usize,
) {
    let piece = LANES * bits.storage() as usize / 8;
    let fours = count / 4;
    let whole = fours * 4;
    let reads = whole == 0 || (whole - 1) * step + offset + piece <= pixels.len();
    let writes = (LANES - 1) * plane + whole <= planes.len();
    let done = if whole > 0 && offset + piece <= step && reads && writes {
        let routine = match bits {
            Bits::B2 => jaq_v7em_spread_2,
            Bits::B3 | Bits::B4 => jaq_v7em_spread_4,
            Bits::B8 => jaq_v7em_spread_8,
        };
        let from = pixels.as_ptr().wrapping_add(offset);
        // SAFETY: `whole` pixels of `piece` bytes are read at `step`, `whole` bytes written to
        // each of four planes, both checked above.
        unsafe { routine(from, step, fours, planes.as_mut_ptr(), plane) };
        whole
    } else {
        0
    };
    if done == count {
        return;
    }
    let pixels = pixels.get(done * step..).unwrap_or_default();
    let planes = planes.get_mut(done..).unwrap_or_default();
    portable::spread(bits, pixels, step, offset, count - done, planes, plane);
}

/// [`portable::pack`] for four pixels at a time.
pub fn pack(
    bits: Bits,
    planes: &[u8],
    plane: usize,
    count: usize,
    pixels: &mut [u8],
    step: usize,
    offset: usize,
) {
    let piece = LANES * bits.storage() as usize / 8;
    let fours = count / 4;
    let whole = fours * 4;
    let reads = (LANES - 1) * plane + whole <= planes.len();
    let writes = whole == 0 || (whole - 1) * step + offset + piece <= pixels.len();
    let done = if whole > 0 && offset + piece <= step && reads && writes {
        let routine = match bits {
            Bits::B2 => jaq_v7em_pack_2,
            Bits::B3 | Bits::B4 => jaq_v7em_pack_4,
            Bits::B8 => jaq_v7em_pack_8,
        };
        let to = pixels.as_mut_ptr().wrapping_add(offset);
        // SAFETY: `whole` bytes of each of four planes are read, `whole` pixels of `piece` bytes
        // written at `step`, both checked above.
        unsafe { routine(planes.as_ptr(), plane, fours, to, step) };
        whole
    } else {
        0
    };
    if done == count {
        return;
    }
    let planes = planes.get(done..).unwrap_or_default();
    let pixels = pixels.get_mut(done * step..).unwrap_or_default();
    portable::pack(bits, planes, plane, count - done, pixels, step, offset);
}

global_asm!(
    env!("JAQ_ASM_CPU"),
    r#"
    .syntax unified
    .thumb

    .macro PLANES_ROUTINE name
    .section .text.\name,"ax",%progbits
    .p2align 2
    .global \name
    .type \name, %function
    .thumb_func
    \name:
    .endm

    @ From pixels to planes. r0: pixels, r1: step, r2: fours, r3: first plane, r4: plane, r5: three
    @ planes, r6: mask, r7-r10: four pixels, then four planes.
    .macro LOAD_PIXELS load
    push {{r4-r11, lr}}
    ldr r4, [sp, #36]
    add r5, r4, r4, lsl #1
1:
    \load r7, [r0]
    \load r8, [r0, r1]
    add r0, r0, r1, lsl #1
    \load r9, [r0]
    \load r10, [r0, r1]
    add r0, r0, r1, lsl #1
    .endm

    .macro STORE_PLANES
    str r7, [r3]
    str r8, [r3, r4]
    str r9, [r3, r4, lsl #1]
    str r10, [r3, r5]
    adds r3, #4
    subs r2, #1
    bne 1b
    pop {{r4-r11, pc}}
    .endm

    PLANES_ROUTINE jaq_v7em_spread_2
    mov r12, #0x03030303
    LOAD_PIXELS ldrb
    orr r7, r7, r8, lsl #8
    orr r7, r7, r9, lsl #16
    orr r10, r7, r10, lsl #24
    and r7, r12, r10
    and r8, r12, r10, lsr #2
    and r9, r12, r10, lsr #4
    and r10, r12, r10, lsr #6
    STORE_PLANES

    PLANES_ROUTINE jaq_v7em_spread_4
    mov r12, #0x0f0f0f0f
    LOAD_PIXELS ldrh
    orr r7, r7, r9, lsl #16
    orr r8, r8, r10, lsl #16
    uxtb16 r9, r7
    uxtb16 r10, r8
    orr r11, r9, r10, lsl #8
    uxtb16 r9, r7, ror #8
    uxtb16 r10, r8, ror #8
    orr r10, r9, r10, lsl #8
    and r7, r12, r11
    and r8, r12, r11, lsr #4
    and r9, r12, r10
    and r10, r12, r10, lsr #4
    STORE_PLANES

    PLANES_ROUTINE jaq_v7em_spread_8
    LOAD_PIXELS ldr
    pkhbt r11, r7, r9, lsl #16
    pkhbt r12, r8, r10, lsl #16
    pkhtb r9, r9, r7, asr #16
    pkhtb r10, r10, r8, asr #16
    uxtb16 r7, r11
    uxtb16 r8, r12
    orr r7, r7, r8, lsl #8
    uxtb16 r11, r11, ror #8
    uxtb16 r12, r12, ror #8
    orr r8, r11, r12, lsl #8
    uxtb16 r11, r9, ror #8
    uxtb16 r12, r10, ror #8
    uxtb16 r9, r9
    uxtb16 r10, r10
    orr r9, r9, r10, lsl #8
    orr r10, r11, r12, lsl #8
    STORE_PLANES

    @ From planes to pixels. r0: first plane, r1: plane, r2: fours, r3: pixels, r4: step.
    .macro LOAD_PLANES
    push {{r4-r11, lr}}
    ldr r4, [sp, #36]
    add r5, r1, r1, lsl #1
1:
    ldr r7, [r0]
    ldr r8, [r0, r1]
    ldr r9, [r0, r1, lsl #1]
    ldr r10, [r0, r5]
    adds r0, #4
    .endm

    .macro STORE_PIXELS store
    \store r7, [r3]
    \store r8, [r3, r4]
    add r3, r3, r4, lsl #1
    \store r9, [r3]
    \store r10, [r3, r4]
    add r3, r3, r4, lsl #1
    subs r2, #1
    bne 1b
    pop {{r4-r11, pc}}
    .endm

    PLANES_ROUTINE jaq_v7em_pack_2
    LOAD_PLANES
    orr r7, r7, r8, lsl #2
    orr r7, r7, r9, lsl #4
    orr r7, r7, r10, lsl #6
    lsrs r8, r7, #8
    lsr r9, r7, #16
    lsr r10, r7, #24
    STORE_PIXELS strb

    PLANES_ROUTINE jaq_v7em_pack_4
    LOAD_PLANES
    orr r7, r7, r8, lsl #4
    orr r9, r9, r10, lsl #4
    uxtb16 r8, r7, ror #8
    uxtb16 r10, r9, ror #8
    uxtb16 r7, r7
    uxtb16 r9, r9
    orr r8, r8, r10, lsl #8
    orr r7, r7, r9, lsl #8
    lsr r9, r7, #16
    lsr r10, r8, #16
    STORE_PIXELS strh

    PLANES_ROUTINE jaq_v7em_pack_8
    LOAD_PLANES
    uxtb16 r11, r7, ror #8
    uxtb16 r12, r8, ror #8
    orr r11, r11, r12, lsl #8
    uxtb16 r7, r7
    uxtb16 r8, r8
    orr r7, r7, r8, lsl #8
    uxtb16 r8, r9, ror #8
    uxtb16 r12, r10, ror #8
    orr r12, r8, r12, lsl #8
    uxtb16 r9, r9
    uxtb16 r10, r10
    orr r9, r9, r10, lsl #8
    pkhbt r8, r11, r12, lsl #16
    pkhtb r10, r12, r11, asr #16
    pkhtb r6, r9, r7, asr #16
    pkhbt r7, r7, r9, lsl #16
    mov r9, r6
    STORE_PIXELS str

    "#
);
