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
