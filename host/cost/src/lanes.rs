//! Tile sizes side by side, as structure of arrays: one plan is evaluated for [`LANES`] tilings by
//! plain arithmetic on slices, which the compiler turns into SIMD code. All figures are integers
//! below 2^51 in `f64`, so that sums and products are exact.
//!
//! Must not know: which tilings there are, what is searched for.

use crate::accelerator::{MappingSpace, Residency, Tiled};
use crate::tile::{
    Dim, Mapping, Mode, Prices, Problem, Tiles, final_bits, mac_energy, masks, operand_bits,
};

/// Tilings evaluated at once.
pub(crate) const LANES: usize = 16;

/// One figure of every tiling.
pub(crate) type Lane = [f64; LANES];

/// A block that an operand may keep: the loops it covers, those that make it come again, and how
/// many of the innermost loops that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    covered: usize,
    again: usize,
    pub level: usize,
}

/// What a loop order and the places of the operands come down to.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub order: [Dim; 4],
    /// The blocks an operand may keep, growing: the largest that fits is kept.
    pub places: [Vec<Place>; 3],
    pub double_buffered: bool,
}

/// All loop orders.
pub(crate) fn orders() -> Vec<[Dim; 4]> {
    let mut all = Vec::new();
    for a in Dim::ALL {
        for b in Dim::ALL.into_iter().filter(|&b| b != a) {
            for c in Dim::ALL.into_iter().filter(|&c| c != a && c != b) {
                let d = Dim::ALL.into_iter().find(|&d| d != a && d != b && d != c);
                all.extend(d.map(|d| [a, b, c, d]));
            }
        }
    }
    all
}

/// The plans that differ where only the loops of `active` go round more than once, for operands
/// that depend on the given loops.
pub(crate) fn plans(relevant: [usize; 3], active: usize, space: &MappingSpace) -> Vec<Plan> {
    let mut seen = std::collections::HashSet::new();
    let mut plans = Vec::new();
    for order in orders() {
        // Blocks of rising level; of those that are the same, the first.
        let places: [Vec<Place>; 3] = std::array::from_fn(|x| {
            let mut places: Vec<Place> = Vec::new();
            for level in 0..=4 {
                let (covered, again) = masks(&order, level, relevant[x], !active);
                let (covered, again) = (covered & relevant[x] & active, again & active);
                let new = places.last().is_none_or(|last| match space.residency {
                    Residency::Largest => last.covered != covered,
                    Residency::Free => last.again != again,
                });
                if new {
                    places.push(Place { covered, again, level });
                }
            }
            places
        });
        let mut add = |places: [Vec<Place>; 3]| {
            let meaning = places
                .clone()
                .map(|p| p.iter().map(|place| (place.covered, place.again)).collect::<Vec<_>>());
            if !seen.insert(meaning) {
                return;
            }
            for double_buffered in [true, false] {
                if double_buffered || !space.double_buffered {
                    plans.push(Plan { order, places: places.clone(), double_buffered });
                }
            }
        };
        match space.residency {
            Residency::Largest => add(places),
            Residency::Free => {
                let [weights, inputs, outputs] = &places;
                for &w in weights {
                    for &i in inputs {
                        for &o in outputs {
                            add([vec![w], vec![i], vec![o]]);
                        }
                    }
                }
            }
        }
    }
    plans
}

impl Plan {
    /// The mapping that the plan is for a tiling: with the places that its blocks take.
    pub(crate) fn mapping(
        &self,
        tile: [u64; 4],
        mode: Mode,
        tiles: &Tiles,
        c: &Context,
    ) -> Mapping {
        let share = if self.double_buffered { 0.5 } else { 1.0 };
        let level = std::array::from_fn(|x| {
            let block = |place: &Place| (tiles.block(x, place.covered) * c.bits[x]) as f64;
            let places = &self.places[x];
            let fits = places.iter().rev().find(|p| block(p) <= c.capacity[x] * share);
            fits.unwrap_or(&places[0]).level
        });
        let double_buffered = self.double_buffered;
        Mapping { tile, order: self.order, level, mode, double_buffered }
    }
}

/// Constants of a problem on an array as the lanes want them.
pub(crate) struct Context<'a> {
    pub array: &'a Tiled,
    pub bits: [u64; 3],
    pub final_bits: f64,
    pub initial: f64,
    pub width: f64,
    pub pipeline: f64,
    capacity: [f64; 3],
    buffer_of: [usize; 3],
    shared: bool,
    /// Picojoules a bit of weights, inputs, outputs read, outputs written; buffer included.
    pub traffic_pj: [f64; 4],
    /// Picojoules a bit that the array moves in the buffers.
    pub buffer_pj: [f64; 3],
    /// Picojoules of all products.
    pub mac_pj: f64,
}

impl Context<'_> {
    pub(crate) fn new<'a>(problem: &Problem, array: &'a Tiled, prices: &Prices) -> Context<'a> {
        let buffer_of = array.buffer_of();
        Context {
            array,
            bits: operand_bits(problem, array),
            final_bits: final_bits(problem, array) as f64,
            initial: if array.outputs.initial_read { 1.0 } else { 0.0 },
            width: array.memory.bits_per_cycle as f64,
            pipeline: array.array.pipeline_cycles as f64,
            capacity: buffer_of.map(|b| (array.buffer[b].bytes * 8) as f64),
            buffer_of,
            shared: array.buffer.len() < 3,
            traffic_pj: prices.traffic(),
            buffer_pj: prices.buffer,
            mac_pj: mac_energy(problem, array, prices),
        }
    }
}

