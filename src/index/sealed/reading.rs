//! The bytes of an index file, for the length of one question.
//!
//! What a question reads of a file it keeps until it is answered, so that no block is read twice; neighbouring
//! blocks are read at once, and ever more of them while a question goes on in one direction.
//! Row: index.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::ops::{Deref, Range};
use std::rc::Rc;

use crate::format::index_file::{BLOCK, NUMBER, block_place};
use crate::format::u32_at;
use crate::types::Error;

use super::{DAMAGED_BLOCK, SealedIndex, Source, check_block, read_range};

/// How many blocks a question may keep: 4 MiB.
const BLOCKS_HELD_MAX: usize = 1024;
/// How many blocks are read ahead at most: 64 KiB.
const BLOCKS_AHEAD_MAX: usize = 16;

/// One question, and what it has read.
pub(super) struct IndexReader<'a> {
    pub(super) sealed: &'a SealedIndex,
    blocks: RefCell<Blocks>,
    /// The first failure. Lists and numbers have no room for one in their answers, so they give any answer then,
    /// and whoever asked looks here before it believes what it was told.
    first_error: OnceCell<Error>,
}

#[derive(Default)]
struct Blocks {
    held: BTreeMap<usize, Stretch>,
    /// The one that was asked for last; questions stay where they are for a while.
    recent: Option<Stretch>,
    /// The blocks that were read last, and how many of them were read ahead.
    last: Range<usize>,
    ahead: usize,
}

/// Some neighbouring blocks, read at once and checked.
#[derive(Clone)]
struct Stretch {
    bytes: Rc<Vec<u8>>,
    /// Where they lie in the file.
    start: usize,
}

impl Stretch {
    fn place(&self, range: &Range<usize>) -> Option<Range<usize>> {
        let start = range.start.checked_sub(self.start)?;
        let end = range.end.checked_sub(self.start)?;
        (end <= self.bytes.len()).then_some(start..end)
    }
}

/// Some bytes of an index file.
pub(super) enum Piece<'a> {
    Lent(&'a [u8]),
    Shared(Rc<Vec<u8>>, Range<usize>),
    Joined(Vec<u8>),
}

impl Deref for Piece<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Piece::Lent(bytes) => bytes,
            Piece::Shared(bytes, range) => &bytes[range.clone()],
            Piece::Joined(bytes) => bytes,
        }
    }
}

impl<'a> IndexReader<'a> {
    pub(super) fn new(sealed: &'a SealedIndex) -> IndexReader<'a> {
        IndexReader { sealed, blocks: RefCell::default(), first_error: OnceCell::new() }
    }

    /// The answer, if nothing failed on the way to it. What failed first counts: the rest may follow from it.
    pub(super) fn answered<T>(self, answer: Result<T, Error>) -> Result<T, Error> {
        self.first_error.into_inner().map_or(answer, Err)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.first_error.get().is_some()
    }

    /// Keeps the first failure, so that the answer is not believed.
    pub(super) fn fail(&self, error: Error) {
        // A later failure follows from the first.
        _ = self.first_error.set(error);
    }

    /// The bytes of the file, if they are all in memory.
    #[inline]
    pub(super) fn whole(&self) -> Option<&'a [u8]> {
        match &self.sealed.source {
            Source::Whole(bytes) => Some(bytes),
            Source::File { .. } => None,
        }
    }

