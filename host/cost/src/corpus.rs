//! Which layers to measure: the corpus that tables are fitted to, and fresh layers to judge them by.
//!
//! Deterministic: every family of layers, every pair of widths, sizes from a single pixel or channel
//! to those of small networks, drawn from a fixed seed. The corpus has odd heights and widths alone,
//! so that no network's own layers are in it. Must not know: what a layer costs.

use std::collections::HashSet;

use jaq_network::SplitMix64;
use jaq_shared::format::{Bits, LayerBits, LayerShape, Op, Pads, Requant, Shape, Window};
use jaq_shared::kernels::{self, Isa, KernelId};

/// Draws of every pair of widths and family.
const DRAWS: usize = 8;
/// Most products of a layer: emulated ones are counted in a few milliseconds.
const MOST_MACS: u64 = 1_500_000;
/// Most outputs of a layer without weights.
const MOST_ELEMENTS: usize = 8_000;

/// The kernel an exporter prefers for `layer`.
pub fn usual_kernel(layer: &LayerShape, isa: Isa) -> Option<KernelId> {
    kernels::candidates(layer, Requant::usual(layer.bits.output), isa).next()
}

/// The layers to measure on a core with `isa`: each as a network of its own.
pub fn corpus(isa: Isa) -> Vec<LayerShape> {
    let mut draw = Draw { random: SplitMix64(0x6a61_7121), odd: true };
    let mut found = HashSet::new();
    let mut layers = Vec::new();
    let mut add = |layer: LayerShape| {
        if usual_kernel(&layer, isa).is_some() && found.insert(layer) {
            layers.push(layer);
        }
    };
    for weight in Bits::ALL {
        for input in Bits::ALL {
            for family in Family::ALL {
                // Outputs as wide as inputs, and every width once.
                for output in [input; DRAWS - Bits::ALL.len()].into_iter().chain(Bits::ALL) {
                    add(draw.layer(family, LayerBits { weight, input, output }));
                }
            }
        }
    }
    layers
}

/// `count` layers drawn by another seed: of any size, none of them in the corpus.
pub fn fresh(isa: Isa, seed: u64, count: usize) -> Vec<LayerShape> {
    let mut known: HashSet<_> = corpus(isa).into_iter().collect();
    let mut draw = Draw { random: SplitMix64(seed ^ 0x0dd5_eed5_0000), odd: false };
    let mut layers = Vec::new();
    while layers.len() < count {
        let family = Family::ALL[draw.below(Family::ALL.len())];
        let [weight, input, other] = [(); 3].map(|()| Bits::ALL[draw.below(4)]);
        let output = if draw.below(2) == 0 { input } else { other };
        let layer = draw.layer(family, LayerBits { weight, input, output });
        if usual_kernel(&layer, isa).is_some() && known.insert(layer) {
            layers.push(layer);
        }
    }
    layers
}

/// Families of layers, by what networks are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Pointwise,
    Conv,
    /// Few input channels, as the first layer of a network.
    First,
    Depthwise,
    /// Depthwise with a window that no packed kernel takes.
    Large,
    Linear,
    Add,
    AveragePool,
    MaxPool,
}

impl Family {
    /// Those with more ways through their kernels more often.
    const ALL: [Family; 13] = [
        Family::Pointwise,
        Family::Pointwise,
        Family::Conv,
        Family::First,
        Family::Depthwise,
        Family::Depthwise,
        Family::Depthwise,
        Family::Depthwise,
        Family::Large,
        Family::Linear,
        Family::Add,
        Family::AveragePool,
        Family::MaxPool,
    ];
}

/// A seeded source of layers.
struct Draw {
    random: SplitMix64,
    /// Whether heights and widths are odd.
    odd: bool,
}

impl Draw {
    fn below(&mut self, end: usize) -> usize {
        self.random.below(end as u64) as usize
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// A height or width.
    fn side(&mut self) -> u16 {
        let side = self.of(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 24]);
        if self.odd { side | 1 } else { side }
    }

    /// A number of channels: every other one as networks have it.
    fn channels(&mut self, most: u16) -> u16 {
        let regular = [4, 8, 12, 16, 24, 32, 40, 48, 64, 80, 96, 128];
        let any = self.below(usize::from(most.min(72))) as u16 + 1;
        let regular = self.of(&regular);
        if self.below(2) == 0 { regular.min(most) } else { any }
    }

    /// A window over an input of `h` x `w`: with TensorFlow's padding, none, or any.
    fn window(&mut self, k: [u8; 2], h: u16, w: u16) -> Window {
        let stride = self.of(&[1, 1, 1, 2, 2, 3]);
        let [kh, kw] = k;
        let none = Pads::default();
        let pads = match self.below(4) {
            0 => none,
            1 => Pads { top: (kh / 2).min(1), left: (kw / 2).min(1), bottom: 0, right: kw / 2 },
            _ => Window::same(kh, kw, stride, h, w).pads,
        };
        Window { kh, kw, stride, pads }
    }

