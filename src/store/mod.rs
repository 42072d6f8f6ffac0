//! The facade: the methods of [`Store`] that open, append, read and ask.
//!
//! `core.rs` has the handle and what handles share, `builder.rs` opens stores, and the other files hold the
//! public methods by topic. The registry, the decision queue and the state cache serve `consume/` and
//! `state/`.

mod builder;
mod compaction;
mod copies;
mod core;
mod decision_queue;
mod environment;
mod gate;
#[cfg(feature = "jsonl")]
mod jsonl;
mod maintain;
mod registry;
mod state_cache;
#[cfg(test)]
mod tests;
mod tree;

use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, MemDisk};
use crate::engine::Append;
use crate::event::{Appended, RecordedEvent};
use crate::index::NameField;
use crate::read::{
    Ancestors, Descendants, Listing, Notifications, Read, Story, Subscription, causality, reader, story,
};
use crate::types::{
    Coordinate, Error, EventData, EventId, Head, OpenReport, Position, Query, Stats, Version, WriterState,
};

pub use builder::Builder;
pub use compaction::Compaction;
pub use copies::{StoreCopy, restore};
pub use core::Store;
pub(crate) use core::WeakStore;
pub use gate::{Gate, GateDecision};
#[cfg(feature = "jsonl")]
pub use jsonl::{
    Export, ExportProgress, Exported, Import, ImportProgress, Imported, Mapping, TimeForm, Timestamp,
};
pub use maintain::verify_backup;
pub(crate) use registry::{NameLease, RunnerCommand, RunnerState, SpeedSamples, Trouble};
pub(crate) use state_cache::{
    AnyState, Folded, KnownState, ModelLease, Reached, Reservation, Reserve, Saving, Shape, StateKey,
    StateOrigin,
};

impl Store {
    /// Opens the store in a directory, and creates one if there is none.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Locked`](crate::ErrorKind::Locked): the store is open for writing elsewhere.
    /// - [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt): acknowledged data is damaged, or a sealed segment
    ///   is missing, has another length, or is another segment. Nothing was changed.
    /// - [`ErrorKind::Unsafe`](crate::ErrorKind::Unsafe): other users may write to the directory, or it holds
    ///   something that is not a file of annals.
    /// - [`ErrorKind::NeedsNewer`](crate::ErrorKind::NeedsNewer),
    ///   [`ErrorKind::NoSpace`](crate::ErrorKind::NoSpace), [`ErrorKind::Io`](crate::ErrorKind::Io).
    pub fn open(path: impl AsRef<Path>) -> Result<Store, Error> {
        Store::builder(path).open()
    }

