//! The smallest use of a packed model: load it, run it on one image, name the class.
//!
//! It needs `jaq-shared` alone, which never allocates and has no `std`: in a firmware the same
//! lines run with an arena in RAM and the model in flash.

use jaq_shared::format::Model;
use jaq_shared::runtime::{argmax, codes, infer};

/// Bytes at a multiple of 4, as [`Model::load`] wants them.
#[repr(C, align(4))]
struct Aligned<const N: usize>([u8; N]);

static MODEL: &Aligned<{ include_bytes!("fashion-mnist-stm32h7/model.jaq").len() }> =
    &Aligned(*include_bytes!("fashion-mnist-stm32h7/model.jaq"));
/// 28 x 28 grey bytes.
static IMAGE: &[u8] = include_bytes!("fashion-mnist-stm32h7/image.bin");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = Model::load(&MODEL.0)?;
    // A firmware takes a `static` array; `jaq-host inspect model.jaq` says how large.
    let mut arena = vec![0; model.arena_words()];
    let logits = infer(&model, IMAGE, &mut arena, &mut ())?;
    let class = argmax(codes(model.output().format, logits));
    let name = model.classes().nth(class).unwrap_or("a class without a name");
    println!("{name}: {} bytes of model, {} of arena", MODEL.0.len(), arena.len() * 4);
    Ok(())
}
