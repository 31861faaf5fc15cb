//! A target on JTAG pins: the probe's bit commands, one clock after the other.
//!
//! Must not know what the scan chain holds.

use std::io;

use super::remote::{Fields, Reply};
use super::{Fault, Target};

/// The four pins of a scan chain.
pub trait Pins: Send {
    /// One clock for every pair of TMS and TDI; what TDO showed before each rising edge.
    fn clock(&mut self, bits: &[(bool, bool)]) -> io::Result<Vec<bool>>;

    /// Pulls the reset line of the chip, or lets it go.
    fn reset_line(&mut self, _asserted: bool) -> io::Result<()> {
        Ok(())
    }
}

/// A chip behind JTAG pins.
pub struct Jtag<P> {
    pins: P,
    lost: bool,
}

impl<P: Pins> Jtag<P> {
    /// A chip on `pins`.
    pub fn new(pins: P) -> Self {
        Jtag { pins, lost: false }
    }

    fn shift(&mut self, bits: &[(bool, bool)]) -> Reply {
        if self.lost {
            return Reply::Failed;
        }
        match self.pins.clock(bits) {
            Err(_) => Reply::Failed,
            Ok(seen) => {
                let bits = seen.iter().take(64).enumerate();
                Reply::Value(bits.fold(0, |value, (at, bit)| value | u64::from(*bit) << at))
            }
        }
    }
}

impl<P: Pins> Target for Jtag<P> {
    fn jtag(&mut self, command: &str) -> Reply {
        let Some(what) = command.get(..1) else { return Reply::BadParameter };
        let mut fields = Fields(&command[1..]);
        match what {
            // Start, and reset to Test-Logic-Reset and on to Run-Test/Idle.
            "S" => Reply::DONE,
            "R" => {
                let mut bits = [(true, true); 6];
                bits[5].0 = false;
                match self.shift(&bits) {
                    Reply::Value(_) => Reply::DONE,
                    failed => failed,
                }
            }
            "N" => match (fields.take(1), fields.take(1)) {
                (Some(tms), Some(tdi)) => self.shift(&[(tms != 0, tdi != 0)]),
                _ => Reply::BadParameter,
            },
            "T" | "D" | "d" => {
                let (Some(count), Some(value)) = (fields.take(2), fields.rest()) else {
                    return Reply::BadParameter;
                };
                let count = count.min(64) as usize;
                let bits: Vec<(bool, bool)> = (0..count)
                    .map(|at| {
                        let bit = value >> at & 1 != 0;
                        // `T` drives TMS; `D` ends the shift with its last bit, `d` does not.
                        if what == "T" {
                            (bit, true)
                        } else {
                            (what == "D" && at + 1 == count, bit)
                        }
                    })
                    .collect();
                self.shift(&bits)
            }
            _ => Reply::Unsupported,
        }
    }

    fn reset_line(&mut self, asserted: bool) -> io::Result<()> {
        self.pins.reset_line(asserted)
    }

    fn suffer(&mut self, fault: Fault) {
        match fault {
            Fault::Reset => {
                // A chip that is gone cannot be reset: that shows at the next command.
                let _ = self.pins.reset_line(true).and_then(|()| self.pins.reset_line(false));
            }
            Fault::Lost => self.lost = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TDI comes back two clocks later; every clock is noted.
    #[derive(Default)]
    struct Delay {
        held: [bool; 2],
        tms: Vec<bool>,
    }

    impl Pins for Delay {
        fn clock(&mut self, bits: &[(bool, bool)]) -> io::Result<Vec<bool>> {
            let shift = |(tms, tdi): &(bool, bool)| {
                self.tms.push(*tms);
                let out = self.held[0];
                self.held = [self.held[1], *tdi];
                out
            };
            Ok(bits.iter().map(shift).collect())
        }
    }

    #[test]
    fn bits_go_out_and_come_back_in_order() {
        let mut target = Jtag::new(Delay::default());
        assert_eq!(target.jtag("d08b5"), Reply::Value(0xd4));
        assert_eq!(target.jtag("D0200"), Reply::Value(0x2));
        assert_eq!(target.pins.tms, [vec![false; 9], vec![true]].concat());
        assert_eq!(target.jtag("T03x"), Reply::BadParameter);
        target.suffer(Fault::Lost);
        assert_eq!(target.jtag("N10"), Reply::Failed);
    }
}
