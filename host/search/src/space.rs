//! The search space: which networks there are, as a TOML file says it, and the network that a
//! choice in it names.
//!
//! A network is a chain of sections: stem, blocks, head. Every section has operators to choose
//! from (the stem and the head one each), every operator is a list of layers, and every layer has
//! a gene for the width of its weights and one for the width of its output. Genes belong to a
//! place and a kind of operator, so that kernel sizes and expansions share them, as they share
//! weights.
//!
//! Must not know: probabilities, training, costs.

mod operator;
mod restrict;

use std::collections::HashMap;
use std::path::Path;

use jaq_network::{Bits, InputEncoding, Layer, Network, Op, Shape, Tensor, TensorId, Window};
use serde::{Deserialize, Serialize};

pub use operator::Operator;
use operator::{Part, conv};

/// A space as its file declares it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpaceFile {
    /// Name of the space and of its networks.
    pub name: String,
    /// Height, width and channels of the images.
    pub input: [u16; 3],
    /// Number of classes where no data set says it, for estimates.
    #[serde(default = "ten")]
    pub classes: u16,
    /// Widths a layer's weights may have.
    pub weight_bits: Vec<Bits>,
    /// Widths a tensor may have.
    pub activation_bits: Vec<Bits>,
    /// The first layer, a dense convolution.
    pub stem: Stem,
    /// Groups of blocks.
    #[serde(rename = "stage")]
    pub stages: Vec<Stage>,
    /// What follows the blocks: a pointwise convolution, the mean over all pixels, a linear layer.
    pub head: Head,
}

/// The first layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Stem {
    pub kernel: u8,
    pub stride: u8,
    pub channels: u16,
}

/// Blocks of one output shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// How many.
    pub blocks: usize,
    /// Output channels of each.
    pub channels: u16,
    /// Stride of the first, 1 unless given.
    #[serde(default = "one")]
    pub stride: u8,
    /// What each may be. `skip` counts only where input and output have one shape.
    pub operators: Vec<Operator>,
}

fn one() -> u8 {
    1
}

fn ten() -> u16 {
    10
}

/// What follows the blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Channels of the pointwise convolution.
    pub channels: u16,
}

/// A width to be chosen; a single option where nothing is to choose.
#[derive(Clone, Debug, PartialEq)]
pub struct Gene {
    /// For example `b2.bottleneck.expand.weight`, unique.
    pub name: String,
    /// The widths.
    pub options: Vec<Bits>,
}

/// One layer of an operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// Role within the section: `expand`, `depthwise`, `project`, `add`, `conv`, `pool`, `linear`.
    pub role: &'static str,
    /// Name that layers which share weights have in common, for example `b2.bottleneck.expand`.
    pub shared: String,
    /// What it computes.
    pub op: Op,
    /// Shape of its (first) input.
    pub input: Shape,
    /// Shape of its output.
    pub output: Shape,
    /// Gene of the weights' width.
    pub weight: Option<usize>,
    /// Gene of the output's width.
    pub activation: usize,
    /// Whether the output may be negative.
    pub signed: bool,
}

/// A place in the chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// `stem`, `b1`, ..., `head`.
    pub name: String,
    /// What may stand there: a name and layers, none for a skip. An `add` takes the section's
    /// input as first and the layer before it as second input.
    pub operators: Vec<(String, Vec<Template>)>,
}

/// A space, ready to choose in.
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    /// Name of the space and of its networks.
    pub name: String,
    /// Shape of the images.
    pub input: Shape,
    /// Class names.
    pub classes: Vec<String>,
    /// Stem, blocks, head.
    pub sections: Vec<Section>,
    /// Widths to choose; gene 0 is the input's, 8 bits.
    pub genes: Vec<Gene>,
}

/// One network of a space: an operator for every section and an option for every gene.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Choice {
    pub operators: Vec<usize>,
    pub widths: Vec<usize>,
}

