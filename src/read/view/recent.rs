//! The recent window: the bytes written last, kept in memory for those who read what was just written.
//!
//! Groups are gathered in chunks. The one being filled is copied from, at most the frames asked for; a full one is
//! shared, and never changes again. So a small group costs its bytes and no allocation, and who reads a
//! thousand of them in a row takes the lock a few times.
//!
//! Invariants:
//! - it holds what was written to the segment's file before, at the same places. So it never answers otherwise
//!   than the file, and whoever does not find something here reads it there;
//! - chunks stand in the order of the log; each holds whole frames of one segment, without a gap;
//! - what is added is published next, and nobody asks for frames beyond the head they see.
//!
//! Row: view. Tested against plain files in recent/tests.rs.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::format::{FrameHeader, SegmentId};
use crate::log::Block;
use crate::types::{to_u32, to_usize};

/// How large a chunk becomes. An event that is kept keeps its chunk in memory, and what is copied of the one
/// being filled is copied under the lock: a few microseconds at most.
const CHUNK_BYTES: usize = 64 << 10;
/// What is at least this part of a chunk is a chunk of its own, and shared at once.
const OWN_CHUNK: usize = 4;

pub(crate) struct Recent {
    bytes_max: usize,
    chunk_bytes: usize,
    /// The first position of the oldest segment that is here in part: who reads older ones passes by
    /// without the lock. Whoever sees an old value misses what is in the file as well.
    oldest: AtomicU64,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    full: VecDeque<Chunk>,
    filling: Option<Filling>,
    /// The memory of all chunks.
    bytes: usize,
}

struct Chunk {
    segment: SegmentId,
    block: Block,
}

struct Filling {
    segment: SegmentId,
    start: u32,
    bytes: Vec<u8>,
}

impl Recent {
    /// A window of so many bytes; none at all if that is 0.
    pub(crate) fn new(bytes_max: usize) -> Recent {
        Recent {
            bytes_max,
            // Chunks are forgotten whole, and a few must stay.
            chunk_bytes: CHUNK_BYTES.min(bytes_max / 8),
            oldest: AtomicU64::new(u64::MAX),
            state: RwLock::default(),
        }
    }

    /// Adds what was written to a segment at `start`: whole frames, behind everything added before.
    pub(crate) fn add(&self, segment: SegmentId, start: u32, group: &[u8]) {
        if group.len() > self.bytes_max {
            return;
        }
        let mut start = start;
        let pieces = Pieces { rest: group, bytes_max: self.chunk_bytes };
        for piece in pieces {
            self.add_piece(segment, start, piece);
            start += to_u32(piece.len());
        }
    }

    fn add_piece(&self, segment: SegmentId, start: u32, piece: &[u8]) {
        let own = (piece.len() >= self.chunk_bytes / OWN_CHUNK).then(|| piece.to_vec());
        let mut state = self.state.write();
        match own {
            Some(bytes) => state.add_full(Filling { segment, start, bytes }),
            None => state.fill(segment, start, piece, self.chunk_bytes),
        }
        let forgotten = state.forget_beyond(self.bytes_max);
        self.oldest.store(state.oldest(), Ordering::Relaxed);
        drop(state);
        // Freeing memory is nothing to make readers wait for.
        drop(forgotten);
    }

    /// Forgets everything: the log goes on elsewhere.
    pub(crate) fn clear(&self) {
        let mut state = self.state.write();
        *state = State::default();
        self.oldest.store(u64::MAX, Ordering::Relaxed);
    }

