//! A firmware on an emulated core: starts QEMU, feeds the firmware through standard input (which it
//! reads by semihosting), hears its UART over a local socket, and collects the defmt log from
//! standard output.
//!
//! QEMU executes an instruction in a fixed 128 ns (`-icount shift=7`), so that the firmware's
//! timer counts instructions exactly and two runs are the same. Nothing is a latency here.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use jaq_network::Provenance;

use super::{LinkError, Wire, log, source};

/// The emulator of Arm machines, as a command.
pub const QEMU: &str = "qemu-system-arm";
/// The emulator of the RISC-V machine.
pub const QEMU_RISCV: &str = "qemu-system-riscv32";
/// How to come by them.
pub const WAY_OUT: &str = "install it with `apt-get install qemu-system-arm qemu-system-misc` (or run `cargo xtask setup`)";

/// The emulator that has `machine`.
pub fn emulator(machine: &str) -> &'static str {
    if machine == "virt" { QEMU_RISCV } else { QEMU }
}
/// How long QEMU may take to connect.
const CONNECT: Duration = Duration::from_secs(20);

/// A running emulator. It ends when this is dropped.
pub struct Qemu {
    child: Child,
    input: ChildStdin,
    socket: UnixStream,
    elf: PathBuf,
    log: Collected,
    errors: Collected,
    /// Holds the socket's file.
    _folder: tempfile::TempDir,
}

/// Output that a thread reads as it comes.
type Collected = Arc<Mutex<Vec<u8>>>;

impl Qemu {
    /// Starts the firmware `elf` on the emulated `machine`.
    pub fn start(machine: &str, elf: &Path) -> Result<Qemu, LinkError> {
        Qemu::start_with(emulator(machine), machine, elf)
    }

    /// As [`Qemu::start`] with another emulator command.
    pub fn start_with(qemu: &str, machine: &str, elf: &Path) -> Result<Qemu, LinkError> {
        let failed = |source: io::Error| LinkError::Start {
            what: format!("{qemu} for {machine}"),
            way_out: match source.kind() {
                io::ErrorKind::NotFound => WAY_OUT.to_owned(),
                _ => "the folder for temporary files must be writable".to_owned(),
            },
            source,
        };
        let folder = tempfile::Builder::new().prefix("jaq-qemu").tempdir().map_err(failed)?;
        let path = folder.path().join("link");
        let listener = UnixListener::bind(&path).map_err(failed)?;
        let mut chardev = OsString::from("socket,id=link,path=");
        chardev.push(&path);
        let mut child = Command::new(qemu)
            .args(["-machine", machine, "-icount", "shift=7", "-display", "none"])
            // No firmware but ours, where a machine would load one.
            .args(if machine == "virt" { &["-bios", "none"][..] } else { &[] })
            .args(["-monitor", "none", "-serial", "chardev:link", "-chardev"])
            .arg(chardev)
            .args(["-semihosting-config", "enable=on,target=native", "-kernel"])
            .arg(elf)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let log = collect(child.stdout.take());
        let errors = collect(child.stderr.take());
        let input = child.stdin.take().ok_or_else(|| io::Error::other("no standard input"));
        match connect(&listener, &mut child).and_then(|socket| Ok((socket, input?))) {
            Ok((socket, input)) => {
                Ok(Qemu { child, input, socket, elf: elf.to_owned(), log, errors, _folder: folder })
            }
            Err(source) => {
                let _ = child.kill();
                let _ = child.wait();
                thread::sleep(Duration::from_millis(50));
                Err(LinkError::Start {
                    what: format!("{qemu} for {machine}"),
                    source,
                    way_out: match text(&errors) {
                        text if text.is_empty() => "it said nothing".to_owned(),
                        text => format!("it said: {text}"),
                    },
                })
            }
        }
    }

    /// Process id of the emulator.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Wire for Qemu {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.input.write_all(bytes)
    }

    fn receive(&mut self, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
        if timeout.is_zero() {
            return Ok(None);
        }
        self.socket.set_read_timeout(Some(timeout))?;
        let mut buffer = vec![0; 4096];
        match self.socket.read(&mut buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                buffer.truncate(len);
                Ok(Some(buffer))
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Ok(None),
                io::ErrorKind::Interrupted => Ok(Some(Vec::new())),
                _ => Err(error),
            },
        }
    }

    fn last_words(&mut self) -> String {
        // The stream ends a moment before the process does.
        let until = Instant::now() + Duration::from_millis(500);
        let mut status = self.child.try_wait().ok().flatten();
        while status.is_none() && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
            status = self.child.try_wait().ok().flatten();
        }
        let mut words = match status {
            Some(status) => format!("QEMU ended with {status}"),
            None => "QEMU still runs".to_owned(),
        };
        let errors = text(&self.errors);
        if !errors.is_empty() {
            words += &format!(", it said: {errors}");
        }
        if let Some(last) = self.log().last() {
            words += &format!(", last log line: {last}");
        }
        words
    }

    fn log(&self) -> Vec<String> {
        log::lines(&self.elf, &self.log.lock().unwrap_or_else(|e| e.into_inner()))
    }

    fn locate(&self, address: u64) -> Option<String> {
        source::locate(&self.elf, address)
    }

    fn provenance(&self) -> Provenance {
        Provenance::Emulated
    }

    fn via(&self) -> &'static str {
        "qemu"
    }
}

fn collect(stream: Option<impl Read + Send + 'static>) -> Collected {
    let collected = Collected::default();
    if let Some(mut stream) = stream {
        let collected = Arc::clone(&collected);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = stream.read(&mut buffer) {
                let mut all = collected.lock().unwrap_or_else(|e| e.into_inner());
                all.extend_from_slice(&buffer[..len]);
            }
        });
    }
    collected
}

fn text(collected: &Collected) -> String {
    let bytes = collected.lock().unwrap_or_else(|e| e.into_inner());
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// Waits for QEMU to connect, or to end.
fn connect(listener: &UnixListener, child: &mut Child) -> io::Result<UnixStream> {
    listener.set_nonblocking(true)?;
    let until = Instant::now() + CONNECT;
    loop {
        match listener.accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(false)?;
                return Ok(socket);
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) => {}
        }
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("it ended at once with {status}")));
        }
        if Instant::now() > until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it did not connect"));
        }
        thread::sleep(Duration::from_millis(5));
    }
}
