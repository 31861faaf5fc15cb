//! Counted runs of single layers: what cost tables are fitted to and judged by.
//!
//! Every run's output is held to the host's engine, so that no count is of a wrong result. Must not
//! know what a count is used for.

use jaq_cost::calibrate::{Measurement, Subject};
use jaq_cost::corpus::{corpus, usual_kernel};
use jaq_network::LayerSpec;
use jaq_shared::format::{LayerShape, Requant};
use jaq_shared::kernels::Isa;

use crate::engine::Engine;
use crate::link::Session;
use crate::single::Single;
use crate::validate::{Ask, Device};

/// Why a layer could not be counted; `layer` is its notation and widths.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CountError {
    #[error("no kernel runs {layer}")]
    Kernel { layer: String },
    #[error("{layer}: {source}")]
    Failed { layer: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{layer}: the device's output differs from the host's with kernel {kernel}")]
    Output { layer: String, kernel: &'static str },
}

/// Runs `layer` with the kernel that an exporter prefers and random values of the seed: the counts
/// of the layer, and of the encoding of its input.
pub fn count(
    device: &mut Session,
    layer: &LayerShape,
    isa: Isa,
    seed: u64,
) -> Result<[Measurement; 2], CountError> {
    let name = || format!("{} {}", LayerSpec::of(layer), layer.bits);
    fn failed<E: std::error::Error + Send + Sync + 'static>(
        layer: &impl Fn() -> String,
    ) -> impl FnOnce(E) -> CountError {
        move |source| CountError::Failed { layer: layer(), source: Box::new(source) }
    }
    let kernel = usual_kernel(layer, isa).ok_or_else(|| CountError::Kernel { layer: name() })?;
    let single = Single::new(layer, Requant::usual(layer.bits.output), seed);
    let packed = single.pack(kernel).map_err(failed(&name))?;
    let raw = single.input(seed);
    let mut engine = Engine::new(&packed.bytes).map_err(failed(&name))?;
    let expected = engine.infer(&raw).map_err(failed(&name))?;
    device.open(&packed.bytes).map_err(failed(&name))?;
    let found = device.infer(&raw, Ask::Layers).map_err(failed(&name))?;
    if found.output != expected {
        return Err(CountError::Output { layer: name(), kernel: kernel.name() });
    }
    let encoding = found.total - found.layers.iter().sum::<u64>();
    let of = |subject, count| Measurement { subject, count, accesses: None };
    Ok([
        of(Subject::Layer(*layer, kernel), found.layers.last().copied().unwrap_or(0)),
        of(Subject::Encode(layer.input_format()), encoding),
    ])
}

/// Most multiplications of a layer that is counted in simulation, which runs a million cycles a second.
const SIMULATED_MACS: u64 = 10_000;

/// A device that is the same but for its memory, which is slower by some wait states.
pub struct Slow {
    /// The device.
    pub session: Session,
    /// How many wait states slower; not 0.
    pub wait_states: u64,
}

/// Counts every layer of the corpus of `isa`; where there is a `slow` device, every small one, and what
/// a wait state adds; `progress` is told how many of how many are done.
pub fn count_corpus(
    device: &mut Session,
    mut slow: Option<&mut Slow>,
    isa: Isa,
    mut progress: impl FnMut(usize, usize),
) -> Result<Vec<Measurement>, CountError> {
    let mut layers = corpus(isa);
    if slow.is_some() {
        layers.retain(|layer| layer.macs() <= SIMULATED_MACS);
    }
    let mut measurements = Vec::new();
    for (seed, layer) in layers.iter().enumerate() {
        let mut runs = count(device, layer, isa, seed as u64)?;
        if let Some(slow) = &mut slow {
            let slower = count(&mut slow.session, layer, isa, seed as u64)?;
            for (run, slower) in runs.iter_mut().zip(slower) {
                let added = slower.count.saturating_sub(run.count);
                run.accesses = Some(added / slow.wait_states.max(1));
            }
        }
        measurements.extend(runs);
        progress(seed + 1, layers.len());
    }
    Ok(measurements)
}
