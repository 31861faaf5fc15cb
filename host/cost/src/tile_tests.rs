//! BatchTile against brute force, closed form against the simulator, published figures, and what
//! more hardware or fewer bits may never do.

use proptest::prelude::*;

use crate::accelerator::{FinalBits, Residency, TileSizes, Tiled};
use crate::batch_tile::{Objective, Pruning, best, pareto, search, tilings};
use crate::lanes::orders;
use crate::simulator::walk;
use crate::tile::{Evaluation, Mapping, Problem};

fn bitfusion() -> Tiled {
    Tiled::parse("bitfusion", include_str!("../../../boards/bitfusion.toml")).unwrap()
}

fn conv(size: u64, channels: u64, weight_bits: u64, input_bits: u64) -> Problem {
    Problem {
        size: [size, size, channels, channels],
        kh: 3,
        kw: 3,
        stride: 1,
        depthwise: false,
        weight_bits,
        input_bits,
        output_bits: input_bits,
    }
}

/// Every mapping of the space one by one, each on its own through the closed form.
fn brute(problem: &Problem, array: &Tiled, objective: Objective) -> Option<(f64, Mapping)> {
    let prices = array.prices().unwrap();
    let largest = array.mapping.residency == Residency::Largest;
    let mut found: Option<(f64, Mapping)> = None;
    for (tile, mode) in tilings(problem, array) {
        for order in orders() {
            for code in 0..125 {
                for double_buffered in [true, false] {
                    let level = [code / 25, code / 5 % 5, code % 5];
                    let mapping = Mapping { tile, order, level, mode, double_buffered };
                    if !double_buffered && array.mapping.double_buffered {
                        continue;
                    }
                    let Some(e) = mapping.evaluate(problem, array, &prices) else { continue };
                    let could_grow = |x: usize| {
                        let mut wider = mapping.clone();
                        wider.level[x] += 1;
                        level[x] < 4 && wider.evaluate(problem, array, &prices).is_some()
                    };
                    if largest && (0..3).any(could_grow) {
                        continue;
                    }
                    // A block that saves nothing against the next smaller is none of the space.
                    let idle = |x: usize| {
                        let mut smaller = mapping.clone();
                        smaller.level[x] = level[x].saturating_sub(1);
                        let before = smaller.evaluate(problem, array, &prices);
                        let moved = |e: &Evaluation| e.traffic_bits.iter().sum::<u64>();
                        level[x] > 0 && before.is_some_and(|before| moved(&before) == moved(&e))
                    };
                    if !largest && (0..3).any(idle) {
                        continue;
                    }
                    let value = value(objective, &e);
                    if found.as_ref().is_none_or(|(best, _)| value < *best) {
                        found = Some((value, mapping));
                    }
                }
            }
        }
    }
    found
}

fn value(objective: Objective, e: &Evaluation) -> f64 {
    match objective {
        Objective::Latency => e.cycles as f64,
        Objective::Energy => e.energy_pj,
        Objective::Edp | Objective::Edap => e.energy_pj * e.cycles as f64,
    }
}

#[test]
fn bitfusions_published_optimizer_is_reproduced() {
    // Cycles of the optimizer published with BitFusion. It always operates the array at the
    // operands' own widths; where wider modes are allowed, the best can only be better.
    let array = bitfusion();
    let prices = array.prices().unwrap();
    for (size, channels, w, a, cycles) in [
        (16, 32, 8, 8, 5505u64),
        (16, 32, 4, 4, 3468),
        (16, 32, 2, 8, 3606),
        (16, 32, 2, 2, 3244),
        (8, 64, 8, 8, 5804),
        (8, 64, 2, 8, 2486),
        (8, 64, 2, 2, 2177),
    ] {
        let problem = conv(size, channels, w, a);
        let found = best(&problem, &array, &prices, Objective::Latency).unwrap();
        let ratio = found.evaluation.cycles as f64 / cycles as f64;
        assert!((0.9..=1.0).contains(&ratio), "{size} {w} {a}: {}", found.evaluation.cycles);
        let own: Vec<_> = pareto(&problem, &array, &prices);
        assert_eq!(own[0].1.cycles, found.evaluation.cycles);
        assert!(walk(&problem, &array, &found.mapping).agrees(&found.evaluation));
        // Restricted to the operands' own widths it is the same to the cycle.
        let exact = tilings(&problem, &array)
            .into_iter()
            .filter(|(_, mode)| (mode.weight, mode.input) == (w, a))
            .flat_map(|(tile, mode)| orders().into_iter().map(move |order| (tile, mode, order)))
            .filter_map(|(tile, mode, order)| grown(&problem, &array, tile, mode, order))
            .min();
        assert_eq!(exact, Some(cycles));
    }
}

