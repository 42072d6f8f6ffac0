//! One segment file: created, opened, and read a block at a time.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::disk::{Access, Disk, DiskFile, read_full, write_all};
use crate::format::{
    Damage, Frame, FrameHeader, SEGMENT_HEADER_BYTES, SEGMENTS_DIRECTORY, SegmentHeader, SegmentId, frame,
};
use crate::types::{Error, ErrorKind, to_u64, to_usize};

/// A block's memory is reused up to this size. Larger memory served one large read and is freed.
const REUSED_BYTES_MAX: usize = 1 << 20;

/// Why a step of the log failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The step wrote nothing. The log may try it again.
    Refused(Error),
    /// The contents of the disk are unknown. The log must not write or sync again.
    Poison(Error),
}

impl Failure {
    /// The failure of a write. A full disk refuses the write; after any other error it is unknown which bytes
    /// were written.
    pub(crate) fn of_write(error: Error) -> Failure {
        if error.kind() == ErrorKind::NoSpace { Failure::Refused(error) } else { Failure::Poison(error) }
    }

    pub(crate) fn into_error(self) -> Error {
        match self {
            Failure::Refused(error) | Failure::Poison(error) => error,
        }
    }
}

/// An open segment file whose header was checked.
pub(crate) struct SegmentFile {
    pub(crate) header: SegmentHeader,
    /// From the store's directory; for messages.
    pub(crate) path: String,
    pub(crate) file: Box<dyn DiskFile>,
}

impl SegmentFile {
    /// Creates the file and makes its header, its zeros and its name durable. Only then may the log
    /// acknowledge a frame in it. The file is `zeros` bytes long, and at least as long as the header.
    ///
    /// A refusal leaves nothing behind, so the caller may try again. A file that was there before is not
    /// touched.
    pub(crate) fn create(
        disk: &dyn Disk,
        header: SegmentHeader,
        zeros: usize,
    ) -> Result<SegmentFile, Failure> {
        let path = header.id.path();
        let failed = |error| Error::io("cannot create", &path, error);
        let file = disk.open(&path, Access::CreateNew).map_err(|error| Failure::Refused(failed(error)))?;
        let mut bytes = header.write().to_vec();
        bytes.resize(zeros.max(SEGMENT_HEADER_BYTES), 0);
        write_all(file.as_ref(), &bytes, 0).map_err(|error| match disk.remove(&path) {
            Ok(()) => Failure::of_write(failed(error)),
            Err(_) => Failure::Poison(failed(error)),
        })?;
        // A failed sync poisons the log: a later sync that succeeds would not prove that the bytes are
        // durable.
        file.sync().map_err(|error| Failure::Poison(failed(error)))?;
        disk.sync_directory(SEGMENTS_DIRECTORY).map_err(|error| Failure::Poison(failed(error)))?;
        Ok(SegmentFile { header, path, file })
    }

    /// Opens the file of a segment that must be there, and checks that its header is whole. The caller checks
    /// that the header names this segment and this store.
    pub(crate) fn open(disk: &dyn Disk, id: SegmentId, access: Access) -> Result<SegmentFile, Error> {
        let path = id.path();
        let file = disk.open(&path, access).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing(id),
            _ => Error::io("cannot open", &path, error),
        })?;
        SegmentFile::from_file(file, path)
    }

    /// Reads and checks the header of a file.
    pub(crate) fn from_file(file: Box<dyn DiskFile>, path: String) -> Result<SegmentFile, Error> {
        let header =
            SegmentFile::read_header(file.as_ref(), &path)?.map_err(|damage| damaged(&path, 0, &damage))?;
        Ok(SegmentFile { header, path, file })
    }

    /// Reads and checks the header of an open file.
    pub(crate) fn read_header(
        file: &dyn DiskFile,
        path: &str,
    ) -> Result<Result<SegmentHeader, Damage>, Error> {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let read = read_full(file, &mut bytes, 0).map_err(|error| Error::io("cannot read", path, error))?;
        Ok(SegmentHeader::read(&bytes[..read]))
    }

    /// The length of the file in bytes.
    pub(crate) fn length(&self) -> Result<u64, Error> {
        self.file.length().map_err(|error| Error::io("cannot read the length of", &self.path, error))
    }

    /// Reads the bytes of `range`, which must be there, into new memory.
    pub(crate) fn block(&self, range: Range<u32>) -> Result<Block, Error> {
        self.block_over(None, range)
    }

    /// Reads the bytes of `range` into the memory of `old`, if no other block shares that memory. To map and
    /// clear new memory costs about as much as to read into it.
    pub(crate) fn block_over(&self, old: Option<Block>, range: Range<u32>) -> Result<Block, Error> {
        let mut memory = memory(old, to_usize(range.end - range.start));
        let bytes = Arc::get_mut(&mut memory).expect("the memory is not shared");
        self.read_at(range.start, bytes)?;
        Ok(Block { bytes: memory, start: range.start, is_known: false })
    }

    /// Reads bytes that must be there.
    pub(crate) fn read_at(&self, offset: u32, bytes: &mut [u8]) -> Result<(), Error> {
        let read = read_full(self.file.as_ref(), bytes, offset.into())
            .map_err(|error| Error::io("cannot read", &self.path, error))?;
        if read < bytes.len() {
            let end = u64::from(offset) + to_u64(read);
            return Err(Error::corrupt(&self.path, end, "the file ends where events were"));
        }
        Ok(())
    }

    /// Damage at an offset of this file, as an error.
    pub(crate) fn damaged(&self, offset: u64, damage: &Damage) -> Error {
        damaged(&self.path, offset, damage)
    }
}

