//! Counters the writer keeps, and the histogram behind the sync quantiles.
//!
//! Row: append.

#[cfg(feature = "metrics")]
mod facade;

use std::time::Duration;

use crate::types::Stats;

#[cfg(feature = "metrics")]
use facade::Metrics;

/// Without the feature `metrics` nobody outside is told.
#[cfg(not(feature = "metrics"))]
#[derive(Clone, Default)]
struct Metrics;

#[cfg(not(feature = "metrics"))]
impl Metrics {
    fn new(_: [u8; 16]) -> Metrics {
        Metrics
    }

    fn accepted(&self, _: &Accepted) {}

    fn synced(&self, _: Duration) {}
}

/// Since opening.
#[derive(Clone, Default)]
pub(crate) struct Counters {
    pub(crate) groups: u64,
    pub(crate) appends: u64,
    pub(crate) events: u64,
    pub(crate) entities: u64,
    /// Of the events accepted, as records; and everything handed to the disk.
    pub(crate) event_bytes: u64,
    pub(crate) bytes_written: u64,
    pub(crate) syncs: Histogram,
    /// From encoding to being answered.
    pub(crate) latencies: Histogram,
    /// Notifications sent, and those that did not fit; in events, per receiver.
    pub(crate) notified: u64,
    pub(crate) missed: u64,
    metrics: Metrics,
}

/// What a group adds to the counters.
#[derive(Default)]
pub(crate) struct Accepted {
    pub(crate) appends: u64,
    pub(crate) events: u64,
    pub(crate) event_bytes: u64,
    /// Of those that were sampled.
    pub(crate) latencies: Vec<Duration>,
}

impl Counters {
    pub(crate) fn new(store_id: [u8; 16], entities: u64) -> Counters {
        let metrics = Metrics::new(store_id);
        Counters { entities, metrics, ..Counters::default() }
    }

    pub(crate) fn accepted(&mut self, accepted: &Accepted) {
        self.appends += accepted.appends;
        self.events += accepted.events;
        self.event_bytes += accepted.event_bytes;
        accepted.latencies.iter().for_each(|time| self.latencies.record(*time));
        self.metrics.accepted(accepted);
    }

    pub(crate) fn synced(&mut self, time: Duration) {
        self.syncs.record(time);
        self.metrics.synced(time);
    }

    pub(crate) fn fill(&self, stats: &mut Stats) {
        stats.groups = self.groups;
        stats.appends = self.appends;
        stats.events_appended = self.events;
        stats.entities = self.entities;
        stats.notifications_sent = self.notified;
        stats.notifications_missed = self.missed;
        stats.syncs = self.syncs.count();
        stats.sync_p50 = self.syncs.quantile(50);
        stats.sync_p99 = self.syncs.quantile(99);
        stats.sync_max = self.syncs.max;
        stats.event_bytes = self.event_bytes;
        stats.bytes_written = self.bytes_written;
        stats.append_p50 = self.latencies.quantile(50);
        stats.append_p99 = self.latencies.quantile(99);
        stats.append_max = self.latencies.max;
    }
}

/// Counts of times, in steps of an eighth: octaves of microseconds, each in eight parts.
#[derive(Clone)]
pub(crate) struct Histogram {
    counts: [u64; OCTAVES * PARTS],
    max: Duration,
}

const PARTS: usize = 8;
/// Up to 2^32 microseconds, more than an hour.
const OCTAVES: usize = 32;

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: [0; OCTAVES * PARTS], max: Duration::ZERO }
    }
}

impl Histogram {
    pub(crate) fn record(&mut self, time: Duration) {
        self.counts[bucket(time)] += 1;
        self.max = self.max.max(time);
    }

    fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The time that `percent` of all stayed below.
    fn quantile(&self, percent: u64) -> Duration {
        let wanted = (self.count() * percent).div_ceil(100);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if wanted > 0 && seen >= wanted {
                return upper_end(bucket).min(self.max);
            }
        }
        Duration::ZERO
    }
}

fn bucket(time: Duration) -> usize {
    let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX).max(1);
    let octave = micros.ilog2();
    let part = (u64::from(micros) << 3 >> octave) & 7;
    (usize::try_from(octave).expect("below 32") * PARTS) + usize::try_from(part).expect("below 8")
}

fn upper_end(bucket: usize) -> Duration {
    let (octave, part) = (bucket / PARTS, bucket % PARTS);
    Duration::from_micros(((PARTS + part + 1) << octave >> 3).try_into().unwrap_or(u64::MAX))
}
