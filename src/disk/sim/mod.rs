//! A disk in memory that fails and loses power on demand: what the crash and fault tests run on.
//!
//! It separates what a program sees from what a power failure would leave, as strictly as POSIX allows. Bytes
//! are durable after a sync of their file, names after a sync of their directory. A failed sync loses bytes
//! that can still be read. Invariants:
//! - nothing depends on time, threads or the platform: the same seed and the same calls give the same disk,
//!   bit for bit;
//! - every change goes through [`Medium::apply`] and into the trace, so every past state of the disk can be
//!   restored.
//!
//! `medium` is what the disk holds, and its trace; `faults` is what fails, and what is lost then.

mod faults;
mod medium;
#[cfg(test)]
mod tests;

pub use faults::Fault;
pub use medium::{CrashMode, Trace};

use std::any::Any;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::mem::ProcessLock;
use super::{Access, Disk, DiskFile, FileInfo, Lock, path_of};
use crate::types::to_u64;
use faults::{Faults, SeededRandom};
use medium::{Medium, MediumChange, NameChange, NameTarget, parent};

/// The longest file. A longer one is a mistake in a test: it gets an error instead of gigabytes of zeros.
const FILE_BYTES_MAX: usize = 1 << 30;

/// A disk in memory. A test can make its operations fail, and cut the power after any of them. Clones share
/// the files.
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
/// Every call that touches the medium: all methods of [`Disk`] and [`DiskFile`] but `lock`, `is_locked`,
/// `free_bytes`, `random` and `wants_zeros`. Each call is counted and can be made to fail. A call that fails
/// by itself counts as well.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<SimulatedState>>);

impl SimDisk {
    /// An empty disk. The seed decides what [`Disk::random`] returns and which bytes failed syncs lose.
    #[must_use]
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::from_medium(Medium::default(), seed)
    }

    /// The number of operations so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.0.lock().faults.operations()
    }

    /// Makes one operation fail: the next for 0, the one after it for 1.
    pub fn fail(&self, nth: u64, fault: Fault) {
        self.0.lock().faults.add(nth, fault);
    }

    /// Makes one operation, counted as in [`fail`](SimDisk::fail), and all operations after it fail.
    pub fn fail_from(&self, nth: u64, fault: Fault) {
        self.0.lock().faults.add_from(nth, fault);
    }

    /// Cancels all faults that are still to come.
    pub fn heal(&self) {
        self.0.lock().faults.clear();
    }

    /// Limits the bytes of all files together. At the limit writes are short; a write without any room fails
    /// with [`io::ErrorKind::StorageFull`]. To create a file takes one free byte.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// Puts a note into the trace, between the operations before and after.
    pub fn note(&self, value: u64) {
        self.0.lock().trace.note(value);
    }

    /// All changes since the disk was made, or since [`set_contents`](SimDisk::set_contents).
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

    /// Puts a file and its directory in place, durably; `None` removes the file.
    ///
    /// This does not count as an operation. The trace starts anew from here, with all notes so far at its
    /// first point.
    ///
    /// # Panics
    ///
    /// If the path is a directory.
    pub fn set_contents(&self, path: &str, bytes: Option<Vec<u8>>) {
        let mut disk = self.0.lock();
        assert_ne!(disk.medium.names().get(path), Some(NameTarget::Directory), "{path:?} is a directory");
        Arc::make_mut(&mut disk.medium).set_contents(path, bytes);
        let base = disk.medium.clone();
        disk.trace.restart(base);
    }

    /// The paths of all files, sorted.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let disk = self.0.lock();
        let files = disk.medium.names().iter().filter(|(_, entry)| *entry != NameTarget::Directory);
        files.map(|(path, _)| path.to_owned()).collect()
    }

    fn from_medium(medium: Medium, seed: u64) -> SimDisk {
        let medium = Arc::new(medium);
        SimDisk(Arc::new(Mutex::new(SimulatedState {
            trace: Trace::new(medium.clone(), seed),
            medium,
            random: SeededRandom::new(seed),
            faults: Faults::default(),
            capacity: None,
            lock: ProcessLock::default(),
        })))
    }
}

impl Trace {
    /// The disk as a restart could find it if the machine, or only the process, had stopped right after the
    /// first `point` operations.
    ///
    /// The new disk is not locked, has no faults and no limit of its capacity. After a power failure no
    /// change is pending on it. It has a trace of its own that starts empty, so it can be stopped again. The
    /// same trace, point and mode give the same disk, bit for bit.
    ///
    /// # Panics
    ///
    /// If `point` is greater than [`len`](Trace::len).
    #[must_use]
    pub fn image(&self, point: usize, mode: CrashMode) -> SimDisk {
        let (medium, seed) = self.stopped(point, mode);
        SimDisk::from_medium(medium, seed)
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

    /// Counts as one operation for any number of names.
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
            Some(NameTarget::Directory) => return Ok(()),
            Some(NameTarget::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            None => {}
        }
        disk.check_directory(parent(directory))?;
        disk.set_name(directory, Some(NameTarget::Directory));
        Ok(())
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.faults.begin()?;
        disk.check_directory(directory)?;
        disk.perform(MediumChange::SyncDirectory(directory.into()));
        Ok(())
    }

