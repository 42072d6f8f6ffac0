//! A disk in memory that fails and loses power on demand: what the crash and fault tests run on.
//!
//! It keeps apart what a program sees and what a power failure would leave, as strictly as POSIX
//! allows: bytes are durable after a sync of their file, names after a sync of their directory,
//! and a failed sync loses bytes that can still be read.
//!
//! - Nothing depends on time, threads or the platform: the same seed and the same calls give the
//!   same disk, bit for bit.
//! - Every change goes through [`Medium::apply`] and into the trace, so each state the disk was in
//!   can be had again.
//!
//! `trace` stops the disk anywhere; `medium` is what it holds, as `names` and `file`; `handle` is an
//! open file; `fault` says which operations fail; `random` is all the chance there is.
//! Row: disk.

mod fault;
mod file;
mod handle;
mod medium;
mod names;
mod random;
#[cfg(test)]
mod tests;
mod trace;

pub use fault::Fault;
pub use trace::{CrashMode, Trace};

use std::any::Any;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Access, Disk, DiskFile, FileInfo, Holder, Lock, path_of};
use crate::types::to_u64;
use fault::Faults;
use handle::SimFile;
use medium::{Medium, Step};
use names::{Entry, NameChange, parent};
use random::Random;

/// A file that wants to be longer is a mistake; an error is better than gigabytes of zeros.
const FILE_BYTES_MAX: usize = 1 << 30;

/// A disk in memory whose operations can be made to fail, and whose power can be cut after any of
/// them. Clones share the files.
///
/// ```
/// use annals::disk::{Access, CrashMode, Disk, SimDisk};
///
/// let disk = SimDisk::new(7);
/// let file = disk.open("log", Access::CreateNew)?;
/// disk.sync_directory("")?;
/// file.write_at(b"synced", 0)?;
/// file.sync()?;
/// file.write_at(b", not synced", 6)?;
///
/// let trace = disk.trace();
/// let killed = trace.image(trace.len(), CrashMode::Keep);
/// assert_eq!(killed.contents("log").unwrap(), b"synced, not synced");
/// let power_cut = trace.image(trace.len(), CrashMode::Drop);
/// assert_eq!(power_cut.contents("log").unwrap(), b"synced");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # What counts as an operation
///
/// Every call that touches the medium: all of [`Disk`] and [`DiskFile`] but `lock`, `is_locked`,
/// `free_bytes`, `random` and `wants_zeros`. They are counted, and can fail, one by one; calls that
/// fail by themselves count as well.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Inner>>);

