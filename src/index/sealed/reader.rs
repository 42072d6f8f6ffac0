//! Reads an index file for the length of one question: its bytes, and its terms.
//!
//! No block is read twice for one question. Neighbouring blocks are read at once, and more of them while a
//! question continues in one direction.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::ops::{Bound, Deref, Range};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::disk::DiskFile;
use crate::format::index_file::{
    self, BLOCK, HEADER, Layout, NO_TERM, NUMBER, Term, TermHash, TermKind, block_place, read_slot,
};
use crate::format::{Damage, u32_at};
use crate::index::postings::{GappedSequence, partition_point};
use crate::types::{Error, ErrorKind, to_usize};

use super::{
    DAMAGED_BLOCK, IndexSource, OrdinalJumps, SealedIndex, check_block, check_header, check_table, read_gaps,
    read_range,
};

/// The most blocks that a question keeps: 4 MiB.
const BLOCKS_HELD_MAX: usize = 1024;
/// The most blocks that are read ahead: 64 KiB.
const BLOCKS_AHEAD_MAX: usize = 16;

/// The number of slots read at once: nearly every search ends within them.
const SLOTS_AT_ONCE: usize = 64;

impl SealedIndex {
    /// An index file to be read on demand. The outer error is one of the disk; the inner one says why the
    /// file is not the index of `bound`.
    pub(crate) fn open(
        file: Arc<dyn DiskFile>,
        path: &str,
        bound: &index_file::Bound,
    ) -> Result<Result<SealedIndex, Damage>, Error> {
        let length = file.length().map_err(|error| Error::io("cannot read the length of", path, error))?;
        let Ok(length) = usize::try_from(length) else { return Ok(Err(Damage::Bad("the file is too long"))) };
        let reads = AtomicU64::new(0);
        let read = |range: Range<usize>| read_range(file.as_ref(), path, range, &reads);
        let (header, layout) = match check_header(&read(0..length.min(HEADER))?, length, bound) {
            Ok(checked) => checked,
            Err(damage) => return Ok(Err(damage)),
        };
        let checksums = read(layout.table.clone())?;
        if let Err(damage) = check_table(&header, &checksums, layout.table.len()) {
            return Ok(Err(damage));
        }
        let source = IndexSource::File { file: file.clone(), filter: Vec::new(), checksums };
        let ordinals = GappedSequence::new(0, 0, OrdinalJumps(Vec::new()));
        SealedIndex { path: path.to_owned(), header, layout, ordinals, source, reads }
            .read_filter_and_ordinals()
    }

    /// Reads the parts that every question needs: the filter and the jumps of the ordinals.
    fn read_filter_and_ordinals(mut self) -> Result<Result<SealedIndex, Damage>, Error> {
        let Layout { filter, jumps, .. } = &self.layout;
        let reader = IndexReader::new(&self);
        let read = reader.piece(filter.range()).and_then(|filter| {
            let gaps = reader.piece(jumps.start..jumps.at(to_usize(self.header.gaps)))?;
            Ok((filter.to_vec(), read_gaps(&self.header, &gaps)))
        });
        let (read_filter, ordinals) = match read {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(Err(Damage::Bad(DAMAGED_BLOCK))),
            Err(error) => return Err(error),
        };
        self.ordinals = match ordinals {
            Ok(ordinals) => ordinals,
            Err(damage) => return Ok(Err(damage)),
        };
        if let IndexSource::File { filter, .. } = &mut self.source {
            *filter = read_filter;
        }
        Ok(Ok(self))
    }
}

/// Reads an index file for one question, and keeps the blocks it has read until the question is answered.
pub(in crate::index) struct IndexReader<'a> {
    pub(super) sealed: &'a SealedIndex,
    blocks: RefCell<Blocks>,
    /// The first failed read. Lists and numbers cannot return an error, so after a failure they return any
    /// value, and [`IndexReader::answered`] drops the answer.
    first_error: OnceCell<Error>,
}

#[derive(Default)]
struct Blocks {
    held: BTreeMap<usize, BlockRun>,
    /// The run used last: most questions read the same run several times in a row.
    recent: Option<BlockRun>,
    /// The blocks read last, and how many of them were read ahead.
    last: Range<usize>,
    ahead: usize,
}

/// Neighbouring blocks that were read at once and checked.
#[derive(Clone)]
struct BlockRun {
    bytes: Rc<Vec<u8>>,
    /// The offset in the file.
    start: usize,
}

