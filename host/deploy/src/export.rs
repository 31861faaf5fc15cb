//! A trained network and its schedule become a packed model (`*.jaq`).
//!
//! Numbers come from [`crate::requantize`], storage from the kernels, placement from the
//! planner's [`Schedule`]: this module only writes them down and reads its own work back.
//! Must not know training or devices.

use jaq_network::{Schedule, TensorId, TrainedNetwork};
use jaq_shared::format::{
    HEADER_BYTES, Header, Layer, LoadError, Model, ModelInfo, Requant, Span, TensorRef, VERSION,
    WEIGHT_ALIGN,
};
use jaq_shared::kernels::{self, Isa, KernelId};

use crate::requantize::{LayerIntegers, ScaleError, requantize};

/// Where a model comes from; travels inside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Origin {
    pub tool: String,
    pub board: String,
    pub data: String,
    pub seed: u64,
}

/// A packed model, as bytes and as numbers.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The file.
    pub bytes: Vec<u8>,
    /// Flash the packed weights, tables and descriptors take: the whole file.
    pub weights_bytes: usize,
    /// RAM of one inference.
    pub arena_bytes: usize,
    /// What a user should know: channels that did not fit the fast form, and what was done.
    pub notes: Vec<String>,
}

/// Why a network could not be packed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ExportError {
    #[error(transparent)]
    Trained(#[from] jaq_network::TrainedError),
    #[error("{0}; retrain with a larger step, or with more bits on this layer")]
    Scale(#[from] ScaleError),
    #[error("layer `{layer}` ({spec} {bits}): no kernel of {isa:?} can run it")]
    Unsupported { layer: String, spec: String, bits: String, isa: Isa },
    #[error("the network has {0}, more than a packed model can hold")]
    TooLarge(String),
    #[error("the packed model does not load again: {0}")]
    Invalid(LoadError),
}

/// The kernel of every layer on `isa`, given its exact requantization.
pub fn choose_kernels(
    trained: &TrainedNetwork,
    integers: &[LayerIntegers],
    isa: Isa,
) -> Result<Vec<KernelId>, ExportError> {
    let network = &trained.network;
    network
        .layers
        .iter()
        .enumerate()
        .map(|(index, layer)| {
            let shape = network.shape(index);
            kernels::candidates(&shape, integers[index].requant, isa).next().ok_or_else(|| {
                ExportError::Unsupported {
                    layer: layer.name.clone(),
                    spec: jaq_network::LayerSpec::of(&shape).to_string(),
                    bits: shape.bits.to_string(),
                    isa,
                }
            })
        })
        .collect()
}

/// Checks the trained values and computes their integers.
pub fn integers(trained: &TrainedNetwork) -> Result<Vec<LayerIntegers>, ExportError> {
    trained.validate()?;
    Ok(requantize(trained)?)
}

/// Packs `trained` with the kernels and placement of `schedule`.
pub fn pack(
    trained: &TrainedNetwork,
    integers: &[LayerIntegers],
    schedule: &Schedule,
    origin: &Origin,
) -> Result<Packed, ExportError> {
    let network = &trained.network;
    let mut weights = WeightSection::default();
    let mut description = Vec::new();
    let reference = |id: TensorId| TensorRef {
        format: network.tensor(id).format(),
        zero_point: network.tensor(id).zero_point(),
        offset: schedule.tensor_offsets[id.0],
    };
    let count = |n: usize, what: &str| {
        u16::try_from(n).map_err(|_| ExportError::TooLarge(format!("{n} {what}")))
    };
    let info = ModelInfo {
        name: &network.name,
        tool: &origin.tool,
        board: &origin.board,
        data: &origin.data,
        seed: origin.seed,
        registry: kernels::registry_hash(),
        input: reference(TensorId::INPUT),
        encode_mul: network.encoding.mul,
        encode_add: network.encoding.add,
        arena: schedule.arena_bytes,
        classes: count(network.classes.len(), "classes")?,
        layers: count(network.layers.len(), "layers")?,
    };
    append(&mut description, &info);
    for class in &network.classes {
        append(&mut description, class);
    }

    let mut notes = Vec::new();
    for (index, layer) in network.layers.iter().enumerate() {
        let (shape, values) = (network.shape(index), &integers[index]);
        let kernel = schedule.kernels[index];
        let mut multipliers = values.multipliers.clone();
        let mut biases = values.biases.clone();
        let mut packed = vec![0; kernels::packed_weight_bytes(kernel, &shape)];
        if let Some(trained) = &trained.layers[index] {
            kernels::pack_weights(kernel, &shape, &trained.weights, &mut packed);
            let zero_point = network.tensor(layer.inputs[0]).zero_point();
            let (m, b) = (&mut multipliers, &mut biases);
            kernels::prepare(kernel, &shape, zero_point, &trained.weights, values.requant, m, b);
        }
        let scratch = Span {
            offset: schedule.scratch_offsets[index],
            len: kernels::scratch_bytes(kernel, &shape).next_multiple_of(4) as u32,
        };
        append(
            &mut description,
            &Layer {
                name: &layer.name,
                op: layer.op,
                weight_bits: shape.bits.weight,
                input: reference(layer.inputs[0]),
                input2: layer.inputs.get(1).map(|id| reference(*id)),
                output: reference(TensorId::output_of(index)),
                kernel,
                requant: values.requant,
                weights: weights.push(&packed),
                multipliers: weights.push(bytemuck::cast_slice(&multipliers)),
                biases: weights.push(bytemuck::cast_slice(&biases)),
                scratch,
            },
        );
        if let Some(note) = &values.note {
            notes.push(format!("layer `{}`: {note}", layer.name));
        }
        if matches!(values.requant, Requant::General { .. }) && values.note.is_none() {
            notes.push(format!("layer `{}` uses the general requantization", layer.name));
        }
    }

    let bytes = seal(description, weights.bytes)?;
    let aligned = aligned(&bytes);
    Model::load(bytemuck::cast_slice::<u64, u8>(&aligned).get(..bytes.len()).unwrap_or(&[]))
        .map_err(ExportError::Invalid)?;
    Ok(Packed {
        weights_bytes: bytes.len(),
        arena_bytes: schedule.arena_bytes as usize,
        bytes,
        notes,
    })
}

/// Bytes copied to memory that a [`Model`] can be loaded from (aligned to 8); the last word is
/// padded with zeros.
pub fn aligned(bytes: &[u8]) -> Vec<u64> {
    let mut words = vec![0u64; bytes.len().div_ceil(8)];
    bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..bytes.len()].copy_from_slice(bytes);
    words
}