impl SimDisk {
    /// An empty disk. The seed decides what [`Disk::random`] gives and what failed syncs lose.
    #[must_use]
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::from_medium(Medium::default(), seed)
    }

    /// How many operations there were.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.0.lock().faults.operations()
    }

    /// Makes one operation fail: the next for 0, the one after it for 1.
    pub fn fail(&self, nth: u64, fault: Fault) {
        self.0.lock().faults.add(nth, fault);
    }

    /// Makes one operation, counted as in [`fail`](SimDisk::fail), and all after it fail.
    pub fn fail_from(&self, nth: u64, fault: Fault) {
        self.0.lock().faults.add_from(nth, fault);
    }

    /// Takes back all faults that are still to come.
    pub fn heal(&self) {
        self.0.lock().faults.clear();
    }

    /// Limits the bytes of all files together. At the limit writes are short, and what finds no
    /// room at all fails with [`io::ErrorKind::StorageFull`]. Creating a file takes one free byte.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// Puts a note into the trace, between the operations before and after.
    pub fn note(&self, value: u64) {
        self.0.lock().trace.note(value);
    }

    /// Everything that happened since the disk was made, or since
    /// [`set_contents`](SimDisk::set_contents).
    #[must_use]
    pub fn trace(&self) -> Trace {
        self.0.lock().trace.clone()
    }

    /// A file's bytes as reads see them.
    #[must_use]
    pub fn contents(&self, path: &str) -> Option<Vec<u8>> {
        let disk = self.0.lock();
        let file = disk.file(path).ok()?;
        Some(disk.medium.bytes(file).to_vec())
    }

    /// Puts a file, and its directory, in place so that reads see it and a power failure leaves
    /// it; `None` removes it.
    ///
    /// This is no operation but another beginning: the trace starts anew from here, with the notes
    /// taken so far at its first point.
    ///
    /// # Panics
    ///
    /// If the path is a directory's.
    pub fn set_contents(&self, path: &str, bytes: Option<Vec<u8>>) {
        let mut disk = self.0.lock();
        assert_ne!(disk.medium.names().get(path), Some(Entry::Directory), "{path:?} is a directory");
        Arc::make_mut(&mut disk.medium).set_contents(path, bytes);
        let base = disk.medium.clone();
        disk.trace.restart(base);
    }

    /// The paths of all files, sorted.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let disk = self.0.lock();
        let files = disk.medium.names().iter().filter(|(_, entry)| *entry != Entry::Directory);
        files.map(|(path, _)| path.to_owned()).collect()
    }

    fn from_medium(medium: Medium, seed: u64) -> SimDisk {
        let medium = Arc::new(medium);
        SimDisk(Arc::new(Mutex::new(Inner {
            trace: Trace::new(medium.clone(), seed),
            medium,
            random: Random::new(seed),
            faults: Faults::default(),
            capacity: None,
            is_locked: false,
        })))
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let mut disk = self.0.lock();
        disk.faults.begin()?;
        let file = match access {
            Access::Read | Access::Write => disk.file(path)?,
            Access::CreateNew => disk.create(path)?,
        };
        Ok(Box::new(SimFile { disk: self.clone(), file, access }))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut disk = self.0.lock();
        disk.faults.begin()?;
        disk.check_directory(directory)?;
        let inside = disk.medium.names().iter().filter(|(path, _)| parent(path) == directory);
        Ok(inside.map(|(path, _)| path.rsplit_once('/').map_or(path, |(_, name)| name).to_owned()).collect())
    }

    /// One operation, however many names.
    fn inspect(&self, directory: &str, names: &[String]) -> io::Result<Vec<io::Result<FileInfo>>> {
        let mut disk = self.0.lock();
        disk.faults.begin()?;
        disk.check_directory(directory)?;
        let look = |name: &String| {
            let file = disk.file(&path_of(directory, name))?;
            Ok(FileInfo::regular(disk.length(file)))
        };
        Ok(names.iter().map(look).collect())
    }

    fn create_directory(&self, directory: &str) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.faults.begin()?;
        match disk.medium.names().get(directory) {
            Some(Entry::Directory) => return Ok(()),
            Some(Entry::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            None => {}
        }
        disk.check_directory(parent(directory))?;
        disk.set_name(directory, Some(Entry::Directory));
        Ok(())
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.faults.begin()?;
        disk.check_directory(directory)?;
        disk.perform(Step::SyncDirectory(directory.into()));
        Ok(())
    }

    /// Only within a directory: anything else is [`io::ErrorKind::CrossesDevices`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.faults.begin()?;
        disk.file(from)?;
        if parent(from) != parent(to) {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        if disk.medium.names().get(to) == Some(Entry::Directory) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let entry = disk.medium.names().get(from);
        disk.set_name(to, entry);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.faults.begin()?;
        disk.file(path)?;
        disk.set_name(path, None);
        Ok(())
    }

    fn link(&self, source: &dyn Disk, from: &str, to: &str) -> io::Result<()> {
        let own = (source as &dyn Any).downcast_ref::<SimDisk>();
        if !own.is_some_and(|source| Arc::ptr_eq(&source.0, &self.0)) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut disk = self.0.lock();
        disk.faults.begin()?;
        let file = disk.file(from)?;
        disk.check_new(to)?;
        disk.perform(Step::Link { file, path: to.into() });
        Ok(())
    }

    fn lock(&self) -> io::Result<Lock> {
        let mut disk = self.0.lock();
        if disk.is_locked {
            return Ok(Lock::HeldBy(Holder::ThisProcess));
        }
        disk.is_locked = true;
        Ok(Lock::Held(Box::new(Unlock(self.clone()))))
    }

    fn is_locked(&self) -> io::Result<bool> {
        Ok(self.0.lock().is_locked)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.0.lock().free_bytes())
    }

    fn random(&self) -> io::Result<[u8; 32]> {
        Ok(self.0.lock().random.bytes())
    }
}

struct Unlock(SimDisk);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.0.lock().is_locked = false;
    }
}

struct Inner {
    /// Shared with the trace until the first change.
    medium: Arc<Medium>,
    trace: Trace,
    random: Random,
    faults: Faults,
    capacity: Option<u64>,
    is_locked: bool,
}

impl Inner {
    fn perform(&mut self, step: Step) {
        Arc::make_mut(&mut self.medium).apply(&step);
        self.trace.push(step);
    }

    fn create(&mut self, path: &str) -> io::Result<usize> {
        self.check_new(path)?;
        if self.free_bytes() == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = self.medium.next_file();
        self.set_name(path, Some(Entry::File(file)));
        Ok(file)
    }

    fn check_new(&self, path: &str) -> io::Result<()> {
        self.check_directory(parent(path))?;
        match self.medium.names().get(path) {
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
            None => Ok(()),
        }
    }

    fn set_name(&mut self, path: &str, entry: Option<Entry>) {
        self.perform(Step::Name(NameChange { path: path.into(), entry }));
    }

    fn file(&self, path: &str) -> io::Result<usize> {
        match self.medium.names().get(path) {
            Some(Entry::File(file)) => Ok(self.medium.file_of(file)),
            Some(Entry::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn check_directory(&self, path: &str) -> io::Result<()> {
        match self.medium.names().get(path) {
            Some(Entry::Directory) => Ok(()),
            Some(Entry::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn length(&self, file: usize) -> u64 {
        to_u64(self.medium.bytes(file).len())
    }

    fn free_bytes(&self) -> u64 {
        let Some(capacity) = self.capacity else {
            return u64::MAX;
        };
        let lengths = self.medium.names().iter().map(|(_, entry)| match entry {
            Entry::File(file) if self.medium.file_of(file) == file => self.length(file),
            // A further name of a file takes no room.
            Entry::File(_) | Entry::Directory => 0,
        });
        capacity.saturating_sub(lengths.sum())
    }

    /// How long a file could be made.
    fn length_max(&self, file: usize) -> usize {
        let free = usize::try_from(self.free_bytes()).unwrap_or(usize::MAX);
        self.medium.bytes(file).len().saturating_add(free).min(FILE_BYTES_MAX)
    }
}
