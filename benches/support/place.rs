//! Where a bench keeps its stores: a directory of its own, removed afterwards.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// A directory that is gone when this is.
pub struct Place {
    path: PathBuf,
}

impl Place {
    /// Makes a directory for this bench and process under `parent`.
    pub fn new(parent: &Path, bench: &str) -> io::Result<Place> {
        let path = parent.join(format!("annals-bench-{bench}-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Place { path: path.canonicalize()? })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of a store in it.
    pub fn store(&self, name: &str) -> PathBuf {
        self.path.join(name.replace('/', "-"))
    }

    /// Removes a store, and waits until the disk has done so. Otherwise the next measurement would include
    /// that work.
    pub fn clear(&self, store: &Path) -> io::Result<()> {
        fs::remove_dir_all(store)?;
        File::open(&self.path)?.sync_all()
    }

    /// The type of the file system, as the kernel names it.
    pub fn file_system(&self) -> String {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let under = mounts.lines().filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (point, kind) = (words.next()?, words.next()?);
            self.path.starts_with(point).then_some((point.len(), kind))
        });
        under.max_by_key(|(length, _)| *length).map_or("unknown", |(_, kind)| kind).to_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("{} stays behind: {error}", self.path.display());
        }
    }
}

/// The bytes of all files in a directory and below.
pub fn bytes_in(directory: &Path) -> io::Result<u64> {
    fs::read_dir(directory)?
        .map(|entry| {
            let entry = entry?;
            if entry.file_type()?.is_dir() { bytes_in(&entry.path()) } else { Ok(entry.metadata()?.len()) }
        })
        .sum()
}
