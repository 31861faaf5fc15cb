//! How often the parts of a depthwise layer run. The assembly of Armv7E-M is counted instruction by
//! instruction, from the same sizes that steer it.

use super::super::geometry::ring_rows;
use super::super::{Isa, Work};
use super::{LANES, OCTET, Plan, Planes, word_lanes};
use crate::format::{Bits, LayerShape, Requant, TensorFormat};

/// Instructions of a row of a lane, and of the call with `lanes` of them; `None` where no routine
/// has the window.
fn row(plan: &Plan, layer: &LayerShape) -> Option<u64> {
    let window = layer.op.window();
    let (outputs, wide) = (plan.outputs as u64, layer.bits.output == Bits::B8);
    // Of narrow rules less of wide ones.
    let by_rule = |narrow: u64, wide_less: i64| {
        narrow.saturating_add_signed(if wide { wide_less } else { 0 })
    };
    Some(match (plan.planes, window.kh, window.kw, window.stride) {
        (Planes::Bytes, ..) => 23 + 33 * outputs / 8,
        (Planes::Triples, ..) => 23 + by_rule(45, 6) * outputs / 6,
        (_, 3, 3, 1) => 19 + by_rule(24, -1) * outputs / 2 + 3 * outputs.div_ceil(4),
        (_, 3, 3, 2) => 19 + by_rule(27, -1) * outputs / 2 + 3 * outputs.div_ceil(4),
        (_, 5, 5, 1 | 2) => 29 + by_rule(69, -1) * outputs / 2,
        _ => return None,
    })
}

/// Instructions to gather a word of every pixel of a row, and to spread it.
fn load(plan: &Plan, input: TensorFormat) -> u64 {
    let (pixels, words) = (u64::from(input.shape.w), plan.words as u64);
    let gather = match input.pixel_bytes() {
        1 | 2 => 1 + 4 * pixels,
        _ => 7 + 9 * (pixels / 4) + 5 * (pixels % 4),
    };
    let spread = match (plan.planes, input.bits) {
        (Planes::Bytes, _) => 6 + 35 * words,
        (Planes::Triples, Bits::B2) => 5 + 42 * words,
        (Planes::Triples, _) => 4 + 32 * words,
        (Planes::Halves, Bits::B2) => 8 + 103 * words / 2,
        (Planes::Halves, Bits::B3 | Bits::B4) => 8 + 55 * words / 2,
        (Planes::Halves, Bits::B8) => 8 + 31 * words / 2,
    };
    gather + spread
}

/// Instructions to pack fours of pixels.
fn pack(output: Bits, fours: u64) -> u64 {
    match output {
        Bits::B2 => 9 + 53 * fours,
        Bits::B3 | Bits::B4 => 9 + 37 * fours,
        Bits::B8 => 7 + 25 * fours,
    }
}

/// Rows of taps by their length: short loops are compiled apart.
fn columns(kw: u8) -> &'static str {
    match kw {
        0 | 1 => "rows of one tap",
        2 => "rows of 2 taps",
        3 => "rows of 3 taps",
        4 => "rows of 4 taps",
        5 => "rows of 5 taps",
        6 => "rows of 6 taps",
        7 => "rows of 7 taps",
        8 => "rows of 8 taps",
        _ => "longer rows of taps",
    }
}