#[derive(Default)]
struct WeightSection {
    bytes: Vec<u8>,
}

impl WeightSection {
    fn push(&mut self, bytes: &[u8]) -> Span {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let span = Span { offset: self.bytes.len() as u32, len: bytes.len() as u32 };
        self.bytes.extend_from_slice(bytes);
        span
    }
}

fn append(description: &mut Vec<u8>, value: &impl serde::Serialize) {
    let start = description.len();
    let bytes = postcard::to_stdvec(value).expect("plain data always serializes to memory");
    debug_assert!(start + bytes.len() < u32::MAX as usize);
    description.extend_from_slice(&bytes);
}

fn seal(mut description: Vec<u8>, weights: Vec<u8>) -> Result<Vec<u8>, ExportError> {
    let size = |n: usize| {
        u32::try_from(n).map_err(|_| ExportError::TooLarge(format!("{n} bytes of weights")))
    };
    let length = size(description.len())?;
    let weights_offset = (HEADER_BYTES + description.len()).next_multiple_of(WEIGHT_ALIGN);
    description.resize(weights_offset - HEADER_BYTES, 0);
    description.extend_from_slice(&weights);
    let header = Header {
        version: VERSION,
        total: size(HEADER_BYTES + description.len())?,
        description: length,
        weights_offset: size(weights_offset)?,
        weights: size(weights.len())?,
        crc: 0,
    };
    let mut bytes = header.seal(&description).to_vec();
    bytes.extend_from_slice(&description);
    Ok(bytes)
}
