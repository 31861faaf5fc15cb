//! One tiled execution of a layer on an array with buffers: the problem, the mapping, and what it
//! costs in closed form.
//!
//! A layer is four loops over tiles (output rows, output columns, output channels, input channels)
//! in some order, around a tile that the array computes. Each operand keeps a *block* in its buffer:
//! its tiles of the innermost `level` loops. A block stays while loops it does not depend on go
//! round, and is loaded again when they go round outside of a loop it depends on. Tiles are
//! transferred whole: overlapping input halos are loaded twice, unless the description keeps them.
//! Time: the first blocks are loaded, then memory and array work side by side (double buffering) or
//! in turn, then the last output block is stored. Must not know: how mappings are searched.

use jaq_shared::format::Op;
use serde::Serialize;

use crate::accelerator::{Dataflow, FinalBits, Precision, Tiled};
use crate::workload::Workload;

/// The loops over tiles, as indices and as bits of masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Dim {
    Oh,
    Ow,
    Oc,
    Ic,
}

impl Dim {
    /// All, in the order of every array here.
    pub const ALL: [Dim; 4] = [Dim::Oh, Dim::Ow, Dim::Oc, Dim::Ic];

    /// As a bit of a mask.
    pub const fn bit(self) -> usize {
        1 << self as usize
    }
}

/// Weights, inputs, outputs: indices of every array over operands.
pub const OPERANDS: [&str; 3] = ["weights", "inputs", "outputs"];

/// A layer as the array sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct Problem {
    /// Sizes by [`Dim`]; depthwise layers have one input channel.
    pub size: [u64; 4],
    pub kh: u64,
    pub kw: u64,
    pub stride: u64,
    pub depthwise: bool,
    pub weight_bits: u64,
    pub input_bits: u64,
    pub output_bits: u64,
}

impl Problem {
    /// Of a layer with weights; `None` for others.
    pub fn of(layer: &Workload) -> Option<Problem> {
        if !layer.op().has_weights() {
            return None;
        }
        let window = layer.op().window();
        let depthwise = matches!(layer.op(), Op::Depthwise(_));
        let [oh, ow, oc] = layer.output();
        let ic = if depthwise { 1 } else { layer.input()[2] };
        Some(Problem {
            size: [oh, ow, oc, ic],
            kh: window.kh.into(),
            kw: window.kw.into(),
            stride: window.stride.into(),
            depthwise,
            weight_bits: layer.widths.weight.into(),
            input_bits: layer.widths.input.into(),
            output_bits: layer.widths.output.into(),
        })
    }

    /// The loops each operand depends on, as masks.
    pub const fn relevant(&self) -> [usize; 3] {
        let (space, oc, ic) = (Dim::Oh.bit() | Dim::Ow.bit(), Dim::Oc.bit(), Dim::Ic.bit());
        let inputs = if self.depthwise { space | oc } else { space | ic };
        [oc | ic, inputs, space | oc]
    }

    /// Multiply-accumulates.
    pub fn macs(&self) -> u64 {
        self.size.iter().product::<u64>() * self.kh * self.kw
    }
}

/// Filters that a processing element keeps for one row of inputs: 16 in every layer of Chen et
/// al., Eyeriss, JSSC 2017, table of mapping parameters.
const ROW_FILTERS: u64 = 16;

/// A width of operands at which the array is operated; at least that of the operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[allow(missing_docs)]
pub struct Mode {
    pub weight: u64,
    pub input: u64,
}

impl Mode {
    /// Every mode that can run the problem, the narrowest first. Operands no wider than the array
    /// are never operated wider than it: that takes more cycles for nothing.
    pub fn of(array: &Tiled, problem: &Problem) -> Vec<Mode> {
        let native = u64::from(array.array.operand_bits);
        let widths = |bits: u64| -> Vec<u64> {
            let useful = |w: u64| w >= bits && (w <= native || bits > native);
            match array.array.precision {
                Precision::Fixed => vec![bits],
                Precision::Fusion => [2, 4, 8, 16].into_iter().filter(|&w| useful(w)).collect(),
            }
        };
        let mut modes = Vec::new();
        for weight in widths(problem.weight_bits) {
            modes.extend(widths(problem.input_bits).iter().map(|&input| Mode { weight, input }));
        }
        modes
    }

