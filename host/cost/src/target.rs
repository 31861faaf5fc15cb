//! Any target by name: a microcontroller or an accelerator, behind the one trait [`CostModel`].

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use jaq_network::{Network, TensorId};
use jaq_shared::format::{LayerBits, LayerShape};
use jaq_shared::kernels::KernelId;
use serde::Deserialize;

use crate::accelerator::Tiled;
use crate::batch_tile::{self, Best, Objective};
use crate::board::{self, BoardError, Kind, Mcu};
use crate::cost::{Cost, CostModel, Interval, LayerCost, ModelError, NetworkCost};
use crate::ethos::EthosU55;
use crate::fused::{self, Fused};
use crate::max78000::Max78000;
use crate::mcu::McuModel;
use crate::ne16::Ne16;
use crate::tile::{OPERANDS, Prices, Problem};
use crate::workload::{NO_KERNEL, Widths, Workload};

/// A target that layers can be priced on.
#[derive(Clone, Debug)]
pub enum Target {
    /// A processor that runs the project's kernels.
    Mcu(McuModel),
    /// An array with buffers.
    Tiled(TiledModel),
    /// An Arm Ethos-U55.
    EthosU55(EthosU55),
    /// The NE16 engine of GAP9.
    Ne16(Ne16),
    /// A MAX78000.
    Max78000(Max78000),
}

impl Target {
    /// The shipped target `name`, or the file of that path.
    pub fn load(name: &str, objective: Objective) -> Result<Target, ModelError> {
        #[derive(Deserialize)]
        struct Head {
            model: String,
        }
        let text = board::source(name)?;
        match board::kind_of(name, &text)? {
            Kind::Mcu => return Ok(Target::Mcu(McuModel::new(Mcu::parse(name, &text)?)?)),
            Kind::DesignSpace => return Err(BoardError::IsSpace { name: name.to_owned() }.into()),
            Kind::Accelerator => {}
        }
        let Head { model } = board::parse(name, &text)?;
        match &*model {
            "tiled" => Ok(Target::Tiled(TiledModel::new(Tiled::parse(name, &text)?, objective)?)),
            "ethos-u55" => Ok(Target::EthosU55(EthosU55::parse(name, &text)?)),
            "ne16" => Ok(Target::Ne16(Ne16::parse(name, &text)?)),
            "max78000" => Ok(Target::Max78000(Max78000::parse(name, &text)?)),
            _ => Err(ModelError::Board(BoardError::Field {
                file: name.to_owned(),
                field: "model".to_owned(),
                reason: format!(
                    "is `{model}`; `tiled`, `ethos-u55`, `ne16` and `max78000` are known"
                ),
            })),
        }
    }

    fn model(&self) -> &dyn CostModel {
        match self {
            Target::Mcu(model) => model,
            Target::Tiled(model) => model,
            Target::EthosU55(model) => model,
            Target::Ne16(model) => model,
            Target::Max78000(model) => model,
        }
    }

    /// Name of the target.
    pub fn name(&self) -> &str {
        match self {
            Target::Mcu(model) => &model.board().name,
            Target::Tiled(model) => &model.array.name,
            Target::EthosU55(model) => &model.name,
            Target::Ne16(model) => &model.name,
            Target::Max78000(model) => &model.name,
        }
    }

    /// Area in square millimetres, where the description allows to tell.
    pub fn area_mm2(&self) -> Option<f64> {
        match self {
            Target::Tiled(model) => Some(model.prices.area_mm2),
            _ => None,
        }
    }

    /// Cost of a block: its layers one after the other, fused where the target does that.
    pub fn block(&self, works: &[Workload]) -> Result<BlockCost, ModelError> {
        match self {
            Target::Tiled(model) => model.block(works),
            _ => BlockCost::one_by_one(self, works),
        }
    }