/// Why a space cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SpaceError {
    #[error("cannot read the space file {path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("space file {file}: {reason}")]
    Syntax { file: String, reason: String },
    #[error("space {file}: `{field}` {reason}")]
    Field { file: String, field: String, reason: String },
    #[error(
        "space `{space}` is for images of {wanted:?}, the data set has {found:?} (height, width, channels); choose another with --space"
    )]
    Shape { space: String, wanted: [u16; 3], found: [u16; 3] },
    #[error(
        "no space of the house is for images of {found:?}; declare one and name it with --space"
    )]
    None { found: [u16; 3] },
}

const SHIPPED: [(&str, &str); 4] = [
    ("fashion-mnist", include_str!("../spaces/fashion-mnist.toml")),
    ("cifar-10", include_str!("../spaces/cifar-10.toml")),
    ("images-96", include_str!("../spaces/images-96.toml")),
    ("imagenet", include_str!("../spaces/imagenet.toml")),
];

impl SpaceFile {
    /// Names of the shipped spaces.
    pub fn names() -> Vec<&'static str> {
        SHIPPED.iter().map(|(name, _)| *name).collect()
    }

    /// The shipped space of this name, or the user's own file.
    pub fn load(name: &str) -> Result<SpaceFile, SpaceError> {
        if let Some((_, text)) = SHIPPED.iter().find(|(known, _)| *known == name) {
            return SpaceFile::parse(name, text);
        }
        let text = std::fs::read_to_string(Path::new(name))
            .map_err(|source| SpaceError::Io { path: name.to_owned(), source })?;
        SpaceFile::parse(name, &text)
    }

    /// The shipped space for images of this shape.
    pub fn for_images(shape: Shape) -> Result<SpaceFile, SpaceError> {
        let found = [shape.h, shape.w, shape.c];
        for (name, text) in SHIPPED {
            let space = SpaceFile::parse(name, text)?;
            if space.input == found {
                return Ok(space);
            }
        }
        Err(SpaceError::None { found })
    }

    /// Parses and validates a file's text; `file` is named in errors.
    pub fn parse(file: &str, text: &str) -> Result<SpaceFile, SpaceError> {
        let space: SpaceFile = toml::from_str(text).map_err(|error| SpaceError::Syntax {
            file: file.to_owned(),
            reason: error.to_string().trim_end().to_owned(),
        })?;
        space.validate(file)?;
        Ok(space)
    }

    fn validate(&self, file: &str) -> Result<(), SpaceError> {
        let fail = |field: &str, reason: &str| {
            let (file, field, reason) = (file.to_owned(), field.to_owned(), reason.to_owned());
            Err(SpaceError::Field { file, field, reason })
        };
        if self.name.is_empty() {
            return fail("name", "is empty");
        }
        if !(2..=10_000).contains(&self.classes) {
            return fail("classes", "wants 2 to 10000");
        }
        if self.input.iter().any(|size| !(1..=1024).contains(size)) {
            return fail("input", "wants sizes of 1 to 1024");
        }
        for (field, bits) in
            [("weight_bits", &self.weight_bits), ("activation_bits", &self.activation_bits)]
        {
            if bits.is_empty() || bits.windows(2).any(|w| w[0] >= w[1]) {
                return fail(field, "wants widths in ascending order, at least one");
            }
        }
        let channels = |c: u16| (1..=1024).contains(&c);
        if !channels(self.stem.channels) || !channels(self.head.channels) {
            return fail("stem.channels and head.channels", "want 1 to 1024");
        }
        if self.stem.kernel.is_multiple_of(2)
            || self.stem.kernel > 7
            || !(1..=4).contains(&self.stem.stride)
        {
            return fail("stem", "wants a kernel of 1, 3, 5 or 7 and a stride of 1 to 4");
        }
        if self.stages.is_empty() || self.stages.len() > 16 {
            return fail("stage", "wants 1 to 16 entries");
        }
        for (i, stage) in self.stages.iter().enumerate() {
            let field = format!("stage {}", i + 1);
            if !(1..=16).contains(&stage.blocks)
                || !channels(stage.channels)
                || !(1..=4).contains(&stage.stride)
            {
                return fail(
                    &field,
                    "wants 1 to 16 blocks, 1 to 1024 channels, a stride of 1 to 4",
                );
            }
            let mut seen = std::collections::HashSet::new();
            if !stage.operators.iter().all(|o| seen.insert(o)) {
                return fail(&field, "names an operator twice");
            }
            if !stage.operators.iter().any(|o| *o != Operator::Skip) {
                return fail(&field, "wants an operator other than `skip`");
            }
        }
        Ok(())
    }
}

