//! BatchTile: the best mapping of a layer on an array, over the whole mapping space at once.
//!
//! The space is (tile sizes x modes) x plans. A *plan* is what a loop order and the places of the
//! operands come down to: which loops each operand's block covers, and which loops make it come
//! again; orders that come down to the same are evaluated once. Tile sizes stand in lanes, as
//! structure of arrays: a plan is evaluated for `LANES` tile sizes by plain arithmetic on slices,
//! which the compiler turns into SIMD code. Lanes are sorted by a lower bound; the search ends when
//! no later lane can win. The winner is evaluated again by the closed form and must agree.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, OnceLock};

use serde::{Deserialize, Serialize};

use crate::accelerator::{Residency, TileSizes, Tiled};
use crate::tile::{
    Dim, Evaluation, Mapping, Mode, Prices, Problem, Tiles, final_bits, mac_energy, masks,
    operand_bits, output_traffic,
};

/// Tile sizes evaluated side by side.
const LANES: usize = 64;

/// What the best mapping is the best of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// Cycles.
    #[default]
    Latency,
    /// Picojoules.
    Energy,
    /// Energy times latency.
    Edp,
    /// Energy times latency times area.
    Edap,
}

impl std::str::FromStr for Objective {
    type Err = String;
    fn from_str(text: &str) -> Result<Objective, String> {
        match text {
            "latency" => Ok(Objective::Latency),
            "energy" => Ok(Objective::Energy),
            "edp" => Ok(Objective::Edp),
            "edap" => Ok(Objective::Edap),
            _ => Err(format!("`{text}` is no objective; latency, energy, edp or edap wanted")),
        }
    }
}

impl Objective {
    /// The value to minimize, and what decides between equals.
    fn value(self, cycles: f64, energy: f64) -> (f64, f64) {
        match self {
            Objective::Latency => (cycles, energy),
            Objective::Energy => (energy, cycles),
            // The area is that of the hardware, the same for all its mappings.
            Objective::Edp | Objective::Edap => (energy * cycles, cycles),
        }
    }
}

/// The best mapping of a layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Best {
    /// The mapping.
    pub mapping: Mapping,
    /// Its cost.
    pub evaluation: Evaluation,
    /// Mappings whose cost was computed; the others were excluded by a bound.
    pub mappings_evaluated: u64,
    /// Mappings of the space, those that do not fit the buffers among them.
    pub mappings: u64,
}

/// Which loops each operand's block covers, which make it come again, and which it would cover one
/// level further out (`usize::MAX` at the outermost).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Plan {
    covered: [usize; 3],
    again: [usize; 3],
    next: [usize; 3],
    double_buffered: bool,
    order: [usize; 4],
    level: [usize; 3],
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

/// The distinct plans of all orders and levels for operands that depend on the given loops.
fn plans(relevant: [usize; 3], space: &crate::accelerator::MappingSpace) -> Vec<Plan> {
    let mut seen = BTreeSet::new();
    let mut plans = Vec::new();
    let largest = space.residency == Residency::Largest;
    for order in orders() {
        let place = |operand: usize, level: usize| {
            let (covered, again) = masks(&order, level, relevant[operand], 0);
            let next = match level {
                4 => usize::MAX,
                _ if largest => {
                    masks(&order, level + 1, relevant[operand], 0).0 & relevant[operand]
                }
                _ => usize::MAX,
            };
            (covered & relevant[operand], again, next)
        };
        for code in 0..125 {
            let level = [code / 25, code / 5 % 5, code % 5];
            let places: [_; 3] = std::array::from_fn(|x| place(x, level[x]));
            if seen.insert(places) {
                for double_buffered in [true, false] {
                    if !double_buffered && space.double_buffered {
                        continue;
                    }
                    plans.push(Plan {
                        covered: places.map(|p| p.0),
                        again: places.map(|p| p.1),
                        next: places.map(|p| p.2),
                        double_buffered,
                        order: order.map(|d| d as usize),
                        level,
                    });
                }
            }
        }
    }
    plans
}

/// Plans depend on little: made once.
fn cached_plans(problem: &Problem, array: &Tiled) -> &'static [Plan] {
    type Key = ([usize; 3], bool, bool);
    static CACHE: OnceLock<Mutex<HashMap<Key, &'static [Plan]>>> = OnceLock::new();
    let space = &array.mapping;
    let key = (problem.relevant(), space.residency == Residency::Largest, space.double_buffered);
    let cache = CACHE.get_or_init(Mutex::default);
    let mut cache = cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Leaked on purpose: there are at most eight keys.
    cache.entry(key).or_insert_with(|| plans(key.0, space).leak())
}

