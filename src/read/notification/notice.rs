//! What a receiver of notifications gets.

use std::fmt;
use std::sync::Arc;

use crate::format::{FrameHeader, Record};
use crate::types::{Coordinate, EventId, Position};

/// A hint that an event was appended. It carries no payload: read the event if you need it.
#[derive(Clone, PartialEq, Eq)]
pub struct Notification {
    position: Position,
    id: EventId,
    /// Entity, scope and kind, concatenated; shared by all receivers.
    names: Arc<str>,
    /// The ends of the entity and the scope in there.
    ends: (u16, u16),
}

impl Notification {
    pub(super) fn new(
        header: &FrameHeader<'_>,
        first: Position,
        index: u16,
        record: &Record<'_>,
    ) -> Notification {
        let entity = record.entity();
        let scope = record.scope_or_default();
        let position = first.plus(index.into());
        let end_of = |length| u16::try_from(length).expect("names are shorter than 5,000 bytes");
        Notification {
            position,
            id: record.foreign_id().unwrap_or_else(|| header.event_id(position)),
            names: [entity, scope, record.kind()].concat().into(),
            ends: (end_of(entity.len()), end_of(entity.len() + scope.len())),
        }
    }

    /// A notification of an event of the entity `e`, the scope `s` and the kind `k`.
    #[cfg(test)]
    pub(super) fn for_test(position: Position) -> Notification {
        Notification { position, id: EventId::from_bytes([0; 16]), names: "esk".into(), ends: (1, 2) }
    }

    /// The event's position.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The event's id.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.id
    }

    /// The event's entity.
    #[must_use]
    pub fn entity(&self) -> &str {
        &self.names[..self.ends.0.into()]
    }

    /// The event's scope.
    #[must_use]
    pub fn scope(&self) -> &str {
        &self.names[self.ends.0.into()..self.ends.1.into()]
    }

    /// The event's entity and scope.
    #[must_use]
    pub fn coordinate(&self) -> Coordinate {
        Coordinate::stored(self.entity(), self.scope())
    }

    /// The event's kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.names[self.ends.1.into()..]
    }
}

impl fmt::Debug for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notification")
            .field("position", &self.position.get())
            .field("entity", &self.entity())
            .field("scope", &self.scope())
            .field("kind", &self.kind())
            .finish_non_exhaustive()
    }
}

/// An item of [`Notifications`](crate::Notifications).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The matching events of one group of appends, in order; at least one event.
    Events(Vec<Notification>),
    /// The receiver was too slow, and notifications were lost between the item before this one and the next.
    Lagged {
        /// The number of lost events.
        missed: u64,
        /// Reading the query after this position finds all of them.
        resume_at: Position,
    },
}
