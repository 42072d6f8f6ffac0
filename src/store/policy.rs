//! What an open store does again and again by itself, as its builder said: compacting.
//!
//! It runs on the thread for what takes long, one policy after the other. It holds the store while it runs, and keeps it open
//! no longer than the application does: a closing store breaks it off, and waits for it.
//! Row: store. Tested by tests/it/policies.rs.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::types::{Compacted, CompactionStats, Error, options, time_of};

use super::Store;

/// Has something go from a store; `None` if somebody else is at it.
pub(crate) type Run = Box<dyn Fn(&Store) -> Result<Option<Compacted>, Error> + Send + Sync>;

/// Something that is to go again and again.
pub(crate) struct Policy {
    every: Duration,
    reason: String,
    run: Run,
}

/// What became of each, in the order they were given.
pub(super) type Shared = Arc<Mutex<Vec<CompactionStats>>>;

/// A policy that has nothing to wait for would keep a core busy.
const EVERY_LEAST: Duration = Duration::from_millis(1);
/// What is never to run need not be a time that clocks cannot count to.
const EVERY_MOST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl Policy {
    pub(crate) fn new(every: Duration, reason: String, run: Run) -> Policy {
        Policy { every: every.clamp(EVERY_LEAST, EVERY_MOST), reason, run }
    }

    fn take_turn(&self, store: &Store, place: usize) {
        let core = &store.core;
        let ended = catch_unwind(AssertUnwindSafe(|| (self.run)(store))).unwrap_or_else(|panic| {
            if let Some(stats) = core.compactions.lock().get_mut(place) {
                stats.error = Some("it panicked, and is not run again".to_owned());
            }
            resume_unwind(panic)
        });
        if core.engine.rewrite_thread.go_on().is_break() {
            return;
        }
        let now = options::read(&core.engine.options.clock);
        let mut all = core.compactions.lock();
        let Some(stats) = all.get_mut(place) else { return };
        match ended {
            Ok(None) => return,
            Ok(Some(done)) => {
                (stats.runs, stats.error) = (stats.runs.saturating_add(1), None);
                stats.removed = stats.removed.saturating_add(done.removed);
                stats.erased = stats.erased.saturating_add(done.erased);
                stats.last = Some(done);
            }
            Err(error) => {
                tracing::warn!(%error, reason = self.reason, "a compaction policy failed; its next turn tries again");
                stats.error = Some(error.to_string());
            }
        }
        stats.ended_at = Some(time_of(i64::try_from(now).unwrap_or(i64::MAX)));
    }
}

impl Store {
    /// Has policies take their turns from now on. Without any there is no thread for them.
    pub(super) fn follow(&self, policies: Vec<Policy>) {
        for (place, policy) in policies.into_iter().enumerate() {
            let stats = CompactionStats { reason: policy.reason.clone(), ..CompactionStats::default() };
            self.core.compactions.lock().push(stats);
            let (store, every) = (self.downgrade(), policy.every);
            let turn = move || {
                policy.take_turn(&store.upgrade()?, place);
                Some(every)
            };
            self.core.engine.rewrite_thread.run_in(every, Box::new(turn));
        }
    }
}
