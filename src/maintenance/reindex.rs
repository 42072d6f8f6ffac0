//! Builds all index files again, for those who want them built now instead of when they are needed.
//!
//! Row: ops. Tested by tests/it/scale.rs.

use std::ops::ControlFlow;
use std::time::Instant;

use crate::engine::Engine;
use crate::read::{SealedSegment, settle};
use crate::types::{Error, ErrorKind, IndexProgress};

/// Says how many were built. What the housekeeper has not yet put on the shelf is put there first.
pub(crate) fn reindex(
    engine: &Engine,
    tell: &mut dyn FnMut(&IndexProgress) -> ControlFlow<()>,
) -> Result<usize, Error> {
    engine.check_writable()?;
    let shelf = engine.segment_cache.as_ref().expect("a store that can be written to has a shelf");
    settle(&engine.view, shelf);
    let snapshot = engine.snapshot()?;
    let stored =
        || snapshot.segments.iter().filter_map(|segment| segment.as_stored()).filter(|s| s.is_whole());
    let began = Instant::now();
    let mut progress = IndexProgress {
        segments_total: stored().count(),
        bytes_total: stored().map(bytes).sum(),
        ..IndexProgress::default()
    };
    for segment in stored() {
        if tell(&progress).is_break() {
            let what = "building indexes was broken off, as asked; those that were built are there";
            return Err(Error::new(ErrorKind::Cancelled, what));
        }
        segment.rebuild()?;
        progress.segments += 1;
        progress.bytes += bytes(segment);
        progress.elapsed = began.elapsed();
    }
    let alone = shelf.settling();
    for part in engine.snapshot()?.segments.iter().filter_map(|segment| segment.as_stored()) {
        // Of the segment that is written to, what was closed with its index.
        if !part.is_whole() {
            part.rebuild_part(&alone)?;
        }
    }
    drop(alone);
    // The last word is that all is done; there is nothing left to break off.
    let _ = tell(&progress);
    Ok(progress.segments)
}

fn bytes(segment: &SealedSegment) -> u64 {
    segment.listed().bound.end.into()
}