impl Space {
    /// The space for a data set's classes; fails where its images have another shape.
    pub fn new(file: &SpaceFile, images: Shape, classes: &[String]) -> Result<Space, SpaceError> {
        let [h, w, c] = file.input;
        if images != Shape::new(h, w, c) {
            return Err(SpaceError::Shape {
                space: file.name.clone(),
                wanted: file.input,
                found: [images.h, images.w, images.c],
            });
        }
        let mut build = Builder { file, genes: Vec::new(), by_name: HashMap::new() };
        build.gene("input".into(), &[Bits::B8]);
        let Stem { kernel, stride, channels } = file.stem;
        let stem = build.layer(
            "stem",
            "conv",
            "conv",
            conv(kernel, stride, images),
            images,
            channels,
            false,
            None,
        );
        let mut shape = stem.output;
        let mut sections =
            vec![Section { name: "stem".into(), operators: vec![("conv".into(), vec![stem])] }];
        for stage in &file.stages {
            for block in 0..stage.blocks {
                let stride = if block == 0 { stage.stride } else { 1 };
                let name = format!("b{}", sections.len());
                let (section, output) = build.block(name, stage, shape, stride);
                sections.push(section);
                shape = output;
            }
        }
        if shape.h.max(shape.w) > 255 {
            return Err(SpaceError::Field {
                file: file.name.clone(),
                field: "stage".into(),
                reason: format!(
                    "leaves {}x{} pixels, the head takes at most 255",
                    shape.h, shape.w
                ),
            });
        }
        sections.push(build.head(shape, file.head.channels, classes.len() as u16));
        let (name, classes) = (file.name.clone(), classes.to_vec());
        Ok(Space { name, input: images, classes, sections, genes: build.genes })
    }

    /// Widths that the input of section `index` may have.
    pub fn input_widths(&self, index: usize) -> &[Bits] {
        match index.checked_sub(1) {
            None => &self.genes[0].options,
            // Every section's output has the same options.
            Some(before) => {
                let layers = self.sections[before].operators.iter().find_map(|(_, l)| l.last());
                // A section that is skipped for sure hands on its input.
                let own = |layer: &Template| &self.genes[layer.activation].options[..];
                layers.map_or_else(|| self.input_widths(before), own)
            }
        }
    }

    /// The network of a choice. Layers are named `<section>.<role>`.
    pub fn network(&self, choice: &Choice) -> Network {
        let bits = |gene: usize| self.genes[gene].options[choice.widths[gene]];
        let mut layers: Vec<Layer> = Vec::new();
        let mut current = TensorId::INPUT;
        for (section, operator) in self.sections.iter().zip(&choice.operators) {
            let entry = current;
            for template in &section.operators[*operator].1 {
                let inputs = match template.op {
                    Op::Add => vec![entry, current],
                    _ => vec![current],
                };
                layers.push(Layer {
                    name: format!("{}.{}", section.name, template.role),
                    op: template.op,
                    inputs,
                    output: Tensor {
                        shape: template.output,
                        bits: bits(template.activation),
                        signed: template.signed,
                    },
                    weight_bits: template.weight.map(bits),
                });
                current = TensorId::output_of(layers.len() - 1);
            }
        }
        Network {
            name: self.name.clone(),
            input: Tensor { shape: self.input, bits: Bits::B8, signed: false },
            encoding: InputEncoding::IDENTITY,
            layers,
            classes: self.classes.clone(),
        }
    }

    /// The layers of a choice in execution order.
    pub fn templates<'a>(&'a self, choice: &'a Choice) -> impl Iterator<Item = &'a Template> {
        let chosen = self.sections.iter().zip(&choice.operators);
        chosen.flat_map(|(section, operator)| &section.operators[*operator].1)
    }

