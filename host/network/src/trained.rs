//! A trained network: the graph and its integer weights with real scales, as files of a run
//! directory (`network.json`, `tensors.safetensors`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::files::write_whole;
use crate::graph::{GraphError, Network, TensorId};

/// The values of one layer with weights. The layer's real output before its output quantizer is
/// `scale[c] * s_in * sum((code_in - zero_point_in) * weight) + offset[c]` with `s_in` the scale
/// of the input tensor: batch norm and weight step are folded into `scale` and `offset`.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainedLayer {
    /// Weight codes, `-2^(b-1) ..= 2^(b-1) - 1`, in the order stated at `Op`.
    pub weights: Vec<i8>,
    /// Real value of one weight step, batch norm folded, per output channel (may be negative).
    pub scale: Vec<f32>,
    /// Real bias, batch norm folded, per output channel.
    pub offset: Vec<f32>,
}

/// A network with its trained values.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainedNetwork {
    /// The graph.
    pub network: Network,
    /// Scale of every tensor, by [`TensorId`].
    pub scales: Vec<f32>,
    /// Values of every layer; `None` where the operator has no weights.
    pub layers: Vec<Option<TrainedLayer>>,
}

/// Why a trained network could not be read or written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TrainedError {
    #[error("cannot access {path}: {source}", path = path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a network description: {source}", path = path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{path} holds no readable tensors: {source}", path = path.display())]
    Tensors { path: PathBuf, source: safetensors::SafeTensorError },
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error("trained values of `{name}`: {reason}")]
    Values { name: String, reason: String },
}

#[derive(Serialize, Deserialize)]
struct Description {
    network: Network,
    scales: Vec<f32>,
}

impl TrainedNetwork {
    /// Scale of tensor `id`.
    pub fn scale(&self, id: TensorId) -> f32 {
        self.scales[id.0]
    }

    /// Checks lengths and ranges of all values against the graph.
    pub fn validate(&self) -> Result<(), TrainedError> {
        self.network.validate()?;
        let fail = |name: &str, reason: String| {
            Err(TrainedError::Values { name: name.to_owned(), reason })
        };
        if self.scales.len() != self.network.layers.len() + 1
            || self.layers.len() + 1 != self.scales.len()
        {
            return fail(
                &self.network.name,
                "one scale a tensor and one entry a layer wanted".into(),
            );
        }
        if let Some(bad) = self.scales.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
            return fail(&self.network.name, format!("{bad} is no tensor scale"));
        }
        for (index, (layer, values)) in self.network.layers.iter().zip(&self.layers).enumerate() {
            let shape = self.network.shape(index);
            match (values, layer.weight_bits) {
                (None, None) => {}
                (Some(values), Some(bits)) => {
                    let channels = shape.output.c as usize;
                    if values.weights.len() != shape.weights()
                        || values.scale.len() != channels
                        || values.offset.len() != channels
                    {
                        return fail(&layer.name, "lengths do not match the layer".into());
                    }
                    let half = bits.half() as i32;
                    if let Some(w) =
                        values.weights.iter().find(|w| !(-half..half).contains(&i32::from(**w)))
                    {
                        return fail(&layer.name, format!("weight {w} does not fit {bits} bits"));
                    }
                    if !values.scale.iter().chain(&values.offset).all(|v| v.is_finite()) {
                        return fail(&layer.name, "a scale or offset is not finite".into());
                    }
                }
                _ => {
                    return fail(
                        &layer.name,
                        "values belong to operators with weights, and only there".into(),
                    );
                }
            }
        }
        Ok(())
    }

    /// Writes `network.json` and `tensors.safetensors` into `dir`, each whole or not at all.
    pub fn save(&self, dir: &Path) -> Result<(), TrainedError> {
        let description =
            Description { network: self.network.clone(), scales: self.scales.clone() };
        let path = dir.join("network.json");
        let json = serde_json::to_vec_pretty(&description)
            .map_err(|source| TrainedError::Json { path: path.clone(), source })?;
        let io = |path: &Path, source| TrainedError::Io { path: path.to_owned(), source };
        write_whole(&path, &json).map_err(|source| io(&path, source))?;

        let path = dir.join("tensors.safetensors");
        let fail = |source| TrainedError::Tensors { path: path.clone(), source };
        let mut views = Vec::new();
        for (layer, values) in self.network.layers.iter().zip(&self.layers) {
            let Some(values) = values else { continue };
            let weights: &[u8] = bytemuck::cast_slice(&values.weights);
            let n = values.scale.len();
            let view = |dtype, len, bytes| TensorView::new(dtype, vec![len], bytes).map_err(fail);
            views
                .push((format!("{}.weight", layer.name), view(Dtype::I8, weights.len(), weights)?));
            let scale = bytemuck::cast_slice(&values.scale);
            views.push((format!("{}.scale", layer.name), view(Dtype::F32, n, scale)?));
            let offset = bytemuck::cast_slice(&values.offset);
            views.push((format!("{}.offset", layer.name), view(Dtype::F32, n, offset)?));
        }
        let bytes = safetensors::serialize(views, None).map_err(fail)?;
        write_whole(&path, &bytes).map_err(|source| io(&path, source))
    }

    /// Reads and validates what [`TrainedNetwork::save`] wrote.
    pub fn load(dir: &Path) -> Result<TrainedNetwork, TrainedError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| TrainedError::Io { path: path.to_owned(), source })
        };
        let path = dir.join("network.json");
        let Description { network, scales } = serde_json::from_slice(&read(&path)?)
            .map_err(|source| TrainedError::Json { path, source })?;
        network.validate()?;

        let path = dir.join("tensors.safetensors");
        let bytes = read(&path)?;
        let tensors = SafeTensors::deserialize(&bytes)
            .map_err(|source| TrainedError::Tensors { path: path.clone(), source })?;
        let by_name: HashMap<_, _> = tensors.tensors().into_iter().collect();
        let take = |name: String, dtype: Dtype| match by_name.get(&name) {
            Some(view) if view.dtype() == dtype => Ok(view.data().to_vec()),
            _ => Err(TrainedError::Values {
                name,
                reason: format!("no {dtype:?} tensor in {}", path.display()),
            }),
        };
        let floats = |name: String| -> Result<Vec<f32>, TrainedError> {
            let bytes = take(name, Dtype::F32)?;
            Ok(bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect())
        };
        let mut layers = Vec::new();
        for layer in &network.layers {
            layers.push(match layer.weight_bits {
                None => None,
                Some(_) => Some(TrainedLayer {
                    weights: bytemuck::cast_slice(&take(
                        format!("{}.weight", layer.name),
                        Dtype::I8,
                    )?)
                    .to_vec(),
                    scale: floats(format!("{}.scale", layer.name))?,
                    offset: floats(format!("{}.offset", layer.name))?,
                }),
            });
        }
        let trained = TrainedNetwork { network, scales, layers };
        trained.validate()?;
        Ok(trained)
    }
}
