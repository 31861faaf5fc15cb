//! The integer kernels and their registry.
//!
//! # What a layer computes
//! Activations are unsigned codes `u` with a zero point `z`, weights signed codes `w`:
//!
//! ```text
//! acc[p][oc] = sum over taps t and channels c of (u[p*stride + t - pad][c] - z) * w[oc][t][c]
//! Narrow:   clamp((acc * M[oc] + B[oc]) >> 18)                        i32, outputs of <= 4 bits
//! Wide:     clamp(((acc + B[oc]) * M[oc] + 2^21) >> 22)               i64 product, |M| < 2^21
//! General:  clamp(((acc + B[oc]) * M[oc] + 2^(shift-1)) >> shift)     i64 product
//! Add:      clamp((a * M[0] + b * M[1] + M[2]) >> 18)                 raw codes
//! AvgPool:  clamp((sum * M[0] + M[1]) >> 18)                          raw codes
//! ```
//!
//! `clamp` limits to `0 ..= 2^b - 1`; shifts are arithmetic; padding has the value `u = z`.
//! Rounding and the output's zero point are in `B` ([`requant`] has every rule).
//!
//! # Canonical and stored
//! The exporter works with canonical weights (OHWI codes) and tables (`M`, `B` above). A kernel
//! wants its own form: [`pack_weights`] lays weights out, [`prepare`] turns the tables into the
//! stored ones, which hold what is constant: `-z * sum(w)` (kernels use raw codes), offsets of
//! unsigned weights, pre-multiplied scales. Both run on the host, without allocation.
//!
//! # Registry
//! A [`KernelId`] is an algorithm with its layout, the same on every core; an [`Isa`] says which
//! micro-kernels a core has. Where a build has no assembly for a kernel, its portable twin of the
//! same packing runs, with the same result. [`candidates`] checks every bound that the kernel
//! relies on. Must not know: schedules, arenas, files, boards.

#[cfg(jaq_armv7em)]
#[macro_use]
mod armv7em_head;
#[cfg(jaq_armv7em)]
mod armv7em;
#[cfg(jaq_armv7em)]
mod armv7em_linear;
#[cfg(jaq_armv7em)]
mod armv7em_planes;
#[cfg(jaq_armv7em)]
mod armv7em_rows;
mod codes;
mod dense;
mod depthwise;
mod elementwise;
mod geometry;
mod linear;
pub mod linked;
mod portable;
mod portable_planes;
mod reference;
pub mod requant;
mod word;
mod word_depthwise;
mod word_linear;
mod work;

use serde::{Deserialize, Serialize};

use crate::format::{LayerShape, Op, Requant};
use dense::Family;
use linked::is_linked;
pub use work::{WORK_COUNTS, Work};

/// An algorithm together with the layout of its weights and tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KernelId {
    /// The general path for layers with weights: any width, window and requantization.
    Reference,
    /// Convolution with several low-bit operands in one register: fields of a 64-bit product.
    Outer,
    /// Convolution on pairs of 16-bit operands.
    Dual,
    /// Linear layer on pairs of 16-bit operands.
    Dot,
    /// Depthwise convolution by planes.
    Depthwise,
    /// Residual sum.
    Add,
    /// Average pooling.
    AvgPool,
    /// Maximum pooling.
    MaxPool,
    /// Convolution on 32-bit products: fields of two pixels in one register.
    Word,
    /// Depthwise convolution on 32-bit products.
    WordDepthwise,
    /// Linear layer on 32-bit products.
    WordLinear,
}

impl KernelId {
    /// Every kernel.
    pub const ALL: [KernelId; 11] = [
        KernelId::Reference,
        KernelId::Outer,
        KernelId::Dual,
        KernelId::Dot,
        KernelId::Depthwise,
        KernelId::Add,
        KernelId::AvgPool,
        KernelId::MaxPool,
        KernelId::Word,
        KernelId::WordDepthwise,
        KernelId::WordLinear,
    ];

