//! The facade: [`Store`], the handle to an open store, and the methods that send an [`Append`].
//!
//! `builder.rs` opens stores, `core.rs` has what handles share, and the other files hold the public methods
//! by topic. The registry, the decision queue and the state cache serve `consume/` and `state/`.

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
mod queries;
mod registry;
mod state_cache;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, MemDisk};
use crate::engine::{Append, Handover, Ticket};
use crate::event::{Appended, RecordedEvent};
use crate::read::{Notifications, Read, Subscription, reader};
use crate::types::{
    Coordinate, Error, EventData, EventId, Head, OpenReport, Position, Query, Stats, Version, WriterState,
};

pub use builder::Builder;
pub use compaction::Compaction;
pub use copies::{StoreCopy, restore};
pub(crate) use core::WeakStore;
use core::{CloseOnDrop, Core};
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

/// A store of events: one directory, one writer.
///
/// Clones are cheap handles to the same store, for any thread. When the last one is dropped, everything
/// accepted is written and made durable, and the writer thread ends. [`Store::close`] does the same and
/// reports errors.
///
/// ```
/// use annals::{Raw, Store};
///
/// # let path = std::env::temp_dir().join(format!("annals-doc-store-{}", std::process::id()));
/// let store = Store::open(&path)?;
/// store.append("account:alice", &Raw("account.deposited", &500))?;
/// for event in store.stream("account:alice") {
///     println!("{:?}", event?);
/// }
/// # store.close()?;
/// # std::fs::remove_dir_all(path).unwrap();
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone)]
pub struct Store {
    core: Arc<Core>,
    /// Set in the application's handles, `None` in those of the store's own threads.
    _close_on_drop: Option<Arc<CloseOnDrop>>,
}

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

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("head", &self.engine().view.snapshot().head.position.get())
            .finish_non_exhaustive()
    }
}

impl Append {
    /// Sends the append, and returns once it is acknowledged.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Conflict`](crate::ErrorKind::Conflict): a stream is not as expected. Read the new
    ///   events and decide again.
    /// - [`ErrorKind::KeyReused`](crate::ErrorKind::KeyReused): the key belongs to another append.
    /// - [`ErrorKind::Denied`](crate::ErrorKind::Denied): a [`Gate`] denied the append.
    /// - [`ErrorKind::Invalid`](crate::ErrorKind::Invalid),
    ///   [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge): fix the call.
    /// - [`ErrorKind::Busy`](crate::ErrorKind::Busy), [`ErrorKind::NoSpace`](crate::ErrorKind::NoSpace):
    ///   nothing was written, try again later.
    /// - [`ErrorKind::CommitUnknown`](crate::ErrorKind::CommitUnknown): the append may have been written.
    ///   Read it back, or retry with a key.
    /// - [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned),
    ///   [`ErrorKind::Closed`](crate::ErrorKind::Closed): open the store again.
    pub fn commit(self, store: &Store) -> Result<Appended, Error> {
        store.engine().commit(store.admit(self)?)
    }

    /// Hands the append to the writer and returns at once. If the queue is full, it waits for a place.
    ///
    /// # Errors
    ///
    /// Those of [`Append::commit`] that arise before the writer has the append.
    pub fn submit(self, store: &Store) -> Result<Ticket, Error> {
        store.engine().submit(store.admit(self)?, Handover::Queue)
    }

    /// Like [`Append::submit`], but returns [`ErrorKind::Busy`](crate::ErrorKind::Busy) if the queue is full.
    ///
    /// # Errors
    ///
    /// As [`Append::submit`].
    pub fn try_submit(self, store: &Store) -> Result<Ticket, Error> {
        store.engine().submit(store.admit(self)?, Handover::TryQueue)
    }
}
