//! The posting lists of an index file, and the answers that only an index file gives.

use std::ops::{Bound, ControlFlow, Range};

use crate::format::index_file::{BLOCK, JUMP, NUMBER, Term, TermKind, read_jump};
use crate::format::{KEY_BYTES, u32_at};
use crate::index::IndexForm;
use crate::index::postings::{EventLocation, GappedSequence, Jumps, PostingList, gallop, partition_point};
use crate::index::query::{NameField, PostingLists, to_ordinal};
use crate::types::{Error, EventId, to_usize};

use super::reader::IndexReader;
use super::{OrdinalJumps, SealedIndex};

/// The most offsets that are read at once: 64 KiB.
const OFFSETS_AT_ONCE: usize = 16 * OFFSETS_PER_BLOCK;
const OFFSETS_PER_BLOCK: usize = BLOCK / NUMBER;

impl IndexForm for SealedIndex {
    type Lists<'a> = IndexReader<'a>;

    fn events(&self) -> u32 {
        self.header.events
    }

    fn ordinals(&self) -> Range<u32> {
        self.header.ordinals.clone()
    }

    fn streams_created(&self) -> u32 {
        self.header.born
    }

    fn with_lists<'a, T>(
        &'a self,
        answer: impl FnOnce(&IndexReader<'a>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let reader = IndexReader::new(self);
        let answer = answer(&reader);
        reader.answered(answer)
    }
}

impl PostingLists for IndexReader<'_> {
    type List<'b>
        = SealedList<'b>
    where
        Self: 'b;
    type Versions<'b>
        = SealedJumps<'b>
    where
        Self: 'b;
    type Ordinals = OrdinalJumps;

    fn named(&self, field: NameField, name: &str) -> SealedList<'_> {
        self.list(kind_of(field), name.as_bytes())
    }

    fn correlated(&self, id: EventId) -> SealedList<'_> {
        self.list(TermKind::Correlation, id.as_bytes())
    }

    fn effects(&self, id: EventId) -> SealedList<'_> {
        self.list(TermKind::Cause, id.as_bytes())
    }

    fn followers(&self) -> SealedList<'_> {
        self.list(TermKind::Follower, &[])
    }

    fn first_foreign(&self, id: EventId) -> Option<u32> {
        self.find_or_fail(TermKind::ForeignId, id.as_bytes()).map(|term| term.first)
    }

    fn first_with_key(&self, key: &[u8; KEY_BYTES]) -> Option<u32> {
        self.find_or_fail(TermKind::Key, key).map(|term| term.first)
    }

    fn stream(&self, entity: &str) -> Option<(GappedSequence<SealedJumps<'_>>, SealedList<'_>)> {
        let term = self.find_or_fail(TermKind::Entity, entity.as_bytes())?;
        Some((versions(self, &term), SealedList::of(self, &term)))
    }

    fn visit<'b>(
        &'b self,
        field: NameField,
        prefix: &str,
        after: Option<&str>,
        visit: &mut dyn FnMut(&str, SealedList<'b>) -> ControlFlow<()>,
    ) {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.as_bytes()),
            _ => Bound::Included(prefix.as_bytes()),
        };
        if let Err(error) = self.visit_from(kind_of(field), prefix, start, visit) {
            self.fail(error);
        }
    }

    fn ordinals(&self) -> &GappedSequence<OrdinalJumps> {
        &self.sealed.ordinals
    }

    fn locate_slot(&self, slot: usize) -> Result<Option<EventLocation>, Error> {
        let ordinals = &self.sealed.ordinals;
        let Some(behind) = ordinals.count().checked_sub(slot).and_then(|left| left.checked_sub(1)) else {
            return Ok(None);
        };
        let offset = |slot: usize| self.number(self.sealed.layout.offsets.at(slot));
        let start = offset(slot);
        // Events of one append lie in one frame, which ends where the next frame, or a removed range, begins.
        let same = gallop(behind, |next| offset(slot + 1 + next) == start);
        let next = if same < behind { offset(slot + 1 + same) } else { self.sealed.header.bound.end };
        let end = self.removed_before(next).unwrap_or(next);
        if start >= end || end > self.sealed.header.bound.end {
            let offset = self.sealed.layout.offsets.at(slot);
            return Err(self.sealed.damaged(offset, "an event of the index lies where none can"));
        }
        Ok(Some(EventLocation { ordinal: to_ordinal(ordinals.at(slot)), frame: start..end }))
    }

    fn locate_all(&self, ordinals: impl Iterator<Item = u32>) -> Result<Vec<EventLocation>, Error> {
        let slots: Vec<usize> =
            ordinals.filter_map(|ordinal| self.sealed.ordinals.slot(ordinal.into())).collect();
        let offsets = &self.sealed.layout.offsets;
        let mut locations = Vec::with_capacity(slots.len());
        let mut rest = slots.as_slice();
        while let Some(first) = rest.first() {
            // The offsets of neighbours are read at once, even with a few others between them.
            let is_near = |pair: &[usize]| {
                pair[0].abs_diff(pair[1]) <= OFFSETS_PER_BLOCK && first.abs_diff(pair[1]) < OFFSETS_AT_ONCE
            };
            let near = 1 + rest.windows(2).take_while(|pair| is_near(pair)).count();
            let (now, later) = rest.split_at(near);
            let last = now[near - 1];
            let behind = (last.max(*first) + 2).min(self.sealed.ordinals.count());
            self.prefetch(offsets.at(last.min(*first))..offsets.at(behind))?;
            for slot in now {
                locations.extend(self.locate_slot(*slot)?);
            }
            rest = later;
        }
        Ok(locations)
    }
}

