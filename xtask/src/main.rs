//! Project commands: setup, demo, test, bench.

fn main() {}
