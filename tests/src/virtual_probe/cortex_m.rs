//! The debug registers of a Cortex-M, on an emulated core that has none: halt, step, core
//! registers, breakpoints and reset, as a debugger sees them in memory.
//!
//! Registers: Armv7-M Architecture Reference Manual (DDI 0403), C1.6 (DHCSR, DCRSR, DCRDR, DEMCR,
//! DFSR), C1.11 (FPB), B3.2.6 (AIRCR). Must not know how a debugger reaches the core
//! ([`super::serial_wire`]).

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use super::gdb::{Qemu, XPSR};

const AIRCR: u32 = 0xe000_ed0c;
const DFSR: u32 = 0xe000_ed30;
const DHCSR: u32 = 0xe000_edf0;
const DCRSR: u32 = 0xe000_edf4;
const DCRDR: u32 = 0xe000_edf8;
const DEMCR: u32 = 0xe000_edfc;
const FP_CTRL: u32 = 0xe000_2000;
const FP_COMP: u32 = 0xe000_2008;
const COMPARATORS: usize = 6;

/// Why the core is halted, bits of DFSR.
const HALTED: u32 = 1 << 0;
const BREAKPOINT: u32 = 1 << 1;
const VECTOR_CATCH: u32 = 1 << 3;

/// Longest time a running core is kept stopped for accesses that follow each other.
const STOPPED: Duration = Duration::from_millis(2);

/// An emulated Cortex-M with debug registers.
pub struct CortexM {
    qemu: Qemu,
    /// The low bits of DHCSR: C_DEBUGEN, C_HALT (unused), C_STEP, C_MASKINTS.
    control: u32,
    halted: bool,
    /// Not halted, but stopped since then for an access.
    stopped: Option<Instant>,
    was_reset: bool,
    status: u32,
    monitor: u32,
    data: u32,
    comparators: [u32; COMPARATORS],
    comparing: bool,
    /// Breakpoint on the instruction that ends a routine the debugger has called.
    end: Option<u32>,
    /// Registers that only keep what is written.
    kept: BTreeMap<u32, u32>,
    /// Whether what runs is a firmware, not a routine the debugger has called.
    firmware: bool,
    frozen: bool,
}

impl CortexM {
    /// Starts a machine whose memory holds a program that does nothing: its vector table lies at
    /// `vectors`, its stack begins at `stack`.
    pub fn start(machine: &str, vectors: u32, stack: u32) -> io::Result<CortexM> {
        let mut qemu = Qemu::start(machine)?;
        let mut factory = [stack, vectors + 9].map(u32::to_le_bytes).concat();
        // b .
        factory.extend([0xfe, 0xe7, 0xfe, 0xe7]);
        qemu.write(vectors, &factory)?;
        qemu.reset()?;
        let mut core = CortexM {
            qemu,
            control: 0,
            halted: true,
            stopped: None,
            was_reset: true,
            status: 0,
            monitor: 0,
            data: 0,
            comparators: [0; COMPARATORS],
            comparing: false,
            end: None,
            kept: BTreeMap::new(),
            firmware: false,
            frozen: false,
        };
        core.resume()?;
        Ok(core)
    }

    /// Whether a firmware runs that the debugger has started.
    pub fn runs_firmware(&self) -> bool {
        self.firmware
    }

    /// Lets a core that was stopped for an access go on.
    pub fn idle(&mut self) -> io::Result<()> {
        if !self.frozen && self.stopped.take().is_some() {
            self.qemu.resume()?;
        }
        Ok(())
    }

    /// Keeps the running core from executing anything more.
    pub fn freeze(&mut self) -> io::Result<()> {
        self.stop()?;
        self.frozen = true;
        Ok(())
    }

    /// Puts an undefined instruction where the running core goes on.
    pub fn spoil(&mut self) -> io::Result<()> {
        // UDF, Armv7-M Architecture Reference Manual, A7.7.194.
        const UNDEFINED: [u8; 2] = 0xde00u16.to_le_bytes();
        self.stop()?;
        let next = self.qemu.register(15)?;
        self.qemu.write(next, &UNDEFINED)
    }