/// Tile sizes along a loop.
pub(crate) fn sizes(size: u64, rule: TileSizes) -> Vec<u64> {
    match rule {
        TileSizes::All => {
            let mut all: Vec<u64> = (1..=size).map(|count| size.div_ceil(count)).collect();
            all.dedup();
            all.reverse();
            all
        }
        _ => {
            let powers = std::iter::successors(Some(1), |n| Some(n * 2));
            powers.take_while(|&n| n < size).chain([size]).collect()
        }
    }
}

/// Every combination of tile sizes and mode.
pub(crate) fn tilings(problem: &Problem, array: &Tiled) -> Vec<([u64; 4], Mode)> {
    let rule = array.mapping.tiles;
    let along: [Vec<u64>; 4] = std::array::from_fn(|d| sizes(problem.size[d], rule));
    let modes = Mode::of(array, problem);
    let mut all = Vec::new();
    for &oh in &along[0] {
        for &ow in &along[1] {
            // A side that is already whole counts as square with any larger one.
            let square = oh == ow || oh.min(ow) == problem.size[usize::from(ow < oh)];
            if rule == TileSizes::SquarePowersOfTwo && !square {
                continue;
            }
            for &oc in &along[2] {
                for &ic in &along[3] {
                    all.extend(modes.iter().map(|&mode| ([oh, ow, oc, ic], mode)));
                }
            }
        }
    }
    all
}

/// A tiling with what bounds its cost from below.
struct Candidate {
    tile: [u64; 4],
    mode: Mode,
    tiles: Tiles,
    bound: (f64, f64),
}

/// The array's constants as the lanes want them.
struct Context<'a> {
    array: &'a Tiled,
    bits: [u64; 3],
    accumulator: f64,
    final_bits: f64,
    initial: f64,
    width: f64,
    pipeline: f64,
    capacity: Vec<f64>,
    buffer_of: [usize; 3],
    /// Picojoules a bit of memory traffic of each operand, its buffer included.
    traffic_pj: [f64; 3],
}

impl Context<'_> {
    fn new<'a>(problem: &Problem, array: &'a Tiled, prices: &Prices) -> Context<'a> {
        Context {
            array,
            bits: operand_bits(problem, array),
            accumulator: f64::from(array.outputs.accumulator_bits),
            final_bits: final_bits(problem, array) as f64,
            initial: if array.outputs.initial_read { 1.0 } else { 0.0 },
            width: array.memory.bits_per_cycle as f64,
            pipeline: array.array.pipeline_cycles as f64,
            capacity: array.buffer.iter().map(|b| (b.bytes * 8) as f64).collect(),
            buffer_of: array.buffer_of(),
            traffic_pj: prices.buffer.map(|pj| pj + prices.memory),
        }
    }
}

/// Smallest integer of at least `x`, for `0 <= x < 2^51`: adding 2^52 rounds to the nearest, in
/// code that vectorizes on every x86-64 (rounding instructions came later).
#[inline(always)]
fn ceil(x: f64) -> f64 {
    const SHIFT: f64 = (1u64 << 52) as f64;
    let rounded = (x + SHIFT) - SHIFT;
    if rounded < x { rounded + 1.0 } else { rounded }
}

type Lane = [f64; LANES];

/// Tile sizes side by side. Blocks in bits by mask, trips by mask.
struct Lanes {
    block: [[Lane; 16]; 3],
    last: [Lane; 16],
    trips: [Lane; 16],
    compute: Lane,
    fixed_pj: Lane,
    valid: usize,
}

impl Lanes {
    fn new() -> Box<Lanes> {
        Box::new(Lanes {
            block: [[[0.0; LANES]; 16]; 3],
            last: [[0.0; LANES]; 16],
            trips: [[0.0; LANES]; 16],
            compute: [0.0; LANES],
            fixed_pj: [0.0; LANES],
            valid: 0,
        })
    }

