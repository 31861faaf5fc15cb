//! Serial wire debug: the port a probe talks to, at bit level as far as a debugger uses it to
//! connect, and the access port behind it that reaches the core's memory.
//!
//! Registers and packets: Arm Debug Interface Architecture Specification ADIv5.2 (IHI 0031), B2
//! (debug port), B4.2 (packets), C2 (memory access port). Must not know a core's debug registers
//! ([`super::cortex_m`]).

use std::collections::VecDeque;
use std::io;

use super::cortex_m::CortexM;
use super::remote::{Fields, Reply};
use super::{Fault, Target};

/// Identification of the port: version 1, by Arm.
const DPIDR: u32 = 0x2ba0_1477;
/// Identification of the memory access port: AHB.
const AHB: u32 = 0x2477_0011;
/// Identification of Nordic's control access port.
const NORDIC: u32 = 0x0288_0000;
const OK: u64 = 0b001;
const FAULT: u64 = 0b100;

/// A Cortex-M on serial wire.
pub struct SerialWire {
    core: CortexM,
    control: u32,
    select: u32,
    csw: u32,
    address: u32,
    wires: Wires,
    started: u64,
    /// Where flash lies: a bad cell is one of its.
    flash: std::ops::Range<u32>,
    suffered: Vec<Fault>,
}

/// The bits on the wire.
#[derive(Default)]
struct Wires {
    /// Sent by the probe and not yet understood.
    sent: VecDeque<bool>,
    /// To be read by the probe.
    reply: VecDeque<bool>,
    /// The register whose value follows.
    write: Option<u32>,
    ones: usize,
}

impl SerialWire {
    /// A core whose flash lies at `flash`.
    pub fn new(core: CortexM, flash: std::ops::Range<u32>) -> Self {
        let wires = Wires::default();
        let (control, select, csw, address, started) = (0, 0, 0x2300_0040, 0, 0);
        SerialWire { core, control, select, csw, address, wires, started, flash, suffered: vec![] }
    }

    fn suffers(&self, fault: Fault) -> bool {
        self.suffered.contains(&fault)
    }

    fn read_port(&mut self, address: u32) -> u32 {
        match address & 0xf {
            0x0 => DPIDR,
            // Powered as soon as it is asked for.
            0x4 if self.select & 0xf == 0 => self.control | (self.control & 0x5000_0000) << 1,
            _ => 0,
        }
    }

    fn write_port(&mut self, address: u32, value: u32) {
        match address & 0xf {
            0x4 if self.select & 0xf == 0 => self.control = value & 0x5fff_ff5d,
            0x8 => self.select = value,
            _ => {}
        }
    }

    fn read_access(&mut self, port: u32, address: u32) -> io::Result<u32> {
        if port == 1 && self.suffers(Fault::Locked) {
            return Ok(match address & 0xff {
                0xfc => NORDIC,
                // Access port protection is on.
                _ => 0,
            });
        }
        if port != 0 {
            return Ok(0);
        }
        match address & 0xff {
            0x00 => Ok(self.csw),
            0x04 => Ok(self.address),
            0x0c => {
                let mut word = [0; 4];
                self.read(self.address, &mut word)?;
                Ok(u32::from_le_bytes(word))
            }
            0xf8 => Ok(0xe00f_f003),
            0xfc => Ok(AHB),
            _ => Ok(0),
        }
    }

    fn write_access(&mut self, port: u32, address: u32, value: u32) -> io::Result<()> {
        match (port, address & 0xff) {
            // Enabled, whatever is written.
            (0, 0x00) => self.csw = value | 0x40,
            (0, 0x04) => self.address = value,
            (0, 0x0c) => self.core.write(self.address, &value.to_le_bytes())?,
            _ => {}
        }
        Ok(())
    }

    fn read(&mut self, address: u32, bytes: &mut [u8]) -> io::Result<()> {
        self.memory()?;
        self.core.read(address, bytes)?;
        let cell = self.flash.start + 0x104;
        if self.suffers(Fault::BadCell)
            && let Some(byte) = bytes.get_mut(cell.wrapping_sub(address) as usize)
        {
            *byte ^= 0x20;
        }
        Ok(())
    }

    /// Fails where the memory is out of reach.
    fn memory(&self) -> io::Result<()> {
        if self.suffers(Fault::Lost) || self.suffers(Fault::Locked) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        Ok(())
    }

