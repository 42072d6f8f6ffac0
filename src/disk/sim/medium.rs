//! All files and names of a simulated disk, the changes to them, and the trace of all changes. A trace is
//! replayed through [`Medium::apply`], which the disk itself uses, so the two cannot disagree. Invariants:
//! - a change is complete in itself: the same changes from the same beginning lead to the same medium;
//! - each number has one name: a second name of a file has a number of its own, and no bytes;
//! - files keep their numbers and are never dropped: an open handle, or a removal that is not durable yet,
//!   may still need them;
//! - a file has one name at most, so to rename it is one change, kept or lost as a whole.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use super::faults::{CERTAIN, SeededRandom, StoredFile};
use crate::types::to_u64;

/// One operation that changed the medium.
#[derive(Clone)]
pub(super) enum MediumChange {
    Name(NameChange),
    Link { file: usize, path: Arc<str> },
    SyncDirectory(Arc<str>),
    Write { file: usize, offset: usize, bytes: Arc<[u8]> },
    SetLength { file: usize, bytes: usize },
    Sync { file: usize },
    FailSync { file: usize, seed: u64 },
    DropCache { file: usize, offset: usize },
}

#[derive(Clone, Default)]
pub(super) struct Medium {
    names: NameTable,
    files: Vec<StoredFile>,
    /// Numbers of second names, with the numbers of their files.
    links: BTreeMap<usize, usize>,
}

impl Medium {
    pub(super) fn apply(&mut self, change: &MediumChange) {
        match change {
            MediumChange::Name(name) => {
                self.add_if_new(name.target);
                self.names.change(name.clone());
            }
            MediumChange::Link { file, path } => {
                let target = Some(NameTarget::File(self.next_file()));
                self.links.insert(self.next_file(), *file);
                self.add_if_new(target);
                self.names.change(NameChange { path: path.clone(), target });
            }
            MediumChange::SyncDirectory(directory) => self.names.sync(directory),
            MediumChange::Write { file, offset, bytes } => self.files[*file].write(*offset, bytes.clone()),
            MediumChange::SetLength { file, bytes } => self.files[*file].set_length(*bytes),
            MediumChange::Sync { file } => self.files[*file].sync(),
            MediumChange::FailSync { file, seed } => {
                self.files[*file].fail_sync(&mut SeededRandom::new(*seed))
            }
            MediumChange::DropCache { file, offset } => self.files[*file].drop_cache(*offset),
        }
    }

    /// The names as reads see them.
    pub(super) fn names(&self) -> &NameTable {
        &self.names
    }

    /// The file that the number of a name means.
    pub(super) fn file_of(&self, number: usize) -> usize {
        self.links.get(&number).copied().unwrap_or(number)
    }

    /// The bytes of a file as reads see them.
    pub(super) fn bytes(&self, file: usize) -> &[u8] {
        self.files[file].bytes()
    }

    /// The number of the next file. The file begins to exist when it gets its name.
    pub(super) fn next_file(&self) -> usize {
        self.files.len()
    }

    /// Gives a path this content in cache and medium; `None` removes the path.
    pub(super) fn set_contents(&mut self, path: &str, bytes: Option<Vec<u8>>) {
        let Some(bytes) = bytes else {
            return self.names.change_durably(path, None);
        };
        if self.names.get(parent(path)).is_none() {
            self.names.change_durably(parent(path), Some(NameTarget::Directory));
        }
        let file = match self.names.get(path) {
            Some(NameTarget::File(file)) if self.file_of(file) == file => file,
            _ => self.next_file(),
        };
        self.add_if_new(Some(NameTarget::File(file)));
        self.names.change_durably(path, Some(NameTarget::File(file)));
        self.files[file] = StoredFile::new(bytes);
    }

    /// The power fails before any pending change is on its way to the medium.
    pub(super) fn lose(&mut self) {
        self.names.lose();
        self.files.iter_mut().for_each(StoredFile::lose);
    }

    /// The power fails while all pending changes are on their way to the medium.
    pub(super) fn tear(&mut self, random: &mut SeededRandom) {
        self.names.tear(random);
        self.files.iter_mut().for_each(|file| file.tear(random));
    }

    fn add_if_new(&mut self, target: Option<NameTarget>) {
        if target == Some(NameTarget::File(self.next_file())) {
            self.files.push(StoredFile::default());
        }
    }
}

/// What a name means: a directory, or the file of this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameTarget {
    Directory,
    File(usize),
}

/// A name gets a target, or is removed.
#[derive(Clone)]
pub(super) struct NameChange {
    pub(super) path: Arc<str>,
    pub(super) target: Option<NameTarget>,
}

/// Sorted, so that the random numbers meet the names in the same order on every machine.
type NameMap = BTreeMap<Arc<str>, NameTarget>;

/// All names of the disk, in three forms. They are the names that the cache shows, those that the medium
/// keeps, and the changes that no sync of their directory has covered yet. `durable` with `pending` applied
/// in order is `cached`.
#[derive(Clone, Default)]
pub(super) struct NameTable {
    cached: NameMap,
    durable: NameMap,
    pending: Vec<NameChange>,
}

/// The directory of a path. `""` is the top directory, and its own parent.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// The directories that a path lies in, without `""`.
fn directories(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(end, _)| &path[..end])
}

impl NameTable {
    pub(super) fn get(&self, path: &str) -> Option<NameTarget> {
        if path.is_empty() { Some(NameTarget::Directory) } else { self.cached.get(path).copied() }
    }

