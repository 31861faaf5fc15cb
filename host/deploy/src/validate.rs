//! Validation: every output of a device against the host's integer engine bit for bit, every
//! layer's cost against the prediction. Ends in an [`Observation`], the one schema of demo,
//! validate, calibrate and recorded sessions.
//!
//! Must not know how the device is reached: it sees a [`Device`].

pub use jaq_cost::Unit;
use jaq_network::{LayerSpec, Network, Provenance};
use jaq_shared::format::{Model, TensorFormat};
use jaq_shared::runtime::{argmax, codes};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;

/// One inference of a device; counts in the device's unit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inference {
    /// Packed logits.
    pub output: Vec<u8>,
    /// The whole inference.
    pub total: u64,
    /// Every layer; empty if not asked for.
    pub layers: Vec<u64>,
    /// CRC-32 of every layer's output; empty if not asked for.
    pub crcs: Vec<u32>,
    /// Deepest stack of the device since its start, in bytes.
    pub stack_bytes: u32,
    /// High-water mark of the arena in this inference, in bytes.
    pub arena_bytes: u32,
}

/// What is asked of a device beside the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Nothing.
    Output,
    /// Counts of every layer.
    Layers,
    /// Counts and checksums of every layer.
    Checksums,
}

/// A device that runs one model.
pub trait Device {
    /// Why an inference failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Runs one inference.
    fn infer(&mut self, raw: &[u8], ask: Ask) -> Result<Inference, Self::Error>;
}

/// Predicted cost of one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerPrediction {
    /// Name of the layer; `input` is the encoding of the raw bytes.
    pub name: String,
    /// Its geometry in the notation of every command.
    pub spec: String,
    /// Its widths.
    pub bits: String,
    /// The kernel the prediction is for.
    pub kernel: String,
    /// Its cost in the unit of the prediction.
    pub predicted: f64,
}

/// A prediction, made at search time from a committed cost table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Board it is for.
    pub board: String,
    /// Unit of the figures.
    pub unit: Unit,
    /// Hash of the kernel registry the cost table was fitted for.
    pub registry: u32,
    /// Sum over the layers.
    pub total: f64,
    /// Every layer.
    pub layers: Vec<LayerPrediction>,
}

/// Predicted and observed cost of one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LayerObservation {
    pub name: String,
    pub spec: String,
    pub bits: String,
    pub kernel: String,
    pub predicted: f64,
    pub observed: u64,
}

/// What a device did, beside what was predicted and what the host computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Observation {
    pub board: String,
    pub via: String,
    pub provenance: Provenance,
    pub model: String,
    pub images_compared: usize,
    pub mismatches: usize,
    pub unit: Unit,
    pub predicted_total: f64,
    pub observed_total: u64,
    pub layers: Vec<LayerObservation>,
    pub weights_bytes: usize,
    pub code_bytes: usize,
    pub flash_bytes: usize,
    pub arena_bytes: usize,
    pub stack_bytes: usize,
}

/// Sizes of a deployed model that the build and the device report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Sizes {
    pub weights_bytes: usize,
    pub code_bytes: usize,
    pub arena_bytes: usize,
    pub stack_bytes: usize,
}

/// A first difference between device and host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Index of the image.
    pub image: usize,
    /// First layer whose output differs; `None` if no layer's checksum does.
    pub layer: Option<String>,
}

/// Why a validation could not be carried out.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ValidateError {
    #[error("the device failed on image {image}: {source}")]
    Device { image: usize, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("image {image}: {source}")]
    Host { image: usize, source: jaq_shared::runtime::InferError },
    #[error(
        "the prediction has {predicted} layers, the model {model}: it was made for another network; run the search again"
    )]
    Prediction { predicted: usize, model: usize },
}

/// Outcome of comparing images.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Images whose device output was compared.
    pub images: usize,
    /// Images whose output differs from the host's.
    pub mismatches: usize,
    /// The first of them, located.
    pub first: Option<Difference>,
    /// Class the device gave to each image.
    pub classes: Vec<usize>,
    /// Cost of the first inference: the whole, and every layer.
    pub total: u64,
    /// See `total`.
    pub layers: Vec<u64>,
}

