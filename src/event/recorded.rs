//! A recorded event, whose names and payload are slices of the block that it was read in; and whether one
//! event matches a query. The index answers the same for many events, and tests/it/model.rs compares the two.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;

use crate::event::codec;
use crate::event::tree::TreeLeaf;
use crate::format::{Frame, FrameHeader, Record, RecordShape, record, tags};
use crate::types::{
    Cause, Coordinate, Error, ErrorKind, EventId, Item, Name, Position, Query, ResumeToken, SYSTEM_SCOPE,
    Undecodable, UndecodableReason, Version, time_of, to_usize,
};

/// An event of the store.
///
/// It shares the block of bytes that it was read in, and copies nothing until it is decoded. A block has up
/// to 256 KiB if many events are read in order, and 64 KiB if the event was just written. So keep decoded
/// values, and not thousands of recorded events.
///
/// ```
/// use annals::{Raw, Store};
///
/// let store = Store::in_memory()?;
/// store.append(("account:alice", "branch:7"), &Raw("account.deposited", &500))?;
///
/// let event = store.stream("account:alice").next().unwrap()?;
/// assert_eq!((event.entity(), event.scope()), ("account:alice", "branch:7"));
/// assert_eq!(event.kind(), "account.deposited");
/// assert_eq!((event.version().get(), event.position().get()), (1, 1));
/// assert_eq!(event.decode::<u64>()?, 500);
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone)]
pub struct RecordedEvent {
    /// Holds the whole frame, or the record alone and the header of its frame. Their checksums were checked.
    block: Arc<Vec<u8>>,
    /// The offsets of the frame's header and of the event's record in the block.
    frame: u32,
    record: u32,
    /// The position of the append's first event, and the event's index in the append.
    first: Position,
    index: u16,
    shape: RecordShape,
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
        shape: RecordShape,
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

    /// The id of the event: the id that it was imported with, or else the id that the store derived.
    /// Receipts, notifications, stories and exports show this id. The derived id finds the event, too.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.record().foreign_id().unwrap_or_else(|| self.derived_id())
    }

    /// The position of the event in the store.
    #[must_use]
    pub fn position(&self) -> Position {
        self.first.plus(self.index.into())
    }

    /// The version of the event in its stream.
    #[must_use]
    pub fn version(&self) -> Version {
        self.header().version(self.index, &self.record()).into()
    }

    /// The entity of the event.
    #[must_use]
    pub fn entity(&self) -> &str {
        self.record().entity()
    }

    /// The scope of the event.
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

    /// The version of the payload's shape that it was stored with.
    #[must_use]
    pub fn schema_version(&self) -> u16 {
        self.record().schema_version()
    }

    /// The tags, in the order in which they were given.
    pub fn tags(&self) -> impl Iterator<Item = &str> + Clone {
        record::tags(self.record().tag_bytes())
    }

    /// The time at which the store recorded the event; never earlier than that of the event before.
    #[must_use]
    pub fn recorded_at(&self) -> SystemTime {
        time_of(i64::try_from(self.header().recorded_at()).unwrap_or(i64::MAX))
    }

    /// The time at which the event happened, if the application gave it.
    #[must_use]
    pub fn occurred_at(&self) -> Option<SystemTime> {
        self.record().occurred_at().map(time_of)
    }

    /// The correlation id: the id given with the append, or else the id of the append's first event.
    #[must_use]
    pub fn correlation(&self) -> EventId {
        self.record()
            .correlation()
            .unwrap_or_else(|| self.of_append(0).map_or(self.id_at(0), |first| first.id()))
    }

    /// The cause, if the application gave one. A [`Cause::InAppend`] is returned as the [`Cause::Event`] of
    /// that event.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.record().cause().map(|cause| match cause {
            Cause::InAppend(index) => {
                Cause::Event(self.of_append(index).map_or(self.id_at(index), |event| event.id()))
            }
            other => other,
        })
    }

    /// The chain hash of the event's append: 32 bytes that stand for all history up to the append.
    #[must_use]
    pub fn chain(&self) -> [u8; 32] {
        self.header().chain()
    }

    /// The token from which a reader continues after this event; see [`ResumeToken`].
    #[must_use]
    pub fn resume_token(&self) -> ResumeToken {
        ResumeToken::new(self.position(), &self.chain())
    }

    /// What the tree over all events holds of this event; see [`TreeHead`](crate::TreeHead).
    #[must_use]
    pub fn tree_leaf(&self) -> TreeLeaf {
        let header = self.header();
        TreeLeaf {
            index: self.index,
            events: header.events(),
            position: self.position(),
            recorded_at: header.recorded_at(),
            version: self.version(),
            record: self.record().content(),
            chain: header.chain(),
        }
    }

    /// Whether payload and metadata were erased; see [`Store::erase`](crate::Store::erase). The rest of the
    /// event remains.
    #[must_use]
    pub fn is_erased(&self) -> bool {
        self.record().is_erased()
    }

    /// The bytes of the payload.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Erased`] if the payload was erased.
    pub fn payload(&self) -> Result<&[u8], Error> {
        self.record().payload().ok_or_else(|| self.erased())
    }

    /// Decodes the payload as any type. The value may borrow from the event.
    ///
    /// Read a [`trait@DomainEvent`](crate::DomainEvent) by [`RecordedEvent::to`], which knows its kinds and
    /// versions.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Undecodable`] if the payload is not of this type; [`ErrorKind::Erased`] if it was erased.
    pub fn decode<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Error> {
        self.decoded("payload", self.payload()?)
    }

    /// Decodes the metadata; `None` if the event has none.
    ///
    /// # Errors
    ///
    /// The errors of [`RecordedEvent::decode`].
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

    /// The stored hash of the append's idempotency key.
    #[cfg(feature = "jsonl")]
    pub(crate) fn append_key(&self) -> Option<[u8; 16]> {
        self.header().key()
    }

    /// The bytes of the metadata, empty if there is none; or the hash that the erasure left of all private
    /// bytes.
    #[cfg(feature = "jsonl")]
    pub(crate) fn metadata_bytes(&self) -> Result<&[u8], [u8; 32]> {
        let record = self.record();
        record.metadata().ok_or_else(|| record.private_hash().expect("a record is whole or erased"))
    }

    /// Whether a query matches the event.
    #[cfg(test)]
    pub(crate) fn matches(&self, query: &Query) -> bool {
        matches(query, &self.record(), |id| self.belongs_to(id))
    }

    /// Whether the event belongs to a correlation. `id` may be either id of the event that the correlation
    /// names.
    pub(crate) fn belongs_to(&self, id: EventId) -> bool {
        let first = || EventIds {
            derived: self.id_at(0),
            brought: self.of_append(0).and_then(|first| first.record().foreign_id()),
        };
        belongs_to(id, &self.record(), first)
    }

    /// The other id of the event, if it has two.
    pub(crate) fn other_id(&self, id: EventId) -> Option<EventId> {
        let brought = self.record().foreign_id()?;
        let derived = self.derived_id();
        Some(if id == derived { brought } else { derived })
    }

    /// The first event of the same append, unless this is the first, or the first is gone.
    pub(crate) fn first_of_append(&self) -> Option<RecordedEvent> {
        if self.index == 0 { None } else { self.of_append(0) }
    }

    /// The id of the first event of the same append, unless this is the first. If the first is gone, its
    /// derived id.
    pub(crate) fn id_of_first(&self) -> Option<EventId> {
        (self.index > 0).then(|| self.first_of_append().map_or(self.id_at(0), |first| first.id()))
    }

    /// The event at `index` of the same append, if it is there.
    fn of_append(&self, index: u16) -> Option<RecordedEvent> {
        if self.index == index {
            return Some(self.clone());
        }
        if self.header().is_detached() {
            // It was read alone, so its append has no event that this answer could depend on.
            return None;
        }
        let layout = self.header().layout();
        let body = to_usize(self.frame) + self.header().header_bytes();
        let start = body + record::start_of(&self.block[body..], index, layout)?;
        let record = record::read(&self.block, start, layout).ok()?;
        Some(RecordedEvent { record: short(start), index, shape: record.shape(), ..self.clone() })
    }

    /// The cause by the id that is cheapest to find: for a cause in the same append, the derived id.
    pub(crate) fn cause_by_either_id(&self) -> Option<Cause> {
        self.record().cause().map(|cause| match cause {
            Cause::InAppend(index) => Cause::Event(self.id_at(index)),
            other => other,
        })
    }

    /// Whether both events stand in the same block.
    pub(crate) fn shares_block_with(&self, other: &RecordedEvent) -> bool {
        Arc::ptr_eq(&self.block, &other.block)
    }

    /// The id that the store derived, also if the event was imported with an id.
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

    /// The error that the event could not be read as a type.
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

    /// The id that the store derived for the event at `index` of the append.
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

