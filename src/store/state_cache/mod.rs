//! The state cache: states that were folded before, the recent ones in memory, behind them a file.
//!
//! The cache knows no projection. A state is any value, with a [`Shape`] that says whose it is and how to
//! encode it. Every state may vanish at any time. The background thread saves states a while after they were
//! folded.
//!
//! - A state is present with the place up to which it was folded, or not at all.
//! - No state is saved that a power cut could take back from the log.

mod file;
mod memory;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::disk::Disk;
use crate::read::{LogView, Visibility};
use crate::threads::BackgroundThread;
use crate::types::{CacheStats, ClockFn, Error, Position, Version, check_visible, to_u64};

use file::CacheFile;
pub(crate) use memory::{AnyState, Folded, KnownState, Memory, Reached, Reservation, Reserve, Shape};
use memory::{Unsaved, WORTH_SAVING};
pub(crate) use table::{CacheOwner, Saving, StateKey};

/// How long a changed state waits before it is saved.
const SAVE_EVERY: Duration = Duration::from_millis(250);
/// How many states at most wait for their events to become durable.
const WAITING_MAX: usize = 1024;
/// About how many bytes one transaction saves.
const BATCH_BYTES: usize = 4 << 20;

/// Where a loaded state came from.
#[derive(Clone, Copy)]
pub(crate) enum StateOrigin {
    Memory,
    File,
    Log,
}

/// The cache of one store.
pub(crate) struct Cache {
    shared: Arc<CacheInner>,
    background: Arc<BackgroundThread>,
    /// The process that opened the store. A process forked from it has no background thread, and saves
    /// nothing.
    process: u32,
}

/// Ends a running read model. Must return within a bounded time.
pub(crate) type EndModel = Arc<dyn Fn() + Send + Sync>;

/// Exclusive use of a read model's name, and access to its saved state. Released on drop.
pub(crate) struct ModelLease {
    name: &'static str,
    shared: Arc<CacheInner>,
    may_save: bool,
}

struct CacheInner {
    memory: Memory,
    file: Option<CacheFile>,
    view: Arc<LogView>,
    /// The history from which the kept states were folded.
    history: AtomicU64,
    is_scheduled: AtomicBool,
    /// Encodable states whose events are not durable yet.
    waiting: Mutex<BTreeMap<StateKey, Unsaved>>,
    claims: Mutex<BTreeMap<&'static str, EndModel>>,
    counters: [AtomicU64; 5],
}

/// Indexes of the counters, behind those of [`StateOrigin`].
const SAVED: usize = 3;
const DROPPED: usize = 4;

impl Cache {
    /// A cache for one store. A file budget of 0 bytes means no file.
    pub(crate) fn new(
        memory_bytes: usize,
        file_bytes: u64,
        disk: Arc<dyn Disk>,
        owner: CacheOwner,
        view: Arc<LogView>,
        background: Arc<BackgroundThread>,
        clock: ClockFn,
    ) -> Cache {
        let file = (file_bytes > 0).then(|| CacheFile::new(disk, owner, file_bytes));
        let shared = CacheInner {
            memory: Memory::new(memory_bytes, owner.history, clock),
            file,
            view,
            history: AtomicU64::new(owner.history),
            is_scheduled: AtomicBool::new(false),
            waiting: Mutex::default(),
            claims: Mutex::default(),
            counters: Default::default(),
        };
        let shared = Arc::new(shared);
        Cache { shared, background, process: std::process::id() }
    }

    /// Forgets states of an earlier history. Callers pass the history of their snapshot before they trust a
    /// state.
    pub(crate) fn keep_up(&self, history: u64) {
        if self.shared.history.load(Ordering::Acquire) < history {
            self.shared.void(history);
        }
    }

    /// Forgets all states, in memory and in the file; also the file of an earlier process if this cache has
    /// none.
    ///
    /// # Errors
    ///
    /// Those of removing the file.
    pub(crate) fn void(&self, disk: &dyn Disk) -> Result<(), Error> {
        self.shared.void(self.shared.view.history());
        self.shared.file.as_ref().map_or_else(|| file::remove(disk), CacheFile::check_unused)
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.shared.memory
    }

