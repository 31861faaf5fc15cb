//! Which kernels, and which of their routines, a build links: all of them, or what one model runs.
//!
//! `JAQ_KERNELS` names kernels (`outer`) and properties of the layers that run on them (`outer.w2`),
//! separated by commas; an empty list names all. The host writes the list with [`properties`], the
//! functions here are evaluated by the compiler, and routines whose properties are not named are
//! reached from nowhere. Must not know: what a routine does.

use super::KernelId;
use crate::format::{Bits, LayerShape, Requant};

/// Names of the properties of layers that routines are chosen by: widths of weights, inputs and
/// outputs, rule of the outputs, window.
const PROPERTIES: [&str; 21] = [
    "w2", "w3", "w4", "w8", "a2", "a3", "a4", "a8", "o2", "o3", "o4", "o8", "narrow", "wide",
    "general", "1x1s1", "3x3s1", "3x3s2", "5x5s1", "5x5s2", "window",
];

/// A bit for every property that a layer has.
const fn bits_of(layer: &LayerShape, requant: Requant) -> u32 {
    let window = layer.op.window();
    let rule = match requant {
        Requant::Narrow => 12,
        Requant::Wide => 13,
        Requant::General { .. } => 14,
    };
    let window = match (window.kh, window.kw, window.stride) {
        (1, 1, 1) => 15,
        (3, 3, 1) => 16,
        (3, 3, 2) => 17,
        (5, 5, 1) => 18,
        (5, 5, 2) => 19,
        _ => 20,
    };
    let bits = layer.bits;
    let widths =
        1 << place(bits.weight) | 1 << (4 + place(bits.input)) | 1 << (8 + place(bits.output));
    widths | 1 << rule | 1 << window
}

const fn place(bits: Bits) -> u32 {
    match bits {
        Bits::B2 => 0,
        Bits::B3 => 1,
        Bits::B4 => 2,
        Bits::B8 => 3,
    }
}

/// Names of a layer's properties.
pub fn properties(layer: &LayerShape, requant: Requant) -> impl Iterator<Item = &'static str> {
    let bits = bits_of(layer, requant);
    PROPERTIES.iter().enumerate().filter(move |(i, _)| bits >> i & 1 == 1).map(|(_, name)| *name)
}

/// Whether this build links `kernel`.
pub const fn is_linked(kernel: KernelId) -> bool {
    LINKED >> kernel as u32 & 1 == 1
}

/// Whether this build links all that `kernel` needs for a layer.
pub fn runs(kernel: KernelId, layer: &LayerShape, requant: Requant) -> bool {
    let served = SERVED.get(kernel as usize).copied().unwrap_or(0);
    is_linked(kernel) && bits_of(layer, requant) & !served == 0
}

/// A bit for every property by kernel.
static SERVED: [u32; KernelId::ALL.len()] = {
    let mut served = [0; KernelId::ALL.len()];
    let mut index = 0;
    while index < KernelId::ALL.len() {
        let kernel = KernelId::ALL[index];
        let mut property = 0;
        while property < PROPERTIES.len() {
            served[kernel as usize] |= (serves(kernel, PROPERTIES[property]) as u32) << property;
            property += 1;
        }
        index += 1;
    }
    served
};

/// Whether layers with a property run on `kernel` in this build.
pub const fn serves(kernel: KernelId, property: &str) -> bool {
    LIST.is_empty() || is_listed(LIST, kernel.name().as_bytes(), property.as_bytes())
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
    serves(kernel, PROPERTIES[place(weights) as usize])
        && serves(kernel, PROPERTIES[4 + place(inputs) as usize])
}

/// Whether layers with outputs of this width and rule may run on `kernel` in this build.
#[cfg_attr(not(jaq_armv7em), allow(dead_code))]
pub const fn serves_output(kernel: KernelId, rule: &str, bits: Bits) -> bool {
    serves(kernel, rule) && serves(kernel, PROPERTIES[8 + place(bits) as usize])
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
    !never && (LIST.is_empty() || is_listed(LIST, kernel.name().as_bytes(), b""))
}

/// Whether the list has `name`, or `name.property`.
const fn is_listed(list: &[u8], name: &[u8], property: &[u8]) -> bool {
    let mut rest = list;
    loop {
        if let Some(behind) = strip(rest, name) {
            let behind = match (property, strip(behind, b".")) {
                ([], _) => Some(behind),
                (_, Some(behind)) => strip(behind, property),
                (_, None) => None,
            };
            if matches!(behind, Some([] | [b',', ..])) {
                return true;
            }
        }
        // The next entry.
        loop {
            match rest {
                [] => return false,
                [b',', more @ ..] => {
                    rest = more;
                    break;
                }
                [_, more @ ..] => rest = more,
            }
        }
    }
}

/// What follows `prefix`, if `text` begins with it.
const fn strip<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (mut text, mut prefix) = (text, prefix);
    while let [wanted, more @ ..] = prefix {
        match text {
            [found, rest @ ..] if *found == *wanted => (text, prefix) = (rest, more),
            _ => return None,
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{LayerBits, Op, Shape, Window};

    #[test]
    fn names_are_matched_whole() {
        let list = b"add,outer,outer.w2,word-linear.a4";
        let has =
            |name: &str, property: &str| is_listed(list, name.as_bytes(), property.as_bytes());
        assert!(has("add", "") && has("outer", "") && has("outer", "w2"));
        assert!(has("word-linear", "a4"));
        for (name, property) in [
            ("out", ""),
            ("outer", "w"),
            ("outer", "w22"),
            ("add", "w2"),
            ("word-linear", ""),
            ("w2", ""),
        ] {
            assert!(!has(name, property), "{name} {property}");
        }
        assert!(!is_listed(b"", b"add", b""));
    }

    #[test]
    fn a_build_of_all_kernels_runs_every_layer() {
        for weight in Bits::ALL {
            let op = Op::Depthwise(Window::same(3, 3, 1, 4, 4));
            let bits = LayerBits::uniform(weight, Bits::B3);
            let layer = LayerShape::new(op, Shape::new(4, 4, 2), 2, bits).unwrap();
            assert!(runs(KernelId::Depthwise, &layer, Requant::Narrow));
            let found: std::vec::Vec<_> = properties(&layer, Requant::Narrow).collect();
            assert_eq!(found[1..], ["a3", "o3", "narrow", "3x3s1"]);
            assert_eq!(found[0], PROPERTIES[place(weight) as usize]);
        }
    }
}