/// The conversion cannot fail: a block is no longer than a segment, and the format bounds the lengths of
/// names.
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

/// Whether an event matches a query. `belongs` is called only if the query names a correlation, because it
/// may have to read the first event of the append.
pub(crate) fn matches(query: &Query, record: &Record<'_>, belongs: impl Fn(EventId) -> bool) -> bool {
    query.items.iter().any(|item| matches_item(item, record, &belongs))
}

/// Whether an event belongs to a correlation: it names the correlation, or it names none and the first event
/// of its append has this id.
pub(crate) fn belongs_to(id: EventId, record: &Record<'_>, first: impl FnOnce() -> EventIds) -> bool {
    match record.correlation() {
        Some(correlation) => correlation == id,
        None => {
            let EventIds { derived, brought } = first();
            derived == id || brought == Some(id)
        }
    }
}

/// The ids of an event: the derived one, and the one that it was imported with.
pub(crate) struct EventIds {
    pub(crate) derived: EventId,
    pub(crate) brought: Option<EventId>,
}

impl EventIds {
    /// The ids of the first event of an append, whose position is `first`.
    pub(crate) fn of_first(frame: &Frame<'_>, first: Position) -> EventIds {
        EventIds {
            derived: frame.header.event_id(first),
            brought: frame.first_record().and_then(|record| record.foreign_id()),
        }
    }
}

fn matches_item(item: &Item, record: &Record<'_>, belongs: &impl Fn(EventId) -> bool) -> bool {
    let entity = match &item.entity {
        Some(Name::Is(entity)) => record.entity() == entity,
        Some(Name::StartsWith(prefix)) => record.entity().starts_with(prefix.as_str()),
        None => true,
    };
    entity
        && !(item.passes_over_system() && record.scope_or_default() == SYSTEM_SCOPE)
        && item.scope.as_deref().is_none_or(|scope| record.scope_or_default() == scope)
        && (item.kinds.is_empty() || item.kinds.iter().any(|kind| record.kind() == kind))
        && item.kind_prefix.as_deref().is_none_or(|prefix| record.kind().starts_with(prefix))
        && item.tags.iter().all(|tag| tags(record.tag_bytes()).any(|own| own == tag))
        && item.correlation.is_none_or(belongs)
}
