//! Progress bars: on a terminal, on standard error, with rate and time left.

use indicatif::{ProgressBar, ProgressStyle};

/// Goes away when it is dropped. Elsewhere than on a terminal it shows nothing.
pub struct Bar(ProgressBar);

impl Bar {
    pub fn bytes(what: &'static str, total: u64) -> Bar {
        let counts = "{binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
        Bar::new(what, total, counts)
    }

    pub fn events(what: &'static str, total: u64) -> Bar {
        Bar::new(what, total, "{human_pos}/{human_len} {per_sec:.0}")
    }

    fn new(what: &'static str, total: u64, counts: &str) -> Bar {
        let template = format!("{{msg}} [{{bar:30}}] {{percent:>3}}% {counts}, {{eta}} left");
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(total).with_style(style.progress_chars("=> ")).with_message(what);
        Bar(bar)
    }

    /// There is more to do than was known.
    pub fn lengthen(&self, total: u64) {
        self.0.set_length(total);
    }

    pub fn set(&self, done: u64) {
        self.0.set_position(done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
