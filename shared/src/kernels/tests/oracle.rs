//! The truth: every formula of the module's page in `i64` on unpacked values, slowly. Shares no
//! code with the kernels.

use std::vec;
use std::vec::Vec;

use crate::format::{Bits, LayerShape, Op, Requant, TensorFormat};

/// A layer with values, in canonical form.
#[derive(Clone, Debug)]
pub struct Case {
    pub layer: LayerShape,
    pub requant: Requant,
    pub zero_point: u8,
    pub input: Vec<u8>,
    pub input2: Vec<u8>,
    pub weights: Vec<i8>,
    pub multipliers: Vec<i32>,
    pub biases: Vec<i32>,
}

/// A seeded stream of numbers.
pub struct Random(pub u64);

impl Random {
    /// A number in `0..n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (((self.0 >> 33) * n) >> 31).min(n - 1)
    }

    /// A number in `low..=high`.
    pub fn range(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as u64) as i64
    }
}

/// How values are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    Random,
    AllMax,
    MaxInputMinWeight,
    Extremes,
    MaxThenMin,
    MinThenMax,
}

impl Fill {
    pub const ALL: [Fill; 6] = [
        Fill::Random,
        Fill::AllMax,
        Fill::MaxInputMinWeight,
        Fill::Extremes,
        Fill::MaxThenMin,
        Fill::MinThenMax,
    ];
}

impl Case {
    /// A layer with values that keep the stated widths of the requantization.
    pub fn new(layer: LayerShape, requant: Requant, zero_point: u8, fill: Fill, seed: u64) -> Case {
        let mut random = Random(seed);
        let (amax, half) =
            (layer.bits.input.max_unsigned() as i64, layer.bits.weight.half() as i64);
        let activations = |random: &mut Random, amax: i64| -> Vec<u8> {
            (0..layer.input.elements())
                .map(|_| match fill {
                    Fill::Random => random.range(0, amax) as u8,
                    Fill::Extremes => (random.below(2) as i64 * amax) as u8,
                    _ => amax as u8,
                })
                .collect()
        };
        let input = activations(&mut random, amax);
        let second_max = layer.bits.weight.max_unsigned() as i64;
        let input2 = activations(&mut random, second_max);
        let row = layer.reduction().max(1);
        let weights: Vec<i8> = (0..if layer.op.has_weights() { layer.weights() } else { 0 })
            .map(|i| {
                let first = i % row < row / 2;
                (match fill {
                    Fill::Random => random.range(-half, half - 1),
                    Fill::AllMax => half - 1,
                    Fill::MaxInputMinWeight => -half,
                    Fill::Extremes if random.below(2) == 0 => -half,
                    Fill::Extremes => half - 1,
                    Fill::MaxThenMin => [-half, half - 1][usize::from(first)],
                    Fill::MinThenMax => [half - 1, -half][usize::from(first)],
                }) as i8
            })
            .collect();
        let channels = layer.output.c as usize;
        let mut case = Case {
            layer,
            requant,
            zero_point,
            input,
            input2,
            weights,
            multipliers: vec![],
            biases: vec![],
        };
        let omax = layer.bits.output.max_unsigned() as i64;
        match layer.op {
            Op::Add => {
                let m = (omax << 18) / (2 * amax.max(second_max));
                case.multipliers = vec![
                    random.range(-m, 2 * m) as i32,
                    random.range(-m, 2 * m) as i32,
                    random.range(-(omax << 16), omax << 17) as i32,
                ];
            }
            Op::AvgPool(w) => {
                let m = (omax << 18) / (amax * w.taps() as i64);
                case.multipliers =
                    vec![random.range(m / 2, m + m / 3) as i32, random.range(0, 1 << 17) as i32];
            }
            Op::MaxPool(_) => {}
            Op::Conv(_) | Op::Depthwise(_) | Op::Linear => {
                for channel in 0..channels {
                    let (low, high) = case.accumulator_range(channel);
                    let span = (high - low).max(1);
                    // Outputs cover a bit more than the codes, so that clamping happens too.
                    let middle = -(low + high) / 2;
                    let (m, b) = match requant {
                        Requant::Narrow => {
                            let m = ((omax + 2) << 18) / span;
                            let m = if random.below(4) == 0 { -m } else { m };
                            (m, middle * m + (((omax + 1) << 17) + random.range(0, 1 << 18)))
                        }
                        Requant::Wide => {
                            let m = (((omax + 20) << 22) / span).clamp(1, (1 << 21) - 1);
                            let m = if random.below(4) == 0 { -m } else { m };
                            (m, middle + ((omax + 1) << 21) / m)
                        }
                        Requant::General { shift } => {
                            let m = (((omax + 2) << shift) / span).clamp(1, 1 << 30);
                            (m, middle + ((omax + 1) << (shift - 1)) / m)
                        }
                    };
                    case.multipliers.push(i32::try_from(m).unwrap());
                    case.biases.push(i32::try_from(b).unwrap());
                }
            }
        }
        case
    }

