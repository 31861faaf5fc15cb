//! `jaq-host boards`: what targets there are.

use anyhow::Result;
use clap::Args;
use jaq_cost::{Kind, Limits, Mcu, names};
use serde::Serialize;

use super::print_json;
use crate::report::{Table, kb};

/// List the boards, or show one.
#[derive(Debug, Args)]
pub struct Boards {
    /// A board's name or the path of a board file; all boards if left out.
    board: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    name: String,
    description: String,
    core: String,
    flash_bytes: u64,
    ram_bytes: u64,
    /// Ways to reach it, here: a link, or the board that emulates it.
    links: Vec<String>,
}

impl Boards {
    pub fn run(self) -> Result<()> {
        if let Some(name) = &self.board {
            let board = Mcu::load(name)?;
            if self.json {
                return print_json(&board);
            }
            let limits = Limits::of(&board);
            println!("{}: {}", board.name, board.description);
            println!("core {}, cost table {}", board.core.name, board.core.cost_table);
            for memory in &board.memory {
                println!(
                    "  {:10} {:#010x} {}",
                    memory.name,
                    memory.address,
                    kb(memory.size as usize)
                );
            }
            println!(
                "a model may take {} of flash and {} of RAM",
                kb(limits.flash_bytes.unwrap_or(0) as usize),
                kb(limits.ram_bytes.unwrap_or(0) as usize)
            );
            for (what, source) in &board.sources {
                println!("  {what}: {source}");
            }
            return Ok(());
        }
        let rows: Vec<Row> = names(Some(Kind::Mcu)).into_iter().map(row).collect::<Result<_>>()?;
        if self.json {
            return print_json(&rows);
        }
        let mut table = Table::new(&["board", "core", "flash for a model", "RAM", "links", ""]);
        for r in &rows {
            let (flash, ram) = (kb(r.flash_bytes as usize), kb(r.ram_bytes as usize));
            table.row(&[&r.name, &r.core, &flash, &ram, &r.links.join(", "), &r.description]);
        }
        print!("{table}");
        Ok(())
    }
}

fn row(name: &str) -> Result<Row> {
    let board = Mcu::load(name)?;
    let limits = Limits::of(&board);
    let mut links = Vec::new();
    if board.links.qemu.is_some() {
        links.push("qemu".to_owned());
    }
    if let Some(other) = &board.emulated_by {
        links.push(format!("qemu (as {other})"));
    }
    Ok(Row {
        name: board.name,
        description: board.description,
        core: board.core.name,
        flash_bytes: limits.flash_bytes.unwrap_or(0),
        ram_bytes: limits.ram_bytes.unwrap_or(0),
        links,
    })
}
