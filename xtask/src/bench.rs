//! `cargo xtask bench kernels`: executed instructions of whole layers on emulated cores, each
//! output compared with the wide-integer oracle in the same run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use jaq_deploy::link::{self, Session};
use jaq_deploy::single::Single;
use jaq_deploy::validate::{Ask, Device};
use jaq_deploy::{firmware, oracle};
use jaq_network::LayerSpec;
use jaq_shared::format::{Bits, LayerBits, LayerShape, Requant, TensorFormat};
use jaq_shared::kernels::{Isa, KernelId, candidates};
use jaq_shared::runtime;
use serde::Serialize;

use crate::npz;

/// Emulated cores by name, with the board whose firmware runs on them.
const CORES: [(&str, &str); 2] = [("m7", "mps2-an500"), ("m4", "mps2-an386")];

/// Layers that are measured if none is named.
const LAYERS: [&str; 8] = [
    "pw:16x16x64-64",
    "pw:8x8x128-128",
    "conv3x3:16x16x32-32",
    "conv3x3s2:32x32x3-16",
    "dw3x3:16x16x64",
    "dw3x3s2:16x16x64",
    "dw5x5:16x16x64",
    "fc:256-64",
];

/// Count the instructions of kernels on an emulated core.
///
/// A figure is the whole layer: from packed activations to packed activations, the runtime's
/// dispatch included. `exact` says that the output of that run equals the oracle's.
#[derive(Debug, Args)]
pub struct Kernels {
    /// Core: m7 or m4; both if not given.
    #[arg(long)]
    core: Option<String>,
    /// Layer, for example conv3x3:16x16x32-32; may be given several times.
    #[arg(long, value_name = "SPEC")]
    layer: Vec<LayerSpec>,
    /// Widths, for example W2A4 or W4A8:O8; may be given several times. All sixteen pairs if none.
    #[arg(long)]
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

/// One measured layer.
#[derive(Debug, Serialize)]
struct Run {
    core: &'static str,
    layer: String,
    bits: String,
    kernel: &'static str,
    instructions: u64,
    macs: u64,
    /// Per element of the output where the layer multiplies nothing.
    instructions_per_mac: f64,
    exact: bool,
}

impl Kernels {
    pub fn run(self) -> Result<()> {
        let cores: Vec<_> = CORES
            .into_iter()
            .filter(|(name, _)| self.core.as_deref().is_none_or(|core| core == *name))
            .collect();
        if cores.is_empty() {
            bail!("unknown core `{}`; known: m7, m4", self.core.unwrap_or_default());
        }
        let specs = if self.layer.is_empty() {
            LAYERS.iter().map(|text| text.parse()).collect::<Result<_, _>>()?
        } else {
            self.layer.clone()
        };
        let pairs = || Bits::ALL.into_iter().flat_map(|w| Bits::ALL.map(|a| (w, a)));
        let bits = if self.bits.is_empty() {
            pairs().map(|(w, a)| LayerBits::uniform(w, a)).collect()
        } else {
            self.bits.clone()
        };
        let mut runs = Vec::new();
        for (core, board) in cores {
            eprintln!("building the firmware of {board}");
            let firmware = firmware::build_open(board)?;
            let mut session = link::emulate(&firmware, Duration::from_secs(120))?;
            for spec in &specs {
                for &bits in &bits {
                    let layer = spec.shape(bits).with_context(|| {
                        format!("`{spec}` is a block; name its layers one by one")
                    })?;
                    let run = self
                        .measure(&mut session, core, &layer)
                        .with_context(|| format!("{spec} {bits} on {core}"))?;
                    if !self.json {
                        println!(
                            "{:<4} {:<24} {:<8} {:<10} {:>10} {:>8.3} {}",
                            run.core,
                            run.layer,
                            run.bits,
                            run.kernel,
                            run.instructions,
                            run.instructions_per_mac,
                            if run.exact { "exact" } else { "WRONG" }
                        );
                    }
                    runs.push(run);
                }
            }
            session.bye()?;
        }
        if self.json {
            println!("{}", serde_json::to_string_pretty(&runs)?);
        }
        let wrong = runs.iter().filter(|run| !run.exact).count();
        if wrong > 0 {
            bail!("{wrong} of {} outputs differ from the oracle's", runs.len());
        }
        Ok(())
    }

    fn measure(
        &self,
        session: &mut Session,
        core: &'static str,
        layer: &LayerShape,
    ) -> Result<Run> {
        let requant = if layer.bits.output == Bits::B8 { Requant::Wide } else { Requant::Narrow };
        let kernel: KernelId =
            candidates(layer, requant, Isa::Armv7em).next().context("no kernel runs it")?;
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
        let instructions = found.layers.first().copied().unwrap_or(found.total);
        let run = Run {
            core,
            layer: LayerSpec::of(layer).to_string(),
            bits: layer.bits.to_string(),
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
    let shape = |s: jaq_shared::format::Shape| [s.h, s.w, s.c].map(usize::from);
    let integers = &single.integers[0];
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
    let weights = single.trained.layers[0].as_ref().map_or(&[][..], |values| &values.weights);
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
