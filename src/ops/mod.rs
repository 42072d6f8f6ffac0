//! What operators do with a store.
//!
//! Row: ops. May use the inside of the engine.

pub(crate) mod describe;
pub(crate) mod salvage;
pub(crate) mod scrub;
pub(crate) mod verify;