    /// Opens the store in a directory for reading, and writes nothing. Beside a writer, in this or another
    /// process, it shows what the writer has made durable, and follows as more comes.
    ///
    /// # Errors
    ///
    /// As [`Store::open`], without `Locked`; [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if there is no
    /// store.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Store, Error> {
        Store::builder(path).open_read_only()
    }

    /// Opens a new store in memory. It is gone when the last handle is dropped.
    ///
    /// # Errors
    ///
    /// Only if the operating system cannot give a thread or random bytes.
    pub fn in_memory() -> Result<Store, Error> {
        Store::on(MemDisk::new()).open()
    }

    /// Begins to set options for a store in a directory.
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder::of_directory(path.as_ref())
    }

    /// Begins to set options for a store on a [`Disk`] of your own.
    pub fn on(disk: impl Disk) -> Builder {
        Builder::of_disk(Arc::new(disk))
    }

    /// Appends one event to an entity, and returns once the append is acknowledged: durable, unless
    /// [`Builder::durability`] says otherwise. [`Append`] can do more: several events, expectations, keys.
    ///
    /// # Errors
    ///
    /// As [`Append::commit`].
    pub fn append<A, E>(&self, address: A, event: &E) -> Result<Appended, Error>
    where
        A: TryInto<Coordinate, Error: Into<Error>>,
        E: EventData + ?Sized,
    {
        Append::to(address).event(event).commit(self)
    }

    /// The event with this id, if it exists.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), [`ErrorKind::Io`](crate::ErrorKind::Io),
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn get(&self, id: EventId) -> Result<Option<RecordedEvent>, Error> {
        reader::event_with(&self.engine().snapshot()?, id)
    }

    /// The event at this position, if it exists.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub fn at(&self, position: Position) -> Result<Option<RecordedEvent>, Error> {
        reader::event_at(&self.engine().snapshot()?, position)
    }

    /// Reads the events a query matches, oldest first by default.
    pub fn read(&self, query: Query) -> Read {
        Read::new(self.engine().readable(), query)
    }

    /// Reads the events of one entity: `read(Query::entity(..))`.
    pub fn stream(&self, entity: impl Into<String>) -> Read {
        self.read(Query::entity(entity))
    }

    /// Follows the events a query matches: the existing ones, then new ones, without a gap. [`Subscription`]
    /// says where to begin and how to wait.
    pub fn subscribe(&self, query: Query) -> Subscription {
        self.engine().subscribe(query)
    }

    /// Lossy hints about new events that a query matches. They cost the writer about a microsecond for each
    /// match. [`Store::subscribe`] loses nothing.
    pub fn notifications(&self, query: Query) -> Notifications {
        self.engine().notifications(query)
    }

    /// The current version of an entity's stream; [`Version::EMPTY`] if it has no events.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn version(&self, entity: &str) -> Result<Version, Error> {
        Ok(self.engine().snapshot()?.stream_head(entity)?.0)
    }

    /// The newest position that can be read, with the chain hash there. Kept elsewhere, the head later proves
    /// that nothing before it was changed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn head(&self) -> Result<Head, Error> {
        Ok(Head::new(self.engine().snapshot()?.head, self.engine().store_id))
    }

    /// The newest position that survives a power cut. It equals the head, unless appends are
    /// [`Durability::Buffered`](crate::Durability::Buffered).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn durable_head(&self) -> Result<Head, Error> {
        Ok(Head::new(self.engine().snapshot()?.durable, self.engine().store_id))
    }

    /// Makes everything acknowledged so far durable, and returns the durable position.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::CommitUnknown`](crate::ErrorKind::CommitUnknown): the sync failed.
    /// - [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned): an earlier write or sync failed.
    /// - [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn sync(&self) -> Result<Position, Error> {
        self.engine().sync()
    }

    /// What is known of the store's writer.
    ///
    /// # Errors
    ///
    /// In a store that is open for reading: [`ErrorKind::Io`](crate::ErrorKind::Io),
    /// [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack).
    pub fn writer(&self) -> Result<WriterState, Error> {
        self.engine().writer()
    }

    /// What opening found and did.
    #[must_use]
    pub fn open_report(&self) -> &OpenReport {
        &self.engine().report
    }

    /// The store's counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let scrub = self.core.scrub.lock().clone();
        let compactions = self.core.compactions.lock().clone();
        Stats { cache: self.cache().stats(), scrub, compactions, ..self.engine().stats() }
    }

    /// Closes the store for all its handles: writes and syncs what was accepted, and ends the writer. Reads
    /// that have begun go on; new calls get `Closed`.
    ///
    /// Opening after a clean close, k durable appends one after the other, and closing cost k + 1 syncs.
    ///
    /// # Errors
    ///
    /// Those that keep the last accepted events from being durable;
    /// [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned) if an earlier write or sync failed.
    pub fn close(self) -> Result<(), Error> {
        self.core.close()
    }
}

