//! Calibration: which runs to count, and how the counts become a cost table.
//!
//! The corpus is deterministic: every kernel that serves an instruction set, every pair of widths
//! it serves, shapes drawn with odd sizes from a fixed seed, so that no network's own layers are
//! in it. A fixed quarter of the measurements is held out of the fit and tells its error.
//! Must not know how counts are obtained.

use std::collections::{BTreeMap, HashSet};

use jaq_network::{LayerSpec, SplitMix64};
use jaq_shared::format::{Bits, LayerBits, LayerShape, Op, Requant, Shape, TensorFormat, Window};
use jaq_shared::kernels::{self, Isa, KernelId};

use crate::fit;
use crate::table::{self, CostTable, ENCODE, ENCODE_FEATURES, FitError, KernelCost};

/// What a count is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A layer, from dispatch to dispatch.
    Layer(LayerShape, KernelId),
    /// The encoding of raw bytes to a tensor of this format.
    Encode(TensorFormat),
}

/// One counted run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measurement {
    /// What ran.
    pub subject: Subject,
    /// Executed instructions.
    pub instructions: u64,
}

/// Why measurements make no table.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CalibrateError {
    #[error("kernel `{kernel}`: {points} measurements, {needed} wanted for its coefficients")]
    TooFew { kernel: String, points: usize, needed: usize },
    #[error("measurements, line {line}: {reason}")]
    Line { line: usize, reason: String },
}

/// The kernel an exporter prefers for `layer`.
pub fn usual_kernel(layer: &LayerShape, isa: Isa) -> Option<KernelId> {
    kernels::candidates(layer, Requant::usual(layer.bits.output), isa).next()
}

/// Draws from lists; seeded, so that the corpus never changes by itself.
struct Draw(SplitMix64);

impl Draw {
    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[(self.0.bits() % list.len() as u64) as usize]
    }
}

/// Shapes a pair of widths is measured on.
const SHAPES: usize = 6;

/// The layers to measure on a core with `isa`: each as a network of its own.
///
/// Spatial sizes are odd (networks use even ones), channels of every residue.
pub fn corpus(isa: Isa) -> Vec<LayerShape> {
    corpus_with(isa, 0x6a61_7121, SHAPES)
}

/// Layers drawn by another seed: never measured before, to judge a table by.
pub fn fresh(isa: Isa, seed: u64, shapes: usize) -> Vec<LayerShape> {
    let known: HashSet<_> = corpus(isa).into_iter().collect();
    let drawn = corpus_with(isa, seed ^ 0x0dd5_eed5, shapes);
    drawn.into_iter().filter(|layer| !known.contains(layer)).collect()
}

fn corpus_with(isa: Isa, seed: u64, shapes: usize) -> Vec<LayerShape> {
    let mut draw = Draw(SplitMix64(seed));
    let mut found = HashSet::new();
    let mut layers = Vec::new();
    let mut add = |layer: Option<LayerShape>| {
        let layer = layer.filter(|l| l.output.elements() > 0 && usual_kernel(l, isa).is_some());
        layers.extend(layer.filter(|l| found.insert(*l)));
    };
    for weight in Bits::ALL {
        for input in Bits::ALL {
            for n in 0..shapes {
                for family in 0..5 {
                    // Outputs as wide as inputs, and every other width in turn.
                    let output = if n % 2 == 0 { input } else { draw.of(&Bits::ALL) };
                    add(draw_layer(&mut draw, family, n, LayerBits { weight, input, output }));
                }
            }
        }
    }
    for input in Bits::ALL {
        for n in 0..shapes {
            for output in Bits::ALL {
                let (h, w) = (draw.of(&[3, 5, 7, 9]), draw.of(&[3, 5, 9, 11]));
                let c = draw.of(&[4, 8, 13, 16, 24, 32, 40]);
                let second = draw.of(&Bits::ALL);
                let bits = LayerBits { weight: second, input, output };
                if n % 2 == 0 {
                    add(LayerShape::new(Op::Add, Shape::new(h, w, c), c, bits));
                } else {
                    let bits = LayerBits { weight: input, ..bits };
                    let global = Window { kh: h as u8, kw: w as u8, ..Window::POINT };
                    let window = if n % 4 == 1 {
                        global
                    } else {
                        Window { kh: 3, kw: 3, stride: 2, ..Window::POINT }
                    };
                    add(LayerShape::new(Op::AvgPool(window), Shape::new(h, w, c), c, bits));
                    let same = LayerBits { output: input, ..bits };
                    let pool = Window { kh: 2, kw: 2, stride: 2, ..Window::POINT };
                    add(LayerShape::new(Op::MaxPool(pool), Shape::new(h, w, c), c, same));
                }
            }
        }
    }
    layers
}

