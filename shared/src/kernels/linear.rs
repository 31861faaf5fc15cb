//! Linear layers: the activations are expanded once to words of 16-bit operands, then four output
//! channels at a time take their dot products from packed weights.
//!
//! *Pairs*: a word holds two codes. Weights lie unit by unit of 16 codes, channel by channel: bytes
//! as they are; narrower ones unsigned (`w + 2^(b-1)`, 3 bits in nibbles), the pairs of a word side
//! by side in its two halves.
//!
//! *Spaced* (2 x 2 bits): a half holds two codes 12 bits apart, and the weights' halves the other
//! way round, so that bits 12 to 23 of a sum of products are a dot product of four. 448 codes fit
//! ([`CHUNK`]). A word's codes are `w & 0x30033003` rotated by 0, 2, 8 and 10 bits.
//!
//! Offsets are taken out by the accumulators' start, `-offset * sum(a)`.

#[cfg(jaq_armv7em)]
use super::armv7em_linear as isa;
use super::codes::{Writer, small_word};
#[cfg(not(jaq_armv7em))]
use super::portable as isa;
use super::requant::Finish;
use super::{Call, Work};
use crate::format::{Bits, LayerBits, LayerShape, Requant};

/// Output channels taken together.
pub const BLOCK: usize = 4;
/// Codes of a unit.
const UNIT: usize = 16;
/// Codes of 2 bits whose products fit 12 bits: 4095 / 9, in whole units.
pub const CHUNK: usize = 448;

/// How operands share a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operands {
    /// Four codes, the halves' 12 bits apart.
    Spaced,
    /// Two codes, in the halves; weights of so many bits.
    Pairs(u32),
}

impl Operands {
    /// What serves the widths.
    pub const fn of(bits: LayerBits) -> Operands {
        match (bits.weight, bits.input) {
            (Bits::B2, Bits::B2) => Operands::Spaced,
            (Bits::B3, _) => Operands::Pairs(4),
            (weight, _) => Operands::Pairs(weight as u32),
        }
    }

    /// Bits of a packed weight.
    const fn stored(self) -> usize {
        match self {
            Operands::Spaced => 2,
            Operands::Pairs(stored) => stored as usize,
        }
    }

    /// Words a unit is expanded to.
    const fn words(self) -> usize {
        match self {
            Operands::Spaced => UNIT / 4,
            Operands::Pairs(_) => UNIT / 2,
        }
    }
}

/// The word of a unit, and the half of it, that code `k` of `input` bits comes to.
const fn pair_of(input: Bits, k: usize) -> (usize, usize) {
    match input {
        Bits::B2 => (k % 8, k / 8),
        Bits::B3 | Bits::B4 => (k / 8 * 4 + k % 4, k % 8 / 4),
        Bits::B8 => (k / 4 * 2 + k % 2, k % 4 / 2),
    }
}

/// The place in a spaced word of weights for code `k`: that of the code that shares its half.
const fn spaced_place(k: usize) -> usize {
    const PARTNERS: [usize; UNIT] = [6, 7, 12, 13, 10, 11, 0, 1, 14, 15, 4, 5, 2, 3, 8, 9];
    PARTNERS[k % UNIT]
}

/// What makes weights unsigned.
const fn offset(weight: Bits) -> i32 {
    match weight {
        Bits::B8 => 0,
        other => other.half() as i32,
    }
}

/// Units of a layer: spaced ones go in pairs.
fn units(layer: &LayerShape) -> usize {
    let units = usize::from(layer.input.c).div_ceil(UNIT);
    match Operands::of(layer.bits) {
        Operands::Spaced => units.next_multiple_of(2),
        Operands::Pairs(_) => units,
    }
}

/// Packed weights of one block of channels in bytes.
fn block_bytes(layer: &LayerShape) -> usize {
    units(layer) * UNIT * BLOCK * Operands::of(layer.bits).stored() / 8
}

/// Scratch of a layer in bytes.
pub fn scratch_bytes(layer: &LayerShape) -> usize {
    4 * units(layer) * Operands::of(layer.bits).words()
}

/// Packed weights of a layer in bytes.
pub fn packed_weight_bytes(layer: &LayerShape) -> usize {
    usize::from(layer.output.c).div_ceil(BLOCK) * block_bytes(layer)
}