/// Memory for a block: that of an old block, if it is not shared.
fn memory(old: Option<Block>, bytes: usize) -> Arc<Vec<u8>> {
    if let Some(Block { bytes: mut memory, .. }) = old
        && let Some(own) = Arc::get_mut(&mut memory)
        && own.capacity() <= REUSED_BYTES_MAX
    {
        own.resize(bytes, 0);
        return memory;
    }
    Arc::new(vec![0; bytes])
}

/// The error for a segment whose file is gone.
pub(crate) fn missing(id: SegmentId) -> Error {
    Error::corrupt(&id.path(), 0, missing_text(id))
}

/// The text of [`missing`], without the path.
pub(crate) fn missing_text(id: SegmentId) -> String {
    format!("the segment is missing; it begins at position {}", id.first_position)
}

/// Damage at an offset of a file, as an error.
pub(crate) fn damaged(file: &str, offset: u64, damage: &Damage) -> Error {
    match damage {
        Damage::Bad(what) | Damage::Forbidden(what) => Error::corrupt(file, offset, what),
        Damage::Newer(feature) => Error::needs_newer(file, feature),
    }
}

/// Some whole frames of a segment, in memory.
#[derive(Clone)]
pub(crate) struct Block {
    pub(crate) bytes: Arc<Vec<u8>>,
    /// The offset of the first byte in the segment.
    pub(crate) start: u32,
    /// The frames were written or checked by this process and never left its memory since.
    is_known: bool,
}

impl Block {
    /// Frames at `start` that this process wrote or checked in these bytes. Their checksums are not checked
    /// again.
    pub(crate) fn known(bytes: Arc<Vec<u8>>, start: u32) -> Block {
        Block { bytes, start, is_known: true }
    }

    /// Whether its frames need not be checked.
    pub(crate) fn is_known(&self) -> bool {
        self.is_known
    }

    pub(crate) fn holds(&self, range: &Range<u32>) -> bool {
        self.start <= range.start && to_usize(range.end - self.start) <= self.bytes.len()
    }

    /// The place in the block of an offset of the segment.
    pub(crate) fn at(&self, offset: u32) -> usize {
        to_usize(offset - self.start)
    }

    /// Checks the frame at `offset` of the segment. The frame must lie in the block as a whole.
    #[inline(always)]
    pub(crate) fn frame(&self, segment: &SegmentFile, offset: u32) -> Result<Frame<'_>, Error> {
        let bytes = &self.bytes[self.at(offset)..];
        if self.is_known {
            return Ok(Frame::known(bytes));
        }
        let place = segment.header.frame_place(offset);
        frame::read(bytes, &place).map_err(|damage| segment.damaged(offset.into(), &damage))
    }

    /// The frame at `offset`, if a whole frame lies there in the block.
    #[inline(always)]
    pub(crate) fn frame_if_whole(&self, segment: &SegmentFile, offset: u32) -> Option<Frame<'_>> {
        let bytes = self.bytes.get(self.at(offset)..)?;
        let place = segment.header.frame_place(offset);
        if self.is_known {
            frame::known_if_whole(bytes, segment.header.frame_mark(offset.into()))
        } else {
            frame::read(bytes, &place).ok()
        }
    }

    /// Checks the header of the frame at `offset`. The body need not lie in the block.
    pub(crate) fn header(&self, segment: &SegmentFile, offset: u32) -> Result<FrameHeader<'_>, Error> {
        let bytes = &self.bytes[self.at(offset)..];
        if self.is_known {
            return Ok(FrameHeader::known(bytes));
        }
        let mark = segment.header.frame_mark(offset.into());
        frame::read_header(bytes, mark).map_err(|damage| segment.damaged(offset.into(), &damage))
    }
}
