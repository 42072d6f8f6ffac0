//! Progress bars: on a terminal, on standard error, with rate and time left.

use std::fmt;
use std::ops::ControlFlow;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::interrupt;

/// Goes away when it is dropped. Elsewhere than on a terminal it shows nothing. It is made when the work
/// begins, or the rate would be wrong; it is seen once something is done.
pub struct Bar(ProgressBar);

impl Bar {
    pub fn bytes(what: &'static str) -> Bar {
        let counts = "{binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
        Bar::new(what, &format!("{BAR} {counts}, {{eta}} left"))
    }

    pub fn events(what: &'static str) -> Bar {
        Bar::new(what, &format!("{BAR} {{human_pos}}/{{human_len}} {{rate}}, {{eta}} left"))
    }

    /// Of what comes until it ends.
    pub fn endless_bytes(what: &'static str) -> Bar {
        Bar::new(what, "{msg} {binary_bytes} {binary_bytes_per_sec}")
    }

    /// Nothing to be seen.
    pub fn hidden() -> Bar {
        Bar(ProgressBar::hidden())
    }

    fn new(what: &'static str, template: &str) -> Bar {
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        // Of `{per_sec:.0}` a template makes a colour.
        let style = style.with_key("rate", |now: &ProgressState, out: &mut dyn fmt::Write| {
            // A bar that cannot be drawn is not missed.
            let _ = write!(out, "{:.0}/s", now.per_sec());
        });
        Bar(ProgressBar::new(0).with_style(style.progress_chars("=> ")).with_message(what))
    }

    /// Shows how much is done, and of how much as far as is known. Breaks off what is asked to end.
    pub fn step(&self, done: u64, total: u64) -> ControlFlow<()> {
        self.set(done, total);
        interrupt::asked()
    }

    /// Breaks off what is asked to end, and shows nothing new.
    pub fn asked(&self) -> ControlFlow<()> {
        interrupt::asked()
    }

    /// Shows how much is done, and of how much as far as is known.
    pub fn set(&self, done: u64, total: u64) {
        if self.0.length() != Some(total) {
            self.0.set_length(total);
        }
        self.0.set_position(done);
    }
}

/// As wide as the terminal leaves room for; on a line of its own it is taken away cleanly.
const BAR: &str = "{msg} [{wide_bar}] {percent:>3}%";

impl Drop for Bar {
    fn drop(&mut self) {
        if self.0.position() > 0 {
            self.0.finish_and_clear();
        }
    }
}
