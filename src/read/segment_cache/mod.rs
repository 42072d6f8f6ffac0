//! The segment cache: open files, indexes, and whole segments of the log that are sealed, within budgets.
//!
//! Nothing in it is needed. A file is opened or read again; an index that is missing, damaged or stale is
//! built again from its segment. So memory does not grow with the log. Tested by tests/it/scale.rs.

mod lru;
mod sealed_segment;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::disk::{Disk, DiskFile, create_anew, write_all};
use crate::format::{Frame, Hash, SEAL_BYTES, Seal, SegmentEntry, SegmentId};
use crate::index::{Bound, LiveIndex, SealedIndex};
use crate::log::{Block, LogEnd, Outline, SegmentCursor, SegmentEnd, SegmentFile};
use crate::threads::BackgroundThread;
use crate::types::{Error, to_u32};

use lru::LruPool;

pub(crate) use sealed_segment::SealedSegment;

/// The most open files of sealed segments and their indexes.
const DESCRIPTORS_MAX: u64 = 64;

/// What one store keeps open and in memory of its sealed segments, within its budgets.
pub(crate) struct SegmentCache {
    disk: Arc<dyn Disk>,
    /// The ids that the log's segments may carry: the store that began the log first, this store last.
    stores: Vec<[u8; 16]>,
    /// Whether index files may be written.
    writes: bool,
    descriptors: Arc<LruPool<Box<dyn DiskFile>>>,
    indexes: LruPool<SealedIndex>,
    segments: LruPool<Block>,
    index_builds: Mutex<()>,
    background: Arc<BackgroundThread>,
}

/// The most bytes a cache keeps in memory.
#[derive(Clone, Copy)]
pub(crate) struct Budgets {
    pub(crate) index_bytes: u64,
    pub(crate) segment_bytes: u64,
}

impl SegmentCache {
    /// An empty cache. `stores` are the ids of the store's lineage, oldest first, and its own.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        stores: Vec<[u8; 16]>,
        writes: bool,
        budgets: Budgets,
        background: Arc<BackgroundThread>,
    ) -> SegmentCache {
        SegmentCache {
            disk,
            stores,
            writes,
            descriptors: Arc::new(LruPool::new(DESCRIPTORS_MAX)),
            indexes: LruPool::new(budgets.index_bytes),
            segments: LruPool::new(budgets.segment_bytes),
            index_builds: Mutex::new(()),
            background,
        }
    }

    /// The thread for work that may wait.
    pub(crate) fn background(&self) -> &Arc<BackgroundThread> {
        &self.background
    }

    /// The id of the store that began the log. Its forks hash terms with the same id, so they share index
    /// files.
    pub(crate) fn origin(&self) -> &[u8; 16] {
        self.stores.first().expect("a log belongs to a store")
    }

    /// The lock for building the indexes of sealed segments: only one thread builds them at a time.
    pub(crate) fn lock_index_builds(&self) -> MutexGuard<'_, ()> {
        self.index_builds.lock()
    }

    /// Encodes an index and writes it beside its segment, if the store may be written to. Returns the bytes;
    /// `None` if they are too many for a file. A failed write only costs time later: the index is then built
    /// from the segment.
    pub(crate) fn write_index(&self, index: &LiveIndex, bound: &Bound) -> Option<Vec<u8>> {
        let bytes = index.encode(bound);
        match &bytes {
            Some(bytes) if self.writes => write_index_file(self.disk.as_ref(), bound.segment, bytes),
            Some(_) => {}
            None => tracing::warn!(segment = bound.segment.path(), "the index is too large for a file"),
        }
        bytes
    }

    /// Whether a segment with this store id belongs to the log.
    fn knows(&self, store_id: &[u8; 16]) -> bool {
        self.stores.contains(store_id)
    }
}

/// The metadata of a sealed segment, or of the sealed part of one, as MANIFEST or MARK has it. Needs no file.
#[derive(Clone, Debug)]
pub(crate) struct SealedMeta {
    pub(crate) bound: Bound,
    pub(crate) frames: u32,
    pub(crate) events: u32,
    /// The chain hash and the time of the last frame before the segment.
    pub(crate) chain_before: Hash,
    pub(crate) recorded_before: u64,
    /// The time of the last frame.
    pub(crate) last_recorded_at: u64,
    /// The length of the segment's file; `None` if the segment is still written to.
    pub(crate) file_bytes: Option<u32>,
}

