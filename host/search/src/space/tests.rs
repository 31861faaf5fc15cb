//! Choices and networks of a space, and mistakes in its file.

use super::*;
use crate::rng::{Purpose, Rng};

pub(crate) fn space() -> Space {
    let file = SpaceFile::load("fashion-mnist").unwrap();
    let classes: Vec<String> = (0..10).map(|c| c.to_string()).collect();
    Space::new(&file, Shape::new(28, 28, 1), &classes).unwrap()
}

/// A space whose supernet trains in seconds.
pub(crate) fn small_space() -> Space {
    let text = r#"
        name = "small"
        input = [28, 28, 1]
        weight_bits = [2, 4, 8]
        activation_bits = [2, 4, 8]
        stem = { kernel = 3, stride = 4, channels = 8 }
        head = { channels = 16 }
        [[stage]]
        blocks = 1
        channels = 8
        operators = ["bottleneck3e2", "bottleneck5e2", "fused3e2", "skip"]
        [[stage]]
        blocks = 1
        stride = 2
        channels = 12
        operators = ["bottleneck3e2", "bottleneck3e4", "fused3e2"]
    "#;
    let file = SpaceFile::parse("small", text).unwrap();
    let classes: Vec<String> = (0..10).map(|c| c.to_string()).collect();
    Space::new(&file, Shape::new(28, 28, 1), &classes).unwrap()
}

pub(crate) fn random_choice(space: &Space, seed: u64) -> Choice {
    let mut rng = Rng::at(seed, Purpose::Init, 0);
    Choice {
        operators: space.sections.iter().map(|s| rng.below(s.operators.len())).collect(),
        widths: space.genes.iter().map(|g| rng.below(g.options.len())).collect(),
    }
}

#[test]
fn every_choice_is_a_network() {
    let space = space();
    assert!(space.log10_networks() > 20.0);
    let mut macs = Vec::new();
    for seed in 0..200 {
        let network = space.network(&random_choice(&space, seed));
        network.validate().unwrap();
        macs.push(network.macs());
    }
    let (least, most) = (macs.iter().min().unwrap(), macs.iter().max().unwrap());
    assert!(*least > 100_000 && *most < 8_000_000, "{least} {most}");
}

#[test]
fn genes_are_all_used_and_shared_by_place() {
    let space = space();
    let mut used = vec![false; space.genes.len()];
    used[0] = true;
    for section in &space.sections {
        let outputs: Vec<usize> =
            section.operators.iter().filter_map(|(_, l)| Some(l.last()?.activation)).collect();
        assert!(outputs.windows(2).all(|w| w[0] == w[1]), "{}", section.name);
        for template in section.operators.iter().flat_map(|(_, layers)| layers) {
            used[template.activation] = true;
            template.weight.into_iter().for_each(|g| used[g] = true);
        }
    }
    let unused: Vec<&str> =
        space.genes.iter().zip(&used).filter(|(_, u)| !**u).map(|(g, _)| &*g.name).collect();
    assert!(unused.is_empty(), "{unused:?}");
}

/// Every kind of block, with and without stride.
pub(crate) fn kinds() -> Space {
    let text = r#"
        name = "kinds"
        input = [16, 16, 3]
        weight_bits = [4]
        activation_bits = [4]
        stem = { kernel = 3, stride = 1, channels = 8 }
        head = { channels = 16 }
        [[stage]]
        blocks = 2
        stride = 2
        channels = 12
        operators = ["bottleneck7e3", "fused5e2", "separable3", "separable7", "residual3", "residual5"]
    "#;
    let file = SpaceFile::parse("kinds", text).unwrap();
    Space::new(&file, Shape::new(16, 16, 3), &["a".to_owned(), "b".to_owned()]).unwrap()
}

#[test]
fn blocks_are_what_their_names_say() {
    let space = kinds();
    // Weights of the strided block (8 to 12 channels at 8x8 pixels), then of the other.
    for (operator, name, strided, plain) in [
        (0, "bottleneck7e3", 8 * 24 + 49 * 24 + 24 * 12, 12 * 36 + 49 * 36 + 36 * 12),
        (1, "fused5e2", 25 * 8 * 16 + 16 * 12, 25 * 12 * 24 + 24 * 12),
        (2, "separable3", 9 * 8 + 8 * 12, 9 * 12 + 12 * 12),
        (3, "separable7", 49 * 8 + 8 * 12, 49 * 12 + 12 * 12),
        (4, "residual3", 9 * 8 * 12 + 9 * 12 * 12, 2 * 9 * 12 * 12),
        (5, "residual5", 25 * 8 * 12 + 25 * 12 * 12, 2 * 25 * 12 * 12),
    ] {
        let parsed: Operator = name.parse().unwrap();
        assert_eq!(parsed.to_string(), name);
        let operators = vec![0, operator, operator, 0];
        let network = space.network(&Choice { operators, widths: vec![0; space.genes.len()] });
        network.validate().unwrap();
        let weights = |block: &str| -> usize {
            let shapes = network.shapes();
            let of = network.layers.iter().zip(&shapes).filter(|(l, _)| l.name.starts_with(block));
            of.map(|(l, shape)| if l.op == Op::Add { 0 } else { shape.weights() }).sum()
        };
        assert_eq!((weights("b1."), weights("b2.")), (strided, plain), "{name}");
        let adds: Vec<_> = network.layers.iter().filter(|l| l.op == Op::Add).collect();
        assert_eq!((adds.len(), &*adds[0].name), (1, "b2.add"));
        assert_eq!(adds[0].output.shape, Shape::new(8, 8, 12));
    }
    for wrong in ["separable", "separable4", "residual9", "residual3e2", "fused3"] {
        assert!(wrong.parse::<Operator>().is_err(), "{wrong}");
    }
}

