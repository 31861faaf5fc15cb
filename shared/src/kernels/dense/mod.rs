//! Dense layers on packed operands: convolution of any window, and pointwise.
//!
//! A group of output pixels at a time: the codes under their windows are expanded once (im2col in
//! registers' layout), then every block of four output channels runs one inner loop over them,
//! requantizes and stores. [`scheme`] has the packing, [`expand`] the expansion, [`tile`] the
//! inner loops and their assembly twin in [`armv7em`].

#[cfg(jaq_armv7em)]
mod armv7em;
#[cfg(jaq_armv7em)]
mod armv7em_expand;
mod count;
mod expand;
#[cfg(not(jaq_armv7em))]
mod portable;
mod scheme;
#[cfg(jaq_armv7em)]
mod served;
mod tile;

#[cfg(jaq_armv7em)]
use armv7em as isa;
#[cfg(not(jaq_armv7em))]
use tile as isa;

use super::{Call, KernelId, Work, codes, linked, requant};
use crate::format::{Bits, LayerShape, Op, Requant};
use expand::{Expander, Rows, Starter};
use scheme::{BLOCK, Plan};
pub use scheme::{Family, scheme};
use tile::{Store, Tile};

/// Whether the layer can run here: a convolution whose blocks of outputs end within a pixel.
pub fn supports(layer: &LayerShape) -> bool {
    let blocks = usize::from(layer.output.c).div_ceil(BLOCK);
    let block = BLOCK * layer.bits.output.storage() as usize / 8;
    matches!(layer.op, Op::Conv(_)) && blocks * block <= layer.output_format().pixel_bytes()
}

/// The family that the layer's widths ask for.
pub const fn family(layer: &LayerShape) -> Family {
    scheme(layer.bits.weight, layer.bits.input).family
}

fn store(requant: Requant, output: Bits) -> Store {
    match (requant, output) {
        (Requant::Narrow, _) => Store::Narrow(output),
        (Requant::Wide, Bits::B8) => Store::Wide,
        _ => Store::Raw,
    }
}

/// Parts of the scratch in words, in order.
struct Parts {
    starts: usize,
    expanded: usize,
    padding: usize,
    tables: usize,
    spare: usize,
}

impl Parts {
    fn new(layer: &LayerShape, plan: &Plan) -> Parts {
        let group = plan.scheme.group();
        // A block of accumulators in full, or a group's output pixels.
        let raw = group * BLOCK;
        Parts {
            starts: plan.start_words(),
            expanded: plan.expanded_words(),
            // A segment of zero points, and one per pixel for those that cross the border.
            padding: 7 * plan.segment_words(layer.bits.input),
            tables: 2 * BLOCK,
            spare: raw.max((group * layer.output_format().pixel_bytes()).div_ceil(4)),
        }
    }

    const fn words(&self) -> usize {
        self.starts + self.expanded + self.padding + self.tables + self.spare
    }
}

/// Scratch of a layer in bytes.
pub fn scratch_bytes(layer: &LayerShape) -> usize {
    4 * Parts::new(layer, &Plan::new(layer)).words()
}

/// Packed weights of a layer in bytes.
pub fn packed_weight_bytes(layer: &LayerShape) -> usize {
    let plan = Plan::new(layer);
    plan.blocks * plan.block_bytes()
}

/// Lays the weights out block by block, position by position ([`scheme`] has the fields).
pub fn pack_weights(layer: &LayerShape, weights: &[i8], out: &mut [u8]) {
    let plan = Plan::new(layer);
    let scheme = plan.scheme;
    let channels = usize::from(layer.input.c);
    let code = |oc: usize, position: usize| -> i32 {
        let (segment, at) = (position / plan.segment, position % plan.segment);
        let tap = segment * plan.span + at / channels.max(1);
        if at >= channels * plan.span || tap >= layer.op.window().taps() {
            return 0;
        }
        let index = oc * layer.reduction() + tap * channels + at % channels;
        weights.get(index).copied().map_or(0, i32::from)
    };
    out.fill(0);
    for (block, bytes) in out.chunks_exact_mut(plan.block_bytes().max(1)).enumerate() {
        for position in 0..plan.reduction() {
            for lane in 0..BLOCK {
                let value = code(block * BLOCK + lane, position);
                let (bit, field) = match scheme.family {
                    // Channels in the order 1, 0, 3, 2: rotated by one field, 0 comes lowest and
                    // 1 highest.
                    Family::Outer => (
                        (position * BLOCK + (lane ^ 1)) * scheme.stored as usize,
                        value + scheme.offset as i32,
                    ),
                    Family::Dual => {
                        let half = plan.block_bytes() / 2 * (lane / 2);
                        let (four, at) = (position / 4, position % 4);
                        // Bytes of a word: channel 0 and 1 of the lower position, then the upper.
                        let byte = (at / 2) * 2 + lane % 2;
                        if scheme.stored == 4 {
                            let (shift, value) = if at % 2 == 0 {
                                (4, value)
                            } else {
                                (0, value + scheme.offset as i32)
                            };
                            ((half + four * 4 + byte) * 8 + shift, value)
                        } else {
                            ((half + four * 8 + at % 2 * 4 + byte) * 8, value)
                        }
                    }
                };
                let mask = (1u32 << scheme.stored) - 1;
                if let Some(byte) = bytes.get_mut(bit / 8) {
                    *byte |= ((field as u32 & mask) << (bit % 8)) as u8;
                }
            }
        }
    }
}

