//! Nothing from a start-up library; the entry keeps the section.

fn main() {
    for argument in ["--entry=Init", "--nmagic"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