    /// A block that holds `frame`, and more of `run`, which lies around it, if that is at hand.
    pub(crate) fn block(&self, segment: SegmentId, frame: &Range<u32>, run: &Range<u32>) -> Option<Block> {
        if segment.first_position < self.oldest.load(Ordering::Relaxed) {
            return None;
        }
        let state = self.state.read();
        let later =
            state.full.partition_point(|chunk| (chunk.segment, chunk.block.start) <= (segment, frame.start));
        let full = later.checked_sub(1).and_then(|last| state.full.get(last));
        if let Some(chunk) = full.filter(|chunk| chunk.segment == segment && chunk.block.holds(frame)) {
            return Some(chunk.block.clone());
        }
        state.filling.as_ref().filter(|filling| filling.segment == segment)?.copy(frame, run)
    }
}

impl State {
    /// Adds a group to the chunk being filled, or begins the next with it.
    fn fill(&mut self, segment: SegmentId, start: u32, group: &[u8], chunk_bytes: usize) {
        let continues = |filling: &Filling| {
            let end = to_usize(filling.start) + filling.bytes.len();
            let is_next = filling.segment == segment && end == to_usize(start);
            is_next && filling.bytes.len() + group.len() <= filling.bytes.capacity()
        };
        if !self.filling.as_ref().is_some_and(continues) {
            self.close();
        }
        let bytes = &mut self.bytes;
        let filling = self.filling.get_or_insert_with(|| {
            let memory = Vec::with_capacity(chunk_bytes);
            *bytes += memory.capacity();
            Filling { segment, start, bytes: memory }
        });
        filling.bytes.extend_from_slice(group);
    }

    /// Adds a chunk that is not filled any more.
    fn add_full(&mut self, chunk: Filling) {
        self.close();
        self.bytes += chunk.bytes.capacity();
        self.full.push_back(chunk.close());
    }

    /// Ends the chunk being filled.
    fn close(&mut self) {
        if let Some(mut filling) = self.filling.take() {
            self.bytes -= filling.bytes.capacity();
            // Cut short, by the end of a segment or by a large group.
            if filling.bytes.len() < filling.bytes.capacity() / 2 {
                filling.bytes.shrink_to_fit();
            }
            self.bytes += filling.bytes.capacity();
            self.full.push_back(filling.close());
        }
    }

    /// Takes out the oldest chunks until the others fit. The one being filled stays.
    fn forget_beyond(&mut self, bytes_max: usize) -> Vec<Chunk> {
        let mut forgotten = Vec::new();
        while self.bytes > bytes_max
            && let Some(chunk) = self.full.pop_front()
        {
            self.bytes -= chunk.block.bytes.capacity();
            forgotten.push(chunk);
        }
        forgotten
    }

    fn oldest(&self) -> u64 {
        let filling = self.filling.as_ref().map(|filling| filling.segment);
        let oldest = self.full.front().map(|chunk| chunk.segment).or(filling);
        oldest.map_or(u64::MAX, |segment| segment.first_position)
    }
}

/// A group, parted where frames end so that no part is larger than a chunk, unless it is a single frame.
struct Pieces<'a> {
    rest: &'a [u8],
    bytes_max: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let mut end = self.rest.len();
        if end > self.bytes_max {
            let frame_bytes = |at: usize| FrameHeader::known(&self.rest[at..]).frame_bytes();
            end = frame_bytes(0);
            while end < self.rest.len() && end + frame_bytes(end) <= self.bytes_max {
                end += frame_bytes(end);
            }
        }
        let (piece, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(piece)
    }
}

impl Filling {
    fn close(self) -> Chunk {
        let block = Block::known(Arc::new(self.bytes), self.start);
        Chunk { segment: self.segment, block }
    }

    /// What it holds of `run`, if it holds `frame`.
    fn copy(&self, frame: &Range<u32>, run: &Range<u32>) -> Option<Block> {
        let at = |offset: u32| to_usize(offset).checked_sub(to_usize(self.start));
        let start = run.start.max(self.start);
        let (from, to) = (at(start)?, at(run.end)?.min(self.bytes.len()));
        let holds = start <= frame.start && at(frame.end)? <= to;
        holds.then(|| Block::known(Arc::new(self.bytes[from..to].to_vec()), start))
    }
}