/// Questions that the index answers.
impl Store {
    /// How many events a query matches.
    ///
    /// Reads no event, save one for each correlation in the query. A query for one term (an entity, a kind, a
    /// tag) costs the same for any number of events. Several terms, or queries joined by [`Query::or`], cost
    /// in proportion to the rarest term.
    ///
    /// ```
    /// use annals::{Query, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// store.append("order:1", &Raw("order.placed", &()))?;
    /// store.append("order:2", &Raw("order.placed", &()))?;
    /// store.append("order:1", &Raw("order.paid", &()))?;
    /// assert_eq!(store.count(Query::all().kind("order.placed"))?, 2);
    /// assert_eq!(store.count(Query::entity("order:1").kind("order.shipped"))?, 0);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed); for a correlation also the errors of [`Store::get`].
    pub fn count(&self, query: Query) -> Result<u64, Error> {
        let snapshot = self.engine().snapshot()?;
        reader::count_in(&snapshot, &query, Position::START, snapshot.head.position)
    }

    /// The newest event a query matches, or `None`. Reads only that event.
    ///
    /// ```
    /// use annals::{Query, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// store.append("order:1", &Raw("order.placed", &"a book"))?;
    /// store.append("order:1", &Raw("order.paid", &20))?;
    /// let last = store.last(Query::entity("order:1"))?.unwrap();
    /// assert_eq!(last.kind(), "order.paid");
    /// assert!(store.last(Query::entity("order:1").kind("order.shipped"))?.is_none());
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub fn last(&self, query: Query) -> Result<Option<RecordedEvent>, Error> {
        reader::last(&self.engine().snapshot()?, &query)
    }

    /// Whether any event matches a query. Reads no event, save one for each correlation in the query.
    ///
    /// Another append may come between the answer and the caller's own append. To append only if there is no
    /// match, use [`AppendCondition`](crate::AppendCondition).
    ///
    /// ```
    /// use annals::{Query, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// store.append("user:1", &Raw("user.registered", &"alice@example.org"))?;
    /// assert!(store.exists(Query::entity("user:1"))?);
    /// assert!(!store.exists(Query::entity("user:2"))?);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Store::count`].
    pub fn exists(&self, query: Query) -> Result<bool, Error> {
        reader::exists(&self.engine().snapshot()?, &query)
    }

    /// All entities, each with its number of events and its first and last position.
    ///
    /// ```
    /// use annals::{Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// store.append("order:1", &Raw("order.placed", &()))?;
    /// store.append("order:1", &Raw("order.paid", &()))?;
    /// let order = store.entities().next().unwrap()?;
    /// assert_eq!((order.name.as_str(), order.events, order.last.get()), ("order:1", 2, 2));
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn entities(&self) -> Listing {
        Listing::new(self.engine().readable(), NameField::Entity)
    }

    /// All scopes, as [`Store::entities`]. Events without a scope are in `default`.
    ///
    /// ```
    /// use annals::{Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// store.append("order:1", &Raw("order.placed", &()))?;
    /// store.append(("order:2", "tenant:acme"), &Raw("order.placed", &()))?;
    /// let names = store.scopes().map(|scope| Ok(scope?.name));
    /// let names: Vec<String> = names.collect::<Result<_, annals::Error>>()?;
    /// assert_eq!(names, ["default", "tenant:acme"]);
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn scopes(&self) -> Listing {
        Listing::new(self.engine().readable(), NameField::Scope)
    }

    /// All kinds, as [`Store::entities`].
    ///
    /// ```
    /// use annals::{Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// store.append("order:1", &Raw("order.placed", &()))?;
    /// store.append("order:2", &Raw("order.placed", &()))?;
    /// let placed = store.kinds().prefix("order.").next().unwrap()?;
    /// assert_eq!((placed.name.as_str(), placed.events), ("order.placed", 2));
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn kinds(&self) -> Listing {
        Listing::new(self.engine().readable(), NameField::Kind)
    }

    /// All tags, as [`Store::entities`].
    ///
    /// ```
    /// use annals::{Append, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// Append::to("course:1").event(&Raw("student.enrolled", &())).tag("student:7").commit(&store)?;
    /// assert_eq!(store.tags().next().unwrap()?.name, "student:7");
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn tags(&self) -> Listing {
        Listing::new(self.engine().readable(), NameField::Tag)
    }
}

