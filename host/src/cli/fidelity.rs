//! `jaq-host fidelity`: whether a supernet ranks networks as training them alone does. The paper
//! claims that low-bit noise misleads a search and that ranked CSQ mends it; this measures it.
//!
//! Networks are drawn by the seed within the limits, each is trained alone from scratch at its own
//! widths, once, and judged by three supernets that differ in what they quantize.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use jaq_search::baselines::{Drawer, Images, Judge, JudgeConfig};
use jaq_search::checkpoint::Values;
use jaq_search::csq::{Csq, Rank};
use jaq_search::discretize::Discretizer;
use jaq_search::objective::Objective;
use jaq_search::retrain::{Mode, Start};
use jaq_search::rng::{Purpose, Rng};
use jaq_search::space::Choice;
use jaq_search::statistics::{Estimate, bootstrap, kendall, spearman};
use serde::{Deserialize, Serialize};

use super::ablate::lab::{Lab, Terms};
use super::print_json;
use super::progress::Bar;
use super::retrain::one;
use crate::plot::{Axes, Series, scatter};
use crate::report::{Table, percent};

/// Rank correlation of what supernets say of networks with training them alone, for supernets
/// trained with CSQ ranked, CSQ at random, and everything quantized.
#[derive(Debug, Args)]
pub struct Fidelity {
    #[command(flatten)]
    terms: Terms,
    /// Networks to draw and train alone.
    #[arg(long, default_value_t = 30)]
    networks: usize,
    /// Share of the channels that CSQ quantizes, in percent.
    #[arg(long, default_value_t = 50)]
    csq: u8,
    /// Seed of the networks, of their training and of the supernets.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run directory.
    #[arg(long, default_value = "runs/fidelity")]
    run: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    networks: Vec<Trained>,
    supernets: Vec<Opinion>,
    /// Of training one network alone.
    images_alone: u64,
    /// Of training one supernet, and of judging all networks by it.
    images_supernet: Images,
    /// How the intervals are made.
    intervals: &'static str,
}

/// A network that was trained alone.
#[derive(Serialize, Deserialize)]
struct Trained {
    choice: Choice,
    instructions: Option<f64>,
    /// On the test images, quantizers simulated.
    accuracy: f64,
}

/// What a supernet says of them.
#[derive(Serialize)]
struct Opinion {
    quantized: &'static str,
    kendall: Estimate,
    spearman: Estimate,
    /// On held-out training images, network by network.
    accuracy: Vec<f64>,
}

/// Bootstrap samples of an interval.
const DRAWS: usize = 2000;

