//! QEMU's debugger stub as a core: registers, memory, run and stop, by the GDB remote serial
//! protocol.
//!
//! What was found to hold for QEMU 7.2: single registers are served only after the target's
//! description was read; interrupting a running core answers with signal 2, a breakpoint with 5;
//! a core whose fault handler faults makes QEMU abort, which ends the connection.
//! Must not know debug registers of a real core ([`super::cortex_m`]).

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::remote::unhex;

/// Longest wait for an answer of the emulator.
const WAIT: Duration = Duration::from_secs(20);
/// Most bytes of memory in one packet; QEMU takes 4096 characters.
const PIECE: usize = 1024;
/// Number of the program status register in QEMU's description of Armv7-M.
pub const XPSR: u8 = 0x19;

/// An emulated machine, halted at its reset vector until it is told to run.
pub struct Qemu {
    child: Child,
    stream: UnixStream,
    received: Vec<u8>,
    /// Holds the socket's file.
    _folder: tempfile::TempDir,
}

impl Qemu {
    /// Starts a machine without any firmware.
    pub fn start(machine: &str) -> io::Result<Qemu> {
        let folder = tempfile::Builder::new().prefix("jaq-gdb").tempdir()?;
        let path = folder.path().join("gdb");
        let listener = UnixListener::bind(&path)?;
        let mut chardev = std::ffi::OsString::from("socket,id=gdb,path=");
        chardev.push(&path);
        let mut child = Command::new("qemu-system-arm")
            .args(["-machine", machine, "-icount", "shift=7", "-display", "none", "-S"])
            .args(["-monitor", "none", "-serial", "none", "-gdb", "chardev:gdb", "-chardev"])
            .arg(chardev)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        listener.set_nonblocking(true)?;
        let until = Instant::now() + WAIT;
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(_) if child.try_wait()?.is_none() && Instant::now() < until => {
                    thread::sleep(Duration::from_millis(2));
                }
                Err(error) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(io::Error::new(error.kind(), "QEMU did not connect"));
                }
            }
        };
        stream.set_nonblocking(false)?;
        let mut qemu = Qemu { child, stream, received: Vec::new(), _folder: folder };
        qemu.ask("qSupported:multiprocess-")?;
        qemu.ask("QStartNoAckMode")?;
        qemu.ask("qXfer:features:read:target.xml:0,ffb")?;
        Ok(qemu)
    }

    /// Reads memory.
    pub fn read(&mut self, address: u32, bytes: &mut [u8]) -> io::Result<()> {
        for (index, piece) in bytes.chunks_mut(PIECE).enumerate() {
            let at = address.wrapping_add((index * PIECE) as u32);
            let answer = self.ask(&format!("m{at:x},{:x}", piece.len()))?;
            match unhex(&answer) {
                Some(found) if found.len() == piece.len() => piece.copy_from_slice(&found),
                _ => return Err(refused("a read")),
            }
        }
        Ok(())
    }

    /// Writes memory.
    pub fn write(&mut self, address: u32, bytes: &[u8]) -> io::Result<()> {
        for (index, piece) in bytes.chunks(PIECE).enumerate() {
            let at = address.wrapping_add((index * PIECE) as u32);
            let hex: String = piece.iter().map(|byte| format!("{byte:02x}")).collect();
            self.expect_ok(&format!("M{at:x},{:x}:{hex}", piece.len()), "a write")?;
        }
        Ok(())
    }

    /// Reads a register by QEMU's number.
    pub fn register(&mut self, number: u8) -> io::Result<u32> {
        let answer = self.ask(&format!("p{number:x}"))?;
        let bytes = unhex(&answer).and_then(|bytes| bytes.first_chunk().copied());
        bytes.map(u32::from_le_bytes).ok_or_else(|| refused("a register"))
    }

    /// Writes a register by QEMU's number.
    pub fn set_register(&mut self, number: u8, value: u32) -> io::Result<()> {
        let value = value.swap_bytes();
        self.expect_ok(&format!("P{number:x}={value:08x}"), "a register")
    }

    /// Sets a breakpoint, or takes it away.
    pub fn breakpoint(&mut self, address: u32, set: bool) -> io::Result<()> {
        let letter = if set { 'Z' } else { 'z' };
        self.expect_ok(&format!("{letter}1,{address:x},2"), "a breakpoint")
    }

    /// Lets the core run.
    pub fn resume(&mut self) -> io::Result<()> {
        self.send("c")
    }

    /// Stops the running core; `true` if it had stopped by itself at a breakpoint.
    pub fn halt(&mut self) -> io::Result<bool> {
        self.stream.write_all(&[3])?;
        let stop = self.packet(WAIT)?.ok_or_else(silent)?;
        let itself = !stop.starts_with("T02") && !stop.starts_with("S02");
        if itself {
            // The interrupt came after the breakpoint; its own answer may follow.
            self.packet(Duration::from_millis(20))?;
        }
        Ok(itself)
    }

    /// Executes one instruction.
    pub fn step(&mut self) -> io::Result<()> {
        self.send("s")?;
        self.packet(WAIT)?.ok_or_else(silent).map(drop)
    }

    /// Whether the running core has stopped by itself.
    pub fn stopped(&mut self) -> io::Result<bool> {
        Ok(self.packet(Duration::from_micros(100))?.is_some())
    }

    /// Resets the halted machine with its peripherals; it stays halted at its reset vector.
    pub fn reset(&mut self) -> io::Result<()> {
        // The reset takes place a while after the answer: r12 shows when.
        const MARK: u32 = 0x5ca1_ab1e;
        self.set_register(12, MARK)?;
        let command: String = "system_reset".bytes().map(|byte| format!("{byte:02x}")).collect();
        self.expect_ok(&format!("qRcmd,{command}"), "a reset")?;
        let until = Instant::now() + WAIT;
        while self.register(12)? == MARK {
            if Instant::now() > until {
                return Err(silent());
            }
        }
        Ok(())
    }

    fn expect_ok(&mut self, command: &str, what: &str) -> io::Result<()> {
        match self.ask(command)?.as_str() {
            "OK" => Ok(()),
            _ => Err(refused(what)),
        }
    }

    /// Sends a packet and waits for its answer.
    fn ask(&mut self, command: &str) -> io::Result<String> {
        self.send(command)?;
        loop {
            let answer = self.packet(WAIT)?.ok_or_else(silent)?;
            // Output of the monitor precedes the answer.
            if !(answer.starts_with('O') && answer != "OK") {
                return Ok(answer);
            }
        }
    }

    fn send(&mut self, data: &str) -> io::Result<()> {
        let sum = data.bytes().fold(0u8, u8::wrapping_add);
        self.stream.write_all(format!("${data}#{sum:02x}").as_bytes())
    }

    /// The next packet that comes within `wait`.
    fn packet(&mut self, wait: Duration) -> io::Result<Option<String>> {
        let until = Instant::now() + wait;
        loop {
            let start = self.received.iter().position(|byte| *byte == b'$');
            let end = start.and_then(|start| {
                let length = self.received[start..].iter().position(|byte| *byte == b'#')?;
                // Two digits of checksum follow; the socket loses nothing, they are not looked at.
                (self.received.len() >= start + length + 3).then_some(start + length)
            });
            if let (Some(start), Some(end)) = (start, end) {
                let text = String::from_utf8_lossy(&self.received[start + 1..end]).into_owned();
                self.received.drain(..end + 3);
                return Ok(Some(text));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.received.extend_from_slice(&buffer[..len]),
                Err(error) if super::timed_out(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn refused(what: &str) -> io::Error {
    io::Error::other(format!("QEMU refuses {what}"))
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "QEMU does not answer")
}