/// Folds the lift of the fields into the biases and pre-multiplies scales; the zero point is
/// already in the biases.
pub fn prepare(layer: &LayerShape, requant: Requant, multipliers: &mut [i32], biases: &mut [i32]) {
    let plan = Plan::new(layer);
    let lift = plan.lift(layer.bits.input).wrapping_mul(plan.chunks as u32) as i32;
    let store = store(requant, layer.bits.output);
    for (m, b) in multipliers.iter_mut().zip(biases) {
        *b = b.wrapping_sub(match requant {
            Requant::Narrow => lift.wrapping_mul(*m),
            Requant::Wide | Requant::General { .. } => lift,
        });
        if store == Store::Wide {
            *m <<= requant::WIDE_UPPER;
        }
    }
}

/// Runs the layer.
#[inline(never)]
pub fn run(call: Call<'_>) {
    let layer = call.layer;
    let plan = Plan::new(layer);
    let parts = Parts::new(layer, &plan);
    let pixel_bytes = layer.output_format().pixel_bytes();
    let group = plan.scheme.group();

    let scratch = call.scratch;
    let Some((starts, scratch)) = scratch.split_at_mut_checked(parts.starts) else { return };
    let Some((expanded, scratch)) = scratch.split_at_mut_checked(parts.expanded) else { return };
    let Some((padding, scratch)) = scratch.split_at_mut_checked(parts.padding) else { return };
    let Some((tables, spare)) = scratch.split_at_mut_checked(parts.tables) else { return };
    let spare: &mut [u8] = bytemuck::cast_slice_mut(spare);

    expanded.fill(0);
    padding.fill(codes::every(layer.bits.input) * u32::from(call.input_zero_point));
    let whole = call.multipliers.len() / BLOCK * BLOCK;
    let (Some((m, m_tail)), Some((b, b_tail))) =
        (call.multipliers.split_at_checked(whole), call.biases.split_at_checked(whole))
    else {
        return;
    };
    // The last, partial block of channels has tables of its own, ended by zeros.
    let tables: &mut [i32] = bytemuck::cast_slice_mut(tables);
    tables.fill(0);
    for (slot, value) in tables.iter_mut().zip(m_tail) {
        *slot = *value;
    }
    for (slot, value) in tables.iter_mut().skip(BLOCK).zip(b_tail) {
        *slot = *value;
    }
    let tail = tables.split_at_checked(BLOCK).filter(|_| !m_tail.is_empty());
    let blocks = Blocks {
        plan: &plan,
        output: layer.bits.output,
        requant: call.requant,
        store: store(call.requant, layer.bits.output),
        weights: call.weights,
        whole: (m, b),
        tail,
        pixel_bytes,
    };
    let written = plan.blocks * output_block_bytes(layer.bits.output);

    let padding: &mut [u8] = bytemuck::cast_slice_mut(padding);
    let mut gather = Gather::new(layer, &plan, call.input, padding);
    let pixels = layer.output.pixels();
    let starter = Starter::new(plan.scheme, plan.lift(layer.bits.input), plan.chunk);
    let first_tail = whole / BLOCK;
    let runner = isa::Runner::new(blocks.tile(0, blocks.whole));
    let tail = blocks.tail.map(|tables| isa::Runner::new(blocks.tile(first_tail, tables)));
    let tail_bytes = first_tail * blocks.store.block_bytes();
    let run = |starts: &[u32], expanded: &[u32], output: &mut [u8]| {
        if first_tail > 0 {
            runner.run(starts, expanded, output);
        }
        if let (Some(tail), Some(output)) = (&tail, output.get_mut(tail_bytes..)) {
            tail.run(starts, expanded, output);
        }
    };
    starts.fill(0);
    for (index, output) in call.output.chunks_mut((group * pixel_bytes).max(1)).enumerate() {
        let first = index * group;
        gather.expand(&plan, first, expanded);
        starter.run(expanded, starts);
        if const { RAW } && blocks.store == Store::Raw {
            let present = group.min(pixels.saturating_sub(first));
            blocks.run_raw(starts, expanded, spare, present, output);
        } else if output.len() == group * pixel_bytes {
            run(starts, expanded, output);
        } else {
            run(starts, expanded, spare);
            for (to, from) in output.iter_mut().zip(&*spare) {
                *to = *from;
            }
        }
        // What the blocks leave of a pixel is filler.
        if written < pixel_bytes {
            for pixel in output.chunks_mut(pixel_bytes) {
                pixel.iter_mut().skip(written).for_each(|byte| *byte = 0);
            }
        }
    }
}

