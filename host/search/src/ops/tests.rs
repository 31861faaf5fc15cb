//! Every operator against finite differences, candle's own convolution, and cases worked by hand.

use super::candle::{Candle, Value};
use super::{Activation, Backend, Grid, Norm, Options, RunningStats, Slide, StepRule};

const B: Candle = Candle;

/// Reproducible values in -1 .. 1.
fn values(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn random(shape: &[usize], seed: u32) -> Vec<f32> {
    values(shape.iter().product(), seed)
}

/// Compares gradients of `sum(f(inputs) * fixed weights)` with central differences.
fn check(shapes: &[&[usize]], f: impl Fn(&[Value]) -> Value) {
    let data: Vec<Vec<f32>> =
        shapes.iter().enumerate().map(|(i, s)| random(s, i as u32 + 1)).collect();
    check_at(shapes, &data, f);
}

fn check_at(shapes: &[&[usize]], data: &[Vec<f32>], f: impl Fn(&[Value]) -> Value) {
    let loss = |inputs: &[Value]| {
        let out = f(inputs);
        let shape = B.shape(&out);
        let weights = B.tensor(&random(&shape, 99), &shape);
        B.sum(&B.mul(&out, &weights))
    };
    let vars: Vec<_> = data.iter().zip(shapes).map(|(d, s)| B.var(d, s)).collect();
    let leaves: Vec<Value> = vars.iter().map(|v| B.leaf(v)).collect();
    let grads = B.grad(loss(&leaves), &vars);
    for (i, grad) in grads.iter().enumerate() {
        let grad = grad.as_ref().expect("the loss depends on every input");
        assert_eq!(grad.len(), data[i].len());
        let scale = grad.iter().fold(1e-2f32, |m, g| m.max(g.abs()));
        // A few elements of each, first and last among them.
        let stride = (grad.len() / 23).max(1);
        for j in (0..grad.len()).step_by(stride).chain([grad.len() - 1]) {
            let at = |delta: f32| {
                let mut moved = data.to_vec();
                moved[i][j] += delta;
                let inputs: Vec<Value> =
                    moved.iter().zip(shapes).map(|(d, s)| B.tensor(d, s)).collect();
                f64::from(B.to_scalar(&loss(&inputs)))
            };
            let h = 4e-3f32;
            let numeric = ((at(h) - at(-h)) / f64::from(2.0 * h)) as f32;
            assert!(
                (numeric - grad[j]).abs() <= 2e-2 * scale,
                "input {i} element {j}: {} is {numeric} by differences",
                grad[j]
            );
        }
    }
}

fn slide(stride: usize, pads: [usize; 4]) -> Slide {
    Slide { stride, pads }
}

/// Windows that differ in everything: strides, asymmetric pads, kernels, sizes.
fn windows() -> Vec<([usize; 2], [usize; 2], Slide)> {
    vec![
        ([6, 5], [3, 3], slide(1, [1, 1, 1, 1])),
        ([7, 6], [3, 3], slide(2, [0, 1, 0, 1])),
        ([8, 8], [3, 3], slide(2, [1, 1, 1, 1])),
        ([9, 7], [5, 5], slide(1, [2, 2, 2, 2])),
        ([9, 8], [5, 5], slide(2, [1, 2, 2, 1])),
        ([10, 9], [7, 7], slide(1, [3, 3, 3, 3])),
        ([12, 5], [10, 4], slide(2, [5, 4, 1, 2])),
        ([5, 4], [1, 1], slide(1, [0; 4])),
        ([5, 4], [1, 1], slide(2, [0; 4])),
        ([6, 7], [3, 2], slide(3, [0, 0, 1, 2])),
        ([3, 3], [2, 2], slide(1, [0; 4])),
    ]
}

#[test]
fn convolutions_match_a_naive_sum() {
    for ([h, w], [kh, kw], slide) in windows() {
        for depthwise in [false, true] {
            let (n, c, oc) = (3, 4, if depthwise { 4 } else { 5 });
            let x = random(&[n, c, h, w], 1);
            let wshape: &[usize] = if depthwise { &[c, kh, kw] } else { &[oc, c, kh, kw] };
            let weight = random(wshape, 2);
            let (xt, wt) = (B.tensor(&x, &[n, c, h, w]), B.tensor(&weight, wshape));
            let out =
                if depthwise { B.depthwise(&xt, &wt, slide) } else { B.conv2d(&xt, &wt, slide) };
            let (oh, ow) = slide.output(h, w, kh, kw);
            assert_eq!(B.shape(&out), [n, oc, oh, ow]);
            let out = B.to_vec(&out);
            for (i, out) in out.iter().enumerate() {
                let (image, o, oy, ox) =
                    (i / (oc * oh * ow), i / (oh * ow) % oc, i / ow % oh, i % ow);
                let mut sum = 0.0f64;
                for ic in if depthwise { o..o + 1 } else { 0..c } {
                    for (ky, kx) in (0..kh * kw).map(|k| (k / kw, k % kw)) {
                        let y = (oy * slide.stride + ky).wrapping_sub(slide.pads[0]);
                        let x_ = (ox * slide.stride + kx).wrapping_sub(slide.pads[2]);
                        if y < h && x_ < w {
                            let wi = if depthwise { o } else { o * c + ic };
                            sum += f64::from(x[((image * c + ic) * h + y) * w + x_])
                                * f64::from(weight[(wi * kh + ky) * kw + kx]);
                        }
                    }
                }
                assert!((sum as f32 - out).abs() < 1e-5, "{kh}x{kw} {slide:?} {depthwise}");
            }
        }
    }
}

#[test]
fn convolution_matches_candle() {
    use candle_core::{Device, Tensor};
    let (x, w) = (random(&[5, 6, 9, 9], 3), random(&[7, 6, 3, 3], 4));
    let theirs = Tensor::from_slice(&x, (5, 6, 9, 9), &Device::Cpu)
        .and_then(|x| x.conv2d(&Tensor::from_slice(&w, (7, 6, 3, 3), &Device::Cpu)?, 1, 2, 1, 1))
        .and_then(|y| y.flatten_all()?.to_vec1::<f32>())
        .unwrap();
    let (x, w) = (B.tensor(&x, &[5, 6, 9, 9]), B.tensor(&w, &[7, 6, 3, 3]));
    let ours = B.to_vec(&B.conv2d(&x, &w, slide(2, [1; 4])));
    assert_eq!(ours.len(), theirs.len());
    assert!(ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() < 1e-5));
}

