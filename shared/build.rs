//! Tells the kernels which instruction set the build is for: `target_feature = "dsp"` is not
//! visible on stable, so the target's name decides.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(jaq_armv7em)");
    let target = std::env::var("TARGET").unwrap_or_default();
    // DSP instructions and single-precision registers (the micro-kernels keep counters there).
    if target.starts_with("thumbv7em") && target.ends_with("eabihf") {
        println!("cargo::rustc-cfg=jaq_armv7em");
    }
}
