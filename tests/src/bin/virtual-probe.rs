//! A debug probe made of software, for use by hand:
//! `virtual-probe MACHINE [--port PORT] [--fault FAULT[@COMMANDS]]...`.

use std::process::ExitCode;

use jaq_tests::virtual_probe::VirtualProbe;
use jaq_tests::virtual_probe::machines;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1);
    let (mut machine, mut port, mut orders) = (None, "0".to_owned(), Vec::new());
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--port" => port = value()?,
            "--fault" => orders.push(value()?.parse()?),
            _ => machine = Some(argument),
        }
    }
    let known = machines::NAMES.join(", ");
    let machine = machine.ok_or(format!("which machine? known: {known}"))?;
    let target = machines::target(&machine).map_err(|error| format!("{machine}: {error}"))?;
    let probe = VirtualProbe::start_at(target, &format!("127.0.0.1:{port}"))
        .map_err(|error| format!("port {port}: {error}"))?;
    orders.into_iter().for_each(|order| probe.order(order));
    println!("{}", probe.selector());
    loop {
        std::thread::park();
    }
}