#[test]
fn mistakes_in_a_file_are_named() {
    let good = SHIPPED[0].1;
    let error = |text: String| SpaceFile::parse("x.toml", &text).unwrap_err().to_string();
    for (from, to, named) in [
        ("bottleneck3e2", "bottleneck4e2", "`bottleneck4e2` is no operator"),
        ("weight_bits = [2, 4, 8]", "weight_bits = [2, 5]", "W<w>A<a>"),
        ("weight_bits = [2, 4, 8]", "weight_bits = []", "`weight_bits`"),
        ("[head]\nchannels = 96", "[head]\nchannels = 0", "head.channels"),
        ("stride = 2\nchannels", "stride = 9\nchannels", "stem"),
        ("kernel = 3", "kernel = 3\nkernels = 5", "kernels"),
        ("input = [28, 28, 1]", "", "input"),
    ] {
        assert!(good.contains(from));
        let message = error(good.replacen(from, to, 1));
        assert!(message.contains(named) && message.contains("x.toml"), "{message}");
    }
    let file = SpaceFile::load("fashion-mnist").unwrap();
    let message = Space::new(&file, Shape::new(32, 32, 3), &[]).unwrap_err().to_string();
    assert!(message.contains("[32, 32, 3]") && message.contains("--space"), "{message}");
    assert!(SpaceFile::for_images(Shape::new(5, 5, 1)).is_err());
    assert!(SpaceFile::load("nowhere.toml").unwrap_err().to_string().contains("nowhere.toml"));
}

#[test]
fn every_shipped_space_is_what_it_says() {
    for name in SpaceFile::names() {
        let file = SpaceFile::load(name).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(file.name, name);
        let [h, w, c] = file.input;
        let classes: Vec<String> = (0..file.classes).map(|c| c.to_string()).collect();
        let space = Space::new(&file, Shape::new(h, w, c), &classes).unwrap();
        assert!(space.log10_networks() > 20.0, "{name}");
        for seed in 0..20 {
            space.network(&random_choice(&space, seed)).validate().unwrap();
        }
        let found = SpaceFile::for_images(Shape::new(h, w, c)).unwrap();
        assert_eq!(found.name, name);
    }
}

/// The space for 32x32 images holds networks of a ResNet-8's capacity within 32 KB and 7.5 million
/// instructions on a Cortex-M7.
#[test]
fn colour_images_have_networks_within_the_small_budget() {
    use crate::discretize::Discretizer;
    use crate::objective::{CostWeights, Objective, Probabilities};
    use jaq_cost::{CostModel, Limits, Mcu, McuModel};
    let file = SpaceFile::load("cifar-10").unwrap();
    let classes: Vec<String> = (0..10).map(|c| c.to_string()).collect();
    let space = Space::new(&file, Shape::new(32, 32, 3), &classes).unwrap();
    let model = McuModel::new(Mcu::load("stm32h7").unwrap()).unwrap();
    let limits = Limits {
        instructions: Some(7.5e6),
        flash_bytes: Some(32 * 1024),
        ..Limits::of(model.board())
    };
    let objective = Objective::new(&space, &model, &limits, CostWeights::default()).unwrap();
    let discretizer = Discretizer::new(&space, &model, &objective, &limits);
    let found = discretizer.choose(&Probabilities::uniform(&space)).unwrap();
    assert_eq!(limits.check(&found.demand), []);
    // Dense residual blocks at both sizes, no block at full resolution, narrow everywhere.
    let operator = |section: usize, name: &str| {
        space.sections[section].operators.iter().position(|(n, _)| n == name).unwrap()
    };
    let operators = vec![
        0,
        operator(1, "skip"),
        operator(2, "residual3"),
        operator(3, "skip"),
        operator(4, "residual3"),
        operator(5, "skip"),
        operator(6, "skip"),
        0,
    ];
    let widths =
        space.genes.iter().map(|g| usize::from(g.name.ends_with(".output") && g.options.len() > 1));
    let choice = Choice { operators, widths: widths.collect() };
    let network = space.network(&choice);
    let weights: usize = network.shapes().iter().map(|l| l.weights()).sum();
    assert!(weights > 70_000 && network.macs() > 7_500_000, "{weights} {}", network.macs());
    let total = model.network(&network).unwrap().total;
    let (instructions, flash) = (total.instructions.unwrap(), total.weights_bytes);
    assert!(instructions < 6.8e6 && flash < 26 * 1024, "{instructions} {flash}");
}
