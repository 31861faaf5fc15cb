//! Writes the shipped Fashion-MNIST subset again from the installed full data set:
//! `cargo run --release -p jaq-search --example make_subset [FILE]`.

use std::path::PathBuf;

fn main() -> Result<(), jaq_search::data::DataError> {
    let default = "host/search/data/fashion-mnist-subset.xz";
    let path = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| default.into()));
    jaq_search::data::subset::make(&path)
}