    /// All paths without `""`, sorted.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, NameTarget)> {
        self.cached.iter().map(|(path, entry)| (&**path, *entry))
    }

    pub(super) fn change(&mut self, change: NameChange) {
        change.apply(&mut self.cached);
        self.pending.push(change);
    }

    /// Changes cache and medium, and drops the pending changes of the name and of its file.
    pub(super) fn change_durably(&mut self, path: &str, target: Option<NameTarget>) {
        let change = NameChange { path: path.into(), target };
        let file = self.get(path);
        self.pending.retain(|other| other.path != change.path && (file.is_none() || other.target != file));
        self.durable.retain(|_, entry| Some(*entry) != file);
        change.apply(&mut self.cached);
        change.apply(&mut self.durable);
    }

    pub(super) fn sync(&mut self, directory: &str) {
        self.sync_if(|change| parent(&change.path) == directory);
    }

    /// The power fails before any pending change is on its way to the medium.
    pub(super) fn lose(&mut self) {
        self.pending.clear();
        let all = mem::take(&mut self.durable);
        let is_reached = |path: &str| directories(path).all(|directory| all.contains_key(directory));
        // Files in a lost directory are lost as well.
        let reached = all.iter().filter(|(path, _)| is_reached(path));
        self.durable = reached.map(|(path, entry)| (path.clone(), *entry)).collect();
        self.cached = self.durable.clone();
    }

    /// The power fails while all pending changes are on their way to the medium: each one survives or not.
    pub(super) fn tear(&mut self, random: &mut SeededRandom) {
        let odds = random.share_of(CERTAIN);
        self.sync_if(|_| random.odds(odds));
        self.lose();
    }

    /// Makes some of the pending changes durable; the others stay pending.
    fn sync_if(&mut self, mut is_synced: impl FnMut(&NameChange) -> bool) {
        for change in self.pending.extract_if(.., |change| is_synced(change)) {
            change.apply(&mut self.durable);
        }
    }
}

impl NameChange {
    fn apply(&self, to: &mut NameMap) {
        let Some(target) = self.target else {
            to.remove(&self.path);
            return;
        };
        if target != NameTarget::Directory {
            to.retain(|_, other| *other != target);
        }
        to.insert(self.path.clone(), target);
    }
}

/// What becomes of unsynced changes when a [`Trace`] is stopped.
#[derive(Clone, Copy, Debug)]
pub enum CrashMode {
    /// Only the process dies. All written bytes are there, but no more durable than before, so a later power
    /// failure may still take them. Bytes that a failed sync lost are there until
    /// [`drop_cache`](crate::disk::DiskFile::drop_cache).
    Keep,
    /// The power fails, and no unsynced change survives: no bytes, lengths or names.
    Drop,
    /// The power fails while unsynced changes are on their way. Any 512-byte sectors of each write survive,
    /// in any order and rarely in part. Each file has an older length, the newest one, or one between; it has
    /// zeros where bytes did not survive. Each change of a name survives or not. The seed decides.
    Torn(u64),
}

/// A record of the operations that changed a [`SimDisk`](super::SimDisk), and of the notes taken between
/// them.
///
/// These operations are recorded: creating, renaming and removing names, writing, setting a length, syncing
/// (also when it fails) and dropping the cache. Other operations that failed, and those that only read, are
/// not. A *point* is a number of operations from the beginning, so there is one more point than operations:
/// `0..=trace.len()`.
///
/// A clone is cheap. A trace is a snapshot: it does not grow.
#[derive(Clone)]
pub struct Trace {
    seed: u64,
    base: Arc<Medium>,
    changes: Arc<Vec<MediumChange>>,
    /// Each note with the point at which it was taken, sorted by the points.
    notes: Arc<Vec<(usize, u64)>>,
}

impl Trace {
    /// The number of operations: the last point.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there is no operation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The notes taken before the operation that follows `point`, the oldest first. A test compares them with
    /// the [`image`](Trace::image) of that point.
    pub fn notes_before(&self, point: usize) -> impl Iterator<Item = u64> {
        self.notes.iter().take_while(move |(taken_at, _)| *taken_at <= point).map(|(_, note)| *note)
    }

    /// What the disk holds after a stop, and the seed of the disk that [`Trace::image`] makes of it.
    pub(super) fn stopped(&self, point: usize, mode: CrashMode) -> (Medium, u64) {
        let mut medium = Medium::clone(&self.base);
        self.changes[..point].iter().for_each(|change| medium.apply(change));
        let mut random = SeededRandom::new(self.image_seed(point, mode));
        match mode {
            CrashMode::Keep => {}
            CrashMode::Drop => medium.lose(),
            CrashMode::Torn(_) => medium.tear(&mut random),
        }
        (medium, random.next())
    }

    pub(super) fn new(base: Arc<Medium>, seed: u64) -> Trace {
        Trace { seed, base, changes: Arc::default(), notes: Arc::default() }
    }

    pub(super) fn push(&mut self, change: MediumChange) {
        Arc::make_mut(&mut self.changes).push(change);
    }

    pub(super) fn note(&mut self, value: u64) {
        let point = self.len();
        Arc::make_mut(&mut self.notes).push((point, value));
    }

    /// Starts anew from `base`. All notes so far come before the first operation.
    pub(super) fn restart(&mut self, base: Arc<Medium>) {
        let notes = self.notes.iter().map(|(_, note)| (0, *note)).collect();
        *self = Trace { notes: Arc::new(notes), ..Trace::new(base, self.seed) };
    }

    /// Differs for every image. A salt drawn before the stop must not be drawn again after it. One seed must
    /// not tear the same way at every point.
    fn image_seed(&self, point: usize, mode: CrashMode) -> u64 {
        let (kind, torn) = match mode {
            CrashMode::Keep => (0, 0),
            CrashMode::Drop => (1, 0),
            CrashMode::Torn(seed) => (2, seed),
        };
        let point = to_u64(point);
        SeededRandom::seed_of(&[self.seed, point, kind, torn])
    }
}
