//! A reference network with seeded weights, packed for a core: something to validate a board with
//! where no trained model fits its kernels.
//!
//! Must not know what the network would have learned: it is compared bit for bit, not judged.

use jaq_cost::planner;
use jaq_network::reference::network;
use jaq_network::{Network, SplitMix64, TrainedLayer, TrainedNetwork};
use jaq_shared::format::{Bits, Model};
use jaq_shared::kernels::Isa;

use crate::export::{self, ExportError, Origin, Packed};

/// The network: convolution, depthwise, pointwise and linear layers in 2.7 M products.
pub const NAME: &str = "dscnn";

/// The reference network at 4 bits with weights from `seed`, packed for `isa`.
pub fn packed(isa: Isa, board: &str, seed: u64) -> Result<Packed, ExportError> {
    let network = network(NAME).expect("a reference network").with_uniform_bits(Bits::B4, Bits::B4);
    let trained = random_values(network, seed);
    let integers = export::integers(&trained)?;
    let kernels = export::choose_kernels(&trained, &integers, isa)?;
    let plan = planner::plan(&trained.network, &kernels);
    let origin = Origin { tool: NAME.into(), board: board.into(), seed, ..Origin::default() };
    export::pack(&trained, &integers, &plan.schedule, &origin)
}

/// What the network's packed weights, and its tables, take of flash on `isa`.
pub fn sizes(isa: Isa, board: &str) -> Result<(usize, usize), ExportError> {
    let packed = packed(isa, board, 1)?;
    let aligned = export::aligned(&packed.bytes);
    let bytes = bytemuck::cast_slice::<u64, u8>(&aligned);
    let model = Model::load(bytes.get(..packed.bytes.len()).unwrap_or_default())
        .map_err(ExportError::Invalid)?;
    let tables: u32 = model.layers().map(|l| l.multipliers.len + l.biases.len).sum();
    let weights: u32 = model.layers().map(|l| l.weights.len).sum();
    Ok((weights as usize, tables as usize))
}

/// Values that keep every sum within the range of its codes.
fn random_values(network: Network, seed: u64) -> TrainedNetwork {
    let mut random = SplitMix64(seed);
    let tensors = std::iter::once(&network.input).chain(network.layers.iter().map(|l| &l.output));
    // Every tensor's codes stand for 0 to 1.
    let scales = tensors.map(|t| 1.0 / t.bits.max_unsigned() as f32).collect();
    let layers = (0..network.layers.len()).map(|index| {
        let (shape, bits) = (network.shape(index), network.layers[index].weight_bits?);
        let half = u64::from(bits.half());
        let channels = usize::from(shape.output.c);
        // Weights of deviation 1/sqrt(3) times codes around 1/2 give sums within 1.
        let scale = 1.0 / (half as f32 * (shape.reduction() as f32).sqrt());
        let mut weight = || random.below(2 * half) as i64 - half as i64;
        let weights = (0..shape.weights()).map(|_| weight() as i8).collect();
        Some(TrainedLayer { weights, scale: vec![scale; channels], offset: vec![0.5; channels] })
    });
    let layers = layers.collect();
    TrainedNetwork { network, scales, layers }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_packs_for_every_core_and_a_seed_gives_the_same_bytes() {
        for isa in [Isa::Portable, Isa::Armv7em, Isa::Armv7m, Isa::Armv6m, Isa::Rv32im] {
            let one = packed(isa, "b", 1).unwrap();
            assert_eq!(one.bytes, packed(isa, "b", 1).unwrap().bytes);
            assert_ne!(one.bytes, packed(isa, "b", 2).unwrap().bytes);
        }
    }
}
