//! Oracle = general path = packed kernels, over shapes, widths, windows, zero points,
//! requantizations and extreme values.

mod oracle;

use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::format::{Bits, LayerBits, Pads, Shape, Window};
use oracle::{Case, Fill, pack};

/// Packed output of `kernel`, from packed input, stored tables and dirty scratch.
fn execute(kernel: KernelId, case: &Case) -> Vec<u8> {
    execute_by(|call| run(kernel, call), kernel, case)
}

/// The same by a function that understands the layout of `kernel`.
fn execute_by(run: impl FnOnce(Call<'_>), kernel: KernelId, case: &Case) -> Vec<u8> {
    let layer = &case.layer;
    let aligned = |bytes: Vec<u8>| -> Vec<u32> {
        let mut words = vec![0u32; bytes.len().div_ceil(4)];
        bytemuck::cast_slice_mut::<u32, u8>(&mut words)[..bytes.len()].copy_from_slice(&bytes);
        words
    };
    let input = aligned(pack(layer.input_format(), &case.input));
    let input2 = aligned(pack(layer.second_format(), &case.input2));
    let input_bytes = layer.input_format().bytes();
    let second_bytes = layer.second_format().bytes();
    let mut weights = vec![0xffff_ffffu32; packed_weight_bytes(kernel, layer) / 4];
    pack_weights(kernel, layer, &case.weights, bytemuck::cast_slice_mut(&mut weights));
    let (mut multipliers, mut biases) = (case.multipliers.clone(), case.biases.clone());
    assert_eq!((multipliers.len(), biases.len()), table_lengths(layer));
    prepare(
        kernel,
        layer,
        case.zero_point,
        &case.weights,
        case.requant,
        &mut multipliers,
        &mut biases,
    );
    let bytes = layer.output_format().bytes();
    let mut output = vec![0xa5a5_a5a5u32; bytes.div_ceil(4) + 1];
    let mut scratch = vec![0xdead_beefu32; scratch_bytes(kernel, layer) / 4 + 2];
    let words = scratch_bytes(kernel, layer) / 4;
    let run_output: &mut [u8] = bytemuck::cast_slice_mut(&mut output);
    run(Call {
        layer,
        input_zero_point: case.zero_point,
        requant: case.requant,
        input: &bytemuck::cast_slice(&input)[..input_bytes],
        input2: bytemuck::cast_slice(&input2).get(..second_bytes),
        weights: bytemuck::cast_slice(&weights),
        multipliers: &multipliers,
        biases: &biases,
        output: &mut run_output[..bytes],
        scratch: &mut scratch[..words],
    });
    let output: &[u8] = bytemuck::cast_slice(&output);
    assert!(output[bytes..].iter().all(|&b| b == 0xa5), "{kernel:?} writes past its output");
    assert_eq!(scratch[words..], [0xdead_beef; 2], "{kernel:?} writes past its scratch");
    output[..bytes].to_vec()
}

/// Runs every kernel that is offered for the case and compares with the oracle.
fn check(case: &Case) {
    let expected = pack(case.layer.output_format(), &case.expected());
    for isa in [Isa::Portable, Isa::Armv7em, Isa::Rv32im] {
        for kernel in candidates(&case.layer, case.requant, isa) {
            let found = execute(kernel, case);
            if kernel == KernelId::Word {
                // What cores with dot products of bytes run.
                assert_eq!(execute_by(word::run_bytes, kernel, case), expected, "{:?}", case.layer);
            }
            if let Some(at) = (0..found.len()).find(|&i| found[i] != expected[i]) {
                panic!(
                    "{kernel:?} byte {at}: {:#04x} where {:#04x} is right; {:?} {:?} zero {}",
                    found[at], expected[at], case.layer, case.requant, case.zero_point
                );
            }
        }
    }
}

/// The requantization the exporter would choose for the output's width.
fn natural(bits: Bits) -> Requant {
    if bits == Bits::B8 { Requant::Wide } else { Requant::Narrow }
}

fn any_bits() -> impl Strategy<Value = Bits> {
    prop::sample::select(Bits::ALL.to_vec())
}

fn any_layer(channels: Vec<u16>, out: Vec<u16>) -> impl Strategy<Value = LayerShape> {
    let window = (1u8..=4, 1u8..=4, 1u8..=3, (0u8..=2, 0u8..=2, 0u8..=2, 0u8..=2));
    let size = (1u16..=7, 1u16..=9);
    let channels = (prop::sample::select(channels), prop::sample::select(out));
    let bits = (any_bits(), any_bits(), any_bits());
    (0..8u8, window, size, channels, bits).prop_filter_map(
        "the window does not fit",
        |(op, (kh, kw, stride, (top, bottom, left, right)), (h, w), (c, oc), (wb, ib, ob))| {
            let mut window = Window { kh, kw, stride, pads: Pads { top, bottom, left, right } };
            let mut input = Shape::new(h, w, c);
            let mut bits = LayerBits { weight: wb, input: ib, output: ob };
            let op = match op {
                0 | 1 => Op::Conv(window),
                2 => Op::Conv(Window::POINT),
                3 | 4 => Op::Depthwise(window),
                5 => {
                    input = Shape::new(1, 1, c);
                    Op::Linear
                }
                6 => Op::Add,
                _ if stride == 1 => {
                    window.pads = Pads::default();
                    bits.weight = ib;
                    Op::AvgPool(window)
                }
                _ => {
                    bits = LayerBits { weight: ib, input: ib, output: ib };
                    Op::MaxPool(window)
                }
            };
            LayerShape::new(op, input, oc, bits)
        },
    )
}

fn any_requant(layer: &LayerShape, choice: u8) -> Requant {
    match choice {
        0..=5 => natural(layer.bits.output),
        6 => Requant::General { shift: 25 },
        _ => Requant::General { shift: 12 },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn every_kernel_equals_the_oracle(
        layer in any_layer(vec![1, 2, 3, 4, 5, 8, 13, 16, 24, 40], vec![1, 2, 3, 4, 5, 8, 10, 24]),
        choice in 0u8..8,
        signed in any::<bool>(),
        fill in prop::sample::select(Fill::ALL.to_vec()),
        seed in any::<u64>(),
    ) {
        let zero = if signed { layer.bits.input.half() as u8 } else { 0 };
        check(&Case::new(layer, any_requant(&layer, choice), zero, fill, seed));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn many_channels_equal_the_oracle(
        layer in any_layer(vec![64, 88, 100, 113, 160], vec![24, 40, 88, 100]),
        signed in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let zero = if signed { layer.bits.input.half() as u8 } else { 0 };
        check(&Case::new(layer, natural(layer.bits.output), zero, Fill::Random, seed));
    }
}

/// Long reductions of extreme values at every pair of widths.
#[test]
fn extremes_stay_exact() {
    let three = Window::same(3, 3, 1, 3, 3);
    let shapes = [
        (Op::Conv(three), Shape::new(3, 3, 64), 5),
        (Op::Conv(three), Shape::new(3, 3, 128), 4),
        (Op::Conv(three), Shape::new(2, 3, 256), 3),
        (Op::Linear, Shape::new(1, 1, 2304), 9),
        (Op::Conv(Window::POINT), Shape::new(3, 3, 1152), 4),
    ];
    for weight in Bits::ALL {
        for input in Bits::ALL {
            for (op, shape, channels) in shapes {
                let bits = LayerBits::uniform(weight, input);
                let layer = LayerShape::new(op, shape, channels, bits).unwrap();
                for fill in Fill::ALL {
                    check(&Case::new(layer, natural(input), 0, fill, 7));
                }
            }
        }
    }
}

#[test]
fn the_general_path_is_always_last_and_every_layer_has_one() {
    for weight in Bits::ALL {
        for input in Bits::ALL {
            let bits = LayerBits::uniform(weight, input);
            let ops = [
                Op::Conv(Window::POINT),
                Op::Depthwise(Window::same(3, 3, 1, 8, 8)),
                Op::Linear,
                Op::Add,
            ];
            for op in ops {
                let layer = LayerShape::new(op, Shape::new(8, 8, 16), 16, bits).unwrap();
                let last = candidates(&layer, natural(input), Isa::Armv7em).last().unwrap();
                let general = if op == Op::Add { KernelId::Add } else { KernelId::Reference };
                assert_eq!(last, general);
            }
        }
    }
}

#[test]
fn work_counts_padding_apart() {
    let bits = LayerBits::uniform(Bits::B4, Bits::B4);
    let window = Window::same(3, 3, 1, 4, 4);
    let layer = LayerShape::new(Op::Conv(window), Shape::new(4, 4, 2), 3, bits).unwrap();
    // Of 4x4x9 taps, a 3x3 window on 4x4 has (4+4+4-2)^2 = 100 inside.
    let work = work(KernelId::Reference, &layer, Isa::Portable);
    assert_eq!(work.count("inside MACs"), 100 * 6);
    assert_eq!(work.count("inside MACs") + work.count("padding MACs"), layer.macs());
    assert_eq!(work.count("calls"), 1);
    assert_eq!(work.count("nothing of this name"), 0);
}