    /// Products a row makes in a cycle, and cycles an operand that is wider than the array takes.
    pub(crate) fn rate(self, array: &Tiled) -> (u64, u64) {
        let native = u64::from(array.array.operand_bits);
        let slow = self.weight.div_ceil(native) * self.input.div_ceil(native);
        match array.array.precision {
            Precision::Fixed => (1, slow),
            Precision::Fusion => {
                ((native / self.weight).max(1) * (native / self.input).max(1), slow)
            }
        }
    }
}

/// A tiling with its loop order and the place of every operand.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Mapping {
    /// Tile sizes by [`Dim`].
    pub tile: [u64; 4],
    /// Loops from the outermost to the innermost.
    pub order: [Dim; 4],
    /// How many of the innermost loops each operand's block covers.
    pub level: [usize; 3],
    /// Widths the array is operated at.
    pub mode: Mode,
    /// Whether memory works while the array does.
    pub double_buffered: bool,
}

/// What a mapping costs. Sizes in bits, times in cycles.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Evaluation {
    pub cycles: u64,
    pub compute_cycles: u64,
    pub fill_cycles: u64,
    pub drain_cycles: u64,
    pub exposed_memory_cycles: u64,
    pub energy_pj: f64,
    /// Memory traffic of weights, inputs, outputs read, outputs written.
    pub traffic_bits: [u64; 4],
    /// Reads and writes of the three buffers.
    pub buffer_bits: [u64; 3],
}

/// Extents of one operand along one loop: of the first tile, of the last, and of all together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub first: u64,
    pub last: u64,
    pub all: u64,
}

/// Tiles of `tile` along a loop of `size`, measured by `measure`.
pub(crate) fn extent(size: u64, tile: u64, measure: impl Fn(u64) -> u64) -> Extent {
    let count = size.div_ceil(tile);
    let last = measure(size - (count - 1) * tile);
    let first = measure(tile.min(size));
    Extent { first, last, all: (count - 1) * first + last }
}

/// One loop cut into tiles, and what operands and array see of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Along {
    pub tile: u64,
    pub count: u64,
    /// Of weights, inputs, outputs, in elements; one where the operand does not depend on the loop.
    pub extent: [Extent; 3],
    /// Steps of the array.
    pub steps: u64,
}

impl Along {
    pub(crate) fn new(p: &Problem, array: &Tiled, dim: Dim, tile: u64, mode: Mode) -> Along {
        let size = p.size[dim as usize];
        let of = |measure: &dyn Fn(u64) -> u64| extent(size, tile, measure);
        let one = Extent { first: 1, last: 1, all: 1 };
        let same = of(&|n| n);
        let rows = array.array.rows * mode.rate(array).0;
        // Composed rows take whole vectors of weights.
        let padded = array.array.precision == Precision::Fusion && !p.depthwise;
        let vectors = |ic: u64| match padded {
            true => (p.kh * p.kw * ic).next_multiple_of(rows),
            false => p.kh * p.kw * ic,
        };
        let if_depthwise = |then: Extent, otherwise: Extent| match p.depthwise {
            true => then,
            false => otherwise,
        };
        // How many of a loop the array takes at once.
        let [tall, deep, fed] = match array.array.dataflow {
            Dataflow::WeightStationary | Dataflow::OutputStationary => {
                [u64::MAX, array.array.columns, rows]
            }
            Dataflow::RowStationary => {
                [array.array.columns, (array.array.rows / p.kh).max(1), mode.rate(array).0]
            }
        };
        let (extent, at_once) = match dim {
            Dim::Oh => ([one, of(&|n| (n - 1) * p.stride + p.kh), same], tall),
            Dim::Ow => ([one, of(&|n| (n - 1) * p.stride + p.kw), same], u64::MAX),
            Dim::Oc => ([same, if_depthwise(same, one), same], deep),
            Dim::Ic => ([of(&vectors), if_depthwise(one, same), one], fed),
        };
        let steps = of(&|n| n.div_ceil(at_once)).all;
        Along { tile, count: size.div_ceil(tile), extent, steps: steps.max(1) }
    }
}

