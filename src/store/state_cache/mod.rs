//! States that were folded before, so that they need not be folded again: the recent ones in memory, behind
//! them a file.
//!
//! Knows no projection: a state is anything, with a [`Shape`] that says whose it is and how it is encoded. Any of
//! it may be gone at any time. What is saved is saved by the housekeeper, a while after it was folded.
//! Invariant: a state is here with the place it was folded up to, or not at all. Nothing is saved that a power cut
//! could take back from the log.
//! Row: cache.

mod backend;
mod file;
mod memory;
mod table;

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::disk::Disk;
use crate::event::RecordedEvent;
use crate::format::Hash;
use crate::read::{Reach, View};
use crate::threads::BackgroundThread;
use crate::types::{CacheStats, Clock, Error, Position, Version, check_visible, to_u64};

use file::CacheFile;
pub(crate) use memory::{Known, Memory, Reservation, Reserve};
use memory::{Unsaved, WORTH_SAVING};
pub(crate) use table::{Key, Owner, Saving};

/// How long a state waits to be saved: one that changes all the time is saved so often.
const SAVE_EVERY: Duration = Duration::from_millis(250);
/// How many states wait at most for their events to become durable.
const WAITING_MAX: usize = 1024;
/// How many bytes are saved in one transaction, about.
const BATCH_BYTES: usize = 4 << 20;

/// A state, whatever its type.
pub(crate) type Erased = Arc<dyn Any + Send + Sync>;

/// What is known of a projection here.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) of: TypeId,
    pub(crate) type_name: &'static str,
    pub(crate) name: &'static str,
    pub(crate) revision: u32,
    /// The encoded state; `None` if it does not encode. Panics of the user's code are caught.
    pub(crate) encode: fn(&(dyn Any + Send + Sync)) -> Option<Vec<u8>>,
}

/// Up to where a state was folded: its last event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) version: Version,
    pub(crate) position: Position,
    pub(crate) chain: Hash,
}

/// A state and up to where it was folded.
#[derive(Clone, Default)]
pub(crate) struct Folded<S> {
    pub(crate) state: S,
    pub(crate) reached: Reached,
}

impl Folded<Erased> {
    /// As the type it is of.
    pub(crate) fn typed<P: Send + Sync + 'static>(self) -> Option<Folded<Arc<P>>> {
        let state = self.state.downcast::<P>().ok()?;
        Some(Folded { state, reached: self.reached })
    }
}

/// How a state was come by.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    Memory,
    File,
    Log,
}

/// The states of one store.
pub(crate) struct Cache {
    shared: Arc<Shared>,
    housekeeper: Arc<BackgroundThread>,
    /// Where it was opened: in a process forked from that one nobody keeps house.
    process: u32,
}

/// Ends what runs by itself, without waiting for ever.
pub(crate) type End = Arc<dyn Fn() + Send + Sync>;

/// A name that is taken, as long as this lives; and the way to the file for whoever has it.
pub(crate) struct ModelLease {
    name: &'static str,
    shared: Arc<Shared>,
    may_save: bool,
}

struct Shared {
    memory: Memory,
    file: Option<CacheFile>,
    view: Arc<View>,
    /// The history that what is kept was folded from.
    history: AtomicU64,
    is_scheduled: AtomicBool,
    /// States whose events are not durable yet.
    waiting: Mutex<BTreeMap<Key, Unsaved>>,
    claims: Mutex<BTreeMap<&'static str, End>>,
    counters: [AtomicU64; 5],
}

/// Places in the counters, behind those of [`Source`].
const SAVED: usize = 3;
const DROPPED: usize = 4;

