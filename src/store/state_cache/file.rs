//! The cache file: opened when it is first needed, replaced when anything about it is wrong.
//!
//! A state from the file is checked before it is used. So every error and every panic in redb means the same:
//! the state is absent, and a new file begins. An abort cannot be caught. So a second file exists while the
//! first is being opened, and the third start that meets the second file deletes both.
//!
//! Only the background thread and the thread that closes the store wait for a sync.

use std::fmt;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use redb::{Database, StorageBackend};

use super::memory::Folded;
use super::table::{self, CacheChanges, CacheFailure, CacheOwner, CacheWritten, Saving, StateKey};
use crate::disk::{Access, Disk, DiskFile, if_there, read_full, remove_if_there, write_all};
use crate::types::Error;

const DIRECTORY: &str = "cache";
const FILE: &str = "cache/projections.redb";
const OPENING_FILE: &str = "cache/projections.opening";
/// How many starts may end while they open the file.
const DEATHS_MAX: u64 = 2;
/// How often the file is replaced in one opening. After that the cache does without a file.
const RESTARTS_MAX: u32 = 3;
/// How many bytes redb keeps in memory.
const PAGE_CACHE_BYTES: usize = 4 << 20;
/// How long states may be written without being durable.
const DURABLE_EVERY: Duration = Duration::from_secs(5);
/// How many keys of read states are remembered. A remembered state is not dropped next.
const USED_MAX: usize = 1024;

pub(crate) struct CacheFile {
    disk: Arc<dyn Disk>,
    store_id: [u8; 16],
    budget: u64,
    state: RwLock<FileInner>,
    used: Mutex<Vec<StateKey>>,
    /// The bytes of states in the file, as far as known.
    bytes: AtomicU64,
}

struct FileInner {
    opened: FileStatus,
    restarts: u32,
    /// The saved states were folded from this history.
    history: u64,
}

#[derive(Default)]
enum FileStatus {
    #[default]
    NotYet,
    /// The file does not exist.
    Absent,
    Open(OpenFile),
    /// The file is not used again.
    Off,
}

struct OpenFile {
    /// Counts replacements, and so tells this file from the next.
    restart: u32,
    database: Database,
    syncs: Arc<AtomicBool>,
    /// When the oldest write was made that is not durable.
    unsynced: Mutex<Option<Instant>>,
}

/// Who needs the file open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opener {
    /// A load: must not wait for the disk, and creates nothing.
    Reader,
    Writer,
}

impl CacheFile {
    pub(crate) fn new(disk: Arc<dyn Disk>, owner: CacheOwner, budget: u64) -> CacheFile {
        let CacheOwner { store_id, history } = owner;
        let used = Mutex::default();
        let bytes = AtomicU64::new(0);
        let state = RwLock::new(FileInner { opened: FileStatus::NotYet, restarts: 0, history });
        CacheFile { disk, store_id, budget, state, used, bytes }
    }

    /// The state saved under a key.
    pub(crate) fn get(&self, key: &StateKey) -> Option<Folded<Vec<u8>>> {
        let found = self.with(Opener::Reader, None, |handle| table::read(&handle.database, key))??;
        let mut used = self.used.lock();
        if used.len() < USED_MAX {
            used.push(key.clone());
        }
        Some(found)
    }

    /// Saves states that were folded from a history. Waits for the disk only if the last sync is long ago.
    /// `None` if the states are not saved.
    pub(crate) fn put(&self, saving: &[Saving], removed: &[StateKey], history: u64) -> Option<CacheWritten> {
        let used = std::mem::take(&mut *self.used.lock());
        let changes = CacheChanges { saving, removed, used: &used };
        let written = self.with(Opener::Writer, Some(history), |handle| {
            let mut unsynced = handle.unsynced.lock();
            let since = *unsynced.get_or_insert_with(Instant::now);
            let is_durable = since.elapsed() >= DURABLE_EVERY;
            let written = table::write(&handle.database, &changes, self.budget, is_durable)?;
            if is_durable {
                *unsynced = None;
            }
            Ok(written)
        })?;
        self.bytes.store(written.bytes, Ordering::Relaxed);
        Some(written)
    }