    /// Smallest and largest accumulator the weights of `channel` allow.
    fn accumulator_range(&self, channel: usize) -> (i64, i64) {
        let k = self.layer.reduction();
        let amax = self.layer.bits.input.max_unsigned() as i64;
        let z = self.zero_point as i64;
        self.weights[channel * k..][..k].iter().fold((0, 0), |(low, high), &w| {
            let (a, b) = (-z * w as i64, (amax - z) * w as i64);
            (low + a.min(b), high + a.max(b))
        })
    }

    /// Output codes in HWC order.
    pub fn expected(&self) -> Vec<u8> {
        let layer = &self.layer;
        let window = layer.op.window();
        let (h, w, c) = (layer.input.h as i64, layer.input.w as i64, layer.input.c as i64);
        let at = |values: &[u8], y: i64, x: i64, channel: i64| -> Option<i64> {
            let inside = (0..h).contains(&y) && (0..w).contains(&x);
            inside.then(|| values[((y * w + x) * c + channel) as usize] as i64)
        };
        let clamp = |value: i64| value.clamp(0, (1i64 << layer.bits.output.get()) - 1) as u8;
        let mut out = Vec::new();
        for oy in 0..layer.output.h as i64 {
            for ox in 0..layer.output.w as i64 {
                for oc in 0..layer.output.c as i64 {
                    let taps = (0..window.kh as i64)
                        .flat_map(|ky| (0..window.kw as i64).map(move |kx| (ky, kx)));
                    let place = |ky: i64, kx: i64| {
                        (
                            oy * window.stride as i64 + ky - window.pads.top as i64,
                            ox * window.stride as i64 + kx - window.pads.left as i64,
                        )
                    };
                    out.push(match layer.op {
                        Op::Conv(_) | Op::Linear | Op::Depthwise(_) => {
                            let depthwise = matches!(layer.op, Op::Depthwise(_));
                            let mut acc = 0;
                            let mut index = oc as usize * layer.reduction();
                            for (ky, kx) in taps {
                                let (y, x) = place(ky, kx);
                                for ic in if depthwise { oc..oc + 1 } else { 0..c } {
                                    let value = at(&self.input, y, x, ic);
                                    let difference =
                                        value.map_or(0, |u| u - self.zero_point as i64);
                                    acc += difference * self.weights[index] as i64;
                                    index += 1;
                                }
                            }
                            let m = self.multipliers[oc as usize] as i64;
                            let b = self.biases[oc as usize] as i64;
                            clamp(match self.requant {
                                Requant::Narrow => {
                                    let value = acc * m + b;
                                    assert!(i32::try_from(value).is_ok(), "case too wide");
                                    value >> 18
                                }
                                Requant::Wide => ((acc + b) * m + (1 << 21)) >> 22,
                                Requant::General { shift } => {
                                    ((acc + b) * m + (1 << (shift - 1))) >> shift
                                }
                            })
                        }
                        Op::Add => {
                            let a = at(&self.input, oy, ox, oc).unwrap();
                            let b = at(&self.input2, oy, ox, oc).unwrap();
                            let m: Vec<i64> = self.multipliers.iter().map(|&m| m as i64).collect();
                            clamp((a * m[0] + b * m[1] + m[2]) >> 18)
                        }
                        Op::AvgPool(_) => {
                            let mut sum = 0;
                            for (ky, kx) in taps {
                                let (y, x) = place(ky, kx);
                                sum += at(&self.input, y, x, oc).unwrap();
                            }
                            let m = &self.multipliers;
                            clamp((sum * m[0] as i64 + m[1] as i64) >> 18)
                        }
                        Op::MaxPool(_) => {
                            let codes = taps.filter_map(|(ky, kx)| {
                                let (y, x) = place(ky, kx);
                                at(&self.input, y, x, oc)
                            });
                            clamp(codes.max().unwrap_or(0))
                        }
                    });
                }
            }
        }
        out
    }
}

/// Codes in HWC order as the packed tensor of `format`.
pub fn pack(format: TensorFormat, codes: &[u8]) -> Vec<u8> {
    let per_byte = if format.bits == Bits::B8 { 1 } else { 8 / format.bits.storage() as usize };
    let mut out = Vec::new();
    for pixel in codes.chunks(format.shape.c as usize) {
        let start = out.len();
        for group in pixel.chunks(per_byte) {
            let byte = group
                .iter()
                .enumerate()
                .fold(0, |byte, (i, &code)| byte | code << (i as u32 * (8 / per_byte as u32)));
            out.push(byte);
        }
        out.resize(start + format.pixel_bytes(), 0);
    }
    out
}
