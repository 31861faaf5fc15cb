//! Descriptions of accelerators, read from `boards/*.toml`.
//!
//! `model` says which model prices a target: `tiled` is an array with buffers whose tilings
//! [`crate::BatchTile`] searches; the others have models of their own. Must not know: mappings.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::board::{self, BoardError, Kind};
use crate::sram::Sram;
use crate::tile::{OPERANDS, Prices};

/// An array of multipliers behind buffers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tiled {
    /// Name, that of the file.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Always [`Kind::Accelerator`].
    pub kind: Kind,
    /// Always `tiled`.
    pub model: String,
    /// Clock in Hz.
    pub clock_hz: f64,
    /// Node in micrometres, of the SRAM sweep.
    pub node_um: f64,
    /// The multipliers.
    pub array: Array,
    /// The buffers; every operand in exactly one.
    pub buffer: Vec<Buffer>,
    /// Memory outside of the chip.
    pub memory: OffChip,
    /// How outputs are kept.
    pub outputs: Outputs,
    /// Which mappings are searched.
    pub mapping: MappingSpace,
    /// Where the numbers come from.
    pub sources: BTreeMap<String, String>,
}

/// Rows sum products (input channels), columns are output channels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Array {
    pub rows: u64,
    pub columns: u64,
    pub precision: Precision,
    /// Width at which a row makes one product a cycle.
    pub operand_bits: u32,
    pub dataflow: Dataflow,
    /// Cycles until the first and after the last result, once a layer.
    #[serde(default)]
    pub pipeline_cycles: u64,
    /// Picojoules of a product and its addition at the native width.
    pub mac_pj: f64,
    /// Square micrometres of a multiplier with its adder.
    pub mac_um2: f64,
}

/// What narrow operands are good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Nothing in the array; memory traffic falls.
    Fixed,
    /// More products a cycle: `floor(8/a) * floor(8/w)`, widths rounded up to a power of two.
    Fusion,
}

/// What sits still in the array while a tile is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Dataflow {
    WeightStationary,
    OutputStationary,
    /// Rows of the array are rows of the filter, columns are rows of outputs.
    RowStationary,
}

/// A buffer of one or more operands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Buffer {
    pub operands: Vec<String>,
    pub bytes: u64,
    pub port_bits: u32,
    /// Picojoules a bit, where a source tells; else by the SRAM sweep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pj_per_bit: Option<f64>,
    /// Square millimetres, where a source tells; else by the SRAM sweep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub area_mm2: Option<f64>,
}

/// Memory outside of the chip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct OffChip {
    pub bits_per_cycle: u64,
    pub pj_per_bit: f64,
    /// Where writing costs another energy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_pj_per_bit: Option<f64>,
}

/// How outputs are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outputs {
    /// Width of a partial sum.
    pub accumulator_bits: u32,
    /// Whether the first visit of an output reads it, too.
    pub initial_read: bool,
    /// Width at which finished outputs are stored.
    pub r#final: FinalBits,
}

/// Width of finished outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FinalBits {
    /// That of partial sums.
    Accumulator,
    /// That of the layer's output.
    Layer,
}

/// Which mappings are searched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MappingSpace {
    /// Sizes of tiles.
    pub tiles: TileSizes,
    /// Which blocks operands may keep.
    pub residency: Residency,
    /// `true`: always double-buffered; `false`: either, as is better.
    pub double_buffered: bool,
    /// Whether input rows that two tiles share stay in the buffer between them, where tiles are
    /// whole but for their rows.
    #[serde(default)]
    pub keep_halo: bool,
}

/// Sizes of tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TileSizes {
    /// Powers of two and the whole, rows and columns alike.
    SquarePowersOfTwo,
    /// Powers of two and the whole.
    PowersOfTwo,
    /// Every size that gives another number of tiles.
    All,
}

/// Which blocks operands may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Residency {
    /// The largest that fits.
    Largest,
    /// Any that fits and that saves traffic against the next smaller one.
    Free,
}

impl Tiled {
    /// Parses and validates the text of a board file; `file` is named in errors.
    pub fn parse(file: &str, text: &str) -> Result<Tiled, BoardError> {
        let found: Tiled = board::parse(file, text)?;
        found.validate(file)?;
        found.prices().map_err(|reason| BoardError::field(file, "buffer", reason))?;
        Ok(found)
    }

