//! What the handles of a store share: the engine, and what stands on it.
//!
//! Row: store.

use std::sync::{Arc, Weak};

use crate::engine::Engine;
use crate::turns::Turns;

use super::Store;
use super::gate::Gates;

pub(crate) struct Core {
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
        Store { core: Arc::new(Core { engine, gates, turns: Turns::default() }) }
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
