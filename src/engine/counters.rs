//! The writer's counters, the histogram behind the quantiles, and the feature `metrics`.
//!
//! The only user of the `metrics` crate.

#[cfg(feature = "metrics")]
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

#[cfg(feature = "metrics")]
use metrics::{Counter, Histogram as MetricsHistogram, counter, histogram};

use crate::types::Stats;

/// What the store has done since it was opened.
#[derive(Clone, Default)]
pub(crate) struct Counters {
    pub(crate) groups: u64,
    pub(crate) appends: u64,
    pub(crate) events: u64,
    pub(crate) entities: u64,
    /// Bytes of the accepted events, as records.
    pub(crate) event_bytes: u64,
    /// Everything handed to the disk.
    pub(crate) bytes_written: u64,
    pub(crate) syncs: Histogram,
    /// From encoding to publication, for sampled appends.
    pub(crate) latencies: Histogram,
    /// Notifications sent; in events, per receiver.
    pub(crate) notified: u64,
    /// Notifications that did not fit a receiver's buffer.
    pub(crate) missed: u64,
    #[cfg(feature = "metrics")]
    metrics: Metrics,
}

/// What the accepted appends of a group add to the counters.
#[derive(Default)]
pub(crate) struct Accepted {
    pub(crate) appends: u64,
    pub(crate) events: u64,
    pub(crate) event_bytes: u64,
    /// The latencies of the sampled appends.
    pub(crate) latencies: Vec<Duration>,
}

impl Counters {
    pub(crate) fn new(store_id: [u8; 16], entities: u64) -> Counters {
        #[cfg(not(feature = "metrics"))]
        let _ = store_id;
        Counters {
            entities,
            #[cfg(feature = "metrics")]
            metrics: Metrics::new(store_id),
            ..Counters::default()
        }
    }

    pub(crate) fn accepted(&mut self, accepted: &Accepted) {
        self.appends += accepted.appends;
        self.events += accepted.events;
        self.event_bytes += accepted.event_bytes;
        accepted.latencies.iter().for_each(|time| self.latencies.record(*time));
        #[cfg(feature = "metrics")]
        self.metrics.accepted(accepted);
    }

    pub(crate) fn synced(&mut self, time: Duration) {
        self.syncs.record(time);
        #[cfg(feature = "metrics")]
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

/// Counts of durations in buckets an eighth of an octave wide, from 1 microsecond up.
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

    /// The duration that `percent` of all stayed below, rounded up to its bucket.
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
    let octave = bucket / PARTS;
    let part = bucket % PARTS;
    Duration::from_micros(((PARTS + part + 1) << octave >> 3).try_into().unwrap_or(u64::MAX))
}

/// The same counts for a `metrics` recorder. The handles are registered once per store, so that a group costs no
/// look-up. Without a recorder they do nothing.
#[cfg(feature = "metrics")]
#[derive(Clone)]
struct Metrics {
    appends: Counter,
    events: Counter,
    event_bytes: Counter,
    latencies: MetricsHistogram,
    syncs: MetricsHistogram,
}

#[cfg(feature = "metrics")]
impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            appends: Counter::noop(),
            events: Counter::noop(),
            event_bytes: Counter::noop(),
            latencies: MetricsHistogram::noop(),
            syncs: MetricsHistogram::noop(),
        }
    }
}

#[cfg(feature = "metrics")]
impl Metrics {
    fn new(store_id: [u8; 16]) -> Metrics {
        let store = uuid::Uuid::from_bytes(store_id).to_string();
        guarded(|| Metrics {
            appends: counter!("annals_appends_total", "store" => store.clone()),
            events: counter!("annals_events_total", "store" => store.clone()),
            event_bytes: counter!("annals_event_bytes_total", "store" => store.clone()),
            latencies: histogram!("annals_append_seconds", "store" => store.clone()),
            syncs: histogram!("annals_sync_seconds", "store" => store),
        })
        .unwrap_or_default()
    }

    fn accepted(&self, accepted: &Accepted) {
        guarded(|| {
            self.appends.increment(accepted.appends);
            self.events.increment(accepted.events);
            self.event_bytes.increment(accepted.event_bytes);
            accepted.latencies.iter().for_each(|time| self.latencies.record(time.as_secs_f64()));
        });
    }

    fn synced(&self, time: Duration) {
        guarded(|| self.syncs.record(time.as_secs_f64()));
    }
}

/// A recorder is the user's code and runs on the writer's thread: its panic must not end the writer.
#[cfg(feature = "metrics")]
fn guarded<T>(record: impl FnOnce() -> T) -> Option<T> {
    let recorded = catch_unwind(AssertUnwindSafe(record));
    if recorded.is_err() {
        tracing::error!("the metrics recorder panicked");
    }
    recorded.ok()
}
