//! What the handles of a store share: the engine, and what stands on it.
//!
//! Row: store.

use std::sync::{Arc, Weak};

use crate::cache::{Cache, Owner};
use crate::engine::Engine;
use crate::turns::Turns;

use super::Store;
use super::gate::Gates;

pub(crate) struct Core {
    cache: Cache,
    pub(crate) engine: Engine,
    pub(super) gates: Gates,
    turns: Turns,
}

/// A handle that keeps no store open.
#[derive(Clone)]
pub(crate) struct WeakStore(Weak<Core>);

impl WeakStore {
    /// The store, while it has other handles.
    pub(crate) fn upgrade(&self) -> Option<Store> {
        self.0.upgrade().map(|core| Store { core })
    }
}

impl Store {
    pub(super) fn around(engine: Engine, gates: Gates) -> Store {
        let options = &engine.options;
        // Beside a writer, or where nothing may be written, there is no file to be shared.
        let file_bytes = if engine.is_read_only() { 0 } else { options.cache_disk_bytes };
        let owner = Owner { store_id: engine.store_id, history: 0 };
        let (disk, view) = (engine.disk.clone(), engine.view.clone());
        let cache = Cache::new(options.cache_memory_bytes, file_bytes, disk, owner, view);
        Store { core: Arc::new(Core { cache, engine, gates, turns: Turns::default() }) }
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

    pub(crate) fn downgrade(&self) -> WeakStore {
        WeakStore(Arc::downgrade(&self.core))
    }
}

impl Core {
    /// Before the engine, which gives up the lock: then the cache is somebody else's.
    pub(super) fn close_cache(&self) {
        // What cannot be made durable is not saved; closing the engine says why.
        self.cache.close(|| drop(self.engine.sync()));
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.close_cache();
    }
}
