//! The part of a store that all its handles share: the engine, the state cache, gates, and the registry of
//! runners.
//!
//! A store is open as long as the application has a handle. The store's own threads hold a [`WeakStore`] and
//! upgrade it for as long as they use it. Such a handle keeps nothing open: when the application's last
//! handle is dropped, the store closes even if a thread is still at work.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::engine::Engine;
use crate::maintenance::scrub;
use crate::store::decision_queue::DecisionQueue;
use crate::store::registry::Registry;
use crate::store::state_cache::{Cache, CacheOwner};
use crate::types::Error;

use super::gate::Gates;
use super::{Store, compaction};

/// Delays the first slice of scrubbing, so that it does not compete with the rest of opening.
const SCRUB_AFTER: Duration = Duration::from_millis(100);

pub(crate) struct Core {
    cache: Cache,
    pub(crate) engine: Engine,
    pub(super) gates: Gates,
    decision_queue: DecisionQueue,
    /// The consumers that run in this process.
    pub(crate) running: Arc<Registry>,
    /// The findings of background verifying.
    pub(super) scrub: scrub::SharedScrubStats,
    /// What compaction policies have done.
    pub(super) compactions: compaction::SharedCompactionStats,
}

impl Core {
    /// Closes the store for all handles, and wakes all runners.
    pub(super) fn close(&self) -> Result<(), Error> {
        self.close_cache();
        let closed = self.engine.close();
        self.running.end();
        closed
    }

    /// Ends long jobs, then the cache. Must run before the engine gives up the lock: then the file belongs to
    /// the next writer.
    fn close_cache(&self) {
        self.engine.rewrite_thread.close();
        // States that are not durable are not saved. If the sync fails, closing the engine reports the error.
        self.cache.close(|| drop(self.engine.sync()));
    }
}

/// Shared by the application's handles: when the last of them is dropped, the store closes.
pub(super) struct CloseOnDrop(Arc<Core>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close_cache();
        self.0.engine.abandon();
        self.0.running.end();
    }
}

/// A handle that does not keep the store open.
#[derive(Clone)]
pub(crate) struct WeakStore(Weak<Core>);

impl WeakStore {
    /// The store, if it still exists; it may be closed. The result does not keep the store open either.
    pub(crate) fn upgrade(&self) -> Option<Store> {
        self.0.upgrade().map(|core| Store { core, _close_on_drop: None })
    }
}

impl Store {
    pub(super) fn around(engine: Engine, gates: Gates) -> Store {
        let options = &engine.options;
        // The file belongs to the writer. A reader has none.
        let file_bytes = if engine.is_read_only() { 0 } else { options.cache_disk_bytes };
        let owner = CacheOwner { store_id: engine.store_id, history: engine.view.history() };
        let disk = engine.disk.clone();
        let view = engine.view.clone();
        let background = engine.background.clone();
        let memory_bytes = options.cache_memory_bytes;
        let clock = options.clock.clone();
        let cache = Cache::new(memory_bytes, file_bytes, disk, owner, view, background, clock);
        let scrub = scrub::SharedScrubStats::default();
        if options.scrub_bytes_per_second > 0 && !engine.is_read_only() {
            let job = scrub::job(engine.view.clone(), options.scrub_bytes_per_second, scrub.clone());
            engine.background.run_in(SCRUB_AFTER, job);
        }
        let core = Arc::new(Core {
            cache,
            engine,
            gates,
            decision_queue: DecisionQueue::default(),
            running: Arc::default(),
            scrub,
            compactions: compaction::SharedCompactionStats::default(),
        });
        Store { _close_on_drop: Some(Arc::new(CloseOnDrop(core.clone()))), core }
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.core.cache
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.core.engine
    }

    pub(crate) fn decision_queue(&self) -> &DecisionQueue {
        &self.core.decision_queue
    }

    pub(crate) fn running(&self) -> &Arc<Registry> {
        &self.core.running
    }

    pub(crate) fn downgrade(&self) -> WeakStore {
        WeakStore(Arc::downgrade(&self.core))
    }
}
