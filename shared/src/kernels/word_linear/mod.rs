//! Linear layers on cores that multiply 32 by 32 to 32 bits: up to four products of a dot product
//! in one multiplication.
//!
//! With codes `a[i]` and unsigned weights `w[i]` in fields of a word, the activations in reverse
//! order, the top field of the product of both words is `sum(a[i] * w[i])`, and nothing below
//! reaches it ([`Scheme`]). The activations are expanded once to such words; weights lie packed in
//! their natural order, word by word of four output channels, and one shift with a mask makes a
//! word of fields. The weights' offset is taken out by the accumulators' start, `-offset * sum(a)`.
//! [`portable`] is the twin of the assembly in [`armv6m`] and [`rv32im`].

#[cfg(jaq_armv6m)]
mod armv6m;
#[cfg(not(any(jaq_armv6m, jaq_rv32im)))]
mod portable;
#[cfg(jaq_rv32im)]
mod rv32im;

#[cfg(jaq_armv6m)]
use armv6m as isa;
#[cfg(not(any(jaq_armv6m, jaq_rv32im)))]
use portable as isa;
#[cfg(jaq_rv32im)]
use rv32im as isa;

use super::codes::{Codes, Writer, small_word};
use super::requant::Finish;
use super::{Call, Work};
use crate::format::{Bits, LayerShape, Op};

/// Output channels taken together.
const BLOCK: usize = 4;

/// How operands share a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    /// Four codes, 8 bits apart.
    Four {
        /// Bits of a packed weight.
        stored: u32,
        /// Whether the products of a word of weights fit the top field together.
        sums: bool,
    },
    /// Two codes, 16 bits apart; those of a word of weights fit together.
    Two {
        /// Bits of a packed weight.
        stored: u32,
    },
    /// One code; weights of 8 bits.
    One,
}

impl Scheme {
    fn new(weight: Bits, input: Bits) -> Scheme {
        let (stored, product) = (weight.storage(), weight.max_unsigned() * input.max_unsigned());
        // Products of a word of packed weights.
        let codes = 32 >> stored.trailing_zeros();
        if 4 * product < 1 << 8 {
            Scheme::Four { stored, sums: codes * product < 1 << 8 }
        } else if codes * product < 1 << 16 {
            Scheme::Two { stored }
        } else {
            Scheme::One
        }
    }

    /// Bits of a packed weight.
    const fn stored(self) -> u32 {
        match self {
            Scheme::Four { stored, .. } | Scheme::Two { stored } => stored,
            Scheme::One => 8,
        }
    }

    /// Codes of a product.
    const fn fields(self) -> usize {
        match self {
            Scheme::Four { .. } => 4,
            Scheme::Two { .. } => 2,
            Scheme::One => 1,
        }
    }

    /// Codes of a word of packed weights.
    const fn unit(self) -> usize {
        (32 >> self.stored().trailing_zeros()) as usize
    }

    /// Products of a word of packed weights.
    const fn products(self) -> usize {
        self.unit() >> self.fields().trailing_zeros()
    }

    /// The fields of a word that is shifted so that they lie at the bottom.
    const fn mask(self) -> u32 {
        let ones = match self {
            Scheme::Four { .. } => 0x0101_0101,
            Scheme::Two { .. } => 0x0001_0001,
            Scheme::One => 1,
        };
        ((1 << self.stored()) - 1) * ones
    }

    /// Where the top field begins; all of [`Scheme::One`].
    #[cfg_attr(any(jaq_armv6m, jaq_rv32im), allow(dead_code))]
    const fn top(self) -> u32 {
        match self {
            Scheme::Four { .. } => 24,
            Scheme::Two { .. } => 16,
            Scheme::One => 0,
        }
    }
}

/// What makes weights unsigned.
const fn offset(weight: Bits) -> i32 {
    weight.half() as i32
}

/// The scheme of a layer, and its words of packed weights a channel.
fn plan(layer: &LayerShape) -> (Scheme, usize) {
    let scheme = Scheme::new(layer.bits.weight, layer.bits.input);
    let unit = scheme.unit();
    (scheme, (usize::from(layer.input.c) + unit - 1) >> unit.trailing_zeros())
}

/// Whether the layer can run here: whether no accumulator of unsigned weights leaves 32 bits.
pub fn supports(layer: &LayerShape) -> bool {
    let product = layer.bits.weight.max_unsigned() * layer.bits.input.max_unsigned();
    layer.op == Op::Linear
        && layer.input.c > 0
        && u64::from(product) * u64::from(layer.input.c) < 1 << 31
}

/// Scratch of a layer in bytes.
pub fn scratch_bytes(layer: &LayerShape) -> usize {
    let (scheme, words) = plan(layer);
    4 * words * scheme.products()
}

/// Packed weights of a layer in bytes.
pub fn packed_weight_bytes(layer: &LayerShape) -> usize {
    let blocks = usize::from(layer.output.c).div_ceil(BLOCK);
    blocks * 4 * BLOCK * plan(layer).1
}

/// Lays the weights out.
pub fn pack_weights(layer: &LayerShape, weights: &[i8], out: &mut [u8]) {
    let (scheme, words) = plan(layer);
    let (unit, stored) = (scheme.unit(), scheme.stored() as usize);
    out.fill(0);
    for (channel, row) in weights.chunks_exact(usize::from(layer.input.c).max(1)).enumerate() {
        let block = channel / BLOCK * 4 * BLOCK * words;
        for (k, &weight) in row.iter().enumerate() {
            let word = block + 4 * (k / unit * BLOCK + channel % BLOCK);
            let bit = k % unit * stored;
            let field = (i32::from(weight) + offset(layer.bits.weight)) as u8;
            if let Some(byte) = out.get_mut(word + bit / 8) {
                *byte |= field << (bit % 8);
            }
        }
    }
}

