//! The facade: a handle that delegates, and the builder that opens it.
//!
//! Row: store. No logic lives here.

mod ask;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::append::Append;
use crate::coordinate::Coordinate;
use crate::disk::{Disk, MemDisk, OsDisk};
use crate::engine::Engine;
use crate::error::Error;
use crate::event::{EventData, EventId};
use crate::head::Head;
use crate::ops::verify;
use crate::options::{Durability, KeyWindow, Limits, Options};
use crate::query::Query;
use crate::reader::{self, Read};
use crate::receipt::Appended;
use crate::recorded::RecordedEvent;
use crate::report::{OpenReport, Stats, VerifyReport};
use crate::ticket::Ticket;
use crate::version::{Position, Version};

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
    engine: Arc<Engine>,
}

impl Store {
    /// Opens the store in a directory, and creates it if there is none.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Locked`](crate::ErrorKind::Locked): it is open for writing elsewhere.
    /// - [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt): acknowledged data is damaged; nothing
    ///   was changed.
    /// - [`ErrorKind::Unsafe`](crate::ErrorKind::Unsafe): others may write to the directory, or
    ///   something in it is not a file of ours.
    /// - [`ErrorKind::NeedsNewer`](crate::ErrorKind::NeedsNewer),
    ///   [`ErrorKind::NoSpace`](crate::ErrorKind::NoSpace), [`ErrorKind::Io`](crate::ErrorKind::Io).
    pub fn open(path: impl AsRef<Path>) -> Result<Store, Error> {
        Store::builder(path).open()
    }