#[test]
fn convolution_gradients() {
    for ([h, w], [kh, kw], slide) in windows() {
        check(&[&[9, 3, h, w], &[2, 3, kh, kw]], |v| B.conv2d(&v[0], &v[1], slide));
        check(&[&[3, 3, h, w], &[3, kh, kw]], |v| B.depthwise(&v[0], &v[1], slide));
    }
}

#[test]
fn elementwise_and_shape_gradients() {
    check(&[&[2, 3], &[2, 3]], |v| B.mul(&B.add(&v[0], &v[1]), &B.add(&v[0], &v[0])));
    check(&[&[2, 6]], |v| B.scale(&B.reshape(&v[0], &[3, 4]), 0.7));
    check(&[&[2, 5, 3, 2]], |v| B.narrow(&v[0], 1, 1, 3));
    check(&[&[4, 2]], |v| B.narrow(&v[0], 0, 2, 2));
    check(&[&[2, 5, 5]], |v| B.crop(&v[0], 3, 3));
    check(&[&[2, 2, 7, 5]], |v| B.crop(&v[0], 3, 1));
    check(&[&[6]], |v| B.softmax(&v[0]));
    check(&[&[2, 4], &[2, 4], &[2, 4], &[3]], |v| B.weighted_sum(&v[..3], &v[3]));
    check(&[&[3, 4]], |v| B.sum(&v[0]));
    check(&[&[3, 2, 5, 4]], |v| B.avg_pool(&v[0], 2));
    check(&[&[3, 2, 5, 4]], |v| B.global_avg_pool(&v[0]));
    check(&[&[4, 3], &[5, 3]], |v| B.linear(&v[0], &v[1], None));
    check(&[&[4, 3], &[5, 3], &[5]], |v| B.linear(&v[0], &v[1], Some(&v[2])));
    // Away from the kink.
    let data = values(12, 5).iter().map(|x| x + 0.1 * x.signum()).collect();
    check_at(&[&[12]], &[data], |v| B.relu(&v[0]));
}

#[test]
fn values_of_small_operators() {
    let x = B.tensor(&[1., 2., 3., 4., 5., 6.], &[1, 1, 2, 3]);
    assert_eq!(B.to_vec(&B.avg_pool(&x, 2)), [3.0]);
    assert_eq!(B.to_vec(&B.global_avg_pool(&x)), [3.5]);
    assert_eq!(B.to_vec(&B.narrow(&x, 3, 1, 1)), [2.0, 5.0]);
    let w = B.tensor(&(0..25).map(|i| i as f32).collect::<Vec<_>>(), &[1, 5, 5]);
    assert_eq!(B.to_vec(&B.crop(&w, 3, 3)), [6., 7., 8., 11., 12., 13., 16., 17., 18.]);
}