    /// Makes written states durable once they have waited long enough. Returns the time left to wait.
    pub(crate) fn sync_if_due(&self) -> Option<Duration> {
        let state = self.state.read();
        let FileStatus::Open(handle) = &state.opened else { return None };
        let since = (*handle.unsynced.lock())?;
        let left = DURABLE_EVERY.saturating_sub(since.elapsed());
        let history = state.history;
        drop(state);
        if left.is_zero() { self.put(&[], &[], history).and(None) } else { Some(left) }
    }

    /// Replaces the file without waiting for it, because history has changed.
    pub(crate) fn void(&self, history: u64) {
        let mut state = self.state.write();
        state.history = history;
        if let FileStatus::Off = state.opened {
            // The file may be off because it could not be removed before.
            let _ = self.delete(0);
            return;
        }
        let restarts = state.restarts;
        self.replace(&mut state, restarts);
    }

    /// Removes a file that is off. A file in use was begun after the last change of history.
    ///
    /// # Errors
    ///
    /// Those of removing the file.
    pub(crate) fn check_unused(&self) -> Result<(), Error> {
        match self.state.write().opened {
            FileStatus::Off => remove(self.disk.as_ref()),
            FileStatus::NotYet | FileStatus::Absent | FileStatus::Open(_) => Ok(()),
        }
    }

    /// Closes the file for good, and makes the written states durable.
    pub(crate) fn close(&self) {
        let opened = std::mem::replace(&mut self.state.write().opened, FileStatus::Off);
        if let FileStatus::Open(handle) = opened {
            let is_written = handle.unsynced.lock().is_some();
            handle.syncs.store(is_written, Ordering::Relaxed);
            // Dropping saves redb's allocator state. Without it the file would need a repair, and would be
            // replaced.
            if catch_unwind(AssertUnwindSafe(|| drop(handle))).is_err() {
                tracing::warn!("redb panicked while the cache was being closed");
            }
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Works on the open file. A failure of any kind replaces the file.
    fn with<T>(
        &self,
        opener: Opener,
        history: Option<u64>,
        work: impl FnOnce(&OpenFile) -> Result<T, CacheFailure>,
    ) -> Option<T> {
        self.open(opener);
        let state = self.state.read();
        if history.is_some_and(|history| history != state.history) {
            return None;
        }
        let FileStatus::Open(handle) = &state.opened else { return None };
        let restart = handle.restart;
        let worked = catch_panic(|| work(handle));
        drop(state);
        worked.inspect_err(|failure| self.replace_damaged(restart, failure)).ok()
    }

    /// Opens the file, unless that was done.
    fn open(&self, opener: Opener) {
        let is_wanted = |opened: &FileStatus| match opened {
            FileStatus::NotYet => true,
            FileStatus::Absent => opener == Opener::Writer,
            FileStatus::Open(_) | FileStatus::Off => false,
        };
        if !is_wanted(&self.state.read().opened) {
            return;
        }
        let mut state = self.state.write();
        if !is_wanted(&state.opened) {
            return;
        }
        state.opened = match catch_panic(|| self.try_open(&state, opener)) {
            Ok(opened) => opened,
            Err(failure) => {
                tracing::warn!(%failure, "the cache cannot be opened; it begins anew");
                state.restarts += 1;
                self.delete(state.restarts)
            }
        };
    }

    fn try_open(&self, state: &FileInner, opener: Opener) -> Result<FileStatus, CacheFailure> {
        let found = if_there(self.disk.open(FILE, Access::Write))?;
        let (file, is_new) = match (found, opener) {
            (Some(file), _) => (file, false),
            (None, Opener::Reader) => return Ok(FileStatus::Absent),
            (None, Opener::Writer) => {
                self.disk.create_directory(DIRECTORY)?;
                (self.disk.open(FILE, Access::CreateNew)?, true)
            }
        };
        if !is_new {
            self.mark_opening()?;
        }
        let syncs = Arc::new(AtomicBool::new(opener == Opener::Writer));
        let backend = Backend { file, syncs: syncs.clone() };
        let mut builder = Database::builder();
        builder.set_cache_size(PAGE_CACHE_BYTES);
        // A repair reads the whole file; folding the needed states costs less.
        builder.set_repair_callback(|session| session.abort());
        let database = builder.create_with_backend(backend)?;
        let owner = CacheOwner { store_id: self.store_id, history: state.history };
        if is_new {
            table::begin(&database, &owner)?;
        } else if !table::belongs_to(&database, &owner)? {
            return Err("it holds states of another store, or of another history".into());
        }
        syncs.store(true, Ordering::Relaxed);
        if !is_new {
            self.disk.remove(OPENING_FILE)?;
        }
        let unsynced = Mutex::new(is_new.then(Instant::now));
        Ok(FileStatus::Open(OpenFile { restart: state.restarts, database, syncs, unsynced }))
    }

    /// Adds one byte to the file that exists while the cache file is being opened: one for each start.
    fn mark_opening(&self) -> Result<(), CacheFailure> {
        let mark = match self.disk.open(OPENING_FILE, Access::CreateNew) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                self.disk.open(OPENING_FILE, Access::Write)?
            }
            mark => mark?,
        };
        let deaths = mark.length()?;
        if deaths >= DEATHS_MAX {
            return Err(format!("{deaths} starts ended while they opened it").into());
        }
        Ok(write_all(mark.as_ref(), &[1], deaths)?)
    }

