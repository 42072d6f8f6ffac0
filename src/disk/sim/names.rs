//! The names on a simulated disk: as the cache shows them, as the medium keeps them, and the
//! changes between the two that no sync of their directory has covered yet.
//!
//! - `durable` with `pending` applied in order is `cached`.
//! - A file has one name at most, so giving it another is one change, kept or lost as a whole.
//!
//! Row: disk.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use super::random::{CERTAIN, Random};

/// What a name stands for: a directory, or the file of this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Directory,
    File(usize),
}

/// A name gets a meaning, or loses it.
#[derive(Clone)]
pub(super) struct NameChange {
    pub(super) path: Arc<str>,
    pub(super) entry: Option<Entry>,
}

/// Sorted, so that the same chances meet the same names on every machine.
type Entries = BTreeMap<Arc<str>, Entry>;

#[derive(Clone, Default)]
pub(super) struct Names {
    cached: Entries,
    durable: Entries,
    pending: Vec<NameChange>,
}

/// The directory of a path; `""` is the uppermost, and its own.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// The directories a path lies in, but for `""`.
fn directories(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(end, _)| &path[..end])
}

impl Names {
    pub(super) fn get(&self, path: &str) -> Option<Entry> {
        if path.is_empty() { Some(Entry::Directory) } else { self.cached.get(path).copied() }
    }

    /// All paths but `""`, sorted.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Entry)> {
        self.cached.iter().map(|(path, entry)| (&**path, *entry))
    }

    pub(super) fn change(&mut self, change: NameChange) {
        change.apply(&mut self.cached);
        self.pending.push(change);
    }

    /// Changes cache and medium alike, and forgets what was pending for the name or its file.
    pub(super) fn change_durably(&mut self, path: &str, entry: Option<Entry>) {
        let change = NameChange { path: path.into(), entry };
        let file = self.get(path);
        self.pending.retain(|other| other.path != change.path && (file.is_none() || other.entry != file));
        self.durable.retain(|_, entry| Some(*entry) != file);
        change.apply(&mut self.cached);
        change.apply(&mut self.durable);
    }

    pub(super) fn sync(&mut self, directory: &str) {
        self.sync_if(|change| parent(&change.path) == directory);
    }

    /// The power fails before anything pending is under way.
    pub(super) fn lose(&mut self) {
        self.pending.clear();
        let all = mem::take(&mut self.durable);
        let is_reached = |path: &str| directories(path).all(|directory| all.contains_key(directory));
        // A directory that is lost takes with it what was in it.
        let reached = all.iter().filter(|(path, _)| is_reached(path));
        self.durable = reached.map(|(path, entry)| (path.clone(), *entry)).collect();
        self.cached = self.durable.clone();
    }

    /// The power fails while everything pending is under way: each change survives or not.
    pub(super) fn tear(&mut self, random: &mut Random) {
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
    fn apply(&self, to: &mut Entries) {
        let Some(entry) = self.entry else {
            to.remove(&self.path);
            return;
        };
        if entry != Entry::Directory {
            to.retain(|_, other| *other != entry);
        }
        to.insert(self.path.clone(), entry);
    }
}
