//! What a search weighs and limits beyond what every board has: options of the command line, and
//! the part of a run's settings that they are.

use anyhow::Result;
use clap::{Args, ValueEnum};
use jaq_cost::Limits;
use jaq_search::hardware::Method;
use jaq_search::objective::CostWeights;
use serde::{Deserialize, Serialize};

/// Costs and limits of a search.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct Aim {
    /// What the cost is; `edp` for accelerators if left out, work and flash for microcontrollers.
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    objective: Option<Goal>,
    /// Weight of a figure in the loss, at its value where nothing is decided yet: work, flash,
    /// latency, energy, area, edp or edap. May be given several times.
    #[arg(long = "lambda", value_name = "FIGURE=WEIGHT", value_parser = lambda)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lambdas: Vec<String>,
    /// Most energy of an inference, as the target's cost model predicts it.
    #[arg(long, value_name = "UJ")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_energy_uj: Option<f64>,
    /// Largest area of the accelerator.
    #[arg(long, value_name = "MM2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_area_mm2: Option<f64>,
    /// How a space of accelerators is searched: `exact`, by the cost tensor of all of them;
    /// `generator`, by the hardware generation network, which prices only what it draws.
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    hardware: Option<Way>,
}

/// Costs that have a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Goal {
    /// Seconds.
    Latency,
    /// Joules.
    Energy,
    /// Energy times latency.
    Edp,
    /// Energy times latency times area.
    Edap,
}

/// Ways to search hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Way {
    /// The cost tensor.
    Exact,
    /// The generation network.
    Generator,
}

/// Weight of a cost that is named without one: what the whole of it adds to the cross-entropy.
const USUAL: f64 = 0.05;

fn lambda(text: &str) -> Result<String, String> {
    let (name, weight) = text.split_once('=').ok_or("wanted FIGURE=WEIGHT, for example edp=0.1")?;
    let weight: f64 = weight.parse().map_err(|_| format!("`{weight}` is no number"))?;
    if !(weight.is_finite() && weight >= 0.0) {
        return Err(format!("the weight of {name} must be 0 or more"));
    }
    match place(&mut CostWeights::NONE.clone(), name) {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!(
            "`{name}` is no figure; work, flash, latency, energy, area, edp or edap wanted"
        )),
    }
}

fn place<'a>(weights: &'a mut CostWeights, figure: &str) -> Option<&'a mut f64> {
    match figure {
        "work" => Some(&mut weights.work),
        "flash" => Some(&mut weights.flash),
        "latency" => Some(&mut weights.latency),
        "energy" => Some(&mut weights.energy),
        "area" => Some(&mut weights.area),
        "edp" => Some(&mut weights.edp),
        "edap" => Some(&mut weights.edap),
        _ => None,
    }
}

impl Aim {
    /// Weights of the objective's terms.
    pub fn weights(&self, accelerator: bool) -> CostWeights {
        let usual = CostWeights::default();
        let goal = self.objective.or(accelerator.then_some(Goal::Edp));
        let mut weights = match (accelerator, goal) {
            (true, _) => CostWeights::NONE,
            (false, Some(_)) => CostWeights { work: 0.0, ..usual },
            (false, None) => usual,
        };
        match goal {
            None => {}
            Some(Goal::Latency) => weights.latency = USUAL,
            Some(Goal::Energy) => weights.energy = USUAL,
            Some(Goal::Edp) => weights.edp = USUAL,
            Some(Goal::Edap) => weights.edap = USUAL,
        }
        for (name, weight) in self.lambdas.iter().filter_map(|text| text.split_once('=')) {
            if let (Some(place), Ok(weight)) = (place(&mut weights, name), weight.parse()) {
                *place = weight;
            }
        }
        weights
    }

    /// How hardware is searched.
    pub fn method(&self) -> Method {
        match self.hardware {
            Some(Way::Generator) => Method::Generator,
            _ => Method::Exact,
        }
    }

    /// Limits that only this names.
    pub fn limits(&self) -> Limits {
        Limits {
            energy_pj: self.max_energy_uj.map(|uj| uj * 1e6),
            area_mm2: self.max_area_mm2,
            ..Limits::default()
        }
    }
}