    fn load(&mut self, chunk: &[Candidate], context: &Context, mac_pj: f64, prices: &Prices) {
        self.valid = chunk.len();
        for (lane, candidate) in chunk.iter().enumerate() {
            let tiles = &candidate.tiles;
            for mask in 0..16 {
                for operand in 0..3 {
                    let bits = tiles.block(operand, mask) * context.bits[operand];
                    self.block[operand][mask][lane] = bits as f64;
                }
                self.last[mask][lane] = tiles.last_output(mask) as f64 * context.final_bits;
                self.trips[mask][lane] = tiles.trips(mask) as f64;
            }
            self.compute[lane] = tiles.compute_cycles as f64;
            let array: f64 = (0..3).map(|x| tiles.array_bits[x] as f64 * prices.buffer[x]).sum();
            self.fixed_pj[lane] = array + mac_pj;
        }
    }

    /// Cycles and picojoules of one plan in every lane; infinite where it does not fit.
    fn evaluate(&self, plan: &Plan, context: &Context, cycles: &mut Lane, energy: &mut Lane) {
        let block: [&Lane; 3] = std::array::from_fn(|x| &self.block[x][plan.covered[x]]);
        let all: [&Lane; 3] = std::array::from_fn(|x| &self.block[x][15]);
        let again: [&Lane; 3] = std::array::from_fn(|x| &self.trips[plan.again[x]]);
        let last = &self.last[plan.covered[2]];
        let copies = if plan.double_buffered { 2.0 } else { 1.0 };
        let inverse = 1.0 / context.accumulator;
        for i in 0..LANES {
            let partial = all[2][i] * (again[2][i] - 1.0);
            let read = partial + all[2][i] * context.initial;
            let written = partial + all[2][i] * inverse * context.final_bits;
            let (weights, inputs) = (all[0][i] * again[0][i], all[1][i] * again[1][i]);
            let total = weights + inputs + read + written;
            let fill = block[0][i] + block[1][i] + block[2][i] * context.initial;
            let middle = ceil((total - fill - last[i]) / context.width);
            let exposed =
                if plan.double_buffered { (middle - self.compute[i]).max(0.0) } else { middle };
            cycles[i] = self.compute[i]
                + exposed
                + ceil(fill / context.width)
                + ceil(last[i] / context.width)
                + context.pipeline;
            energy[i] = self.fixed_pj[i]
                + weights * context.traffic_pj[0]
                + inputs * context.traffic_pj[1]
                + (read + written) * context.traffic_pj[2];
        }
        for (b, capacity) in context.capacity.iter().enumerate() {
            let held = |x: usize| if context.buffer_of[x] == b { 1.0 } else { 0.0 };
            let held = [held(0), held(1), held(2)];
            for i in 0..LANES {
                let used = held[0] * block[0][i] + held[1] * block[1][i] + held[2] * block[2][i];
                if used * copies > *capacity {
                    cycles[i] = f64::INFINITY;
                }
            }
        }
        for x in 0..3 {
            // The largest block is asked for, and this one could grow.
            if plan.next[x] != usize::MAX {
                let (next, capacity) =
                    (&self.block[x][plan.next[x]], context.capacity[context.buffer_of[x]]);
                for i in 0..LANES {
                    if next[i] * copies <= capacity {
                        cycles[i] = f64::INFINITY;
                    }
                }
            }
        }
    }
}

/// Tilings with their bounds, those that cannot fit left out.
fn candidates(
    problem: &Problem,
    context: &Context,
    prices: &Prices,
    objective: Objective,
) -> (Vec<Candidate>, u64) {
    let array = context.array;
    let copies = if array.mapping.double_buffered { 2 } else { 1 };
    let tilings = tilings(problem, array);
    let count = tilings.len() as u64;
    let mac = mac_energy(problem, array, prices);
    let mut kept: Vec<Candidate> = tilings
        .into_iter()
        .filter_map(|(tile, mode)| {
            let tiles = Tiles::new(problem, array, &tile, mode);
            let block: [u64; 3] =
                std::array::from_fn(|x| tiles.block(x, 0) * context.bits[x] * copies);
            if !array.fits(&block, false) {
                return None;
            }
            let (weights, inputs) =
                (tiles.block(0, 15) * context.bits[0], tiles.block(1, 15) * context.bits[1]);
            let (read, written) = output_traffic(problem, array, tiles.block(2, 15), 1);
            let traffic = (weights + inputs + read + written) as f64;
            let cycles = (tiles.compute_cycles as f64).max(traffic / context.width);
            let pj = |x: usize| tiles.array_bits[x] as f64 * prices.buffer[x];
            let energy = mac
                + (0..3).map(pj).sum::<f64>()
                + weights as f64 * context.traffic_pj[0]
                + inputs as f64 * context.traffic_pj[1]
                + (read + written) as f64 * context.traffic_pj[2];
            let bound = objective.value(cycles, energy);
            Some(Candidate { tile, mode, tiles, bound })
        })
        .collect();
    kept.sort_by(|a, b| a.bound.partial_cmp(&b.bound).unwrap_or(std::cmp::Ordering::Equal));
    (kept, count)
}