    fn validate(&self, file: &str) -> Result<(), BoardError> {
        let fail = |field: &str, reason: &str| Err(BoardError::field(file, field, reason));
        board::check_name(file, &self.name)?;
        let array = &self.array;
        if !(1..=1024).contains(&array.rows) || !(1..=1024).contains(&array.columns) {
            return fail("array.rows, array.columns", "must be 1 to 1024");
        }
        if !(1..=16).contains(&array.operand_bits) {
            return fail("array.operand_bits", "must be 1 to 16");
        }
        let composed = [2, 4, 8, 16].contains(&array.operand_bits);
        if array.precision == Precision::Fusion && !composed {
            return fail("array.operand_bits", "must be 2, 4, 8 or 16 where widths are composed");
        }
        if array.pipeline_cycles > 1 << 20 {
            return fail("array.pipeline_cycles", "must be at most 1048576");
        }
        let prices =
            [self.clock_hz, self.node_um, array.mac_pj, array.mac_um2, self.memory.pj_per_bit];
        if prices.iter().any(|v| !(v.is_finite() && *v > 0.0)) {
            return fail("clock_hz, node_um, mac_pj, mac_um2, pj_per_bit", "must be positive");
        }
        if !(1..=65536).contains(&self.memory.bits_per_cycle) {
            return fail("memory.bits_per_cycle", "must be 1 to 65536");
        }
        if !(8..=64).contains(&self.outputs.accumulator_bits) {
            return fail("outputs.accumulator_bits", "must be 8 to 64");
        }
        for operand in OPERANDS {
            let holders = self.buffer.iter().flat_map(|b| &b.operands).filter(|o| *o == operand);
            if holders.count() != 1 {
                return fail("buffer.operands", &format!("must name `{operand}` exactly once"));
            }
        }
        if self.buffer.iter().flat_map(|b| &b.operands).any(|o| !OPERANDS.contains(&&**o)) {
            return fail("buffer.operands", "are of weights, inputs, outputs");
        }
        if self.buffer.len() != 3 && self.mapping.residency == Residency::Largest {
            return fail("mapping.residency", "`largest` wants one buffer an operand");
        }
        let wanted = ["array", "array.mac_pj", "array.mac_um2", "buffer", "memory", "outputs"];
        board::check_sources(file, &self.sources, &wanted)?;
        board::check_sources(file, &self.sources, &["memory.pj_per_bit", "mapping"])
    }

    /// Index of the buffer that holds each operand.
    pub(crate) fn buffer_of(&self) -> [usize; 3] {
        OPERANDS.map(|operand| {
            let holds = |b: &Buffer| b.operands.iter().any(|o| o == operand);
            self.buffer.iter().position(holds).unwrap_or(0)
        })
    }

    /// Whether blocks of these sizes (bits) fit the buffers.
    pub(crate) fn fits(&self, block: &[u64; 3], double_buffered: bool) -> bool {
        let of = self.buffer_of();
        let copies = if double_buffered { 2 } else { 1 };
        self.buffer.iter().enumerate().all(|(i, buffer)| {
            let used: u64 = (0..3).filter(|&x| of[x] == i).map(|x| block[x]).sum();
            used * copies <= buffer.bytes * 8
        })
    }

    /// Energies and area; fails where a buffer lies outside of the SRAM sweep.
    pub fn prices(&self) -> Result<Prices, String> {
        let mut area_mm2 =
            (self.array.rows * self.array.columns) as f64 * self.array.mac_um2 * 1e-6;
        let mut srams = Vec::new();
        for buffer in &self.buffer {
            let (pj, area) = match (buffer.pj_per_bit, buffer.area_mm2) {
                (Some(pj), Some(area)) => (pj, area),
                (pj, area) => {
                    let sram = Sram::new(self.node_um, buffer.bytes, buffer.port_bits)?;
                    let mean = (sram.read_pj_per_bit + sram.write_pj_per_bit) / 2.0;
                    (pj.unwrap_or(mean), area.unwrap_or(sram.area_mm2))
                }
            };
            area_mm2 += area;
            srams.push(pj);
        }
        let memory = self.memory.pj_per_bit;
        Ok(Prices {
            memory,
            memory_written: self.memory.written_pj_per_bit.unwrap_or(memory),
            buffer: self.buffer_of().map(|i| srams[i]),
            mac: self.array.mac_pj,
            area_mm2,
        })
    }
}