    /// Resets the chip, as its reset line does. With the vector catch it halts, else it runs.
    pub fn reset(&mut self) -> io::Result<()> {
        self.stop()?;
        self.qemu.reset()?;
        self.was_reset = true;
        self.stopped = None;
        self.firmware = false;
        self.comparing = false;
        self.halted = true;
        if self.monitor & 1 != 0 && self.control & 1 != 0 {
            self.status |= VECTOR_CATCH;
            return Ok(());
        }
        self.resume()
    }

    /// Reads memory and registers.
    pub fn read(&mut self, address: u32, bytes: &mut [u8]) -> io::Result<()> {
        if address < 0xe000_0000 {
            self.stop()?;
            return self.qemu.read(address, bytes);
        }
        for (index, piece) in bytes.chunks_mut(4).enumerate() {
            let address = address + 4 * index as u32;
            let word = self.register(address & !3)?.to_le_bytes();
            let from = (address & 3) as usize;
            let word = word.get(from..from + piece.len()).ok_or(io::ErrorKind::InvalidInput)?;
            piece.copy_from_slice(word);
        }
        Ok(())
    }

    /// Writes memory and registers.
    pub fn write(&mut self, address: u32, bytes: &[u8]) -> io::Result<()> {
        if address < 0xe000_0000 {
            self.stop()?;
            return self.qemu.write(address, bytes);
        }
        for (index, piece) in bytes.chunks(4).enumerate() {
            let word = piece.first_chunk().ok_or(io::ErrorKind::InvalidInput)?;
            self.set_register(address + 4 * index as u32, u32::from_le_bytes(*word))?;
        }
        Ok(())
    }

    /// A word of the private peripheral bus.
    fn register(&mut self, address: u32) -> io::Result<u32> {
        Ok(match address {
            AIRCR => 0xfa05_0000,
            DFSR => self.status,
            DHCSR => self.halting_status()?,
            DCRSR => 0,
            DCRDR => self.data,
            DEMCR => self.monitor,
            // Revision 2 of the unit: breakpoints anywhere.
            FP_CTRL => 1 << 28 | (COMPARATORS as u32) << 4 | u32::from(self.comparing),
            _ => match comparator(address) {
                Some(number) => self.comparators[number],
                None if kept(address) => self.kept.get(&address).copied().unwrap_or(0),
                None => {
                    self.stop()?;
                    let mut word = [0; 4];
                    self.qemu.read(address, &mut word)?;
                    u32::from_le_bytes(word)
                }
            },
        })
    }

    fn set_register(&mut self, address: u32, value: u32) -> io::Result<()> {
        match address {
            AIRCR if value >> 16 == 0x05fa && value & 1 << 2 != 0 => self.reset(),
            AIRCR => Ok(()),
            DFSR => {
                self.status &= !value;
                Ok(())
            }
            DHCSR if value >> 16 == 0xa05f => self.control_halting(value & 0xffff),
            DHCSR => Ok(()),
            DCRSR => self.transfer(value),
            DCRDR => {
                self.data = value;
                Ok(())
            }
            DEMCR => {
                self.monitor = value;
                Ok(())
            }
            FP_CTRL => {
                if value & 2 != 0 {
                    self.comparing = value & 1 != 0;
                }
                Ok(())
            }
            _ => match comparator(address) {
                Some(number) => {
                    self.comparators[number] = value;
                    Ok(())
                }
                None if kept(address) => {
                    self.kept.insert(address, value);
                    Ok(())
                }
                None => {
                    self.stop()?;
                    self.qemu.write(address, &value.to_le_bytes())
                }
            },
        }
    }

    fn halting_status(&mut self) -> io::Result<u32> {
        if !self.halted {
            // Who asks whether it has halted wants it to run.
            self.idle()?;
            if self.stopped.is_none() && self.qemu.stopped()? {
                self.hit()?;
            }
        }
        let mut value = self.control & !0b110 | 1 << 16 | 1 << 24;
        if self.halted {
            value |= 1 << 1 | 1 << 17;
        }
        // Sticky until read.
        if std::mem::take(&mut self.was_reset) {
            value |= 1 << 25;
        }
        Ok(value)
    }