fn best_on(target: &str, spec: &str, widths: &str, objective: Objective) -> Evaluation {
    let crate::Target::Tiled(model) = crate::Target::load(target, objective).unwrap() else {
        panic!("{target} is tiled")
    };
    let spec: jaq_network::LayerSpec = spec.parse().unwrap();
    let work = crate::Workload::block(&spec, widths.parse().unwrap())[0];
    model.best(&Problem::of(&work).unwrap()).unwrap().evaluation
}

#[test]
fn zigzags_mappings_are_met_or_beaten() {
    // ZigZag 3.9.1, LOMA, six loop prime factors, objective EDP, its own tpu_like; inputs with
    // their padding as here. Energy in uJ, latency in cycles. Its second latency is less than its
    // own memory port takes for the bits it moves: 5920 cycles for weights, inputs and outputs
    // once. No mapping is faster than that here.
    for (spec, energy, cycles, port) in
        [("conv3x3:16x16x32-32", 3.07, 3664.0, 3472.0), ("conv3x3:8x8x64-64", 4.74, 5183.0, 5920.0)]
    {
        let found = best_on("tpu-like", spec, "W8A8", Objective::Edp);
        assert_eq!(found.traffic_bits.iter().sum::<u64>() as f64 / 64.0, port);
        let (e, t) = (found.energy_pj * 1e-6 / energy, found.cycles as f64 / port.max(cycles));
        assert!((0.9..=1.1).contains(&e) && (0.9..=1.1).contains(&t), "{spec}: {e} {t}");
    }
}

#[test]
fn eyeriss_processes_alexnet_as_fast_as_the_chip() {
    // Chen et al., JSSC 2017, table of AlexNet at 200 MHz, a batch of four: processing latency in
    // ms. The chip refills its pipelines between passes, which the model does not know: it may be
    // up to a fifth faster, and never slower. Grouped layers are two halves.
    for (spec, halves, ms) in [
        ("conv11x11s4p0:227x227x3-96", 1.0, 16.5),
        ("conv5x5:27x27x48-128", 2.0, 39.2),
        ("conv3x3:13x13x256-384", 1.0, 21.8),
        ("conv3x3:13x13x192-192", 2.0, 16.0),
        ("conv3x3:13x13x192-128", 2.0, 10.0),
    ] {
        let found = best_on("eyeriss", spec, "W16A16", Objective::Latency);
        let predicted = 4.0 * halves * found.compute_cycles as f64 / 200e6 * 1e3;
        assert!((0.8..=1.0).contains(&(predicted / ms)), "{spec}: {predicted} {ms}");
    }
}

/// Cycles with every operand's block grown as far as it fits.
fn grown(
    problem: &Problem,
    array: &Tiled,
    tile: [u64; 4],
    mode: crate::tile::Mode,
    order: [crate::tile::Dim; 4],
) -> Option<u64> {
    let prices = array.prices().unwrap();
    let mut mapping = Mapping { tile, order, level: [0; 3], mode, double_buffered: true };
    mapping.evaluate(problem, array, &prices)?;
    for x in 0..3 {
        while mapping.level[x] < 4 {
            let mut wider = mapping.clone();
            wider.level[x] += 1;
            if wider.evaluate(problem, array, &prices).is_none() {
                break;
            }
            mapping = wider;
        }
    }
    mapping.evaluate(problem, array, &prices).map(|e| e.cycles)
}

fn any_problem() -> impl Strategy<Value = Problem> {
    let size = (1..6u64, 1..6u64, 1..9u64, 1..9u64);
    let widths = prop::sample::select(vec![1u64, 2, 3, 4, 5, 8, 11, 16]);
    let bits = (widths.clone(), widths.clone(), widths);
    (size, (1..4u64, 1..4u64), 1..3u64, any::<bool>(), bits).prop_map(
        |((h, w, oc, ic), (kh, kw), stride, depthwise, (weight_bits, input_bits, output_bits))| {
            let ic = if depthwise { 1 } else { ic };
            let size = [h, w, oc, ic];
            Problem { size, kh, kw, stride, depthwise, weight_bits, input_bits, output_bits }
        },
    )
}