    /// Costs of the layers of a network, all at `widths` where they are given, with their sum.
    pub fn price(
        &self,
        network: &Network,
        widths: Option<Widths>,
    ) -> Result<(Vec<(String, Workload)>, NetworkCost), ModelError> {
        let layers = Workload::of(network, widths);
        let found = match self {
            Target::Mcu(model) => {
                let bits = |w: Widths| LayerBits::try_from(w).ok().map(|b| (b.weight, b.input));
                let network = match (widths, widths.and_then(bits)) {
                    (None, _) => network.clone(),
                    (_, Some((weight, input))) => network.with_uniform_bits(weight, input),
                    (Some(_), None) => {
                        return Err(ModelError::unsupported(self.name(), &layers[0].1, NO_KERNEL));
                    }
                };
                model.network(&network)?
            }
            Target::Tiled(model) => model.in_blocks(network, &layers)?,
            _ => sum_of_layers(self, &layers, self.kind())?,
        };
        Ok((layers, found))
    }

    fn kind(&self) -> &str {
        match self {
            Target::Mcu(_) => "mcu",
            Target::Tiled(_) => "tiled",
            Target::EthosU55(_) => "ethos-u55",
            Target::Ne16(_) => "ne16",
            Target::Max78000(_) => "max78000",
        }
    }

    /// In words, why a layer costs what it costs.
    pub fn explain(&self, work: &Workload) -> Result<String, ModelError> {
        let cost = self.workload(work)?;
        let what = format!("{} {}", work.spec(), work.widths);
        match self {
            Target::Mcu(model) => {
                let kernel = work.shape().and_then(|layer| self.kernel(&layer));
                Ok(format!(
                    "{what}: kernel `{}`, {:.0} instructions by table `{}`",
                    kernel.map_or("none", KernelId::name),
                    cost.instructions.unwrap_or(0.0),
                    model.table().name
                ))
            }
            Target::Ne16(_) => {
                let terms = cost.terms.iter().map(|(name, cycles)| format!("{cycles:.0} {name}"));
                let cycles = cost.cycles.map_or(0.0, |c| c.typical);
                let terms = terms.collect::<Vec<_>>().join(" + ");
                Ok(format!("{what}: {cycles:.0} cycles = {terms}"))
            }
            Target::Max78000(_) => Ok(format!(
                "{what}: a pixel of an output channel a cycle for every 64 input channels, {:.0} \
                 cycles, whatever the weights' width",
                cost.cycles.map_or(0.0, |c| c.typical)
            )),
            Target::EthosU55(_) => Ok(format!(
                "{what}: the slower of the engine, of flash ({} bytes) and of SRAM ({} bytes)",
                cost.bytes.get("flash").unwrap_or(&0),
                cost.bytes.get("sram").unwrap_or(&0)
            )),
            Target::Tiled(model) => Ok(match (Problem::of(work), &cost.mapping) {
                (Some(problem), Some(mapping)) => {
                    match mapping.evaluate(&problem, &model.array, &model.prices) {
                        Some(found) => format!("{what}: {}", mapping.explain(&problem, &found)),
                        None => what,
                    }
                }
                _ => format!("{what}: streamed through, no tiles"),
            }),
        }
    }
}

/// Cost of a block and of its layers.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct BlockCost {
    pub total: Cost,
    /// Every layer by itself, from memory to memory.
    pub layers: Vec<(Workload, Cost)>,
    /// In words, which layers are computed together, where that is better.
    pub fused: Option<String>,
}

impl BlockCost {
    fn one_by_one(model: &dyn CostModel, works: &[Workload]) -> Result<BlockCost, ModelError> {
        let mut layers = Vec::new();
        for work in works {
            layers.push((*work, model.workload(work)?));
        }
        let total = layers.iter().map(|(_, cost)| cost.clone()).reduce(|a, b| a.plus(&b));
        Ok(BlockCost { total: total.unwrap_or_else(Cost::zero), layers, fused: None })
    }
}

