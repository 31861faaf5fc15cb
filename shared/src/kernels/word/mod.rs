//! Convolution and pointwise on cores that multiply 32 by 32 to 32 bits: two output pixels in the
//! halves of one word.
//!
//! Eight output pixels at a time: the codes under their windows are expanded to four words a
//! position, `a[2i] + a[2i+1] * 2^16`; then four output channels at a time sum up
//! word times weight, and requantize. [`scheme`] has the packing of the weights, [`expand`] the
//! expansion, [`portable`] the inner loops and [`armv6m`] and [`rv32im`] their assembly. Codes and
//! weights of 8 bits meet in dot products of four bytes where a core has them (`bytes`, `rv32_xpulp`).

#[cfg(jaq_armv6m)]
mod armv6m;
#[cfg(jaq_armv6m)]
mod armv6m_store;
#[cfg(not(jaq_xpulp))]
mod bytes;
#[cfg(any(jaq_armv6m, jaq_rv32im))]
mod call;
mod count;
mod expand;
#[cfg(not(any(jaq_armv6m, jaq_rv32im)))]
mod portable;
#[cfg(jaq_xpulp)]
mod rv32_xpulp;
#[cfg(jaq_rv32im)]
mod rv32im;
mod scheme;
mod store;

#[cfg(jaq_armv6m)]
use armv6m as isa;
#[cfg(not(any(jaq_armv6m, jaq_rv32im)))]
use portable as isa;
#[cfg(jaq_rv32im)]
use rv32im as isa;

#[cfg(not(jaq_xpulp))]
use bytes as dot;
#[cfg(jaq_xpulp)]
use rv32_xpulp as dot;

#[cfg(jaq_armv6m)]
use armv6m_store::{spread, store, sums};
#[cfg(not(jaq_armv6m))]
use expand::{spread, sums};
#[cfg(not(jaq_armv6m))]
use store::store;

use super::Call;
use crate::format::{LayerShape, Op, Requant};
use expand::Gather;
use scheme::{Plan, Scheme};
use store::{Pixels, Rule};

pub use count::work;

/// Output channels computed together.
const BLOCK: usize = 4;
/// Words of a position: pairs of pixels, or single ones.
const WORDS: usize = 4;
/// Most output pixels computed together.
const PIXELS: usize = 2 * WORDS;

/// Accumulators of a block: by channel, then pixel.
type Accumulators = [[i32; PIXELS]; BLOCK];

/// Whether the layer can run here.
pub fn supports(layer: &LayerShape) -> bool {
    matches!(layer.op, Op::Conv(_)) && layer.reduction() > 0
}

/// Scratch of a layer in bytes.
pub fn scratch_bytes(layer: &LayerShape) -> usize {
    let plan = Plan::new(layer);
    let segment = layer.input_format().pixel_bytes();
    4 * WORDS * plan.positions + segment.next_multiple_of(4)
}

/// Packed weights of a layer in bytes.
pub fn packed_weight_bytes(layer: &LayerShape) -> usize {
    let plan = Plan::new(layer);
    plan.blocks * plan.block_bytes()
}

/// Lays the weights out ([`scheme`]).
pub fn pack_weights(layer: &LayerShape, weights: &[i8], out: &mut [u8]) {
    let plan = Plan::new(layer);
    out.fill(0);
    for (channel, row) in weights.chunks_exact(layer.reduction().max(1)).enumerate() {
        let start = channel / BLOCK * plan.block_bytes();
        let Some(block) = out.get_mut(start..start + plan.block_bytes()) else { return };
        for (position, &weight) in row.iter().enumerate() {
            plan.scheme.put(block, plan.positions, channel % BLOCK, position, weight.into());
        }
    }
}

/// Folds the lift of the fields into the biases; the zero point is already in them.
pub fn prepare(layer: &LayerShape, requant: Requant, multipliers: &[i32], biases: &mut [i32]) {
    let lift = Plan::new(layer).lift(layer.bits.input) as i32;
    for (m, b) in multipliers.iter().zip(biases) {
        *b = b.wrapping_sub(match requant {
            Requant::Narrow => lift.wrapping_mul(*m),
            _ => lift,
        });
    }
}

/// Runs the layer.
#[inline(never)]
pub fn run(call: Call<'_>) {
    run_with::<{ cfg!(jaq_xpulp) }>(call);
}

