//! `jaq-host calibrate`: fits a board's cost table to runs of our own kernels on it.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use jaq_cost::calibrate::{Measurement, fit_table, from_csv, to_csv};
use jaq_cost::corpus::corpus;
use jaq_cost::{Fit, Mcu, Unit};
use jaq_deploy::count::{Slow, count_corpus};
use jaq_deploy::firmware::Firmware;
use jaq_deploy::link;
use jaq_deploy::link::rtl::{CALIBRATION_WAITS, Waits};

use super::device::{DeviceArgs, Via, deploy};
use super::print_json;
use super::progress::Bar;
use crate::report::{Table, percent};
use crate::run::write_whole;

/// Fit the cost table of a board to counted runs of every kernel.
///
/// Writes the table and, beside it, the measurements it was fitted to. Every fourth measurement
/// is held out of the fit; its error is in the table.
#[derive(Debug, Args)]
pub struct Calibrate {
    /// Board to measure.
    #[arg(long, default_value = "mps2-an500")]
    board: String,
    #[command(flatten)]
    device: DeviceArgs,
    /// Fit to the counted runs of this file, as an earlier calibration wrote it; run nothing.
    #[arg(long, value_name = "FILE")]
    measurements: Option<PathBuf>,
    /// Folder that the table is written into.
    #[arg(long, default_value = "boards/tables")]
    out: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Calibrate {
    pub fn run(self) -> Result<()> {
        let mut board = Mcu::load(&self.board)?;
        if self.device.link(&board) == Via::Rtl {
            // Cycles are this core's own: not those of the instruction set that others share.
            board.core.cost_table.clone_from(&board.name);
        }
        if !self.out.is_dir() {
            bail!(
                "there is no folder {}; run this in the repository, or name one with --out",
                self.out.display()
            );
        }
        let (unit, measurements, machine) = match &self.measurements {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                let (unit, found) = from_csv(&text)
                    .with_context(|| format!("{} holds no measurements", path.display()))?;
                (unit, found, board.name.clone())
            }
            None => self.measure(&board)?,
        };
        let via = format!("{:?}", self.device.link(&board)).to_lowercase();
        let source = format!("{} counts on {machine} via {via}", measurements.len());
        let refit = format!("jaq-host calibrate --board {} --via {via}", board.name);
        let table = fit_table(&board, unit, &source, &refit, &measurements)?;

        let name = &table.name;
        write_whole(
            &self.out.join(format!("{name}.measurements.csv")),
            to_csv(unit, &measurements).as_bytes(),
        )?;
        write_whole(&self.out.join(format!("{name}.toml")), table.to_toml().as_bytes())?;
        if self.json {
            return print_json(&table);
        }
        let mut rows =
            Table::new(&["kernel", "fitted on", "median", "worst", "held out", "median", "worst"]);
        let mut row = |name: &str, fit: &Fit| {
            let e = &fit.error;
            rows.row(&[
                &name,
                &e.points,
                &percent(e.median),
                &percent(e.worst),
                &e.held_out_points,
                &percent(e.held_out_median),
                &percent(e.held_out_worst),
            ]);
        };
        for (kernel, cost) in &table.kernels {
            row(kernel, &cost.counted);
            if let Some(accesses) = &cost.accesses {
                row(&format!("{kernel}, accesses"), accesses);
            }
        }
        print!("{rows}");
        println!("wrote {} and its measurements", self.out.join(format!("{name}.toml")).display());
        Ok(())
    }

    /// Counts every layer of the corpus; the unit, the counts, and the machine that ran.
    fn measure(&self, board: &Mcu) -> Result<(Unit, Vec<Measurement>, String)> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let mut device = deploy(board, &self.device, None, folder.path())?;
        let bar = Bar::new("calibrate", corpus(board.isa()).len() as u64);
        let step = |done, _| bar.step(done as u64, "");
        let mut slow = match &device.firmware {
            Some(firmware) => self.slow(board, firmware)?,
            None => None,
        };
        let measurements = count_corpus(&mut device.session, slow.as_mut(), board.isa(), step)?;
        drop(bar);
        let unit = device.session.unit();
        let machine = device.session.identity().board.clone();
        device.session.bye()?;
        Ok((unit, measurements, machine))
    }

    /// The same firmware with slower memory, where the memory is simulated.
    fn slow(&self, board: &Mcu, firmware: &Firmware) -> Result<Option<Slow>> {
        if self.device.link(board) != Via::Rtl {
            return Ok(None);
        }
        let waits = Waits::all(self.device.wait_states.saturating_add(CALIBRATION_WAITS));
        let session = link::simulate(firmware, waits, self.device.wait()?)?;
        Ok(Some(Slow { session, wait_states: CALIBRATION_WAITS.into() }))
    }
}