/// Cycles of the array for all tiles.
#[inline]
pub(crate) fn compute_cycles(p: &Problem, array: &Tiled, mode: Mode, along: &[&Along; 4]) -> u64 {
    let [oh, _, oc, ic] = along.map(|a| a.steps);
    let (_, slow) = mode.rate(array);
    let each = match array.array.dataflow {
        Dataflow::WeightStationary | Dataflow::OutputStationary => {
            p.kh * p.kw * p.size[0] * p.size[1]
        }
        Dataflow::RowStationary => oh * p.kh.div_ceil(array.array.rows) * p.size[1] * p.kw,
    };
    oc * ic * each * slow
}

/// Whether tiles follow one another by rows alone, and the rows that two share are kept.
pub(crate) fn keeps_halo(p: &Problem, array: &Tiled, count: &[u64]) -> bool {
    let by_rows = count[1] == 1 && count[3] == 1 && (count[2] == 1 || !p.depthwise);
    array.mapping.keep_halo && by_rows && p.kh > p.stride
}

/// What tile sizes alone decide about a problem on an array.
#[derive(Clone, Debug)]
pub(crate) struct Tiles {
    /// Trip count of every loop.
    pub count: [u64; 4],
    /// `extent[operand][dim]`, in elements.
    pub extent: [[Extent; 4]; 3],
    pub compute_cycles: u64,
    /// Bits that the array reads or writes in the buffers, beside memory traffic.
    pub array_bits: [u64; 3],
}

impl Tiles {
    pub(crate) fn new(problem: &Problem, array: &Tiled, tile: &[u64; 4], mode: Mode) -> Tiles {
        let along = Dim::ALL.map(|d| Along::new(problem, array, d, tile[d as usize], mode));
        Tiles::of(problem, array, mode, along.each_ref())
    }

    #[inline]
    pub(crate) fn of(p: &Problem, array: &Tiled, mode: Mode, along: [&Along; 4]) -> Tiles {
        let (factor, _) = mode.rate(array);
        let count = along.map(|a| a.count);
        let mut extent: [[Extent; 4]; 3] = std::array::from_fn(|x| along.map(|a| a.extent[x]));
        if keeps_halo(p, array, &count) {
            extent[1][0].all = (p.size[0] - 1) * p.stride + p.kh;
        }
        let all = |x: usize| extent[x].iter().map(|e| e.all).product::<u64>();
        let [oh, _, oc, ic] = along.map(|a| a.steps);
        let rows = array.array.rows * factor;
        let columns = array.array.columns.min(p.size[2]);
        let accumulator = u64::from(array.outputs.accumulator_bits);
        let finished = final_bits(p, array);
        // Sums that leave the array between two visits come back.
        let sums = all(2) * (2 * (count[3] - 1) * accumulator + finished);
        let array_bits = match array.array.dataflow {
            // Weights sit in the array for all pixels of a tile; partial sums pass through.
            Dataflow::WeightStationary => {
                let steps = oc * ic * p.kh * p.kw * p.size[0] * p.size[1];
                let vector = rows.min(p.size[3] * p.kh * p.kw) * p.input_bits;
                let weights = all(0) * count[0] * count[1] * p.weight_bits;
                [weights, steps * vector, 2 * steps * columns * accumulator]
            }
            // Sums sit in the array for all products of a tile; weights pass through.
            Dataflow::OutputStationary => {
                let steps = oc * ic * p.kh * p.kw * p.size[0] * p.size[1];
                let vector = rows.min(p.size[3] * p.kh * p.kw);
                let weights = steps * vector * columns * p.weight_bits;
                [weights, steps * vector * p.input_bits, sums]
            }
            // A row of weights stays in a processing element while a row of inputs passes; sums
            // go up the column. An element keeps several filters for a row of inputs.
            Dataflow::RowStationary => {
                let inputs = all(1) * oc.div_ceil(ROW_FILTERS) * p.input_bits;
                [all(0) * oh * p.weight_bits, inputs, sums]
            }
        };
        let compute_cycles = compute_cycles(p, array, mode, &along);
        Tiles { count, extent, compute_cycles, array_bits }
    }

