//! Costs over a space of hardware: for every cell (a block, that is an operator at its widths) and
//! every configuration the best latency and energy; the expectation under the search's
//! probabilities, and its exact gradient.
//!
//! [`HardwareCosts`] prices cells when they are asked for and keeps them: the way where the whole
//! table is too large. [`HardwareTable`] holds all of them and contracts them. Pure functions.
//! Must not know: tensors of training.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use rayon::prelude::*;

use crate::accelerator::Tiled;
use crate::batch_tile::Objective;
use crate::cost::ModelError;
use crate::target::TiledModel;
use crate::workload::Workload;

/// Seconds and picojoules of a block.
pub type Price = [f64; 2];

/// A block: its layers in order. None at all is a block that is skipped.
pub type Block = Vec<Workload>;

/// The price of what does not fit a configuration at all: a second and a joule, far above any
/// block, and finite, so that gradients stay so.
const DOES_NOT_FIT: Price = [1.0, 1e12];

/// Prices of cells on the configurations of a space, on demand.
pub struct HardwareCosts {
    hardware: Vec<OnceLock<TiledModel>>,
    make: Box<dyn Fn(usize) -> Result<TiledModel, ModelError> + Send + Sync>,
    cells: Vec<Block>,
    /// Cells of the same layers have one price: the first of them.
    same: Vec<usize>,
    memo: Vec<Mutex<HashMap<u32, Price>>>,
    /// Prices of all distinct cells, and the area, where they were asked for together.
    columns: Vec<OnceLock<(Vec<Price>, f64)>>,
}

