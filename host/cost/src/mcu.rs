//! The cost model of microcontrollers: instructions of the kernel that serves a layer, from exact
//! counts of its work and the fitted [`CostTable`]; cycles from the core's stated range; energy
//! from picojoules a cycle.
//!
//! Cycles are an interval: nobody measured this board. Must not know: how tables are measured.

use jaq_network::Network;
use jaq_shared::format::{LayerShape, TensorFormat};
use jaq_shared::kernels::{self, Isa, KernelId};

use crate::calibrate::Subject;
use crate::corpus::usual_kernel;
use crate::cost::{Cost, CostModel, Interval, LayerCost, ModelError, NetworkCost};
use crate::table::{CostTable, ENCODE, Predicted, Unit};
use crate::workload::{NO_KERNEL, Workload};
use crate::{Mcu, TableError};

/// A board with its cost table.
#[derive(Clone, Debug)]
pub struct McuModel {
    board: Mcu,
    table: CostTable,
}

impl McuModel {
    /// The model of a board; fails where its table is missing or stale.
    pub fn new(board: Mcu) -> Result<McuModel, TableError> {
        let measured_on = board.emulated_by.clone().unwrap_or_else(|| board.name.clone());
        let table = CostTable::load(&board.core.cost_table, &measured_on)?;
        Ok(McuModel { board, table })
    }

    /// The model of a board with a table of the caller's.
    pub fn with_table(board: Mcu, table: CostTable) -> McuModel {
        McuModel { board, table }
    }

    /// The board.
    pub fn board(&self) -> &Mcu {
        &self.board
    }

    /// The table.
    pub fn table(&self) -> &CostTable {
        &self.table
    }

    /// Which micro-kernels run.
    pub fn isa(&self) -> Isa {
        self.board.isa()
    }

    /// Cost of `layer` on a kernel that is not necessarily the preferred one.
    pub fn layer_on(&self, layer: &LayerShape, kernel: KernelId) -> Result<Cost, ModelError> {
        let predicted = self.predict(&Subject::Layer(*layer, kernel))?;
        let (m, b) = kernels::table_lengths(layer);
        let packed = kernels::packed_weight_bytes(kernel, layer).next_multiple_of(4);
        Ok(self.cost(predicted, (packed + 4 * (m + b)) as u64))
    }

    /// Cost of turning raw bytes into the input tensor.
    pub fn encode(&self, input: TensorFormat) -> Result<Cost, ModelError> {
        Ok(self.cost(self.predict(&Subject::Encode(input))?, 0))
    }

    /// The preferred kernel of every layer.
    pub fn kernels(&self, network: &Network) -> Result<Vec<KernelId>, ModelError> {
        network.shapes().iter().map(|layer| self.usual(layer)).collect()
    }

    /// What the table says of a subject.
    pub fn predict(&self, subject: &Subject) -> Result<Predicted, TableError> {
        self.table.predict(subject.kernel(), &subject.work(self.isa()))
    }

    fn usual(&self, layer: &LayerShape) -> Result<KernelId, ModelError> {
        usual_kernel(layer, self.isa()).ok_or_else(|| {
            ModelError::unsupported(&self.board.name, &layer.into(), "no kernel serves it")
        })
    }

    fn cost(&self, predicted: Predicted, weights_bytes: u64) -> Cost {
        let timing = self.board.timing.as_ref();
        let (instructions, cycles) = match self.table.unit {
            Unit::Instructions => {
                let cycles = timing.map(|timing| {
                    let [low, high] = timing.cycles_per_instruction;
                    Interval { low, typical: (low * high).sqrt(), high }.scale(predicted.counted)
                });
                (Some(predicted.counted), cycles)
            }
            // Counted on this very core: nothing to guess but what its memory adds.
            Unit::Cycles => {
                let states = timing.map_or(0, |timing| timing.flash_wait_states);
                let waiting = predicted.accesses.unwrap_or(0.0) * f64::from(states);
                (None, Some(Interval::exact(predicted.counted + waiting)))
            }
        };
        let clock = self.board.timing.as_ref().map(|timing| timing.clock_hz);
        let pj = self.board.energy.as_ref().map(|energy| energy.pj_per_cycle);
        let typical = cycles.map(|cycles| cycles.typical);
        Cost {
            instructions,
            cycles,
            latency_s: typical.zip(clock).map(|(cycles, hz)| cycles / hz),
            energy_pj: typical.zip(pj).map(|(cycles, pj)| cycles * pj),
            weights_bytes,
            ..Cost::zero()
        }
    }
}

