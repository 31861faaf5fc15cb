//! `jaq-host data`: the data sets there are, and fetching those that are not.

use anyhow::Result;
use clap::{Args, Subcommand};
use jaq_search::data::{self, Dataset};
use serde::Serialize;

use super::print_json;
use crate::report::Table;

/// List the data sets, or fetch one.
#[derive(Debug, Args)]
pub struct Data {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Fetch a data set, check it against its known hash, and unpack it.
    Get {
        /// Its name.
        name: String,
    },
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    found: bool,
    train: usize,
    test: usize,
    shape: String,
    note: String,
}

impl Data {
    pub fn run(self) -> Result<()> {
        if let Some(Action::Get { name }) = &self.action {
            let path = data::fetch::get(name, &mut |line| eprintln!("{line}"))?;
            println!("{name} is in {}", path.display());
            return Ok(());
        }
        let rows: Vec<Row> = data::NAMES.iter().map(|name| row(name)).collect();
        if self.json {
            return print_json(&rows);
        }
        let mut table = Table::new(&["data set", "train", "test", "images", ""]);
        for r in &rows {
            table.row(&[&r.name, &r.train, &r.test, &r.shape, &r.note]);
        }
        print!("{table}");
        Ok(())
    }
}

fn row(name: &'static str) -> Row {
    match Dataset::open(name) {
        Ok(data) => Row {
            name,
            found: true,
            train: data.train.len(),
            test: data.test.len(),
            shape: format!("{}x{}x{}", data.shape.h, data.shape.w, data.shape.c),
            note: format!("accuracy on: {}", data.test_label),
        },
        Err(error) => Row {
            name,
            found: false,
            train: 0,
            test: 0,
            shape: String::new(),
            note: error.to_string(),
        },
    }
}
