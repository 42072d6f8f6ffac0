//! What operators do with a store.
//!
//! Row: ops. May use the inside of the engine.

pub(crate) mod backup;
pub(crate) mod checkpoint;
pub(crate) mod compact;
pub(crate) mod describe;
mod ending;
pub(crate) mod erase;
pub(crate) mod history;
pub(crate) mod image;
pub(crate) mod ledger;
pub(crate) mod pace;
mod quarantine;
pub(crate) mod reindex;
pub(crate) mod restore;
pub(crate) mod rewriting;
pub(crate) mod rollback;
pub(crate) mod salvage;
pub(crate) mod scrub;
mod target;
pub(crate) mod verify;