#[test]
fn normalization_gradients() {
    let shapes: &[&[usize]] = &[&[4, 3, 5, 4], &[3], &[3]];
    let mut stats = RunningStats::new(3);
    stats.mean = vec![0.1, -0.2, 0.3];
    stats.var = vec![0.5, 1.0, 2.0];
    let plain = Activation::Identity;
    check(shapes, |v| B.batch_norm(&v[0], &v[1], &v[2], Norm::Batch, plain));
    check(shapes, |v| B.batch_norm(&v[0], &v[1], &v[2], Norm::Eval(&stats), plain));
    // With the activation inside or behind: the same.
    for frozen in [false, true] {
        let run = |fused: bool| {
            let vars = [0, 1, 2].map(|i| B.var(&random(shapes[i], i as u32 + 1), shapes[i]));
            let [x, gamma, beta] = [0, 1, 2].map(|i| B.leaf(&vars[i]));
            let norm = if frozen { Norm::Eval(&stats) } else { Norm::Batch };
            let out = if fused {
                B.batch_norm(&x, &gamma, &beta, norm, Activation::Relu)
            } else {
                B.relu(&B.batch_norm(&x, &gamma, &beta, norm, plain))
            };
            let weights = B.tensor(&random(shapes[0], 9), shapes[0]);
            (B.to_vec(&out), B.grad(B.sum(&B.mul(&out, &weights)), &vars))
        };
        assert_eq!(run(true), run(false));
    }
}

#[test]
fn normalization_normalizes_and_remembers() {
    let x = random(&[4, 2, 3, 3], 1).iter().map(|x| 3.0 * x + 5.0).collect::<Vec<_>>();
    let (one, zero) = (B.tensor(&[1.0; 2], &[2]), B.tensor(&[0.0; 2], &[2]));
    let mut stats = RunningStats::new(2);
    let input = B.tensor(&x, &[4, 2, 3, 3]);
    let norm = Norm::Train { stats: &mut stats, momentum: 0.25 };
    let out = B.to_vec(&B.batch_norm(&input, &one, &zero, norm, Activation::Identity));
    for c in 0..2 {
        let of = |v: &[f32]| -> (f32, f32) {
            let v: Vec<f32> = (0..36).map(|i| v[(i / 9 * 2 + c) * 9 + i % 9]).collect();
            let mean = v.iter().sum::<f32>() / 36.0;
            (mean, v.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 35.0)
        };
        let (mean, var) = of(&out);
        assert!(mean.abs() < 1e-5 && (var - 36.0 / 35.0).abs() < 1e-4);
        let (mean, var) = of(&x);
        assert!((stats.mean[c] - 0.25 * mean).abs() < 1e-5);
        assert!((stats.var[c] - (0.75 + 0.25 * var)).abs() < 1e-5);
    }
}

#[test]
fn loss_gradients_and_values() {
    let labels = [1, 0, 3];
    check(&[&[3, 4]], |v| B.cross_entropy(&v[0], &labels, 0.0));
    check(&[&[3, 4]], |v| B.cross_entropy(&v[0], &labels, 0.2));
    let teacher = random(&[3, 4], 7);
    check(&[&[3, 4]], |v| B.distillation(&v[0], &teacher, 3.0));
    let same = B.tensor(&teacher, &[3, 4]);
    assert!(B.to_scalar(&B.distillation(&same, &teacher, 2.0)).abs() < 1e-6);
    let even = B.tensor(&[0.0; 8], &[2, 4]);
    assert!((B.to_scalar(&B.cross_entropy(&even, &[0, 1], 0.1)) - 4f32.ln()).abs() < 1e-6);
}

#[test]
fn external_and_straight_through_gradients() {
    let (a, b) = (B.var(&[1.0, 2.0], &[2]), B.var(&[3.0], &[1]));
    let inputs = [B.leaf(&a), B.leaf(&b)];
    let cost = B.external(7.0, &inputs, &[vec![0.5, -1.0], vec![4.0]]);
    assert_eq!(B.to_scalar(&cost), 7.0);
    let hard = B.straight_through(&inputs[1], &[10.0]);
    assert_eq!(B.to_scalar(&hard), 10.0);
    let loss = B.add(&B.scale(&cost, 2.0), &B.mul(&hard, &hard));
    let grads = B.grad(loss, &[a, b]);
    assert_eq!(grads, [Some(vec![1.0, -2.0]), Some(vec![8.0 + 20.0])]);
}

