//! Calibration: how counted runs become a cost table, and the file they are kept in.
//!
//! A fixed quarter of the measurements is held out of the fit and tells its error. Must not know how
//! counts are obtained, nor of what ([`crate::corpus`]).

use std::collections::{BTreeMap, BTreeSet};

use jaq_network::LayerSpec;
use jaq_shared::format::{Bits, LayerBits, LayerShape, Shape, TensorFormat};
use jaq_shared::kernels::{self, Isa, KernelId, Work};
use jaq_shared::runtime;

use crate::Mcu;
use crate::fit;
use crate::table::{self, CostTable, ENCODE, Fit, FitError, KernelCost, Unit};

/// What a count is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A layer, from dispatch to dispatch.
    Layer(LayerShape, KernelId),
    /// The encoding of raw bytes to a tensor of this format.
    Encode(TensorFormat),
}

impl Subject {
    /// Name of its kernel in tables.
    pub fn kernel(&self) -> &'static str {
        match self {
            Subject::Layer(_, kernel) => kernel.name(),
            Subject::Encode(_) => ENCODE,
        }
    }

    /// Its counts.
    pub fn work(&self, isa: Isa) -> Work {
        match self {
            Subject::Layer(layer, kernel) => kernels::work(*kernel, layer, isa),
            Subject::Encode(format) => runtime::encode_work(*format),
        }
    }

    /// Geometry in the notation of every command.
    pub fn spec(&self) -> String {
        match self {
            Subject::Layer(layer, _) => LayerSpec::of(layer).to_string(),
            Subject::Encode(TensorFormat { shape, .. }) => {
                format!("encode:{}x{}x{}", shape.h, shape.w, shape.c)
            }
        }
    }

    /// Its widths.
    pub fn bits(&self) -> String {
        match self {
            Subject::Layer(layer, _) => layer.bits.to_string(),
            Subject::Encode(format) => format!("A{}", format.bits),
        }
    }
}

/// One counted run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measurement {
    /// What ran.
    pub subject: Subject,
    /// Executed instructions, or cycles.
    pub count: u64,
    /// Accesses that slower memory would delay, where they are counted.
    pub accesses: Option<u64>,
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

/// Fits the table of `board`. Every fourth measurement of a kernel is held out where there are
/// enough.
pub fn fit_table(
    board: &Mcu,
    unit: Unit,
    fitted_from: &str,
    refit: &str,
    measurements: &[Measurement],
) -> Result<CostTable, CalibrateError> {
    let isa = board.isa();
    let mut by_kernel: BTreeMap<&str, Vec<(Work, &Measurement)>> = BTreeMap::new();
    for measurement in measurements {
        let runs = by_kernel.entry(measurement.subject.kernel()).or_default();
        runs.push((measurement.subject.work(isa), measurement));
    }
    let mut kernels = BTreeMap::new();
    for (kernel, runs) in by_kernel {
        let counted = |run: &(Work, &Measurement)| Some((run.0.clone(), run.1.count));
        let accesses = |run: &(Work, &Measurement)| Some((run.0.clone(), run.1.accesses?));
        let accesses: Option<Vec<_>> = runs.iter().map(accesses).collect();
        let cost = KernelCost {
            counted: fit(kernel, &runs.iter().filter_map(counted).collect::<Vec<_>>())?,
            accesses: accesses.map(|runs| fit(kernel, &runs)).transpose()?,
        };
        kernels.insert(kernel.to_owned(), cost);
    }
    Ok(CostTable {
        name: board.core.cost_table.clone(),
        isa: board.core.isa,
        registry_hash: table::registry_hash(isa),
        unit,
        fitted_from: fitted_from.to_owned(),
        refit: refit.to_owned(),
        kernels,
    })
}

