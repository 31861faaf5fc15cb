//! Observations in words: the layers that are furthest from their prediction and what may be the
//! reason, and the energy of an inference.
//!
//! Must not know how devices are reached.

use jaq_cost::calibrate::Subject;
use jaq_cost::{Mcu, McuModel, Unit};
use jaq_network::Provenance;
use jaq_shared::format::Model;
use jaq_shared::kernels::KernelId;
use serde::{Deserialize, Serialize};

use crate::validate::Observation;

/// One of the worst layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Its name.
    pub layer: String,
    /// Predicted over observed, less 1.
    pub error: f64,
    /// Of the difference of all layers, the part that is this one's, 0..1.
    pub share: f64,
    /// What most of the predicted cost goes into, and its part of it, 0..1.
    pub dominant: Option<(String, f64)>,
    /// What the kernel does, what dominates, why it may differ.
    pub text: String,
}

/// The `most` layers that differ most from their prediction, the worst first.
pub fn worst(
    model: &Model<'_>,
    board: &McuModel,
    observation: &Observation,
    most: usize,
) -> Vec<Explanation> {
    let apart = |at: usize| {
        let row = &observation.layers[at];
        (row.predicted - row.observed as f64).abs()
    };
    let all: f64 = (0..observation.layers.len()).map(apart).sum();
    let mut order: Vec<usize> =
        (0..observation.layers.len()).filter(|at| apart(*at) >= 0.5).collect();
    order.sort_by(|a, b| apart(*b).total_cmp(&apart(*a)));
    let layers: Vec<_> = model.layers().collect();
    let explain = |at: usize| {
        let row = &observation.layers[at];
        // The first row is the encoding of the input.
        let (subject, kernel) = match at.checked_sub(1).and_then(|index| layers.get(index)) {
            Some(layer) => (Subject::Layer(layer.shape(), layer.kernel), Some(layer.kernel)),
            None => (Subject::Encode(model.info().input.format), None),
        };
        let cost = board.table().kernels.get(subject.kernel());
        let work = subject.work(board.isa());
        let dominant = cost.and_then(|cost| {
            let parts = work.counts().map(|(name, count)| {
                let each = cost.counted.coefficients.get(name).copied().unwrap_or(0.0);
                (name.to_owned(), each * count as f64)
            });
            let parts: Vec<(String, f64)> = parts.collect();
            let sum: f64 = parts.iter().map(|(_, part)| part).sum();
            let most = parts.into_iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
            (sum > 0.0).then(|| (most.0, most.1 / sum))
        });
        let error = row.predicted / row.observed.max(1) as f64 - 1.0;
        let held_out = cost.map(|cost| cost.counted.error.held_out_worst);
        let mut text = format!(
            "{} ({} {}): predicted {:.1} % {}; {}",
            row.name,
            row.spec,
            row.bits,
            error.abs() * 100.0,
            if error < 0.0 { "too low" } else { "too high" },
            does(kernel)
        );
        if let Some((name, part)) = &dominant {
            text += &format!("; {:.0} % of its predicted cost is `{name}`", part * 100.0);
        }
        text += &reason(observation, error, held_out);
        Explanation {
            layer: row.name.clone(),
            error,
            share: if all > 0.0 { apart(at) / all } else { 0.0 },
            dominant,
            text,
        }
    };
    order.into_iter().take(most).map(explain).collect()
}

fn reason(observation: &Observation, error: f64, held_out: Option<f64>) -> String {
    match (observation.unit, observation.provenance) {
        (Unit::Instructions, _) => match held_out {
            Some(worst) if error.abs() <= worst => format!(
                ". The count is exact, the table is a fit: its worst error on runs it was not fitted to is {:.1} %",
                worst * 100.0
            ),
            Some(worst) => format!(
                ". The count is exact, and this is more than the fit's worst on runs held out, {:.1} %: the kernel does here what no calibration run did; calibrate again with a layer of this kind",
                worst * 100.0
            ),
            None => ". The table does not know this kernel".to_owned(),
        },
        (Unit::Cycles, Provenance::RtlSimulated) => {
            ". The cycles are exact: what the table cannot see are stalls that depend on addresses and on the branch before".to_owned()
        }
        (Unit::Cycles, _) => {
            ". Cycles follow from instructions by the board file's range alone: caches, wait states of flash and pairs of instructions are what it leaves open; calibrate on the board itself to know".to_owned()
        }
    }
}

/// A kernel in words; `None` is the encoding of the input.
fn does(kernel: Option<KernelId>) -> &'static str {
    match kernel {
        None => "the raw bytes are scaled and packed, one after the other",
        Some(KernelId::Reference) => {
            "the general path: one product at a time, codes unpacked for each"
        }
        Some(KernelId::Outer) => {
            "several low-bit operands share a 64-bit product (UMLAL), sums are taken apart every few of them"
        }
        Some(KernelId::Dual) => "two products an instruction (SMLAD) on patches of 16-bit operands",
        Some(KernelId::Dot) => "one long dot product an output, two products an instruction",
        Some(KernelId::Depthwise) => "each channel alone over its window, packed along the row",
        Some(KernelId::Add) => "two tensors unpacked, weighted, added and packed again",
        Some(KernelId::AvgPool) => "sums over windows, one multiplication an output",
        Some(KernelId::MaxPool) => "comparisons of codes over windows",
        Some(KernelId::Word) => {
            "several low-bit operands share a 32-bit product, sums are taken apart every few of them"
        }
        Some(KernelId::WordDepthwise) => "each channel alone over its window on 32-bit products",
        Some(KernelId::WordLinear) => "dot products packed into 32-bit products",
        #[allow(unreachable_patterns)] // Kernels to come.
        Some(_) => "a kernel of its own family",
    }
}

/// Energy of an inference, in picojoules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Energy {
    pub low_pj: f64,
    pub typical_pj: f64,
    pub high_pj: f64,
    /// Where the figure of a cycle comes from.
    pub source: String,
}

/// What `observed` instructions or cycles take on `board`; `None` where its file has no energy.
pub fn energy(board: &Mcu, unit: Unit, observed: u64) -> Option<Energy> {
    let (energy, timing) = (board.energy.as_ref()?, board.timing.as_ref()?);
    let observed = observed as f64;
    let [low, high] = match unit {
        Unit::Instructions => timing.cycles_per_instruction.map(|each| each * observed),
        Unit::Cycles => [observed; 2],
    };
    let (pj, apart) = (energy.pj_per_cycle, energy.uncertainty);
    Some(Energy {
        low_pj: low * pj * (1.0 - apart),
        typical_pj: (low * high).sqrt() * pj,
        high_pj: high * pj * (1.0 + apart),
        source: board.sources.get("energy.pj_per_cycle").cloned().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn energy_is_a_range_that_holds_what_is_not_known() {
        let board = Mcu::load("nrf52840").unwrap();
        let pj = board.energy.as_ref().unwrap().pj_per_cycle;
        let cycles = energy(&board, Unit::Cycles, 1000).unwrap();
        assert_eq!(cycles.typical_pj, 1000.0 * pj);
        assert!(cycles.low_pj < cycles.typical_pj && cycles.typical_pj < cycles.high_pj);
        // Instructions leave the cycles open as well.
        let instructions = energy(&board, Unit::Instructions, 1000).unwrap();
        assert!(instructions.high_pj > cycles.high_pj && instructions.source.contains("Nordic"));
        assert_eq!(energy(&Mcu::load("mps2-an500").unwrap(), Unit::Instructions, 1), None);
    }
}
