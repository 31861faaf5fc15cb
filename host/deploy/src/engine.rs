//! The host's integer engine: the device's runtime and kernels on this machine, on one packed
//! model, with an arena of its own. What a device must answer, bit for bit.

use rayon::prelude::*;

use jaq_shared::format::{LoadError, Model, TensorFormat, crc32};
use jaq_shared::runtime::{self, InferError, Observer};

use crate::export::aligned;

/// A packed model ready to run.
#[derive(Clone)]
pub struct Engine {
    words: Vec<u64>,
    bytes: usize,
    arena: Vec<u32>,
}

impl Engine {
    /// Checks a packed model and makes room for it.
    pub fn new(file: &[u8]) -> Result<Engine, LoadError> {
        let mut engine = Engine { words: aligned(file), bytes: file.len(), arena: Vec::new() };
        engine.arena = vec![0; load(&engine.words, engine.bytes)?.arena_words()];
        Ok(engine)
    }

    /// The loaded model.
    pub fn model(&self) -> Model<'_> {
        load(&self.words, self.bytes).expect("checked when made, not changed since")
    }

    /// Layout of the logits.
    pub fn output(&self) -> TensorFormat {
        self.model().output().format
    }

    /// Packed logit codes of one raw input.
    pub fn infer(&mut self, raw: &[u8]) -> Result<Vec<u8>, InferError> {
        self.observe(raw, &mut ())
    }

    /// As [`Engine::infer`], with the CRC-32 of every layer's packed output.
    pub fn infer_with_crcs(&mut self, raw: &[u8]) -> Result<(Vec<u8>, Vec<u32>), InferError> {
        struct Crcs(Vec<u32>);
        impl Observer for Crcs {
            fn end(&mut self, _: usize, output: &[u8]) {
                self.0.push(crc32(&[output]));
            }
        }
        let mut crcs = Crcs(Vec::new());
        let output = self.observe(raw, &mut crcs)?;
        Ok((output, crcs.0))
    }

    /// As [`Engine::infer`], watched.
    pub fn observe(
        &mut self,
        raw: &[u8],
        observer: &mut impl Observer,
    ) -> Result<Vec<u8>, InferError> {
        let model = load(&self.words, self.bytes).expect("checked when made, not changed since");
        runtime::infer(&model, raw, &mut self.arena, observer).map(<[u8]>::to_vec)
    }

    /// The predicted class of one raw input.
    pub fn classify(&mut self, raw: &[u8]) -> Result<usize, InferError> {
        let output = self.infer(raw)?;
        Ok(runtime::argmax(runtime::codes(self.output(), &output)))
    }
}

fn load(words: &[u64], bytes: usize) -> Result<Model<'_>, LoadError> {
    Model::load(&bytemuck::cast_slice::<u64, u8>(words)[..bytes])
}

/// Classes of many raw inputs, on all cores; each core has an engine of its own.
pub fn evaluate(engine: &Engine, inputs: &[&[u8]]) -> Result<Vec<usize>, InferError> {
    let chunk = inputs.len().div_ceil(rayon::current_num_threads() * 4).max(1);
    let parts: Result<Vec<Vec<usize>>, InferError> = inputs
        .par_chunks(chunk)
        .map(|inputs| {
            let mut engine = engine.clone();
            inputs.iter().map(|raw| engine.classify(raw)).collect()
        })
        .collect();
    Ok(parts?.concat())
}
