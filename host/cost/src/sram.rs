//! SRAM energy and area from a CACTI 7 sweep, interpolated between its points.
//!
//! Cells are `itrs-hp`. Between points, the logarithms are linear in the logarithms of node, size
//! and port width. Outside of the sweep nothing is invented: [`Sram::new`] refuses and says what
//! the sweep holds. Must not know: boards, layers.

/// One SRAM.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sram {
    /// Picojoules a bit read.
    pub read_pj_per_bit: f64,
    /// Picojoules a bit written.
    pub write_pj_per_bit: f64,
    /// Square millimetres.
    pub area_mm2: f64,
}

/// The sweep, CACTI 7.
const SWEEP: &str = include_str!("../data/cacti7_sweep.csv");

struct Point {
    node: f64,
    kb: f64,
    bits: f64,
    values: [f64; 3],
}

fn points() -> Vec<Point> {
    SWEEP
        .lines()
        .skip(1)
        .filter(|line| line.starts_with("itrs-hp"))
        .map(|line| {
            let n: Vec<f64> = line.split(',').skip(1).map(|v| v.parse().unwrap_or(0.0)).collect();
            Point { node: n[0], kb: n[1], bits: n[2], values: [n[3], n[4], n[7]] }
        })
        .collect()
}

/// Distinct values, ascending.
fn axis(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut all: Vec<f64> = values.collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    all
}

/// Neighbours of `at` on an axis with the weight of the upper, or what the axis spans.
fn bracket(axis: &[f64], at: f64) -> Result<(f64, f64, f64), [f64; 2]> {
    let (low, high) = (axis[0], axis[axis.len() - 1]);
    if !(low..=high).contains(&at) {
        return Err([low, high]);
    }
    let upper = axis.iter().copied().find(|&v| v >= at).unwrap_or(high);
    let lower = axis.iter().copied().filter(|&v| v <= at).fold(low, f64::max);
    let weight = if upper > lower { (at / lower).ln() / (upper / lower).ln() } else { 0.0 };
    Ok((lower, upper, weight))
}

impl Sram {
    /// The SRAM of `bytes` with a port of `port_bits` at `node_um`; the error says which value lies
    /// outside of the sweep, and its range.
    pub fn new(node_um: f64, bytes: u64, port_bits: u32) -> Result<Sram, String> {
        let points = points();
        let outside = |what: &str, at: f64, [low, high]: [f64; 2]| {
            format!("{what} {at} is outside of the CACTI sweep, {low} to {high}")
        };
        let at = |what: &str, values: Vec<f64>, at: f64| {
            bracket(&values, at).map_err(|span| outside(what, at, span))
        };
        let node = at("node (um)", axis(points.iter().map(|p| p.node)), node_um)?;
        let kb = at("size (KB)", axis(points.iter().map(|p| p.kb)), bytes as f64 / 1024.0)?;
        let bits = at("port (bits)", axis(points.iter().map(|p| p.bits)), f64::from(port_bits))?;
        let mut logs = [0.0; 3];
        for (n, wn) in [(node.0, 1.0 - node.2), (node.1, node.2)] {
            for (k, wk) in [(kb.0, 1.0 - kb.2), (kb.1, kb.2)] {
                for (b, wb) in [(bits.0, 1.0 - bits.2), (bits.1, bits.2)] {
                    let weight = wn * wk * wb;
                    if weight == 0.0 {
                        continue;
                    }
                    let point = points
                        .iter()
                        .find(|p| p.node == n && p.kb == k && p.bits == b)
                        .ok_or_else(|| format!("the CACTI sweep lacks {n} um, {k} KB, {b} bits"))?;
                    for (log, value) in logs.iter_mut().zip(point.values) {
                        *log += weight * value.ln();
                    }
                }
            }
        }
        let [read, write, area] = logs.map(f64::exp);
        let port = f64::from(port_bits);
        Ok(Sram { read_pj_per_bit: read / port, write_pj_per_bit: write / port, area_mm2: area })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_of_the_sweep_are_met_and_between_them_interpolated() {
        let sram = |kb: f64, bits| Sram::new(0.045, (kb * 1024.0) as u64, bits).unwrap();
        // cacti7_sweep.csv: itrs-hp,0.045,0.5,32,0.829924,1.65822,...,0.0020897327055
        let small = sram(0.5, 32);
        assert!((small.read_pj_per_bit * 32.0 - 0.829924).abs() < 1e-9);
        assert!((small.area_mm2 - 0.0020897327055).abs() < 1e-12);
        let (low, mid, high) = (sram(0.5, 32), sram(0.75, 32), sram(1.0, 32));
        assert!(low.read_pj_per_bit < mid.read_pj_per_bit);
        assert!(mid.read_pj_per_bit < high.read_pj_per_bit);
        assert!(Sram::new(0.045, 1 << 40, 32).unwrap_err().contains("size"));
        assert!(Sram::new(0.005, 1024, 32).unwrap_err().contains("node"));
    }
}
