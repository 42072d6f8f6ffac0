//! A file that is opened when it is read, and closed when others need its descriptor more.
//!
//! Row: shelf.

use std::io;
use std::sync::{Arc, OnceLock};

use crate::disk::{Access, Disk, DiskFile};

use super::lru::{LruPool, LruSlot};

/// To be read only; its bytes never change.
pub(super) struct LazyFile {
    disk: Arc<dyn Disk>,
    path: String,
    place: Arc<LruSlot<Box<dyn DiskFile>>>,
    room: Arc<LruPool<Box<dyn DiskFile>>>,
    pinned: Pinned,
}

/// A file that stays open, once there is one: its name will be gone.
pub(super) type Pinned = Arc<OnceLock<Arc<Box<dyn DiskFile>>>>;

impl LazyFile {
    pub(super) fn new(disk: Arc<dyn Disk>, path: String, room: Arc<LruPool<Box<dyn DiskFile>>>) -> LazyFile {
        LazyFile::pinned_by(Pinned::default(), disk, path, room)
    }

    /// One that reads from the pinned file once there is one.
    pub(super) fn pinned_by(
        pinned: Pinned,
        disk: Arc<dyn Disk>,
        path: String,
        room: Arc<LruPool<Box<dyn DiskFile>>>,
    ) -> LazyFile {
        LazyFile { disk, path, place: Arc::default(), room, pinned }
    }

    fn file(&self) -> io::Result<Arc<Box<dyn DiskFile>>> {
        if let Some(pinned) = self.pinned.get() {
            return Ok(pinned.clone());
        }
        let made = self.room.get_or_make(&self.place, || Ok((self.disk.open(&self.path, Access::Read)?, 1)));
        // It may have been pinned, and have lost its name, while it was being opened.
        made.or_else(|error| self.pinned.get().cloned().ok_or(error))
    }
}

impl Drop for LazyFile {
    fn drop(&mut self) {
        self.room.clear(&self.place);
    }
}

impl DiskFile for LazyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file()?.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.file()?.write_at(bytes, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.file()?.length()
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.file()?.set_length(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.file()?.sync()
    }

    fn drop_cache(&self, offset: u64) -> io::Result<()> {
        self.file()?.drop_cache(offset)
    }
}
