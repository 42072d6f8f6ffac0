//! Makes index files: out of an index that is in memory, or out of a segment.
//!
//! An index file is not synced. One that did not reach the disk whole does not fit its checksums, and is
//! built again.
//! Row: shelf.

use std::sync::Arc;

use crate::disk::{Disk, create_anew, write_all};
use crate::format::{Frame, SegmentId};
use crate::index::{Bound, Index};
use crate::log::{LogEnd, SegmentCursor, SegmentEnd, SegmentFile};
use crate::types::Error;

/// Written beside and renamed, so that who reads meanwhile finds the old one or the new one.
pub(super) fn write(disk: &dyn Disk, segment: SegmentId, bytes: &[u8]) {
    let (path, temporary) = (segment.index_path(), segment.index_temporary());
    let write = || {
        let file = create_anew(disk, &temporary)?;
        write_all(file.as_ref(), bytes, 0)?;
        disk.rename(&temporary, &path)
    };
    if let Err(error) = write() {
        tracing::warn!(path, %error, "an index file was not written; it is built again when it is needed");
        // A full disk is not helped by half an index.
        let _ = disk.remove(&temporary);
    }
}

/// Walks a segment, and gives its index as a file would have it.
pub(super) fn build(file: &Arc<SegmentFile>, bound: &Bound) -> Result<Vec<u8>, Error> {
    let mut index = Index::new(LogEnd::start(file).offset);
    walk(file, bound, |offset, frame| index.insert(file, offset, frame))?;
    index.finish(bound.end);
    let bytes = index.encode(bound);
    bytes
        .ok_or_else(|| Error::invalid(format!("{}: the segment has too many terms to be indexed", file.path)))
}

/// Walks a segment, which must end as it is bound to.
pub(super) fn walk(
    file: &SegmentFile,
    bound: &Bound,
    mut visit: impl FnMut(u32, &Frame<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    // MANIFEST, or MARK, vouches for the chain at the end.
    let mut cursor = SegmentCursor::new(file, bound.end)?.trusting_chain();
    let segment_end = cursor.visit_frames(|offset, frame, _| visit(offset, frame))?;
    let LogEnd { offset, position, chain, .. } = *cursor.end();
    if let SegmentEnd::Invalid(damage) = &segment_end {
        return Err(file.damaged(offset.into(), damage));
    }
    if (offset, position, chain) != (bound.end, bound.last_position, bound.chain) {
        let what = "the segment is damaged: its events end here, and not where they should";
        return Err(Error::corrupt(&file.path, offset.into(), what));
    }
    Ok(())
}
