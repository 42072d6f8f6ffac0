//! An open file of a simulated disk.
//!
//! Row: disk.

use std::io;

use super::SimDisk;
use super::medium::Step;
use crate::disk::{Access, DiskFile};

pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) file: usize,
    pub(super) access: Access,
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
            disk.perform(Step::Write { file: self.file, offset, bytes: bytes[..written].into() });
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
        disk.perform(Step::SetLength { file: self.file, bytes });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk.0.lock();
        let begun = disk.faults.begin();
        let step = match begun {
            Ok(_) => Step::Sync { file: self.file },
            Err(_) => Step::FailSync { file: self.file, seed: disk.random.next() },
        };
        disk.perform(step);
        begun.map(drop)
    }

    fn drop_cache(&self, offset: u64) -> io::Result<()> {
        let mut disk = self.disk.0.lock();
        disk.faults.begin()?;
        // Beyond every file's end there is nothing to drop.
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        disk.perform(Step::DropCache { file: self.file, offset });
        Ok(())
    }
}