    /// Name as printed by `inspect` and benchmarks.
    pub const fn name(self) -> &'static str {
        match self {
            KernelId::Reference => "reference",
            KernelId::Outer => "outer",
            KernelId::Dual => "dual",
            KernelId::Dot => "dot",
            KernelId::Depthwise => "depthwise",
            KernelId::Add => "add",
            KernelId::AvgPool => "avgpool",
            KernelId::MaxPool => "maxpool",
            KernelId::Word => "word",
            KernelId::WordDepthwise => "word-depthwise",
            KernelId::WordLinear => "word-linear",
        }
    }

    /// Version of the layout: raised by every change that alters a stored byte, packed weight or
    /// table. Packed models of another version are refused. The first is 0.
    fn version(self) -> u32 {
        match self {
            KernelId::Reference => 1,
            KernelId::Outer => 5,
            KernelId::Dual => 5,
            KernelId::Dot => 2,
            KernelId::Depthwise => 7,
            KernelId::Add => 3,
            KernelId::AvgPool => 3,
            KernelId::MaxPool => 3,
            KernelId::Word => 1,
            KernelId::WordDepthwise | KernelId::WordLinear => 0,
        }
    }

    /// Version of what runs on a core with `isa`: raised by every change that alters an instruction
    /// count or the names of [`work`]'s counts. Cost tables of another version are stale; packed
    /// models are not.
    fn cost_version(self, isa: Isa) -> u32 {
        match (isa, self) {
            (Isa::Armv7em, KernelId::Outer | KernelId::Dual) => 6,
            (Isa::Armv7em, KernelId::Depthwise) => 8,
            (Isa::Armv7em, KernelId::Add | KernelId::AvgPool | KernelId::MaxPool) => 4,
            (Isa::Armv7em, KernelId::Dot) => 3,
            (Isa::Armv7em, KernelId::WordDepthwise | KernelId::WordLinear) => 0,
            _ => 2,
        }
    }
}

/// Which micro-kernels a core has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Isa {
    /// Rust alone.
    Portable,
    /// Armv7E-M with DSP instructions and single-precision registers (Cortex-M4F, M7), and Armv8-M
    /// with both (M33).
    Armv7em,
    /// Armv7-M: long multiplications, no DSP instructions (Cortex-M3).
    Armv7m,
    /// Armv6-M: products of 32 bits, eight registers for most instructions (Cortex-M0+).
    Armv6m,
    /// RV32IM.
    Rv32im,
}

impl Isa {
    /// The micro-kernels in this build.
    pub const fn compiled() -> Isa {
        if cfg!(jaq_armv7em) {
            Isa::Armv7em
        } else if cfg!(jaq_armv7m) {
            Isa::Armv7m
        } else if cfg!(jaq_armv6m) {
            Isa::Armv6m
        } else if cfg!(jaq_rv32im) {
            Isa::Rv32im
        } else {
            Isa::Portable
        }
    }
}

/// One execution of a layer. Lengths follow from the layer ([`LayerShape::input_format`],
/// [`packed_weight_bytes`], [`table_lengths`], [`scratch_bytes`]) and are validated at load;
/// every slice starts at a multiple of 4 bytes.
pub struct Call<'a> {
    /// Geometry and widths.
    pub layer: &'a LayerShape,
    /// Code of real zero in the input, which padding takes.
    pub input_zero_point: u8,
    /// Rule of the outputs.
    pub requant: Requant,
    /// Packed input activations.
    pub input: &'a [u8],
    /// The second summand of [`Op::Add`], at `bits.weight`.
    pub input2: Option<&'a [u8]>,
    /// Weights as [`pack_weights`] laid them out.
    pub weights: &'a [u8],
    /// Stored multipliers.
    pub multipliers: &'a [i32],
    /// Stored biases.
    pub biases: &'a [i32],
    /// Packed output activations.
    pub output: &'a mut [u8],
    /// Working memory of any content, [`scratch_bytes`] long.
    pub scratch: &'a mut [u32],
}