/// Whether outputs that no packed store has the rule of come up in this build.
const RAW: bool =
    linked::serves(KernelId::Outer, "general") || linked::serves(KernelId::Dual, "general");

/// Bytes of one pixel's block of packed outputs.
const fn output_block_bytes(output: Bits) -> usize {
    BLOCK * output.storage() as usize / 8
}

/// All blocks of output channels of the layer, run on one pixel group at a time.
struct Blocks<'a> {
    plan: &'a Plan,
    output: Bits,
    requant: Requant,
    store: Store,
    weights: &'a [u8],
    /// Tables of the whole blocks.
    whole: (&'a [i32], &'a [i32]),
    /// Tables of the last, partial block.
    tail: Option<(&'a [i32], &'a [i32])>,
    pixel_bytes: usize,
}

impl Blocks<'_> {
    /// The blocks from `first` on that the tables have.
    fn tile<'b>(&'b self, first: usize, tables: (&'b [i32], &'b [i32])) -> Tile<'b> {
        let (plan, store) = (self.plan, self.store);
        let pixel_bytes = if store == Store::Raw { store.block_bytes() } else { self.pixel_bytes };
        let weights = self.weights.get(first * plan.block_bytes()..).unwrap_or_default();
        let (multipliers, biases) = tables;
        Tile { plan, weights, multipliers, biases, store, pixel_bytes }
    }

    /// Requantizes in Rust where no packed store has the rule.
    fn run_raw(
        &self,
        starts: &[u32],
        expanded: &[u32],
        spare: &mut [u8],
        present: usize,
        output: &mut [u8],
    ) {
        let size = output_block_bytes(self.output);
        let tables = self.whole.0.chunks(BLOCK).zip(self.whole.1.chunks(BLOCK)).chain(self.tail);
        for (block, (multipliers, biases)) in tables.enumerate() {
            let tile = self.tile(block, (multipliers, biases));
            isa::Runner::new(tile).run(starts, expanded, spare);
            let accumulators: &[[i32; BLOCK]] = bytemuck::try_cast_slice(
                spare.get(..present * Store::Raw.block_bytes()).unwrap_or_default(),
            )
            .unwrap_or_default();
            for (pixel, acc) in output.chunks_mut(self.pixel_bytes.max(1)).zip(accumulators) {
                let mut packed = 0;
                for (lane, ((&acc, &m), &b)) in acc.iter().zip(multipliers).zip(biases).enumerate()
                {
                    let code = requant::requantize(self.requant, acc, m, b, self.output);
                    packed |= code << (lane as u32 * self.output.storage());
                }
                for (to, from) in
                    pixel.iter_mut().skip(block * size).zip(packed.to_le_bytes()).take(size)
                {
                    *to = from;
                }
            }
        }
    }
}

/// Finds the codes under the windows of a pixel group.
struct Gather<'a> {
    layer: &'a LayerShape,
    input: &'a [u8],
    /// A segment of zero points.
    padding: &'a [u8],
    /// Segments that cross the border, one a pixel.
    border: &'a mut [u8],
    pixel_bytes: usize,
    /// Bytes of a segment in whole words. What lies behind its last code within them does not
    /// matter: its weights are zero.
    segment_bytes: usize,
    expander: Expander,
    /// Whether pixels are segments.
    pointwise: bool,
}