    fn run(&mut self, command: &str) -> io::Result<Reply> {
        let mut fields = Fields(command.get(2..).unwrap_or_default());
        let f = &mut fields;
        if self.core.runs_firmware() {
            self.started += 1;
        }
        if self.suffers(Fault::Lost) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let bad = Ok(Reply::BadParameter);
        match command.get(..2).unwrap_or_default() {
            "SS" => Ok(Reply::DONE),
            "So" | "SO" => match (f.take(2), f.rest()) {
                (Some(count), Some(bits)) => {
                    self.shift_out(count, bits);
                    Ok(Reply::DONE)
                }
                _ => bad,
            },
            "Si" | "SI" => match f.take(2) {
                Some(count) => Ok(Reply::Value(self.shift_in(count))),
                None => bad,
            },
            // Device, filler, register.
            "Ad" => match (f.take(4), f.take(4)) {
                (Some(_), Some(address)) => {
                    Ok(Reply::Value(self.read_port(address).swap_bytes().into()))
                }
                _ => bad,
            },
            "AR" => match (f.take(4), f.take(4), f.take(8)) {
                (Some(_), Some(address), Some(value)) => {
                    self.write_port(address, value);
                    Ok(Reply::DONE)
                }
                _ => bad,
            },
            "Aa" => match (f.take(2), f.take(2), f.take(4)) {
                (Some(_), Some(port), Some(address)) => {
                    let value = self.read_access(port, address)?;
                    Ok(Reply::Value(value.swap_bytes().into()))
                }
                _ => bad,
            },
            "AA" => match (f.take(2), f.take(2), f.take(4), f.take(8)) {
                (Some(_), Some(port), Some(address), Some(value)) => {
                    self.write_access(port, address, value.swap_bytes())?;
                    Ok(Reply::DONE)
                }
                _ => bad,
            },
            // Device, port, CSW, address, length.
            "Am" => match (f.take(4), f.take(8), f.take(8), f.take(8)) {
                (Some(_), Some(_), Some(address), Some(length)) if length <= 1024 => {
                    let mut bytes = vec![0; length as usize];
                    self.read(address, &mut bytes)?;
                    Ok(Reply::Bytes(bytes))
                }
                _ => bad,
            },
            // Device, port, CSW, alignment, address, length, data.
            "AM" => match (f.take(4), f.take(8), f.take(2), f.take(8), f.take(8), f.bytes()) {
                (Some(_), Some(_), Some(_), Some(address), Some(length), Some(bytes))
                    if bytes.len() == length as usize =>
                {
                    self.memory()?;
                    self.core.write(address, &bytes)?;
                    Ok(Reply::DONE)
                }
                _ => bad,
            },
            _ => Ok(Reply::Unsupported),
        }
    }

    fn shift_out(&mut self, count: u32, bits: u64) {
        // A probe that sends has read what it wanted.
        self.wires.reply.clear();
        for at in 0..count.min(64) {
            let bit = bits >> at & 1 != 0;
            self.wires.ones = if bit { self.wires.ones + 1 } else { 0 };
            self.wires.sent.push_back(bit);
            if self.wires.ones >= 50 {
                // Line reset.
                self.wires = Wires { ones: self.wires.ones, ..Wires::default() };
            }
        }
        self.understand();
    }

    fn shift_in(&mut self, count: u32) -> u64 {
        (0..count.min(64)).fold(0, |value, at| {
            value | u64::from(self.wires.reply.pop_front().unwrap_or(false)) << at
        })
    }

    /// Takes requests, and values that follow them, from what was sent.
    fn understand(&mut self) {
        let take = |sent: &mut VecDeque<bool>, count: usize| {
            let bits = sent.drain(..count).enumerate();
            bits.fold(0u64, |value, (at, bit)| value | u64::from(bit) << at)
        };
        loop {
            if let Some(register) = self.wires.write {
                // 32 bits and their parity.
                if self.wires.sent.len() < 33 {
                    return;
                }
                let value = take(&mut self.wires.sent, 33) as u32;
                self.wires.write = None;
                self.write_port(register, value);
                continue;
            }
            while self.wires.sent.front() == Some(&false) {
                self.wires.sent.pop_front();
            }
            if self.wires.sent.len() < 8 {
                return;
            }
            let peek = self.wires.sent.iter().take(8).enumerate();
            let request = peek.fold(0u32, |value, (at, bit)| value | u32::from(*bit) << at);
            // Start, port, direction, two bits of address, parity, stop, park.
            let parity = (request >> 1 & 0xf).count_ones() & 1 == request >> 5 & 1;
            if !(parity && request & 0xc1 == 0x81) {
                self.wires.sent.pop_front();
                continue;
            }
            take(&mut self.wires.sent, 8);
            let register = request >> 1 & 0xc;
            let gone = self.suffers(Fault::WrongAck) || self.suffers(Fault::Lost);
            let mut reply = if gone { FAULT } else { OK };
            if request & 4 == 0 {
                self.wires.write = (!gone).then_some(register);
                self.answer(reply, 3);
            } else {
                // Only the debug port's registers are read bit by bit.
                let value = self.read_port(register);
                reply |= u64::from(value) << 3 | u64::from(value.count_ones() & 1) << 35;
                self.answer(reply, 36);
            }
        }
    }

    fn answer(&mut self, bits: u64, count: usize) {
        self.wires.reply = (0..count).map(|at| bits >> at & 1 != 0).collect();
    }
}

impl Target for SerialWire {
    fn arm(&mut self, command: &str) -> Reply {
        self.run(command).unwrap_or(Reply::Failed)
    }

    fn reset_line(&mut self, asserted: bool) -> io::Result<()> {
        if asserted { self.core.reset() } else { Ok(()) }
    }

    fn idle(&mut self) -> io::Result<()> {
        self.core.idle()
    }

    fn commands_since_start(&self) -> u64 {
        self.started
    }

    fn suffer(&mut self, fault: Fault) {
        match fault {
            // A core that cannot be reached has died: that shows at the next command.
            Fault::Reset => drop(self.core.reset()),
            Fault::Freeze => drop(self.core.freeze()),
            Fault::BadInstruction => drop(self.core.spoil()),
            fault => self.suffered.push(fault),
        }
    }
}
