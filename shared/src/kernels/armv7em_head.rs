//! What every block of Armv7E-M assembly begins with.

/// The processor's directives, and a macro of the assembler, called as said, that begins a routine
/// in a section of its own. The name is one block's: blocks may be assembled together.
macro_rules! armv7em_head {
    ($routine:literal) => {
        concat!(
            env!("JAQ_ASM_CPU"),
            "\n.syntax unified\n.fpu fpv4-sp-d16\n.thumb\n",
            ".macro ",
            $routine,
            " name\n",
            ".section .text.\\name,\"ax\",%progbits\n",
            ".p2align 2\n.global \\name\n.type \\name, %function\n.thumb_func\n",
            "\\name:\n.endm\n",
        )
    };
}