/// A layer of one of five families; even `n` give shapes that fast kernels serve.
fn draw_layer(draw: &mut Draw, family: usize, n: usize, bits: LayerBits) -> Option<LayerShape> {
    let (h, w) = (draw.of(&[3, 5, 7, 9, 11, 13]), draw.of(&[3, 5, 7, 9, 11, 15]));
    let regular = n % 3 != 2;
    let channels = if regular {
        [8, 16, 24, 32, 40, 48, 64, 80, 96]
    } else {
        [3, 5, 9, 11, 13, 18, 22, 27, 35]
    };
    let (ic, oc) = (draw.of(&channels), draw.of(&channels));
    let stride = draw.of(&[1, 1, 2]);
    let same = |k: u8| Window::same(k, k, stride, h, w);
    let (op, input) = match family {
        0 => (Op::Conv(Window::POINT), Shape::new(h, w, ic)),
        1 => (Op::Conv(same(3)), Shape::new(h, w, ic.min(48))),
        2 => (Op::Depthwise(same(draw.of(&[3, 3, 5]))), Shape::new(h, w, ic)),
        3 => (Op::Linear, Shape::new(1, 1, draw.of(&[40, 56, 72, 104, 136, 200, 250, 333]))),
        _ => (Op::Conv(same(draw.of(&[3, 5]))), Shape::new(h, w, draw.of(&[1, 2, 3, 4]))),
    };
    LayerShape::new(op, input, oc, bits)
}

/// Counts of a subject, and their names.
pub(crate) fn features(subject: &Subject, isa: Isa) -> (&'static str, Vec<String>, Vec<u64>) {
    match subject {
        Subject::Layer(layer, kernel) => {
            let names = kernels::work_names(*kernel);
            let counts = kernels::work(*kernel, layer, isa).counts;
            let (names, counts) = names
                .iter()
                .zip(counts)
                .filter(|(name, _)| !name.is_empty())
                .map(|(name, count)| ((*name).to_owned(), count))
                .unzip();
            (kernel.name(), names, counts)
        }
        Subject::Encode(format) => (ENCODE, ENCODE_FEATURES.map(str::to_owned).to_vec(), {
            let (elements, pixels) = (format.shape.elements(), format.shape.pixels());
            vec![elements as u64, format.bytes() as u64, pixels as u64, 1]
        }),
    }
}