/// Kernels that compute `layer` exactly on a core with `isa`, the preferred first, the general
/// path last.
pub fn candidates(
    layer: &LayerShape,
    _requant: Requant,
    isa: Isa,
) -> impl Iterator<Item = KernelId> + use<> {
    let general = match layer.op {
        Op::Conv(_) | Op::Depthwise(_) | Op::Linear => KernelId::Reference,
        Op::Add => KernelId::Add,
        Op::AvgPool(_) => KernelId::AvgPool,
        Op::MaxPool(_) => KernelId::MaxPool,
    };
    // Without long multiplications worth the name, products of 32 bits serve better.
    let short = matches!(isa, Isa::Armv7m | Isa::Armv6m | Isa::Rv32im);
    let words = isa != Isa::Armv7em;
    let word = (words && word::supports(layer)).then_some(KernelId::Word);
    let dense = (!short && dense::supports(layer)).then(|| match dense::family(layer) {
        Family::Outer => KernelId::Outer,
        Family::Dual => KernelId::Dual,
    });
    let rows = (words && word_depthwise::supports(layer)).then_some(KernelId::WordDepthwise);
    let products = (words && word_linear::supports(layer)).then_some(KernelId::WordLinear);
    let depthwise = depthwise::supports(layer).then_some(KernelId::Depthwise);
    let dot = (layer.op == Op::Linear).then_some(KernelId::Dot);
    [dense, word, products, dot, rows, depthwise, Some(general)].into_iter().flatten()
}

/// Working memory of `kernel` on `layer` in bytes, a multiple of 4; 0 of a kernel that the build
/// does not [link](linked).
pub fn scratch_bytes(kernel: KernelId, layer: &LayerShape) -> usize {
    use KernelId::*;
    match kernel {
        Outer | Dual if const { is_linked(Outer) || is_linked(Dual) } => {
            dense::scratch_bytes(layer)
        }
        Word if const { is_linked(Word) } => word::scratch_bytes(layer),
        Dot if const { is_linked(Dot) } => linear::scratch_bytes(layer),
        Depthwise if const { is_linked(Depthwise) } => depthwise::scratch_bytes(layer),
        WordDepthwise if const { is_linked(WordDepthwise) } => word_depthwise::scratch_bytes(layer),
        WordLinear if const { is_linked(WordLinear) } => word_linear::scratch_bytes(layer),
        _ => 0,
    }
}

/// Size of the packed weights in bytes, a multiple of 4; 0 of a kernel that the build does not
/// [link](linked).
pub fn packed_weight_bytes(kernel: KernelId, layer: &LayerShape) -> usize {
    use KernelId::*;
    match kernel {
        Reference | Depthwise | WordDepthwise => {
            codes::stream_bytes(layer.weights(), layer.bits.weight)
        }
        Outer | Dual if const { is_linked(Outer) || is_linked(Dual) } => {
            dense::packed_weight_bytes(layer)
        }
        Word if const { is_linked(Word) } => word::packed_weight_bytes(layer),
        Dot if const { is_linked(Dot) } => linear::packed_weight_bytes(layer),
        WordLinear if const { is_linked(WordLinear) } => word_linear::packed_weight_bytes(layer),
        _ => 0,
    }
}

/// Lengths of the multiplier and the bias table, canonical and stored alike.
pub fn table_lengths(layer: &LayerShape) -> (usize, usize) {
    let channels = usize::from(layer.output.c);
    match layer.op {
        Op::Conv(_) | Op::Depthwise(_) | Op::Linear => (channels, channels),
        Op::Add => (3, 0),
        Op::AvgPool(_) => (2, 0),
        Op::MaxPool(_) => (0, 0),
    }
}

/// Lays canonical weight codes (order stated at [`Op`]) out for `kernel` into `out`, which is
/// [`packed_weight_bytes`] long.
pub fn pack_weights(kernel: KernelId, layer: &LayerShape, weights: &[i8], out: &mut [u8]) {
    match kernel {
        KernelId::Reference | KernelId::Depthwise | KernelId::WordDepthwise => {
            codes::write_stream(layer.bits.weight, weights, out);
        }
        KernelId::Outer | KernelId::Dual => dense::pack_weights(layer, weights, out),
        KernelId::Word => word::pack_weights(layer, weights, out),
        KernelId::Dot => linear::pack_weights(layer, weights, out),
        KernelId::WordLinear => word_linear::pack_weights(layer, weights, out),
        KernelId::Add | KernelId::AvgPool | KernelId::MaxPool => {}
    }
}

