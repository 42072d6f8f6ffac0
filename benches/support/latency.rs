//! The times of single operations, and their quantiles.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::float;
use super::report::Figures;

/// Times, kept to three digits, up to ten minutes.
pub struct Latency(Histogram<u64>);

impl Latency {
    pub fn new() -> Latency {
        const LONGEST: Duration = Duration::from_secs(600);
        let longest = u64::try_from(LONGEST.as_nanos()).expect("ten minutes fit");
        Latency(Histogram::new_with_bounds(1, longest, 3).expect("the bounds are in order"))
    }

    pub fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds the times of another thread.
    pub fn add(&mut self, other: &Latency) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The median, two tails and the maximum, in microseconds.
    pub fn figures(&self) -> Figures {
        let micros = |nanos: u64| float(nanos) / 1e3;
        let at = |quantile: f64| micros(self.0.value_at_quantile(quantile));
        vec![
            ("p50_us", at(0.5)),
            ("p99_us", at(0.99)),
            ("p99_9_us", at(0.999)),
            ("max_us", micros(self.0.max())),
        ]
    }
}
