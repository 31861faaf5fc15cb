//! `jaq-host boards`: what targets there are.

use anyhow::{Context, Result};
use clap::Args;
use jaq_cost::{CostTable, DesignSpace, Kind, Limits, Mcu, Objective, Target, describe, names};
use serde::Serialize;

use super::print_json;
use crate::report::{Table, kb};

/// List the boards and accelerators, or show one.
#[derive(Debug, Args)]
pub struct Boards {
    /// A target's name or the path of its file; all targets if left out.
    board: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    name: String,
    description: String,
    kind: Kind,
    /// Processors: the core.
    core: Option<String>,
    /// Processors: memory that a model may take.
    flash_bytes: Option<u64>,
    ram_bytes: Option<u64>,
    /// Accelerators: area, where the description allows to tell.
    area_mm2: Option<f64>,
    /// Design spaces: how many accelerators.
    configurations: Option<usize>,
    /// Ways to reach it, here: a link, or the board that emulates it.
    links: Vec<String>,
    /// Why its costs cannot be predicted, if they cannot.
    problem: Option<String>,
}

impl Boards {
    pub fn run(self) -> Result<()> {
        match &self.board {
            Some(name) => self.show(name),
            None => self.list(),
        }
    }

    fn show(&self, name: &str) -> Result<()> {
        let (kind, description, text) = describe(name)?;
        if kind != Kind::Mcu {
            // Its model checks the file.
            match kind {
                Kind::DesignSpace => drop(DesignSpace::load(name)?),
                _ => drop(Target::load(name, Objective::Latency)?),
            }
            if self.json {
                let value: serde_json::Value = toml::from_str(&text).context("checked above")?;
                return print_json(&value);
            }
            println!("{name}: {description}\n");
            print!("{text}");
            return Ok(());
        }
        let board = Mcu::load(name)?;
        if self.json {
            return print_json(&board);
        }
        let limits = Limits::of(&board);
        println!("{}: {}", board.name, board.description);
        println!("core {}, cost table {}", board.core.name, board.core.cost_table);
        if let Some(problem) = row(name)?.problem {
            println!("{problem}");
        }
        for memory in &board.memory {
            println!("  {:10} {:#010x} {}", memory.name, memory.address, kb(memory.size as usize));
        }
        println!(
            "a model may take {} of flash and {} of RAM",
            kb(limits.flash_bytes.unwrap_or(0) as usize),
            kb(limits.ram_bytes.unwrap_or(0) as usize)
        );
        for (what, source) in &board.sources {
            println!("  {what}: {source}");
        }
        Ok(())
    }

    fn list(&self) -> Result<()> {
        let rows: Vec<Row> = names(None).into_iter().map(row).collect::<Result<_>>()?;
        if self.json {
            return print_json(&rows);
        }
        let mut boards = Table::new(&["board", "core", "flash for a model", "RAM", "links", ""]);
        let mut spaces = Table::new(&["design space", "configurations", ""]);
        let mut accelerators = Table::new(&["accelerator", "area (mm2)", ""]);
        for r in &rows {
            let size = |bytes: Option<u64>| bytes.map_or("-".to_owned(), |b| kb(b as usize));
            let core = r.core.as_deref().unwrap_or("-");
            let area = r.area_mm2.map_or("-".to_owned(), |area| format!("{area:.2}"));
            match r.kind {
                Kind::Mcu => boards.row(&[
                    &r.name,
                    &core,
                    &size(r.flash_bytes),
                    &size(r.ram_bytes),
                    &r.links.join(", "),
                    &r.description,
                ]),
                Kind::Accelerator => accelerators.row(&[&r.name, &area, &r.description]),
                Kind::DesignSpace => {
                    spaces.row(&[&r.name, &r.configurations.unwrap_or(0), &r.description]);
                }
            }
        }
        println!("{boards}\n{accelerators}\n{spaces}");
        for r in &rows {
            if let Some(problem) = &r.problem {
                println!("{}: {problem}", r.name);
            }
        }
        Ok(())
    }
}

fn row(name: &str) -> Result<Row> {
    let (kind, description, _) = describe(name)?;
    let mut row = Row {
        name: name.to_owned(),
        description,
        kind,
        core: None,
        flash_bytes: None,
        ram_bytes: None,
        area_mm2: None,
        configurations: None,
        links: Vec::new(),
        problem: None,
    };
    match kind {
        Kind::Accelerator => {
            row.area_mm2 = Target::load(name, Objective::Latency)?.area_mm2();
            return Ok(row);
        }
        Kind::DesignSpace => {
            row.configurations = Some(DesignSpace::load(name)?.len());
            return Ok(row);
        }
        Kind::Mcu => {}
    }
    let board = Mcu::load(name)?;
    let limits = Limits::of(&board);
    if board.links.qemu.is_some() {
        row.links.push("qemu".to_owned());
    }
    if let Some(other) = &board.emulated_by {
        row.links.push(format!("qemu (as {other})"));
    }
    let measured_on = board.emulated_by.as_deref().unwrap_or(&board.name);
    row.problem = CostTable::load(&board.core.cost_table, measured_on).err().map(|e| e.to_string());
    row.flash_bytes = limits.flash_bytes;
    row.ram_bytes = limits.ram_bytes;
    row.core = Some(board.core.name);
    Ok(row)
}
