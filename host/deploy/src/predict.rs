//! What a packed model will cost on a board, by the committed cost table: for models that no search
//! of this machine has predicted.
//!
//! Must not know how devices are reached.

use jaq_cost::{Cost, McuModel, ModelError, Unit};
use jaq_network::LayerSpec;
use jaq_shared::format::Model;

use crate::validate::{LayerPrediction, Prediction};

/// Why there is no prediction.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PredictError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("nothing predicts {unit} of `{board}`: its cost table counts {table}")]
    Unit { board: String, unit: &'static str, table: &'static str },
}

/// The cost of every layer of `model` on `board` in `unit`: cycles are the middle of their range.
pub fn predict(
    model: &Model<'_>,
    board: &McuModel,
    unit: Unit,
) -> Result<Prediction, PredictError> {
    let figure = |cost: &Cost| {
        let figure = match unit {
            Unit::Instructions => cost.instructions,
            Unit::Cycles => cost.cycles.map(|cycles| cycles.typical),
        };
        figure.ok_or_else(|| PredictError::Unit {
            board: board.board().name.clone(),
            unit: unit.name(),
            table: board.table().unit.name(),
        })
    };
    let input = model.info().input.format;
    let mut layers = vec![LayerPrediction {
        name: "input".to_owned(),
        spec: format!("encode:{}x{}x{}", input.shape.h, input.shape.w, input.shape.c),
        bits: format!("A{}", input.bits),
        kernel: "encode".to_owned(),
        predicted: figure(&board.encode(input)?)?,
    }];
    for layer in model.layers() {
        let shape = layer.shape();
        layers.push(LayerPrediction {
            name: layer.name.to_owned(),
            spec: LayerSpec::of(&shape).to_string(),
            bits: shape.bits.to_string(),
            kernel: layer.kernel.name().to_owned(),
            predicted: figure(&board.layer_on(&shape, layer.kernel)?)?,
        });
    }
    Ok(Prediction {
        board: board.board().name.clone(),
        unit,
        registry: jaq_shared::kernels::registry_hash(),
        total: layers.iter().map(|layer| layer.predicted).sum(),
        layers,
    })
}