impl HardwareCosts {
    /// Of `cells` on the `count` configurations that `make` describes. Nothing is priced yet.
    pub fn new(
        count: usize,
        make: impl Fn(usize) -> Result<Tiled, ModelError> + Send + Sync + 'static,
        cells: Vec<Block>,
        objective: Objective,
    ) -> HardwareCosts {
        let mut first = HashMap::new();
        let same = cells.iter().enumerate().map(|(i, cell)| *first.entry(cell).or_insert(i));
        let same = same.collect();
        HardwareCosts {
            hardware: (0..count).map(|_| OnceLock::new()).collect(),
            make: Box::new(move |index| TiledModel::new(make(index)?, objective)),
            cells,
            same,
            memo: (0..count).map(|_| Mutex::default()).collect(),
            columns: (0..count).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Number of cells and of configurations.
    pub fn size(&self) -> (usize, usize) {
        (self.cells.len(), self.hardware.len())
    }

    /// Cells that differ.
    pub fn distinct(&self) -> usize {
        self.same.iter().enumerate().filter(|(cell, first)| cell == *first).count()
    }

    /// Configuration `hardware`; its layers are priced once.
    pub fn model(&self, hardware: usize) -> Result<&TiledModel, ModelError> {
        if let Some(model) = self.hardware[hardware].get() {
            return Ok(model);
        }
        let made = (self.make)(hardware)?;
        Ok(self.hardware[hardware].get_or_init(|| made))
    }

    /// Price of a cell on a configuration, searched the first time it is asked for.
    pub fn price(&self, cell: usize, hardware: usize) -> Result<Price, ModelError> {
        let cell = self.same[cell];
        let memo = || self.memo[hardware].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(price) = memo().get(&(cell as u32)) {
            return Ok(*price);
        }
        let model = self.model(hardware)?;
        let price = match model.block(&self.cells[cell]) {
            Ok(found) => {
                let (seconds, pj) = (found.total.latency_s, found.total.energy_pj);
                [seconds.unwrap_or(0.0), pj.unwrap_or(0.0)]
            }
            Err(ModelError::Unsupported { .. }) => DOES_NOT_FIT,
            Err(error) => return Err(error),
        };
        memo().insert(cell as u32, price);
        Ok(price)
    }

    /// Cells that were priced.
    pub fn priced(&self) -> usize {
        let len = |m: &Mutex<HashMap<_, _>>| m.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.memo.iter().map(len).sum()
    }

    /// Every cell on every configuration, on all cores.
    pub fn table(&self) -> Result<HardwareTable, ModelError> {
        self.table_of(&(0..self.hardware.len()).collect::<Vec<_>>())
    }

    /// Every cell on some configurations, in their order; each is priced once.
    pub fn table_of(&self, hardware: &[usize]) -> Result<HardwareTable, ModelError> {
        let (cells, _) = self.size();
        let distinct: Vec<usize> = (0..cells).filter(|&cell| self.same[cell] == cell).collect();
        let column = |&h: &usize| -> Result<_, ModelError> {
            if let Some(column) = self.columns[h].get() {
                return Ok(column);
            }
            let prices = distinct.iter().map(|&cell| self.price(cell, h));
            let column = (prices.collect::<Result<_, _>>()?, self.model(h)?.prices.area_mm2);
            Ok(self.columns[h].get_or_init(|| column))
        };
        let columns: Vec<&(Vec<Price>, f64)> =
            hardware.par_iter().map(column).collect::<Result<_, ModelError>>()?;
        let hardware = hardware.len();
        let figure = |f: usize| {
            let row = |r: usize| columns.iter().map(move |(column, _)| column[r][f] as f32);
            (0..distinct.len()).flat_map(row).collect()
        };
        let row = |cell: &usize| distinct.partition_point(|first| first < cell);
        Ok(HardwareTable {
            hardware,
            row: self.same.iter().map(row).collect(),
            seconds: figure(0),
            pj: figure(1),
            area_mm2: columns.iter().map(|(_, area)| *area as f32).collect(),
        })
    }
}

/// Latency and energy of every cell on every configuration, and the area of each.
#[derive(Clone, Debug, PartialEq)]
pub struct HardwareTable {
    hardware: usize,
    /// Row of every cell; cells of the same layers share one.
    row: Vec<usize>,
    /// `[row][hardware]`.
    seconds: Vec<f32>,
    pj: Vec<f32>,
    area_mm2: Vec<f32>,
}

/// Expected seconds, picojoules and square millimetres, or derivatives of their weighted sum.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Contraction {
    pub seconds: f64,
    pub pj: f64,
    pub area_mm2: f64,
    /// Derivatives of the weighted sum by the probability of every cell, and configuration.
    pub by_cell: Vec<f32>,
    pub by_hardware: Vec<f32>,
}

/// Rows contracted together.
const ROWS: usize = 64;

impl HardwareTable {
    /// Latency and energy of a cell on a configuration.
    pub fn at(&self, cell: usize, hardware: usize) -> Price {
        let at = self.row[cell] * self.hardware + hardware;
        [self.seconds[at].into(), self.pj[at].into()]
    }

    /// Area of a configuration.
    pub fn area_mm2(&self, hardware: usize) -> f64 {
        self.area_mm2[hardware].into()
    }

    /// Number of configurations.
    pub fn hardware(&self) -> usize {
        self.hardware
    }

    /// Probabilities of cells, added up by row.
    fn of_rows(&self, cells: &[f32]) -> Vec<f32> {
        assert_eq!(cells.len(), self.row.len(), "a probability a cell");
        let mut of_row = vec![0.0f32; self.seconds.len() / self.hardware.max(1)];
        self.row.iter().zip(cells).for_each(|(&row, p)| of_row[row] += p);
        of_row
    }

    /// Expected seconds and picojoules of the network on every configuration: sums over cells,
    /// each times its probability.
    pub fn totals(&self, cells: &[f32]) -> [Vec<f64>; 2] {
        let (n, of_row) = (self.hardware, self.of_rows(cells));
        let parts: Vec<[Vec<f32>; 2]> = of_row
            .par_chunks(ROWS)
            .enumerate()
            .map(|(chunk, rows)| {
                let mut sums = [vec![0.0f32; n], vec![0.0f32; n]];
                for (row, &p) in rows.iter().enumerate() {
                    let at = (chunk * ROWS + row) * n;
                    for (sum, values) in sums.iter_mut().zip([&self.seconds, &self.pj]) {
                        sum.iter_mut().zip(&values[at..at + n]).for_each(|(s, v)| *s += p * v);
                    }
                }
                sums
            })
            .collect();
        let total = |figure: usize| {
            let mut sum = vec![0.0f64; n];
            for part in &parts {
                sum.iter_mut().zip(&part[figure]).for_each(|(s, v)| *s += f64::from(*v));
            }
            sum
        };
        [total(0), total(1)]
    }

