//! What operators do with a store.
//!
//! Row: ops. May use the inside of the engine.

pub(crate) mod checkpoint;
pub(crate) mod compact;
pub(crate) mod describe;
pub(crate) mod erase;
pub(crate) mod ledger;
pub(crate) mod pace;
pub(crate) mod rewriting;
pub(crate) mod salvage;
pub(crate) mod verify;
