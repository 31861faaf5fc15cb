//! How often the parts of a layer run: by what is compiled apart for schemes, widths and rules.

use super::super::Work;
use super::super::depthwise::word_lanes;
use super::super::geometry::ring_rows;
use super::finish::Rule;
use super::plan::{Plan, Scheme};
use crate::format::{Bits, LayerShape, Requant};

/// Counts of [`super::run`].
pub fn work(layer: &LayerShape) -> Work {
    let plan = Plan::new(layer);
    let (channels, height) = (u64::from(layer.output.c), u64::from(layer.output.h));
    let (lanes, terms) = (plan.lanes as u64, plan.terms as u64);
    let blocks = channels.div_ceil(lanes);
    let rows = blocks * height;
    let lane_rows = channels * height;
    let fours = lane_rows * plan.quads as u64;
    let [loaded, padded] = ring_rows(layer);

    let rule = Rule::new(&plan, layer, Requant::usual(layer.bits.output), &[], &[]);
    let two = plan.outputs == 2;
    let finished = match (plan.scheme, rule) {
        (Scheme::Bytes, Rule::Thresholds) if two => "fours of two bytes, counted",
        (Scheme::Bytes, Rule::Thresholds) => "fours of bytes, counted",
        (Scheme::Bytes, Rule::Narrow(_)) if two => "fours of two bytes",
        (Scheme::Bytes, Rule::Narrow(_)) => "fours of bytes",
        (Scheme::Bytes, _) => "fours of bytes, wide",
        (Scheme::Pairs, Rule::Narrow(_)) => "fours of pairs",
        (Scheme::Pairs, _) => "fours of pairs, wide",
        (Scheme::Single, Rule::Narrow(_)) => "fours",
        (Scheme::Single, _) => "fours, wide",
    };

    let (input, output) = (layer.input_format(), layer.output_format());
    let per_word = word_lanes(layer.bits.input) as u64;
    let spreads = loaded * channels.div_ceil(per_word);
    let words = match (plan.scheme, layer.bits.input) {
        (Scheme::Bytes, Bits::B2) => "words of bytes, 2 bits",
        (Scheme::Bytes, Bits::B3 | Bits::B4) => "words of bytes, 4 bits",
        (Scheme::Bytes, Bits::B8) => "words of bytes, 8 bits",
        (Scheme::Pairs, Bits::B2) => "words of pairs, 2 bits",
        (Scheme::Pairs, Bits::B3 | Bits::B4) => "words of pairs, 4 bits",
        (Scheme::Pairs, Bits::B8) => "words of pairs, 8 bits",
        (Scheme::Single, Bits::B2) => "words, 2 bits",
        (Scheme::Single, Bits::B3 | Bits::B4) => "words, 4 bits",
        (Scheme::Single, Bits::B8) => "words, 8 bits",
    };
    let gathered = if input.pixel_bytes() < 4 { "narrow pixels" } else { "pixels" };

    // Bytes of a pixel, filler among them as far as a block's lanes go.
    let block_bytes = lanes * u64::from(layer.bits.output.storage()) / 8;
    let columns = height * (blocks * block_bytes).min(output.pixel_bytes() as u64);
    let width = u64::from(layer.output.w);
    let [packed, rest] = match layer.bits.output {
        Bits::B2 => ["fours to 2 bits", "pixels to 2 bits"],
        Bits::B3 | Bits::B4 => ["fours to 4 bits", "pixels to 4 bits"],
        Bits::B8 => ["fours to 8 bits", "pixels to 8 bits"],
    };
    let weights = match layer.bits.weight {
        Bits::B2 => "weights of 2 bits",
        Bits::B3 => "weights of 3 bits",
        Bits::B4 => "weights of 4 bits",
        Bits::B8 => "weights of 8 bits",
    };
    let taps = channels * layer.op.window().taps() as u64;
    let wide = layer.bits.output == Bits::B8;
    Work::new([
        (if terms.is_multiple_of(3) { "terms by threes" } else { "terms" }, fours * terms),
        ("sums", fours),
        ("rows of lanes", lane_rows),
        // Wide outputs of bytes are finished one after the other.
        (finished, if two && finished == "fours of bytes, wide" { 2 * fours } else { fours }),
        ("rows", rows),
        ("placed terms", rows * terms),
        ("spreads", spreads),
        ("phases", spreads * plan.phases as u64),
        (words, spreads * plan.lane as u64),
        (gathered, spreads * u64::from(input.shape.w)),
        ("input rows", blocks * loaded),
        ("padding rows", blocks * padded),
        ("padding words", blocks * padded * plan.slot as u64),
        ("columns", columns),
        (packed, columns * (width / 4)),
        (rest, columns * (width % 4)),
        ("blocks", blocks),
        ("channels", channels),
        ("channels of a wide rule", if wide { channels } else { 0 }),
        (weights, taps),
        ("negated weights", if rule == Rule::Thresholds { taps } else { 0 }),
        ("products of weights", channels * terms),
        ("line words", plan.line as u64),
        ("turned rows", rows * u64::from(layer.op.window().stride) * plan.rows as u64),
    ])
    .and_fills(u64::from(!channels.is_multiple_of(lanes)), lanes * plan.plane as u64)
}
