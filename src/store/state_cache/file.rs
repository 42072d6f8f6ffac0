//! The cache file: opened when it is first needed, deleted when anything about it is odd.
//!
//! States are only ever taken from it after checks that do not trust it, so every error and every panic in redb
//! comes to the same: what was asked for is not there, and the file begins anew. An abort cannot be caught. A
//! mark beside the file says that it is being opened; the third start that meets the mark deletes the file.
//! Invariant: nobody waits for a sync but the housekeeper and whoever closes the store.
//! Row: cache.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use redb::Database;

use super::Folded;
use super::backend::Backend;
use super::table::{self, Changes, Key, Odd, Owner, Saving, Written};
use crate::disk::{Access, Disk, if_there, remove_if_there};
use crate::types::Error;

const DIRECTORY: &str = "cache";
const FILE: &str = "cache/projections.redb";
const MARK: &str = "cache/projections.opening";
/// So many starts that did not come back from opening the file are enough.
const DEATHS_MAX: u64 = 2;
/// A file that has to be begun anew more often than this is left alone until the store is opened again.
const RESTARTS_MAX: u32 = 3;
/// What redb may keep of the file in memory.
const PAGE_CACHE_BYTES: usize = 4 << 20;
/// How long states may be written without being durable.
const DURABLE_EVERY: Duration = Duration::from_secs(5);
/// How many keys that were read are remembered, so that they are not the next to be dropped.
const USED_MAX: usize = 1024;

pub(crate) struct CacheFile {
    disk: Arc<dyn Disk>,
    store_id: [u8; 16],
    budget: u64,
    state: RwLock<State>,
    used: Mutex<Vec<Key>>,
    /// Bytes of states in it, as far as is known.
    bytes: AtomicU64,
}

struct State {
    opened: Opened,
    restarts: u32,
    /// What is saved was folded from this history.
    history: u64,
}

#[derive(Default)]
enum Opened {
    #[default]
    NotYet,
    /// There is no file.
    Absent,
    Open(Handle),
    /// For good.
    Off,
}

struct Handle {
    /// Tells it from the one after a restart.
    restart: u32,
    database: Database,
    syncs: Arc<AtomicBool>,
    /// Since when there is something written that is not durable.
    unsynced: Mutex<Option<Instant>>,
}

/// Who opens the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opener {
    /// Must not wait for the disk, and creates nothing.
    Reader,
    Writer,
}

impl CacheFile {
    pub(crate) fn new(disk: Arc<dyn Disk>, owner: Owner, budget: u64) -> CacheFile {
        let Owner { store_id, history } = owner;
        let (used, bytes) = (Mutex::default(), AtomicU64::new(0));
        let state = RwLock::new(State { opened: Opened::NotYet, restarts: 0, history });
        CacheFile { disk, store_id, budget, state, used, bytes }
    }

    /// The state saved under a key.
    pub(crate) fn get(&self, key: &Key) -> Option<Folded<Vec<u8>>> {
        let found = self.with(Opener::Reader, None, |handle| table::read(&handle.database, key))??;
        let mut used = self.used.lock();
        if used.len() < USED_MAX {
            used.push(key.clone());
        }
        Some(found)
    }

