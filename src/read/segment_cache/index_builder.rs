//! Moves the indexes of segments that are written to no more from memory to the disk.
//!
//! Done behind the writer's back: readers go on with what they have, and whoever comes later finds the
//! file. What goes wrong costs time later, and nothing else.
//! Row: view. Tested by tests/it/scale.rs.

use std::sync::Arc;

use crate::format::SEAL_BYTES;
use crate::index::{Bound, Index};
use crate::log::LogEnd;
use crate::read::segment_cache::{SealedMeta, SealedSegment, SegmentCache};
use crate::read::view::{Segment, View};
use crate::types::{Error, to_u32};

/// Closing writes the index of a segment that goes on if at least so many frames came since: to walk over
/// fewer costs the next opening less than a millisecond or two.
const WORTH_FRAMES: u32 = 4096;

/// Whether there is anything to do for [`settle`].
pub(crate) fn index_is_pending(view: &View) -> bool {
    first_unsettled(&view.snapshot().segments).is_some()
}

/// Writes the index of every segment in front of the last, unless it is written, and has it read from there
/// from now on.
pub(crate) fn settle(view: &View, shelf: &Arc<SegmentCache>) {
    let _alone = shelf.settling();
    while let Some((parts, next)) = first_unsettled(&view.snapshot().segments) {
        match settled(&parts, &next, shelf) {
            Ok(segment) => view.exchange(&parts, segment),
            Err(error) => {
                tracing::warn!(%error, "the index of a segment was not written");
                return;
            }
        }
    }
}

/// Writes the index of the last segment, which ends at `tip`, if that is worth it; the store is being closed.
pub(crate) fn build_last_index(view: &View, shelf: &Arc<SegmentCache>, tip: &LogEnd) {
    let _alone = shelf.settling();
    let snapshot = view.snapshot();
    let Some(parts) = snapshot.segments.chunk_by(|one, other| one.shares_file(other)).next_back() else {
        return;
    };
    let Some((file, index)) = parts.last().and_then(|last| last.as_live()) else { return };
    if index.read().frames() < WORTH_FRAMES {
        return;
    }
    let listed = SealedMeta::up_to(tip, file, *shelf.origin());
    let written = with_index(parts, |index| shelf.write_index(index, &listed.bound));
    if let Err(error) = written {
        tracing::warn!(%error, "the index of the last segment was not written");
    }
}

/// The parts of the first segment that is not the last and has no index of its own on the disk; and what comes
/// behind it.
fn first_unsettled(segments: &[Arc<Segment>]) -> Option<(Vec<Arc<Segment>>, Arc<Segment>)> {
    let files: Vec<&[Arc<Segment>]> = segments.chunk_by(|one, other| one.shares_file(other)).collect();
    let pairs = files.windows(2).filter_map(|pair| Some((pair.first()?, pair.last()?.first()?)));
    let is_settled = |parts: &[Arc<Segment>]| {
        parts.iter().all(|part| part.as_stored().is_some_and(SealedSegment::is_whole))
    };
    let mut unsettled = pairs.filter(|(parts, _)| !is_settled(parts));
    unsettled.next().map(|(parts, next)| (parts.to_vec(), next.clone()))
}

fn settled(parts: &[Arc<Segment>], next: &Segment, shelf: &Arc<SegmentCache>) -> Result<Arc<Segment>, Error> {
    let (first, last) = parts.first().zip(parts.last()).expect("a segment has a part");
    let (header, end) = (&first.file()?.header, last.end());
    let behind = &next.file()?.header;
    let bound = Bound {
        store_id: *shelf.origin(),
        segment: header.id,
        end,
        last_position: next.first_position().saturating_sub(1),
        chain: behind.chain_before,
    };
    let listed = SealedMeta {
        bound,
        frames: parts.iter().map(|part| part.frames()).sum(),
        events: parts.iter().map(|part| part.events()).sum(),
        chain_before: header.chain_before,
        recorded_before: header.recorded_before,
        last_recorded_at: behind.recorded_before,
        file_bytes: Some(end.saturating_add(to_u32(SEAL_BYTES))),
    };
    let bytes = with_index(parts, |index| shelf.write_index(index, &listed.bound))?;
    Ok(Arc::new(Segment::stored(SealedSegment::with_index(shelf.clone(), listed, bytes))))
}

/// Shows the index of all parts of one segment: most often of its only one, otherwise of the one that was closed and
/// of what came since.
fn with_index<T>(parts: &[Arc<Segment>], look: impl FnOnce(&Index) -> T) -> Result<T, Error> {
    let (_, recent) =
        parts.last().and_then(|last| last.as_live()).expect("a segment's last part is in memory");
    // Nobody adds to it, so holding its lock keeps nobody waiting.
    let recent = recent.read();
    match parts.first().and_then(|first| first.as_stored()) {
        Some(earlier) => Ok(look(&Index::join(earlier.index()?.as_ref(), &recent)?)),
        None => Ok(look(&recent)),
    }
}
