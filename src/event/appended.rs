//! The receipt of an append: positions, versions and ids of its events, and no offset on disk.

use std::time::SystemTime;

use crate::format::{FrameHeader, Hash};
use crate::types::{EventId, Position, ResumeToken, Version, time_of};

/// The receipt of an append.
///
/// [`Appended::position`], [`Appended::version`] and [`Appended::id`] are those of its **last** event.
///
/// ```
/// use annals::{Raw, Store};
///
/// let store = Store::in_memory()?;
/// let receipt = store.append("account:alice", &Raw("account.opened", &()))?;
/// assert_eq!((receipt.position().get(), receipt.version().get(), receipt.replayed()), (1, 1, false));
/// assert_eq!(store.get(receipt.id())?.unwrap().kind(), "account.opened");
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    first: Position,
    events: u16,
    first_version: Version,
    /// The version of each event, 8 bytes each, if the append has events of several entities; else empty.
    versions: Box<[u8]>,
    /// The ids that events were imported with, each with the index of its event. Most appends have none.
    brought: Box<[(u16, EventId)]>,
    recorded_at: u64,
    chain: Hash,
    replayed: bool,
}

impl Appended {
    /// The receipt of an append whose first event is at `first`. `versions` are those of [`Frame::versions`].
    pub(crate) fn new(header: &FrameHeader<'_>, first: Position, versions: Vec<u8>) -> Appended {
        Appended {
            first,
            events: header.events(),
            first_version: header.first_version().into(),
            versions: versions.into(),
            brought: Box::default(),
            recorded_at: header.recorded_at(),
            chain: header.chain(),
            replayed: false,
        }
    }

    /// The same receipt with the ids that events were imported with, in the order of the events.
    pub(crate) fn bringing(self, brought: impl Into<Box<[(u16, EventId)]>>) -> Appended {
        Appended { brought: brought.into(), ..self }
    }

    pub(crate) fn into_replayed(self) -> Appended {
        Appended { replayed: true, ..self }
    }

    /// The position of the first event.
    pub(crate) fn first(&self) -> Position {
        self.first
    }

    /// The receipt without the last events, which are the store's own. If the append has no other events, the
    /// receipt keeps them.
    pub(crate) fn without_last(self, system_events: u16) -> Appended {
        let events = self.events.checked_sub(system_events).filter(|events| *events > 0);
        Appended { events: events.unwrap_or(self.events), ..self }
    }

    /// The position of the last event. A read up to this position shows all events of the append.
    #[must_use]
    pub fn position(&self) -> Position {
        self.first.plus(u64::from(self.events) - 1)
    }

    /// The position of the first event. The other events follow without a gap.
    #[must_use]
    pub fn first_position(&self) -> Position {
        self.first
    }

    /// The number of events in the append.
    #[must_use]
    pub fn events(&self) -> usize {
        self.events.into()
    }

    /// The version of the last event in its stream.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version_of(u64::from(self.events) - 1)
    }

    /// The version of each event in its stream, in the order of the append.
    pub fn versions(&self) -> impl Iterator<Item = Version> + '_ {
        (0..u64::from(self.events)).map(|index| self.version_of(index))
    }

    /// The id of the last event, as [`RecordedEvent::id`](crate::RecordedEvent::id) returns it.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.id_of(self.events.saturating_sub(1))
    }

    /// The id of each event, in the order of the append.
    pub fn ids(&self) -> impl Iterator<Item = EventId> + '_ {
        (0..self.events).map(|index| self.id_of(index))
    }

    /// The time at which the store recorded the append.
    #[must_use]
    pub fn recorded_at(&self) -> SystemTime {
        time_of(i64::try_from(self.recorded_at).unwrap_or(i64::MAX))
    }

    /// The token from which a reader continues after the last event; see [`ResumeToken`]. The token of a
    /// buffered append is safe to keep only after the append is durable.
    #[must_use]
    pub fn resume_token(&self) -> ResumeToken {
        ResumeToken::new(self.position(), &self.chain)
    }

    /// Whether the store returned the receipt of an earlier append with the same idempotency key.
    #[must_use]
    pub fn replayed(&self) -> bool {
        self.replayed
    }

    fn id_of(&self, index: u16) -> EventId {
        match self.brought.binary_search_by_key(&index, |(index, _)| *index) {
            Ok(at) => self.brought[at].1,
            Err(_) => EventId::derive(self.recorded_at, self.first.plus(index.into()), &self.chain),
        }
    }

    fn version_of(&self, index: u64) -> Version {
        let at = usize::try_from(index).expect("at most 65,535");
        match self.versions.chunks_exact(8).nth(at) {
            Some(version) => crate::format::u64_at(version, 0).into(),
            None => self.first_version.plus(index),
        }
    }
}
