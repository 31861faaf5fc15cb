//! Searches, retrains, packs, deploys and validates tiny low-bit neural networks.

fn main() {}