    /// The saved state of an entity, if the stream is long enough for one.
    pub(crate) fn saved(&self, shape: &Shape, entity: &str, version: Version) -> Option<Folded<Vec<u8>>> {
        if version.get() < WORTH_SAVING {
            return None;
        }
        self.read(&StateKey::of_entity(shape.name, shape.revision, entity))
    }

    /// The state saved under a key.
    pub(crate) fn read(&self, key: &StateKey) -> Option<Folded<Vec<u8>>> {
        // A forked process must not touch the file: it belongs to the process that opened the store.
        let file = self.shared.file.as_ref().filter(|_| self.is_own_process())?;
        file.get(key)
    }

    /// Puts a state back into memory, and schedules saving it.
    pub(crate) fn fill(
        &self,
        reservation: Reservation<'_>,
        folded: Folded<AnyState>,
        seen: Position,
        history: u64,
    ) {
        if reservation.fill(folded, seen, history) && self.shared.file.is_some() && self.is_own_process() {
            self.schedule();
        }
    }

    pub(crate) fn count(&self, source: StateOrigin) {
        let place = match source {
            StateOrigin::Memory => 0,
            StateOrigin::File => 1,
            StateOrigin::Log => 2,
        };
        self.shared.counters[place].fetch_add(1, Ordering::Relaxed);
    }

    fn schedule(&self) {
        if !self.shared.is_scheduled.swap(true, Ordering::Relaxed) {
            let shared = self.shared.clone();
            self.background.run_in(SAVE_EVERY, Box::new(move || shared.save()));
        }
    }

    /// Leases a name for a read model. When the store is closed, `end` is called before the file is closed.
    pub(crate) fn claim(&self, name: &'static str, end: EndModel) -> Result<ModelLease, Error> {
        check_visible("name of the projection", name)?;
        let mut claims = self.shared.claims.lock();
        if claims.contains_key(name) {
            let text = format!("a projection named {name:?} runs on this store already; share its handle");
            return Err(Error::invalid(text));
        }
        claims.insert(name, end);
        Ok(ModelLease { name, shared: self.shared.clone(), may_save: self.is_own_process() })
    }

    /// Saves the remaining states, and closes. Calls `sync` to make the log durable, if states wait for that.
    pub(crate) fn close(&self, sync: impl FnOnce()) {
        if !self.is_own_process() {
            return;
        }
        let claims: Vec<EndModel> = self.shared.claims.lock().values().cloned().collect();
        claims.iter().for_each(|end| end());
        self.background.close();
        let Some(file) = &self.shared.file else { return };
        self.shared.save_all();
        if !self.shared.waiting.lock().is_empty() {
            sync();
            self.shared.save_all();
        }
        file.close();
    }

    fn is_own_process(&self) -> bool {
        self.process == std::process::id()
    }

    pub(crate) fn stats(&self) -> CacheStats {
        let [memory_hits, disk_hits, misses, saved, dropped] =
            [0, 1, 2, SAVED, DROPPED].map(|place| self.shared.counters[place].load(Ordering::Relaxed));
        let (states, bytes, dropped_from_memory) = self.shared.memory.held();
        let disk_bytes = self.shared.file.as_ref().map_or(0, CacheFile::bytes);
        CacheStats {
            memory_hits,
            disk_hits,
            misses,
            states,
            bytes,
            dropped: dropped_from_memory,
            saved,
            disk_bytes,
            disk_dropped: dropped,
        }
    }
}

impl ModelLease {
    /// Whether the event at a position survives a power cut.
    pub(crate) fn is_durable(&self, position: Position) -> bool {
        position <= self.shared.view.head_at(Visibility::Durable)
    }

