//! Boards, cost models, BatchTile, the cost tensor and the memory planner of JAQ.
//!
//! Useful alone. Pure: everything is computed from the layer, the board file and the cost table;
//! no files are touched but those of `boards/` and a user's own board or table.

mod accelerator;
pub mod batch_tile;
mod board;
pub mod calibrate;
pub mod corpus;
mod cost;
mod design_space;
mod ethos;
pub mod fit;
mod fused;
mod hardware;
mod lanes;
mod limits;
mod max78000;
mod mcu;
mod ne16;
pub mod planner;
mod product;
pub mod simulator;
mod sram;
mod table;
mod target;
mod tensor;
pub mod tile;
#[cfg(test)]
mod tile_tests;
mod workload;

pub use accelerator::{
    Array, Buffer, Dataflow, FinalBits, MappingSpace, OffChip, Outputs, Precision, Residency,
    TileSizes, Tiled,
};
pub use batch_tile::{Best, Objective};
pub use board::{
    BoardError, Core, Energy, Hardware, IsaName, Kind, Links, Mcu, Memory, Reserve, Timing, Use,
    describe, names, probe_target,
};
pub use cost::{Cost, CostModel, Interval, LayerCost, ModelError, NetworkCost};
pub use design_space::DesignSpace;
pub use ethos::EthosU55;
pub use hardware::{Block, Contraction, HardwareCosts, HardwareTable, Price};
pub use limits::{Demand, LimitError, Limits, model_bytes};
pub use max78000::Max78000;
pub use mcu::McuModel;
pub use ne16::Ne16;
pub use planner::{Plan, plan};
pub use product::{Product, least_product};
pub use sram::Sram;
pub use table::{CostTable, Fit, FitError, KernelCost, TableError, Unit, refit_command};
pub use target::{BlockCost, Target, TiledModel};
pub use tensor::{CostTable3, Figure, Gradient};
pub use workload::{ParseWidthsError, Widths, Workload};