/// Queries by cause and correlation.
impl Store {
    /// The causes of an event, nearest first. Empty if no event has this id.
    pub fn ancestors(&self, id: EventId) -> Ancestors {
        Ancestors::new(self.engine().readable(), id)
    }

    /// The events that an event caused, directly or through others, in order of position. Empty if no event
    /// has this id.
    ///
    /// Costs the returned events, times the segments asked for each.
    pub fn descendants(&self, id: EventId) -> Descendants {
        Descendants::new(self.engine().readable(), id)
    }

    /// The events of a correlation as a tree by cause, at most the first 10,000; [`Story::is_cut`] says if
    /// there are more. Without events the story is empty.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub fn story(&self, correlation: EventId) -> Result<Story, Error> {
        self.story_limited(correlation, story::EVENTS_MAX)
    }

    /// As [`Store::story`], with at most this many events. All of them stay in memory, with the blocks they
    /// were read in.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub fn story_limited(&self, correlation: EventId, events: u64) -> Result<Story, Error> {
        Story::read(self.engine().readable(), correlation, events)
    }

    /// An event with its causes in the same entity, oldest first. In an entity whose events branch, this is
    /// the way from the root to one leaf. Empty if no event has this id.
    ///
    /// An event names its cause with [`Cause::Event`](crate::Cause::Event), by the id that the store gave or
    /// by the foreign id. The path ends before a cause in another entity.
    ///
    /// ```
    /// use annals::{Append, Cause, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// let say = |text: &str, parent: Option<annals::EventId>| {
    ///     let append = Append::to("chat:1").event(&Raw("said", &text));
    ///     let append = parent.into_iter().map(Cause::Event).fold(append, Append::cause);
    ///     append.commit(&store).map(|receipt| receipt.ids().next().unwrap())
    /// };
    /// let question = say("question", None)?;
    /// say("an answer", Some(question))?;
    /// let other = say("another answer", Some(question))?;
    /// let path = store.path(other)?;
    /// let texts: Vec<&str> = path.iter().map(|event| event.decode()).collect::<Result<_, _>>()?;
    /// assert_eq!(texts, ["question", "another answer"]);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub fn path(&self, leaf: EventId) -> Result<Vec<RecordedEvent>, Error> {
        causality::path(self.engine().readable(), leaf)
    }

    /// The ids of an entity's leaves, oldest first: the events that no other event of the entity names as its
    /// cause. In a conversation that was continued from earlier points, the leaves are the ends of the
    /// branches. [`Store::path`] leads to each. Events that cause one another in a circle have no leaf.
    ///
    /// An event without a cause continues nothing, not even the event before it. Say
    /// [`Cause::PreviousInStream`](crate::Cause::PreviousInStream) where it does. Reads the entity's events
    /// once, and looks up the cause of each.
    ///
    /// ```
    /// use annals::{Append, Cause, EventId, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// let say = |text: &str, cause: Cause| -> Result<EventId, annals::Error> {
    ///     let receipt = Append::to("chat:1").event(&Raw("said", &text)).cause(cause).commit(&store)?;
    ///     Ok(receipt.ids().next().unwrap())
    /// };
    /// let question = say("question", Cause::PreviousInStream)?;
    /// let answer = say("answer", Cause::PreviousInStream)?;
    /// let other = say("another answer", Cause::Event(question))?;
    /// let thanks = say("thanks", Cause::PreviousInStream)?;
    /// assert_eq!(store.leaves("chat:1")?, [answer, thanks]);
    /// let path = store.path(thanks)?;
    /// assert_eq!(path.iter().map(|event| event.id()).collect::<Vec<_>>(), [question, other, thanks]);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub fn leaves(&self, entity: &str) -> Result<Vec<EventId>, Error> {
        causality::leaves(self.engine().readable(), entity)
    }
}