    /// Elements of an operand's first block that covers the loops of `mask`.
    pub(crate) fn block(&self, operand: usize, mask: usize) -> u64 {
        let of = |(d, e): (usize, &Extent)| if mask >> d & 1 == 1 { e.all } else { e.first };
        self.extent[operand].iter().enumerate().map(of).product()
    }

    /// Elements of the last output block.
    pub(crate) fn last_output(&self, mask: usize) -> u64 {
        let of = |(d, e): (usize, &Extent)| if mask >> d & 1 == 1 { e.all } else { e.last };
        self.extent[2].iter().enumerate().map(of).product()
    }

    /// Trips of the loops of `mask` together.
    pub(crate) fn trips(&self, mask: usize) -> u64 {
        (0..4).filter(|d| mask >> d & 1 == 1).map(|d| self.count[d]).product()
    }
}

/// Loops that a block of `level` covers, and those that make it come again, as masks; `skip` are
/// loops of one trip, which change nothing.
pub(crate) fn masks(
    order: &[Dim; 4],
    level: usize,
    relevant: usize,
    skip: usize,
) -> (usize, usize) {
    let (outer, inner) = order.split_at(4 - level);
    let covered = inner.iter().map(|d| d.bit()).sum();
    let changing = |d: &Dim| d.bit() & relevant & !skip != 0;
    let until = outer.iter().rposition(changing).map_or(0, |at| at + 1);
    let again = outer[..until].iter().map(|d| d.bit()).filter(|b| b & relevant == 0).sum();
    (covered, again)
}

/// Prices of an array, from its description and the SRAM sweep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    /// Picojoules a bit read from memory.
    pub memory: f64,
    /// Picojoules a bit written to memory.
    pub memory_written: f64,
    /// Picojoules a bit of each buffer, read and write alike (their mean).
    pub buffer: [f64; 3],
    /// Picojoules of a product of two operands of the native width with its addition.
    pub mac: f64,
    /// Area in square millimetres.
    pub area_mm2: f64,
}

impl Prices {
    /// Picojoules a bit of weights, inputs, outputs read, outputs written that cross the memory's
    /// port and enter or leave their buffer.
    pub(crate) fn traffic(&self) -> [f64; 4] {
        let [weights, inputs, outputs] = self.buffer;
        let [read, written] = [self.memory, self.memory_written];
        [read + weights, read + inputs, read + outputs, written + outputs]
    }
}

impl Mapping {
    /// What the mapping costs, or `None` where its blocks do not fit the buffers.
    pub fn evaluate(
        &self,
        problem: &Problem,
        array: &Tiled,
        prices: &Prices,
    ) -> Option<Evaluation> {
        let tiles = Tiles::new(problem, array, &self.tile, self.mode);
        let skip =
            Dim::ALL.iter().filter(|d| tiles.count[**d as usize] == 1).map(|d| d.bit()).sum();
        let relevant = problem.relevant();
        let bits = operand_bits(problem, array);
        let (mut block, mut again, mut covered) = ([0; 3], [0; 3], [0; 3]);
        for operand in 0..3 {
            let (cover, repeat) = masks(&self.order, self.level[operand], relevant[operand], skip);
            covered[operand] = cover;
            block[operand] = tiles.block(operand, cover) * bits[operand];
            again[operand] = tiles.trips(repeat);
        }
        if !array.fits(&block, self.double_buffered) {
            return None;
        }
        let all = |operand: usize| tiles.block(operand, 15) * bits[operand];
        let last = tiles.last_output(covered[2]) * final_bits(problem, array);
        let (read, written) = output_traffic(problem, array, tiles.block(2, 15), again[2]);
        let traffic = [all(0) * again[0], all(1) * again[1], read, written];
        let first_outputs = if array.outputs.initial_read { block[2] } else { 0 };
        let fill = block[0] + block[1] + first_outputs;
        let width = array.memory.bits_per_cycle;
        let cycles = |bits: u64| bits.div_ceil(width);
        let total: u64 = traffic.iter().sum();
        let middle = cycles(total - fill - last);
        let exposed = match self.double_buffered {
            true => middle.saturating_sub(tiles.compute_cycles),
            false => middle,
        };
        let buffer_bits = [
            traffic[0] + tiles.array_bits[0],
            traffic[1] + tiles.array_bits[1],
            read + written + tiles.array_bits[2],
        ];
        Some(Evaluation {
            cycles: tiles.compute_cycles
                + exposed
                + cycles(fill)
                + cycles(last)
                + array.array.pipeline_cycles,
            compute_cycles: tiles.compute_cycles,
            fill_cycles: cycles(fill) + array.array.pipeline_cycles,
            drain_cycles: cycles(last),
            exposed_memory_cycles: exposed,
            energy_pj: mac_energy(problem, array, prices)
                + (0..4).map(|i| traffic[i] as f64 * prices.traffic()[i]).sum::<f64>()
                + (0..3).map(|x| tiles.array_bits[x] as f64 * prices.buffer[x]).sum::<f64>(),
            traffic_bits: traffic,
            buffer_bits,
        })
    }
}

