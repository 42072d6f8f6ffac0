//! The progress of a phase: one line on standard error, written four times a second.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(250);

/// Shows nothing if standard error is no terminal. Removes its line on drop.
pub struct Progress {
    unit: &'static str,
    /// The final count, if it is known.
    total: Option<usize>,
    done: usize,
    started: Instant,
    last_shown: Instant,
    is_terminal: bool,
}

impl Progress {
    pub fn new(unit: &'static str, total: Option<usize>) -> Progress {
        let started = Instant::now();
        let is_terminal = io::stderr().is_terminal();
        Progress { unit, total, done: 0, started, last_shown: started, is_terminal }
    }

    pub fn add(&mut self, count: usize) {
        self.done += count;
        if self.is_terminal && self.last_shown.elapsed() >= EVERY {
            self.last_shown = Instant::now();
            let total = self.total.map_or_else(String::new, |total| format!(" of {total}"));
            let rate = self.done as f64 / self.started.elapsed().as_secs_f64();
            eprint!("\r\x1b[K{}{total} {}, {rate:.0}/s", self.done, self.unit);
            let _ = io::stderr().flush();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
    }
}
