//! The times of single operations, and their quantiles.

use std::time::Duration;

use super::float;
use super::report::Figures;

/// Each doubling of the time has 1,024 buckets, so a quantile is at most 0.1 % too long.
const BUCKETS_PER_DOUBLING: usize = 1 << DIGITS;
const DIGITS: u32 = 10;

/// Longer operations count as this long.
const LONGEST_NANOS: u64 = 600_000_000_000;

/// How often each time was measured; times are kept to three digits, up to ten minutes.
pub struct Latency {
    counts: Vec<u64>,
    count: u64,
    longest: u64,
}

impl Latency {
    pub fn new() -> Latency {
        Latency { counts: vec![0; bucket_of(LONGEST_NANOS) + 1], count: 0, longest: 0 }
    }

    pub fn record(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).min(LONGEST_NANOS);
        self.counts[bucket_of(nanos)] += 1;
        self.count += 1;
        self.longest = self.longest.max(nanos);
    }

    /// Adds the times of another thread.
    pub fn add(&mut self, other: &Latency) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.longest = self.longest.max(other.longest);
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// The median, two tails and the maximum, in microseconds.
    pub fn figures(&self) -> Figures {
        let micros = |nanos: u64| float(nanos) / 1e3;
        let at = |per_mille: u64| micros(self.at(per_mille));
        vec![
            ("p50_us", at(500)),
            ("p99_us", at(990)),
            ("p99_9_us", at(999)),
            ("max_us", micros(self.longest)),
        ]
    }

    /// The time within which `per_mille` of a thousand operations were done; 0 if there were none.
    fn at(&self, per_mille: u64) -> u64 {
        let wanted = (self.count * per_mille).div_ceil(1_000);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return longest_in(bucket).min(self.longest);
            }
        }
        self.longest
    }
}

/// A short time has a bucket of its own. The first eleven bits decide about a longer one.
fn bucket_of(nanos: u64) -> usize {
    let shift = (u64::BITS - DIGITS - 1).saturating_sub(nanos.leading_zeros());
    let first_digits = usize::try_from(nanos >> shift).expect("eleven bits");
    usize::try_from(shift).expect("below 64") * BUCKETS_PER_DOUBLING + first_digits
}

/// The longest time that has this bucket.
fn longest_in(bucket: usize) -> u64 {
    let shift = (bucket / BUCKETS_PER_DOUBLING).saturating_sub(1);
    let first_digits = u64::try_from(bucket - shift * BUCKETS_PER_DOUBLING).expect("eleven bits");
    ((first_digits + 1) << shift) - 1
}
