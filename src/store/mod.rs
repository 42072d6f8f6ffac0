//! The facade: a handle that delegates, and (builder.rs) what opens it.
//!
//! Row: store. No logic lives here.

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
use crate::engine::{Append, Ticket};
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
pub(crate) use registry::{NameLease, Pace, RunnerCommand, RunnerState, Trouble};
pub(crate) use state_cache::{
    AnyState, Folded, Key, KnownState, ModelLease, Reached, Reservation, Reserve, Saving, Shape, StateOrigin,
};

/// A store of events: one directory, one writer.
///
/// Clones are cheap handles to the same store, for any thread. When the last one is dropped,
/// everything accepted is written, made durable, and the writer thread ends; [`Store::close`] does
/// the same and says if something failed.
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
    /// Of the application's handles; threads of our own have none.
    _keeper: Option<Arc<CloseOnDrop>>,
}

impl Store {
    /// Opens the store in a directory, and creates it if there is none.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Locked`](crate::ErrorKind::Locked): it is open for writing elsewhere.
    /// - [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt): acknowledged data is damaged, or a sealed
    ///   segment is missing, too short, too long or another one; nothing was changed.
    /// - [`ErrorKind::Unsafe`](crate::ErrorKind::Unsafe): others may write to the directory, or
    ///   something in it is not a file of ours.
    /// - [`ErrorKind::NeedsNewer`](crate::ErrorKind::NeedsNewer),
    ///   [`ErrorKind::NoSpace`](crate::ErrorKind::NoSpace), [`ErrorKind::Io`](crate::ErrorKind::Io).
    pub fn open(path: impl AsRef<Path>) -> Result<Store, Error> {
        Store::builder(path).open()
    }

