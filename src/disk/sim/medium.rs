//! All files and names of a simulated disk, and the changes to them. Invariants:
//! - a change is complete in itself: the same changes from the same beginning lead to the same medium;
//! - each number has one name: a second name of a file has a number of its own, and no bytes;
//! - files keep their numbers and are never dropped: an open handle, or a removal that is not durable yet,
//!   may still need them;
//! - names have three forms. They are the names that the cache shows, those that the medium keeps, and the
//!   changes that no sync of their directory has covered yet. `durable` with `pending` applied in order is
//!   `cached`;
//! - a file has one name at most, so to rename it is one change, kept or lost as a whole.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use super::faults::{CERTAIN, SeededRandom};
use super::file::StoredFile;

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

/// All names of the disk.
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
