//! Training speed and memory: images per second, forward and backward and optimizer.

mod model;

use std::time::Instant;

use jaq_search::ops::candle::{Candle, with_threads};
use jaq_search::rng::{Purpose, Rng};
use model::{Model, Net};

fn main() {
    let threads = std::env::args().nth(1).and_then(|t| t.parse().ok()).unwrap_or(2);
    with_threads(threads, || {
        for model in Model::ALL {
            for bits in [None, Some((4, 4))] {
                let mut net = Net::new(Candle, model, bits);
                let [c, h, w] = model.input();
                let mut rng = Rng::at(3, Purpose::Augment, 0);
                let images: Vec<f32> = (0..64 * c * h * w).map(|_| rng.unit()).collect();
                let labels: Vec<u32> = (0..64).map(|_| rng.below(10) as u32).collect();
                let mut best = f64::INFINITY;
                let mut all = Vec::new();
                let mut loss = 0.0;
                for _ in 0..12 {
                    let start = Instant::now();
                    loss = net.step(&images, &labels);
                    let t = start.elapsed().as_secs_f64();
                    best = best.min(t);
                    all.push(t);
                }
                all.sort_by(f64::total_cmp);
                println!(
                    "{} {bits:?} {:.2} MMAC: best {:.0} images/s, median {:.0}, loss {loss:.3}",
                    model.name(),
                    net.macs as f64 / 1e6,
                    64.0 / best,
                    64.0 / all[all.len() / 2]
                );
            }
        }
    })
    .expect("a thread pool");
}