impl CostModel for McuModel {
    fn workload(&self, work: &Workload) -> Result<Cost, ModelError> {
        let layer = work
            .shape()
            .ok_or_else(|| ModelError::unsupported(&self.board.name, work, NO_KERNEL))?;
        self.layer(&layer)
    }

    fn layer(&self, layer: &LayerShape) -> Result<Cost, ModelError> {
        self.layer_on(layer, self.usual(layer)?)
    }

    fn network(&self, network: &Network) -> Result<NetworkCost, ModelError> {
        let input = network.input.format();
        let mut layers = vec![LayerCost {
            name: "input".to_owned(),
            spec: format!("encode:{}x{}x{}", input.shape.h, input.shape.w, input.shape.c),
            bits: format!("A{}", input.bits),
            kernel: ENCODE.to_owned(),
            cost: self.encode(input)?,
        }];
        for (layer, shape) in network.layers.iter().zip(network.shapes()) {
            let kernel = self.usual(&shape)?;
            let cost = self.layer_on(&shape, kernel)?;
            layers.push(LayerCost::new(&layer.name, &shape, kernel.name(), cost));
        }
        let total = layers.iter().fold(Cost::zero(), |sum, layer| sum.plus(&layer.cost));
        Ok(NetworkCost { total, layers })
    }

    fn kernel(&self, layer: &LayerShape) -> Option<KernelId> {
        usual_kernel(layer, self.isa())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::{Measurement, fit_table};
    use crate::corpus::corpus;
    use jaq_network::LayerSpec;
    use jaq_shared::format::{Bits, LayerBits};

    /// A table of a core on which every count costs two instructions.
    pub(crate) fn two_a_count() -> CostTable {
        let mut measured = Vec::new();
        for layer in corpus(Isa::Armv7em) {
            let kernel = usual_kernel(&layer, Isa::Armv7em).unwrap();
            for subject in [Subject::Layer(layer, kernel), Subject::Encode(layer.input_format())] {
                let work = subject.work(Isa::Armv7em);
                let count = 2 * work.counts().map(|(_, count)| count).sum::<u64>();
                measured.push(Measurement { subject, count, accesses: Some(10 * count) });
            }
        }
        let board = Mcu::load("mps2-an500").unwrap();
        fit_table(&board, Unit::Instructions, "nothing", "nothing", &measured).unwrap()
    }

    #[test]
    fn cycles_and_energy_follow_from_instructions() {
        let spec: LayerSpec = "pw:16x16x64-64".parse().unwrap();
        let layer = spec.shape(LayerBits::uniform(Bits::B4, Bits::B4)).unwrap();
        let model = |board| McuModel::with_table(Mcu::load(board).unwrap(), two_a_count());
        let (real, emulated) = (model("stm32h7"), model("mps2-an500"));
        let cost = real.layer(&layer).unwrap();
        let instructions = cost.instructions.unwrap();
        let work = Subject::Layer(layer, real.kernel(&layer).unwrap()).work(real.isa());
        let expected = 2.0 * work.counts().map(|(_, count)| count).sum::<u64>() as f64;
        assert!((instructions / expected - 1.0).abs() < 0.01, "{instructions} {expected}");
        let cycles = cost.cycles.unwrap();
        assert_eq!((cycles.low, cycles.high), (0.6 * instructions, 1.2 * instructions));
        assert_eq!(cost.latency_s, Some(cycles.typical / 480e6));
        assert_eq!(cost.energy_pj, Some(cycles.typical * 434.0));
        // 64 x 64 weights of 4 bits, two tables of 64 words.
        assert_eq!(cost.weights_bytes, 2048 + 512);
        let cost = emulated.layer(&layer).unwrap();
        assert_eq!((cost.cycles, cost.latency_s, cost.energy_pj), (None, None, None));
        assert_eq!(cost.instructions, Some(instructions));

        // Cycles are cycles; every access waits as long as the board's flash.
        let mut board = Mcu::load("stm32h7").unwrap();
        board.timing.as_mut().unwrap().flash_wait_states = 3;
        let table = CostTable { unit: Unit::Cycles, ..two_a_count() };
        let cost = McuModel::with_table(board, table).layer(&layer).unwrap();
        let cycles = cost.cycles.unwrap();
        assert_eq!((cost.instructions, cycles.low), (None, cycles.high));
        assert!((cycles.typical / (31.0 * expected) - 1.0).abs() < 0.01, "{cycles:?}");
    }
}
