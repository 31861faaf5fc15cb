//! BatchTile: the best mapping of a layer on an array, over the whole mapping space at once.
//!
//! The space is (tile sizes x modes) x plans. A *plan* is what a loop order and the places of the
//! operands come down to: which loops each operand's block covers, and which loops make it come
//! again; orders that come down to the same are evaluated once. Tilings stand side by side in
//! `lanes`. They are sorted by a lower bound of their cost; the search ends when no later
//! one can win. The winner is evaluated again by the closed form.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use crate::accelerator::{Residency, TileSizes, Tiled};
use crate::lanes::{Context, LANES, Lanes, Plan, ceil, plans};
use crate::tile::{
    Along, Dim, Evaluation, Extent, Mapping, Mode, Prices, Problem, Tiles, compute_cycles,
    keeps_halo,
};

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
    pub(crate) fn value(self, cycles: f64, energy: f64) -> (f64, f64) {
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

/// The plans of each set of loops that go round more than once.
type Plans = [Vec<Plan>; 16];

/// Plans depend on little: made once.
fn cached_plans(problem: &Problem, array: &Tiled) -> Arc<Plans> {
    type Key = ([usize; 3], bool, bool);
    static CACHE: OnceLock<Mutex<HashMap<Key, Arc<Plans>>>> = OnceLock::new();
    let space = &array.mapping;
    let relevant = problem.relevant();
    let key = (relevant, space.residency == Residency::Largest, space.double_buffered);
    let cache = CACHE.get_or_init(Mutex::default);
    let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
    let make = || Arc::new(std::array::from_fn(|active| plans(relevant, active, space)));
    cache.entry(key).or_insert_with(make).clone()
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

/// The tile sizes of a problem along every loop; those of input channels depend on the mode.
struct Tilings<'a> {
    problem: &'a Problem,
    array: &'a Tiled,
    modes: Vec<Mode>,
    outer: [Vec<Along>; 3],
    inner: Vec<Vec<Along>>,
}

/// Indices of a tiling's sizes, and of its mode.
type At = [u16; 5];

impl<'a> Tilings<'a> {
    fn new(problem: &'a Problem, array: &'a Tiled) -> Tilings<'a> {
        let modes = Mode::of(array, problem);
        let rule = array.mapping.tiles;
        let cut = |dim: Dim, mode: Mode| -> Vec<Along> {
            let sizes = sizes(problem.size[dim as usize], rule).into_iter();
            sizes.map(|tile| Along::new(problem, array, dim, tile, mode)).collect()
        };
        let outer = [Dim::Oh, Dim::Ow, Dim::Oc].map(|dim| cut(dim, modes[0]));
        let inner = modes.iter().map(|&mode| cut(Dim::Ic, mode)).collect();
        Tilings { problem, array, modes, outer, inner }
    }

    /// Calls `visit` with every combination of sizes and mode.
    fn visit(&self, mut visit: impl FnMut(At, [&Along; 4])) {
        let square = self.array.mapping.tiles == TileSizes::SquarePowersOfTwo;
        for (h, oh) in self.outer[0].iter().enumerate() {
            for (w, ow) in self.outer[1].iter().enumerate() {
                // A side that is already whole counts as square with any larger one.
                let (a, b) = (oh.tile, ow.tile);
                let whole = self.problem.size[usize::from(b < a)];
                if square && a != b && a.min(b) != whole {
                    continue;
                }
                for (k, oc) in self.outer[2].iter().enumerate() {
                    for (m, inner) in self.inner.iter().enumerate() {
                        for (c, ic) in inner.iter().enumerate() {
                            visit([h, w, k, c, m].map(|i| i as u16), [oh, ow, oc, ic]);
                        }
                    }
                }
            }
        }
    }

    fn along(&self, at: At) -> [&Along; 4] {
        let [h, w, k, c, m] = at.map(usize::from);
        [&self.outer[0][h], &self.outer[1][w], &self.outer[2][k], &self.inner[m][c]]
    }

    /// Rows of inputs that all outputs need.
    fn input_rows(&self) -> u64 {
        (self.problem.size[0] - 1) * self.problem.stride + self.problem.kh
    }

    fn mode(&self, at: At) -> Mode {
        self.modes[usize::from(at[4])]
    }

    fn tiles(&self, at: At) -> Tiles {
        Tiles::of(self.problem, self.array, self.mode(at), self.along(at))
    }
}