    /// For every cell three sums over configurations: of seconds and picojoules times `by`, of
    /// seconds times `mean`, and of picojoules times `mean`.
    pub fn over_hardware(&self, by: [&[f32]; 2], mean: &[f32]) -> [Vec<f32>; 3] {
        let n = self.hardware;
        assert!(by.iter().all(|by| by.len() == n) && mean.len() == n, "one a configuration");
        let rows: Vec<[f32; 3]> = self
            .seconds
            .par_chunks(n.max(1) * ROWS)
            .zip(self.pj.par_chunks(n.max(1) * ROWS))
            .flat_map_iter(|(s, e)| {
                let rows = s.chunks_exact(n.max(1)).zip(e.chunks_exact(n.max(1)));
                rows.map(|(s, e)| three_sums(s, e, by, mean))
            })
            .collect();
        [0, 1, 2].map(|i| self.row.iter().map(|&row| rows[row][i]).collect())
    }

    /// Expected cost where cells and configurations are drawn independently with these
    /// probabilities, and the gradient of `weights . [seconds, pj, area]`: exact, the expectation
    /// being linear in each argument.
    pub fn contract(&self, cells: &[f32], hardware: &[f32], weights: [f64; 3]) -> Contraction {
        assert_eq!(hardware.len(), self.hardware, "a probability a configuration");
        let [ws, we, wa] = weights.map(|w| w as f32);
        let n = self.hardware;
        let of_row = self.of_rows(cells);
        let parts: Vec<(f64, f64, Vec<f32>, Vec<f32>)> = of_row
            .par_chunks(ROWS)
            .enumerate()
            .map(|(chunk, rows)| {
                let (mut seconds, mut pj) = (0.0, 0.0);
                let mut by_row = Vec::with_capacity(rows.len());
                let mut by_hardware = vec![0.0f32; n];
                for (row, &p) in rows.iter().enumerate() {
                    let at = (chunk * ROWS + row) * n;
                    let (s_row, e_row) = (&self.seconds[at..at + n], &self.pj[at..at + n]);
                    let (s, e) =
                        row_pass(s_row, e_row, hardware, [p * ws, p * we], &mut by_hardware);
                    seconds += f64::from(p) * s;
                    pj += f64::from(p) * e;
                    by_row.push((weights[0] * s + weights[1] * e) as f32);
                }
                (seconds, pj, by_row, by_hardware)
            })
            .collect();
        let mut by_row = Vec::with_capacity(of_row.len());
        let area: f64 = dot(&self.area_mm2, hardware);
        let mut found = Contraction {
            seconds: 0.0,
            pj: 0.0,
            area_mm2: area,
            by_cell: Vec::new(),
            by_hardware: self.area_mm2.iter().map(|area| area * wa).collect(),
        };
        for (seconds, pj, by_rows, by_hardware) in parts {
            found.seconds += seconds;
            found.pj += pj;
            by_row.extend(by_rows);
            found.by_hardware.iter_mut().zip(by_hardware).for_each(|(sum, part)| *sum += part);
        }
        found.by_cell = self.row.iter().map(|&row| by_row[row]).collect();
        found
    }
}

/// Accumulators side by side, for SIMD code.
const WIDE: usize = 8;

/// The expectations of one cell over hardware, and its share of the gradient by hardware, in one
/// pass over its row.
fn row_pass(s: &[f32], e: &[f32], p: &[f32], by: [f32; 2], gradient: &mut [f32]) -> (f64, f64) {
    let (mut seconds, mut pj) = ([0.0f32; WIDE], [0.0f32; WIDE]);
    let whole = s.len() / WIDE * WIDE;
    let chunks = s[..whole].chunks_exact(WIDE).zip(e[..whole].chunks_exact(WIDE));
    let others = p[..whole].chunks_exact(WIDE).zip(gradient[..whole].chunks_exact_mut(WIDE));
    for ((s, e), (p, g)) in chunks.zip(others) {
        for i in 0..WIDE {
            seconds[i] += s[i] * p[i];
            pj[i] += e[i] * p[i];
            g[i] += s[i] * by[0] + e[i] * by[1];
        }
    }
    let sum = |v: [f32; WIDE]| v.iter().map(|&x| f64::from(x)).sum::<f64>();
    let mut total = (sum(seconds), sum(pj));
    for i in whole..s.len() {
        total.0 += f64::from(s[i] * p[i]);
        total.1 += f64::from(e[i] * p[i]);
        gradient[i] += s[i] * by[0] + e[i] * by[1];
    }
    total
}

/// `s . by[0] + e . by[1]`, `s . mean` and `e . mean` in one pass.
fn three_sums(s: &[f32], e: &[f32], by: [&[f32]; 2], mean: &[f32]) -> [f32; 3] {
    let mut sums = [[0.0f32; WIDE]; 3];
    let whole = s.len() / WIDE * WIDE;
    for at in (0..whole).step_by(WIDE) {
        let wide = |v: &[f32]| -> [f32; WIDE] { std::array::from_fn(|i| v[at + i]) };
        let (s, e, m) = (wide(s), wide(e), wide(mean));
        let (a, b) = (wide(by[0]), wide(by[1]));
        for i in 0..WIDE {
            sums[0][i] += s[i] * a[i] + e[i] * b[i];
            sums[1][i] += s[i] * m[i];
            sums[2][i] += e[i] * m[i];
        }
    }
    let mut total = sums.map(|sum| sum.iter().sum::<f32>());
    for i in whole..s.len() {
        total[0] += s[i] * by[0][i] + e[i] * by[1][i];
        total[1] += s[i] * mean[i];
        total[2] += e[i] * mean[i];
    }
    total
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CostModel, DesignSpace, Widths};
    use jaq_network::LayerSpec;
    use proptest::prelude::*;

