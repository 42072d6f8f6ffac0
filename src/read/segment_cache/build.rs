//! Makes index files: out of an index that is in memory, or out of a segment.
//!
//! An index file is not synced. One that did not reach the disk whole does not fit its checksums, and is
//! built again.
//! Row: shelf.

use std::sync::Arc;

use crate::disk::{Access, Disk, write_all};
use crate::format::{Frame, SegmentId};
use crate::index::{Bound, LiveIndex};
use crate::log::{Ending, LogEnd, SegmentFile, Walk, scan};
use crate::types::Error;

/// Written beside and renamed, so that who reads meanwhile finds the old one or the new one.
pub(super) fn write(disk: &dyn Disk, segment: SegmentId, bytes: &[u8]) {
    let (path, temporary) = (segment.index_path(), segment.index_temporary());
    let write = || {
        match disk.remove(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.open(&temporary, Access::CreateNew)?;
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
    let mut index = LiveIndex::new(LogEnd::start(file).offset);
    walk(file, bound, &mut |_, offset, frame, _| index.insert(file, offset, frame))?;
    index.finish(bound.end);
    let bytes = index.encode(bound);
    bytes
        .ok_or_else(|| Error::invalid(format!("{}: the segment has too many terms to be indexed", file.path)))
}

/// Walks a segment, which must end as it is bound to.
#[expect(clippy::type_complexity, reason = "as in scan::Walk")]
pub(super) fn walk(
    file: &SegmentFile,
    bound: &Bound,
    visit: &mut dyn FnMut(&SegmentFile, u32, &Frame<'_>, &LogEnd) -> Result<(), Error>,
) -> Result<(), Error> {
    // MANIFEST, or MARK, vouches for the chain at the end.
    let walked = scan(file, &mut Walk { limit: bound.end, verify_chain_from: u32::MAX, visit })?;
    let LogEnd { offset, position, chain, .. } = walked.tip;
    if let Ending::Invalid(damage) = &walked.ending {
        return Err(file.damaged(offset.into(), damage));
    }
    if (offset, position, chain) != (bound.end, bound.last_position, bound.chain) {
        let what = "the segment is damaged: its events end here, and not where they should";
        return Err(Error::corrupt(&file.path, offset.into(), what));
    }
    Ok(())
}