/// Every combination of tile sizes and mode.
#[cfg(test)]
pub(crate) fn tilings(problem: &Problem, array: &Tiled) -> Vec<([u64; 4], Mode)> {
    let space = Tilings::new(problem, array);
    let mut all = Vec::new();
    space.visit(|at, along| all.push((along.map(|a| a.tile), space.mode(at))));
    all
}

/// Loops that go round more than once.
fn active(along: &[&Along; 4]) -> usize {
    (0..4).filter(|&d| along[d].count > 1).map(|d| 1 << d).sum()
}

/// Least value of the objective that a tiling can have, or `None` where its smallest blocks do not
/// fit.
fn bound(
    space: &Tilings,
    at: At,
    along: &[&Along; 4],
    c: &Context,
    goal: Objective,
) -> Option<f64> {
    let of = |x: usize, part: fn(&Extent) -> u64| {
        along.iter().map(|a| part(&a.extent[x])).product::<u64>()
    };
    let first: [u64; 3] = std::array::from_fn(|x| of(x, |e| e.first) * c.bits[x]);
    if !c.array.fits(&first, c.array.mapping.double_buffered) {
        return None;
    }
    let rows = along.map(|a| a.count);
    let halo = keeps_halo(space.problem, c.array, &rows);
    let inputs = match halo {
        // Rows that tiles share are loaded once.
        true => of(1, |e| e.all) / along[0].extent[1].all * space.input_rows(),
        false => of(1, |e| e.all),
    };
    let outputs = of(2, |e| e.all);
    let read = (outputs * c.bits[2]) as f64 * c.initial;
    let written = outputs as f64 * c.final_bits;
    let weights = (of(0, |e| e.all) * c.bits[0]) as f64;
    let traffic = [weights, (inputs * c.bits[1]) as f64, read, written];
    let memory = ceil(traffic.iter().sum::<f64>() / c.width);
    let fill = (first[0] + first[1]) as f64 + first[2] as f64 * c.initial;
    let last = of(2, |e| e.last) as f64 * c.final_bits;
    let ends = ceil(fill / c.width) + ceil(last / c.width);
    let mode = space.mode(at);
    let compute = compute_cycles(space.problem, c.array, mode, along) as f64;
    let cycles = (compute + ends).max(memory) + c.pipeline;
    if goal == Objective::Latency {
        return Some(cycles);
    }
    let tiles = Tiles::of(space.problem, c.array, mode, *along);
    let array: f64 = (0..3).map(|x| tiles.array_bits[x] as f64 * c.buffer_pj[x]).sum();
    let moved: f64 = (0..4).map(|i| traffic[i] * c.traffic_pj[i]).sum();
    Some(goal.value(cycles, array + c.mac_pj + moved).0)
}

/// A tiling with the least its cost can be.
#[derive(Clone, Copy)]
struct Candidate {
    bound: f64,
    at: At,
}

/// Value, tiling, its active loops and the plan of the best so far.
type Winner = Option<((f64, f64), At, usize, usize)>;

/// Calls `evaluated` with the cycles and energies of every plan of the candidates, which all have
/// the same active loops.
fn evaluate(
    space: &Tilings,
    context: &Context,
    plans: &[Plan],
    lanes: &mut Lanes,
    chunk: &[Candidate],
    mut evaluated: impl FnMut(usize, &[f64], &[f64]),
) {
    for (lane, candidate) in chunk.iter().enumerate() {
        lanes.load(lane, &space.tiles(candidate.at), context);
    }
    let (mut cycles, mut energy) = ([0.0; LANES], [0.0; LANES]);
    for (p, plan) in plans.iter().enumerate() {
        lanes.evaluate(plan, context, &mut cycles, &mut energy);
        evaluated(p, &cycles[..chunk.len()], &energy[..chunk.len()]);
    }
}

/// How much of the space is evaluated; the result is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pruning {
    /// What a lower bound does not exclude.
    Bounds,
    /// Every mapping.
    None,
}

/// The best mapping of `problem`, or `None` where not even single-element tiles fit the buffers.
pub fn best(
    problem: &Problem,
    array: &Tiled,
    prices: &Prices,
    objective: Objective,
) -> Option<Best> {
    search(problem, array, prices, objective, Pruning::Bounds)
}

