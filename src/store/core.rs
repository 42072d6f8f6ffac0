//! What the handles of a store share: the engine, and what stands on it.
//!
//! A store is open as long as the application has a handle. Threads of our own upgrade a [`WeakStore`] for as long
//! as they use it; what they hold then is the same store, but keeps nothing open: once the application's
//! last handle is gone the store is closed, whoever is still at work.
//! Row: store.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::engine::Engine;
use crate::maintenance::scrub;
use crate::store::decision_queue::Turns;
use crate::store::registry::Registry;
use crate::store::state_cache::{Cache, Owner};
use crate::types::Error;

use super::gate::Gates;
use super::{Store, policy};

/// Opening is long over, if the process still is.
const SCRUB_AFTER: Duration = Duration::from_millis(100);

pub(crate) struct Core {
    cache: Cache,
    pub(crate) engine: Engine,
    pub(super) gates: Gates,
    turns: Turns,
    /// The consumers that run in this process.
    pub(crate) running: Arc<Registry>,
    /// What verifying in the background has found.
    pub(super) scrub: scrub::Shared,
    /// What policies have done.
    pub(super) compactions: policy::Shared,
}

impl Core {
    /// Closes for all handles, and tells whoever runs.
    pub(super) fn close(&self) -> Result<(), Error> {
        self.close_cache();
        let closed = self.engine.close();
        self.running.end();
        closed
    }

    /// Before the engine, which gives up the lock: then the cache is somebody else's. What takes long is broken off first.
    fn close_cache(&self) {
        self.engine.rewrite_thread.close();
        // What cannot be made durable is not saved; closing the engine says why.
        self.cache.close(|| drop(self.engine.sync()));
    }
}

/// What the application's handles have in common: when it is dropped, the store is closed.
pub(super) struct Keeper(Arc<Core>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.close_cache();
        self.0.engine.abandon();
        self.0.running.end();
    }
}

/// A handle that keeps no store open.
#[derive(Clone)]
pub(crate) struct WeakStore(Weak<Core>);

impl WeakStore {
    /// The store, if there is still anything of it; it may be closed. What this gives keeps it no longer open than the
    /// application does.
    pub(crate) fn upgrade(&self) -> Option<Store> {
        self.0.upgrade().map(|core| Store { core, _keeper: None })
    }
}

impl Store {
    pub(super) fn around(engine: Engine, gates: Gates) -> Store {
        let options = &engine.options;
        // Beside a writer, or where nothing may be written, there is no file to be shared.
        let file_bytes = if engine.is_read_only() { 0 } else { options.cache_disk_bytes };
        let owner = Owner { store_id: engine.store_id, history: engine.view.history() };
        let (disk, view, housekeeper) = (engine.disk.clone(), engine.view.clone(), engine.background.clone());
        let (memory_bytes, clock) = (options.cache_memory_bytes, options.clock.clone());
        let cache = Cache::new(memory_bytes, file_bytes, disk, owner, view, housekeeper, clock);
        let scrub = scrub::Shared::default();
        if options.scrub_bytes_per_second > 0 && !engine.is_read_only() {
            let job = scrub::job(engine.view.clone(), options.scrub_bytes_per_second, scrub.clone());
            engine.background.run_in(SCRUB_AFTER, job);
        }
        let core = Arc::new(Core {
            cache,
            engine,
            gates,
            turns: Turns::default(),
            running: Arc::default(),
            scrub,
            compactions: policy::Shared::default(),
        });
        Store { _keeper: Some(Arc::new(Keeper(core.clone()))), core }
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.core.cache
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.core.engine
    }

    pub(crate) fn turns(&self) -> &Turns {
        &self.core.turns
    }

    pub(crate) fn running(&self) -> &Arc<Registry> {
        &self.core.running
    }

    pub(crate) fn downgrade(&self) -> WeakStore {
        WeakStore(Arc::downgrade(&self.core))
    }
}