    fn control_halting(&mut self, value: u32) -> io::Result<()> {
        const HALT: u32 = 1 << 1;
        const STEP: u32 = 1 << 2;
        self.control = value;
        match (value & HALT != 0, self.halted) {
            (true, false) => {
                self.stop()?;
                if !self.halted {
                    self.stopped = None;
                    self.halted = true;
                    self.status |= HALTED;
                }
                Ok(())
            }
            (false, true) if value & STEP != 0 => {
                self.status |= HALTED;
                self.qemu.step()
            }
            (false, true) => self.resume(),
            _ => Ok(()),
        }
    }

    /// Copies between DCRDR and the register that DCRSR names.
    fn transfer(&mut self, value: u32) -> io::Result<()> {
        // Stack pointers of their own, and the masks, are not in QEMU's description: r13 stands
        // for the main one, the others read as after a reset.
        let number = match value & 0x7f {
            number @ 0..=15 => Some(number as u8),
            16 => Some(XPSR),
            17 => Some(13),
            _ => None,
        };
        match (number, value & 1 << 16 != 0) {
            (Some(number), true) => self.qemu.set_register(number, self.data),
            (Some(number), false) => {
                self.data = self.qemu.register(number)?;
                Ok(())
            }
            (None, true) => Ok(()),
            (None, false) => {
                self.data = 0;
                Ok(())
            }
        }
    }

    /// Lets the halted core run.
    fn resume(&mut self) -> io::Result<()> {
        // A debugger's routine ends at a BKPT it returns to, which does not stop an emulated core.
        let back = self.qemu.register(14)? & !1;
        let mut code = [0; 2];
        let routine =
            back < 0xe000_0000 && self.qemu.read(back, &mut code).is_ok() && code[1] == 0xbe;
        if routine {
            self.qemu.breakpoint(back, true)?;
            self.end = Some(back);
        }
        for address in self.breakpoints() {
            self.qemu.breakpoint(address, true)?;
        }
        self.firmware = !routine && self.control & 1 != 0;
        self.halted = false;
        self.qemu.resume()
    }

    /// Stops a running core for an access, if it runs.
    fn stop(&mut self) -> io::Result<()> {
        match self.stopped {
            _ if self.halted => {}
            Some(since) if self.frozen || since.elapsed() < STOPPED => {}
            Some(_) => {
                // Others want to get on, too.
                self.idle()?;
                std::thread::sleep(Duration::from_micros(200));
                return self.stop();
            }
            None => {
                if self.qemu.halt()? {
                    self.hit()?;
                } else {
                    self.stopped = Some(Instant::now());
                }
            }
        }
        Ok(())
    }

    /// The core has stopped at a breakpoint.
    fn hit(&mut self) -> io::Result<()> {
        if let Some(end) = self.end.take() {
            self.qemu.breakpoint(end, false)?;
        }
        for address in self.breakpoints() {
            self.qemu.breakpoint(address, false)?;
        }
        self.halted = true;
        self.stopped = None;
        self.status |= BREAKPOINT;
        Ok(())
    }

    fn breakpoints(&self) -> Vec<u32> {
        let set = self.comparators.iter().filter(|word| self.comparing && *word & 1 != 0);
        set.map(|word| word & !1).collect()
    }
}

/// The breakpoint comparator at an address.
fn comparator(address: u32) -> Option<usize> {
    let number = address.checked_sub(FP_COMP)? as usize / 4;
    (number < COMPARATORS).then_some(number)
}

/// Whether a register of the debug system only keeps what is written: trace units, the chip's own
/// debug settings.
fn kept(address: u32) -> bool {
    (0xe000_0000..0xe000_3000).contains(&address) || (0xe004_0000..0xe010_0000).contains(&address)
}