#[test]
fn unused_parameters_have_no_gradient_and_detached_ones_none_either() {
    let (a, b, c) = (B.var(&[1.0], &[1]), B.var(&[2.0], &[1]), B.var(&[3.0], &[1]));
    let loss = B.mul(&B.leaf(&a), &B.detach(&B.leaf(&c)));
    assert_eq!(B.grad(loss, &[a, b, c]), [Some(vec![3.0]), None, None]);
}

/// Worked by hand: step 0.5 on the signed 2-bit grid {-2, -1, 0, 1}.
#[test]
fn quantizer_by_hand() {
    let x = [-2.0, -1.3, -1.2, -0.25, -0.2, 0.25, 0.3, 0.6, 0.7, 0.8, 9.0];
    //  /0.5:  -4    -2.6  -2.4  -0.5  -0.4  0.5   0.6  1.2  1.4  1.6  18
    let q = [-1.0, -1.0, -1.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5, 0.5];
    // The rounded value is on the grid where -2 <= round(x / s) <= 1.
    let pass = [0., 0., 1., 1., 1., 1., 1., 1., 1., 0., 0.];
    let (xv, step) = (B.var(&x, &[11]), B.var(&[0.5], &[1]));
    let out = B.fake_quant(&B.leaf(&xv), &B.leaf(&step), Grid::signed(2), false);
    assert_eq!(B.to_vec(&out), q);
    let grads = B.grad(B.sum(&out), &[xv, step]);
    assert_eq!(grads[0].as_ref().unwrap(), &pass);
    // Off the grid its bound, on it round(v) - v.
    let expected: f32 = [-2.0, -2.0, 0.4, 0.5, 0.4, -0.5, 0.4, -0.2, -0.4, 1.0, 1.0].iter().sum();
    let scale = 1.0 / 11f32.sqrt();
    assert!((grads[1].as_ref().unwrap()[0] - expected * scale).abs() < 1e-5);
}

/// Worked by hand, as above, with the clipping level 0.5 * 3 = 1.5 of the unsigned 2-bit grid.
#[test]
fn clipping_level_by_hand() {
    let x = [-1.0, 0.2, 0.3, 1.4, 1.6, 1.8, 9.0];
    let grid = Grid::unsigned(2).learned_by(StepRule::Pact);
    let (xv, step) = (B.var(&x, &[7]), B.var(&[0.5], &[1]));
    let out = B.fake_quant(&B.leaf(&xv), &B.leaf(&step), grid, false);
    assert_eq!(B.to_vec(&out), [0.0, 0.0, 0.5, 1.5, 1.5, 1.5, 1.5]);
    let weights = B.tensor(&[8.0, 8.0, 8.0, 8.0, 8.0, 1.0, 2.0], &[7]);
    let grads = B.grad(B.sum(&B.mul(&out, &weights)), &[xv, step]);
    assert_eq!(grads[0].as_ref().unwrap(), &[0.0, 8.0, 8.0, 8.0, 8.0, 0.0, 0.0]);
    // Two are clipped from above; d level = 3 d step.
    let dstep = grads[1].as_ref().unwrap()[0];
    assert!((dstep - 3.0 / 3.0).abs() < 1e-6, "{dstep}");
}

/// A zero point of 1 on two bits: codes 0 to 3 stand for -1 to 2 steps.
#[test]
fn zero_point_shifts_the_grid() {
    let grid = Grid::with_zero_point(2, 1);
    assert_eq!((grid.min, grid.max), (-1, 2));
    assert_eq!(Grid::with_zero_point(4, 8), Grid::signed(4));
    let x = B.tensor(&[-9.0, -0.6, 0.4, 0.9, 9.0], &[5]);
    let out = B.fake_quant(&x, &B.tensor(&[0.5], &[1]), grid, false);
    assert_eq!(B.to_vec(&out), [-0.5, -0.5, 0.5, 1.0, 1.0]);
    let codes = super::integers(&[-9.0, -0.6, 0.4, 0.9, 9.0], &[0.5], grid);
    assert_eq!(codes, [-1, -1, 1, 2, 2]);
}

