//! What of the dense kernels' assembly a build links: the routines of the widths its layers have.

use super::scheme::{Family, scheme};
use crate::format::Bits;
use crate::kernels::{KernelId, linked};

/// The pairs of widths that one family serves in this build.
pub struct Served(pub Family);

/// Of the outer product.
pub const OUTER: Served = Served(Family::Outer);
/// Of pairs of operands.
pub const DUAL: Served = Served(Family::Dual);

impl Served {
    /// Whether some pair has packed weights of so many bits.
    const fn stored(&self, bits: u32) -> bool {
        self.any(bits, 0, 0, 0)
    }

    /// Whether some pair has fields of so many bits.
    const fn spacing(&self, bits: u32) -> bool {
        self.any(0, bits, 0, 0)
    }

    /// Whether some pair has packed weights, spacing, stored inputs of so many bits and so many
    /// pixels a word; 0 is any.
    pub const fn any(&self, stored: u32, spacing: u32, input: u32, pixels: u32) -> bool {
        let outer = matches!(self.0, Family::Outer);
        let kernel = if outer { KernelId::Outer } else { KernelId::Dual };
        let mut index = 0;
        while index < 16 {
            let (w, a) = (Bits::ALL[index / 4], Bits::ALL[index % 4]);
            let found = scheme(w, a);
            if matches!(found.family, Family::Outer) == outer
                && (stored == 0 || stored == found.stored)
                && (spacing == 0 || spacing == found.spacing)
                && (input == 0 || input == a.storage())
                && (pixels == 0 || pixels == found.pixels)
                && linked::serves_pair(kernel, w, a)
            {
                return true;
            }
            index += 1;
        }
        false
    }
}

/// Whether outputs of this width and rule come from either family in this build.
const fn output(rule: &str, bits: Bits) -> bool {
    linked::serves_output(KernelId::Outer, rule, bits)
        || linked::serves_output(KernelId::Dual, rule, bits)
}

/// Packed weights of the outer product.
pub const OUTER_2: bool = OUTER.stored(2);
/// See [`OUTER_2`].
pub const OUTER_4: bool = OUTER.stored(4);
/// Packed weights of pairs.
pub const DUAL_4: bool = DUAL.stored(4);
/// See [`DUAL_4`].
pub const DUAL_8: bool = DUAL.stored(8);
/// Bits of a field.
pub const FIELDS_10: bool = OUTER.spacing(10);
/// See [`FIELDS_10`].
pub const FIELDS_14: bool = OUTER.spacing(14);
/// See [`FIELDS_10`].
pub const FIELDS_15: bool = OUTER.spacing(15);
/// Outputs of 2 bits.
pub const NARROW_2: bool = output("narrow", Bits::B2);
/// Outputs of 3 bits.
pub const NARROW_3: bool = output("narrow", Bits::B3);
/// Outputs of 4 bits.
pub const NARROW_4: bool = output("narrow", Bits::B4);
/// Outputs of 8 bits by the narrow rule.
pub const NARROW_8: bool = output("narrow", Bits::B8);
/// Outputs of 8 bits by the wide rule.
pub const WIDE: bool = output("wide", Bits::B8);
