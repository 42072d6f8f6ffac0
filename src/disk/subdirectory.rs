//! A directory of another disk, as a disk of its own.

use std::any::Any;
use std::io;
use std::sync::Arc;

use super::mem::ProcessLock;
use super::{Access, Disk, DiskFile, FileInfo, Lock};

/// A directory of another [`Disk`], as a disk of its own. A store in it can be opened like any other, for
/// example one that [`Builder::rollback`](crate::Builder::rollback) has put into `quarantine/`.
///
/// Only clones of this handle know its lock. The caller must see to it that no other handle writes to the
/// directory.
///
/// ```
/// use annals::disk::{Access, Disk, MemDisk, Subdirectory};
///
/// let disk = MemDisk::new();
/// let inside = Subdirectory::create(disk.clone(), "archive/2026")?;
/// inside.open("MARK", Access::CreateNew)?;
/// assert_eq!(disk.list("archive/2026")?, ["MARK"]);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Subdirectory {
    disk: Arc<dyn Disk>,
    directory: String,
    lock: ProcessLock,
}

impl Subdirectory {
    /// A directory that must be there.
    pub fn of(disk: impl Disk, directory: impl Into<String>) -> Subdirectory {
        Subdirectory::within(Arc::new(disk), directory.into())
    }

    /// A directory that is created if it is not there, durably and with the directories around it.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub fn create(disk: impl Disk, directory: impl Into<String>) -> io::Result<Subdirectory> {
        Subdirectory::create_within(Arc::new(disk), directory.into())
    }

    pub(crate) fn within(disk: Arc<dyn Disk>, directory: String) -> Subdirectory {
        Subdirectory { disk, directory, lock: ProcessLock::default() }
    }

    pub(crate) fn create_within(disk: Arc<dyn Disk>, directory: String) -> io::Result<Subdirectory> {
        let ends = directory.match_indices('/').map(|(end, _)| end).chain([directory.len()]);
        for end in ends {
            let path = &directory[..end];
            disk.create_directory(path)?;
            disk.sync_directory(path.rsplit_once('/').map_or("", |(parent, _)| parent))?;
        }
        Ok(Subdirectory::within(disk, directory))
    }

    fn path(&self, path: &str) -> String {
        if path.is_empty() { self.directory.clone() } else { format!("{}/{path}", self.directory) }
    }

    /// The disk that has the files, and the path of a file there.
    fn resolve<'a>(disk: &'a dyn Disk, path: &str) -> (&'a dyn Disk, String) {
        match (disk as &dyn Any).downcast_ref::<Subdirectory>() {
            Some(inside) => Subdirectory::resolve(inside.disk.as_ref(), &inside.path(path)),
            None => (disk, path.to_owned()),
        }
    }
}

impl Disk for Subdirectory {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(&self.path(path), access)
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.disk.list(&self.path(directory))
    }

    fn inspect(&self, directory: &str, names: &[String]) -> io::Result<Vec<io::Result<FileInfo>>> {
        self.disk.inspect(&self.path(directory), names)
    }

    fn create_directory(&self, directory: &str) -> io::Result<()> {
        self.disk.create_directory(&self.path(directory))
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        self.disk.sync_directory(&self.path(directory))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(&self.path(from), &self.path(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(&self.path(path))
    }

    fn link(&self, source: &dyn Disk, from: &str, to: &str) -> io::Result<()> {
        let (source, from) = Subdirectory::resolve(source, from);
        self.disk.link(source, &from, &self.path(to))
    }

    fn lock(&self) -> io::Result<Lock> {
        Ok(self.lock.try_lock())
    }

    fn is_locked(&self) -> io::Result<bool> {
        Ok(self.lock.is_locked())
    }

    fn check_names(&self, names: &[(&str, Option<(u64, u64)>)]) -> io::Result<()> {
        let paths: Vec<_> = names.iter().map(|(name, identity)| (self.path(name), *identity)).collect();
        let names: Vec<_> = paths.iter().map(|(path, identity)| (path.as_str(), *identity)).collect();
        self.disk.check_names(&names)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    fn random(&self) -> io::Result<[u8; 32]> {
        self.disk.random()
    }

    fn place(&self) -> String {
        format!("{}/{}", self.disk.place(), self.directory)
    }

    fn wants_zeros(&self) -> bool {
        self.disk.wants_zeros()
    }
}