impl CostModel for Target {
    fn layer(&self, layer: &LayerShape) -> Result<Cost, ModelError> {
        self.model().layer(layer)
    }
    fn workload(&self, work: &Workload) -> Result<Cost, ModelError> {
        self.model().workload(work)
    }
    fn network(&self, network: &Network) -> Result<NetworkCost, ModelError> {
        self.model().network(network)
    }
    fn kernel(&self, layer: &LayerShape) -> Option<KernelId> {
        self.model().kernel(layer)
    }
}

/// Costs of layers one by one, with their sum.
pub(crate) fn sum_of_layers(
    model: &dyn CostModel,
    works: &[(String, Workload)],
    kernel: &str,
) -> Result<NetworkCost, ModelError> {
    let mut layers = Vec::new();
    for (name, work) in works {
        layers.push(LayerCost::new(name, *work, kernel, model.workload(work)?));
    }
    // What no layer has, the sum does not have either.
    let total = layers.iter().map(|l| l.cost.clone()).reduce(|sum, cost| sum.plus(&cost));
    Ok(NetworkCost { total: total.unwrap_or_else(Cost::zero), layers })
}

/// An array with buffers whose best tiling is searched for every layer, once a cell.
#[derive(Clone, Debug)]
pub struct TiledModel {
    /// The description.
    pub array: Tiled,
    /// What things cost on it.
    pub prices: Prices,
    objective: Objective,
    memo: Arc<Mutex<HashMap<Problem, Option<Best>>>>,
}

impl TiledModel {
    /// The model of a description.
    pub fn new(array: Tiled, objective: Objective) -> Result<TiledModel, ModelError> {
        let fail = |reason: String| BoardError::field(&array.name, "buffer", reason);
        let prices = array.prices().map_err(fail)?;
        Ok(TiledModel { array, prices, objective, memo: Arc::default() })
    }

    /// The best mapping of a layer with weights; `None` where nothing fits.
    pub fn best(&self, problem: &Problem) -> Option<Best> {
        let lock = || self.memo.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().get(problem) {
            return found.clone();
        }
        let found = batch_tile::best(problem, &self.array, &self.prices, self.objective);
        lock().insert(*problem, found.clone());
        found
    }

