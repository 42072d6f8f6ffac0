//! What is known of an event besides its payload.
//!
//! Row: bytes.

use std::time::SystemTime;

use serde::Deserialize;

use crate::event::recorded::RecordedEvent;
use crate::types::{Cause, Coordinate, Error, EventId, Position, Version};

/// What is known of an event besides its payload.
#[derive(Clone, Copy, Debug)]
pub struct Meta<'a> {
    event: &'a RecordedEvent,
}

impl<'a> Meta<'a> {
    /// What is known of an event.
    #[must_use]
    pub fn of(event: &'a RecordedEvent) -> Meta<'a> {
        Meta { event }
    }

    /// The event's identity.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.event.id()
    }

    /// Its place in the order of the store.
    #[must_use]
    pub fn position(&self) -> Position {
        self.event.position()
    }

    /// Its place in its stream.
    #[must_use]
    pub fn version(&self) -> Version {
        self.event.version()
    }

    /// The entity it tells about.
    #[must_use]
    pub fn entity(&self) -> &'a str {
        self.event.entity()
    }

    /// The scope it happened in.
    #[must_use]
    pub fn scope(&self) -> &'a str {
        self.event.scope()
    }

    /// Entity and scope.
    #[must_use]
    pub fn coordinate(&self) -> Coordinate {
        self.event.coordinate()
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> &'a str {
        self.event.kind()
    }

    /// The version of the payload's shape as it was stored.
    #[must_use]
    pub fn schema_version(&self) -> u16 {
        self.event.schema_version()
    }

    /// The tags, in the order they were given.
    pub fn tags(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        self.event.tags()
    }

    /// When the store took it.
    #[must_use]
    pub fn recorded_at(&self) -> SystemTime {
        self.event.recorded_at()
    }

    /// When it happened, if the application said so.
    #[must_use]
    pub fn occurred_at(&self) -> Option<SystemTime> {
        self.event.occurred_at()
    }

    /// What it belongs to.
    #[must_use]
    pub fn correlation(&self) -> EventId {
        self.event.correlation()
    }

    /// What brought it about, if that was said.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.event.cause()
    }

    /// Decodes the metadata, if there is any.
    ///
    /// # Errors
    ///
    /// As [`RecordedEvent::metadata`].
    pub fn metadata<T: Deserialize<'a>>(&self) -> Result<Option<T>, Error> {
        self.event.metadata()
    }

    /// The event as it was recorded.
    #[must_use]
    pub fn event(&self) -> &'a RecordedEvent {
        self.event
    }
}