impl Cache {
    /// With a budget of 0 bytes there is no file.
    pub(crate) fn new(
        memory_bytes: usize,
        file_bytes: u64,
        disk: Arc<dyn Disk>,
        owner: Owner,
        view: Arc<View>,
        housekeeper: Arc<BackgroundThread>,
        clock: Clock,
    ) -> Cache {
        let file = (file_bytes > 0).then(|| CacheFile::new(disk, owner, file_bytes));
        let shared = Shared {
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
        Cache { shared, housekeeper, process: std::process::id() }
    }

    /// Forgets everything that was folded from an earlier history. Whoever trusts what is kept calls this first, with the
    /// history of what it reads.
    pub(crate) fn keep_up(&self, history: u64) {
        if self.shared.history.load(Ordering::Acquire) < history {
            self.shared.void(history);
        }
    }

    /// Forgets everything, in memory and on the disk; also what an earlier process left there, if this one keeps nothing.
    ///
    /// # Errors
    ///
    /// If the file cannot be removed.
    pub(crate) fn void(&self, disk: &dyn Disk) -> Result<(), Error> {
        self.shared.void(self.shared.view.history());
        self.shared.file.as_ref().map_or_else(|| file::remove(disk), CacheFile::check_unused)
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.shared.memory
    }

    /// The state of an entity as it was saved, if it may be worth looking for it: the stream is at `version`.
    pub(crate) fn saved(&self, shape: &Shape, entity: &str, version: Version) -> Option<Folded<Vec<u8>>> {
        if version.get() < WORTH_SAVING {
            return None;
        }
        self.read(&Key::of_entity(shape.name, shape.revision, entity))
    }

    /// What was saved under a key.
    pub(crate) fn read(&self, key: &Key) -> Option<Folded<Vec<u8>>> {
        // The file is written to by the process that opened the store.
        let file = self.shared.file.as_ref().filter(|_| self.is_at_home())?;
        file.get(key)
    }

    /// Puts a state back into memory, and has it saved before long.
    pub(crate) fn fill(
        &self,
        reservation: Reservation<'_>,
        folded: Folded<Erased>,
        seen: Position,
        history: u64,
    ) {
        if reservation.fill(folded, seen, history) && self.shared.file.is_some() && self.is_at_home() {
            self.schedule();
        }
    }

    pub(crate) fn count(&self, source: Source) {
        let place = match source {
            Source::Memory => 0,
            Source::File => 1,
            Source::Log => 2,
        };
        self.shared.counters[place].fetch_add(1, Ordering::Relaxed);
    }

    fn schedule(&self) {
        if !self.shared.is_scheduled.swap(true, Ordering::Relaxed) {
            let shared = self.shared.clone();
            self.housekeeper.run_in(SAVE_EVERY, Box::new(move || shared.save()));
        }
    }

    /// Claims a name for a projection that runs by itself. `end` is called when the store is closed, before the
    /// file is: it ends what runs.
    pub(crate) fn claim(&self, name: &'static str, end: End) -> Result<ModelLease, Error> {
        check_visible("name of the projection", name)?;
        let mut claims = self.shared.claims.lock();
        if claims.contains_key(name) {
            let text = format!("a projection named {name:?} runs on this store already; share its handle");
            return Err(Error::invalid(text));
        }
        claims.insert(name, end);
        Ok(ModelLease { name, shared: self.shared.clone(), may_save: self.is_at_home() })
    }

    /// Saves what there is to save, and ends. `sync` makes the log durable; it is called if states wait for that.
    pub(crate) fn close(&self, sync: impl FnOnce()) {
        if !self.is_at_home() {
            return;
        }
        let claims: Vec<End> = self.shared.claims.lock().values().cloned().collect();
        claims.iter().for_each(|end| end());
        self.housekeeper.close();
        let Some(file) = &self.shared.file else { return };
        self.shared.save_all();
        if !self.shared.waiting.lock().is_empty() {
            sync();
            self.shared.save_all();
        }
        file.close();
    }

    fn is_at_home(&self) -> bool {
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
    /// Whether no power cut can take back what is at a position.
    pub(crate) fn is_durable(&self, position: Position) -> bool {
        position <= self.shared.view.reaches(Reach::Durable)
    }

    /// Saves a state that was folded from a history, and removes others, in one transaction, if the file takes it. Only
    /// what is durable may be saved.
    pub(crate) fn save(&self, saving: Saving, removed: &[Key], history: u64) {
        if let Some(file) = self.file() {
            file.put(&[saving], removed, history);
        }
    }

    /// The history that is read just now.
    pub(crate) fn history(&self) -> u64 {
        self.shared.view.history()
    }

    /// Makes durable what was saved, once it has waited long enough; says how long it has to wait still.
    pub(crate) fn settle(&self) -> Option<Duration> {
        self.file().and_then(CacheFile::settle)
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

impl Shared {
    fn void(&self, history: u64) {
        // Held by whoever saves from when it takes states out of memory, so none of those slips by.
        let mut waiting = self.waiting.lock();
        if self.history.load(Ordering::Acquire) > history {
            return;
        }
        waiting.clear();
        // The file first: whoever finds nothing in memory looks there next.
        if let Some(file) = &self.file {
            file.void(history);
        }
        self.memory.void(history);
        self.history.store(history, Ordering::Release);
    }

    /// The housekeeper's job: saves what there is, and says when it wants to do that again.
    fn save(&self) -> Option<Duration> {
        self.is_scheduled.store(false, Ordering::Relaxed);
        self.save_all();
        let is_waiting = self.memory.has_unsaved() || !self.waiting.lock().is_empty();
        let is_waiting = is_waiting && self.view.ended().is_none();
        let unsynced = self.file.as_ref().and_then(CacheFile::settle);
        let again = if is_waiting { Some(SAVE_EVERY) } else { unsynced };
        again.filter(|_| !self.is_scheduled.swap(true, Ordering::Relaxed))
    }

    fn save_all(&self) {
        let Some(file) = &self.file else { return };
        let durable = self.view.reaches(Reach::Durable);
        let mut waiting = self.waiting.lock();
        let history = self.history.load(Ordering::Acquire);
        for unsaved in self.memory.take_unsaved() {
            // The older one, which waits already, will be durable first.
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
    fn key(&self) -> Key {
        Key::of_entity(self.shape.name, self.shape.revision, &self.entity)
    }
}

impl Reached {
    pub(crate) fn at(event: &RecordedEvent) -> Reached {
        Reached { version: event.version(), position: event.position(), chain: event.chain() }
    }
}
