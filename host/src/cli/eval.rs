//! `jaq-host eval`: accuracy of a packed model, on the host's integer engine or on a device.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use jaq_cost::Mcu;
use jaq_deploy::engine::{Engine, evaluate};
use jaq_deploy::validate::{Ask, Device, Unit, class};
use jaq_network::Provenance;
use jaq_search::data::{Dataset, Split};
use serde::Serialize;

use super::device::{self, DeviceArgs};
use super::progress::Bar;
use super::{inspect, print_json};
use crate::report::{percent, thousands};

/// Measure the accuracy of a packed model on a test set.
#[derive(Debug, Args)]
pub struct Eval {
    /// The packed model.
    file: PathBuf,
    /// Data set: a name `jaq-host data` lists, or a path.
    #[arg(long, default_value = jaq_search::data::DEFAULT)]
    data: String,
    /// Use only the first N test images.
    #[arg(long, value_name = "N")]
    images: Option<usize>,
    /// Run on this board instead of the host.
    #[arg(long)]
    board: Option<String>,
    // Without `--via` the host's integer engine runs the model.
    #[command(flatten)]
    device: DeviceArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What an evaluation found.
#[derive(Serialize)]
struct Evaluation {
    top1: f64,
    images: usize,
    data: String,
    board: String,
    /// `None` on the host's integer engine.
    provenance: Option<Provenance>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cycles: Option<u64>,
    weights_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    code_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flash_bytes: Option<usize>,
    arena_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    stack_bytes: Option<usize>,
}

impl Eval {
    pub fn run(self) -> Result<()> {
        let engine = inspect::load(&self.file)?;
        let data = Dataset::open(&self.data)?;
        check_input(&engine, &data)?;
        let images = self.images.unwrap_or(usize::MAX).min(data.test.len());
        if images == 0 {
            bail!("there are no images to evaluate");
        }
        let DeviceArgs { via, probe, session, record, .. } = &self.device;
        let device = via.is_some() || probe.is_some() || session.is_some();
        let evaluation = match device {
            false if self.board.is_some() || record.is_some() => {
                bail!("--board and --record need --via: the host's engine runs without a board");
            }
            false => self.on_host(&engine, &data, images)?,
            true => self.on_device(&engine, &data, images)?,
        };
        if self.json {
            return print_json(&evaluation);
        }
        println!(
            "top-1 {} of {} images ({}) on {}",
            percent(evaluation.top1),
            evaluation.images,
            data.test_label,
            match evaluation.provenance {
                Some(provenance) => format!("{} ({provenance})", evaluation.board),
                None => "the host's integer engine".to_owned(),
            }
        );
        if let Some(count) = evaluation.instructions {
            println!("{} instructions an inference", thousands(count));
        }
        if let Some(count) = evaluation.cycles {
            println!("{} cycles an inference", thousands(count));
        }
        Ok(())
    }

    fn on_host(&self, engine: &Engine, data: &Dataset, images: usize) -> Result<Evaluation> {
        Ok(Evaluation {
            top1: top1(engine, &data.test, images)?,
            images,
            data: data.name.clone(),
            board: "host".to_owned(),
            provenance: None,
            instructions: None,
            cycles: None,
            weights_bytes: engine.model().bytes(),
            code_bytes: None,
            flash_bytes: None,
            arena_bytes: engine.model().arena_words() * 4,
            stack_bytes: None,
        })
    }

    fn on_device(&self, engine: &Engine, data: &Dataset, images: usize) -> Result<Evaluation> {
        let name = self.board.as_deref().unwrap_or(engine.model().info().board);
        let board = Mcu::load(name)?;
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let mut deployed = device::deploy(&board, &self.device, Some(&self.file), folder.path())?;
        let file = std::fs::read(&self.file)
            .with_context(|| format!("cannot read {}", self.file.display()))?;
        deployed.session.open(&file)?;
        let bar = Bar::new("eval", images as u64);
        let (mut right, mut first) = (0, 0);
        for i in 0..images {
            let found = deployed.session.infer(data.test.image(i), Ask::Output)?;
            if i == 0 {
                first = found.total;
            }
            right += usize::from(
                class(engine.output(), &found.output) == usize::from(data.test.labels[i]),
            );
            bar.step(i as u64 + 1, &percent(right as f64 / (i + 1) as f64));
        }
        drop(bar);
        let sizes = device::sizes(&mut deployed, &engine.model())?;
        let unit = deployed.session.unit();
        let evaluation = Evaluation {
            top1: right as f64 / images as f64,
            images,
            data: data.name.clone(),
            board: board.name,
            provenance: Some(deployed.session.provenance()),
            instructions: (unit == Unit::Instructions).then_some(first),
            cycles: (unit == Unit::Cycles).then_some(first),
            weights_bytes: sizes.weights_bytes,
            code_bytes: Some(sizes.code_bytes),
            flash_bytes: Some(sizes.weights_bytes + sizes.code_bytes),
            arena_bytes: sizes.arena_bytes,
            stack_bytes: Some(sizes.stack_bytes),
        };
        deployed.session.bye()?;
        Ok(evaluation)
    }
}

/// Accuracy of a model on the first `images` of a split, on the host's integer engine.
pub fn top1(engine: &Engine, split: &Split, images: usize) -> Result<f64> {
    let inputs: Vec<&[u8]> = (0..images).map(|i| split.image(i)).collect();
    let classes = evaluate(engine, &inputs)?;
    let right = classes.iter().zip(&split.labels).filter(|(c, l)| **c == usize::from(**l)).count();
    Ok(right as f64 / images.max(1) as f64)
}

fn check_input(engine: &Engine, data: &Dataset) -> Result<()> {
    let (model, shape) = (engine.model().info().input.format.shape, data.shape);
    if model != shape {
        bail!(
            "the model reads images of {}x{}x{}, data set `{}` has {}x{}x{}",
            model.h,
            model.w,
            model.c,
            data.name,
            shape.h,
            shape.w,
            shape.c
        );
    }
    Ok(())
}
