//! Whole segments in memory, of those that are read often: checked once, then an event is a slice.
//!
//! A segment is loaded by the housekeeper, once so much was read of it that loading it beforehand would have cost no
//! more. Where there is no room, it takes that of segments which nobody has read meanwhile: where all are read
//! alike, those that are here stay, since loading in turns would help none of them.
//! Row: shelf.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::index::Bound;
use crate::log::{Block, SegmentFile};
use crate::threads::once;
use crate::types::{Error, to_u64, to_usize};

use super::SegmentCache;
use super::build::walk;
use super::lru::Place;

/// A segment's place among those in memory.
#[derive(Default)]
pub(super) struct Resident {
    place: Arc<Place<Block>>,
    /// Read from the file since it was last loaded or thought of, in bytes by their weight.
    read: AtomicU64,
    /// When that began, by the clock of the room.
    since: AtomicU64,
}

/// What is read in longer pieces is read in order.
const PIECE: u32 = 16 << 10;
/// Where there is room, a piece counts so often: a part of the segment is read before it is loaded.
const EARLY: u64 = 4;
/// Bytes that are read in order cost little as they are, so that many count as one; and they take no other's room.
const IN_ORDER: u64 = 2;

impl Resident {
    /// The whole segment, if it is in memory.
    pub(super) fn block(&self, shelf: &SegmentCache) -> Option<Block> {
        shelf.segments.look(&self.place, |block| Block::clone(block))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.place.look(size).unwrap_or(0)
    }

    pub(super) fn clear(&self, shelf: &SegmentCache) {
        shelf.segments.clear(&self.place);
    }

    /// Takes note of a read from the file, and has the segment loaded if there were enough.
    pub(super) fn note(
        &self,
        run: &Range<u32>,
        shelf: &Arc<SegmentCache>,
        file: &Arc<SegmentFile>,
        bound: &Bound,
    ) {
        let (piece, whole) = (u64::from(run.end - run.start), u64::from(bound.end));
        if !shelf.segments.could_hold(whole) {
            return;
        }
        let is_piece = run.end - run.start <= PIECE;
        let weight = match (shelf.segments.has_room(whole), is_piece) {
            (true, true) => piece * EARLY,
            (true, false) => piece / IN_ORDER,
            (false, true) => piece,
            (false, false) => return,
        };
        let read = self.read.fetch_add(weight, Ordering::Relaxed);
        if read == 0 {
            self.since.store(shelf.segments.tick(), Ordering::Relaxed);
        }
        if read + weight < whole || self.read.swap(0, Ordering::Relaxed) < whole {
            return;
        }
        if !shelf.segments.has_room_beside_used(whole, self.since.load(Ordering::Relaxed)) {
            return;
        }
        let (own, file, bound, place) = (shelf.clone(), file.clone(), bound.clone(), self.place.clone());
        let load = move || match own.segments.get_or_make(&place, || loaded(&file, &bound)) {
            Ok(_) => tracing::debug!(segment = file.path, "loaded"),
            // Whoever reads what is damaged is told.
            Err(error) => tracing::warn!(%error, "a segment was not loaded"),
        };
        shelf.housekeeper.run_in(std::time::Duration::ZERO, once(load));
    }
}

fn size(block: &Block) -> u64 {
    to_u64(block.bytes.len())
}

/// Reads a segment, and keeps of it every frame, each checked as it is kept.
fn loaded(file: &SegmentFile, bound: &Bound) -> Result<(Block, u64), Error> {
    let mut bytes = vec![0; to_usize(bound.end)];
    walk(file, bound, |offset, frame| {
        let (header, body) = (frame.header.bytes(), frame.body);
        let (at, behind) = (to_usize(offset), to_usize(offset) + header.len());
        bytes[at..behind].copy_from_slice(header);
        bytes[behind..behind + body.len()].copy_from_slice(body);
        Ok(())
    })?;
    let block = Block::known(Arc::new(bytes), 0);
    let bytes = size(&block);
    Ok((block, bytes))
}
