//! One segment file: opened, created, and read a block at a time.
//!
//! Row: log.

use std::ops::Range;
use std::sync::Arc;

use crate::disk::{Access, Disk, DiskFile, read_full, write_all};
use crate::format::{
    Damage, Frame, FrameHeader, SEGMENT_HEADER_BYTES, SEGMENTS_DIRECTORY, SegmentHeader, SegmentId, frame,
};
use crate::types::Error;

use super::Failure;

/// Memory of more than this was for something else, and is not kept for blocks.
const REUSED_MAX: usize = 1 << 20;

/// An open segment file whose header was checked.
pub(crate) struct SegmentFile {
    pub(crate) header: SegmentHeader,
    /// From the store's directory; for messages.
    pub(crate) path: String,
    pub(crate) file: Box<dyn DiskFile>,
}

impl SegmentFile {
    /// Creates the file, makes header, zeros up to `zeros` and name durable. Only then may a frame
    /// in it be acknowledged.
    ///
    /// A refusal leaves nothing behind, so that creating can be tried again; a file that was there
    /// before is somebody else's, and stays. A failed sync poisons: a later one that succeeds would not
    /// say that the name is durable.
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
        file.sync().map_err(|error| Failure::Poison(failed(error)))?;
        disk.sync_directory(SEGMENTS_DIRECTORY).map_err(|error| Failure::Poison(failed(error)))?;
        Ok(SegmentFile { header, path, file })
    }

    /// Opens the file of a segment that must be there, and checks its header. Whose segment it is, and whether
    /// it has its own name, is for the caller to see.
    pub(crate) fn open(disk: &dyn Disk, id: SegmentId, access: Access) -> Result<SegmentFile, Error> {
        let path = id.path();
        let file = disk.open(&path, access).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => missing(id),
            _ => Error::io("cannot open", &path, error),
        })?;
        SegmentFile::around(file, path)
    }

    /// Reads and checks the header of a file.
    pub(crate) fn around(file: Box<dyn DiskFile>, path: String) -> Result<SegmentFile, Error> {
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

    pub(crate) fn length(&self) -> Result<u64, Error> {
        self.file.length().map_err(|error| Error::io("cannot read the length of", &self.path, error))
    }

    /// Reads the bytes of `range`, which must be there, into memory of their own.
    pub(crate) fn block(&self, range: Range<u32>) -> Result<Block, Error> {
        self.block_over(None, range)
    }

    /// The same into the memory of an old block, if nobody else looks at it any more: to clear new memory for
    /// each block, and to have it mapped, costs about as much as to read it.
    pub(crate) fn block_over(&self, old: Option<Block>, range: Range<u32>) -> Result<Block, Error> {
        let mut memory = memory(old, wide(range.end - range.start));
        let bytes = Arc::get_mut(&mut memory).expect("nobody else has it");
        let read = read_full(self.file.as_ref(), bytes, range.start.into())
            .map_err(|error| Error::io("cannot read", &self.path, error))?;
        if read < bytes.len() {
            let end = u64::from(range.start) + u64::try_from(read).expect("a length fits 64 bits");
            return Err(Error::corrupt(&self.path, end, "the file ends where events were"));
        }
        Ok(Block { bytes: memory, start: range.start, is_known: false })
    }

    pub(crate) fn damaged(&self, offset: u64, damage: &Damage) -> Error {
        damaged(&self.path, offset, damage)
    }
}

/// Memory for a block: that of an old one, if nobody holds it.
fn memory(old: Option<Block>, bytes: usize) -> Arc<Vec<u8>> {
    if let Some(Block { bytes: mut memory, .. }) = old
        && let Some(own) = Arc::get_mut(&mut memory)
        && own.capacity() <= REUSED_MAX
    {
        own.resize(bytes, 0);
        return memory;
    }
    Arc::new(vec![0; bytes])
}

/// What is said of a segment whose file is gone.
pub(crate) fn missing(id: SegmentId) -> Error {
    Error::corrupt(&id.path(), 0, missing_text(id))
}

/// The same without its file.
pub(crate) fn missing_text(id: SegmentId) -> String {
    format!("the segment is missing; it begins at position {}", id.first_position)
}

/// Damage with its place, as the error its reader gets.
pub(crate) fn damaged(file: &str, offset: u64, damage: &Damage) -> Error {
    match damage {
        Damage::Bad(what) | Damage::Forbidden(what) => Error::corrupt(file, offset, what),
        Damage::Newer(feature) => Error::needs_newer(file, feature),
    }
}

/// Some whole frames of a segment.
#[derive(Clone)]
pub(crate) struct Block {
    pub(crate) bytes: Arc<Vec<u8>>,
    /// Where they lie in the segment.
    pub(crate) start: u32,
    /// They were never on a disk since their checksums were made or checked.
    is_known: bool,
}

impl Block {
    /// Frames that lie at `start` and were written from these bytes: their checksums need no check.
    pub(crate) fn known(bytes: Arc<Vec<u8>>, start: u32) -> Block {
        Block { bytes, start, is_known: true }
    }

    pub(crate) fn holds(&self, range: &Range<u32>) -> bool {
        self.start <= range.start && wide(range.end - self.start) <= self.bytes.len()
    }

    /// Where an offset of the segment lies in the block.
    pub(crate) fn at(&self, offset: u32) -> usize {
        wide(offset - self.start)
    }

    /// Checks and takes apart the frame at `offset` of the segment.
    #[inline(always)]
    pub(crate) fn frame(&self, segment: &SegmentFile, offset: u32) -> Result<Frame<'_>, Error> {
        let bytes = &self.bytes[self.at(offset)..];
        if self.is_known {
            return Ok(Frame::known(bytes));
        }
        let mark = segment.header.frame_mark(offset.into());
        frame::read(bytes, mark).map_err(|damage| segment.damaged(offset.into(), &damage))
    }

    /// The same, if there is one and all of it lies here.
    #[inline(always)]
    pub(crate) fn frame_if_whole(&self, segment: &SegmentFile, offset: u32) -> Option<Frame<'_>> {
        let bytes = self.bytes.get(self.at(offset)..)?;
        let mark = segment.header.frame_mark(offset.into());
        if self.is_known { frame::known_if_whole(bytes, mark) } else { frame::read(bytes, mark).ok() }
    }

    /// The same of the frame's header alone.
    pub(crate) fn header(&self, segment: &SegmentFile, offset: u32) -> Result<FrameHeader<'_>, Error> {
        let bytes = &self.bytes[self.at(offset)..];
        if self.is_known {
            return Ok(FrameHeader::known(bytes));
        }
        let mark = segment.header.frame_mark(offset.into());
        frame::read_header(bytes, mark).map_err(|damage| segment.damaged(offset.into(), &damage))
    }
}

/// A 32-bit offset as one for slices.
pub(crate) fn wide(offset: u32) -> usize {
    usize::try_from(offset).expect("annals needs pointers of at least 32 bits")
}
