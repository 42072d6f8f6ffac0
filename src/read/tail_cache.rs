//! The tail cache: the bytes written last, in memory, for readers of recent events.
//!
//! Groups are collected in chunks. Readers copy the frames they ask for from the chunk that is being filled;
//! a full chunk is shared and never changes again. So a small group costs no allocation, and a reader of a
//! thousand recent events takes the lock a few times.
//!
//! Invariants, tested against plain files in tail_cache/tests.rs:
//! - the cache holds bytes that were written to the segment's file before, at the same offsets. A reader that
//!   does not find a frame here reads the file and gets the same bytes;
//! - chunks are in the order of the log; each holds whole frames of one segment, without a gap;
//! - a reader asks only for frames up to the head it sees, and a group is added before its head is published.

#[cfg(test)]
mod tests;

use crate::types::{to_u32, to_usize};

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::format::{FrameHeader, SegmentId};
use crate::log::Block;

/// The size of a chunk. An event that a caller keeps holds its whole chunk in memory. Frames of the chunk
/// being filled are copied under the lock: a few microseconds at most.
const CHUNK_BYTES: usize = 64 << 10;
/// A group of at least a chunk divided by this becomes a chunk of its own, and is shared at once.
const OWN_CHUNK_DIVISOR: usize = 4;

pub(crate) struct TailCache {
    bytes_max: usize,
    chunk_bytes: usize,
    /// The first position of the oldest segment with bytes here. Readers of older segments do not take the
    /// lock. A stale value is harmless: the reader then reads the file.
    oldest: AtomicU64,
    chunks: RwLock<Chunks>,
}

#[derive(Default)]
struct Chunks {
    full: VecDeque<Chunk>,
    filling: Option<OpenChunk>,
    /// The memory of all chunks, in bytes.
    bytes: usize,
}

struct Chunk {
    segment: SegmentId,
    block: Block,
}

/// The chunk that is being filled.
struct OpenChunk {
    segment: SegmentId,
    start: u32,
    bytes: Vec<u8>,
}

impl TailCache {
    /// A cache of at most `bytes_max`; 0 keeps nothing.
    pub(crate) fn new(bytes_max: usize) -> TailCache {
        TailCache {
            bytes_max,
            // Chunks are evicted whole, so several must fit.
            chunk_bytes: CHUNK_BYTES.min(bytes_max / 8),
            oldest: AtomicU64::new(u64::MAX),
            chunks: RwLock::default(),
        }
    }

    /// Adds the bytes that were written to a segment at `start`: whole frames, behind everything added
    /// before.
    pub(crate) fn add(&self, segment: SegmentId, start: u32, group: &[u8]) {
        if group.len() > self.bytes_max {
            return;
        }
        let mut start = start;
        for piece in (FramePieces { rest: group, bytes_max: self.chunk_bytes }) {
            self.add_piece(segment, start, piece);
            start += to_u32(piece.len());
        }
    }

    fn add_piece(&self, segment: SegmentId, start: u32, piece: &[u8]) {
        let own = (piece.len() >= self.chunk_bytes / OWN_CHUNK_DIVISOR).then(|| piece.to_vec());
        let mut chunks = self.chunks.write();
        match own {
            Some(bytes) => chunks.add_full(OpenChunk { segment, start, bytes }),
            None => chunks.fill(segment, start, piece, self.chunk_bytes),
        }
        let evicted = chunks.evict_to(self.bytes_max);
        self.oldest.store(chunks.oldest(), Ordering::Relaxed);
        drop(chunks);
        // After the lock is free: readers do not wait while memory is freed.
        drop(evicted);
    }

    /// Evicts everything: what was added may not be in the files any more.
    pub(crate) fn clear(&self) {
        let mut chunks = self.chunks.write();
        *chunks = Chunks::default();
        self.oldest.store(u64::MAX, Ordering::Relaxed);
    }

    /// A block that holds `frame`, and as much of `run`, which contains the frame, as the cache has.
    pub(crate) fn block(&self, segment: SegmentId, frame: &Range<u32>, run: &Range<u32>) -> Option<Block> {
        if segment.first_position < self.oldest.load(Ordering::Relaxed) {
            return None;
        }
        let chunks = self.chunks.read();
        let later =
            chunks.full.partition_point(|chunk| (chunk.segment, chunk.block.start) <= (segment, frame.start));
        let full = later.checked_sub(1).and_then(|last| chunks.full.get(last));
        if let Some(chunk) = full.filter(|chunk| chunk.segment == segment && chunk.block.holds(frame)) {
            return Some(chunk.block.clone());
        }
        chunks.filling.as_ref().filter(|filling| filling.segment == segment)?.copy(frame, run)
    }
}

impl Chunks {
    /// Adds a group to the chunk being filled, or begins the next chunk with it.
    fn fill(&mut self, segment: SegmentId, start: u32, group: &[u8], chunk_bytes: usize) {
        let continues = |filling: &OpenChunk| {
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
            OpenChunk { segment, start, bytes: memory }
        });
        filling.bytes.extend_from_slice(group);
    }

    /// Adds a chunk that is full from the start.
    fn add_full(&mut self, chunk: OpenChunk) {
        self.close();
        self.bytes += chunk.bytes.capacity();
        self.full.push_back(chunk.close());
    }

    /// Ends the chunk being filled, if there is one.
    fn close(&mut self) {
        if let Some(mut filling) = self.filling.take() {
            self.bytes -= filling.bytes.capacity();
            // The end of a segment or a large group ended the chunk early: give back the memory it did not
            // use.
            if filling.bytes.len() < filling.bytes.capacity() / 2 {
                filling.bytes.shrink_to_fit();
            }
            self.bytes += filling.bytes.capacity();
            self.full.push_back(filling.close());
        }
    }

    /// Takes out the oldest chunks until the others fit. The chunk being filled stays.
    fn evict_to(&mut self, bytes_max: usize) -> Vec<Chunk> {
        let mut evicted = Vec::new();
        while self.bytes > bytes_max
            && let Some(chunk) = self.full.pop_front()
        {
            self.bytes -= chunk.block.bytes.capacity();
            evicted.push(chunk);
        }
        evicted
    }

    /// The first position of the oldest segment in the cache.
    fn oldest(&self) -> u64 {
        let filling = self.filling.as_ref().map(|filling| filling.segment);
        let oldest = self.full.front().map(|chunk| chunk.segment).or(filling);
        oldest.map_or(u64::MAX, |segment| segment.first_position)
    }
}

/// Splits a group at the ends of frames, so that no piece is larger than a chunk unless it is a single frame.
struct FramePieces<'a> {
    rest: &'a [u8],
    bytes_max: usize,
}

impl<'a> Iterator for FramePieces<'a> {
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

impl OpenChunk {
    fn close(self) -> Chunk {
        let block = Block::known(Arc::new(self.bytes), self.start);
        Chunk { segment: self.segment, block }
    }

    /// Copies the part of `run` that it holds, if it holds `frame`.
    fn copy(&self, frame: &Range<u32>, run: &Range<u32>) -> Option<Block> {
        let index_of = |offset: u32| to_usize(offset).checked_sub(to_usize(self.start));
        let start = run.start.max(self.start);
        let from = index_of(start)?;
        let to = index_of(run.end)?.min(self.bytes.len());
        let holds = start <= frame.start && index_of(frame.end)? <= to;
        holds.then(|| Block::known(Arc::new(self.bytes[from..to].to_vec()), start))
    }
}
