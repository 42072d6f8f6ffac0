//! All files and names of a simulated disk, and the steps that change them.
//!
//! - A step holds all it needs: the same steps from the same beginning lead to the same medium.
//! - A further name of a file has a number of its own, too, and no bytes: so that each number has one name.
//! - Files are numbered and never forgotten: an open handle, or a removal that is not durable yet,
//!   may still need them.
//!
//! Row: disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::file::File;
use super::names::{Entry, NameChange, Names, parent};
use super::random::Random;

/// One operation that changed something.
#[derive(Clone)]
pub(super) enum Step {
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
    names: Names,
    files: Vec<File>,
    /// Numbers that stand for other files.
    links: BTreeMap<usize, usize>,
}

impl Medium {
    pub(super) fn apply(&mut self, step: &Step) {
        match step {
            Step::Name(change) => {
                self.add_if_new(change.entry);
                self.names.change(change.clone());
            }
            Step::Link { file, path } => {
                let entry = Some(Entry::File(self.next_file()));
                self.links.insert(self.next_file(), *file);
                self.add_if_new(entry);
                self.names.change(NameChange { path: path.clone(), entry });
            }
            Step::SyncDirectory(directory) => self.names.sync(directory),
            Step::Write { file, offset, bytes } => self.files[*file].write(*offset, bytes.clone()),
            Step::SetLength { file, bytes } => self.files[*file].set_length(*bytes),
            Step::Sync { file } => self.files[*file].sync(),
            Step::FailSync { file, seed } => self.files[*file].fail_sync(&mut Random::new(*seed)),
            Step::DropCache { file, offset } => self.files[*file].drop_cache(*offset),
        }
    }

    /// The names as reads see them.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// The file that a number of a name stands for.
    pub(super) fn file_of(&self, number: usize) -> usize {
        self.links.get(&number).copied().unwrap_or(number)
    }

    /// The bytes of a file as reads see them.
    pub(super) fn bytes(&self, file: usize) -> &[u8] {
        self.files[file].bytes()
    }

    /// The number of the next file, which comes to be when it gets its name.
    pub(super) fn next_file(&self) -> usize {
        self.files.len()
    }

    /// Makes a path have this content in cache and medium alike; `None` removes it.
    pub(super) fn set_contents(&mut self, path: &str, bytes: Option<Vec<u8>>) {
        let Some(bytes) = bytes else {
            return self.names.change_durably(path, None);
        };
        if self.names.get(parent(path)).is_none() {
            self.names.change_durably(parent(path), Some(Entry::Directory));
        }
        let file = match self.names.get(path) {
            Some(Entry::File(file)) if self.file_of(file) == file => file,
            _ => self.next_file(),
        };
        self.add_if_new(Some(Entry::File(file)));
        self.names.change_durably(path, Some(Entry::File(file)));
        self.files[file] = File::new(bytes);
    }

    /// The power fails before anything pending is under way.
    pub(super) fn lose(&mut self) {
        self.names.lose();
        self.files.iter_mut().for_each(File::lose);
    }

    /// The power fails while everything pending is under way.
    pub(super) fn tear(&mut self, random: &mut Random) {
        self.names.tear(random);
        self.files.iter_mut().for_each(|file| file.tear(random));
    }

    fn add_if_new(&mut self, entry: Option<Entry>) {
        if entry == Some(Entry::File(self.next_file())) {
            self.files.push(File::default());
        }
    }
}
