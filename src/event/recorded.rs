//! An event as it was recorded: names and payload are slices of the block it was read in.
//!
//! Row: bytes.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;

use crate::event::codec;
use crate::event::matching::{Ids, belongs_to};
use crate::format::{FrameHeader, Record, Shape, record};
use crate::types::{
    Cause, Coordinate, Error, ErrorKind, EventId, Position, ResumeToken, Undecodable, UndecodableReason,
    Version, time_of, to_usize,
};

/// An event of the store.
///
/// It shares the block of bytes it was read in (up to 256 KiB when many events are read in order, 64 KiB when it
/// was just written), and nothing is copied until it is decoded. Keep decoded values, not thousands of these.
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
    /// Holds the whole frame, checked.
    block: Arc<Vec<u8>>,
    /// Where the frame and, in it, the event's record begin in the block.
    frame: u32,
    record: u32,
    /// Of the append's first event, and how many events of it stand before this one.
    first: Position,
    index: u16,
    shape: Shape,
}

impl RecordedEvent {
    /// The event at `index` of the frame at `frame` in `block`, whose record begins at `record`.
    #[inline(always)]
    pub(crate) fn new(
        block: &Arc<Vec<u8>>,
        frame: usize,
        record: usize,
        first: Position,
        index: u16,
        shape: Shape,
    ) -> RecordedEvent {
        RecordedEvent {
            block: block.clone(),
            frame: short(frame),
            record: short(record),
            first,
            index,
            shape,
        }
    }