/// Fits a table. Every fourth measurement of a kernel is held out where there are enough.
pub fn fit_table(
    name: &str,
    isa: Isa,
    board: &str,
    fitted_from: &str,
    measurements: &[Measurement],
) -> Result<CostTable, CalibrateError> {
    type Rows = (Vec<String>, Vec<(Vec<f64>, f64)>);
    let mut by_kernel: BTreeMap<&str, Rows> = BTreeMap::new();
    for measurement in measurements {
        let (kernel, names, counts) = features(&measurement.subject, isa);
        let (_, rows) = by_kernel.entry(kernel).or_insert_with(|| (names, Vec::new()));
        let counts = counts.iter().map(|&count| count as f64).collect();
        rows.push((counts, measurement.instructions as f64));
    }
    let mut kernels = BTreeMap::new();
    for (kernel, (features, rows)) in by_kernel {
        let held_out = rows.len() >= 4 * features.len();
        let (mut fitted, mut kept) = (Vec::new(), Vec::new());
        for (i, row) in rows.iter().enumerate() {
            if held_out && i % 4 == 3 { kept.push(row) } else { fitted.push(row) }
        }
        if fitted.len() < features.len() {
            return Err(CalibrateError::TooFew {
                kernel: kernel.to_owned(),
                points: rows.len(),
                needed: features.len(),
            });
        }
        let matrix: Vec<Vec<f64>> = fitted.iter().map(|(counts, _)| counts.clone()).collect();
        let y: Vec<f64> = fitted.iter().map(|(_, y)| *y).collect();
        // Rounded as written, so that a table in memory and its file are the same.
        let coefficients: Vec<f64> =
            fit::relative_nnls(&matrix, &y).into_iter().map(round).collect();
        let errors = |rows: &[&(Vec<f64>, f64)]| {
            let predicted: Vec<f64> = rows
                .iter()
                .map(|(counts, _)| counts.iter().zip(&coefficients).map(|(a, c)| a * c).sum())
                .collect();
            let observed: Vec<f64> = rows.iter().map(|(_, y)| *y).collect();
            let (median, worst) = fit::errors(&predicted, &observed);
            (round(median), round(worst))
        };
        let ((median, worst), (held_out_median, held_out_worst)) = (errors(&fitted), errors(&kept));
        let error = FitError {
            points: fitted.len(),
            median,
            worst,
            held_out_points: kept.len(),
            held_out_median,
            held_out_worst,
        };
        kernels.insert(kernel.to_owned(), KernelCost { features, coefficients, error });
    }
    Ok(CostTable {
        name: name.to_owned(),
        registry_hash: table::registry_hash(),
        fitted_from: fitted_from.to_owned(),
        refit: table::refit_command(board),
        kernels,
    })
}

/// Six significant digits.
fn round(value: f64) -> f64 {
    format!("{value:.5e}").parse().expect("a formatted number parses")
}

/// The measurements as the file beside a table: `kernel,spec,bits,instructions`.
pub fn to_csv(measurements: &[Measurement]) -> String {
    let mut text = String::from("kernel,spec,bits,instructions\n");
    for Measurement { subject, instructions } in measurements {
        let (kernel, spec, bits) = match subject {
            Subject::Layer(layer, kernel) => {
                (kernel.name(), LayerSpec::of(layer).to_string(), layer.bits.to_string())
            }
            Subject::Encode(TensorFormat { shape, bits }) => {
                (ENCODE, format!("encode:{}x{}x{}", shape.h, shape.w, shape.c), format!("A{bits}"))
            }
        };
        // A padding list holds commas.
        let spec = if spec.contains(',') { format!("\"{spec}\"") } else { spec };
        text += &format!("{kernel},{spec},{bits},{instructions}\n");
    }
    text
}

