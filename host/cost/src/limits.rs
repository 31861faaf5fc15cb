//! Whether a network fits a board and meets the user's limits; where not, which limit and by how
//! much. Must not know: how figures are predicted.

use jaq_network::Network;
use serde::{Deserialize, Serialize};

use crate::{Cost, Mcu};

/// Bytes of a packed model that are not weights or tables: header and name of the model, and a
/// layer's descriptor. Upper estimates: postcard writes short integers in fewer bytes.
const HEADER_BYTES: u64 = 256;
const DESCRIPTOR_BYTES: u64 = 128;

/// What a network may take.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Flash for the packed model.
    pub flash_bytes: Option<u64>,
    /// RAM for the arena.
    pub ram_bytes: Option<u64>,
    /// Executed instructions of an inference.
    pub instructions: Option<f64>,
    /// Latency of an inference in seconds.
    pub latency_s: Option<f64>,
    /// Energy of an inference in picojoules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy_pj: Option<f64>,
    /// Area of the target in square millimetres.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub area_mm2: Option<f64>,
}

/// What a network takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Demand {
    pub flash_bytes: u64,
    pub ram_bytes: u64,
    pub instructions: Option<f64>,
    pub latency_s: Option<f64>,
    #[serde(default)]
    pub energy_pj: Option<f64>,
    #[serde(default)]
    pub area_mm2: Option<f64>,
}

/// A limit that is not met.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{what}: {needed} needed, {limit} allowed, {over} too much")]
pub struct LimitError {
    /// Which limit.
    pub what: &'static str,
    /// What the network takes.
    pub needed: String,
    /// What it may take.
    pub limit: String,
    /// The difference.
    pub over: String,
}

impl Limits {
    /// Whether work is limited, by itself or as latency.
    pub fn on_work(&self) -> bool {
        self.instructions.is_some() || self.latency_s.is_some()
    }

    /// The limits of a board alone.
    pub fn of(board: &Mcu) -> Limits {
        Limits {
            flash_bytes: Some(board.flash_bytes()),
            ram_bytes: Some(board.ram_bytes()),
            ..Limits::default()
        }
    }

    /// The stricter of both, limit by limit.
    pub fn and(&self, other: &Limits) -> Limits {
        let bytes = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        let number = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::min);
        Limits {
            flash_bytes: bytes(self.flash_bytes, other.flash_bytes),
            ram_bytes: bytes(self.ram_bytes, other.ram_bytes),
            instructions: number(self.instructions, other.instructions),
            latency_s: number(self.latency_s, other.latency_s),
            energy_pj: number(self.energy_pj, other.energy_pj),
            area_mm2: number(self.area_mm2, other.area_mm2),
        }
    }

    /// Every limit that `demand` does not meet. A limit on a figure that the target does not have
    /// is not met.
    pub fn check(&self, demand: &Demand) -> Vec<LimitError> {
        let kb = |bytes: u64| format!("{:.1} KB", bytes as f64 / 1024.0);
        let bytes = |what, needed: u64, limit: Option<u64>| {
            limit.filter(|limit| needed > *limit).map(|limit| LimitError {
                what,
                needed: kb(needed),
                limit: kb(limit),
                over: kb(needed - limit),
            })
        };
        let number = |what, needed: Option<f64>, limit: Option<f64>, unit: &str, scale: f64| {
            let text = |v: f64| format!("{:.3} {unit}", v * scale);
            limit.filter(|limit| needed.is_none_or(|needed| needed > *limit)).map(|limit| {
                LimitError {
                    what,
                    needed: needed.map_or("unknown on this board".to_owned(), text),
                    limit: text(limit),
                    over: needed.map_or("unknown".to_owned(), |needed| text(needed - limit)),
                }
            })
        };
        [
            bytes("flash of the packed model", demand.flash_bytes, self.flash_bytes),
            bytes("RAM of the arena", demand.ram_bytes, self.ram_bytes),
            number("instructions", demand.instructions, self.instructions, "million", 1e-6),
            number("latency", demand.latency_s, self.latency_s, "ms", 1e3),
            number("energy", demand.energy_pj, self.energy_pj, "uJ", 1e-6),
            number("area", demand.area_mm2, self.area_mm2, "mm2", 1.0),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl Demand {
    /// Of a network with its predicted cost and its planned arena.
    pub fn of(network: &Network, total: &Cost, arena_bytes: u32) -> Demand {
        Demand {
            flash_bytes: model_bytes(network.layers.len(), total.weights_bytes),
            ram_bytes: u64::from(arena_bytes),
            instructions: total.instructions,
            latency_s: total.latency_s,
            energy_pj: total.energy_pj,
            area_mm2: total.area_mm2,
        }
    }
}

/// Size of a packed model with this many layers and bytes of weights and tables, from above.
pub fn model_bytes(layers: usize, weights_bytes: u64) -> u64 {
    HEADER_BYTES + DESCRIPTOR_BYTES * layers as u64 + weights_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misses_are_named_with_their_size() {
        let board = Limits::of(&Mcu::load("stm32h7").unwrap());
        let limits = board.and(&Limits {
            ram_bytes: Some(10 * 1024),
            latency_s: Some(0.002),
            ..Limits::default()
        });
        let fits = Demand {
            flash_bytes: 1000,
            ram_bytes: 10 * 1024,
            instructions: Some(1e9),
            latency_s: Some(0.002),
            energy_pj: Some(2e6),
            area_mm2: None,
        };
        assert_eq!(limits.check(&fits), []);
        let too_much =
            Demand { flash_bytes: 3 << 20, ram_bytes: 11 * 1024, latency_s: None, ..fits };
        let messages: Vec<_> = limits.check(&too_much).iter().map(|e| e.to_string()).collect();
        assert_eq!(messages.len(), 3);
        assert_eq!(
            messages[0],
            "flash of the packed model: 3072.0 KB needed, 1920.0 KB allowed, 1152.0 KB too much"
        );
        assert!(messages[1].ends_with("1.0 KB too much"), "{}", messages[1]);
        assert!(messages[2].contains("latency: unknown on this board"), "{}", messages[2]);
        let limits = Limits { energy_pj: Some(1e6), area_mm2: Some(1.0), ..Limits::default() };
        let messages: Vec<_> = limits.check(&fits).iter().map(|e| e.to_string()).collect();
        assert_eq!(messages[0], "energy: 2.000 uJ needed, 1.000 uJ allowed, 1.000 uJ too much");
        assert!(messages[1].starts_with("area: unknown"), "{}", messages[1]);
    }
}
