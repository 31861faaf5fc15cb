//! `jaq-host cost`: what a layer or a network costs on a target, by its model.

use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;
use jaq_cost::{Cost, LayerCost, Objective, Target, Widths, Workload};
use jaq_network::{LayerSpec, Network, TrainedNetwork, reference};
use serde_json::{Value, json};

use super::print_json;
use crate::report::{Table, thousands};

/// Predict what a layer or a network costs on a board or an accelerator.
#[derive(Debug, Args)]
pub struct CostCommand {
    /// Target, by name or path of its file.
    #[arg(long)]
    board: String,
    /// A layer, for example `conv3x3:16x16x32-32`; `+` joins a block.
    #[arg(long, required_unless_present = "network", conflicts_with = "network")]
    layer: Option<LayerSpec>,
    /// A reference network (resnet8, mobilenetv1-0.25-96, dscnn, fcae), a folder with a trained
    /// network, or a JSON file that holds one.
    #[arg(long)]
    network: Option<String>,
    /// Widths, for example W2A4, or W7A8 where the target has them; W8A8 for a layer if left out,
    /// a network's own for a network.
    #[arg(long)]
    bits: Option<Widths>,
    /// What the best tiling is the best of: latency, energy, edp, edap.
    #[arg(long, default_value = "latency")]
    objective: Objective,
    /// Say in words why each layer costs what it costs.
    #[arg(long)]
    explain: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

struct Row {
    name: String,
    spec: String,
    bits: String,
    cost: Cost,
    explanation: Option<String>,
}

impl CostCommand {
    pub fn run(self) -> Result<()> {
        let target = Target::load(&self.board, self.objective)?;
        let Some(spec) = &self.layer else {
            let network = self.network()?;
            let (works, found) = target.price(&network, self.bits)?;
            let mut rows = Vec::new();
            for layer in found.layers {
                // The encoding of the input is no layer of the network.
                let work = works.iter().find(|(name, _)| *name == layer.name);
                let explanation = match work {
                    Some((_, work)) if self.explain => Some(target.explain(work)?),
                    _ => None,
                };
                let LayerCost { name, spec, bits, cost, .. } = layer;
                rows.push(Row { name, spec, bits, cost, explanation });
            }
            return self.print(&target, &network.name, &found.total, &rows, true, None);
        };
        let found = target.block(&Workload::block(spec, self.bits.unwrap_or(Widths::W8A8)))?;
        let mut rows = Vec::new();
        for (work, cost) in found.layers {
            let explanation = self.explain.then(|| target.explain(&work)).transpose()?;
            let (spec, bits) = (work.spec(), work.widths.to_string());
            rows.push(Row { name: String::new(), spec, bits, cost, explanation });
        }
        let several = rows.len() > 1;
        self.print(&target, &spec.to_string(), &found.total, &rows, several, found.fused)
    }

    fn network(&self) -> Result<Network> {
        let name = self.network.as_deref().unwrap_or_default();
        let network = match reference::network(name) {
            Some(network) => network,
            None if Path::new(name).is_dir() => TrainedNetwork::load(Path::new(name))?.network,
            None if Path::new(name).is_file() => {
                let text =
                    std::fs::read_to_string(name).with_context(|| format!("cannot read {name}"))?;
                let value: Value =
                    serde_json::from_str(&text).with_context(|| format!("{name} is no JSON"))?;
                let value = value.get("network").cloned().unwrap_or(value);
                serde_json::from_value(value)
                    .with_context(|| format!("{name} holds no network description"))?
            }
            None => bail!(
                "`{name}` is no reference network ({}) and no file",
                reference::NAMES.join(", ")
            ),
        };
        network.validate()?;
        Ok(network)
    }

    fn print(
        &self,
        target: &Target,
        name: &str,
        total: &Cost,
        rows: &[Row],
        several: bool,
        fused: Option<String>,
    ) -> Result<()> {
        if self.json {
            let mut value = figures(total);
            value["board"] = json!(target.name());
            value["objective"] = json!(self.objective);
            value["name"] = json!(name);
            if several && self.layer.is_some() {
                value["fused"] = json!(fused);
            }
            match rows {
                [row] if !several => {
                    value["bits"] = json!(row.bits);
                    value["explanation"] = json!(row.explanation);
                }
                _ => value["layers"] = rows.iter().map(row_json).collect(),
            }
            return print_json(&value);
        }
        let count = |v: Option<f64>| v.map_or("-".to_owned(), |v| thousands(v.round() as u64));
        let mut table = Table::new(&["layer", "", "bits", "instructions", "cycles", "energy (pJ)"]);
        let mut line = |name: &str, spec: &str, bits: &str, cost: &Cost| {
            let cycles = count(cost.cycles.map(|c| c.typical));
            let (instructions, energy) = (count(cost.instructions), count(cost.energy_pj));
            table.row(&[&name, &spec, &bits, &instructions, &cycles, &energy]);
        };
        for row in rows {
            line(&row.name, &row.spec, &row.bits, &row.cost);
        }
        if several {
            line("total", "", "", total);
        }
        print!("{table}");
        if let Some(latency) = total.latency_s {
            println!(
                "{} on {}: {:.3} ms, {}",
                name,
                target.name(),
                latency * 1e3,
                total.provenance
            );
        } else {
            println!("{} on {}: no latency there, {}", name, target.name(), total.provenance);
        }
        if let Some(cycles) = total.cycles.filter(|c| c.low < c.high) {
            println!("cycles between {:.0} and {:.0}", cycles.low, cycles.high);
        }
        if let Some(fused) = fused {
            println!("{fused}");
        }
        for explanation in rows.iter().filter_map(|r| r.explanation.as_ref()) {
            println!("{explanation}");
        }
        Ok(())
    }
}

/// The figures of `--json`; what the target does not have is null.
fn figures(cost: &Cost) -> Value {
    json!({
        "cycles": cost.cycles.map(|c| c.typical),
        "cycles_low": cost.cycles.map(|c| c.low),
        "cycles_high": cost.cycles.map(|c| c.high),
        "instructions": cost.instructions,
        "latency_s": cost.latency_s,
        "energy_pj": cost.energy_pj,
        "area_mm2": cost.area_mm2,
        "bytes": cost.bytes,
        "terms": cost.terms,
        "weights_bytes": cost.weights_bytes,
        "mapping": cost.mapping,
        "mappings_evaluated": cost.mappings_evaluated,
        "provenance": cost.provenance,
    })
}

fn row_json(row: &Row) -> Value {
    let mut value = figures(&row.cost);
    value["name"] = json!(row.name);
    value["spec"] = json!(row.spec);
    value["bits"] = json!(row.bits);
    if let Some(explanation) = &row.explanation {
        value["explanation"] = json!(explanation);
    }
    value
}
