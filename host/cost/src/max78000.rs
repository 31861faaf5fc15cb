//! MAX78000: 64 processors side by side, one output channel after the other.
//!
//! Every processor holds its input channels' data and the weights; a cycle makes one pixel of one
//! output channel from 64 input channels, whatever the width of the weights, which decides what
//! fits. Loading the input and the weights is not in the figures: weights stay. Energy is not
//! known per layer. Must not know: networks, but that all their weights stay on the chip.

use std::collections::BTreeMap;

use jaq_network::Network;
use jaq_shared::format::{LayerShape, Op};
use serde::{Deserialize, Serialize};

use crate::board::{self, BoardError, Kind};
use crate::cost::{Cost, CostModel, Interval, ModelError, NetworkCost};
use crate::target::sum_of_layers;
use crate::workload::Workload;

/// The description; every field has its source in the board file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Max78000 {
    pub name: String,
    pub description: String,
    pub kind: Kind,
    pub model: String,
    pub clock_hz: f64,
    processors: u64,
    weight_bits: Vec<u8>,
    weight_bytes: u64,
    data_bytes: u64,
    windows: Vec<u8>,
    pub sources: BTreeMap<String, String>,
}

impl Max78000 {
    /// Parses and validates the text of a board file; `file` is named in errors.
    pub fn parse(file: &str, text: &str) -> Result<Max78000, BoardError> {
        let found: Max78000 = board::parse(file, text)?;
        board::check_name(file, &found.name)?;
        if found.processors == 0 || !(found.clock_hz.is_finite() && found.clock_hz > 0.0) {
            return Err(BoardError::field(file, "clock_hz, processors", "must be positive"));
        }
        let wanted = ["clock_hz", "processors", "weights", "data", "windows"];
        board::check_sources(file, &found.sources, &wanted)?;
        Ok(found)
    }

    /// Why the device cannot run a layer, if it cannot.
    fn refusal(&self, work: &Workload) -> Option<String> {
        let window = work.op().window();
        let known = window.kh == window.kw && self.windows.contains(&window.kh);
        let widths = work.widths;
        let narrow: Vec<String> = self.weight_bits.iter().map(u8::to_string).collect();
        let [inputs, outputs] = work.activation_bytes();
        match work.op() {
            Op::Depthwise(_) => Some("it has no depthwise convolution".to_owned()),
            Op::Conv(_) if !known => Some("its windows are 1x1 and 3x3".to_owned()),
            Op::Conv(_) if window.stride != 1 => Some("its convolutions have stride 1".to_owned()),
            op if op.has_weights() && !self.weight_bits.contains(&widths.weight) => {
                Some(format!("its weights have {} bits", narrow.join(", ")))
            }
            _ if widths.input > 8 || widths.output > 8 => Some("its data has 8 bits".to_owned()),
            _ if work.weight_bytes() > self.weight_bytes => {
                Some(format!("its weight memory holds {} bytes", self.weight_bytes))
            }
            _ if inputs.max(outputs) > self.data_bytes => {
                Some(format!("its data memory holds {} bytes", self.data_bytes))
            }
            _ => None,
        }
    }
}

impl CostModel for Max78000 {
    fn layer(&self, layer: &LayerShape) -> Result<Cost, ModelError> {
        self.workload(&layer.into())
    }

    fn workload(&self, work: &Workload) -> Result<Cost, ModelError> {
        if let Some(reason) = self.refusal(work) {
            return Err(ModelError::unsupported(&self.name, work, &reason));
        }
        let [h, w, channels] = work.output();
        let groups = |channels: u64| channels.div_ceil(self.processors);
        let cycles = match work.op() {
            Op::Add => h * w * groups(channels) * 2,
            Op::AvgPool(window) | Op::MaxPool(window) => {
                h * w * groups(channels) * window.taps() as u64
            }
            _ => h * w * channels * groups(work.input()[2]),
        } as f64;
        let weights = if work.op().has_weights() { work.weight_bytes() } else { 0 };
        Ok(Cost {
            instructions: None,
            cycles: Some(Interval::exact(cycles)),
            latency_s: Some(cycles / self.clock_hz),
            energy_pj: None,
            weights_bytes: weights,
            bytes: [("weights".to_owned(), weights)].into(),
            ..Cost::zero()
        })
    }

    fn network(&self, network: &Network) -> Result<NetworkCost, ModelError> {
        sum_of_layers(self, &Workload::of(network, None), "max78000")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Objective, Target};

    #[test]
    fn narrow_weights_fit_and_are_not_faster() {
        let target = Target::load("max78000", Objective::Latency).unwrap();
        let price = |spec: &str, widths: &str| {
            let spec: jaq_network::LayerSpec = spec.parse().unwrap();
            target.workload(&Workload::block(&spec, widths.parse().unwrap())[0])
        };
        let cycles =
            |spec: &str, widths: &str| price(spec, widths).unwrap().cycles.unwrap().typical;
        // 64 processors of nine products at 50 MHz are the data sheet's 30 G operations a second.
        let full = "conv3x3:16x16x64-64";
        assert_eq!(cycles(full, "W8A8"), 16.0 * 16.0 * 64.0);
        assert_eq!(cycles(full, "W1A8"), cycles(full, "W8A8"));
        let large = "conv3x3:8x8x256-256";
        assert!(price(large, "W8A8").unwrap_err().to_string().contains("weight memory"));
        assert_eq!(cycles(large, "W4A8"), 8.0 * 8.0 * 256.0 * 4.0);
        for (spec, widths, reason) in [
            ("dw3x3:8x8x64", "W8A8", "depthwise"),
            ("conv3x3s2:8x8x64-64", "W8A8", "stride 1"),
            ("conv5x5:8x8x64-64", "W8A8", "3x3"),
            ("pw:8x8x64-64", "W3A8", "1, 2, 4, 8"),
        ] {
            let message = price(spec, widths).unwrap_err().to_string();
            assert!(message.contains(reason), "{message}");
        }
    }
}