/// Smallest integer of at least `x`, for `0 <= x < 2^51`: adding 2^52 rounds to the nearest, in
/// code that vectorizes on every x86-64 (rounding instructions came later).
#[inline(always)]
pub(crate) fn ceil(x: f64) -> f64 {
    const SHIFT: f64 = (1u64 << 52) as f64;
    let rounded = (x + SHIFT) - SHIFT;
    rounded + if rounded < x { 1.0 } else { 0.0 }
}

/// Tilings side by side. Blocks in bits by mask, trips by mask.
pub(crate) struct Lanes {
    block: [[Lane; 16]; 3],
    last: [Lane; 16],
    trips: [Lane; 16],
    compute: Lane,
    fixed_pj: Lane,
}

impl Lanes {
    pub(crate) fn new() -> Box<Lanes> {
        Box::new(Lanes {
            block: [[[0.0; LANES]; 16]; 3],
            last: [[0.0; LANES]; 16],
            trips: [[0.0; LANES]; 16],
            compute: [0.0; LANES],
            fixed_pj: [0.0; LANES],
        })
    }

    /// Puts a tiling into a lane.
    pub(crate) fn load(&mut self, lane: usize, tiles: &Tiles, context: &Context) {
        let products = |table: &mut [Lane; 16], scale: f64, inner: [u64; 4], outer: [u64; 4]| {
            // Every subset of loops from the two halves: four products and sixteen of those.
            let half = |a: usize, b: usize| {
                [outer[a] * outer[b], inner[a] * outer[b], outer[a] * inner[b], inner[a] * inner[b]]
                    .map(|product| product as f64)
            };
            let (low, high) = (half(0, 1), half(2, 3));
            for (mask, row) in table.iter_mut().enumerate() {
                row[lane] = low[mask & 3] * high[mask >> 2] * scale;
            }
        };
        for x in 0..3 {
            let extent = &tiles.extent[x];
            let (all, first) = (extent.map(|e| e.all), extent.map(|e| e.first));
            products(&mut self.block[x], context.bits[x] as f64, all, first);
        }
        let outputs = &tiles.extent[2];
        let (all, last) = (outputs.map(|e| e.all), outputs.map(|e| e.last));
        products(&mut self.last, context.final_bits, all, last);
        products(&mut self.trips, 1.0, tiles.count, [1; 4]);
        self.compute[lane] = tiles.compute_cycles as f64;
        let array = |x: usize| tiles.array_bits[x] as f64 * context.buffer_pj[x];
        self.fixed_pj[lane] = array(0) + array(1) + array(2) + context.mac_pj;
    }

    /// The block an operand keeps in every lane, how often it comes, and the last one of outputs.
    #[inline(always)]
    fn kept(&self, x: usize, places: &[Place], limit: f64) -> (Lane, Lane, Lane) {
        let (mut block, mut again) =
            (self.block[x][places[0].covered], self.trips[places[0].again]);
        let mut last = self.last[places[0].covered];
        for place in &places[1..] {
            let (wider, fewer) = (&self.block[x][place.covered], &self.trips[place.again]);
            let wider_last = &self.last[place.covered];
            for i in 0..LANES {
                let fits = wider[i] <= limit;
                block[i] = if fits { wider[i] } else { block[i] };
                again[i] = if fits { fewer[i] } else { again[i] };
                if x == 2 {
                    last[i] = if fits { wider_last[i] } else { last[i] };
                }
            }
        }
        (block, again, last)
    }

    /// Cycles and picojoules of one plan in every lane; infinite cycles where it does not fit.
    pub(crate) fn evaluate(&self, plan: &Plan, c: &Context, cycles: &mut Lane, energy: &mut Lane) {
        let share = if plan.double_buffered { 0.5 } else { 1.0 };
        let limit = c.capacity.map(|bits| bits * share);
        let (weights, weights_again, _) = self.kept(0, &plan.places[0], limit[0]);
        let (inputs, inputs_again, _) = self.kept(1, &plan.places[1], limit[1]);
        let (outputs, outputs_again, last) = self.kept(2, &plan.places[2], limit[2]);
        let [all_weights, all_inputs, all_outputs] = [0, 1, 2].map(|x| &self.block[x][15]);
        let finished = &self.last[15];
        let double = plan.double_buffered;
        for i in 0..LANES {
            let w = all_weights[i] * weights_again[i];
            let a = all_inputs[i] * inputs_again[i];
            let partial = all_outputs[i] * (outputs_again[i] - 1.0);
            let read = partial + all_outputs[i] * c.initial;
            let written = partial + finished[i];
            let fill = weights[i] + inputs[i] + outputs[i] * c.initial;
            let middle = ceil((w + a + read + written - fill - last[i]) / c.width);
            let exposed = if double { (middle - self.compute[i]).max(0.0) } else { middle };
            let ends = ceil(fill / c.width) + ceil(last[i] / c.width) + c.pipeline;
            cycles[i] = self.compute[i] + exposed + ends;
            energy[i] = self.fixed_pj[i]
                + w * c.traffic_pj[0]
                + a * c.traffic_pj[1]
                + read * c.traffic_pj[2]
                + written * c.traffic_pj[3];
        }
        if c.shared {
            for (x, &limit) in limit.iter().enumerate() {
                let with = |y: usize| if c.buffer_of[y] == c.buffer_of[x] { 1.0 } else { 0.0 };
                let (w, a, o) = (with(0), with(1), with(2));
                for i in 0..LANES {
                    let used = w * weights[i] + a * inputs[i] + o * outputs[i];
                    cycles[i] = if used <= limit { cycles[i] } else { f64::INFINITY };
                }
            }
        } else {
            for i in 0..LANES {
                let fits =
                    (weights[i] <= limit[0]) & (inputs[i] <= limit[1]) & (outputs[i] <= limit[2]);
                cycles[i] = if fits { cycles[i] } else { f64::INFINITY };
            }
        }
    }
}
