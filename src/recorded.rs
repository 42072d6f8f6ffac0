//! An event as it was recorded: names and payload are slices of the block it was read in.
//!
//! Row: bytes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;

use crate::codec;
use crate::coordinate::{Coordinate, DEFAULT_SCOPE};
use crate::error::{Error, ErrorKind};
use crate::event::{Cause, EventId, time_of};
use crate::format::Damage;
use crate::format::frame::FrameHeader;
use crate::format::record::{self, Record};
use crate::version::{Position, Version};

/// An event of the store.
///
/// It shares the block of bytes it was read in (up to 256 KiB when many events are read in order),
/// and nothing is copied until it is decoded. Keep decoded values, not thousands of these.
///
/// ```
/// use annals::{Raw, Store};
///
/// let store = Store::in_memory()?;
/// store.append(("account:alice", "branch:7"), &Raw("account.deposited", &500))?;
///
/// let event = store.stream("account:alice").next().unwrap()?;
/// assert_eq!((event.entity(), event.scope(), event.kind()), ("account:alice", "branch:7", "account.deposited"));
/// assert_eq!((event.version().get(), event.position().get()), (1, 1));
/// assert_eq!(event.decode::<u64>()?, 500);
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone)]
pub struct RecordedEvent {
    block: Arc<Vec<u8>>,
    names: Names,
    /// Payload and metadata in the block; `None` once erased.
    private: Option<Private>,
    position: Position,
    version: Version,
    recorded_at: u64,
    chain: [u8; 32],
    id: EventId,
    correlation: EventId,
    cause: Option<Cause>,
    occurred_at: Option<i64>,
    schema_version: u16,
}

/// Where the names lie in the block: one after the other, from `start` on.
#[derive(Clone, Copy)]
struct Names {
    start: usize,
    entity: usize,
    scope: usize,
    kind: usize,
    tags: usize,
}

#[derive(Clone)]
struct Private {
    metadata: Range<usize>,
    payload: Range<usize>,
}

impl RecordedEvent {
    /// The event at `index` of a frame whose body starts at `body` in `block`.
    pub(crate) fn new(
        block: &Arc<Vec<u8>>,
        body: usize,
        header: &FrameHeader<'_>,
        first: Position,
        index: usize,
        record: &Record<'_>,
    ) -> Result<RecordedEvent, Damage> {
        let position = first.plus(u64::try_from(index).expect("at most 65,535 events"));
        let id_at = |position| EventId::derive(header.recorded_at, position, &header.chain);
        let fields = &record.fields;
        let names = Names {
            start: body + record.names_at(),
            entity: fields.entity.len(),
            scope: fields.scope.len(),
            kind: fields.kind.len(),
            tags: fields.tag_bytes.len(),
        };
        let private = record.private_parts()?.map(|parts| {
            let end = body + record.end();
            let payload = end - parts.payload.len()..end;
            Private { metadata: payload.start - parts.metadata.len()..payload.start, payload }
        });
        Ok(RecordedEvent {
            block: block.clone(),
            names,
            private,
            position,
            version: Version::from(header.version(index)),
            recorded_at: header.recorded_at,
            chain: header.chain,
            id: fields.foreign_id.unwrap_or_else(|| id_at(position)),
            correlation: fields.correlation.unwrap_or_else(|| id_at(first)),
            cause: fields.cause.map(|cause| match cause {
                Cause::InAppend(index) => Cause::Event(id_at(first.plus(u64::from(index)))),
                other => other,
            }),
            occurred_at: fields.occurred_at,
            schema_version: fields.schema_version,
        })
    }

