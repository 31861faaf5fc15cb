//! Networks and accelerators together, on spaces of a few configurations.

use super::*;
use crate::objective::tests::random_probabilities;
use crate::ops::candle::Candle;
use crate::space::tests::small_space;

/// BitFusion's template with two sizes a side and two bandwidths, or with `more`.
pub(crate) fn few(ranges: &str) -> DesignSpace {
    let text = include_str!("../../../../boards/bitfusion-space.toml");
    let (head, rest) = text.split_once("[ranges]").unwrap();
    let (_, rest) = rest.split_once("[array]").unwrap();
    let text = format!("{head}[ranges]\n{ranges}\n[array]{rest}");
    DesignSpace::parse("bitfusion-space", &text).unwrap()
}

pub(crate) const SIDES: &str = r#"
"array.rows" = [2, 4, 8]
"array.columns" = [4, 8, 16]
"buffer.0.bytes" = [4096, 65536]
"memory.bits_per_cycle" = [32, 192]
"#;

const EDP: CostWeights = CostWeights { edp: 1.0, ..CostWeights::NONE };

#[test]
fn cells_that_cost_the_same_are_one() {
    let networks = small_space();
    let designs = Designs::new(&networks, few(SIDES), &EDP, &Limits::default());
    let [cells, distinct, configurations] = designs.size();
    assert_eq!(configurations, 36);
    assert_eq!(cells, Costs::shapes(&networks).len());
    assert!(2 * distinct < cells, "{distinct} of {cells}");
}

#[test]
fn generator_reaches_the_exact_optimum() {
    let (b, networks, limits) = (Candle, small_space(), Limits::default());
    let designs = Designs::new(&networks, few(SIDES), &EDP, &limits);
    let reference = designs.reference(&networks).unwrap();
    let objective = Objective::on_hardware(reference, &limits, EDP);
    let duals = Duals::new(4.0, 100);
    let p = random_probabilities(&networks, 5);
    let run = |hardware| {
        let config = SearchConfig { hardware, ..SearchConfig::small() };
        let mut side = Side::new(&b, &designs, &networks, &config).unwrap();
        for step in 0..60 {
            let t = step as f64 / 60.0;
            side.step(&b, &objective, &p, &duals, t, step).unwrap();
        }
        side.proposals(&b, &objective, &p, &duals).unwrap()
    };
    let (exact, generated) = (run(Method::Exact), run(Method::Generator));
    assert_eq!(exact.len(), 36);
    let price = |h: usize| {
        let table = designs.table().unwrap();
        let hardware = Hardware { table, chances: Chances::SoftMinimum(1.0) };
        objective.prices(&networks, &p, &duals, &hardware)[h]
    };
    let (best, found) = (price(exact[0]), price(generated[0]));
    assert!(found <= 1.02 * best, "{found} instead of {best}");
    assert!(exact.iter().all(|h| price(*h) >= best));
}

#[test]
fn what_is_chosen_meets_every_limit() {
    let networks = small_space();
    let p = random_probabilities(&networks, 7);
    let weights = CostWeights { edp: 1.0, area: 0.2, ..CostWeights::NONE };
    let free = Limits::default();
    let chosen = |limits: &Limits| {
        let designs = Designs::new(&networks, few(SIDES), &weights, limits);
        let reference = designs.reference(&networks).unwrap();
        let objective = Objective::on_hardware(reference, limits, weights);
        let found = exact(&designs, &networks, &objective, &p, &Duals::new(4.0, 1), 1.0).unwrap();
        let mut order: Vec<usize> = (0..36).filter(|h| found.configurations[*h].0 > 0.0).collect();
        order.sort_by(|a, b| found.configurations[*a].1.total_cmp(&found.configurations[*b].1));
        let checked = designs.check(&networks, &objective, limits);
        let result =
            choose_hardware(&networks, &designs, &objective, limits, &p, &order, Method::Exact);
        assert!(checked.is_ok() || result.is_err());
        result
    };
    let (priced, _) = chosen(&free).unwrap();
    let Demand { latency_s, energy_pj, area_mm2, .. } = priced.demand;
    for share in [0.9, 0.6] {
        let of = |figure: Option<f64>| figure.map(|f| f * share);
        for limits in [
            Limits { latency_s: of(latency_s), ..Limits::default() },
            Limits { energy_pj: of(energy_pj), ..Limits::default() },
            Limits { area_mm2: of(area_mm2), ..Limits::default() },
            Limits { latency_s: of(latency_s), area_mm2: of(area_mm2), ..Limits::default() },
        ] {
            let Ok((priced, _)) = chosen(&limits) else { continue };
            assert_eq!(limits.check(&priced.demand), [], "{limits:?}");
        }
    }
    let error = chosen(&Limits { area_mm2: Some(1e-3), ..free.clone() }).unwrap_err().to_string();
    assert!(error.contains("area"), "{error}");
    let error = chosen(&Limits { latency_s: Some(1e-9), ..free }).unwrap_err().to_string();
    assert!(error.contains("latency"), "{error}");
}

#[test]
fn optimum_is_the_least_of_all() {
    let (networks, limits) = (small_space(), Limits::default());
    let designs = Designs::new(&networks, few(SIDES), &EDP, &limits);
    let objective = Objective::on_hardware([1e-5, 1e7, 1.0], &limits, EDP);
    let choice = crate::space::tests::random_choice(&networks, 3);
    let network = networks.network(&choice);
    let (best, figures) = designs.optimum(&network, &objective, &limits).unwrap().unwrap();
    for h in 0..designs.space().len() {
        let total =
            jaq_cost::CostModel::network(designs.model(h).unwrap(), &network).unwrap().total;
        let own = [total.latency_s.unwrap(), total.energy_pj.unwrap(), total.area_mm2.unwrap()];
        assert!(own[0] * own[1] >= figures[0] * figures[1] * (1.0 - 1e-12));
        if h == best {
            assert_eq!(own, figures);
        }
    }
}
