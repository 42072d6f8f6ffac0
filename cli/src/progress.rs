//! Progress bars: on a terminal, on standard error, with rate and time left.

use std::fmt;
use std::ops::ControlFlow;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::interrupt;

/// A bar that is removed when it is dropped. It shows nothing if standard error is no terminal.
///
/// Create the bar when the work begins: its rate counts from there. It appears with the first progress.
pub struct Bar(ProgressBar);

impl Bar {
    pub fn bytes(what: &'static str) -> Bar {
        let counts = "{binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
        Bar::new(what, &format!("{BAR} {counts}, {{eta}} left"))
    }

    pub fn events(what: &'static str) -> Bar {
        Bar::new(what, &format!("{BAR} {{human_pos}}/{{human_len}} {{rate}}, {{eta}} left"))
    }

    /// For a source of unknown length.
    pub fn endless_bytes(what: &'static str) -> Bar {
        Bar::new(what, "{msg} {binary_bytes} {binary_bytes_per_sec}")
    }

    /// A bar that shows nothing.
    pub fn hidden() -> Bar {
        Bar(ProgressBar::hidden())
    }

    fn new(what: &'static str, template: &str) -> Bar {
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        // In a template, `{per_sec:.0}` would mean a colour.
        let style = style.with_key("rate", |now: &ProgressState, out: &mut dyn fmt::Write| {
            // A bar that cannot be drawn changes no result.
            let _ = write!(out, "{:.0}/s", now.per_sec());
        });
        Bar(ProgressBar::new(0).with_style(style.progress_chars("=> ")).with_message(what))
    }

    /// Shows the progress; `Break` if the command is being stopped.
    pub fn step(&self, done: u64, total: u64) -> ControlFlow<()> {
        self.set(done, total);
        interrupt::poll()
    }

    /// Shows the progress: `done` of `total`, as far as the total is known.
    pub fn set(&self, done: u64, total: u64) {
        if self.0.length() != Some(total) {
            self.0.set_length(total);
        }
        self.0.set_position(done);
    }
}

/// As wide as the terminal: a bar that fills its line can be removed without a trace.
const BAR: &str = "{msg} [{wide_bar}] {percent:>3}%";

impl Drop for Bar {
    fn drop(&mut self) {
        if self.0.position() > 0 {
            self.0.finish_and_clear();
        }
    }
}
