//! Where the stores are: a directory for this process, removed afterwards.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A directory that is gone when this is.
pub struct Place {
    path: PathBuf,
}

impl Place {
    pub fn new(parent: &Path) -> io::Result<Place> {
        let path = parent.join(format!("annals-peers-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Place { path: path.canonicalize()? })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs with a directory that does not exist yet, and is gone afterwards with all that stands beside it.
    pub fn with_store<T, E: From<io::Error>>(&self, run: impl FnOnce(&Path) -> Result<T, E>) -> Result<T, E> {
        let parent = self.path.join("now");
        fs::create_dir_all(&parent)?;
        let result = run(&parent.join("store"));
        fs::remove_dir_all(&parent)?;
        // What the file system still had to do for it would be charged to the next measurement.
        File::open(&self.path)?.sync_all()?;
        result
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

/// What the files in a directory take on the disk: blocks, not lengths, so that holes are free and
/// space taken in advance is not.
pub fn bytes_on_disk(directory: &Path) -> io::Result<u64> {
    const BLOCK: u64 = 512;
    fs::read_dir(directory)?
        .map(|entry| {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                bytes_on_disk(&entry.path())
            } else {
                Ok(entry.metadata()?.blocks() * BLOCK)
            }
        })
        .sum()
}

/// Copies a directory, and waits until the disk has it. A store that is opened then finds its files in the
/// page cache, and nothing is left to write.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            File::open(&target)?.sync_all()?;
        }
    }
    File::open(to)?.sync_all()
}