/// Reads what [`to_csv`] wrote.
pub fn from_csv(text: &str) -> Result<Vec<Measurement>, CalibrateError> {
    let mut measurements = Vec::new();
    for (line, row) in text.lines().enumerate().skip(1) {
        let fail =
            |reason: &str| CalibrateError::Line { line: line + 1, reason: reason.to_owned() };
        let (kernel, rest) = row.split_once(',').ok_or_else(|| fail("four columns wanted"))?;
        let (spec, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once("\","),
            None => rest.split_once(','),
        }
        .ok_or_else(|| fail("four columns wanted"))?;
        let (bits, count) = rest.split_once(',').ok_or_else(|| fail("four columns wanted"))?;
        let instructions = count.parse().map_err(|_| fail("the count is no number"))?;
        let subject = if kernel == ENCODE {
            let sizes = spec.strip_prefix("encode:").ok_or_else(|| fail("`encode:` wanted"))?;
            let sizes: Result<Vec<u16>, _> = sizes.split('x').map(str::parse).collect();
            let width = bits.strip_prefix('A').and_then(|b| b.parse::<u8>().ok());
            match (sizes.as_deref(), width.and_then(|b| Bits::try_from(b).ok())) {
                (Ok(&[h, w, c]), Some(bits)) => {
                    Subject::Encode(TensorFormat { shape: Shape::new(h, w, c), bits })
                }
                _ => return Err(fail("no tensor")),
            }
        } else {
            let known = KernelId::ALL.into_iter().find(|id| id.name() == kernel);
            let kernel = known.ok_or_else(|| fail("unknown kernel"))?;
            let spec: LayerSpec = spec.parse().map_err(|_| fail("no layer"))?;
            let bits: LayerBits = bits.parse().map_err(|_| fail("no widths"))?;
            let mut layer = spec.shape(bits).ok_or_else(|| fail("a block is no layer"))?;
            if !layer.op.has_weights() {
                layer.bits.weight = bits.weight;
            }
            Subject::Layer(layer, kernel)
        };
        measurements.push(Measurement { subject, instructions });
    }
    Ok(measurements)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{MEASUREMENTS, TABLES};

    /// A core that costs this many instructions a count, the same for every kernel.
    fn invented(subject: &Subject) -> u64 {
        let (_, _, counts) = features(subject, Isa::Armv7em);
        counts.iter().zip([1, 3, 2, 7, 11, 5, 4, 90]).map(|(c, n)| c * n).sum()
    }

    fn measured() -> Vec<Measurement> {
        let mut all = Vec::new();
        for layer in corpus(Isa::Armv7em) {
            let kernel = usual_kernel(&layer, Isa::Armv7em).unwrap();
            for subject in [Subject::Layer(layer, kernel), Subject::Encode(layer.input_format())] {
                all.push(Measurement { subject, instructions: invented(&subject) });
            }
        }
        all
    }

    #[test]
    fn corpus_is_broad_and_stays_the_same() {
        let layers = corpus(Isa::Armv7em);
        assert_eq!(layers, corpus(Isa::Armv7em));
        let kernels: HashSet<_> =
            layers.iter().filter_map(|l| usual_kernel(l, Isa::Armv7em)).collect();
        let pairs: HashSet<_> = layers.iter().map(|l| (l.bits.weight, l.bits.input)).collect();
        assert_eq!(pairs.len(), 16);
        assert!(kernels.len() >= 4, "{kernels:?}");
        for layer in &layers {
            let linear = layer.op == Op::Linear;
            assert!(linear || (layer.input.h % 2 == 1 && layer.input.w % 2 == 1), "{layer:?}");
        }
        let other = fresh(Isa::Armv7em, 1, 2);
        assert!(other.len() > 50 && other.iter().all(|layer| !layers.contains(layer)));
    }

    #[test]
    fn a_table_predicts_the_core_it_was_fitted_to() {
        let measured = measured();
        let table = fit_table("t", Isa::Armv7em, "b", "an invented core", &measured).unwrap();
        for (kernel, cost) in &table.kernels {
            assert!(cost.error.held_out_worst < 1e-3, "{kernel}: {:?}", cost.error);
        }
        let text = table.to_toml();
        assert_eq!(CostTable::parse("t", &text).unwrap(), table);
        let stale = text.replace(&table.registry_hash, "0x00000001");
        let message = CostTable::parse("t", &stale).unwrap_err().to_string();
        assert!(message.contains("jaq-host calibrate --board b --via qemu"), "{message}");
        let few = fit_table("t", Isa::Armv7em, "b", "", &measured[..2]).unwrap_err();
        assert!(few.to_string().contains("wanted"), "{few}");
    }

    #[test]
    fn measurements_round_trip() {
        let measured = measured();
        assert_eq!(from_csv(&to_csv(&measured)).unwrap(), measured);
        assert!(from_csv("k,s,b,n\nreference,pw:1x1x1-1,W2A2\n").is_err());
    }

    #[test]
    fn shipped_tables_are_what_their_measurements_give() {
        for (name, text) in TABLES {
            let table = match CostTable::parse(name, text) {
                // Refused at run time with the command that refits it.
                Err(crate::TableError::Stale { .. }) => continue,
                other => other.unwrap_or_else(|e| panic!("{e}")),
            };
            let (_, csv) = MEASUREMENTS
                .iter()
                .find(|(other, _)| other == name)
                .unwrap_or_else(|| panic!("no measurements beside table `{name}`"));
            let board = table.refit.split(' ').nth(3).unwrap();
            let isa = crate::Mcu::load(board).unwrap().isa();
            let measured = from_csv(csv).unwrap();
            assert_eq!(fit_table(name, isa, board, &table.fitted_from, &measured).unwrap(), table);
        }
    }
}