/// Runs the layer as cores with dot products of four bytes do.
#[cfg(test)]
pub fn run_bytes(call: Call<'_>) {
    run_with::<true>(call);
}

/// Runs the layer; with `BYTES`, codes and weights of 8 bits by dot products of four bytes.
#[inline(always)]
fn run_with<const BYTES: bool>(call: Call<'_>) {
    let layer = call.layer;
    let plan = Plan::new(layer);
    let pixel_bytes = layer.output_format().pixel_bytes();
    let group = plan.scheme.group();
    let bytes = BYTES && plan.scheme == Scheme::Single;
    let words = WORDS * if bytes { plan.positions / 4 } else { plan.positions };
    // What dot products leave of the room stays free.
    let room = WORDS * plan.positions;
    let Some((expanded, padding)) = call.scratch.split_at_mut_checked(room) else { return };
    let expanded = expanded.get_mut(..words).unwrap_or_default();
    let padding: &mut [u8] = bytemuck::cast_slice_mut(padding);
    padding.fill(expand::byte_of(layer.bits.input, call.input_zero_point));
    expanded.fill(0);
    let expanded = expanded.as_chunks_mut::<WORDS>().0;
    let gather = Gather::new(layer, call.input, padding);
    let rule = Rule::new(&plan, layer, call.requant, call.multipliers, call.biases);
    let fills = rule.block_bytes() * plan.blocks < pixel_bytes;
    let blocks = Blocks::<BYTES> {
        lift: plan.lift(layer.bits.input),
        plan,
        rule,
        weights: call.weights,
        multipliers: call.multipliers,
        biases: call.biases,
        pixel_bytes,
    };
    for (index, output) in call.output.chunks_mut((group * pixel_bytes).max(1)).enumerate() {
        match blocks.plan.scheme {
            Scheme::Single if BYTES => gather.bytes(index * group, expanded),
            Scheme::Single => gather.singles(index * group, expanded),
            _ => gather.pairs(index * group, expanded),
        }
        if fills {
            output.fill(0);
        }
        blocks.run(expanded, group, output);
    }
}

/// All blocks of output channels, run on one pixel group at a time.
struct Blocks<'a, const BYTES: bool> {
    plan: Plan,
    lift: u32,
    rule: Rule,
    weights: &'a [u8],
    multipliers: &'a [i32],
    biases: &'a [i32],
    pixel_bytes: usize,
}

impl<const BYTES: bool> Blocks<'_, BYTES> {
    // Functions of their own leave the compiler registers, of which the smallest cores have few.
    #[inline(never)]
    fn run(&self, expanded: &[[u32; WORDS]], group: usize, mut output: &mut [u8]) {
        let start = match self.plan.scheme {
            Scheme::Quad { offset, .. } => {
                let lifts = self.lift | self.lift << 16;
                sums(expanded).map(|sum| lifts.wrapping_sub(sum.wrapping_mul(offset)))
            }
            _ => [0; WORDS],
        };
        let mut accumulators = [[0; PIXELS]; BLOCK];
        let (block_bytes, step) = (self.plan.block_bytes(), self.rule.block_bytes());
        let (mut weights, mut m, mut b) = (self.weights, self.multipliers, self.biases);
        while let Some((block, rest)) = weights.split_at_checked(block_bytes) {
            match self.plan.scheme {
                Scheme::Single if BYTES => dot::block(expanded, block, &mut accumulators),
                _ => isa::block(&self.plan, expanded, &start, block, &mut accumulators),
            }
            let channels = m.len().min(b.len()).min(BLOCK);
            let (Some((m_block, m_rest)), Some((b_block, b_rest))) =
                (m.split_at_checked(channels), b.split_at_checked(channels))
            else {
                return;
            };
            let pixels = Pixels { output: &mut *output, pixel_bytes: self.pixel_bytes, group };
            match self.plan.scheme {
                Scheme::Single if BYTES => {
                    dot::store(self.rule, &accumulators, m_block, b_block, pixels);
                }
                _ => store(self.rule, &accumulators, m_block, b_block, pixels),
            }
            if m_rest.is_empty() {
                return;
            }
            (weights, m, b) = (rest, m_rest, b_rest);
            output = output.get_mut(step..).unwrap_or_default();
        }
    }
}
