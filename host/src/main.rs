//! The command line of JAQ: one file per subcommand under [`cli`], the run directory in [`run`],
//! tables in [`report`], drawings in [`plot`]. Decides nothing by itself: every step is a call into a library crate.

mod cli;
mod plot;
mod report;
mod run;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .without_time()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("JAQ_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,probe_rs=off")),
        )
        .init();
    // Where the probe's driver gives up, its thread says so as an error.
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some(jaq_deploy::link::probe::THREAD) {
            default(panic);
        }
    }));
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(cli::exit_code(&error))
        }
    }
}
