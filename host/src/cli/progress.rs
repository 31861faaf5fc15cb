//! Progress of long work, on stderr: a bar on a terminal, a line now and then elsewhere.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar that ends when it is dropped.
pub struct Bar {
    bar: ProgressBar,
    name: String,
    started: Instant,
    said: Mutex<Instant>,
}

/// Time between two lines where stderr is no terminal.
const QUIET: Duration = Duration::from_secs(10);

impl Bar {
    /// `total` steps of `name`.
    pub fn new(name: &str, total: u64) -> Bar {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let style =
            ProgressStyle::with_template("{prefix:>12} {bar:32} {pos}/{len} {msg} ({eta} left)");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(name.to_owned());
        let now = Instant::now();
        Bar { bar, name: name.to_owned(), started: now, said: Mutex::new(now) }
    }

    /// Sets the number of steps, where it is known only later.
    pub fn total(&self, total: u64) {
        self.bar.set_length(total);
    }

    /// `done` steps are done; `message` says how it stands.
    pub fn step(&self, done: u64, message: &str) {
        self.bar.set_position(done);
        if !message.is_empty() {
            self.bar.set_message(message.to_owned());
        }
        let mut said = self.said.lock().unwrap_or_else(|e| e.into_inner());
        if self.bar.is_hidden() && said.elapsed() >= QUIET {
            *said = Instant::now();
            let total = self.bar.length().unwrap_or(0).max(1);
            let left = self.started.elapsed().as_secs_f64() * (total.saturating_sub(done)) as f64
                / done.max(1) as f64;
            eprintln!("{}: {done}/{total} {message} ({left:.0} s left)", self.name);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