/// Counts of [`super::run`].
pub fn work(layer: &LayerShape, isa: Isa) -> Work {
    let requant = Requant::usual(layer.bits.output);
    let plan = Plan::new(layer, Planes::of(layer, requant));
    let window = layer.op.window();
    let (input, output) = (layer.input_format(), layer.output_format());
    let channels = u64::from(layer.output.c);
    let (height, width) = (u64::from(layer.output.h), u64::from(layer.output.w));
    let words = |format: TensorFormat| channels.div_ceil(word_lanes(format.bits) as u64);
    let (words_in, words_out) = (words(input), words(output));
    let lanes = plan.lanes as u64;
    let (blocks, rest) = (channels.div_ceil(lanes), channels % lanes);
    let [loaded, padded] = ring_rows(layer);
    let taps = window.taps() as u64;
    let weights = match layer.bits.weight {
        Bits::B2 => "weights of 2 bits",
        Bits::B3 => "weights of 3 bits",
        Bits::B4 => "weights of 4 bits",
        Bits::B8 => "weights of 8 bits",
    };
    let slot = plan.slot() as u64;
    let thresholds = plan.planes == Planes::Bytes;
    let work = Work::new([
        ("blocks", blocks),
        ("channels", channels),
        (weights, channels * taps),
        ("negated weights", if thresholds { channels * taps } else { 0 }),
        ("padding rows", blocks * padded),
        ("padding words", blocks * padded * slot),
        ("line words", plan.line() as u64),
    ]);
    let work = work.and_fills(u64::from(rest > 0), lanes * plan.out as u64);
    let routine = row(&plan, layer).filter(|_| isa == Isa::Armv7em);
    let Some(row) = routine else {
        let outputs = channels * height * width;
        let rule = if layer.bits.output == Bits::B8 { "wide outputs" } else { "narrow outputs" };
        let storage = |bits: Bits| 32 / u64::from(bits.storage());
        // Cores without a division instruction work out the words of places bit by bit.
        let places = (0..width).map(|x| x * u64::from(window.stride) / plan.planes.pixels() as u64);
        let bits = places.map(|word| u64::from(u64::BITS - word.leading_zeros())).sum::<u64>();
        let quotients = channels * height * u64::from(window.kh) * bits;
        let spreads = loaded * words_in * plan.words as u64 * storage(layer.bits.input);
        return work.and([
            ("portable MACs", if window.kw > 8 { outputs * taps } else { 0 }),
            (columns(window.kw), outputs * u64::from(window.kh)),
            ("quotient bits", if isa == Isa::Armv6m { quotients } else { 0 }),
            (rule, outputs),
            ("portable lane rows", channels * height),
            ("portable rows", blocks * height),
            ("portable gathers", loaded * words_in * u64::from(input.shape.w)),
            ("portable loads", loaded * words_in),
            ("portable spreads", spreads),
            ("portable places", spreads * plan.planes.pixels() as u64),
            ("portable packs", words_out * height * width),
            ("portable codes", words_out * height * width * storage(layer.bits.output)),
        ]);
    };
    // A routine runs a batch of lanes: all of a block, or an octet.
    let batch = if plan.planes == Planes::Halves { LANES } else { OCTET } as u64;
    let batches =
        (blocks - 1) * lanes.div_ceil(batch) + ((channels - 1) % lanes + 1).div_ceil(batch);
    // Rows that may spill into those below are packed at once.
    let narrow = output.pixel_bytes() < 4;
    let spilling = match narrow {
        true => 0,
        false => (0..height).filter(|row| (height - 1 - row) * width >= 4).count() as u64,
    };
    let whole = u64::from(width >= 4);
    let tail = u64::from(!width.is_multiple_of(4));
    let apart = pack(layer.bits.output, width / 4) * whole + pack(layer.bits.output, 1) * tail;
    let packed =
        spilling * pack(layer.bits.output, width.div_ceil(4)) + (height - spilling) * apart;
    let narrows = if narrow { height * (1 + 4 * width) } else { 0 };
    work.and([
        (
            "assembly",
            loaded * words_in * load(&plan, input)
                + height * (channels * row + 5 * batches)
                + words_out * (packed + narrows),
        ),
        ("loads", loaded * words_in),
        ("input rows", blocks * loaded),
        ("turns of the ring", blocks * (height - 1) * u64::from(window.stride.min(window.kh))),
        ("rows", blocks * height),
        ("calls of a row", batches * height),
        ("packs", words_out * (spilling + (height - spilling) * (whole + tail))),
        ("tail packs", words_out * (height - spilling) * tail),
        ("tail pixels", words_out * (height - spilling) * (width % 4)),
        (if plan.planes == Planes::Halves { "halves" } else { "fields" }, channels),
    ])
}