impl BlockRun {
    /// A range of the file, as a range of the bytes of this run.
    fn locate(&self, range: &Range<usize>) -> Option<Range<usize>> {
        let start = range.start.checked_sub(self.start)?;
        let end = range.end.checked_sub(self.start)?;
        (end <= self.bytes.len()).then_some(start..end)
    }
}

/// Bytes of an index file.
pub(super) enum FileBytes<'a> {
    Borrowed(&'a [u8]),
    Shared(Rc<Vec<u8>>, Range<usize>),
    Joined(Vec<u8>),
}

impl Deref for FileBytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            FileBytes::Borrowed(bytes) => bytes,
            FileBytes::Shared(bytes, range) => &bytes[range.clone()],
            FileBytes::Joined(bytes) => bytes,
        }
    }
}

impl<'a> IndexReader<'a> {
    pub(super) fn new(sealed: &'a SealedIndex) -> IndexReader<'a> {
        IndexReader { sealed, blocks: RefCell::default(), first_error: OnceCell::new() }
    }

    /// The answer, unless a read failed on the way to it. The first failure is returned: others may follow
    /// from it.
    pub(super) fn answered<T>(self, answer: Result<T, Error>) -> Result<T, Error> {
        self.first_error.into_inner().map_or(answer, Err)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.first_error.get().is_some()
    }

    /// Keeps the first failure, so that the answer is dropped.
    pub(super) fn fail(&self, error: Error) {
        // Later failures may follow from the first, so they are dropped.
        _ = self.first_error.set(error);
    }

    /// The bytes of the file, if it is whole in memory.
    #[inline]
    pub(super) fn whole(&self) -> Option<&'a [u8]> {
        match &self.sealed.source {
            IndexSource::Whole(bytes) => Some(bytes),
            IndexSource::File { .. } => None,
        }
    }

    /// A range of bytes of the file, within its sections.
    pub(super) fn piece(&self, range: Range<usize>) -> Result<FileBytes<'a>, Error> {
        if range.is_empty() {
            return Ok(FileBytes::Borrowed(&[]));
        }
        if range.end > self.sealed.layout.table.start {
            return Err(self.sealed.damaged(range.start, "an offset in the index lies behind its end"));
        }
        if let Some(bytes) = self.whole() {
            return Ok(FileBytes::Borrowed(&bytes[range]));
        }
        let mut blocks = self.blocks.borrow_mut();
        let known = blocks.recent.as_ref().and_then(|run| Some((run, run.locate(&range)?)));
        if let Some((run, place)) = known {
            return Ok(FileBytes::Shared(run.bytes.clone(), place));
        }
        self.fetch(&mut blocks, range.start / BLOCK..range.end.div_ceil(BLOCK))?;
        let run = blocks.held[&(range.start / BLOCK)].clone();
        let place = run.locate(&range);
        let bytes = run.bytes.clone();
        blocks.recent = Some(run);
        match place {
            Some(place) => Ok(FileBytes::Shared(bytes, place)),
            None => Ok(FileBytes::Joined(blocks.join(&range))),
        }
    }

    /// Reads, with one read, a range that the caller is going to use.
    pub(super) fn prefetch(&self, range: Range<usize>) -> Result<(), Error> {
        if self.whole().is_some() || range.is_empty() {
            return Ok(());
        }
        self.fetch(&mut self.blocks.borrow_mut(), range.start / BLOCK..range.end.div_ceil(BLOCK))
    }

    /// The number at an offset, which the caller has checked to lie in a list or a table of numbers. Any
    /// number after a failure.
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

    /// Reads those of these blocks that are not held, and checks them.
    fn fetch(&self, blocks: &mut Blocks, wanted: Range<usize>) -> Result<(), Error> {
        let IndexSource::File { file, checksums, .. } = &self.sealed.source else { return Ok(()) };
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
        let run = BlockRun { bytes: Rc::new(bytes), start };
        blocks.held.extend(range.clone().map(|block| (block, run.clone())));
        blocks.last = range;
        Ok(())
    }
}

impl Blocks {
    /// These blocks, and more in the direction in which the question reads.
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

    /// Copies a range that lies in several runs, all of them held.
    fn join(&self, range: &Range<usize>) -> Vec<u8> {
        let mut joined = Vec::with_capacity(range.len());
        while joined.len() < range.len() {
            let at = range.start + joined.len();
            let run = &self.held[&(at / BLOCK)];
            let run_end = run.start + run.bytes.len();
            joined.extend_from_slice(&run.bytes[at - run.start..range.end.min(run_end) - run.start]);
        }
        joined
    }
}

/// A term, its name, and the offset of the next term in the section.
pub(super) struct LocatedTerm<'a> {
    pub(super) term: Term,
    pub(super) name: FileBytes<'a>,
    pub(super) end: usize,
}

