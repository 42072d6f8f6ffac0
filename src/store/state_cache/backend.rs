//! redb's file, on our disk.
//!
//! Row: cache.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;

use crate::disk::{DiskFile, read_full, write_all};

/// A file of the store's disk, as redb wants it.
pub(super) struct Backend {
    pub(super) file: Box<dyn DiskFile>,
    /// Syncs are left out while this is false: whoever loads a state must not wait for the disk, and what is lost
    /// with the power then is only a cache.
    pub(super) syncs: Arc<AtomicBool>,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let read = read_full(self.file.as_ref(), out, offset)?;
        if read == out.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_length(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.syncs.load(Ordering::Relaxed) { self.file.sync() } else { Ok(()) }
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        write_all(self.file.as_ref(), bytes, offset)
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a cache file")
    }
}
