//! The file MARK: how much of the log is proven durable. Two slots, written in place and in turn.

use crate::disk::{Access, Disk, DiskFile, if_there, write_all};
use crate::format::{Mark, SegmentId, mark};
use crate::types::Error;

use super::cursor::LogEnd;

/// The open file, and what its slots say.
pub(crate) struct MarkFile {
    file: Box<dyn DiskFile>,
    store_id: [u8; 16],
    sequence: u64,
    is_synced: bool,
    is_clean: bool,
    /// For each slot, the first position of the segment that the slot names: as last written, and as last
    /// synced. 0 if it is not known.
    written: [u64; 2],
    durable: [u64; 2],
}

impl MarkFile {
    /// Opens the file, or creates it if it was lost. `newest` is the newest valid slot; `is_clean` says that
    /// the slot marks a clean close of the segment that the log continues.
    pub(crate) fn open(
        disk: &dyn Disk,
        store_id: [u8; 16],
        newest: Option<&Mark>,
        is_clean: bool,
    ) -> Result<MarkFile, Error> {
        let file = open_or_create(disk).map_err(|error| Error::io("cannot open", mark::NAME, error))?;
        Ok(MarkFile {
            file,
            store_id,
            sequence: newest.map_or(0, |mark| mark.sequence),
            is_synced: true,
            is_clean,
            written: [0; 2],
            durable: [0; 2],
        })
    }

    /// Writes how much of a segment is durable. The caller must have synced the segment.
    pub(crate) fn write(&mut self, segment: SegmentId, durable: &LogEnd, clean: bool) -> Result<(), Error> {
        self.sequence += 1;
        let mark = Mark {
            store_id: self.store_id,
            sequence: self.sequence,
            segment,
            durable_end: durable.offset,
            position: durable.position,
            chain: durable.chain,
            clean,
        };
        self.is_synced = false;
        self.is_clean = clean;
        self.written[usize::from(mark.offset() > 0)] = segment.first_position;
        write_all(self.file.as_ref(), &mark.write(), mark.offset())
            .map_err(|error| Error::io("cannot write", mark::NAME, error))
    }

    /// Makes the written slots durable.
    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        self.file.sync().map_err(|error| Error::io("cannot sync", mark::NAME, error))?;
        self.is_synced = true;
        self.durable = self.written;
        Ok(())
    }

    pub(crate) fn identity(&self) -> Option<(u64, u64)> {
        self.file.identity()
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.is_synced
    }

    /// Whether the newest slot marks a clean close.
    pub(crate) fn is_clean(&self) -> bool {
        self.is_clean
    }

    /// Whether both slots name a segment that begins behind this position, also after a power cut.
    pub(crate) fn is_behind(&self, position: u64) -> bool {
        self.durable.iter().all(|first| *first > position)
    }
}

/// Opens MARK for writing, and creates it if it is not there.
pub(crate) fn open_or_create(disk: &dyn Disk) -> std::io::Result<Box<dyn DiskFile>> {
    match if_there(disk.open(mark::NAME, Access::Write))? {
        Some(file) => Ok(file),
        None => create_mark_file(disk),
    }
}

/// Creates MARK with both slots zero, durably. The slots get their disk blocks now, so that writing a slot
/// never needs space.
pub(crate) fn create_mark_file(disk: &dyn Disk) -> std::io::Result<Box<dyn DiskFile>> {
    let file = disk.open(mark::NAME, Access::CreateNew)?;
    write_all(file.as_ref(), &[0; mark::FILE_BYTES], 0)?;
    file.sync()?;
    disk.sync_directory("")?;
    Ok(file)
}
