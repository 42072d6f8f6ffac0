//! What the handles of a store share: the engine, and what stands on it.
//!
//! A store is open as long as the application has a handle. Threads of our own upgrade a [`WeakStore`] for as long
//! as they use it; what they hold then is the same store, but keeps nothing open: once the application's
//! last handle is gone the store is closed, whoever is still at work.
//! Row: store.

use std::sync::{Arc, Weak};

use crate::engine::Engine;
use crate::error::Error;
use crate::running::Running;
use crate::turns::Turns;

use super::Store;
use super::gate::Gates;

pub(crate) struct Core {
    pub(crate) engine: Engine,
    pub(super) gates: Gates,
    turns: Turns,
    /// The consumers that run in this process.
    pub(crate) running: Arc<Running>,
}

impl Core {
    /// Closes for all handles, and tells whoever runs.
    pub(super) fn close(&self) -> Result<(), Error> {
        let closed = self.engine.close();
        self.running.end();
        closed
    }
}

/// What the application's handles have in common: when it is dropped, the store is closed.
pub(super) struct Keeper(Arc<Core>);

impl Drop for Keeper {
    fn drop(&mut self) {
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
        let core = Arc::new(Core { engine, gates, turns: Turns::default(), running: Arc::default() });
        Store { _keeper: Some(Arc::new(Keeper(core.clone()))), core }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.core.engine
    }

    pub(crate) fn turns(&self) -> &Turns {
        &self.core.turns
    }

    pub(crate) fn running(&self) -> &Arc<Running> {
        &self.core.running
    }

    pub(crate) fn downgrade(&self) -> WeakStore {
        WeakStore(Arc::downgrade(&self.core))
    }
}