    /// The number of networks, as a decimal logarithm.
    pub fn log10_networks(&self) -> f64 {
        let widths = |layers: &[Template]| -> f64 {
            let genes = layers.iter().flat_map(|t| t.weight.into_iter().chain([t.activation]));
            genes.map(|g| self.genes[g].options.len() as f64).product()
        };
        let section = |s: &Section| s.operators.iter().map(|(_, l)| widths(l)).sum::<f64>().log10();
        self.sections.iter().map(section).sum()
    }
}

struct Builder<'a> {
    file: &'a SpaceFile,
    genes: Vec<Gene>,
    by_name: HashMap<String, usize>,
}

impl Builder<'_> {
    fn gene(&mut self, name: String, options: &[Bits]) -> usize {
        let next = self.genes.len();
        let index = *self.by_name.entry(name.clone()).or_insert(next);
        if index == next {
            self.genes.push(Gene { name, options: options.to_vec() });
        }
        index
    }

    /// A layer; `family` names the kind of operator whose variants share weights and genes,
    /// `output` the gene of its width where that is not its own.
    #[allow(clippy::too_many_arguments)]
    fn layer(
        &mut self,
        section: &str,
        family: &str,
        role: &'static str,
        op: Op,
        input: Shape,
        channels: u16,
        signed: bool,
        output: Option<usize>,
    ) -> Template {
        let (rows, columns) = op.window().output(input.h, input.w).expect("padding is `same`");
        let channels = if matches!(op, Op::Conv(_) | Op::Linear) { channels } else { input.c };
        let shared = format!("{section}.{family}.{role}");
        let weights = self.file.weight_bits.clone();
        let weight = op.has_weights().then(|| self.gene(format!("{shared}.weight"), &weights));
        let activations = self.file.activation_bits.clone();
        let activation =
            output.unwrap_or_else(|| self.gene(format!("{shared}.output"), &activations));
        Template {
            role,
            shared,
            op,
            input,
            output: Shape::new(rows, columns, channels),
            weight,
            activation,
            signed,
        }
    }

    fn block(&mut self, name: String, stage: &Stage, input: Shape, stride: u8) -> (Section, Shape) {
        let mut output = input;
        let mut operators = Vec::new();
        let residual = stride == 1 && stage.channels == input.c;
        // What leaves the block has one width, whatever the operator.
        let options = self.file.activation_bits.clone();
        let out = self.gene(format!("{name}.output"), &options);
        let last = (!residual).then_some(out);
        for operator in &stage.operators {
            if *operator == Operator::Skip && !residual {
                continue;
            }
            let (family, parts) = operator.parts(input.c, stage.channels);
            // The stride is that of the first kernel that mixes pixels, of the first layer where
            // none does.
            let strided = parts.iter().position(|part| part.1 != Part::Dense(1)).unwrap_or(0);
            let (mut layers, mut at) = (Vec::new(), input);
            for (i, (role, part, channels)) in parts.iter().enumerate() {
                let op = part.op(if i == strided { stride } else { 1 }, at);
                let end = i + 1 == parts.len();
                let own = if end { last } else { None };
                let layer = self.layer(&name, family, role, op, at, *channels, end, own);
                at = layer.output;
                layers.push(layer);
            }
            if let Some(last) = layers.last() {
                output = last.output;
                if residual {
                    layers.push(self.layer(
                        &name,
                        "any",
                        "add",
                        Op::Add,
                        output,
                        0,
                        true,
                        Some(out),
                    ));
                }
            }
            operators.push((operator.to_string(), layers));
        }
        (Section { name, operators }, output)
    }

    fn head(&mut self, input: Shape, channels: u16, classes: u16) -> Section {
        let conv =
            self.layer("head", "head", "conv", conv(1, 1, input), input, channels, false, None);
        let (h, w) = (input.h as u8, input.w as u8);
        let window = Window { kh: h, kw: w, stride: h.max(w), ..Window::POINT };
        let at = conv.output;
        let pool = self.layer("head", "head", "pool", Op::AvgPool(window), at, 0, false, None);
        let at = pool.output;
        let logits = self.gene("logits".into(), &[Bits::B8]);
        let linear =
            self.layer("head", "head", "linear", Op::Linear, at, classes, true, Some(logits));
        Section { name: "head".into(), operators: vec![("head".into(), vec![conv, pool, linear])] }
    }
}

#[cfg(test)]
pub(crate) mod tests;