/// Fits one quantity of one kernel.
fn fit(kernel: &str, runs: &[(Work, u64)]) -> Result<Fit, CalibrateError> {
    let names: BTreeSet<_> = runs.iter().flat_map(|(work, _)| work.counts().map(|c| c.0)).collect();
    let held_out = runs.len() >= 4 * names.len();
    let (mut fitted, mut kept) = (Vec::new(), Vec::new());
    for (i, run) in runs.iter().enumerate() {
        if held_out && i % 4 == 3 { kept.push(run) } else { fitted.push(run) }
    }
    if fitted.len() < names.len() {
        return Err(CalibrateError::TooFew {
            kernel: kernel.to_owned(),
            points: runs.len(),
            needed: names.len(),
        });
    }
    let row = |work: &Work| names.iter().map(|name| work.count(name) as f64).collect();
    let matrix: Vec<Vec<f64>> = fitted.iter().map(|(work, _)| row(work)).collect();
    let y: Vec<f64> = fitted.iter().map(|(_, y)| *y as f64).collect();
    let solved = fit::relative_nnls(&matrix, &y);
    // Rounded as written, so that a table in memory and its file are the same.
    let coefficients =
        names.iter().map(|name| (*name).to_owned()).zip(solved.into_iter().map(round));
    let mut found = Fit { coefficients: coefficients.collect(), error: FitError::default() };
    let errors = |runs: &[&(Work, u64)]| {
        let predicted: Vec<f64> =
            runs.iter().filter_map(|(work, _)| found.predict(work).ok()).collect();
        let observed: Vec<f64> = runs.iter().map(|(_, y)| *y as f64).collect();
        let (median, worst) = fit::errors(&predicted, &observed);
        (round(median), round(worst))
    };
    let ((median, worst), (held_out_median, held_out_worst)) = (errors(&fitted), errors(&kept));
    found.error = FitError {
        points: fitted.len(),
        median,
        worst,
        held_out_points: kept.len(),
        held_out_median,
        held_out_worst,
    };
    Ok(found)
}

/// Six significant digits.
fn round(value: f64) -> f64 {
    format!("{value:.5e}").parse().expect("a formatted number parses")
}

/// The measurements as the file beside a table: `kernel,spec,bits,` and the unit's name, and
/// `,accesses` where every run has them.
pub fn to_csv(unit: Unit, measurements: &[Measurement]) -> String {
    let with_accesses = measurements.iter().all(|m| m.accesses.is_some());
    let last = if with_accesses { ",accesses" } else { "" };
    let mut text = format!("kernel,spec,bits,{}{last}\n", unit.name());
    for Measurement { subject, count, accesses } in measurements {
        let (kernel, spec, bits) = (subject.kernel(), subject.spec(), subject.bits());
        // A padding list holds commas.
        let spec = if spec.contains(',') { format!("\"{spec}\"") } else { spec };
        text += &format!("{kernel},{spec},{bits},{count}");
        if let Some(accesses) = accesses.filter(|_| with_accesses) {
            text += &format!(",{accesses}");
        }
        text.push('\n');
    }
    text
}

/// Reads what [`to_csv`] wrote.
pub fn from_csv(text: &str) -> Result<(Unit, Vec<Measurement>), CalibrateError> {
    let header = text.lines().next().unwrap_or_default();
    let unit = [Unit::Instructions, Unit::Cycles]
        .into_iter()
        .find(|unit| header.split(',').nth(3) == Some(unit.name()))
        .ok_or(CalibrateError::Line { line: 1, reason: "no unit in the fourth column".into() })?;
    let rows = text.lines().enumerate().skip(1);
    let measurements = rows.map(|(index, row)| {
        measurement(row)
            .map_err(|reason| CalibrateError::Line { line: index + 1, reason: reason.to_owned() })
    });
    Ok((unit, measurements.collect::<Result<_, _>>()?))
}