    /// Saves one state that was folded from a history and removes others, in one transaction. The events of
    /// the state must be durable.
    pub(crate) fn save(&self, saving: Saving, removed: &[StateKey], history: u64) {
        if let Some(file) = self.file() {
            file.put(&[saving], removed, history);
        }
    }

    /// The current history revision.
    pub(crate) fn history(&self) -> u64 {
        self.shared.view.history()
    }

    /// Makes saved states durable once they have waited long enough. Returns the time left to wait.
    pub(crate) fn sync_if_due(&self) -> Option<Duration> {
        self.file().and_then(CacheFile::sync_if_due)
    }

    /// Whether there is a file to save to.
    pub(crate) fn has_file(&self) -> bool {
        self.file().is_some()
    }

    fn file(&self) -> Option<&CacheFile> {
        self.shared.file.as_ref().filter(|_| self.may_save)
    }
}

impl Drop for ModelLease {
    fn drop(&mut self) {
        self.shared.claims.lock().remove(self.name);
    }
}

impl CacheInner {
    fn void(&self, history: u64) {
        // `save_all` holds this lock while it takes states out of memory, so no state of the old history
        // slips through.
        let mut waiting = self.waiting.lock();
        if self.history.load(Ordering::Acquire) > history {
            return;
        }
        waiting.clear();
        // The file goes first: a load that finds nothing in memory looks into the file next.
        if let Some(file) = &self.file {
            file.void(history);
        }
        self.memory.void(history);
        self.history.store(history, Ordering::Release);
    }

    /// The background job: saves the changed states, and returns when to run again.
    fn save(&self) -> Option<Duration> {
        self.is_scheduled.store(false, Ordering::Relaxed);
        self.save_all();
        let is_waiting = self.memory.has_unsaved() || !self.waiting.lock().is_empty();
        let is_waiting = is_waiting && self.view.close_reason().is_none();
        let unsynced = self.file.as_ref().and_then(CacheFile::sync_if_due);
        let again = if is_waiting { Some(SAVE_EVERY) } else { unsynced };
        again.filter(|_| !self.is_scheduled.swap(true, Ordering::Relaxed))
    }

    fn save_all(&self) {
        let Some(file) = &self.file else { return };
        let durable = self.view.head_at(Visibility::Durable);
        let mut waiting = self.waiting.lock();
        let history = self.history.load(Ordering::Acquire);
        for unsaved in self.memory.take_unsaved() {
            // Keep the older state that waits already: it becomes durable first.
            if waiting.len() < WAITING_MAX || unsaved.folded.reached.position <= durable {
                waiting.entry(unsaved.key()).or_insert(unsaved);
            }
        }
        let is_ready = |unsaved: &Unsaved| unsaved.folded.reached.position <= durable;
        let all = std::mem::take(&mut *waiting).into_iter();
        let (ready, rest): (BTreeMap<_, _>, BTreeMap<_, _>) = all.partition(|(_, unsaved)| is_ready(unsaved));
        *waiting = rest;
        drop(waiting);
        let mut batch = Vec::new();
        let mut bytes = 0;
        for (key, unsaved) in ready {
            let Some(encoded) = (unsaved.shape.encode)(unsaved.folded.state.as_ref()) else { continue };
            bytes += encoded.len();
            batch.push(Saving { key, folded: Folded { state: encoded, reached: unsaved.folded.reached } });
            if bytes > BATCH_BYTES {
                self.write(file, &batch, history);
                batch.clear();
                bytes = 0;
            }
        }
        if !batch.is_empty() {
            self.write(file, &batch, history);
        }
    }

    fn write(&self, file: &CacheFile, batch: &[Saving], history: u64) {
        if let Some(written) = file.put(batch, &[], history) {
            let saved = to_u64(batch.len());
            self.counters[SAVED].fetch_add(saved, Ordering::Relaxed);
            self.counters[DROPPED].fetch_add(written.dropped, Ordering::Relaxed);
        }
    }
}

impl Unsaved {
    fn key(&self) -> StateKey {
        StateKey::of_entity(self.shape.name, self.shape.revision, &self.entity)
    }
}