/// [`best`] with a choice of how much is evaluated.
pub fn search(
    problem: &Problem,
    array: &Tiled,
    prices: &Prices,
    objective: Objective,
    pruning: Pruning,
) -> Option<Best> {
    let context = Context::new(problem, array, prices);
    let all_plans = cached_plans(problem, array);
    let space = Tilings::new(problem, array);
    let mut mappings = 0;
    let mut by_active: [Vec<Candidate>; 16] = Default::default();
    space.visit(|at, along| {
        let active = active(&along);
        mappings += all_plans[active].len() as u64;
        if let Some(bound) = bound(&space, at, &along, &context, objective) {
            by_active[active].push(Candidate { bound, at });
        }
    });
    let mut lanes = Lanes::new();
    let mut winner: Winner = None;
    let mut evaluations = 0;
    let mut run = |active: usize, chunk: &[Candidate], winner: &mut Winner| {
        let plans = &all_plans[active];
        evaluations += (chunk.len() * plans.len()) as u64;
        evaluate(&space, &context, plans, &mut lanes, chunk, |p, cycles, energy| {
            for (i, (&cycles, &energy)) in cycles.iter().zip(energy).enumerate() {
                let value = objective.value(cycles, energy);
                if cycles < f64::INFINITY && winner.is_none_or(|(best, ..)| value < best) {
                    *winner = Some((value, chunk[i].at, active, p));
                }
            }
        });
    };
    let limit = |winner: &Winner| match pruning {
        Pruning::Bounds => winner.map_or(f64::INFINITY, |(value, ..)| value.0),
        Pruning::None => f64::INFINITY,
    };
    // The most promising tilings of every set of loops first: most others cannot win after them.
    for (active, candidates) in by_active.iter_mut().enumerate() {
        if candidates.len() > LANES {
            let order = |a: &Candidate, b: &Candidate| a.bound.total_cmp(&b.bound);
            candidates.select_nth_unstable_by(LANES - 1, order);
        }
        let least = candidates.iter().map(|c| c.bound).fold(f64::INFINITY, f64::min);
        if !candidates.is_empty() && least <= limit(&winner) {
            run(active, &candidates[..candidates.len().min(LANES)], &mut winner);
        }
    }
    for (active, candidates) in by_active.iter_mut().enumerate() {
        let mut left = candidates.split_off(candidates.len().min(LANES));
        left.retain(|candidate| candidate.bound <= limit(&winner));
        left.sort_unstable_by(|a, b| a.bound.total_cmp(&b.bound));
        for chunk in left.chunks(LANES) {
            if chunk[0].bound > limit(&winner) {
                break;
            }
            run(active, chunk, &mut winner);
        }
    }
    let (_, at, active, plan) = winner?;
    let mapping = mapping(&space, &context, at, &all_plans[active][plan]);
    let evaluation = mapping.evaluate(problem, array, prices)?;
    Some(Best { mapping, evaluation, mappings_evaluated: evaluations, mappings })
}

fn mapping(space: &Tilings, context: &Context, at: At, plan: &Plan) -> Mapping {
    let tile = space.along(at).map(|a| a.tile);
    plan.mapping(tile, space.mode(at), &space.tiles(at), context)
}

/// Mappings that no other beats in both cycles and energy, by rising cycles.
pub fn pareto(problem: &Problem, array: &Tiled, prices: &Prices) -> Vec<(Mapping, Evaluation)> {
    let context = Context::new(problem, array, prices);
    let all_plans = cached_plans(problem, array);
    let space = Tilings::new(problem, array);
    let mut by_active: [Vec<Candidate>; 16] = Default::default();
    space.visit(|at, along| {
        let active = active(&along);
        by_active[active].push(Candidate { bound: 0.0, at });
    });
    let mut lanes = Lanes::new();
    // Cycles and energy, both strictly monotone along the list.
    let mut front: Vec<(f64, f64, At, usize, usize)> = Vec::new();
    for (active, candidates) in by_active.iter().enumerate() {
        for chunk in candidates.chunks(LANES) {
            let plans = &all_plans[active];
            evaluate(&space, &context, plans, &mut lanes, chunk, |p, cycles, energy| {
                for (i, (&t, &e)) in cycles.iter().zip(energy).enumerate() {
                    let after = front.partition_point(|f| f.0 <= t);
                    if t == f64::INFINITY || (after > 0 && front[after - 1].1 <= e) {
                        continue;
                    }
                    // Drops an equal in cycles and all that are slower and not cheaper.
                    let start = front.partition_point(|f| f.0 < t);
                    let end = start + front[start..].iter().take_while(|f| f.1 >= e).count();
                    front.splice(start..end, [(t, e, chunk[i].at, active, p)]);
                }
            });
        }
    }
    front
        .into_iter()
        .filter_map(|(_, _, at, active, plan)| {
            let mapping = mapping(&space, &context, at, &all_plans[active][plan]);
            mapping.evaluate(problem, array, prices).map(|evaluation| (mapping, evaluation))
        })
        .collect()
}