/// Runs every image on `device` and on the host.
///
/// `progress` is called after each image with the number done.
pub fn compare<'a, D: Device>(
    device: &mut D,
    engine: &mut Engine,
    images: impl IntoIterator<Item = &'a [u8]>,
    mut progress: impl FnMut(usize),
) -> Result<Comparison, ValidateError> {
    let format = engine.output();
    let mut outcome = Comparison::default();
    for (image, raw) in images.into_iter().enumerate() {
        let ask = if image == 0 { Ask::Layers } else { Ask::Output };
        let fail = |source: D::Error| ValidateError::Device { image, source: Box::new(source) };
        let found = device.infer(raw, ask).map_err(fail)?;
        let expected = engine.infer(raw).map_err(|source| ValidateError::Host { image, source })?;
        if image == 0 {
            (outcome.total, outcome.layers) = (found.total, found.layers);
        }
        outcome.images += 1;
        outcome.classes.push(class(format, &found.output));
        if found.output != expected {
            outcome.mismatches += 1;
            if outcome.first.is_none() {
                let found = device.infer(raw, Ask::Checksums).map_err(fail)?;
                let (_, crcs) = engine
                    .infer_with_crcs(raw)
                    .map_err(|source| ValidateError::Host { image, source })?;
                let layer = crcs.iter().zip(&found.crcs).position(|(a, b)| a != b);
                let name = |i| engine.model().layers().nth(i).map(|l| l.name.to_owned());
                outcome.first = Some(Difference { image, layer: layer.and_then(name) });
            }
        }
        progress(outcome.images);
    }
    Ok(outcome)
}

/// The class a packed output names.
pub fn class(format: TensorFormat, output: &[u8]) -> usize {
    argmax(codes(format, output))
}

/// Puts prediction, comparison and sizes into the common schema.
pub fn observe(
    model: &Model<'_>,
    prediction: &Prediction,
    comparison: &Comparison,
    sizes: Sizes,
    provenance: Provenance,
    via: &str,
    name: &str,
) -> Result<Observation, ValidateError> {
    let layers: Vec<_> = model.layers().collect();
    // The first entry of a prediction is the encoding of the input.
    let Some((input, predicted)) = prediction
        .layers
        .split_first()
        .filter(|(_, rest)| rest.len() == layers.len() && comparison.layers.len() == layers.len())
    else {
        let predicted = prediction.layers.len().saturating_sub(1);
        return Err(ValidateError::Prediction { predicted, model: layers.len() });
    };
    let encoding = comparison.total.saturating_sub(comparison.layers.iter().sum());
    let mut rows = vec![LayerObservation {
        name: input.name.clone(),
        spec: input.spec.clone(),
        bits: input.bits.clone(),
        kernel: input.kernel.clone(),
        predicted: input.predicted,
        observed: encoding,
    }];
    for ((layer, predicted), observed) in layers.iter().zip(predicted).zip(&comparison.layers) {
        let shape = layer.shape();
        rows.push(LayerObservation {
            name: layer.name.to_owned(),
            spec: LayerSpec::of(&shape).to_string(),
            bits: shape.bits.to_string(),
            kernel: layer.kernel.name().to_owned(),
            predicted: predicted.predicted,
            observed: *observed,
        });
    }
    Ok(Observation {
        board: prediction.board.clone(),
        via: via.to_owned(),
        provenance,
        model: name.to_owned(),
        images_compared: comparison.images,
        mismatches: comparison.mismatches,
        unit: prediction.unit,
        predicted_total: prediction.total,
        observed_total: comparison.total,
        layers: rows,
        weights_bytes: sizes.weights_bytes,
        code_bytes: sizes.code_bytes,
        flash_bytes: sizes.weights_bytes + sizes.code_bytes,
        arena_bytes: sizes.arena_bytes,
        stack_bytes: sizes.stack_bytes,
    })
}

/// The notation of the input's encoding in predictions and observations.
pub fn input_spec(network: &Network) -> String {
    let shape = network.input.shape;
    format!("encode:{}x{}x{}", shape.h, shape.w, shape.c)
}