impl SealedMeta {
    /// The metadata of a segment that MANIFEST lists. `chain_before` is the chain hash of the entry before.
    pub(crate) fn sealed(entry: &SegmentEntry, origin: [u8; 16], chain_before: Hash) -> SealedMeta {
        let bound = Bound {
            store_id: origin,
            segment: entry.id,
            end: entry.length.saturating_sub(to_u32(SEAL_BYTES)),
            last_position: entry.last_position,
            chain: entry.chain,
        };
        SealedMeta {
            bound,
            frames: entry.frames,
            events: entry.events,
            chain_before,
            recorded_before: entry.recorded_before,
            last_recorded_at: entry.last_recorded_at,
            file_bytes: Some(entry.length),
        }
    }

    /// The metadata of the frames of an open segment up to the end of a walk.
    pub(crate) fn up_to(end: &LogEnd, file: &SegmentFile, origin: [u8; 16]) -> SealedMeta {
        let header = &file.header;
        let bound = Bound {
            store_id: origin,
            segment: header.id,
            end: end.offset,
            last_position: end.position,
            chain: end.chain,
        };
        SealedMeta {
            bound,
            frames: end.frames,
            events: end.events,
            chain_before: header.chain_before,
            recorded_before: header.recorded_before,
            last_recorded_at: end.recorded_at,
            file_bytes: None,
        }
    }

    /// What the segment's header and seal must say. A segment that is still written to has no seal; the
    /// caller does not compare it then.
    pub(super) fn outline(&self) -> Outline {
        let SealedMeta { bound, chain_before, recorded_before, .. } = self;
        let seal = Seal {
            length: self.file_bytes.unwrap_or(0),
            last_position: bound.last_position,
            last_recorded_at: self.last_recorded_at,
            frames: self.frames,
            events: self.events,
            chain: bound.chain,
        };
        Outline { id: bound.segment, chain_before: *chain_before, recorded_before: *recorded_before, seal }
    }
}

/// Writes an index file under a temporary name and renames it, so that a reader finds the old file or the new
/// one.
///
/// The file is not synced: one that does not reach the disk whole fails its checksums and is built again.
fn write_index_file(disk: &dyn Disk, segment: SegmentId, bytes: &[u8]) {
    let path = segment.index_path();
    let temporary = segment.index_temporary();
    let write = || {
        let file = create_anew(disk, &temporary)?;
        write_all(file.as_ref(), bytes, 0)?;
        disk.rename(&temporary, &path)
    };
    if let Err(error) = write() {
        tracing::warn!(path, %error, "an index file was not written; the index is built again when it is needed");
        // Half an index must not take the space of a full disk.
        let _ = disk.remove(&temporary);
    }
}

/// Builds the index of a segment from its frames, as the bytes of an index file.
fn encode_index_of(file: &Arc<SegmentFile>, bound: &Bound) -> Result<Vec<u8>, Error> {
    let mut index = LiveIndex::new(LogEnd::start(file).offset);
    walk(file, bound, |offset, frame| index.insert(file, offset, frame))?;
    index.finish(bound.end);
    let bytes = index.encode(bound);
    bytes
        .ok_or_else(|| Error::invalid(format!("{}: the segment has too many terms to be indexed", file.path)))
}

/// Walks a segment, which must end at `bound`.
fn walk(
    file: &SegmentFile,
    bound: &Bound,
    mut visit: impl FnMut(u32, &Frame<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    // The chain hash at the end, which MANIFEST or MARK has, proves all hashes before it: no frame's is
    // verified.
    let mut cursor = SegmentCursor::new(file, bound.end)?.trusting_chain();
    let segment_end = cursor.visit_frames(|offset, frame, _| visit(offset, frame))?;
    let LogEnd { offset, position, chain, .. } = *cursor.end();
    if let SegmentEnd::Invalid(damage) = &segment_end {
        return Err(file.damaged(offset.into(), damage));
    }
    if (offset, position, chain) != (bound.end, bound.last_position, bound.chain) {
        let what = "the segment is damaged: its events end here, and not where MANIFEST or MARK says";
        return Err(Error::corrupt(&file.path, offset.into(), what));
    }
    Ok(())
}