/// What a quantizer is smooth in: its probabilities everywhere, and its step where all is clipped.
#[test]
fn smooth_parts_of_quantizers() {
    let grids = [Grid::signed(2), Grid::signed(4), Grid::with_zero_point(3, 2)];
    let x: Vec<f32> = random(&[2, 3, 4, 4], 1).iter().map(|x| 3.0 * x).collect();
    let input = B.tensor(&x, &[2, 3, 4, 4]);
    let steps = B.tensor(&[0.7, 0.2, 0.4], &[3]);
    let marks = [true, false, true];
    for channels in [None, Some(&marks[..])] {
        check(&[&[3]], |v| B.mixed_quant(&input, &steps, &v[0], &grids, true, channels));
    }
    let far: Vec<f32> = x.iter().map(|x| x + 9.0 * x.signum()).collect();
    let input = B.tensor(&far, &[2, 3, 4, 4]);
    // The gradient is the true one but for its stated factor, which this takes out again.
    for (rule, factor) in [(StepRule::Lsq, 48f32 * 1.0), (StepRule::Pact, 1.0)] {
        let grid = Grid::signed(2).learned_by(rule);
        let unscaled = |v: &[Value]| {
            let q = B.fake_quant(&input, &v[0], grid, true);
            let value = B.to_vec(&q);
            B.straight_through(&B.scale(&q, factor.sqrt()), &value)
        };
        check_at(&[&[1]], &[vec![0.5]], unscaled);
    }
}

#[test]
fn unsigned_grid_starts_at_zero_and_channels_have_their_steps() {
    let x = B.tensor(&[-1.0, 0.4, 0.6, 99.0, -1.0, 0.4, 0.6, 99.0], &[2, 4]);
    let steps = B.tensor(&[1.0, 0.1], &[2]);
    let out = B.to_vec(&B.fake_quant(&x, &steps, Grid::unsigned(4), false));
    let expected = [0.0, 0.0, 1.0, 15.0, 0.0, 0.4, 0.6, 1.5];
    assert!(out.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{out:?}");
}

/// The fused mixture is the weighted sum of plain quantizers, in value and in every gradient.
#[test]
fn mixture_is_the_weighted_sum() {
    let grids = [Grid::unsigned(2), Grid::unsigned(4), Grid::unsigned(8)];
    let shape = [3, 2, 70, 131]; // several blocks, not a multiple of anything
    let x: Vec<f32> = random(&shape, 1).iter().map(|x| 2.0 * x + 0.5).collect();
    let (steps, p) = (vec![0.5, 0.15, 0.01], vec![0.2, 0.5, 0.3]);
    let weights = B.tensor(&random(&shape, 2), &shape);
    let vars = || [B.var(&x, &shape), B.var(&steps, &[3]), B.var(&p, &[3])];
    let run = |fused: bool| {
        let vars = vars();
        let [xl, sl, pl] = [0, 1, 2].map(|i| B.leaf(&vars[i]));
        let out = if fused {
            B.mixed_quant(&xl, &sl, &pl, &grids, true, None)
        } else {
            let option = |i| B.fake_quant(&xl, &B.narrow(&sl, 0, i, 1), grids[i], true);
            B.weighted_sum(&[option(0), option(1), option(2)], &pl)
        };
        (B.to_vec(&out), B.grad(B.sum(&B.mul(&out, &weights)), &vars))
    };
    let ((a, da), (b, db)) = (run(true), run(false));
    let close = |a: &[f32], b: &[f32]| {
        let scale = a.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
        a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 2e-4 * scale)
    };
    assert!(close(&a, &b));
    for (a, b) in da.iter().zip(&db) {
        assert!(close(a.as_ref().unwrap(), b.as_ref().unwrap()));
    }
}