    /// Opens the store in a directory to read it, and writes nothing. Beside a living writer, in this or
    /// another process, it shows what that one has made durable, and goes along as more comes.
    ///
    /// # Errors
    ///
    /// As [`Store::open`], without `Locked`; [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if
    /// there is no store.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Store, Error> {
        Store::builder(path).open_read_only()
    }

    /// A new store in memory, gone when the last handle is.
    ///
    /// # Errors
    ///
    /// Only if the operating system has no thread or no randomness to give.
    pub fn in_memory() -> Result<Store, Error> {
        Store::on(MemDisk::new()).open()
    }

    /// Sets options before opening a directory.
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder::of_directory(path.as_ref())
    }

    /// Sets options before opening a store on a [`Disk`] of your own.
    pub fn on(disk: impl Disk) -> Builder {
        Builder::of_disk(Arc::new(disk))
    }

    /// Appends one event to an entity, and returns once it is acknowledged: durable, unless the
    /// store was told otherwise. [`Append`] has everything else: several events, expectations, keys.
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

    /// The event with this id, if there is one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), [`ErrorKind::Io`](crate::ErrorKind::Io),
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn get(&self, id: EventId) -> Result<Option<RecordedEvent>, Error> {
        reader::event_with(&self.engine().snapshot()?, id)
    }

    /// The event at this position, if there is one.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub fn at(&self, position: Position) -> Result<Option<RecordedEvent>, Error> {
        reader::event_at(&self.engine().snapshot()?, position)
    }

    /// Reads the events a query matches, oldest first unless told otherwise.
    pub fn read(&self, query: Query) -> Read {
        Read::new(self.engine().readable(), query)
    }

    /// Reads the events of one entity: `read(Query::entity(..))`.
    pub fn stream(&self, entity: impl Into<String>) -> Read {
        self.read(Query::entity(entity))
    }

    /// Follows the events a query matches: those that are there, then those that come, without a
    /// gap. See [`Subscription`] for where to begin and how to wait.
    pub fn subscribe(&self, query: Query) -> Subscription {
        self.engine().subscribe(query)
    }

    /// Lossy hints about the events a query matches that are appended from now on. They cost the
    /// writer about a microsecond for each that matches; [`Store::subscribe`] loses nothing.
    pub fn notifications(&self, query: Query) -> Notifications {
        self.engine().notifications(query)
    }

    /// The version an entity's stream is at; [`Version::EMPTY`] if it has no events.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn version(&self, entity: &str) -> Result<Version, Error> {
        Ok(self.engine().snapshot()?.stream_head(entity)?.0)
    }

    /// The newest position that can be read, with the chain hash there. Printed and kept
    /// elsewhere, it later proves that nothing before it was changed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn head(&self) -> Result<Head, Error> {
        Ok(Head::new(self.engine().snapshot()?.head, self.engine().store_id))
    }

    /// The newest position that survives a power cut; the same as the head unless appends are
    /// [`Durability::Buffered`](crate::Durability::Buffered).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn durable_head(&self) -> Result<Head, Error> {
        Ok(Head::new(self.engine().snapshot()?.durable, self.engine().store_id))
    }

    /// Makes everything acknowledged so far durable, and says up to where that is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::CommitUnknown`](crate::ErrorKind::CommitUnknown) if the sync failed,
    /// [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned) if an earlier one did,
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn sync(&self) -> Result<Position, Error> {
        self.engine().sync()
    }

    /// What can be known of the store's writer.
    ///
    /// # Errors
    ///
    /// In a store opened to read: [`ErrorKind::Io`](crate::ErrorKind::Io),
    /// [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack).
    pub fn writer(&self) -> Result<WriterState, Error> {
        self.engine().writer()
    }

    /// What opening found and did.
    #[must_use]
    pub fn open_report(&self) -> &OpenReport {
        &self.engine().report
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let scrub = self.core.scrub.lock().clone();
        let compactions = self.core.compactions.lock().clone();
        Stats { cache: self.cache().stats(), scrub, compactions, ..self.engine().stats() }
    }

    /// Closes the store for all its handles: writes and syncs what was accepted, and ends the
    /// writer. Reads that began go on; everything new answers `Closed`.
    ///
    /// # Errors
    ///
    /// Whatever keeps the last accepted events from being durable, and
    /// [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned) if something failed before.
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
    /// Appends, and returns once it is acknowledged.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Conflict`](crate::ErrorKind::Conflict): a stream is not as expected. Read what
    ///   is new and decide again.
    /// - [`ErrorKind::KeyReused`](crate::ErrorKind::KeyReused): the key belongs to another append.
    /// - [`ErrorKind::Denied`](crate::ErrorKind::Denied): a [`Gate`] does not let it pass.
    /// - [`ErrorKind::Invalid`](crate::ErrorKind::Invalid),
    ///   [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge): fix the call.
    /// - [`ErrorKind::Busy`](crate::ErrorKind::Busy), [`ErrorKind::NoSpace`](crate::ErrorKind::NoSpace):
    ///   nothing was written, try again later.
    /// - [`ErrorKind::CommitUnknown`](crate::ErrorKind::CommitUnknown): it may have been written; read
    ///   back, or retry with a key.
    /// - [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned), [`ErrorKind::Closed`](crate::ErrorKind::Closed):
    ///   open the store again.
    pub fn commit(self, store: &Store) -> Result<Appended, Error> {
        store.engine().commit(store.admit(self)?)
    }

    /// Hands the append to the writer and returns at once, unless the queue is full: then it waits.
    ///
    /// # Errors
    ///
    /// Those of [`Append::commit`] that show before the writer has it.
    pub fn submit(self, store: &Store) -> Result<Ticket, Error> {
        store.engine().submit(store.admit(self)?, true)
    }

    /// Like [`Append::submit`], but says [`ErrorKind::Busy`](crate::ErrorKind::Busy) if the queue is full.
    ///
    /// # Errors
    ///
    /// As [`Append::submit`].
    pub fn try_submit(self, store: &Store) -> Result<Ticket, Error> {
        store.engine().submit(store.admit(self)?, false)
    }
}
