//! Tells the kernels which instruction set the build is for: `target_feature = "dsp"` is not
//! visible on stable, so the target's name decides.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!(
        "cargo::rustc-check-cfg=cfg(jaq_armv7em, jaq_armv7m, jaq_armv6m, jaq_rv32im, jaq_xpulp)"
    );
    // Names of the kernels to link, those of one model; all of them if there are none.
    println!("cargo::rerun-if-env-changed=JAQ_KERNELS");
    let kernels = std::env::var("JAQ_KERNELS").unwrap_or_default();
    println!("cargo::rustc-env=JAQ_KERNELS={kernels}");
    let target = std::env::var("TARGET").unwrap_or_default();
    // DSP instructions and single-precision registers (the micro-kernels keep counters there). An
    // Armv8-M core with a floating-point unit is taken for a Cortex-M33 with both.
    let dsp = target.starts_with("thumbv7em") || target.starts_with("thumbv8m.main");
    if dsp && target.ends_with("eabihf") {
        println!("cargo::rustc-cfg=jaq_armv7em");
        // The assembler does not know of the DSP instructions by the target's name alone.
        let cpu = if target.starts_with("thumbv8m") { ".cpu cortex-m33" } else { "" };
        println!("cargo::rustc-env=JAQ_ASM_CPU={cpu}");
    }
    for (prefix, cfg) in
        [("thumbv7m", "jaq_armv7m"), ("thumbv6m", "jaq_armv6m"), ("riscv32im", "jaq_rv32im")]
    {
        if target.starts_with(prefix) {
            println!("cargo::rustc-cfg={cfg}");
        }
    }
    // Extensions that a target's name does not tell.
    if target.starts_with("riscv32im") && std::env::var_os("CARGO_FEATURE_XPULP").is_some() {
        println!("cargo::rustc-cfg=jaq_xpulp");
    }
}
