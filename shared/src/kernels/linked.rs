//! Which kernels, and which of their routines, a build links: all of them, or what one model runs.
//!
//! `JAQ_KERNELS` names kernels (`outer`) and properties of the layers that run on them (`outer.w2`),
//! separated by commas; an empty list names all. The host writes the list with [`properties`], the
//! functions here are evaluated by the compiler, and routines whose properties are not named are
//! reached from nowhere. Must not know: what a routine does.

use super::KernelId;
use crate::format::{Bits, LayerShape, Requant};

/// Properties of a layer that routines are chosen by: widths of weights, inputs and outputs, rule
/// of the outputs, window.
pub fn properties(layer: &LayerShape, requant: Requant) -> [&'static str; 5] {
    let window = layer.op.window();
    [
        weight(layer.bits.weight),
        input(layer.bits.input),
        output(layer.bits.output),
        match requant {
            Requant::Narrow => "narrow",
            Requant::Wide => "wide",
            Requant::General { .. } => "general",
        },
        match (window.kh, window.kw, window.stride) {
            (1, 1, 1) => "1x1s1",
            (3, 3, 1) => "3x3s1",
            (3, 3, 2) => "3x3s2",
            (5, 5, 1) => "5x5s1",
            (5, 5, 2) => "5x5s2",
            _ => "window",
        },
    ]
}

const fn weight(bits: Bits) -> &'static str {
    match bits {
        Bits::B2 => "w2",
        Bits::B3 => "w3",
        Bits::B4 => "w4",
        Bits::B8 => "w8",
    }
}

const fn input(bits: Bits) -> &'static str {
    match bits {
        Bits::B2 => "a2",
        Bits::B3 => "a3",
        Bits::B4 => "a4",
        Bits::B8 => "a8",
    }
}

const fn output(bits: Bits) -> &'static str {
    match bits {
        Bits::B2 => "o2",
        Bits::B3 => "o3",
        Bits::B4 => "o4",
        Bits::B8 => "o8",
    }
}

/// Whether this build links `kernel`.
pub const fn is_linked(kernel: KernelId) -> bool {
    LINKED >> kernel as u32 & 1 == 1
}

/// Whether this build links all that `kernel` needs for a layer.
pub fn runs(kernel: KernelId, layer: &LayerShape, requant: Requant) -> bool {
    is_linked(kernel) && properties(layer, requant).iter().all(|property| serves(kernel, property))
}

/// Whether layers with a property run on `kernel` in this build.
pub const fn serves(kernel: KernelId, property: &str) -> bool {
    LIST.is_empty() || is_listed(kernel.name().as_bytes(), property.as_bytes())
}

/// Whether layers with inputs of so many stored bits run on `kernel` in this build.
pub const fn serves_input(kernel: KernelId, storage: u32) -> bool {
    match storage {
        2 => serves(kernel, "a2"),
        4 => serves(kernel, "a3") || serves(kernel, "a4"),
        _ => serves(kernel, "a8"),
    }
}

/// Whether layers with these widths of weights and inputs may run on `kernel` in this build.
#[cfg_attr(not(jaq_armv7em), allow(dead_code))]
pub const fn serves_pair(kernel: KernelId, weights: Bits, inputs: Bits) -> bool {
    serves(kernel, weight(weights)) && serves(kernel, input(inputs))
}

/// Whether layers with outputs of this width and rule may run on `kernel` in this build.
#[cfg_attr(not(jaq_armv7em), allow(dead_code))]
pub const fn serves_output(kernel: KernelId, rule: &str, bits: Bits) -> bool {
    serves(kernel, rule) && serves(kernel, output(bits))
}

const LIST: &[u8] = env!("JAQ_KERNELS").as_bytes();

/// A bit for every linked kernel.
const LINKED: u32 = {
    let (mut bits, mut index) = (0, 0);
    while index < KernelId::ALL.len() {
        let kernel = KernelId::ALL[index];
        bits |= (is_named(kernel) as u32) << kernel as u32;
        index += 1;
    }
    bits
};

/// Whether the build was asked for `kernel`.
const fn is_named(kernel: KernelId) -> bool {
    // What the core's candidates never hold.
    let short = cfg!(any(jaq_armv7m, jaq_armv6m, jaq_rv32im));
    let never = match kernel {
        KernelId::Word | KernelId::WordDepthwise | KernelId::WordLinear => cfg!(jaq_armv7em),
        KernelId::Outer | KernelId::Dual => short,
        _ => false,
    };
    !never && (LIST.is_empty() || is_listed(kernel.name().as_bytes(), b""))
}

/// Whether the list has `name`, or `name.property`.
const fn is_listed(name: &[u8], property: &[u8]) -> bool {
    let length = name.len() + if property.is_empty() { 0 } else { 1 + property.len() };
    let mut start = 0;
    while start < LIST.len() {
        let mut end = start;
        while end < LIST.len() && LIST[end] != b',' {
            end += 1;
        }
        let mut same = 0;
        while same < length && start + same < end {
            let wanted = if same < name.len() {
                name[same]
            } else if same == name.len() {
                b'.'
            } else {
                property[same - name.len() - 1]
            };
            if LIST[start + same] != wanted {
                break;
            }
            same += 1;
        }
        if same == length && start + same == end {
            return true;
        }
        start = end + 1;
    }
    false
}