/// Turns the canonical tables in `multipliers` and `biases` into the stored ones of `kernel`.
/// Without effect on operators without weights.
pub fn prepare(
    kernel: KernelId,
    layer: &LayerShape,
    input_zero_point: u8,
    weights: &[i8],
    requant: Requant,
    multipliers: &mut [i32],
    biases: &mut [i32],
) {
    if !layer.op.has_weights() {
        return;
    }
    let rows = weights.chunks_exact(layer.reduction().max(1));
    for ((m, b), row) in multipliers.iter().zip(&mut *biases).zip(rows) {
        let total: i32 = row.iter().map(|&w| i32::from(w)).sum();
        let offset = i32::from(input_zero_point).wrapping_mul(total);
        *b = b.wrapping_sub(match requant {
            Requant::Narrow => offset.wrapping_mul(*m),
            Requant::Wide | Requant::General { .. } => offset,
        });
    }
    match kernel {
        KernelId::Outer | KernelId::Dual => dense::prepare(layer, requant, multipliers, biases),
        KernelId::Word => word::prepare(layer, requant, multipliers, biases),
        KernelId::Dot => requant::prepare_upper(requant, layer.bits.output, multipliers),
        KernelId::Depthwise => depthwise::prepare(layer, requant, weights, multipliers, biases),
        KernelId::WordDepthwise => {
            word_depthwise::prepare(layer, requant, weights, multipliers, biases);
        }
        KernelId::Reference
        | KernelId::WordLinear
        | KernelId::Add
        | KernelId::AvgPool
        | KernelId::MaxPool => {}
    }
}

/// Computes the layer with `kernel`, which must be one of its [`candidates`] and [linked](linked::runs).
pub fn run(kernel: KernelId, call: Call<'_>) {
    use KernelId::*;
    match kernel {
        Reference if const { is_linked(Reference) } => reference::run(call),
        Outer | Dual if const { is_linked(Outer) || is_linked(Dual) } => dense::run(call),
        Word if const { is_linked(Word) } => word::run(call),
        Dot if const { is_linked(Dot) } => linear::run(call),
        Depthwise if const { is_linked(Depthwise) } => depthwise::run(call),
        WordDepthwise if const { is_linked(WordDepthwise) } => word_depthwise::run(call),
        WordLinear if const { is_linked(WordLinear) } => word_linear::run(call),
        Add if const { is_linked(Add) } => elementwise::add(call),
        AvgPool if const { is_linked(AvgPool) } => elementwise::average_pool(call),
        MaxPool if const { is_linked(MaxPool) } => elementwise::max_pool(call),
        // Refused at load.
        _ => {}
    }
}

/// Work of `kernel` on `layer` on a core with `isa`.
pub fn work(kernel: KernelId, layer: &LayerShape, isa: Isa) -> Work {
    match kernel {
        KernelId::Reference => reference::work(layer),
        KernelId::Outer | KernelId::Dual => dense::work(layer),
        KernelId::Word => word::work(layer, isa),
        KernelId::Dot => linear::work(layer),
        KernelId::Depthwise => depthwise::work(layer, isa),
        KernelId::WordDepthwise => word_depthwise::work(layer),
        KernelId::WordLinear => word_linear::work(layer),
        KernelId::Add => elementwise::add_work(layer, isa),
        KernelId::AvgPool | KernelId::MaxPool => elementwise::work(layer, isa),
    }
}

/// Identifies the layouts of the kernels: a packed model carries it, and is refused when it differs.
pub fn registry_hash() -> u32 {
    fold(KernelId::version)
}

/// Identifies what the kernels execute on cores with `isa`: a cost table carries it, and is stale
/// when it differs.
pub fn cost_hash(isa: Isa) -> u32 {
    fold(|kernel| kernel.cost_version(isa))
}

/// FNV-1a of a number of every kernel. Those with 0 are left out: a kernel that is added leaves what
/// was made before it valid.
fn fold(number: impl Fn(KernelId) -> u32) -> u32 {
    KernelId::ALL.iter().filter(|&&kernel| number(kernel) > 0).fold(0x811c_9dc5, |hash, &kernel| {
        [kernel as u32, number(kernel)]
            .iter()
            .fold(hash, |hash: u32, &value| (hash ^ value).wrapping_mul(0x0100_0193))
    })
}

#[cfg(test)]
mod tests;