/// Normalization and mixture in one operator are the two one after the other.
#[test]
fn fused_normalization_is_the_composition() {
    let shape = [3, 4, 23, 29]; // a plane is longer than a strip and no multiple of the lanes
    let grids = [Grid::signed(2), Grid::signed(4)];
    let unsigned = [Grid::unsigned(2), Grid::unsigned(8)];
    let marks = [true, false, true, true];
    for (activation, grids) in [(Activation::Identity, grids), (Activation::Relu, unsigned)] {
        for (frozen, channels) in [(false, None), (true, None), (false, Some(&marks[..]))] {
            let run = |fused: bool| {
                let vars = [
                    B.var(&random(&shape, 1), &shape),
                    B.var(&random(&[4], 2), &[4]),
                    B.var(&random(&[4], 3), &[4]),
                    B.var(&[0.4, 0.05], &[2]),
                    B.var(&[0.7, 0.3], &[2]),
                ];
                let [x, gamma, beta, steps, p] = [0, 1, 2, 3, 4].map(|i| B.leaf(&vars[i]));
                let mut stats = RunningStats::new(4);
                let norm = match frozen {
                    true => Norm::Eval(&stats),
                    false => Norm::Train { stats: &mut stats, momentum: 0.5 },
                };
                let out = if fused {
                    let options = Options { grids: &grids, steps: &steps, p: &p, channels };
                    B.batch_norm_quant(&x, &gamma, &beta, norm, activation, &options)
                } else {
                    let real = B.batch_norm(&x, &gamma, &beta, norm, activation);
                    B.mixed_quant(&real, &steps, &p, &grids, true, channels)
                };
                let weights = B.tensor(&random(&shape, 9), &shape);
                (B.to_vec(&out), stats, B.grad(B.sum(&B.mul(&out, &weights)), &vars))
            };
            let ((a, a_stats, da), (b, b_stats, db)) = (run(true), run(false));
            assert_eq!((a, a_stats), (b, b_stats));
            for (da, db) in da.iter().flatten().zip(db.iter().flatten()) {
                let scale = da.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
                assert!(da.iter().zip(db).all(|(a, b)| (a - b).abs() <= 2e-5 * scale));
            }
        }
    }
}

#[test]
fn unmarked_channels_pass_unquantized() {
    let shape = [2, 3, 2, 2];
    let x = random(&shape, 1);
    let (xv, step, p) = (B.var(&x, &shape), B.var(&[0.5], &[1]), B.var(&[1.0], &[1]));
    let marks = [false, true, false];
    let grids = [Grid::signed(2)];
    let out = B.mixed_quant(&B.leaf(&xv), &B.leaf(&step), &B.leaf(&p), &grids, true, Some(&marks));
    let plain = B.fake_quant(&B.tensor(&x, &shape), &B.leaf(&step), grids[0], true);
    let (mixed, plain) = (B.to_vec(&out), B.to_vec(&plain));
    for i in 0..24 {
        assert_eq!(mixed[i], if i / 4 % 3 == 1 { plain[i] } else { x[i] });
    }
    let grads = B.grad(B.sum(&out), &[xv, step]);
    let dx = grads[0].as_ref().unwrap();
    assert!((0..24).all(|i| i / 4 % 3 == 1 || dx[i] == 1.0));
}

/// One thread and three give the same bits.
#[test]
fn results_do_not_depend_on_threads() {
    let run = || {
        let x = B.var(&random(&[19, 6, 12, 12], 1), &[19, 6, 12, 12]);
        let w = B.var(&random(&[8, 6, 3, 3], 2), &[8, 6, 3, 3]);
        let d = B.var(&random(&[8, 3, 3], 3), &[8, 3, 3]);
        let (gamma, beta) = (B.var(&[1.0; 8], &[8]), B.var(&[0.1; 8], &[8]));
        let (steps, p) = (B.var(&[0.4, 0.1], &[2]), B.var(&[0.5, 0.5], &[2]));
        let y = B.conv2d(&B.leaf(&x), &B.leaf(&w), slide(1, [1; 4]));
        let (g, b) = (B.leaf(&gamma), B.leaf(&beta));
        let y = B.batch_norm(&y, &g, &b, Norm::Batch, Activation::Relu);
        let grids = [Grid::unsigned(2), Grid::unsigned(4)];
        let y = B.mixed_quant(&y, &B.leaf(&steps), &B.leaf(&p), &grids, true, None);
        let y = B.depthwise(&y, &B.leaf(&d), slide(2, [1; 4]));
        let loss = B.cross_entropy(&B.global_avg_pool(&y), &[1; 19], 0.1);
        let value = B.to_scalar(&loss).to_bits();
        let grads = B.grad(loss, &[x, w, d, gamma, beta, steps, p]);
        let bits = |g: &Option<Vec<f32>>| -> Vec<u32> {
            g.as_ref().unwrap().iter().map(|v| v.to_bits()).collect()
        };
        (value, grads.iter().map(bits).collect::<Vec<_>>())
    };
    let one = super::candle::with_threads(1, run).unwrap();
    assert_eq!(one, super::candle::with_threads(3, run).unwrap());
}

#[test]
#[should_panic(expected = "differentiated once")]
fn a_graph_is_differentiated_once() {
    let a = B.var(&[1.0], &[1]);
    let loss = B.scale(&B.leaf(&a), 2.0);
    B.grad(loss.clone(), std::slice::from_ref(&a));
    B.grad(loss, &[a]);
}