fn measurement(row: &str) -> Result<Measurement, &'static str> {
    const COLUMNS: &str = "kernel, spec, bits and count wanted";
    let (kernel, rest) = row.split_once(',').ok_or(COLUMNS)?;
    let (spec, rest) = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split_once("\","),
        None => rest.split_once(','),
    }
    .ok_or(COLUMNS)?;
    let (bits, counts) = rest.split_once(',').ok_or(COLUMNS)?;
    let (count, accesses) = match counts.split_once(',') {
        Some((count, accesses)) => (count, Some(accesses)),
        None => (counts, None),
    };
    let number = |text: &str| text.parse().map_err(|_| "a count is no number");
    let subject = if kernel == ENCODE {
        let sizes = spec.strip_prefix("encode:").ok_or("`encode:` wanted")?;
        let sizes: Result<Vec<u16>, _> = sizes.split('x').map(str::parse).collect();
        let width = bits.strip_prefix('A').and_then(|b| b.parse::<u8>().ok());
        match (sizes.as_deref(), width.and_then(|b| Bits::try_from(b).ok())) {
            (Ok(&[h, w, c]), Some(bits)) => {
                Subject::Encode(TensorFormat { shape: Shape::new(h, w, c), bits })
            }
            _ => return Err("no tensor"),
        }
    } else {
        let known = KernelId::ALL.into_iter().find(|id| id.name() == kernel);
        let kernel = known.ok_or("unknown kernel")?;
        let spec: LayerSpec = spec.parse().map_err(|_| "no layer")?;
        let bits: LayerBits = bits.parse().map_err(|_| "no widths")?;
        let mut layer = spec.shape(bits).ok_or("a block is no layer")?;
        if !layer.op.has_weights() {
            layer.bits.weight = bits.weight;
        }
        Subject::Layer(layer, kernel)
    };
    let accesses = accesses.map(number).transpose()?;
    Ok(Measurement { subject, count: number(count)?, accesses })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{MEASUREMENTS, TABLES};
    use crate::corpus::{corpus, usual_kernel};

    fn board() -> Mcu {
        Mcu::load("mps2-an500").unwrap()
    }

    /// A core on which every count costs as many instructions as its name has letters, and as many
    /// accesses as it has words.
    fn invented() -> Vec<Measurement> {
        let mut all = Vec::new();
        for layer in corpus(Isa::Armv7em) {
            let kernel = usual_kernel(&layer, Isa::Armv7em).unwrap();
            for subject in [Subject::Layer(layer, kernel), Subject::Encode(layer.input_format())] {
                let work = subject.work(Isa::Armv7em);
                let cost = |price: fn(&str) -> usize| {
                    work.counts().map(|(name, count)| count * price(name) as u64).sum()
                };
                let words = |name: &str| name.split(' ').count();
                all.push(Measurement {
                    subject,
                    count: cost(str::len),
                    accesses: Some(cost(words)),
                });
            }
        }
        all
    }

    #[test]
    fn a_table_predicts_the_core_it_was_fitted_to() {
        let measured = invented();
        let table =
            fit_table(&board(), Unit::Cycles, "an invented core", "refit it", &measured).unwrap();
        for (kernel, cost) in &table.kernels {
            let accesses = cost.accesses.as_ref().unwrap();
            assert!(cost.counted.error.held_out_worst < 1e-3, "{kernel}: {:?}", cost.counted);
            assert!(accesses.error.held_out_worst < 1e-3, "{kernel}: {accesses:?}");
        }
        for Measurement { subject, count, accesses } in &measured {
            let found = table.predict(subject.kernel(), &subject.work(Isa::Armv7em)).unwrap();
            assert!((found.counted / *count as f64 - 1.0).abs() < 1e-3, "{subject:?}");
            let found = found.accesses.unwrap() / accesses.unwrap() as f64;
            assert!((found - 1.0).abs() < 1e-3, "{subject:?}");
        }
        let unknown = table.predict("outer", &Work::new([("hops", 1)])).unwrap_err();
        assert!(unknown.to_string().contains("no measured run of kernel `outer` has `hops`"));
        let text = table.to_toml();
        assert_eq!(CostTable::parse("t", &text).unwrap(), table);
        let stale = text.replace(&table.registry_hash, "0x00000001");
        let message = CostTable::parse("t", &stale).unwrap_err().to_string();
        assert!(message.contains("`refit it`"), "{message}");
        let few = fit_table(&board(), Unit::Cycles, "", "", &measured[..2]).unwrap_err();
        assert!(few.to_string().contains("wanted"), "{few}");
    }

    #[test]
    fn measurements_round_trip() {
        let mut measured = invented();
        let text = to_csv(Unit::Cycles, &measured);
        assert_eq!(from_csv(&text).unwrap(), (Unit::Cycles, measured.clone()));
        measured.iter_mut().for_each(|m| m.accesses = None);
        let text = to_csv(Unit::Instructions, &measured);
        assert!(text.starts_with("kernel,spec,bits,instructions\n"));
        assert_eq!(from_csv(&text).unwrap(), (Unit::Instructions, measured));
        assert!(from_csv("k,s,b,cycles\nreference,pw:1x1x1-1,W2A2\n").is_err());
        assert!(from_csv("k,s,b,n\n").is_err());
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
            let board = Mcu::load(table.refit.split(' ').nth(3).unwrap()).unwrap();
            let (unit, measured) = from_csv(csv).unwrap();
            let again = fit_table(&board, unit, &table.fitted_from, &table.refit, &measured);
            assert_eq!(again.unwrap(), table);
        }
    }
}