/// Lays the weights out.
pub fn pack_weights(layer: &LayerShape, weights: &[i8], out: &mut [u8]) {
    let inputs = usize::from(layer.input.c);
    let operands = Operands::of(layer.bits);
    let stored = operands.stored();
    let mask = (1u32 << stored) - 1;
    out.fill(0);
    for (channel, row) in weights.chunks_exact(inputs.max(1)).enumerate() {
        let block = channel / BLOCK * block_bytes(layer);
        let lane = channel % BLOCK;
        for (k, &weight) in row.iter().enumerate() {
            let (unit, at) = (k / UNIT, k % UNIT);
            let (pair, half) = pair_of(layer.bits.input, at);
            // The unit's word, and the bit within it.
            let (word, bit) = match operands {
                Operands::Spaced => (lane, 2 * spaced_place(at)),
                Operands::Pairs(2) => (lane, 2 * pair + 16 * half),
                Operands::Pairs(4) => (pair / 4 * BLOCK + lane, 4 * (pair % 4) + 16 * half),
                Operands::Pairs(_) => {
                    let (four, word) = (pair / 4, pair % 4 / 2);
                    (four * 2 * BLOCK + lane * 2 + word, pair % 2 * 8 + half * 16)
                }
            };
            let bit = (unit * UNIT * BLOCK * stored / 32 + word) * 32 + bit;
            let field = (i32::from(weight) + offset(layer.bits.weight)) as u32 & mask;
            if let Some(byte) = out.get_mut(block + bit / 8) {
                *byte |= (field << (bit % 8)) as u8;
            }
        }
    }
}

/// What becomes of four accumulators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Packed codes of the width.
    Narrow(Bits),
    /// Bytes.
    Wide,
    /// `i32` accumulators.
    Raw,
}

/// Blocks of output channels.
pub struct Blocks<'a> {
    /// How operands lie.
    pub operands: Operands,
    /// Where accumulators start.
    pub start: i32,
    /// Expanded activations, whole units.
    pub expanded: &'a [u32],
    /// Packed weights from the first block on.
    pub weights: &'a [u8],
    /// Multipliers, whole blocks.
    pub multipliers: &'a [i32],
    /// Biases, as many.
    pub biases: &'a [i32],
    /// What becomes of the accumulators.
    pub store: Store,
    /// Where they go.
    pub output: &'a mut [u8],
}

impl Blocks<'_> {
    /// Bytes of a block's outputs.
    pub const fn block_bytes(store: Store) -> usize {
        match store {
            Store::Narrow(bits) => BLOCK * bits.storage() as usize / 8,
            Store::Wide => BLOCK,
            Store::Raw => 4 * BLOCK,
        }
    }

    /// Whether every slice is as long as the loops assume.
    pub fn is_sound(&self) -> bool {
        let blocks = self.multipliers.len() / BLOCK;
        let units = self.expanded.len() / self.operands.words();
        blocks > 0
            && units > 0
            && self.expanded.len().is_multiple_of(UNIT / 2)
            && self.weights.len() >= blocks * units * UNIT * BLOCK * self.operands.stored() / 8
            && self.biases.len() >= blocks * BLOCK
            && self.output.len() >= blocks * Self::block_bytes(self.store)
    }
}

