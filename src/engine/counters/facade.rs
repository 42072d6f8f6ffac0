//! The same counts for whoever collects metrics: through the `metrics` facade, behind the feature of
//! that name.
//!
//! A recorder is code of others, and runs on the writer's thread: its panics are caught.
//! Row: append. The only user of the `metrics` crate.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};

use super::Accepted;

/// Handles, registered once per store, so that a group costs no look-up. Without a recorder they do nothing.
#[derive(Clone)]
pub(super) struct Metrics {
    appends: Counter,
    events: Counter,
    event_bytes: Counter,
    latencies: Histogram,
    syncs: Histogram,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            appends: Counter::noop(),
            events: Counter::noop(),
            event_bytes: Counter::noop(),
            latencies: Histogram::noop(),
            syncs: Histogram::noop(),
        }
    }
}

impl Metrics {
    pub(super) fn new(store_id: [u8; 16]) -> Metrics {
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

    pub(super) fn accepted(&self, accepted: &Accepted) {
        guarded(|| {
            self.appends.increment(accepted.appends);
            self.events.increment(accepted.events);
            self.event_bytes.increment(accepted.event_bytes);
            accepted.latencies.iter().for_each(|time| self.latencies.record(time.as_secs_f64()));
        });
    }

    pub(super) fn synced(&self, time: Duration) {
        guarded(|| self.syncs.record(time.as_secs_f64()));
    }
}

fn guarded<T>(tell: impl FnOnce() -> T) -> Option<T> {
    let told = catch_unwind(AssertUnwindSafe(tell));
    if told.is_err() {
        tracing::error!("the metrics recorder panicked");
    }
    told.ok()
}