    fn block(spec: &str, widths: &str) -> Block {
        let spec: LayerSpec = spec.parse().unwrap();
        Workload::block(&spec, widths.parse::<Widths>().unwrap())
    }

    fn costs() -> HardwareCosts {
        let space = DesignSpace::load("bitfusion-space").unwrap();
        let cells = vec![
            block("pw:8x8x16-48", "W4A4"),
            block("dw3x3:8x8x48+pw:8x8x48-16", "W2A8"),
            Vec::new(),
            block("pw:8x8x16-48", "W4A4"),
        ];
        let at = move |index: usize| Ok(space.at(index * 53)?);
        HardwareCosts::new(11, at, cells, Objective::Latency)
    }

    #[test]
    fn cells_are_priced_once_and_only_when_asked_for() {
        let costs = costs();
        assert_eq!(costs.priced(), 0);
        let first = costs.price(0, 7).unwrap();
        assert_eq!(costs.price(3, 7).unwrap(), first);
        assert_eq!(costs.priced(), 1);
        let model = costs.model(7).unwrap();
        let layer = model.workload(&block("pw:8x8x16-48", "W4A4")[0]).unwrap();
        assert_eq!(first, [layer.latency_s.unwrap(), layer.energy_pj.unwrap()]);
        assert_eq!(costs.price(2, 7).unwrap(), [0.0, 0.0]);
        let table = costs.table().unwrap();
        assert_eq!(costs.priced(), 33);
        let some = costs.table_of(&[7, 2]).unwrap();
        assert_eq!((some.at(1, 0), some.at(1, 1)), (table.at(1, 7), table.at(1, 2)));
        assert_eq!((some.hardware(), some.area_mm2(1)), (2, table.area_mm2(2)));
        for (cell, hardware) in [(0, 0), (1, 7), (3, 10)] {
            let exact = costs.price(cell, hardware).unwrap();
            assert_eq!(table.at(cell, hardware), exact.map(|v| f64::from(v as f32)));
        }
        assert!(table.area_mm2(10) > table.area_mm2(0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn contraction_is_the_plain_sum_and_its_gradient(
            cells in prop::collection::vec(0.0..1.0f32, 70..130),
            hardware in prop::collection::vec(0.0..1.0f32, 1..40),
            seed in any::<u32>(),
        ) {
            let n = hardware.len();
            let mut state = u64::from(seed);
            let mut value = || {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 40) as f32 / (1 << 24) as f32
            };
            let mut draw = |count: usize| (0..count).map(|_| value()).collect::<Vec<f32>>();
            // Some cells are of the same layers.
            let row: Vec<usize> = (0..cells.len()).map(|cell| cell % 67).collect();
            let table = HardwareTable {
                hardware: n,
                row,
                seconds: draw(67 * n),
                pj: draw(67 * n),
                area_mm2: draw(n),
            };
            let weights = [2.0, 0.5, 3.0];
            let found = table.contract(&cells, &hardware, weights);
            let mut expected = [0.0f64; 3];
            let mut by_hardware: Vec<f64> =
                (0..n).map(|h| weights[2] * table.area_mm2(h)).collect();
            for (c, &p) in cells.iter().enumerate() {
                let mut by_cell = 0.0;
                for (h, &q) in hardware.iter().enumerate() {
                    let [s, e] = table.at(c, h);
                    expected[0] += f64::from(p) * f64::from(q) * s;
                    expected[1] += f64::from(p) * f64::from(q) * e;
                    by_cell += f64::from(q) * (weights[0] * s + weights[1] * e);
                    by_hardware[h] += f64::from(p) * (weights[0] * s + weights[1] * e);
                }
                prop_assert!((f64::from(found.by_cell[c]) - by_cell).abs() < 1e-4 * (1.0 + by_cell));
            }
            // The two passes of the objective are the same sums.
            let [seconds, pj] = table.totals(&cells);
            for (h, seconds) in seconds.iter().enumerate() {
                let plain = cells.iter().enumerate().map(|(c, p)| f64::from(*p) * table.at(c, h)[0]);
                prop_assert!((seconds - plain.sum::<f64>()).abs() < 1e-3);
            }
            let all: f64 = pj.iter().zip(&hardware).map(|(e, q)| e * f64::from(*q)).sum();
            prop_assert!((all - expected[1]).abs() < 1e-4 * (1.0 + expected[1]));
            let doubled: Vec<f32> = hardware.iter().map(|q| 2.0 * q).collect();
            let rows = table.over_hardware([&doubled, &hardware], &hardware);
            for (c, sum) in rows[0].iter().enumerate() {
                let [s, e] = [1, 2].map(|i: usize| f64::from(rows[i][c]));
                prop_assert!((f64::from(*sum) - 2.0 * s - e).abs() < 1e-4 * (1.0 + s + e));
                let by_cell = (f64::from(found.by_cell[c]) - 2.0 * s - 0.5 * e).abs();
                prop_assert!(by_cell < 1e-4 * (1.0 + s + e));
            }
            for h in 0..n {
                expected[2] += f64::from(hardware[h]) * table.area_mm2(h);
                let difference = f64::from(found.by_hardware[h]) - by_hardware[h];
                prop_assert!(difference.abs() < 1e-4 * (1.0 + by_hardware[h]));
            }
            for (found, expected) in [found.seconds, found.pj, found.area_mm2].iter().zip(expected) {
                prop_assert!((found - expected).abs() < 1e-4 * (1.0 + expected));
            }
        }
    }
}