/// Runs the layer.
#[inline(never)]
pub fn run(call: Call<'_>) {
    let layer = call.layer;
    let operands = Operands::of(layer.bits);
    let output = layer.bits.output;
    let words = units(layer) * operands.words();
    let Some(expanded) = call.scratch.get_mut(..words) else { return };
    let words = usize::from(layer.input.c) * layer.bits.input.storage() as usize;
    let first = [small_word(call.input)];
    // A pixel narrower than a word is one by itself.
    let packed =
        bytemuck::try_cast_slice(call.input).ok().filter(|words: &&[u32]| !words.is_empty());
    let packed = packed.unwrap_or(&first);
    let packed = packed.get(..words.div_ceil(32)).unwrap_or(packed);
    let total = isa::expand(layer.bits.input, operands, packed, expanded);
    let start = total.wrapping_mul(-offset(layer.bits.weight));
    let whole = call.multipliers.len() / BLOCK * BLOCK;
    let (Some((m, m_tail)), Some((b, b_tail))) =
        (call.multipliers.split_at_checked(whole), call.biases.split_at_checked(whole))
    else {
        return;
    };
    let size = block_bytes(layer);
    let blocks = usize::from(layer.output.c).div_ceil(BLOCK);
    let store = match (call.requant, output) {
        (Requant::Narrow, _) => Store::Narrow(output),
        (Requant::Wide, Bits::B8) => Store::Wide,
        _ => Store::Raw,
    };
    let written = blocks * Blocks::block_bytes(store);
    if store == Store::Raw || written > call.output.len() {
        let mut writer = Writer::new(layer.output_format(), call.output);
        let tables = call.multipliers.chunks(BLOCK).zip(call.biases.chunks(BLOCK));
        let mut rest = call.weights;
        for (m, b) in tables {
            let Some((weights, next)) = rest.split_at_checked(size) else { return };
            rest = next;
            let mut accumulators = [0i32; BLOCK];
            isa::run(Blocks {
                operands,
                start,
                expanded,
                weights,
                multipliers: &[0; BLOCK],
                biases: &[0; BLOCK],
                store: Store::Raw,
                output: bytemuck::try_cast_slice_mut(&mut accumulators).unwrap_or_default(),
            });
            for ((acc, &multiplier), &bias) in accumulators.into_iter().zip(m).zip(b) {
                let requant = call.requant;
                writer.push(Finish { multiplier, bias, requant, output }.code(acc));
            }
        }
        return writer.end_pixel();
    }
    let done = whole / BLOCK;
    if done > 0 {
        isa::run(Blocks {
            operands,
            start,
            expanded,
            weights: call.weights,
            multipliers: m,
            biases: b,
            store,
            output: &mut *call.output,
        });
    }
    if !m_tail.is_empty() {
        // Channels that are missing have tables of zeros, and codes of zero.
        let mut tables = [[0; BLOCK]; 2];
        let [multipliers, biases] = &mut tables;
        multipliers.iter_mut().zip(m_tail).for_each(|(to, &from)| *to = from);
        biases.iter_mut().zip(b_tail).for_each(|(to, &from)| *to = from);
        isa::run(Blocks {
            operands,
            start,
            expanded,
            weights: call.weights.get(done * size..).unwrap_or_default(),
            multipliers,
            biases,
            store,
            output: call.output.get_mut(done * Blocks::block_bytes(store)..).unwrap_or_default(),
        });
    }
    call.output.iter_mut().skip(written).for_each(|byte| *byte = 0);
}

/// Counts of [`run`].
pub fn work(layer: &LayerShape) -> Work {
    let unit = units(layer) as u64;
    let blocks = u64::from(layer.output.c).div_ceil(BLOCK as u64);
    let operands = Operands::of(layer.bits);
    let words = (u64::from(layer.input.c) * u64::from(layer.bits.input.storage())).div_ceil(32);
    let (word, each) = match (layer.bits.input, operands) {
        (_, Operands::Spaced) => (15, 4),
        (Bits::B2, _) => (21, 8),
        (Bits::B3 | Bits::B4, _) => (12, 4),
        (Bits::B8, _) => (7, 2),
    };
    let block = match operands {
        Operands::Spaced => 38 * unit + 25 * unit.div_ceil((CHUNK / UNIT) as u64) + 26,
        Operands::Pairs(_) => 76 * unit + 30,
    };
    let store = if layer.bits.output == Bits::B8 { 4 } else { 0 };
    // Blocks that end past the pixel are stored code by code.
    let bytes = layer.output_format().pixel_bytes() as u64;
    let written = blocks * BLOCK as u64 * u64::from(layer.bits.output.storage()) / 8;
    let short = if written > bytes { blocks } else { 0 };
    let tail = if layer.output.c.is_multiple_of(BLOCK as u16) || short > 0 { 0 } else { 1 };
    Work::new([
        ("assembly", word * words + blocks * (block + store)),
        ("whole blocks", u64::from(blocks > tail && short == 0)),
        ("tail", tail),
        ("blocks in Rust", short),
        ("outputs in Rust", if short > 0 { layer.output.c.into() } else { 0 }),
        ("filler bytes", bytes.saturating_sub(written)),
    ])
    .and_fills(1, 4 * (unit * operands.words() as u64 - each * words))
}
