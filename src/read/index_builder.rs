//! Moves the indexes of sealed segments from memory to index files.
//!
//! This runs on a background thread. Readers continue with the index they have; later ones use the file. A
//! failure only costs time later: the index is then built from its segment. Tested by tests/it/scale.rs.

use std::sync::Arc;

use crate::format::SEAL_BYTES;
use crate::index::{Bound, LiveIndex};
use crate::log::LogEnd;
use crate::types::{Error, ErrorKind, to_u32};

use super::segment::Segment;
use super::segment_cache::{SealedMeta, SealedSegment, SegmentCache};
use super::view::LogView;

/// Closing writes the index of the open segment if this many frames or bytes came since the last one. A walk
/// over fewer costs the next opening about a tenth of a millisecond.
const LAST_INDEX_FRAMES_MIN: u32 = 1024;
const LAST_INDEX_BYTES_MIN: u32 = 256 << 10;

/// Whether [`build_pending_indexes`] has anything to do.
pub(crate) fn index_is_pending(view: &LogView) -> bool {
    first_pending(&view.snapshot().segments).is_some()
}

/// Writes the index file of every sealed segment that has none, and puts the sealed form into the view.
pub(crate) fn build_pending_indexes(view: &LogView, cache: &Arc<SegmentCache>) {
    let _alone = cache.lock_index_builds();
    while let Some((parts, next)) = first_pending(&view.snapshot().segments) {
        match build_index(&parts, &next, cache) {
            Ok(segment) => view.replace_parts(&parts, segment),
            Err(error) => {
                tracing::warn!(%error, "the index of a segment was not written");
                return;
            }
        }
    }
}

/// Writes the index file of the open segment, which ends at `end`, if it is worth it. The store is being
/// closed.
pub(crate) fn build_last_index(view: &LogView, cache: &Arc<SegmentCache>, end: &LogEnd) {
    let _alone = cache.lock_index_builds();
    let snapshot = view.snapshot();
    let Some(parts) = snapshot.segments.chunk_by(|one, other| one.shares_file(other)).next_back() else {
        return;
    };
    let Some((file, index)) = parts.last().and_then(|last| last.as_live()) else { return };
    let is_worth_it = {
        let index = index.read();
        index.frames() >= LAST_INDEX_FRAMES_MIN || index.bytes_covered() >= LAST_INDEX_BYTES_MIN
    };
    if !is_worth_it {
        return;
    }
    let meta = SealedMeta::up_to(end, file, *cache.origin());
    let written = with_index(parts, |index| cache.write_index(index, &meta.bound));
    if let Err(error) = written {
        tracing::warn!(%error, "the index of the last segment was not written");
    }
}

/// The parts of the first sealed segment without an index file of its own, and the part behind them.
fn first_pending(segments: &[Arc<Segment>]) -> Option<(Vec<Arc<Segment>>, Arc<Segment>)> {
    let files: Vec<&[Arc<Segment>]> = segments.chunk_by(|one, other| one.shares_file(other)).collect();
    let pairs = files.windows(2).filter_map(|pair| Some((pair.first()?, pair.last()?.first()?)));
    let is_built = |parts: &[Arc<Segment>]| {
        parts.iter().all(|part| part.as_sealed().is_some_and(SealedSegment::is_whole))
    };
    let mut pending = pairs.filter(|(parts, _)| !is_built(parts));
    pending.next().map(|(parts, next)| (parts.to_vec(), next.clone()))
}

/// Writes the index file of a segment. The header of the next segment has the chain hash at its end.
fn build_index(
    parts: &[Arc<Segment>],
    next: &Segment,
    cache: &Arc<SegmentCache>,
) -> Result<Arc<Segment>, Error> {
    let (first, last) = parts.first().zip(parts.last()).expect("a segment has a part");
    let header = &first.file()?.header;
    let next_header = &next.file()?.header;
    let end = last.end();
    let bound = Bound {
        store_id: *cache.origin(),
        segment: header.id,
        end,
        last_position: next.first_position().saturating_sub(1),
        chain: next_header.chain_before,
    };
    let meta = SealedMeta {
        bound,
        frames: parts.iter().map(|part| part.frames()).sum(),
        events: parts.iter().map(|part| part.events()).sum(),
        chain_before: header.chain_before,
        recorded_before: header.recorded_before,
        last_recorded_at: next_header.recorded_before,
        file_bytes: Some(end.saturating_add(to_u32(SEAL_BYTES))),
    };
    let bytes = with_index(parts, |index| cache.write_index(index, &meta.bound))?;
    Ok(Arc::new(Segment::sealed(SealedSegment::with_index(cache.clone(), meta, bytes))))
}

/// Gives `look` the index of all parts of one segment. Most segments have one part; one that was closed and
/// opened again has two.
fn with_index<T>(parts: &[Arc<Segment>], look: impl FnOnce(&LiveIndex) -> T) -> Result<T, Error> {
    let (_, last) = parts.last().and_then(|last| last.as_live()).expect("a segment's last part is in memory");
    // The segment is sealed, so no writer waits for this lock.
    let last = last.read();
    let Some(first) = parts.first().and_then(|first| first.as_sealed()) else { return Ok(look(&last)) };
    let joined = match LiveIndex::concat(first.index()?.as_ref(), &last) {
        // The index file of the part is damaged. The segment has everything that it had.
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            LiveIndex::concat(first.rebuild()?.as_ref(), &last)?
        }
        joined => joined?,
    };
    Ok(look(&joined))
}
