//! Creates the files of a new store, and the header of each next segment.

use crate::disk::{Disk, remove_if_there, write_all};
use crate::format::{
    Manifest, Mark, SEGMENT_HEADER_BYTES, SEGMENTS_DIRECTORY, SegmentHeader, SegmentId, array, genesis, mark,
    u64_at,
};
use crate::types::{Error, to_u32};

use super::cursor::LogEnd;
use super::manifest_file::replace_manifest;
use super::mark_file::create_mark_file;
use super::preallocate::new_segment_bytes;
use super::segment::{Failure, SegmentFile};

/// The sizes that the log keeps to, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct LogOptions {
    pub(crate) segment_bytes_max: u32,
    pub(crate) unsynced_bytes_max: u64,
}

/// A random id for a new store, and its line.
pub(crate) fn new_store_id(disk: &dyn Disk) -> Result<([u8; 16], [u8; 16]), Error> {
    let random = disk.random().map_err(|error| Error::io("cannot create", "a store id", error))?;
    let store_id = *uuid::Builder::from_random_bytes(array(&random, 0)).as_uuid().as_bytes();
    Ok((store_id, array(&random, size_of_val(&store_id))))
}

/// A line for a history that gives positions again: after a rollback or a restore.
pub(crate) fn new_line(disk: &dyn Disk) -> Result<[u8; 16], Error> {
    let random = disk.random().map_err(|error| Error::io("cannot get random bytes for", "a line", error))?;
    Ok(array(&random, 0))
}

/// Creates the files of a new store. A stop at any moment leaves no store, or a whole one.
pub(crate) fn create_store(disk: &dyn Disk, options: &LogOptions, now: u64) -> Result<(), Error> {
    let failed = |what: &'static str| move |error| Error::io("cannot create", what, error);
    let (store_id, line) = new_store_id(disk)?;
    disk.create_directory(SEGMENTS_DIRECTORY).map_err(failed(SEGMENTS_DIRECTORY))?;
    remove_if_there(disk, mark::NAME).map_err(failed(mark::NAME))?;
    let header = next_header(disk, options, store_id, None, now)?;
    let first = Mark {
        store_id,
        sequence: 1,
        segment: header.id,
        durable_end: to_u32(SEGMENT_HEADER_BYTES),
        position: 0,
        chain: genesis(&store_id),
        clean: false,
    };
    let mark_file = create_mark_file(disk).map_err(failed(mark::NAME))?;
    let write_mark = |mark: Mark| {
        let written = write_all(mark_file.as_ref(), &mark.write(), mark.offset());
        written.and_then(|()| mark_file.sync()).map_err(failed(mark::NAME))
    };
    write_mark(first.clone())?;
    let file_bytes = new_segment_bytes(disk, options.segment_bytes_max);
    SegmentFile::create(disk, header, file_bytes).map_err(Failure::into_error)?;
    // MANIFEST comes last: where it is, the other files once were, and a missing one is damage.
    replace_manifest(disk, &Manifest::new(store_id, line, now).write().0).map_err(Failure::into_error)?;
    // Only now is the name of MANIFEST durable. Before this slot, opening recovers the store.
    write_mark(Mark { sequence: 2, clean: true, ..first })
}

/// The header of the segment that continues the log at `end`; of the first segment without an end.
pub(crate) fn next_header(
    disk: &dyn Disk,
    options: &LogOptions,
    store_id: [u8; 16],
    end: Option<LogEnd>,
    now: u64,
) -> Result<SegmentHeader, Error> {
    let random =
        disk.random().map_err(|error| Error::io("cannot get random bytes for", "a segment", error))?;
    let (position, recorded_before, chain_before) = match end {
        Some(end) => (end.position, end.recorded_at, end.chain),
        None => (0, 0, genesis(&store_id)),
    };
    Ok(SegmentHeader {
        store_id,
        id: SegmentId { first_position: position + 1, generation: 0 },
        salt: SegmentHeader::salt(u64_at(&random, 0)),
        created_at: now,
        unsynced_bytes_max: options.unsynced_bytes_max,
        chain_before,
        recorded_before,
    })
}
