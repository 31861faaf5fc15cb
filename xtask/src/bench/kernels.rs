//! `cargo xtask bench kernels`: whole layers, each output held to the wide-integer oracle.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use jaq_deploy::link::Session;
use jaq_deploy::oracle;
use jaq_deploy::single::Single;
use jaq_deploy::validate::{Ask, Device};
use jaq_network::LayerSpec;
use jaq_shared::format::{Bits, LayerBits, LayerShape, Requant, Shape, TensorFormat};
use jaq_shared::kernels::{KernelId, candidates};
use jaq_shared::runtime;
use serde::Serialize;

use super::{Core, conclude, npz};

/// What a layer may cost on some cores, in instructions per MAC by widths.
struct Limits {
    cores: &'static [Core],
    layer: &'static str,
    most: &'static [(&'static str, f64)],
}

/// The limits the kernels are held to.
const LIMITS: &[Limits] = &[
    Limits {
        cores: &[Core::M7],
        layer: "pw:16x16x64-64",
        most: &[("W2A2", 0.42), ("W2A4", 0.61), ("W4A4", 0.62), ("W4A8", 0.97), ("W8A8", 0.93)],
    },
    Limits {
        cores: &[Core::M7],
        layer: "conv3x3:16x16x32-32",
        most: &[("W2A2", 0.42), ("W4A4", 0.64), ("W8A8", 0.89)],
    },
    Limits {
        cores: &[Core::M7],
        layer: "dw3x3:16x16x64",
        most: &[("W2A2", 0.88), ("W4A4", 1.22), ("W8A8", 2.0)],
    },
    Limits {
        cores: &[Core::M0p, Core::Rv32],
        layer: "pw:16x16x64-64",
        most: &[("W2A2", 1.15), ("W4A4", 1.85), ("W8A8", 3.2)],
    },
    Limits {
        cores: &[Core::M0p, Core::Rv32],
        layer: "conv3x3:16x16x32-32",
        most: &[("W2A2", 1.15), ("W4A4", 1.85), ("W8A8", 3.2)],
    },
    Limits {
        cores: &[Core::M0p],
        layer: "dw3x3:16x16x64",
        most: &[("W2A2", 3.0), ("W4A4", 4.5), ("W8A8", 9.0)],
    },
    Limits {
        cores: &[Core::M7],
        layer: "fc:256-64",
        most: &[("W2A2", 0.68), ("W4A4", 1.31), ("W8A8", 1.31)],
    },
];

/// Layers measured on a core that has no limits of its own.
const LAYERS: [&str; 4] = ["pw:16x16x64-64", "conv3x3:16x16x32-32", "dw3x3:16x16x64", "fc:256-64"];

/// Count the instructions of layers on an emulated core.
///
/// A figure is the whole layer: from packed activations to packed activations, the runtime's
/// dispatch included. `exact` says that the output of that run equals the oracle's.
#[derive(Debug, Args)]
pub struct Kernels {
    /// Core; may be given several times.
    #[arg(long, value_enum, default_value = "m7")]
    core: Vec<Core>,
    /// Layer, for example conv3x3:16x16x32-32; may be given several times. Those with limits if
    /// none.
    #[arg(long, value_name = "SPEC")]
    layer: Vec<LayerSpec>,
    /// Widths, for example W2A4 or W4A8:O8; may be given several times. If none: the limited
    /// pairs, or all sixteen of a named layer.
    #[arg(long, value_name = "WxAy")]
    bits: Vec<LayerBits>,
    /// Seed of weights and inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder to write every run into: input, weights, parameters and output, as NPZ.
    #[arg(long, value_name = "DIR")]
    dump: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The limit of a layer on a core, if it has one.
fn limit(core: Core, layer: &str, bits: &str) -> Option<f64> {
    let found = LIMITS.iter().find(|l| l.cores.contains(&core) && l.layer == layer)?;
    found.most.iter().find(|(name, _)| *name == bits).map(|(_, limit)| *limit)
}

/// One measured layer.
#[derive(Debug, Serialize)]
struct Run {
    core: String,
    layer: String,
    bits: String,
    kernel: &'static str,
    instructions: u64,
    macs: u64,
    /// Per element of the output where the layer multiplies nothing.
    instructions_per_mac: f64,
    exact: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<f64>,
}

impl Kernels {
    /// Measures and prints.
    pub fn run(self) -> Result<()> {
        let mut runs = Vec::new();
        if !self.json {
            println!(
                "{:<5}{:<22}{:<8}{:<15}{:>13}{:>9}{:>7}",
                "core", "layer", "bits", "kernel", "instructions", "per MAC", "limit"
            );
        }
        for &core in &self.core {
            let mut session = core.start()?;
            for layer in self.layers(core)? {
                let run = self
                    .measure(&mut session, core, &layer)
                    .with_context(|| format!("{} {}", LayerSpec::of(&layer), layer.bits))?;
                if !self.json {
                    println!("{run}");
                }
                runs.push(run);
            }
            session.bye()?;
        }
        conclude(&runs, self.json, |run| run.exact)
    }

