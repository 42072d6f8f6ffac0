//! Counters the writer keeps, and the histogram behind the sync quantiles.
//!
//! Row: append.

use std::time::Duration;

use crate::report::Stats;

/// Since opening.
#[derive(Clone, Default)]
pub(crate) struct Counters {
    pub(crate) groups: u64,
    pub(crate) appends: u64,
    pub(crate) events: u64,
    pub(crate) entities: usize,
    pub(crate) syncs: Histogram,
    /// Notifications sent, and those that did not fit; in events, per receiver.
    pub(crate) notified: u64,
    pub(crate) missed: u64,
}

impl Counters {
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
