//! The facade: a handle that delegates, and (builder.rs) what opens it.
//!
//! Row: store. No logic lives here.

mod archive;
mod ask;
mod builder;
mod compaction;
mod core;
mod decision_queue;
mod environment;
mod gate;
#[cfg(feature = "jsonl")]
mod jsonl;
mod policy;
mod registry;
mod rewrite;
mod state_cache;
#[cfg(test)]
mod tests;
mod verify;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, MemDisk};
use crate::engine::{Append, Handover, Ticket};
use crate::event::{Appended, RecordedEvent};
use crate::maintenance::{Verify, describe, reindex};
use crate::read::{Notifications, Read, Subscription, reader};
use crate::types::{
    Coordinate, Description, Error, EventData, EventId, Head, IndexProgress, OpenReport, Position, Query,
    Stats, VerifyReport, Version, WriterState,
};

pub use archive::{StoreCopy, restore, verify_backup};
pub use builder::Builder;
pub use compaction::Compaction;
pub(crate) use core::WeakStore;
use core::{Core, Keeper};
pub use gate::{Gate, GateDecision};
#[cfg(feature = "jsonl")]
pub use jsonl::{
    Export, ExportProgress, Exported, Import, ImportProgress, Imported, Mapping, TimeForm, Timestamp,
};
pub(crate) use policy::Policy;
pub(crate) use registry::{NameLease, Pace, RunnerCommand, RunnerState, Trouble};
pub(crate) use state_cache::{
    Erased, Folded, Key, Known, ModelLease, Reached, Reservation, Reserve, Saving, Shape, Source,
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
    _keeper: Option<Arc<Keeper>>,
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

    /// Reads the whole store and checks it: checksums, the hash chain, positions, versions, seals.
    /// Finds all breaks, not only the first. Takes about a second per gigabyte and core.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if a file cannot be read; damage is not an error but
    /// in the report.
    pub fn verify(&self) -> Result<VerifyReport, Error> {
        Verify::new().run(self)
    }

    /// Builds the index file of every sealed segment again, whatever there is of it, and says how many that were.
    /// Never needed for what a store answers: an index that is missing or damaged is built by whoever needs it.
    /// This has them all built now. Readers and appends go on meanwhile.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use annals::{Raw, Store, disk::MemDisk};
    ///
    /// let store = Store::on(MemDisk::new()).segment_bytes_max(400).open()?;
    /// for n in 0..10 {
    ///     store.append("sensor:7", &Raw("sensor.read", &n))?;
    /// }
    /// let built = store.rebuild_indexes(|progress| {
    ///     println!("{} of {} bytes, {:?} left", progress.bytes, progress.bytes_total, progress.remaining());
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!(built, store.stats().segments - 1);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the store was opened to read,
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if a segment is damaged,
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) if `tell` broke it off; those built by then are there.
    pub fn rebuild_indexes(
        &self,
        mut tell: impl FnMut(&IndexProgress) -> ControlFlow<()>,
    ) -> Result<usize, Error> {
        reindex(self.engine(), &mut tell)
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

    /// Where everything lives and why: files, sizes, options. For people; print it.
    ///
    /// ```
    /// let store = annals::Store::in_memory()?;
    /// let description = store.describe()?;
    /// assert!(description.parts.iter().any(|part| part.name == "segments" && part.files == 1));
    /// println!("{description}");
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io), [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn describe(&self) -> Result<Description, Error> {
        describe(self.engine())
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
        store.engine().submit(store.admit(self)?, Handover::Queue)
    }

    /// Like [`Append::submit`], but says [`ErrorKind::Busy`](crate::ErrorKind::Busy) if the queue is full.
    ///
    /// # Errors
    ///
    /// As [`Append::submit`].
    pub fn try_submit(self, store: &Store) -> Result<Ticket, Error> {
        store.engine().submit(store.admit(self)?, Handover::TryQueue)
    }
}
