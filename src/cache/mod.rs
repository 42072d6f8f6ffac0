//! States that were folded before, so that they need not be folded again.
//!
//! Knows no projection: a state is anything, with a [`Shape`] that says whose it is and how it is encoded.
//! Invariant: a state is here with the place it was folded up to, or not at all.
//! Row: cache.

mod memory;

use std::any::{Any, TypeId};
use std::sync::Arc;

use crate::format::chain::Hash;
use crate::recorded::RecordedEvent;
use crate::version::{Position, Version};

pub(crate) use memory::{Known, Memory, Reservation, Reserve};

/// A state, whatever its type.
pub(crate) type Erased = Arc<dyn Any + Send + Sync>;

/// What is known of a projection here.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) of: TypeId,
    pub(crate) type_name: &'static str,
    pub(crate) name: &'static str,
    pub(crate) revision: u32,
    /// The encoded state; `None` if it does not encode. Panics of the user's code are caught.
    pub(crate) encode: fn(&(dyn Any + Send + Sync)) -> Option<Vec<u8>>,
}

/// Up to where a state was folded: its last event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) version: Version,
    pub(crate) position: Position,
    pub(crate) chain: Hash,
}

/// A state and up to where it was folded.
#[derive(Clone, Default)]
pub(crate) struct Folded<S> {
    pub(crate) state: S,
    pub(crate) reached: Reached,
}

impl Reached {
    pub(crate) fn at(event: &RecordedEvent) -> Reached {
        Reached { version: event.version(), position: event.position(), chain: event.chain() }
    }
}