impl Fidelity {
    pub fn run(self) -> Result<()> {
        if self.networks < 3 || !(1..=100).contains(&self.csq) {
            bail!("at least 3 networks and a share of 1 to 100 % are wanted");
        }
        let settings =
            serde_json::json!({ "fidelity": [self.networks, self.csq], "seed": self.seed });
        let lab = Lab::open(&self.terms, &self.run, settings)?;
        let drawn = self.draw(&lab)?;
        let networks = self.alone(&lab, drawn)?;
        let alone: Vec<f64> = networks.iter().map(|n| n.accuracy).collect();
        let keep = f32::from(self.csq) / 100.0;
        let csq = |rank| Some(Csq { keep, rank, anneal: 1.0, ..Csq::default() });
        let kinds = [
            ("csq-ranked", csq(Rank::Scale)),
            ("csq-random", csq(Rank::Random)),
            ("everything", None),
        ];
        let mut supernets = Vec::new();
        let mut images = lab.search_images(&lab.search(self.seed));
        images.architecture = 0;
        for (quantized, csq) in kinds {
            let config = jaq_search::cosearch::SearchConfig { csq, ..lab.search(self.seed) };
            let values = lab.even_with(self.seed, &format!("supernets/{quantized}"), &config)?;
            let judge =
                Judge::new(&lab.space, &lab.data, &values, &config, &JudgeConfig::default());
            images.evaluation = judge.images() * networks.len() as u64;
            let accuracy = networks
                .iter()
                .map(|n| judge.accuracy(&n.choice))
                .collect::<Result<Vec<f64>, _>>()?;
            supernets.push(Opinion {
                quantized,
                kendall: bootstrap(&accuracy, &alone, kendall, DRAWS, self.seed),
                spearman: bootstrap(&accuracy, &alone, spearman, DRAWS, self.seed),
                accuracy,
            });
        }
        let report = Report {
            images_alone: lab.retrain_images(&lab.retrain(self.seed)),
            images_supernet: images,
            intervals: "95 %, percentiles of 2000 bootstrap samples of the networks",
            networks,
            supernets,
        };
        lab.run.write_json("fidelity.json", &report)?;
        plot(&lab, &report)?;
        if self.json {
            return print_json(&report);
        }
        let mut table = Table::new(&["quantized in the supernet", "Kendall tau-b", "Spearman rho"]);
        let text = |e: &Estimate| format!("{:.3} [{:.3}, {:.3}]", e.value, e.low, e.high);
        for opinion in &report.supernets {
            table.row(&[&opinion.quantized, &text(&opinion.kendall), &text(&opinion.spearman)]);
        }
        print!("{table}");
        println!(
            "  {} networks, trained alone to {} .. {}; intervals: {}; everything lies in {}",
            report.networks.len(),
            percent(alone.iter().copied().fold(1.0, f64::min)),
            percent(alone.iter().copied().fold(0.0, f64::max)),
            report.intervals,
            self.run.display()
        );
        Ok(())
    }

    /// Networks by the seed.
    fn draw(&self, lab: &Lab) -> Result<Vec<(Choice, Option<f64>)>> {
        let config = lab.search(self.seed);
        let objective = Objective::new(&lab.space, &lab.model, &lab.limits, config.cost)?;
        let discretizer = Discretizer::new(&lab.space, &lab.model, &objective, &lab.limits);
        discretizer.check()?;
        let drawer = Drawer::new(&lab.space, &lab.limits, &discretizer);
        let mut drawn = Vec::new();
        for index in 0..self.networks {
            let mut rng = Rng::at(self.seed, Purpose::Trials, index as u64);
            let priced = drawer.random(&mut rng)?;
            drawn.push((lab.space.canonical(&priced.choice), priced.demand.instructions));
        }
        Ok(drawn)
    }

    /// Trains every network that is not trained yet.
    fn alone(&self, lab: &Lab, drawn: Vec<(Choice, Option<f64>)>) -> Result<Vec<Trained>> {
        let bar = Bar::new("networks alone", drawn.len() as u64);
        let none = Values::new();
        let mut networks = Vec::new();
        for (index, (choice, instructions)) in drawn.into_iter().enumerate() {
            let (network, folder) = (lab.space.network(&choice), format!("alone/{index:03}"));
            let start = Start { values: Some(&none), teacher: None };
            let config = lab.retrain(self.seed);
            let (found, _) =
                one(&lab.run, &network, &lab.data, &folder, Mode::Quantized, &config, start)?;
            bar.step(index as u64 + 1, &percent(found.top1));
            networks.push(Trained { choice, instructions, accuracy: found.top1 });
        }
        Ok(networks)
    }
}

fn plot(lab: &Lab, report: &Report) -> Result<()> {
    let series = |opinion: &Opinion| {
        let pairs = opinion.accuracy.iter().zip(&report.networks);
        Series {
            name: opinion.quantized.to_owned(),
            points: pairs.map(|(x, n)| [*x, n.accuracy, n.accuracy, n.accuracy]).collect(),
            joined: false,
        }
    };
    let series: Vec<Series> = report.supernets.iter().map(series).collect();
    let axes = Axes {
        title: "What supernets say of networks",
        x: "accuracy by the supernet, held-out images",
        y: "accuracy trained alone, test images",
    };
    scatter(&lab.run.join("fidelity.svg"), &axes, &series)
}
