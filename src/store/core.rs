//! What the handles of a store share: the engine, and what stands on it.
//!
//! Row: store.

use std::sync::{Arc, Weak};

use crate::engine::Engine;

use super::Store;

pub(crate) struct Core {
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
        Store { core: Arc::new(Core { engine }) }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.core.engine
    }

    pub(crate) fn downgrade(&self) -> WeakStore {
        WeakStore(Arc::downgrade(&self.core))
    }
}