/// Width of each operand in its buffer.
pub(crate) fn operand_bits(problem: &Problem, array: &Tiled) -> [u64; 3] {
    [problem.weight_bits, problem.input_bits, u64::from(array.outputs.accumulator_bits)]
}

/// Width of finished outputs in memory.
pub(crate) fn final_bits(problem: &Problem, array: &Tiled) -> u64 {
    match array.outputs.r#final {
        FinalBits::Accumulator => u64::from(array.outputs.accumulator_bits),
        FinalBits::Layer => problem.output_bits,
    }
}

/// Bits of outputs read and written where every block is visited `visits` times.
pub(crate) fn output_traffic(
    problem: &Problem,
    array: &Tiled,
    elements: u64,
    visits: u64,
) -> (u64, u64) {
    let accumulator = u64::from(array.outputs.accumulator_bits);
    let partial = elements * (visits - 1) * accumulator;
    let first = if array.outputs.initial_read { elements * accumulator } else { 0 };
    (partial + first, partial + elements * final_bits(problem, array))
}

/// Energy of the products: of the native width's price, by the product of the operands' widths.
pub(crate) fn mac_energy(problem: &Problem, array: &Tiled, prices: &Prices) -> f64 {
    let native = f64::from(array.array.operand_bits);
    let share = match array.array.precision {
        Precision::Fusion => (problem.weight_bits * problem.input_bits) as f64 / (native * native),
        Precision::Fixed => 1.0,
    };
    problem.macs() as f64 * prices.mac * share
}

impl Mapping {
    /// The mapping and its cost in words.
    pub fn explain(&self, problem: &Problem, found: &Evaluation) -> String {
        let [oh, ow, oc, ic] = self.tile;
        let trips = |d: Dim| problem.size[d as usize].div_ceil(self.tile[d as usize]);
        let loops: Vec<String> = self
            .order
            .iter()
            .filter(|d| trips(**d) > 1)
            .map(|d| format!("{} x{}", format!("{d:?}").to_lowercase(), trips(*d)))
            .collect();
        let loops = if loops.is_empty() { "none".to_owned() } else { loops.join(", then ") };
        let memory = found.traffic_bits.iter().sum::<u64>() / 8;
        let bound = if found.exposed_memory_cycles == 0 {
            "the array is the bottleneck, memory hides behind it".to_owned()
        } else {
            format!("memory is the bottleneck, {} cycles of it show", found.exposed_memory_cycles)
        };
        let [weights, inputs, read, written] = found.traffic_bits.map(|bits| bits / 8);
        format!(
            "{} cycles = {} compute + {} exposed memory + {} fill + {} drain; tile {oh}x{ow}x{oc} \
             of outputs from {ic} input channels, loops from outside: {loops}; array operated at \
             W{}A{}, {} buffered; {memory} bytes from and to memory: weights {weights}, inputs \
             {inputs}, outputs read {read}, written {written}; {bound}",
            found.cycles,
            found.compute_cycles,
            found.exposed_memory_cycles,
            found.fill_cycles,
            found.drain_cycles,
            self.mode.weight,
            self.mode.input,
            if self.double_buffered { "double" } else { "single" },
        )
    }
}