    /// A layer of the family: the first draw that exists and is small enough.
    fn layer(&mut self, family: Family, bits: LayerBits) -> LayerShape {
        loop {
            if let Some(layer) = self.attempt(family, bits).filter(|layer| {
                let elements = layer.input.elements().max(layer.output.elements());
                layer.output.elements() > 0
                    && (layer.op.has_weights() || elements <= MOST_ELEMENTS)
                    && layer.macs() <= MOST_MACS
            }) {
                return layer;
            }
        }
    }

    fn attempt(&mut self, family: Family, bits: LayerBits) -> Option<LayerShape> {
        let (h, w) = (self.side(), self.side());
        // A few channels, as many as a kernel takes together or less, every now and then.
        let [ic, oc] = [(); 2].map(|()| {
            let most = self.of(&[96, 96, 96, 96, 96, 4]);
            self.channels(most)
        });
        let square = self.of(&[2, 3, 3, 3, 5, 7]);
        let k = match self.below(4) {
            0 => [self.of(&[1, 3, 10]), self.of(&[1, 3, 4])],
            _ => [square, square],
        };
        let (op, input) = match family {
            Family::Pointwise if self.below(5) == 0 => {
                (Op::Conv(Window { stride: 2, ..Window::POINT }), Shape::new(h, w, ic))
            }
            Family::Pointwise => (Op::Conv(Window::POINT), Shape::new(h, w, ic)),
            Family::Conv => (Op::Conv(self.window(k, h, w)), Shape::new(h, w, ic.min(64))),
            Family::First => {
                (Op::Conv(self.window(k, h, w)), Shape::new(h, w, self.of(&[1, 2, 3, 4])))
            }
            Family::Depthwise => (Op::Depthwise(self.window(k, h, w)), Shape::new(h, w, ic)),
            Family::Large => {
                let k = self.of(&[[9, 9], [10, 4], [9, 1], [7, 10]]);
                (Op::Depthwise(self.window(k, h, w)), Shape::new(h, w, ic))
            }
            Family::Linear => {
                (Op::Linear, Shape::new(1, 1, self.of(&[ic, 2 * ic + 1, 5 * ic, 9 * ic + 4])))
            }
            Family::Add => (Op::Add, Shape::new(h, w, ic)),
            Family::AveragePool | Family::MaxPool => {
                let global = Window { kh: h.min(15) as u8, kw: w.min(15) as u8, ..Window::POINT };
                let window = match self.below(3) {
                    0 => global,
                    1 => Window { kh: 2, kw: 2, stride: 2, ..Window::POINT },
                    _ => Window { kh: 3, kw: 3, stride: self.of(&[1, 2]), ..Window::POINT },
                };
                let op = if family == Family::MaxPool { Op::MaxPool } else { Op::AvgPool };
                let c = if self.below(3) == 0 { self.of(&[1, 2, 3]) } else { ic };
                (op(window), Shape::new(h, w, c))
            }
        };
        let bits = match op {
            Op::AvgPool(_) => LayerBits { weight: bits.input, ..bits },
            Op::MaxPool(_) => LayerBits { weight: bits.input, output: bits.input, ..bits },
            _ => bits,
        };
        LayerShape::new(op, input, if op.has_weights() { oc } else { input.c }, bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corpus_is_broad_and_stays_the_same() {
        for isa in [Isa::Armv7em, Isa::Armv6m, Isa::Rv32im] {
            let layers = corpus(isa);
            assert_eq!(layers, corpus(isa));
            let kernels: HashSet<_> = layers.iter().filter_map(|l| usual_kernel(l, isa)).collect();
            let pairs: HashSet<_> = layers.iter().map(|l| (l.bits.weight, l.bits.input)).collect();
            assert_eq!(pairs.len(), 16);
            assert!(kernels.len() >= 6, "{kernels:?}");
            for layer in &layers {
                assert!(layer.input.h % 2 == 1 && layer.input.w % 2 == 1, "{layer:?}");
            }
            let other = fresh(isa, 1, 100);
            assert!(other.len() == 100 && other.iter().all(|layer| !layers.contains(layer)));
        }
    }

    /// What a table prices must have been measured.
    #[test]
    fn every_count_of_a_fresh_layer_occurs_in_the_corpus() {
        for isa in [Isa::Armv7em, Isa::Armv6m, Isa::Rv32im] {
            let names = |layers: Vec<LayerShape>| -> HashSet<_> {
                let of = |layer: LayerShape| {
                    let kernel = usual_kernel(&layer, isa).unwrap();
                    kernels::work(kernel, &layer, isa)
                        .counts()
                        .map(|(name, _)| (kernel, name))
                        .collect()
                };
                layers.into_iter().flat_map(|layer| -> Vec<_> { of(layer) }).collect()
            };
            let (known, seen) = (names(corpus(isa)), names(fresh(isa, 7, 2000)));
            assert_eq!(seen.difference(&known).collect::<Vec<_>>(), Vec::<&_>::new(), "{isa:?}");
        }
    }
}