impl IndexReader<'_> {
    /// The term of this kind and name. `None` if there is none, or after a failed read.
    fn find_or_fail(&self, kind: TermKind, name: &[u8]) -> Option<Term> {
        self.find(kind, name).unwrap_or_else(|error| self.fail_with(error, None))
    }

    /// The list of a term; an empty one, if there is none.
    fn list(&self, kind: TermKind, name: &[u8]) -> SealedList<'_> {
        self.find_or_fail(kind, name).map_or_else(SealedList::empty, |term| SealedList::of(self, &term))
    }

    /// Visits the terms of a kind that begin with `prefix`, from `start` on.
    fn visit_from<'b>(
        &'b self,
        kind: TermKind,
        prefix: &str,
        start: Bound<&[u8]>,
        visit: &mut dyn FnMut(&str, SealedList<'b>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut at = self.seek(kind, start)?;
        while at < self.terms_end() && !self.has_failed() {
            let located = self.term_at(at, 0)?;
            if located.term.kind != kind || !located.name.starts_with(prefix.as_bytes()) {
                break;
            }
            let name = std::str::from_utf8(&located.name)
                .map_err(|_| self.sealed.damaged(at, "a name in the index is not UTF-8"))?;
            if visit(name, SealedList::of(self, &located.term)).is_break() {
                break;
            }
            at = located.end;
        }
        Ok(())
    }

    /// The end of the last frame before the removed range that ends at `offset`, if there is one.
    fn removed_before(&self, offset: u32) -> Option<u32> {
        let removed = &self.sealed.layout.removed;
        let end = |at: usize| self.number(removed.at(at) + NUMBER);
        let at = partition_point(0..removed.count, |at| end(at) < offset);
        if at == removed.count || end(at) != offset {
            return None;
        }
        Some(self.number(removed.at(at)))
    }
}

fn kind_of(field: NameField) -> TermKind {
    match field {
        NameField::Entity => TermKind::Entity,
        NameField::Scope => TermKind::Scope,
        NameField::Kind => TermKind::Kind,
        NameField::Tag => TermKind::Tag,
    }
}

/// The posting list of a term, or a part of it.
pub(in crate::index) struct SealedList<'a> {
    ordinals: Ordinals<'a>,
    length: usize,
}

enum Ordinals<'a> {
    /// Consecutive ordinals from this one on.
    Run(u32),
    /// In memory, four bytes each.
    Bytes(&'a [u8]),
    File(FileList<'a>),
}

/// A list on the disk, read a block at a time.
struct FileList<'a> {
    reader: &'a IndexReader<'a>,
    /// The offset in the file.
    start: usize,
    /// Both ends, as the term has them: most questions need nothing else of the list.
    first: Option<u32>,
    last: Option<u32>,
}