    /// The event's identity: the id it brought along, or else the one the store derived. It is the id that
    /// receipts, notifications, stories and exports name. The derived one finds the same, also where it is
    /// not shown.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.record().foreign_id().unwrap_or_else(|| self.derived_id())
    }

    /// Its place in the order of the store.
    #[must_use]
    pub fn position(&self) -> Position {
        self.first.plus(self.index.into())
    }

    /// Its place in its stream.
    #[must_use]
    pub fn version(&self) -> Version {
        self.header().version(self.index.into()).into()
    }

    /// The entity it tells about.
    #[must_use]
    pub fn entity(&self) -> &str {
        self.record().entity()
    }

    /// The scope it happened in.
    #[must_use]
    pub fn scope(&self) -> &str {
        self.record().scope_or_default()
    }

    /// Entity and scope.
    #[must_use]
    pub fn coordinate(&self) -> Coordinate {
        Coordinate::stored(self.entity(), self.scope())
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.record().kind()
    }

    /// The version of the payload's shape.
    #[must_use]
    pub fn schema_version(&self) -> u16 {
        self.record().schema_version()
    }

    /// The tags, in the order they were given.
    pub fn tags(&self) -> impl Iterator<Item = &str> + Clone {
        record::tags(self.record().tag_bytes())
    }

    /// When the store took it; never earlier than the event before.
    #[must_use]
    pub fn recorded_at(&self) -> SystemTime {
        time_of(i64::try_from(self.header().recorded_at()).unwrap_or(i64::MAX))
    }

    /// When it happened, if the application said so.
    #[must_use]
    pub fn occurred_at(&self) -> Option<SystemTime> {
        self.record().occurred_at().map(time_of)
    }

    /// What it belongs to: the id given when it was appended, else the id of its append's first event.
    #[must_use]
    pub fn correlation(&self) -> EventId {
        self.record()
            .correlation()
            .unwrap_or_else(|| self.of_append(0).map_or(self.id_at(0), |first| first.id()))
    }

    /// What brought it about, if that was said. [`Cause::InAppend`] comes back as the
    /// [`Cause::Event`] it turned out to be.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.record().cause().map(|cause| match cause {
            Cause::InAppend(index) => {
                Cause::Event(self.of_append(index).map_or(self.id_at(index), |event| event.id()))
            }
            other => other,
        })
    }

    /// The chain hash of the append it belongs to: all history up to here in 32 bytes.
    #[must_use]
    pub fn chain(&self) -> [u8; 32] {
        self.header().chain()
    }

    /// Where to go on behind it; see [`ResumeToken`].
    #[must_use]
    pub fn resume_token(&self) -> ResumeToken {
        ResumeToken::new(self.position(), &self.chain())
    }

    /// Whether payload and metadata were erased; the rest is there. See [`Store::erase`](crate::Store::erase).
    #[must_use]
    pub fn is_erased(&self) -> bool {
        self.record().is_erased()
    }

    /// The payload's bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Erased`] if it was erased.
    pub fn payload(&self) -> Result<&[u8], Error> {
        self.record().payload().ok_or_else(|| self.erased())
    }

    /// Decodes the payload as whatever type it was; the value may borrow from the event. A
    /// [`trait@DomainEvent`](crate::DomainEvent) is read by [`RecordedEvent::to`], which knows its kinds and versions.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Undecodable`] if the payload is not of this type, [`ErrorKind::Erased`] if it is gone.
    pub fn decode<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Error> {
        self.decoded("payload", self.payload()?)
    }

    /// Decodes the metadata, if there is any.
    ///
    /// # Errors
    ///
    /// As [`RecordedEvent::decode`].
    pub fn metadata<'a, T: Deserialize<'a>>(&'a self) -> Result<Option<T>, Error> {
        match self.record().metadata() {
            None => Err(self.erased()),
            Some([]) => Ok(None),
            Some(bytes) => self.decoded("metadata", bytes).map(Some),
        }
    }

    /// The position of the first event of its append.
    #[cfg(feature = "jsonl")]
    pub(crate) fn append_position(&self) -> Position {
        self.first
    }

    /// What is stored of its append's idempotency key.
    #[cfg(feature = "jsonl")]
    pub(crate) fn append_key(&self) -> Option<[u8; 16]> {
        self.header().key()
    }

    /// The metadata's bytes, none if there is no metadata; or the hash that erasure left of all private bytes.
    #[cfg(feature = "jsonl")]
    pub(crate) fn metadata_bytes(&self) -> Result<&[u8], [u8; 32]> {
        let record = self.record();
        record.metadata().ok_or_else(|| record.private_hash().expect("a record is whole or erased"))
    }

    /// Whether a query asks for it: what the index answers for many.
    #[cfg(test)]
    pub(crate) fn matches(&self, query: &crate::types::Query) -> bool {
        crate::event::matching::matches(query, &self.record(), |id| self.belongs_to(id))
    }

    /// Whether it belongs to a correlation, by either id of the event that this names.
    pub(crate) fn belongs_to(&self, id: EventId) -> bool {
        let first = || Ids {
            derived: self.id_at(0),
            brought: self.of_append(0).and_then(|first| first.record().foreign_id()),
        };
        belongs_to(id, &self.record(), first)
    }

    /// The id that finds it as well as this one does, if it has two.
    pub(crate) fn other_id(&self, id: EventId) -> Option<EventId> {
        let (brought, derived) = (self.record().foreign_id()?, self.derived_id());
        Some(if id == derived { brought } else { derived })
    }

    /// The first event of the append it belongs to, unless that is this one.
    pub(crate) fn first_of_append(&self) -> Option<RecordedEvent> {
        if self.index == 0 { None } else { self.of_append(0) }
    }

    /// The event at `index` of the append it belongs to.
    fn of_append(&self, index: u16) -> Option<RecordedEvent> {
        if self.index == index {
            return Some(self.clone());
        }
        let body = to_usize(self.frame) + self.header().header_bytes();
        let start = body + record::start_of(&self.block[body..], index)?;
        let record = record::read(&self.block[start..], 0).ok()?;
        Some(RecordedEvent { record: short(start), index, shape: record.shape(), ..self.clone() })
    }

    /// Its cause by the id that costs least to find out: where it stands in the same append, that is the
    /// derived one.
    pub(crate) fn cause_by_either_id(&self) -> Option<Cause> {
        self.record().cause().map(|cause| match cause {
            Cause::InAppend(index) => Cause::Event(self.id_at(index)),
            other => other,
        })
    }

    /// Whether both were read in one go.
    pub(crate) fn shares_block_with(&self, other: &RecordedEvent) -> bool {
        Arc::ptr_eq(&self.block, &other.block)
    }

    /// The id the store gave it, whether or not it brought one along.
    pub(crate) fn derived_id(&self) -> EventId {
        self.id_at(self.index)
    }

    fn decoded<'a, T: Deserialize<'a>>(&self, what: &str, bytes: &'a [u8]) -> Result<T, Error> {
        codec::decode(bytes).map_err(|error| {
            let type_name = std::any::type_name::<T>();
            let problem = format!("has a {what} that does not decode as {type_name}: {error}");
            self.undecodable(UndecodableReason::Mismatch, None, problem, Some(Box::new(error)))
        })
    }

    /// The error that it is not what it was to be read as.
    pub(crate) fn undecodable(
        &self,
        reason: UndecodableReason,
        known_version: Option<u16>,
        problem: impl fmt::Display,
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        let event = Undecodable {
            reason,
            entity: self.entity().to_owned(),
            position: self.position(),
            kind: self.kind().to_owned(),
            stored_version: self.schema_version(),
            known_version,
        };
        Error::undecodable_because(event, problem, source)
    }

    fn erased(&self) -> Error {
        let text = format!("{} at position {}: the payload was erased", self.entity(), self.position());
        Error::new(ErrorKind::Erased, text)
    }

    /// The id the store gave to the event at `index` of the append.
    fn id_at(&self, index: u16) -> EventId {
        self.header().event_id(self.first.plus(index.into()))
    }

    fn header(&self) -> FrameHeader<'_> {
        FrameHeader::known(&self.block[to_usize(self.frame)..])
    }

    fn record(&self) -> Record<'_> {
        Record::known(&self.block, to_usize(self.record), self.shape)
    }
}

/// A block is no longer than a segment, and the format bounds lengths of names.
fn short<T: TryFrom<usize>>(number: usize) -> T {
    T::try_from(number).ok().expect("lengths are bounded where they are read")
}

impl fmt::Debug for RecordedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordedEvent")
            .field("position", &self.position().get())
            .field("entity", &self.entity())
            .field("version", &self.version().get())
            .field("kind", &self.kind())
            .finish_non_exhaustive()
    }
}