    /// What to measure on `core`.
    fn layers(&self, core: Core) -> Result<Vec<LayerShape>> {
        let specs = match &self.layer[..] {
            [] => LAYERS.iter().map(|text| text.parse()).collect::<Result<Vec<LayerSpec>, _>>()?,
            named => named.to_vec(),
        };
        let pairs = || Bits::ALL.into_iter().flat_map(|w| Bits::ALL.map(|a| (w, a)));
        let mut layers = Vec::new();
        for spec in &specs {
            let mut bits = self.bits.clone();
            if bits.is_empty() {
                bits = pairs().map(|(w, a)| LayerBits::uniform(w, a)).collect();
                if self.layer.is_empty() {
                    let limited = |bits: &LayerBits| {
                        limit(core, &spec.to_string(), &bits.to_string()).is_some()
                    };
                    let same = |bits: &LayerBits| bits.weight == bits.input;
                    match bits.iter().any(limited) {
                        true => bits.retain(limited),
                        false => bits.retain(same),
                    }
                }
            }
            for bits in bits {
                layers.push(
                    spec.shape(bits).with_context(|| {
                        format!("`{spec}` is a block; name its layers one by one")
                    })?,
                );
            }
        }
        Ok(layers)
    }

    fn measure(&self, session: &mut Session, core: Core, layer: &LayerShape) -> Result<Run> {
        let requant = Requant::usual(layer.bits.output);
        let kernel: KernelId =
            candidates(layer, requant, core.isa()?).next().context("no kernel runs it")?;
        let single = Single::new(layer, requant, self.seed);
        let packed = single.pack(kernel)?;
        let raw = single.input(self.seed);
        session.open(&packed.bytes)?;
        let found = session.infer(&raw, Ask::Layers)?;
        let tensors = oracle::infer(&single.trained, &single.integers, &raw);
        let expected = tensors.last().context("the oracle made no tensor")?;
        let format = TensorFormat { shape: layer.output, bits: layer.bits.output };
        let output: Vec<u8> = runtime::codes(format, &found.output).collect();
        let exact = output.len() == expected.len()
            && output.iter().zip(expected).all(|(&code, &right)| i64::from(code) == right);
        let macs = layer.macs();
        let instructions = found.layers.last().copied().unwrap_or(found.total);
        let (name, bits) = (LayerSpec::of(layer).to_string(), layer.bits.to_string());
        let run = Run {
            core: core.name(),
            limit: limit(core, &name, &bits),
            layer: name,
            bits,
            kernel: kernel.name(),
            instructions,
            macs,
            instructions_per_mac: instructions as f64
                / macs.max(layer.output.elements() as u64) as f64,
            exact,
        };
        if let Some(folder) = &self.dump {
            dump(folder, &run, layer, &single, &raw, &output)?;
        }
        Ok(run)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Run { core, layer, bits, kernel, instructions, instructions_per_mac, .. } = self;
        write!(f, "{core:<5}{layer:<22}{bits:<8}{kernel:<15}{instructions:>13}")?;
        write!(f, "{instructions_per_mac:>9.3}")?;
        match self.limit {
            None => write!(f, "{:>7}", "")?,
            Some(limit) => write!(f, "{limit:>7.2}")?,
        }
        let over = self.limit.is_some_and(|limit| self.instructions_per_mac > limit);
        f.write_str(match (self.exact, over) {
            (false, _) => "  WRONG",
            (true, true) => "  exact, over",
            (true, false) => "  exact",
        })
    }
}

/// Writes what somebody else's program needs to check a run.
fn dump(
    folder: &Path,
    run: &Run,
    layer: &LayerShape,
    single: &Single,
    raw: &[u8],
    output: &[u8],
) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let shape = |s: Shape| [s.h, s.w, s.c].map(usize::from);
    let integers = single.integers.last().context("no layer")?;
    let (form, shift) = match integers.requant {
        Requant::Narrow => (0, 18),
        Requant::Wide => (1, 22),
        Requant::General { shift } => (2, i32::from(shift)),
    };
    let window = layer.op.window();
    let pads = window.pads;
    let geometry =
        [window.kh, window.kw, window.stride, pads.top, pads.bottom, pads.left, pads.right]
            .map(i32::from);
    let values = single.trained.layers.last().and_then(Option::as_ref);
    let weights = values.map_or(&[][..], |values| &values.weights);
    let bits = [layer.bits.weight, layer.bits.input, layer.bits.output].map(|b| b.get() as i32);
    let mut archive = npz::Archive::default();
    archive.u8("input", &shape(layer.input), raw);
    archive.i8("weights", &[weights.len()], weights);
    archive.i32("multipliers", &[integers.multipliers.len()], &integers.multipliers);
    archive.i32("biases", &[integers.biases.len()], &integers.biases);
    archive.i32("requant", &[2], &[form, shift]);
    archive.i32("window", &[7], &geometry);
    archive.i32("bits", &[3], &bits);
    archive.u8("output", &shape(layer.output), output);
    let name: String = format!("{}-{}-{}.npz", run.core, run.layer, run.bits)
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' })
        .collect();
    let path = folder.join(name);
    std::fs::write(&path, archive.finish())
        .with_context(|| format!("cannot write {}", path.display()))
}
