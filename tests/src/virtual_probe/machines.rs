//! The emulated machines a virtual probe can have on its pins.

use std::io;

use super::Target;
use super::cortex_m::CortexM;
use super::serial_wire::SerialWire;

/// Names of QEMU's machines.
pub const NAMES: [&str; 3] = ["mps2-an500", "mps2-an386", "netduinoplus2"];

/// A machine on serial wire, running a program that does nothing.
pub fn target(machine: &str) -> io::Result<Box<dyn Target>> {
    // Vector table, stack and flash: QEMU's hw/arm/mps2.c and stm32f405_soc.c.
    let (vectors, flash) = match machine {
        "mps2-an500" | "mps2-an386" => (0, 0..0x0040_0000),
        "netduinoplus2" => (0x0800_0000, 0x0800_0000..0x0810_0000),
        _ => return Err(io::Error::other(format!("known machines: {}", NAMES.join(", ")))),
    };
    let core = CortexM::start(machine, vectors, 0x2000_1000)?;
    Ok(Box::new(SerialWire::new(core, flash)))
}
