//! Training by integers and the device's integers are one: what `Phase::Integers` computes with
//! floats is what the packed model computes, code for code.

use jaq_cost::{Mcu, plan};
use jaq_deploy::engine::Engine;
use jaq_deploy::export::{Origin, choose_kernels, integers, pack};
use jaq_network::{Bits, Network, reference};
use jaq_search::checkpoint::Values;
use jaq_search::data::{Dataset, Split, plain, subset};
use jaq_search::ops::Backend;
use jaq_search::ops::candle::Candle;
use jaq_search::rng::{Purpose, Rng};
use jaq_search::space::{Choice, Space, SpaceFile};
use jaq_search::subnet::{Phase, Subnet};

/// Of the logit codes of 12 images, how many are equal, and how many there are.
fn agreement(network: &Network, data: &Dataset) -> (usize, usize) {
    let b = Candle;
    let shape = data.shape;
    let [h, w, c] = [shape.h, shape.w, shape.c].map(usize::from);
    let batch = |range: std::ops::Range<usize>| {
        let (images, labels) = plain(&data.train, shape, range);
        b.tensor(&images, &[labels.len(), c, h, w])
    };
    let mut subnet = Subnet::new(&b, network, true, &Values::new(), 7).unwrap();
    subnet.forward(&b, batch(0..32), Phase::Calibrate);
    subnet.forward(&b, batch(32..64), Phase::Estimate(1.0));
    let trained = subnet.export(&b).unwrap();
    let step = trained.scales[trained.scales.len() - 1];
    let logits = b.to_vec(&subnet.forward(&b, batch(0..12), Phase::Integers));

    let board = Mcu::load("stm32h7").unwrap();
    let tables = integers(&trained).unwrap();
    let kernels = choose_kernels(&trained, &tables, board.isa()).unwrap();
    let schedule = plan(network, &kernels).schedule;
    let name = |text: &str| text.to_owned();
    let origin = Origin { tool: name("test"), board: board.name, data: name("test"), seed: 7 };
    let packed = pack(&trained, &tables, &schedule, &origin).unwrap();
    let mut engine = Engine::new(&packed.bytes).unwrap();
    let classes = usize::from(network.layers.last().unwrap().output.shape.c);
    let mut equal = 0;
    for (index, row) in logits.chunks(classes).enumerate() {
        let codes = engine.infer(data.train.image(index)).unwrap();
        let found = row.iter().map(|real| ((real / step).round() as i32 + 128) as u8);
        equal += found.zip(&codes).filter(|(a, b)| a == *b).count();
    }
    (equal, logits.len())
}

#[test]
fn searched_networks_train_on_the_devices_integers() {
    let data = subset::open().unwrap().reduced(64, 8);
    let file = SpaceFile::load("fashion-mnist").unwrap();
    let space = Space::new(&file, data.shape, &data.classes).unwrap();
    for seed in 0..3 {
        let mut rng = Rng::at(seed, Purpose::Init, 0);
        let choice = Choice {
            operators: space.sections.iter().map(|s| rng.below(s.operators.len())).collect(),
            widths: space.genes.iter().map(|g| rng.below(g.options.len())).collect(),
        };
        let (equal, all) = agreement(&space.network(&choice), &data);
        // Sums of floats may miss an accumulator, and a rounding may then go to the other side.
        assert!(equal * 100 >= all * 98, "network {seed}: {equal} of {all} codes");
    }
}

#[test]
fn residual_networks_train_on_the_devices_integers() {
    let network = reference::network("resnet8").unwrap();
    let shape = network.input.shape;
    let mut rng = Rng::at(1, Purpose::Augment, 0);
    let images = (0..64 * shape.elements()).map(|_| rng.below(256) as u8).collect();
    let train = Split { images, labels: vec![0; 64] };
    let data = Dataset { train, shape, ..subset::open().unwrap() };
    for bits in [Bits::B2, Bits::B4, Bits::B8] {
        let (equal, all) = agreement(&network.with_uniform_bits(bits, bits), &data);
        assert!(equal * 100 >= all * 98, "{bits} bits: {equal} of {all} codes");
    }
}
