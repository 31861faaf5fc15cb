//! What the benchmark measures.

use serde::{Deserialize, Serialize};

use crate::model::{Model, Quantization};

/// One thing to measure, on one backend.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Case {
    /// `candle` (its own operators), `jaq` (the embedded ones), `tch` or `pytorch`.
    pub backend: String,
    pub model: Model,
    pub name: String,
    /// Bit options of weights and feature maps; none for real values.
    pub bits: Vec<u32>,
    /// One operator for all options.
    pub fused: bool,
    /// Share of a feature map's channels that is quantized.
    pub keep: f32,
}

impl Case {
    pub fn quantization(&self) -> Quantization {
        Quantization { bits: self.bits.clone(), fused: self.fused, keep: self.keep }
    }
}

/// The network whose search step is measured.
pub const SEARCHED: Model = Model::Mobile;

/// Real values and W4A4 on both networks and every backend, and a step of a search over four
/// widths where a backend has more than one thing to show by it.
pub fn speed_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for model in Model::ALL {
        for (name, bits) in
            [("float", &[][..]), ("W4A4", &[4]), ("search over 2,3,4,8", &[2, 3, 4, 8])]
        {
            for backend in ["candle", "jaq", "tch", "pytorch"] {
                let searched = bits.len() > 1;
                if searched && (model != SEARCHED || !["jaq", "tch"].contains(&backend)) {
                    continue;
                }
                let (backend, name, bits) = (backend.into(), name.into(), bits.to_vec());
                cases.push(Case { backend, model, name, bits, fused: true, keep: 1.0 });
            }
        }
    }
    cases
}

/// A search step with 1 to 4 bit options. What is composed runs on candle's own operators, where
/// every intermediate is kept, as in any library without an operator for the purpose.
pub fn memory_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, backend, fused, keep) in [
        ("naive: composed operators", "candle", false, 1.0),
        ("naive: one operator an option", "jaq", false, 1.0),
        ("CSQ 50 %, composed operators", "candle", true, 0.5),
        ("CSQ 20 %, composed operators", "candle", true, 0.2),
        ("fused", "jaq", true, 1.0),
        ("fused + CSQ 50 %", "jaq", true, 0.5),
        ("fused + CSQ 20 %", "jaq", true, 0.2),
    ] {
        for options in 1..=4 {
            let bits = [4, 8, 2, 3][..options].to_vec();
            let (backend, name) = (backend.into(), name.into());
            cases.push(Case { backend, model: SEARCHED, name, bits, fused, keep });
        }
    }
    cases
}