    /// Layers whose mappings were searched.
    pub fn searched(&self) -> usize {
        self.memo.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Cost of a block: the sum of its layers, a depthwise layer and the pointwise one after it
    /// computed together where that is better.
    pub fn block(&self, works: &[Workload]) -> Result<BlockCost, ModelError> {
        let mut block = BlockCost::one_by_one(self, works)?;
        let mut parts = Vec::new();
        let mut next = 0;
        while let Some((work, cost)) = block.layers.get(next) {
            let pair = block.layers.get(next + 1).and_then(|(second, alone)| {
                let fused = self.fuse(work, second)?;
                let value = |c: &Cost| {
                    let cycles = c.cycles.map_or(f64::INFINITY, |c| c.typical);
                    self.objective.value(cycles, c.energy_pj.unwrap_or(f64::INFINITY)).0
                };
                let together = self.fused_cost(&fused, work, second);
                (value(&together) < value(&cost.plus(alone))).then_some((together, fused))
            });
            match pair {
                Some((together, fused)) => {
                    block.fused = Some(fused.explain());
                    parts.push(together);
                    next += 2;
                }
                None => {
                    parts.push(cost.clone());
                    next += 1;
                }
            }
        }
        if block.fused.is_some() {
            let total = parts.into_iter().reduce(|a, b| a.plus(&b));
            block.total = total.unwrap_or_else(Cost::zero);
        }
        Ok(block)
    }

    /// Costs of a network's layers, two that are computed together as one row.
    fn in_blocks(
        &self,
        network: &Network,
        works: &[(String, Workload)],
    ) -> Result<NetworkCost, ModelError> {
        let mut layers = Vec::new();
        let mut next = 0;
        while let Some((name, work)) = works.get(next) {
            let read = TensorId::output_of(next);
            let readers: Vec<usize> = network
                .layers
                .iter()
                .enumerate()
                .filter_map(|(index, layer)| layer.inputs.contains(&read).then_some(index))
                .collect();
            // What others read as well has to go to memory.
            let pair = works.get(next + 1).filter(|_| readers == [next + 1]);
            let block = pair.map(|(_, second)| self.block(&[*work, *second])).transpose()?;
            match (pair, block) {
                (Some((other, second)), Some(BlockCost { total, fused: Some(_), .. })) => {
                    let mut row = LayerCost::new(&format!("{name}+{other}"), *work, "fused", total);
                    row.spec = format!("{}+{}", row.spec, second.spec());
                    if second.widths != work.widths {
                        row.bits = format!("{}+{}", row.bits, second.widths);
                    }
                    layers.push(row);
                    next += 2;
                }
                _ => {
                    layers.push(LayerCost::new(name, *work, "tiled", self.workload(work)?));
                    next += 1;
                }
            }
        }
        let total = layers.iter().map(|l| l.cost.clone()).reduce(|sum, cost| sum.plus(&cost));
        Ok(NetworkCost { total: total.unwrap_or_else(Cost::zero), layers })
    }

    /// The best way to compute two layers together, if there is any.
    fn fuse(&self, first: &Workload, second: &Workload) -> Option<Fused> {
        let (a, b) = (Problem::of(first)?, Problem::of(second)?);
        let value = |f: &Fused| self.objective.value(f.cycles as f64, f.energy_pj).0;
        let ways = fused::all(&a, &b, &self.array, &self.prices).into_iter();
        ways.min_by(|a, b| value(a).total_cmp(&value(b)))
    }

    fn fused_cost(&self, fused: &Fused, first: &Workload, second: &Workload) -> Cost {
        let memory = fused.traffic_bits.iter().sum::<u64>() / 8;
        let levels = OPERANDS.iter().zip(fused.buffer_bits);
        let bytes = std::iter::once(("memory".to_owned(), memory))
            .chain(levels.map(|(name, bits)| ((*name).to_owned(), bits / 8)))
            .collect();
        Cost {
            weights_bytes: first.weight_bytes() + second.weight_bytes(),
            terms: terms(
                fused.compute_cycles,
                fused.exposed_memory_cycles,
                fused.fill_cycles,
                fused.drain_cycles,
            ),
            ..self.cost(fused.cycles as f64, fused.energy_pj, bytes)
        }
    }

    /// Additions and pools stream through the columns: bound by memory or by the columns.
    fn streamed(&self, work: &Workload) -> Cost {
        let [inputs, outputs] = work.activation_bytes();
        let bits = 8 * (inputs + outputs);
        let steps = work.output().iter().product::<u64>() * work.op().window().taps() as u64;
        let memory = bits.div_ceil(self.array.memory.bits_per_cycle);
        let cycles = memory.max(steps.div_ceil(self.array.array.columns)) as f64;
        let energy = bits as f64 * (self.array.memory.pj_per_bit + 2.0 * self.prices.buffer[1]);
        let bytes = [("memory".to_owned(), bits / 8), ("inputs".to_owned(), bits / 8)];
        self.cost(cycles, energy, bytes.into())
    }

    fn cost(&self, cycles: f64, energy_pj: f64, bytes: BTreeMap<String, u64>) -> Cost {
        Cost {
            instructions: None,
            cycles: Some(Interval::exact(cycles)),
            latency_s: Some(cycles / self.array.clock_hz),
            energy_pj: Some(energy_pj),
            bytes,
            area_mm2: Some(self.prices.area_mm2),
            ..Cost::zero()
        }
    }
}

/// Cycles by cause.
fn terms(compute: u64, exposed: u64, fill: u64, drain: u64) -> BTreeMap<String, f64> {
    [("compute", compute), ("exposed memory", exposed), ("fill", fill), ("drain", drain)]
        .map(|(term, cycles)| (term.to_owned(), cycles as f64))
        .into()
}

impl CostModel for TiledModel {
    fn layer(&self, layer: &LayerShape) -> Result<Cost, ModelError> {
        self.workload(&layer.into())
    }

