//! Files in memory: the disk of [`Store::in_memory`](crate::Store::in_memory).
//!
//! The files do not survive the process, so a sync has nothing to do.

use std::any::Any;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::{Access, Disk, DiskFile, Holder, Lock};

type SharedBytes = Arc<RwLock<Vec<u8>>>;

/// A disk in memory. Clones share the files, so a store can be closed and opened again.
///
/// ```
/// use annals::disk::MemDisk;
/// use annals::{Raw, Store};
///
/// let disk = MemDisk::new();
/// let store = Store::on(disk.clone()).open()?;
/// store.append("account:alice", &Raw("account.opened", &()))?;
/// store.close()?;
/// assert_eq!(Store::on(disk).open()?.stream("account:alice").count(), 1);
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct MemDisk {
    files: Arc<Mutex<HashMap<String, SharedBytes>>>,
    lock: ProcessLock,
}

impl MemDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> MemDisk {
        MemDisk::default()
    }
}

impl Disk for MemDisk {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let mut files = self.files.lock();
        let content = match (files.get(path), access) {
            (Some(_), Access::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (None, Access::Read | Access::Write) => return Err(io::ErrorKind::NotFound.into()),
            (Some(content), _) => content.clone(),
            (None, Access::CreateNew) => files.entry(path.to_owned()).or_default().clone(),
        };
        Ok(Box::new(MemFile(content)))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let files = self.files.lock();
        let inside = files.keys().filter_map(|path| path.strip_prefix(&prefix));
        // Directories have no entries of their own: a directory is there if a file lies in it.
        let names: BTreeSet<&str> =
            inside.map(|path| path.split_once('/').map_or(path, |(name, _)| name)).collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    fn create_directory(&self, _directory: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&self, _directory: &str) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.lock();
        let content = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.files.lock().remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn link(&self, source: &dyn Disk, from: &str, to: &str) -> io::Result<()> {
        let own = (source as &dyn Any).downcast_ref::<MemDisk>();
        if !own.is_some_and(|source| Arc::ptr_eq(&source.files, &self.files)) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut files = self.files.lock();
        let content = files.get(from).cloned().ok_or(io::ErrorKind::NotFound)?;
        if files.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn lock(&self) -> io::Result<Lock> {
        Ok(self.lock.try_lock())
    }

    fn is_locked(&self) -> io::Result<bool> {
        Ok(self.lock.is_locked())
    }

    fn place(&self) -> String {
        "memory, gone with the process".to_owned()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn random(&self) -> io::Result<[u8; 32]> {
        super::os::random()
    }

    fn wants_zeros(&self) -> bool {
        false
    }
}

/// A writer's lock that only this process knows. Clones are the same lock.
#[derive(Clone, Default)]
pub(super) struct ProcessLock(Arc<Mutex<bool>>);

/// Frees the lock when it is dropped.
struct HeldProcessLock(ProcessLock);

impl ProcessLock {
    pub(super) fn try_lock(&self) -> Lock {
        let mut is_locked = self.0.lock();
        if *is_locked {
            return Lock::HeldBy(Holder::ThisProcess);
        }
        *is_locked = true;
        Lock::Held(Box::new(HeldProcessLock(self.clone())))
    }

    pub(super) fn is_locked(&self) -> bool {
        *self.0.lock()
    }
}

impl Drop for HeldProcessLock {
    fn drop(&mut self) {
        *self.0.0.lock() = false;
    }
}

struct MemFile(SharedBytes);

impl DiskFile for MemFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.0.read();
        let rest = usize::try_from(offset).ok().and_then(|offset| content.get(offset..)).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut content = self.0.write();
        let end = offset.checked_add(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset..end].copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn length(&self) -> io::Result<u64> {
        u64::try_from(self.0.read().len()).map_err(|_| io::ErrorKind::FileTooLarge.into())
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        let bytes = usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.0.write().resize(bytes, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn drop_cache(&self, _offset: u64) -> io::Result<()> {
        Ok(())
    }
}