    /// The event's identity.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.id
    }

    /// Its place in the order of the store.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Its place in its stream.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The entity it tells about.
    #[must_use]
    pub fn entity(&self) -> &str {
        self.name(0, self.names.entity)
    }

    /// The scope it happened in.
    #[must_use]
    pub fn scope(&self) -> &str {
        match self.name(self.names.entity, self.names.scope) {
            "" => DEFAULT_SCOPE,
            scope => scope,
        }
    }

    /// Entity and scope.
    #[must_use]
    pub fn coordinate(&self) -> Coordinate {
        Coordinate::stored(self.entity(), self.scope())
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.name(self.names.entity + self.names.scope, self.names.kind)
    }

    /// The version of the payload's shape.
    #[must_use]
    pub fn schema_version(&self) -> u16 {
        self.schema_version
    }

    /// The tags, in the order they were given.
    pub fn tags(&self) -> impl Iterator<Item = &str> + Clone {
        let start = self.names.start + self.names.entity + self.names.scope + self.names.kind;
        record::tags(&self.block[start..start + self.names.tags])
    }

    /// When the store took it; never earlier than the event before.
    #[must_use]
    pub fn recorded_at(&self) -> SystemTime {
        time_of(i64::try_from(self.recorded_at).unwrap_or(i64::MAX))
    }

    /// When it happened, if the application said so.
    #[must_use]
    pub fn occurred_at(&self) -> Option<SystemTime> {
        self.occurred_at.map(time_of)
    }

    /// What it belongs to: the id given when it was appended, else the id of its append's first event.
    #[must_use]
    pub fn correlation(&self) -> EventId {
        self.correlation
    }

    /// What brought it about, if that was said. [`Cause::InAppend`] comes back as the
    /// [`Cause::Event`] it turned out to be.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// The chain hash of the append it belongs to: all history up to here in 32 bytes.
    #[must_use]
    pub fn chain(&self) -> [u8; 32] {
        self.chain
    }

    /// The payload's bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Erased`] if it was erased.
    pub fn payload(&self) -> Result<&[u8], Error> {
        self.private().map(|private| &self.block[private.payload.clone()])
    }

    /// Decodes the payload; the value may borrow from the event.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the payload is not of this type, [`ErrorKind::Erased`] if it is gone.
    pub fn decode<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Error> {
        self.decoded("payload", self.payload()?)
    }

    /// Decodes the metadata, if there is any.
    ///
    /// # Errors
    ///
    /// As [`RecordedEvent::decode`].
    pub fn metadata<'a, T: Deserialize<'a>>(&'a self) -> Result<Option<T>, Error> {
        match &self.block[self.private()?.metadata.clone()] {
            [] => Ok(None),
            bytes => self.decoded("metadata", bytes).map(Some),
        }
    }

    /// The id the store gave it, whether or not it brought one along.
    pub(crate) fn derived_id(&self) -> EventId {
        EventId::derive(self.recorded_at, self.position, &self.chain)
    }

    fn decoded<'a, T: Deserialize<'a>>(&self, what: &str, bytes: &'a [u8]) -> Result<T, Error> {
        codec::decode(bytes).map_err(|error| {
            let text = format!(
                "{} at position {}: the {what} of {} (version {}) does not decode as {}: {error}",
                self.entity(),
                self.position,
                self.kind(),
                self.schema_version,
                std::any::type_name::<T>()
            );
            Error::with_source(ErrorKind::Invalid, text, error)
        })
    }

    fn private(&self) -> Result<&Private, Error> {
        self.private.as_ref().ok_or_else(|| {
            let text = format!("{} at position {}: the payload was erased", self.entity(), self.position);
            Error::new(ErrorKind::Erased, text)
        })
    }

    fn name(&self, skip: usize, length: usize) -> &str {
        let start = self.names.start + skip;
        std::str::from_utf8(&self.block[start..start + length]).expect("checked when the record was read")
    }
}

impl fmt::Debug for RecordedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordedEvent")
            .field("position", &self.position.get())
            .field("entity", &self.entity())
            .field("version", &self.version.get())
            .field("kind", &self.kind())
            .finish_non_exhaustive()
    }
}