impl<'a> Gather<'a> {
    fn new(layer: &'a LayerShape, plan: &Plan, input: &'a [u8], padding: &'a mut [u8]) -> Self {
        let pixel_bytes = layer.input_format().pixel_bytes();
        let segment_bytes = plan.segment_words(layer.bits.input) * 4;
        let (padding, border) =
            padding.split_at_mut_checked(segment_bytes).unwrap_or((&mut [], &mut []));
        let expander = Expander::new(plan.scheme, layer.bits.input, plan.segment);
        let pointwise = layer.op.is_pointwise() && segment_bytes <= pixel_bytes;
        Gather { layer, input, padding, border, pixel_bytes, segment_bytes, expander, pointwise }
    }

    /// Expands all segments of the group that starts at output pixel `first`.
    fn expand(&mut self, plan: &Plan, first: usize, out: &mut [u32]) {
        let group = plan.scheme.group();
        if self.pointwise {
            let mut rows: Rows<'_> = [self.padding; 6];
            let mut rest = self.input.get(first * self.pixel_bytes..).unwrap_or_default();
            for row in &mut rows {
                // Behind the last pixel anything serves.
                let Some((pixel, next)) = rest.split_at_checked(self.pixel_bytes) else { break };
                (*row, rest) = (pixel, next);
            }
            return self.expander.run(&rows, out);
        }
        let window = self.layer.op.window();
        let (h, w) = (usize::from(self.layer.input.h), usize::from(self.layer.input.w));
        let width = usize::from(self.layer.output.w).max(1);
        let stride = usize::from(window.stride);
        // First row and column under every pixel's window, above and left of the input wrapping.
        let mut origins = [(0, 0); 6];
        let (mut oy, mut ox) = (first / width, first % width);
        for origin in origins.iter_mut().take(group) {
            *origin = (
                (oy * stride).wrapping_sub(usize::from(window.pads.top)),
                (ox * stride).wrapping_sub(usize::from(window.pads.left)),
            );
            ox += 1;
            if ox == width {
                (oy, ox) = (oy + 1, 0);
            }
        }
        let Gather { layer: _, input, padding, pixel_bytes, segment_bytes, .. } = *self;
        let mut segments = out.chunks_exact_mut((2 * plan.segment).max(1));
        for ky in 0..usize::from(window.kh) {
            let mut kx = 0;
            while kx < usize::from(window.kw) {
                let mut rows: Rows<'_> = [&[]; 6];
                let mut border = self.border.chunks_exact_mut(segment_bytes.max(1));
                for (row, &(y, x)) in rows.iter_mut().zip(&origins).take(group) {
                    let (y, x) = (y.wrapping_add(ky), x.wrapping_add(kx));
                    if y >= h {
                        *row = padding;
                        continue;
                    }
                    if x < w && x + plan.span <= w {
                        let start = (y * w + x) * pixel_bytes;
                        if let Some(codes) = input.get(start..start + segment_bytes) {
                            *row = codes;
                            continue;
                        }
                    }
                    let segment = border.next().unwrap_or_default();
                    compose(input, padding, pixel_bytes, y * w, w, x, segment);
                    *row = segment;
                }
                if let Some(out) = segments.next() {
                    self.expander.run(&rows, out);
                }
                kx += plan.span;
            }
        }
    }
}

/// Copies a segment that crosses the border, or that ends too near the input's end to be read in
/// whole words: pixels from column `x` on of the row that starts at pixel `row` and is `w` wide.
fn compose(
    input: &[u8],
    padding: &[u8],
    pixel_bytes: usize,
    row: usize,
    w: usize,
    x: usize,
    segment: &mut [u8],
) {
    for (i, to) in segment.chunks_mut(pixel_bytes.max(1)).enumerate() {
        let x = x.wrapping_add(i);
        let start = row.wrapping_add(x).wrapping_mul(pixel_bytes);
        let inside = if x < w { input.get(start..start.wrapping_add(to.len())) } else { None };
        for (to, from) in to.iter_mut().zip(inside.unwrap_or(padding)) {
            *to = *from;
        }
    }
}

/// Counts of [`run`].
pub fn work(layer: &LayerShape) -> Work {
    let requant = Requant::usual(layer.bits.output);
    count::work(layer, &Plan::new(layer), store(requant, layer.bits.output), scratch_bytes(layer))
}