    /// Saves states that were folded from a history, without waiting for the disk unless it is time to. `None` if they
    /// are not saved.
    pub(crate) fn put(&self, saving: &[Saving], removed: &[Key], history: u64) -> Option<Written> {
        let used = std::mem::take(&mut *self.used.lock());
        let changes = Changes { saving, removed, used: &used };
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

    /// Makes durable what was written, once it has waited long enough; says how long it has to wait still.
    pub(crate) fn settle(&self) -> Option<Duration> {
        let state = self.state.read();
        let Opened::Open(handle) = &state.opened else { return None };
        let since = (*handle.unsynced.lock())?;
        let left = DURABLE_EVERY.saturating_sub(since.elapsed());
        let history = state.history;
        drop(state);
        if left.is_zero() { self.put(&[], &[], history).and(None) } else { Some(left) }
    }

    /// History is another one from now on: what was saved goes, and is not waited for.
    pub(crate) fn void(&self, history: u64) {
        let mut state = self.state.write();
        state.history = history;
        if let Opened::Off = state.opened {
            // It may be off because it could not be removed.
            let _ = self.delete(0);
            return;
        }
        let restarts = state.restarts;
        self.replace(&mut state, restarts);
    }

    /// Removes a file that nobody uses; one that is used was begun since it was void.
    ///
    /// # Errors
    ///
    /// If it is there still.
    pub(crate) fn check_unused(&self) -> Result<(), Error> {
        match self.state.write().opened {
            Opened::Off => remove(self.disk.as_ref()),
            Opened::NotYet | Opened::Absent | Opened::Open(_) => Ok(()),
        }
    }

    /// Closes the file for good, and makes durable what was written.
    pub(crate) fn close(&self) {
        let opened = std::mem::replace(&mut self.state.write().opened, Opened::Off);
        if let Opened::Open(handle) = opened {
            let is_written = handle.unsynced.lock().is_some();
            handle.syncs.store(is_written, Ordering::Relaxed);
            // Saves the allocator's state; without it the file would have to be repaired, and is begun anew.
            if catch_unwind(AssertUnwindSafe(|| drop(handle))).is_err() {
                tracing::warn!("redb panicked while the cache was being closed");
            }
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Does something with the open file. Whatever is wrong with it, it is deleted then.
    fn with<T>(
        &self,
        opener: Opener,
        history: Option<u64>,
        work: impl FnOnce(&Handle) -> Result<T, Odd>,
    ) -> Option<T> {
        self.open(opener);
        let state = self.state.read();
        if history.is_some_and(|history| history != state.history) {
            return None;
        }
        let Opened::Open(handle) = &state.opened else { return None };
        let restart = handle.restart;
        let worked = caught(|| work(handle));
        drop(state);
        worked.inspect_err(|odd| self.begin_anew(restart, odd)).ok()
    }

    /// Opens the file, if that has not been done.
    fn open(&self, opener: Opener) {
        let is_wanted = |opened: &Opened| match opened {
            Opened::NotYet => true,
            Opened::Absent => opener == Opener::Writer,
            Opened::Open(_) | Opened::Off => false,
        };
        if !is_wanted(&self.state.read().opened) {
            return;
        }
        let mut state = self.state.write();
        if !is_wanted(&state.opened) {
            return;
        }
        state.opened = match caught(|| self.opened(&state, opener)) {
            Ok(opened) => opened,
            Err(odd) => {
                tracing::warn!(%odd, "the cache cannot be opened; it begins anew");
                state.restarts += 1;
                self.delete(state.restarts)
            }
        };
    }

    fn opened(&self, state: &State, opener: Opener) -> Result<Opened, Odd> {
        let found = if_there(self.disk.open(FILE, Access::Write))?;
        let (file, is_new) = match (found, opener) {
            (Some(file), _) => (file, false),
            (None, Opener::Reader) => return Ok(Opened::Absent),
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
        // It would read all of the file; folding what is asked for is less.
        builder.set_repair_callback(|session| session.abort());
        let database = builder.create_with_backend(backend)?;
        let owner = Owner { store_id: self.store_id, history: state.history };
        if is_new {
            table::begin(&database, &owner)?;
        } else if !table::is_of(&database, &owner)? {
            return Err("it holds states of another store, or of another history".into());
        }
        syncs.store(true, Ordering::Relaxed);
        if !is_new {
            self.disk.remove(MARK)?;
        }
        let unsynced = Mutex::new(is_new.then(Instant::now));
        Ok(Opened::Open(Handle { restart: state.restarts, database, syncs, unsynced }))
    }

    /// Leaves a mark that is removed once the file is open: one byte for each start that has not come so far.
    fn mark_opening(&self) -> Result<(), Odd> {
        let mark = match self.disk.open(MARK, Access::CreateNew) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => self.disk.open(MARK, Access::Write)?,
            mark => mark?,
        };
        let deaths = mark.length()?;
        if deaths >= DEATHS_MAX {
            return Err(format!("{deaths} starts ended while they opened it").into());
        }
        Ok(crate::disk::write_all(mark.as_ref(), &[1], deaths)?)
    }

    /// Begins a new file, unless that was done since.
    fn begin_anew(&self, restart: u32, odd: &Odd) {
        let mut state = self.state.write();
        let Opened::Open(_) = &state.opened else { return };
        if state.restarts != restart {
            return;
        }
        tracing::warn!(%odd, "the cache is damaged; it begins anew");
        state.restarts += 1;
        let restarts = state.restarts;
        self.replace(&mut state, restarts);
    }

    fn replace(&self, state: &mut State, restarts: u32) {
        let before = std::mem::replace(&mut state.opened, Opened::Absent);
        // What it still wants to write goes into a file without a name, and need not reach the disk.
        let deleted = self.delete(restarts);
        if let Opened::Open(handle) = &before {
            handle.syncs.store(false, Ordering::Relaxed);
        }
        let _ = catch_unwind(AssertUnwindSafe(|| drop(before)));
        state.opened = deleted;
    }

    /// Deletes the file.
    fn delete(&self, restarts: u32) -> Opened {
        self.bytes.store(0, Ordering::Relaxed);
        if let Err(error) = remove(self.disk.as_ref()) {
            tracing::warn!(%error, "the cache is off");
            return Opened::Off;
        }
        if restarts > RESTARTS_MAX { Opened::Off } else { Opened::Absent }
    }
}

/// Removes what may be there.
pub(super) fn remove(disk: &dyn Disk) -> Result<(), Error> {
    for name in [FILE, MARK] {
        remove_if_there(disk, name).map_err(|error| Error::io("cannot remove", name, error))?;
    }
    Ok(())
}

/// Makes a panic one more way to be odd.
fn caught<T>(work: impl FnOnce() -> Result<T, Odd>) -> Result<T, Odd> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("redb panicked".into()))
}
