//! `jaq-host boards`: what targets there are.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use clap::Args;
use jaq_cost::{
    CostTable, DesignSpace, Hardware, Kind, Limits, Mcu, Memory, Objective, Target, describe, names,
};
use jaq_deploy::firmware::TARGETS;
use jaq_deploy::link::{probe, qemu, rtl};
use jaq_network::Provenance;
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
    /// Processors: every memory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    memories: Vec<Memory>,
    /// Processors: whether a firmware is built for it here.
    firmware: Option<bool>,
    /// Processors: what figures are to be had on this machine, now.
    provenance: Vec<Provenance>,
    /// Processors: what it is that ran our firmware.
    hardware: Option<Ran>,
    /// Accelerators: area, where the description allows to tell.
    area_mm2: Option<f64>,
    /// Design spaces: how many accelerators.
    configurations: Option<usize>,
    /// Ways to reach it, here: a link, or the board that emulates it.
    links: Vec<String>,
    /// Why its costs cannot be predicted, if they cannot.
    problem: Option<String>,
}

/// What our firmware for a board has run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Ran {
    /// There is no such board: a machine of an emulator.
    EmulatedMachine,
    /// The core's own logic, simulated.
    SimulatedCore,
    /// Nothing: it was built at most.
    NeverRun,
    /// The board.
    Hardware,
}

impl Ran {
    fn of(board: &Mcu) -> Ran {
        match board.hardware {
            Hardware::Run => Ran::Hardware,
            Hardware::NeverRun if board.links.qemu.is_some() => Ran::EmulatedMachine,
            Hardware::NeverRun if board.links.rtl => Ran::SimulatedCore,
            Hardware::NeverRun => Ran::NeverRun,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Ran::EmulatedMachine => "emulated machine",
            Ran::SimulatedCore => "simulated core",
            Ran::NeverRun => "NEVER RUN",
            Ran::Hardware => "run",
        }
    }
}

/// What figures of a board are to be had on this machine, now.
fn provenance(board: &Mcu) -> Vec<Provenance> {
    let table = CostTable::load(&board.core.cost_table, measured_on(board)).is_ok();
    let machine = board.links.qemu.clone().or_else(|| {
        let other = Mcu::load(board.emulated_by.as_deref()?).ok()?;
        other.links.qemu
    });
    let emulated = machine.is_some_and(|machine| {
        let mut qemu = Command::new(qemu::emulator(&machine));
        qemu.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        qemu.status().is_ok_and(|status| status.success())
    });
    let simulated = board.links.rtl && rtl::simulator().is_ok();
    let built = TARGETS.iter().any(|target| target.board == board.name);
    let real =
        built && board.links.probe.is_some() && board.links.qemu.is_none() && !board.links.rtl;
    let measured = real && !probe::list().is_empty();
    [
        (table, Provenance::Predicted),
        (emulated, Provenance::Emulated),
        (simulated, Provenance::RtlSimulated),
        (measured, Provenance::Measured),
    ]
    .into_iter()
    .filter_map(|(here, provenance)| here.then_some(provenance))
    .collect()
}

fn measured_on(board: &Mcu) -> &str {
    board.emulated_by.as_deref().unwrap_or(&board.name)
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
        let row = row(name)?;
        println!("firmware here: {}", if row.firmware == Some(true) { "yes" } else { "none" });
        let texts: Vec<String> = row.provenance.iter().map(ToString::to_string).collect();
        println!("figures to be had here: {}", texts.join(", "));
        println!("our firmware on hardware: {}", Ran::of(&board).text());
        if let Some(problem) = row.problem {
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
        let mut boards = Table::new(&[
            "board",
            "core",
            "flash for a model",
            "RAM",
            "links",
            "firmware",
            "figures here",
            "on hardware",
            "",
        ]);
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
                    &if r.firmware == Some(true) { "yes" } else { "none" },
                    &r.provenance.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
                    &r.hardware.map_or("-", Ran::text),
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
        memories: Vec::new(),
        firmware: None,
        provenance: vec![Provenance::Predicted],
        hardware: None,
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
    if board.links.rtl {
        row.links.push("rtl".to_owned());
    }
    if board.links.probe.is_some() {
        row.links.push("probe".to_owned());
    }
    let table = CostTable::load(&board.core.cost_table, measured_on(&board));
    row.problem = table.err().map(|e| e.to_string());
    row.provenance = provenance(&board);
    row.hardware = Some(Ran::of(&board));
    row.firmware = Some(TARGETS.iter().any(|target| target.board == board.name));
    row.memories = board.memory.clone();
    row.flash_bytes = limits.flash_bytes;
    row.ram_bytes = limits.ram_bytes;
    row.core = Some(board.core.name);
    Ok(row)
}
