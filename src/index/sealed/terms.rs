//! The terms of an index file: one found by its hash, many in order.
//!
//! Row: index.

use std::ops::Bound;

use crate::format::index_file::{Layout, NO_TERM, Term, TermHash, TermKind, read_slot};
use crate::index::search::point;
use crate::types::{Error, to_usize};

use super::reading::{Piece, Reading};

/// How many slots are looked at together: nearly every search ends among so many.
const SLOTS_AT_ONCE: usize = 64;

/// A term that lies where it was looked for.
pub(in crate::index) struct Found<'a> {
    pub(in crate::index) term: Term,
    pub(in crate::index) name: Piece<'a>,
    /// Where the next one begins in the section.
    pub(in crate::index) end: usize,
}

impl Found<'_> {
    fn is(&self, kind: TermKind, name: &[u8]) -> bool {
        self.term.kind == kind && *self.name == *name
    }

    /// Whether it stands before all that is asked for.
    fn is_before(&self, kind: TermKind, start: Bound<&[u8]>) -> bool {
        match start {
            Bound::Included(name) => (self.term.kind, &*self.name) < (kind, name),
            Bound::Excluded(name) => (self.term.kind, &*self.name) <= (kind, name),
            Bound::Unbounded => self.term.kind < kind,
        }
    }
}

impl<'a> Reading<'a> {
    /// The term of this kind and name, if it is there.
    pub(super) fn find(&self, kind: TermKind, name: &[u8]) -> Result<Option<Term>, Error> {
        let hash = TermHash::of(&self.sealed.header.bound.store_id, kind, name);
        if !self.sealed.may_have(hash) {
            return Ok(None);
        }
        let table = &self.sealed.layout.slots;
        let (mut at, mut left) = (hash.slot(table.count), table.count);
        while left > 0 {
            let some = SLOTS_AT_ONCE.min(table.count - at).min(left);
            let slots = self.piece(table.at(at)..table.at(at + some))?;
            for slot in 0..some {
                match read_slot(&slots, slot) {
                    (_, NO_TERM) => return Ok(None),
                    (fingerprint, term) if fingerprint == hash.fingerprint() => {
                        let found = self.term_at(to_usize(term), name.len())?;
                        if found.is(kind, name) {
                            return Ok(Some(found.term));
                        }
                    }
                    _ => {}
                }
            }
            left -= some;
            at = (at + some) % table.count;
        }
        Ok(None)
    }

    /// Where the first term begins that is not before these; the section's end, if all are.
    pub(super) fn seek(&self, kind: TermKind, start: Bound<&[u8]>) -> Result<usize, Error> {
        let anchors = &self.sealed.layout.anchors;
        let anchor = |anchor: usize| to_usize(self.number(anchors.at(anchor)));
        let later = point(0..anchors.count, |at| {
            let found = self.term_at(anchor(at), 0);
            found.map_or_else(|error| self.fail_with(error, false), |found| found.is_before(kind, start))
        });
        let mut at = later.checked_sub(1).map_or(0, anchor);
        while at < self.terms_end() {
            let found = self.term_at(at, 0)?;
            if !found.is_before(kind, start) {
                break;
            }
            at = found.end;
        }
        Ok(at)
    }

    /// Where the terms end in their section.
    pub(super) fn terms_end(&self) -> usize {
        self.sealed.layout.terms.count
    }

    /// The term that begins at a place of its section, checked; whoever expects a name of some length says so,
    /// that all may be read at once.
    pub(in crate::index) fn term_at(&self, at: usize, name_bytes: usize) -> Result<Found<'a>, Error> {
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
            return Err(damaged("a term of the index has events that there are not"));
        }
        let end = name.end - section.start;
        Ok(Found { term, name: self.piece(name)?, end })
    }

    /// Whether all that a term names is there.
    fn is_possible(&self, term: &Term) -> bool {
        let header = &self.sealed.header;
        let Layout { lists, jumps, .. } = &self.sealed.layout;
        let list = term.list.is_none_or(|list| to_usize(list) + to_usize(term.count) <= lists.count);
        list && term.count <= header.events
            && header.ordinals.start <= term.first
            && term.last < header.ordinals.end
            && to_usize(term.jumps.end) <= jumps.count
    }

    /// Keeps a failure, and goes on with something else.
    pub(super) fn fail_with<T>(&self, error: Error, otherwise: T) -> T {
        self.fail(error);
        otherwise
    }
}