    fn workload(&self, work: &Workload) -> Result<Cost, ModelError> {
        let Some(problem) = Problem::of(work) else { return Ok(self.streamed(work)) };
        let best = self.best(&problem).ok_or_else(|| {
            let reason = "not even its smallest tile fits the buffers";
            ModelError::unsupported(&self.array.name, work, reason)
        })?;
        let evaluation = best.evaluation;
        let memory = evaluation.traffic_bits.iter().sum::<u64>() / 8;
        let levels = OPERANDS.iter().zip(evaluation.buffer_bits);
        let bytes = std::iter::once(("memory".to_owned(), memory))
            .chain(levels.map(|(name, bits)| ((*name).to_owned(), bits / 8)))
            .collect();
        Ok(Cost {
            weights_bytes: work.weight_bytes(),
            mapping: Some(best.mapping),
            mappings_evaluated: best.mappings_evaluated,
            terms: terms(
                evaluation.compute_cycles,
                evaluation.exposed_memory_cycles,
                evaluation.fill_cycles,
                evaluation.drain_cycles,
            ),
            ..self.cost(evaluation.cycles as f64, evaluation.energy_pj, bytes)
        })
    }

    fn network(&self, network: &Network) -> Result<NetworkCost, ModelError> {
        sum_of_layers(self, &Workload::of(network, None), "tiled")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jaq_network::{LayerSpec, reference};
    use jaq_shared::format::{Bits, LayerBits};

    #[test]
    fn every_accelerator_prices_every_reference_network() {
        let mut seen = 0;
        for name in board::names(Some(Kind::Accelerator)) {
            let target = Target::load(name, Objective::Latency).unwrap_or_else(|e| panic!("{e}"));
            for reference in reference::NAMES {
                let network = reference::network(reference).unwrap();
                let cost = match target.network(&network) {
                    Ok(cost) => cost,
                    // What this device lacks is said, and by its model.
                    Err(ModelError::Unsupported { .. }) if name == "max78000" => continue,
                    Err(error) => panic!("{name}: {error}"),
                };
                let cycles = cost.total.cycles.unwrap().typical;
                let sum: f64 = cost.layers.iter().map(|l| l.cost.cycles.unwrap().typical).sum();
                assert!(cycles > 0.0 && (cycles / sum - 1.0).abs() < 1e-9, "{name} {reference}");
                seen += 1;
            }
        }
        assert!(seen >= 4);
    }

    #[test]
    fn the_winner_is_explained_and_memoized() {
        let target = Target::load("bitfusion", Objective::Latency).unwrap();
        let spec: LayerSpec = "conv3x3:16x16x32-32".parse().unwrap();
        let layer = spec.shape(LayerBits::uniform(Bits::B8, Bits::B8)).unwrap();
        let words = target.explain(&(&layer).into()).unwrap();
        for part in ["5505 cycles", "4608 compute", "weights", "tile", "2x2"] {
            assert!(words.contains(part), "{part}: {words}");
        }
        let Target::Tiled(model) = &target else { panic!("bitfusion is tiled") };
        assert_eq!(model.memo.lock().unwrap().len(), 1);
        let cost = target.layer(&layer).unwrap();
        assert_eq!(cost.cycles.unwrap().typical, 5505.0);
        assert_eq!(cost.bytes["memory"], 860_160 / 8);
        assert!(cost.area_mm2.unwrap() > 0.2 && cost.weights_bytes == 9216);
    }

    #[test]
    fn unknown_models_are_named() {
        let text = include_str!("../../../boards/bitfusion.toml");
        let folder = std::env::temp_dir().join(format!("jaq-cost-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("mine.toml");
        let text = text.replace("\"bitfusion\"", "\"mine\"").replace("\"tiled\"", "\"warp\"");
        std::fs::write(&path, text).unwrap();
        let error = Target::load(path.to_str().unwrap(), Objective::Latency).unwrap_err();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(error.to_string().contains("warp"), "{error}");
    }
}