    /// Replaces a damaged file, unless another thread has done so.
    fn replace_damaged(&self, restart: u32, failure: &CacheFailure) {
        let mut state = self.state.write();
        let FileStatus::Open(_) = &state.opened else { return };
        if state.restarts != restart {
            return;
        }
        tracing::warn!(%failure, "the cache is damaged; it begins anew");
        state.restarts += 1;
        let restarts = state.restarts;
        self.replace(&mut state, restarts);
    }

    fn replace(&self, state: &mut FileInner, restarts: u32) {
        let before = std::mem::replace(&mut state.opened, FileStatus::Absent);
        // redb may still write: into a deleted file, so the writes need not reach the disk.
        let deleted = self.delete(restarts);
        if let FileStatus::Open(handle) = &before {
            handle.syncs.store(false, Ordering::Relaxed);
        }
        let _ = catch_unwind(AssertUnwindSafe(|| drop(before)));
        state.opened = deleted;
    }

    /// Deletes the file.
    fn delete(&self, restarts: u32) -> FileStatus {
        self.bytes.store(0, Ordering::Relaxed);
        if let Err(error) = remove(self.disk.as_ref()) {
            tracing::warn!(%error, "the cache is off");
            return FileStatus::Off;
        }
        if restarts > RESTARTS_MAX { FileStatus::Off } else { FileStatus::Absent }
    }
}

/// Removes both files, if they exist.
pub(super) fn remove(disk: &dyn Disk) -> Result<(), Error> {
    for name in [FILE, OPENING_FILE] {
        remove_if_there(disk, name).map_err(|error| Error::io("cannot remove", name, error))?;
    }
    Ok(())
}

/// Turns a panic into a failure.
fn catch_panic<T>(work: impl FnOnce() -> Result<T, CacheFailure>) -> Result<T, CacheFailure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("redb panicked".into()))
}

/// A file of the store's disk, as redb uses it.
struct Backend {
    file: Box<dyn DiskFile>,
    /// While this is false, syncs are skipped: a load must not wait for the disk, and a cache may lose
    /// writes.
    syncs: Arc<AtomicBool>,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let read = read_full(self.file.as_ref(), out, offset)?;
        if read == out.len() { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_length(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.syncs.load(Ordering::Relaxed) { self.file.sync() } else { Ok(()) }
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        write_all(self.file.as_ref(), bytes, offset)
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a cache file")
    }
}
