//! Linear layers: the activations are expanded once to pairs of 16-bit operands, then four output
//! channels at a time take their dot products from packed weights.
//!
//! Codes 0 to 3 of every four become the pairs (0, 2) and (1, 3). Weights lie unit by unit of 16
//! codes, channel by channel: bytes as they are; narrower ones unsigned (`w + 2^(b-1)`, 3 bits in
//! nibbles), the pairs of a word side by side in its two halves. The offset is taken out by the
//! accumulators' start, `-offset * sum(a)`.

#[cfg(jaq_armv7em)]
use super::armv7em_linear as isa;
use super::codes::Writer;
#[cfg(not(jaq_armv7em))]
use super::portable as isa;
use super::requant::Finish;
use super::{Call, Work};
use crate::format::{Bits, LayerShape};

/// Output channels taken together.
const BLOCK: usize = 4;
/// Codes of a unit.
const UNIT: usize = 16;

/// Bits of a packed weight.
const fn stored(weight: Bits) -> usize {
    match weight {
        Bits::B3 => 4,
        other => other.get() as usize,
    }
}

/// What makes weights unsigned.
const fn offset(weight: Bits) -> i32 {
    match weight {
        Bits::B8 => 0,
        other => other.half() as i32,
    }
}

fn units(layer: &LayerShape) -> usize {
    usize::from(layer.input.c).div_ceil(UNIT)
}

/// Packed weights of one block of channels in bytes.
fn block_bytes(layer: &LayerShape) -> usize {
    units(layer) * UNIT * BLOCK * stored(layer.bits.weight) / 8
}

/// Scratch of a layer in bytes.
pub fn scratch_bytes(layer: &LayerShape) -> usize {
    units(layer) * UNIT * 2
}

/// Packed weights of a layer in bytes.
pub fn packed_weight_bytes(layer: &LayerShape) -> usize {
    usize::from(layer.output.c).div_ceil(BLOCK) * block_bytes(layer)
}

/// Lays the weights out.
pub fn pack_weights(layer: &LayerShape, weights: &[i8], out: &mut [u8]) {
    let inputs = usize::from(layer.input.c);
    let stored = stored(layer.bits.weight);
    let mask = (1u32 << stored) - 1;
    out.fill(0);
    let rows = weights.chunks_exact(inputs.max(1)).enumerate();
    for (channel, row) in rows {
        let block = channel / BLOCK * block_bytes(layer);
        for (k, &weight) in row.iter().enumerate() {
            // Bits from the start of the block; a word holds `32 / stored` codes of a channel.
            let bit = if stored == 8 {
                let word = k / 8 * 8 + channel % BLOCK * 2 + k % 8 / 4;
                word * 32 + k % 4 * 8
            } else {
                let codes = 32 / stored;
                let (word, at) = (k / codes * BLOCK + channel % BLOCK, k % codes);
                // The pair's number within the word, and the half.
                let (pair, half) = (at / 4 * 2 + at % 2, at % 4 / 2);
                word * 32 + half * 16 + pair * stored
            };
            let field = (i32::from(weight) + offset(layer.bits.weight)) as u32 & mask;
            if let Some(byte) = out.get_mut(block + bit / 8) {
                *byte |= (field << (bit % 8)) as u8;
            }
        }
    }
}

/// Runs the layer.
#[inline(never)]
pub fn run(call: Call<'_>) {
    let layer = call.layer;
    let Some(expanded) = call.scratch.get_mut(..units(layer) * UNIT / 2) else { return };
    let total = match layer.bits.input {
        Bits::B2 => expand::<2>(call.input, expanded),
        Bits::B3 | Bits::B4 => expand::<4>(call.input, expanded),
        Bits::B8 => expand::<8>(call.input, expanded),
    };
    let start = total.wrapping_mul(-offset(layer.bits.weight));
    let stored = stored(layer.bits.weight) as u32;
    let mut writer = Writer::new(layer.output_format(), call.output);
    let tables = call.multipliers.chunks(BLOCK).zip(call.biases.chunks(BLOCK));
    let (block_bytes, mut weights) = (block_bytes(layer), call.weights);
    for (m, b) in tables {
        let Some((block, rest)) = weights.split_at_checked(block_bytes) else { return };
        weights = rest;
        let mut accumulators = [start; BLOCK];
        isa::dot(expanded, block, stored, &mut accumulators);
        for ((acc, &multiplier), &bias) in accumulators.into_iter().zip(m).zip(b) {
            let (requant, output) = (call.requant, layer.bits.output);
            writer.push(Finish { multiplier, bias, requant, output }.code(acc));
        }
    }
    writer.end_pixel();
}

/// Expands codes of `STORAGE` bits to pairs, and gives their sum.
#[inline(always)]
fn expand<const STORAGE: usize>(codes: &[u8], out: &mut [u32]) -> i32 {
    let mut total = 0;
    let mut fours = codes.chunks(STORAGE / 2);
    for pair in out.as_chunks_mut::<2>().0 {
        let [a, b, c, d] = super::codes::unpack_four::<STORAGE>(fours.next().unwrap_or_default());
        *pair = [a | c << 16, b | d << 16];
        total += (a + b + c + d) as i32;
    }
    total
}

/// Names of [`work`]'s counts.
pub const WORK: [&str; 4] = ["assembly", "expanded fours", "outputs", "blocks"];

/// Counts of [`run`].
pub fn work(layer: &LayerShape) -> Work {
    let units = units(layer) as u64;
    let blocks = u64::from(layer.output.c).div_ceil(BLOCK as u64);
    let unit = match layer.bits.weight {
        Bits::B8 => 78,
        Bits::B3 | Bits::B4 => 76,
        Bits::B2 => 77,
    };
    Work::new(&[blocks * (units * unit + 9), units * 4, u64::from(layer.output.c), blocks])
}