fn mapping(candidate: &Candidate, plan: &Plan) -> Mapping {
    Mapping {
        tile: candidate.tile,
        order: plan.order.map(|d| Dim::ALL[d]),
        level: plan.level,
        mode: candidate.mode,
        double_buffered: plan.double_buffered,
    }
}

/// The best mapping of `problem`, or `None` where not even single-element tiles fit the buffers.
pub fn best(
    problem: &Problem,
    array: &Tiled,
    prices: &Prices,
    objective: Objective,
) -> Option<Best> {
    let context = Context::new(problem, array, prices);
    let (kept, tilings) = candidates(problem, &context, prices, objective);
    let plans = cached_plans(problem, array);
    let mac = mac_energy(problem, array, prices);
    let mut lanes = Lanes::new();
    let (mut cycles, mut energy) = ([0.0; LANES], [0.0; LANES]);
    let mut winner: Option<((f64, f64), usize, usize)> = None;
    let mut evaluated = 0;
    for (c, chunk) in kept.chunks(LANES).enumerate() {
        if winner.is_some_and(|(value, _, _)| chunk[0].bound.0 > value.0) {
            break;
        }
        lanes.load(chunk, &context, mac, prices);
        evaluated += (chunk.len() * plans.len()) as u64;
        for (p, plan) in plans.iter().enumerate() {
            lanes.evaluate(plan, &context, &mut cycles, &mut energy);
            for i in 0..lanes.valid {
                if cycles[i] == f64::INFINITY {
                    continue;
                }
                let value = objective.value(cycles[i], energy[i]);
                if winner.is_none_or(|(best, _, _)| value < best) {
                    winner = Some((value, c * LANES + i, p));
                }
            }
        }
    }
    let (_, candidate, plan) = winner?;
    let mapping = mapping(&kept[candidate], &plans[plan]);
    let evaluation = mapping.evaluate(problem, array, prices)?;
    let mappings = tilings * plans.len() as u64;
    Some(Best { mapping, evaluation, mappings_evaluated: evaluated, mappings })
}

/// Mappings that no other beats in both cycles and energy, by rising cycles.
pub fn pareto(problem: &Problem, array: &Tiled, prices: &Prices) -> Vec<(Mapping, Evaluation)> {
    let context = Context::new(problem, array, prices);
    let (kept, _) = candidates(problem, &context, prices, Objective::Latency);
    let plans = cached_plans(problem, array);
    let mac = mac_energy(problem, array, prices);
    let mut lanes = Lanes::new();
    let (mut cycles, mut energy) = ([0.0; LANES], [0.0; LANES]);
    // Cycles and energy, both strictly monotone along the list.
    let mut front: Vec<(f64, f64, usize, usize)> = Vec::new();
    for (c, chunk) in kept.chunks(LANES).enumerate() {
        lanes.load(chunk, &context, mac, prices);
        for (p, plan) in plans.iter().enumerate() {
            lanes.evaluate(plan, &context, &mut cycles, &mut energy);
            for i in (0..lanes.valid).filter(|&i| cycles[i] < f64::INFINITY) {
                let (t, e) = (cycles[i], energy[i]);
                let at = front.partition_point(|f| f.0 <= t);
                if at > 0 && front[at - 1].1 <= e {
                    continue;
                }
                // Drops an equal in cycles and all that are slower and not cheaper.
                let start = front.partition_point(|f| f.0 < t);
                let end = start + front[start..].iter().take_while(|f| f.1 >= e).count();
                front.splice(start..end, [(t, e, c * LANES + i, p)]);
            }
        }
    }
    front
        .into_iter()
        .filter_map(|(_, _, candidate, plan)| {
            let mapping = mapping(&kept[candidate], &plans[plan]);
            mapping.evaluate(problem, array, prices).map(|evaluation| (mapping, evaluation))
        })
        .collect()
}