/// Runs the layer.
#[inline(never)]
pub fn run(call: Call<'_>) {
    let layer = call.layer;
    let (scheme, words) = plan(layer);
    let Some(expanded) = call.scratch.get_mut(..words * scheme.products()) else { return };
    let total = expand(layer, scheme, call.input, expanded);
    let start = total.wrapping_mul(-offset(layer.bits.weight));
    let mut writer = Writer::new(layer.output_format(), call.output);
    let tables = call.multipliers.chunks(BLOCK).zip(call.biases.chunks(BLOCK));
    for (weights, (m, b)) in call.weights.chunks_exact((4 * BLOCK * words).max(1)).zip(tables) {
        let sums = isa::block(scheme, expanded, weights);
        for ((&sum, &multiplier), &bias) in sums.iter().zip(m).zip(b) {
            let finish =
                Finish { multiplier, bias, requant: call.requant, output: layer.bits.output };
            writer.push(finish.plain(start.wrapping_add(sum as i32)));
        }
    }
    writer.end_pixel();
}

/// Expands packed codes to the words they are multiplied as, and gives their sum.
#[inline(never)]
fn expand(layer: &LayerShape, scheme: Scheme, input: &[u8], out: &mut [u32]) -> i32 {
    let (fields, products) = (scheme.fields(), scheme.products());
    let units = out.chunks_exact_mut(products.max(1));
    if layer.bits.input.storage() == scheme.stored() {
        let (mask, stored) = (scheme.mask(), scheme.stored());
        let mut total = 0u32;
        for (unit, packed) in units.zip(input.chunks(4)) {
            let mut word = small_word(packed);
            for to in unit {
                let codes = word & mask;
                *to = match scheme {
                    Scheme::Four { .. } => codes.swap_bytes(),
                    Scheme::Two { .. } => codes.rotate_left(16),
                    Scheme::One => codes,
                };
                total = total.wrapping_add(match scheme {
                    Scheme::Four { .. } => codes.wrapping_mul(0x0101_0101) >> 24,
                    Scheme::Two { .. } => codes.wrapping_mul(0x0001_0001) >> 16,
                    Scheme::One => codes,
                });
                word >>= stored;
            }
        }
        return total as i32;
    }
    let codes = Codes::new(layer.input_format(), input);
    let spacing = 32 >> fields.trailing_zeros();
    let (mut total, mut first) = (0, 0);
    for unit in units {
        for (j, to) in unit.iter_mut().enumerate() {
            let mut word = 0;
            let mut k = first + j;
            for field in (0..fields as u32).rev() {
                let code = if k < usize::from(layer.input.c) { codes.get(0, k) } else { 0 };
                word |= code << (field * spacing);
                total += code;
                k += products;
            }
            *to = word;
        }
        first += scheme.unit();
    }
    total as i32
}

/// Counts of [`run`].
pub fn work(layer: &LayerShape) -> Work {
    let (scheme, words) = plan(layer);
    let (words, outputs) = (words as u64, u64::from(layer.output.c));
    let blocks = outputs.div_ceil(BLOCK as u64);
    let products = words * scheme.products() as u64;
    let (row, block) = match scheme {
        Scheme::Four { stored: 2, sums: true } => {
            ("words of fours, 2 bits", "blocks of fours, 2 bits")
        }
        Scheme::Four { sums: true, .. } => ("words of fours, 4 bits", "blocks of fours, 4 bits"),
        Scheme::Four { stored: 2, .. } => {
            ("words of single fours, 2 bits", "blocks of single fours")
        }
        Scheme::Four { .. } => ("words of single fours, 4 bits", "blocks of single fours"),
        Scheme::Two { stored: 2 } => ("words of twos, 2 bits", "blocks of twos"),
        Scheme::Two { stored: 4 } => ("words of twos, 4 bits", "blocks of twos"),
        Scheme::Two { .. } => ("words of twos, 8 bits", "blocks of twos"),
        Scheme::One => ("words of single codes", "blocks of single codes"),
    };
    let same = layer.bits.input.storage() == scheme.stored();
    let expanded = match (same, scheme.fields()) {
        (true, 4) => "words expanded to fours",
        (true, 2) => "words expanded to twos",
        (true, _) => "words expanded to single codes",
        (false, 4) => "words of fours, one by one",
        (false, 2) => "words of twos, one by one",
        (false, _) => "single words, one by one",
    };
    let rule = match layer.bits.output {
        Bits::B8 => "wide outputs",
        _ => "narrow outputs",
    };
    Work::new([
        (row, blocks * words),
        (block, blocks),
        (expanded, products),
        ("units expanded", words),
        ("codes expanded one by one", if same { 0 } else { layer.input.c.into() }),
        (rule, outputs),
        ("bytes", layer.output_format().bytes() as u64),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_can_spill() {
        for weight in Bits::ALL {
            for input in Bits::ALL {
                let scheme = Scheme::new(weight, input);
                let product = weight.max_unsigned() * input.max_unsigned();
                let codes = scheme.unit() as u32;
                assert_eq!(scheme.products() * scheme.fields(), scheme.unit());
                match scheme {
                    Scheme::Four { sums: true, .. } => assert!(codes * product <= 0xff),
                    Scheme::Four { .. } => assert!(4 * product <= 0xff),
                    Scheme::Two { .. } => assert!(codes * product <= 0xffff),
                    Scheme::One => assert_eq!((weight, input), (Bits::B8, Bits::B8)),
                }
            }
        }
    }
}
