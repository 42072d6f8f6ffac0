//! What the handles of a store share: the engine, and what stands on it.
//!
//! Row: store.

use std::sync::{Arc, Weak};

use crate::cache::Memory;
use crate::engine::Engine;

use super::Store;

pub(crate) struct Core {
    memory: Memory,
    pub(crate) engine: Engine,
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
    pub(super) fn around(engine: Engine) -> Store {
        let memory = Memory::new(64 << 20);
        Store { core: Arc::new(Core { memory, engine }) }
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.core.memory
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.core.engine
    }

    pub(crate) fn downgrade(&self) -> WeakStore {
        WeakStore(Arc::downgrade(&self.core))
    }
}