    /// Opens the store in a directory to read it, and writes nothing. Beside a living writer it
    /// shows what is durable at this moment; it does not follow.
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
        Builder::new(Place::Directory { path: path.as_ref().to_owned(), shared: false })
    }

    /// Sets options before opening a store on a [`Disk`] of your own.
    pub fn on(disk: impl Disk) -> Builder {
        Builder::new(Place::Disk(Arc::new(disk)))
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
        reader::event_with(&self.engine.snapshot()?, id)
    }

    /// The event at this position, if there is one.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub fn at(&self, position: Position) -> Result<Option<RecordedEvent>, Error> {
        reader::event_at(&self.engine.snapshot()?, position)
    }

    /// Reads the events a query matches, oldest first unless told otherwise.
    pub fn read(&self, query: Query) -> Read {
        Read::new(self.engine.readable(), query)
    }

    /// Reads the events of one entity: `read(Query::entity(..))`.
    pub fn stream(&self, entity: impl Into<String>) -> Read {
        self.read(Query::entity(entity))
    }

    /// The version an entity's stream is at; [`Version::EMPTY`] if it has no events.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn version(&self, entity: &str) -> Result<Version, Error> {
        Ok(self.engine.snapshot()?.stream_head(entity).0)
    }

    /// The newest position that can be read, with the chain hash there. Printed and kept
    /// elsewhere, it later proves that nothing before it was changed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn head(&self) -> Result<Head, Error> {
        Ok(Head::new(self.engine.snapshot()?.head, self.engine.store_id))
    }

    /// The newest position that survives a power cut; the same as the head unless appends are
    /// [`Durability::Buffered`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn durable_head(&self) -> Result<Head, Error> {
        Ok(Head::new(self.engine.snapshot()?.durable, self.engine.store_id))
    }

    /// Makes everything acknowledged so far durable, and says up to where that is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::CommitUnknown`](crate::ErrorKind::CommitUnknown) if the sync failed,
    /// [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned) if an earlier one did,
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn sync(&self) -> Result<Position, Error> {
        self.engine.sync()
    }

    /// Reads the whole store and checks it: checksums, the hash chain, positions, versions, seals.
    /// Finds all breaks, not only the first. Takes about a second per gigabyte and core.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if a file cannot be read; damage is not an error but
    /// in the report.
    pub fn verify(&self) -> Result<VerifyReport, Error> {
        verify::verify_open(&self.engine.snapshot()?)
    }

    /// What opening found and did.
    #[must_use]
    pub fn open_report(&self) -> &OpenReport {
        &self.engine.report
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Closes the store for all its handles: writes and syncs what was accepted, and ends the
    /// writer. Reads that began go on; everything new answers `Closed`.
    ///
    /// # Errors
    ///
    /// Whatever keeps the last accepted events from being durable, and
    /// [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned) if something failed before.
    pub fn close(self) -> Result<(), Error> {
        self.engine.close()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("head", &self.engine.view.snapshot().head.position.get())
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
    /// - [`ErrorKind::Invalid`](crate::ErrorKind::Invalid),
    ///   [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge): fix the call.
    /// - [`ErrorKind::Busy`](crate::ErrorKind::Busy), [`ErrorKind::NoSpace`](crate::ErrorKind::NoSpace):
    ///   nothing was written, try again later.
    /// - [`ErrorKind::CommitUnknown`](crate::ErrorKind::CommitUnknown): it may have been written; read
    ///   back, or retry with a key.
    /// - [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned), [`ErrorKind::Closed`](crate::ErrorKind::Closed):
    ///   open the store again.
    pub fn commit(self, store: &Store) -> Result<Appended, Error> {
        let ticket = store.engine.submit(self, true)?;
        store.engine.wait(ticket)
    }

    /// Hands the append to the writer and returns at once, unless the queue is full: then it waits.
    ///
    /// # Errors
    ///
    /// Those of [`Append::commit`] that show before the writer has it.
    pub fn submit(self, store: &Store) -> Result<Ticket, Error> {
        store.engine.submit(self, true)
    }

    /// Like [`Append::submit`], but says [`ErrorKind::Busy`](crate::ErrorKind::Busy) if the queue is full.
    ///
    /// # Errors
    ///
    /// As [`Append::submit`].
    pub fn try_submit(self, store: &Store) -> Result<Ticket, Error> {
        store.engine.submit(self, false)
    }
}

enum Place {
    Directory { path: PathBuf, shared: bool },
    Disk(Arc<dyn Disk>),
}

/// Options for opening a store. Each has a default that suits most; each says what it trades.
///
/// ```
/// use std::time::Duration;
/// use annals::{Durability, Store};
///
/// let disk = annals::disk::MemDisk::new();
/// let store = Store::on(disk)
///     .durability(Durability::Buffered { flush_every: Duration::from_millis(100) })
///     .segment_bytes_max(16 << 20)
///     .open()?;
/// # Ok::<(), annals::Error>(())
/// ```
#[must_use = "a builder opens nothing until it is told to"]
pub struct Builder {
    place: Place,
    options: Options,
}

impl Builder {
    fn new(place: Place) -> Builder {
        Builder { place, options: Options::default() }
    }

    /// When appends are acknowledged, unless they say otherwise (default: [`Durability::Synced`]).
    pub fn durability(mut self, durability: Durability) -> Builder {
        self.options.durability = durability;
        self
    }

    /// The largest things the store takes (default: [`Limits::default`]).
    pub fn limits(mut self, limits: Limits) -> Builder {
        self.options.limits = limits;
        self
    }

    /// How far back idempotency keys are recognised (default: 1,048,576 positions). A key costs
    /// about 60 bytes of memory while it is.
    pub fn key_window(mut self, window: KeyWindow) -> Builder {
        self.options.key_window = window;
        self
    }

    /// Where a segment file ends and the next begins (default: 64 MiB; at least one append, at most
    /// 1 GiB). Small segments make many files, large ones make a damaged or torn one cost more.
    pub fn segment_bytes_max(mut self, bytes: u32) -> Builder {
        self.options.segment_bytes_max = bytes.min(1 << 30);
        self
    }

    /// How much may be written but not synced (default: 32 MiB). Also the largest append. It is
    /// fixed in a segment when that is created; damage further out than this is never taken for a
    /// torn tail.
    pub fn unsynced_bytes_max(mut self, bytes: u32) -> Builder {
        self.options.unsynced_bytes_max = bytes.into();
        self
    }

    /// How many appends share a sync at most (default: 1,024).
    pub fn group_commands_max(mut self, commands: usize) -> Builder {
        self.options.group_commands_max = commands.max(1);
        self
    }

    /// How many bytes share a sync at most (default: 4 MiB). More delays the first of a group.
    pub fn group_bytes_max(mut self, bytes: usize) -> Builder {
        self.options.group_bytes_max = bytes;
        self
    }

    /// How many appends wait for the writer at most (default: 4,096).
    pub fn queue_commands_max(mut self, commands: usize) -> Builder {
        self.options.queue_commands_max = commands.max(1);
        self
    }

    /// How many bytes wait for the writer at most (default: 64 MiB). One append always may.
    pub fn queue_bytes_max(mut self, bytes: usize) -> Builder {
        self.options.queue_bytes_max = bytes;
        self
    }

    /// How long an append waits for a place in the queue before it gives up with
    /// [`ErrorKind::Busy`](crate::ErrorKind::Busy) (default: as long as it takes).
    pub fn queue_deadline(mut self, deadline: Duration) -> Builder {
        self.options.queue_deadline = Some(deadline);
        self
    }

    /// How long [`Append::commit`] waits for the acknowledgement before it gives up with
    /// [`ErrorKind::CommitUnknown`](crate::ErrorKind::CommitUnknown) (default: as long as it takes).
    pub fn ack_deadline(mut self, deadline: Duration) -> Builder {
        self.options.ack_deadline = Some(deadline);
        self
    }

    /// How often a full disk is tried again (default: 100 ms). Appends in between are refused with
    /// [`ErrorKind::NoSpace`](crate::ErrorKind::NoSpace) at once.
    pub fn space_probe_every(mut self, interval: Duration) -> Builder {
        self.options.space_probe_every = interval;
        self
    }

    /// The clock that stamps recorded-at (default: [`SystemTime::now`]). Called on the writer
    /// thread, once per group.
    pub fn clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Builder {
        self.options.clock = Arc::new(clock);
        self
    }

    /// Opens even if others may write to the directory (default: refused). They can then delete or
    /// replace the store's files.
    pub fn allow_shared_directory(mut self) -> Builder {
        if let Place::Directory { shared, .. } = &mut self.place {
            *shared = true;
        }
        self
    }

    /// Opens the store; see [`Store::open`].
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn open(self) -> Result<Store, Error> {
        self.open_within(Duration::ZERO)
    }

    /// Opens the store; waits up to this long for another writer to close it.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn open_within(self, wait: Duration) -> Result<Store, Error> {
        self.options.limits.check()?;
        let disk = self.place.disk(true)?;
        Ok(Store { engine: Arc::new(Engine::open(disk, self.options, wait)?) })
    }

    /// Opens the store to read; see [`Store::open_read_only`].
    ///
    /// # Errors
    ///
    /// As [`Store::open_read_only`].
    pub fn open_read_only(self) -> Result<Store, Error> {
        let disk = self.place.disk(false)?;
        Ok(Store { engine: Arc::new(Engine::open_read_only(disk, self.options)?) })
    }

    /// Checks a store that need not open: all files, all breaks. Changes nothing. Nobody should
    /// write to the store meanwhile.
    ///
    /// # Errors
    ///
    /// As [`Store::verify`].
    pub fn verify(self) -> Result<VerifyReport, Error> {
        verify::verify_files(self.place.disk(false)?.as_ref())
    }
}

impl Place {
    fn disk(self, create: bool) -> Result<Arc<dyn Disk>, Error> {
        match self {
            Place::Disk(disk) => Ok(disk),
            Place::Directory { path, shared } => {
                let opened = match (create, shared) {
                    (true, true) => OsDisk::create_shared(&path),
                    (true, false) => OsDisk::create(&path),
                    (false, true) => OsDisk::open_shared(&path),
                    (false, false) => OsDisk::open(&path),
                };
                let opened = opened.map_err(|error| match error.kind() {
                    std::io::ErrorKind::NotFound if !create => Error::no_store(),
                    _ => Error::io("cannot open", &path.display().to_string(), error),
                });
                Ok(Arc::new(opened?))
            }
        }
    }
}