/// Arrays small enough that nothing fits by itself.
fn any_array() -> impl Strategy<Value = Tiled> {
    let array = ((1..5u64), (1..5u64), any::<bool>(), 0..3usize, 0..9u64);
    let buffers = prop::array::uniform3(512..2048u64);
    let flags = prop::array::uniform5(any::<bool>());
    (array, buffers, 1..80u64, 0..3usize, flags).prop_map(
        |(
            (rows, columns, fusion, dataflow, pipeline),
            sizes,
            width,
            tiles,
            [read, last, both, free, halo],
        )| {
            use crate::accelerator::{Dataflow, Precision};
            let mut found = bitfusion();
            found.array.rows = rows;
            found.array.columns = columns;
            found.array.precision = if fusion { Precision::Fusion } else { Precision::Fixed };
            found.array.dataflow =
                [Dataflow::WeightStationary, Dataflow::OutputStationary, Dataflow::RowStationary]
                    [dataflow];
            found.array.pipeline_cycles = pipeline;
            for (buffer, bytes) in found.buffer.iter_mut().zip(sizes) {
                buffer.bytes = bytes;
            }
            found.memory.bits_per_cycle = width;
            found.outputs.initial_read = read;
            found.outputs.r#final = if last { FinalBits::Layer } else { FinalBits::Accumulator };
            found.mapping.double_buffered = both;
            found.mapping.keep_halo = halo;
            found.mapping.residency = if free { Residency::Free } else { Residency::Largest };
            found.mapping.tiles =
                [TileSizes::SquarePowersOfTwo, TileSizes::PowersOfTwo, TileSizes::All][tiles];
            found
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn closed_form_is_the_simulator(
        problem in any_problem(),
        array in any_array(),
        picks in prop::array::uniform6(any::<prop::sample::Index>()),
    ) {
        let all = tilings(&problem, &array);
        let (tile, mode) = all[picks[0].index(all.len())];
        let order = orders()[picks[1].index(24)];
        let level = [2, 3, 4].map(|i| picks[i].index(5));
        let double_buffered = picks[5].index(2) == 0;
        let mapping = Mapping { tile, order, level, mode, double_buffered };
        // Blocks need not fit: what they cost does not depend on it.
        let mut roomy = array;
        roomy.buffer.iter_mut().for_each(|b| b.bytes = 1 << 20);
        let prices = roomy.prices().unwrap();
        let closed = mapping.evaluate(&problem, &roomy, &prices).unwrap();
        let walked = walk(&problem, &roomy, &mapping);
        prop_assert!(walked.agrees(&closed), "{mapping:?}\n{closed:?}\n{walked:?}");
        prop_assert_eq!(closed.cycles, closed.compute_cycles + closed.fill_cycles
            + closed.drain_cycles + closed.exposed_memory_cycles);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn batch_tile_is_brute_force(problem in any_problem(), array in any_array(), o in 0..3usize) {
        let objective = [Objective::Latency, Objective::Energy, Objective::Edp][o];
        let prices = array.prices().unwrap();
        let found = best(&problem, &array, &prices, objective);
        let expected = brute(&problem, &array, objective);
        prop_assert_eq!(found.is_some(), expected.is_some());
        if let (Some(found), Some((expected, mapping))) = (found, expected) {
            let value = self::value(objective, &found.evaluation);
            prop_assert!((value / expected - 1.0).abs() < 1e-12, "{value} {expected} {mapping:?}");
            let whole = search(&problem, &array, &prices, objective, Pruning::None).unwrap();
            prop_assert_eq!(value, self::value(objective, &whole.evaluation));
            prop_assert!(whole.mappings_evaluated >= found.mappings_evaluated);
        }
    }

    #[test]
    fn more_hardware_or_fewer_bits_are_never_worse(
        mut problem in any_problem(),
        mut array in any_array(),
        o in 0..3usize,
        change in 0..6usize,
    ) {
        // With blocks forced to the largest that fit, a larger buffer may wait longer to fill.
        array.mapping.residency = Residency::Free;
        let objective = [Objective::Latency, Objective::Energy, Objective::Edp][o];
        let prices = array.prices().unwrap();
        let before = best(&problem, &array, &prices, objective);
        match change {
            0 => array.memory.bits_per_cycle += 7,
            1 => array.buffer[0].bytes += 333,
            2 => array.buffer[1].bytes += 333,
            3 => array.buffer[2].bytes += 333,
            4 => problem.weight_bits = (problem.weight_bits - 1).max(1),
            _ => problem.input_bits = (problem.input_bits - 1).max(1),
        }
        // The same prices: a larger SRAM would cost more a bit.
        let after = best(&problem, &array, &prices, objective);
        if let Some(before) = before {
            let after = after.expect("what fitted still fits");
            let (a, b) = (value(objective, &after.evaluation), value(objective, &before.evaluation));
            prop_assert!(a <= b * (1.0 + 1e-12), "{a} {b}");
        }
    }

    #[test]
    fn pareto_set_holds_the_best(problem in any_problem(), array in any_array()) {
        let prices = array.prices().unwrap();
        let front = pareto(&problem, &array, &prices);
        for objective in [Objective::Latency, Objective::Energy, Objective::Edp] {
            let Some(found) = best(&problem, &array, &prices, objective) else { continue };
            let least = front.iter().map(|(_, e)| value(objective, e)).fold(f64::INFINITY, f64::min);
            prop_assert!((least / value(objective, &found.evaluation) - 1.0).abs() < 1e-9);
        }
        let falling = |pair: &[(Mapping, Evaluation)]| {
            pair[0].1.cycles < pair[1].1.cycles && pair[0].1.energy_pj > pair[1].1.energy_pj
        };
        prop_assert!(front.windows(2).all(falling));
    }
}
