//! [`Store`], the handle to an open store; what all its handles share; and how an [`Append`] goes in through
//! a handle.
//!
//! A store is open as long as the application has a handle. The store's own threads hold a [`WeakStore`] and
//! upgrade it for as long as they use it. Such a handle keeps nothing open: when the application's last
//! handle is dropped, the store closes even if a thread is still at work.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::engine::{Append, Engine, Handover, Ticket};
use crate::event::Appended;
use crate::maintenance::scrub;
use crate::read::LogTree;
use crate::store::decision_queue::DecisionQueue;
use crate::store::registry::Registry;
use crate::store::state_cache::{Cache, CacheOwner};
use crate::types::{CompactionStats, Error};

/// Delays the first slice of scrubbing, so that it does not compete with the rest of opening.
const SCRUB_AFTER: Duration = Duration::from_millis(100);

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
    pub(super) core: Arc<Core>,
    /// Set in the application's handles, `None` in those of the store's own threads.
    _close_on_drop: Option<Arc<CloseOnDrop>>,
}

/// What all handles to a store share.
pub(super) struct Core {
    cache: Cache,
    pub(super) engine: Engine,
    /// `None` if the store has no gates.
    admission: Option<Admission>,
    decision_queue: DecisionQueue,
    pub(super) tree: LogTree,
    /// The consumers that run in this process.
    running: Arc<Registry>,
    /// The findings of background verifying.
    pub(super) scrub: scrub::SharedScrubStats,
    /// What each compaction policy has done, in the order in which the policies were added.
    pub(super) compactions: Mutex<Vec<CompactionStats>>,
}

/// Judges an append of the application, and returns the append that may be sent.
pub(super) type Admission = Box<dyn Fn(Append, &Store) -> Result<Append, Error> + Send + Sync>;

impl Core {
    /// Closes the store for all handles, and wakes all runners.
    pub(super) fn close(&self) -> Result<(), Error> {
        self.close_cache();
        let closed = self.engine.close();
        self.running.end();
        closed
    }

    /// Ends long jobs, then the cache. Must run before the engine gives up the lock: then the file belongs to
    /// the next writer.
    fn close_cache(&self) {
        self.engine.rewrite_thread.close();
        // States that are not durable are not saved. If the sync fails, closing the engine reports the error.
        self.cache.close(|| drop(self.engine.sync()));
    }
}

/// Shared by the application's handles: when the last of them is dropped, the store closes.
pub(super) struct CloseOnDrop(Arc<Core>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close_cache();
        self.0.engine.abandon();
        self.0.running.end();
    }
}

/// A handle that does not keep the store open.
#[derive(Clone)]
pub(crate) struct WeakStore(Weak<Core>);

impl WeakStore {
    /// The store, if it still exists; it may be closed. The result does not keep the store open either.
    pub(crate) fn upgrade(&self) -> Option<Store> {
        self.0.upgrade().map(|core| Store { core, _close_on_drop: None })
    }
}

impl Store {
    pub(super) fn around(engine: Engine, admission: Option<Admission>) -> Store {
        let options = &engine.options;
        // The file belongs to the writer. A reader has none.
        let file_bytes = if engine.is_read_only() { 0 } else { options.cache_disk_bytes };
        let owner = CacheOwner { store_id: engine.store_id, history: engine.view.history() };
        let disk = engine.disk.clone();
        let view = engine.view.clone();
        let background = engine.background.clone();
        let memory_bytes = options.cache_memory_bytes;
        let clock = options.clock.clone();
        let cache = Cache::new(memory_bytes, file_bytes, disk, owner, view, background, clock);
        let scrub = scrub::SharedScrubStats::default();
        if options.scrub_bytes_per_second > 0 && !engine.is_read_only() {
            let job = scrub::job(engine.view.clone(), options.scrub_bytes_per_second, scrub.clone());
            engine.background.run_in(SCRUB_AFTER, job);
        }
        let core = Arc::new(Core {
            cache,
            engine,
            admission,
            decision_queue: DecisionQueue::default(),
            tree: LogTree::default(),
            running: Arc::default(),
            scrub,
            compactions: Mutex::default(),
        });
        Store { _close_on_drop: Some(Arc::new(CloseOnDrop(core.clone()))), core }
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.core.cache
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.core.engine
    }

    pub(crate) fn decision_queue(&self) -> &DecisionQueue {
        &self.core.decision_queue
    }

    pub(crate) fn running(&self) -> &Arc<Registry> {
        &self.core.running
    }

    pub(crate) fn downgrade(&self) -> WeakStore {
        WeakStore(Arc::downgrade(&self.core))
    }

    /// Asks the gates about an append, and returns the append that may be sent.
    #[inline]
    fn admit(&self, append: Append) -> Result<Append, Error> {
        let Some(admission) = &self.core.admission else { return Ok(append) };
        admission(append, self)
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
    /// - [`ErrorKind::Denied`](crate::ErrorKind::Denied): a [`Gate`](crate::Gate) denied the append.
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