    /// Renames only within a directory: any other rename is [`io::ErrorKind::CrossesDevices`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.faults.begin()?;
        disk.file(from)?;
        if parent(from) != parent(to) {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        if disk.medium.names().get(to) == Some(NameTarget::Directory) {
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
        disk.perform(MediumChange::Link { file, path: to.into() });
        Ok(())
    }

    fn lock(&self) -> io::Result<Lock> {
        Ok(self.0.lock().lock.try_lock())
    }

    fn is_locked(&self) -> io::Result<bool> {
        Ok(self.0.lock().lock.is_locked())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.0.lock().free_bytes())
    }

    fn random(&self) -> io::Result<[u8; 32]> {
        Ok(self.0.lock().random.bytes())
    }
}

struct SimulatedState {
    /// Shared with the trace until the first change.
    medium: Arc<Medium>,
    trace: Trace,
    random: SeededRandom,
    faults: Faults,
    capacity: Option<u64>,
    lock: ProcessLock,
}

impl SimulatedState {
    fn perform(&mut self, change: MediumChange) {
        Arc::make_mut(&mut self.medium).apply(&change);
        self.trace.push(change);
    }

    fn create(&mut self, path: &str) -> io::Result<usize> {
        self.check_new(path)?;
        if self.free_bytes() == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = self.medium.next_file();
        self.set_name(path, Some(NameTarget::File(file)));
        Ok(file)
    }

    fn check_new(&self, path: &str) -> io::Result<()> {
        self.check_directory(parent(path))?;
        match self.medium.names().get(path) {
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
            None => Ok(()),
        }
    }

    fn set_name(&mut self, path: &str, target: Option<NameTarget>) {
        self.perform(MediumChange::Name(NameChange { path: path.into(), target }));
    }

    fn file(&self, path: &str) -> io::Result<usize> {
        match self.medium.names().get(path) {
            Some(NameTarget::File(file)) => Ok(self.medium.file_of(file)),
            Some(NameTarget::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn check_directory(&self, path: &str) -> io::Result<()> {
        match self.medium.names().get(path) {
            Some(NameTarget::Directory) => Ok(()),
            Some(NameTarget::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
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
            NameTarget::File(file) if self.medium.file_of(file) == file => self.length(file),
            // A second name of a file takes no room.
            NameTarget::File(_) | NameTarget::Directory => 0,
        });
        capacity.saturating_sub(lengths.sum())
    }

    /// The greatest length that a file can get.
    fn length_max(&self, file: usize) -> usize {
        let free = usize::try_from(self.free_bytes()).unwrap_or(usize::MAX);
        self.medium.bytes(file).len().saturating_add(free).min(FILE_BYTES_MAX)
    }
}

/// An open file of a simulated disk.
struct SimFile {
    disk: SimDisk,
    file: usize,
    access: Access,
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        match self.access {
            Access::Read => Err(io::Error::new(io::ErrorKind::PermissionDenied, "opened for reading only")),
            Access::Write | Access::CreateNew => Ok(()),
        }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk.0.lock();
        let most = disk.faults.begin()?;
        let bytes = disk.medium.bytes(self.file);
        let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
        let read = rest.len().min(buffer.len()).min(most.max(1));
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk.0.lock();
        let most = disk.faults.begin()?;
        self.check_writable()?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let room = disk.length_max(self.file).saturating_sub(offset);
        if room == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = bytes.len().min(most).min(room);
        if written > 0 {
            disk.perform(MediumChange::Write { file: self.file, offset, bytes: bytes[..written].into() });
        }
        Ok(written)
    }

    fn length(&self) -> io::Result<u64> {
        let mut disk = self.disk.0.lock();
        disk.faults.begin()?;
        Ok(disk.length(self.file))
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        let mut disk = self.disk.0.lock();
        disk.faults.begin()?;
        self.check_writable()?;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        if bytes > disk.length_max(self.file) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.perform(MediumChange::SetLength { file: self.file, bytes });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk.0.lock();
        let begun = disk.faults.begin();
        let change = match begun {
            Ok(_) => MediumChange::Sync { file: self.file },
            Err(_) => MediumChange::FailSync { file: self.file, seed: disk.random.next() },
        };
        disk.perform(change);
        begun.map(drop)
    }

    fn drop_cache(&self, offset: u64) -> io::Result<()> {
        let mut disk = self.disk.0.lock();
        disk.faults.begin()?;
        // Beyond every file's end there is nothing to drop.
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        disk.perform(MediumChange::DropCache { file: self.file, offset });
        Ok(())
    }
}