    /// Some bytes of the sections.
    pub(super) fn piece(&self, range: Range<usize>) -> Result<Piece<'a>, Error> {
        if range.is_empty() {
            return Ok(Piece::Lent(&[]));
        }
        if range.end > self.sealed.layout.table.start {
            return Err(self.sealed.damaged(range.start, "something in the index lies behind its end"));
        }
        if let Some(bytes) = self.whole() {
            return Ok(Piece::Lent(&bytes[range]));
        }
        let mut blocks = self.blocks.borrow_mut();
        let known = blocks.recent.as_ref().and_then(|stretch| Some((stretch, stretch.place(&range)?)));
        if let Some((stretch, place)) = known {
            return Ok(Piece::Shared(stretch.bytes.clone(), place));
        }
        self.fetch(&mut blocks, range.start / BLOCK..range.end.div_ceil(BLOCK))?;
        let stretch = blocks.held[&(range.start / BLOCK)].clone();
        let place = stretch.place(&range);
        let bytes = stretch.bytes.clone();
        blocks.recent = Some(stretch);
        match place {
            Some(place) => Ok(Piece::Shared(bytes, place)),
            None => Ok(Piece::Joined(blocks.join(&range))),
        }
    }

    /// Reads these bytes at once, if they are not there yet: they will be asked for.
    pub(super) fn prefetch(&self, range: Range<usize>) -> Result<(), Error> {
        if self.whole().is_some() || range.is_empty() {
            return Ok(());
        }
        self.fetch(&mut self.blocks.borrow_mut(), range.start / BLOCK..range.end.div_ceil(BLOCK))
    }

    /// The number at a place of a list or a table of numbers, where the caller knows that one is; any number, after
    /// a failure.
    #[inline]
    pub(super) fn number(&self, place: usize) -> u32 {
        match self.whole() {
            Some(bytes) => u32_at(bytes, place),
            None => self.number_in_file(place),
        }
    }

    fn number_in_file(&self, place: usize) -> u32 {
        if self.has_failed() {
            return u32::MAX;
        }
        match self.piece(place..place + NUMBER) {
            Ok(piece) => u32_at(&piece, 0),
            Err(error) => {
                self.fail(error);
                u32::MAX
            }
        }
    }

    /// Makes sure that these blocks are held.
    fn fetch(&self, blocks: &mut Blocks, wanted: Range<usize>) -> Result<(), Error> {
        let Source::File { file, checksums, .. } = &self.sealed.source else { return Ok(()) };
        if blocks.held.len() > BLOCKS_HELD_MAX {
            blocks.held.clear();
        }
        let mut missing = wanted.clone().filter(|block| !blocks.held.contains_key(block));
        let Some(first) = missing.next() else { return Ok(()) };
        let last = missing.next_back().unwrap_or(first);
        let table_start = self.sealed.layout.table.start;
        let range = blocks.with_more(first..last + 1, table_start.div_ceil(BLOCK));
        let start = block_place(range.start, table_start).start;
        let end = block_place(range.end - 1, table_start).end;
        let bytes = read_range(file.as_ref(), &self.sealed.path, start..end, &self.sealed.reads)?;
        for block in range.clone() {
            let place = block_place(block, table_start);
            let block_bytes = bytes.get(place.start - start..place.end - start);
            let checked = block_bytes.map(|bytes| check_block(checksums, block, bytes));
            if checked != Some(Ok(())) {
                return Err(self.sealed.damaged(place.start, DAMAGED_BLOCK));
            }
        }
        let stretch = Stretch { bytes: Rc::new(bytes), start };
        blocks.held.extend(range.clone().map(|block| (block, stretch.clone())));
        blocks.last = range;
        Ok(())
    }
}

impl Blocks {
    /// These blocks, and more in the direction in which the question goes on.
    fn with_more(&mut self, range: Range<usize>, count: usize) -> Range<usize> {
        let more = (self.ahead * 2).clamp(1, BLOCKS_AHEAD_MAX);
        if range.start == self.last.end && !self.last.is_empty() {
            self.ahead = more;
            range.start..(range.end + more).min(count)
        } else if range.end == self.last.start && !self.last.is_empty() {
            self.ahead = more;
            range.start.saturating_sub(more)..range.end
        } else {
            self.ahead = 0;
            range
        }
    }

    /// Bytes that lie in stretches which were read one by one; all of them are held.
    fn join(&self, range: &Range<usize>) -> Vec<u8> {
        let mut joined = Vec::with_capacity(range.len());
        while joined.len() < range.len() {
            let at = range.start + joined.len();
            let stretch = &self.held[&(at / BLOCK)];
            let stretch_end = stretch.start + stretch.bytes.len();
            joined.extend_from_slice(
                &stretch.bytes[at - stretch.start..range.end.min(stretch_end) - stretch.start],
            );
        }
        joined
    }
}
