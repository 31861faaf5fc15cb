//! The process of one case: a step or a measurement for every line it reads.

use std::io::BufRead;
use std::time::Instant;

use jaq_search::ops::Backend;
use jaq_search::ops::candle::{Candle, with_threads};
use jaq_search::rng::{Purpose, Rng};

use crate::cases::Case;
use crate::model::Net;
use crate::native::Native;
use crate::{ALLOCATOR, BATCH};

/// Serves `case` until its input ends. A backend that is not built in ends at once.
pub fn run(case: &Case, threads: usize) {
    let served = match case.backend.as_str() {
        "jaq" => with_threads(threads, || serve(Candle, case)),
        "candle" => with_threads(threads, || serve(Native, case)),
        #[cfg(feature = "tch")]
        "tch" => with_threads(1, || serve(jaq_search::ops::tch::Torch::cpu(threads), case)),
        _ => std::process::exit(2),
    };
    if let Err(error) = served {
        eprintln!("{error}");
        std::process::exit(2);
    }
}

fn serve<B: Backend>(backend: B, case: &Case) {
    let [c, h, w] = case.model.input();
    let mut rng = Rng::at(3, Purpose::Augment, 0);
    let images: Vec<f32> = (0..BATCH * c * h * w).map(|_| rng.unit()).collect();
    let labels: Vec<u32> = (0..BATCH).map(|_| rng.below(10) as u32).collect();
    let mut net = Net::new(backend, case.model, case.quantization());
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let answer = if line == "saved" {
            net.saved(&images, &labels, live) as f64
        } else {
            let start = Instant::now();
            net.step(&images, &labels);
            start.elapsed().as_secs_f64()
        };
        println!("{answer}");
    }
}

/// Bytes that are allocated now.
fn live() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}