impl LocatedTerm<'_> {
    fn is(&self, kind: TermKind, name: &[u8]) -> bool {
        self.term.kind == kind && *self.name == *name
    }

    /// Whether the term comes before all terms of this kind at or behind `start`.
    fn is_before(&self, kind: TermKind, start: Bound<&[u8]>) -> bool {
        match start {
            Bound::Included(name) => (self.term.kind, &*self.name) < (kind, name),
            Bound::Excluded(name) => (self.term.kind, &*self.name) <= (kind, name),
            Bound::Unbounded => self.term.kind < kind,
        }
    }
}

/// The terms of the file: one found by its hash, or many in order.
impl<'a> IndexReader<'a> {
    /// The term of this kind and name, found by its hash.
    pub(super) fn find(&self, kind: TermKind, name: &[u8]) -> Result<Option<Term>, Error> {
        let hash = TermHash::of(&self.sealed.header.bound.store_id, kind, name);
        if !self.sealed.may_have(hash) {
            return Ok(None);
        }
        let table = &self.sealed.layout.slots;
        let mut at = hash.slot(table.count);
        let mut left = table.count;
        while left > 0 {
            let count = SLOTS_AT_ONCE.min(table.count - at).min(left);
            let slots = self.piece(table.at(at)..table.at(at + count))?;
            for slot in 0..count {
                match read_slot(&slots, slot) {
                    (_, NO_TERM) => return Ok(None),
                    (fingerprint, term) if fingerprint == hash.fingerprint() => {
                        let located = self.term_at(to_usize(term), name.len())?;
                        if located.is(kind, name) {
                            return Ok(Some(located.term));
                        }
                    }
                    _ => {}
                }
            }
            left -= count;
            at = (at + count) % table.count;
        }
        Ok(None)
    }

    /// The offset, in the section, of the first term of this kind at or behind `start`; the section's end if
    /// there is none.
    pub(super) fn seek(&self, kind: TermKind, start: Bound<&[u8]>) -> Result<usize, Error> {
        let anchors = &self.sealed.layout.anchors;
        let anchor = |anchor: usize| to_usize(self.number(anchors.at(anchor)));
        let later = partition_point(0..anchors.count, |at| {
            let located = self.term_at(anchor(at), 0);
            located
                .map_or_else(|error| self.fail_with(error, false), |located| located.is_before(kind, start))
        });
        let mut at = later.checked_sub(1).map_or(0, anchor);
        while at < self.terms_end() {
            let located = self.term_at(at, 0)?;
            if !located.is_before(kind, start) {
                break;
            }
            at = located.end;
        }
        Ok(at)
    }

    /// The end of the terms in their section.
    pub(super) fn terms_end(&self) -> usize {
        self.sealed.layout.terms.count
    }

    /// The term at an offset of the section, checked. `name_bytes` is the length of the name if the caller
    /// knows it, so that one read is enough.
    pub(super) fn term_at(&self, at: usize, name_bytes: usize) -> Result<LocatedTerm<'a>, Error> {
        let section = self.sealed.layout.terms.range();
        let start = section.start.saturating_add(at);
        let damaged = |what: &str| self.sealed.damaged(start, what);
        if start >= section.end {
            return Err(damaged("a term of the index lies behind the last"));
        }
        let likely = self.piece(start..(start + Term::HEAD_MAX + name_bytes).min(section.end))?;
        let (term, head) = Term::read(&likely).map_err(|damage| damaged(&damage.to_string()))?;
        let name = start + head..start + head + usize::from(term.name_bytes);
        if name.end > section.end {
            return Err(damaged("a name in the index is cut off"));
        }
        if !self.is_possible(&term) {
            return Err(damaged("a term of the index names events that do not exist"));
        }
        let end = name.end - section.start;
        Ok(LocatedTerm { term, name: self.piece(name)?, end })
    }

    /// Whether the list, the jumps and the ordinals that a term names lie within the file.
    fn is_possible(&self, term: &Term) -> bool {
        let header = &self.sealed.header;
        let Layout { lists, jumps, .. } = &self.sealed.layout;
        let list = term.list.is_none_or(|list| to_usize(list) + to_usize(term.count) <= lists.count);
        list && term.count <= header.events
            && header.ordinals.start <= term.first
            && term.last < header.ordinals.end
            && to_usize(term.jumps.end) <= jumps.count
    }

    /// Keeps a failure, and returns a value to continue with.
    pub(super) fn fail_with<T>(&self, error: Error, otherwise: T) -> T {
        self.fail(error);
        otherwise
    }
}