impl<'a> SealedList<'a> {
    pub(super) fn empty() -> SealedList<'a> {
        SealedList { ordinals: Ordinals::Run(0), length: 0 }
    }

    /// The list of a term that passed its checks.
    pub(super) fn of(reader: &'a IndexReader<'a>, term: &Term) -> SealedList<'a> {
        let length = to_usize(term.count);
        let Some(list) = term.list else { return SealedList { ordinals: Ordinals::Run(term.first), length } };
        let start = reader.sealed.layout.lists.at(to_usize(list));
        let ordinals = match reader.whole() {
            Some(bytes) => Ordinals::Bytes(&bytes[start..start + length * NUMBER]),
            None => {
                Ordinals::File(FileList { reader, start, first: Some(term.first), last: Some(term.last) })
            }
        };
        SealedList { ordinals, length }
    }
}

impl PostingList for SealedList<'_> {
    fn len(&self) -> usize {
        self.length
    }

    fn at(&self, slot: usize) -> u32 {
        match &self.ordinals {
            Ordinals::Run(first) => first.saturating_add(u32::try_from(slot).unwrap_or(u32::MAX)),
            Ordinals::Bytes(bytes) => u32_at(bytes, slot * NUMBER),
            Ordinals::File(list) => match (list.first, list.last) {
                (Some(first), _) if slot == 0 => first,
                (_, Some(last)) if slot + 1 == self.length => last,
                _ => list.reader.number(list.start + slot * NUMBER),
            },
        }
    }

    fn keep(&mut self, slots: Range<usize>) {
        match &mut self.ordinals {
            Ordinals::Run(first) => {
                *first = first.saturating_add(u32::try_from(slots.start).unwrap_or(u32::MAX));
            }
            Ordinals::Bytes(bytes) => *bytes = &bytes[slots.start * NUMBER..slots.end * NUMBER],
            Ordinals::File(list) => {
                list.start += slots.start * NUMBER;
                list.first = list.first.filter(|_| slots.start == 0);
                list.last = list.last.filter(|_| slots.end == self.length);
            }
        }
        self.length = slots.len();
    }

    fn below(&self, ordinal: u32) -> usize {
        if let Ordinals::Run(first) = self.ordinals {
            return to_usize(ordinal.saturating_sub(first)).min(self.length);
        }
        // The ends cost no read, and a window often holds all of a list or nothing of it.
        match (self.first(), self.last()) {
            (Some(first), _) if ordinal <= first => 0,
            (_, Some(last)) if last < ordinal => self.length,
            _ => partition_point(0..self.length, |slot| self.at(slot) < ordinal),
        }
    }
}

/// The jumps in the versions of an entity.
pub(in crate::index) struct SealedJumps<'a> {
    reader: &'a IndexReader<'a>,
    /// Their range in the section of jumps.
    jumps: Range<u32>,
}

impl Jumps for SealedJumps<'_> {
    fn len(&self) -> usize {
        to_usize(self.jumps.end - self.jumps.start)
    }

    fn jump(&self, at: usize) -> (usize, u64) {
        let offset = self.reader.sealed.layout.jumps.at(to_usize(self.jumps.start) + at);
        match self.reader.piece(offset..offset + JUMP).as_deref().map(<[u8]>::first_chunk) {
            Ok(Some(jump)) => {
                let (slot, number) = read_jump(jump);
                (to_usize(slot), number)
            }
            Ok(None) => (0, 0),
            Err(error) => {
                self.reader.fail(error.clone());
                (0, 0)
            }
        }
    }
}

/// The versions of an entity whose term passed its checks.
pub(super) fn versions<'a>(reader: &'a IndexReader<'a>, term: &Term) -> GappedSequence<SealedJumps<'a>> {
    let jumps = SealedJumps { reader, jumps: term.jumps.clone() };
    GappedSequence::new(to_usize(term.count), term.version, jumps)
}
