//! A debug probe made of software: it speaks the remote protocol of the Black Magic Probe over TCP,
//! and what is on its other side is an emulated or simulated core ([`Target`]). The unchanged
//! probe-rs library opens it with the selector `1d50:6018:127.0.0.1:PORT`.
//!
//! Faults can be ordered ([`Order`]), so that what happens on a bad day with real hardware can be
//! tested. Must not know the library under test, nor what runs on the core.

pub mod cortex_m;
pub mod gdb;
pub mod jtag;
pub mod machines;
pub mod remote;
pub mod serial_wire;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use remote::{Packets, Reply};

/// Version of the remote protocol spoken here.
const VERSION: u64 = 3;

/// What hangs on the pins of a probe.
pub trait Target: Send {
    /// Carries out a serial-wire (`S`) or access-port (`A`) command, its letter first.
    fn arm(&mut self, _command: &str) -> Reply {
        Reply::Unsupported
    }

    /// Carries out a JTAG (`J`) command, without its letter.
    fn jtag(&mut self, _command: &str) -> Reply {
        Reply::Unsupported
    }

    /// Pulls the reset line of the target, or lets it go.
    fn reset_line(&mut self, _asserted: bool) -> io::Result<()> {
        Ok(())
    }

    /// Nothing was asked for a while: what was stopped for an access may go on.
    fn idle(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Commands since the firmware was started; 0 before.
    fn commands_since_start(&self) -> u64 {
        0
    }

    /// Carries out a fault that happens on the target's side.
    fn suffer(&mut self, _fault: Fault) {}
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection to the probe breaks.
    Drop,
    /// The probe goes on listening and answers no more.
    Silence,
    /// The chip acknowledges no transfer.
    WrongAck,
    /// A memory cell of flash reads back another value than was written.
    BadCell,
    /// The chip is reset.
    Reset,
    /// The chip is gone: power lost, cable out.
    Lost,
    /// The chip's debug port answers, its memory does not: protection is on.
    Locked,
    /// The core executes nothing any more; its memory can be read.
    Freeze,
    /// The core meets an instruction that is none.
    BadInstruction,
}

/// When it goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// From the first command on.
    Always,
    /// That many commands after the firmware was started.
    Running(u64),
}

/// A fault that was ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Order {
    pub fault: Fault,
    pub when: When,
}

impl std::str::FromStr for Order {
    type Err = String;

    /// `drop`, or `drop@500` for 500 commands after the start.
    fn from_str(text: &str) -> Result<Order, String> {
        let (name, when) = match text.split_once('@') {
            None => (text, When::Always),
            Some((name, count)) => {
                let count = count.parse().map_err(|_| format!("`{count}` is no number"))?;
                (name, When::Running(count))
            }
        };
        let fault = match name {
            "drop" => Fault::Drop,
            "silence" => Fault::Silence,
            "wrong-ack" => Fault::WrongAck,
            "bad-cell" => Fault::BadCell,
            "reset" => Fault::Reset,
            "lost" => Fault::Lost,
            "locked" => Fault::Locked,
            "freeze" => Fault::Freeze,
            "bad-instruction" => Fault::BadInstruction,
            _ => return Err(format!("no fault is called `{name}`")),
        };
        Ok(Order { fault, when })
    }
}

/// A running probe; it ends when this is dropped.
pub struct VirtualProbe {
    address: SocketAddr,
    orders: Arc<Mutex<Vec<Order>>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl VirtualProbe {
    /// Serves `target` on a free port of this machine.
    pub fn start(target: Box<dyn Target>) -> io::Result<VirtualProbe> {
        VirtualProbe::start_at(target, "127.0.0.1:0")
    }

    /// As [`VirtualProbe::start`] on a port of one's own choice.
    pub fn start_at(target: Box<dyn Target>, address: &str) -> io::Result<VirtualProbe> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (orders, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let mut server =
            Server { target, orders: Arc::clone(&orders), stop: Arc::clone(&stop), silent: false };
        let thread = thread::spawn(move || server.run(&listener));
        Ok(VirtualProbe { address, orders, stop, thread: Some(thread) })
    }

    /// What `--probe` is given to reach it.
    pub fn selector(&self) -> String {
        format!("1d50:6018:{}", self.address)
    }

    /// Orders a fault.
    pub fn order(&self, order: Order) {
        lock(&self.orders).push(order);
    }
}

impl Drop for VirtualProbe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there.
            let _ = thread.join();
        }
    }
}

fn lock(orders: &Mutex<Vec<Order>>) -> MutexGuard<'_, Vec<Order>> {
    orders.lock().unwrap_or_else(|error| error.into_inner())
}

struct Server {
    target: Box<dyn Target>,
    orders: Arc<Mutex<Vec<Order>>>,
    stop: Arc<AtomicBool>,
    silent: bool,
}

impl Server {
    fn run(&mut self, listener: &TcpListener) {
        while !self.stop.load(Ordering::Relaxed) {
            match listener.accept() {
                // Why a connection ended is the client's to say.
                Ok((stream, _)) => drop(self.serve(stream)),
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Answers until the client goes.
    fn serve(&mut self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        // Short, so that a core stopped for an access goes on as soon as nothing more is asked.
        stream.set_read_timeout(Some(Duration::from_micros(300)))?;
        let mut packets = Packets::default();
        let mut buffer = [0; 4096];
        let mut quiet = 0u32;
        while !self.stop.load(Ordering::Relaxed) {
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(len) => {
                    quiet = 0;
                    for packet in packets.push(&buffer[..len]) {
                        if self.fall_due() {
                            return Ok(());
                        }
                        let reply = self.answer(&packet);
                        if !self.silent {
                            stream.write_all(reply.encode().as_bytes())?;
                        }
                    }
                }
                Err(error) if timed_out(&error) => {
                    // A target that died says so when it is asked.
                    let _ = self.target.idle();
                    quiet += 1;
                    if quiet > 20 {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Carries out the orders whose time has come; `true` if the connection is to break.
    fn fall_due(&mut self) -> bool {
        let commands = self.target.commands_since_start();
        let mut orders = lock(&self.orders);
        let due = |order: &Order| match order.when {
            When::Always => true,
            When::Running(count) => commands > count,
        };
        let (now, later) = orders.iter().copied().partition::<Vec<_>, _>(due);
        *orders = later;
        drop(orders);
        let mut dropped = false;
        for Order { fault, .. } in now {
            match fault {
                Fault::Drop => dropped = true,
                Fault::Silence => self.silent = true,
                fault => self.target.suffer(fault),
            }
        }
        dropped
    }

    fn answer(&mut self, packet: &str) -> Reply {
        let Some(command) = packet.get(1..) else { return Reply::BadParameter };
        match packet.as_bytes()[0] {
            b'G' => match command {
                "A" => Reply::Text("JAQ virtual probe".into()),
                "Z0" | "Z1" => match self.target.reset_line(command == "Z1") {
                    Ok(()) => Reply::DONE,
                    Err(_) => Reply::Failed,
                },
                // Voltage, clock, power: there is none of it.
                _ => Reply::DONE,
            },
            b'H' => match command {
                "C" => Reply::Value(VERSION),
                // `HJ`: a device on the scan chain, which is known here.
                _ if command.starts_with('J') => Reply::DONE,
                _ => Reply::Unsupported,
            },
            b'S' | b'A' => self.target.arm(packet),
            b'J' => self.target.jtag(command),
            _ => Reply::Unsupported,
        }
    }
}

fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
