//! What an index file answers.
//!
//! Row: index.

use std::ops::{Bound, ControlFlow, Range};

use crate::format::KEY_BYTES;
use crate::format::index_file::{BLOCK, NUMBER, Term, TermKind};
use crate::index::list::List;
use crate::index::listing::listed;
use crate::index::query::{Asked, Lists};
use crate::index::search::{gallop, point};
use crate::index::{Answers, Entry, Label, Place, Wanted, Way, last_up_to, narrow, nearest, ordinals_of};
use crate::types::{Error, EventId, Query, to_u64};

use super::Sealed;
use super::list::{SealedList, versions};
use super::reading::Reading;

/// How many offsets are read at once at most: 64 KiB.
const OFFSETS_AT_ONCE: usize = 16 * OFFSETS_PER_BLOCK;
const OFFSETS_PER_BLOCK: usize = BLOCK / NUMBER;

impl Sealed {
    fn ask<T>(&self, answer: impl FnOnce(&Reading<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let reading = Reading::new(self);
        let answer = answer(&reading);
        reading.answered(answer)
    }

    /// Answers about the events of one term, if there is one.
    fn ask_term<T: Default>(
        &self,
        kind: TermKind,
        name: &[u8],
        answer: impl FnOnce(&Reading<'_>, &Term) -> T,
    ) -> Result<T, Error> {
        self.ask(|reading| {
            let term = reading.find(kind, name)?;
            Ok(term.map(|term| answer(reading, &term)).unwrap_or_default())
        })
    }

    fn holds(&self, kind: TermKind, name: &[u8], ordinal: u32) -> Result<bool, Error> {
        self.ask_term(kind, name, |reading, term| SealedList::of(reading, term).holds(ordinal))
    }
}

impl Answers for Sealed {
    fn events(&self) -> u32 {
        self.header.events
    }

    fn ordinals(&self) -> Range<u32> {
        self.header.ordinals.clone()
    }

    fn born(&self) -> u32 {
        self.header.born
    }

    fn place(&self, ordinal: u32) -> Result<Option<Place>, Error> {
        match self.ordinals.slot(ordinal.into()) {
            Some(slot) => self.ask(|reading| reading.place_at(slot)),
            None => Ok(None),
        }
    }

    fn place_from(&self, ordinal: u32) -> Result<Option<Place>, Error> {
        self.ask(|reading| reading.place_at(self.ordinals.below(ordinal.into())))
    }

    fn matching(
        &self,
        query: &Query,
        window: &Range<u32>,
        way: Way,
        own: &dyn Fn(EventId) -> Option<u32>,
        most: usize,
    ) -> Result<Vec<Place>, Error> {
        let window = self.clip(window);
        self.ask(|reading| {
            let asked = Asked::new(reading, &window, way, own);
            let ordinals: Vec<u32> = asked.events(query).take(most).collect();
            reading.places(&ordinals)
        })
    }

    fn count(
        &self,
        query: &Query,
        window: &Range<u32>,
        own: &dyn Fn(EventId) -> Option<u32>,
    ) -> Result<u64, Error> {
        let window = self.clip(window);
        self.ask(|reading| Ok(Asked::new(reading, &window, Way::Forward, own).count(query)))
    }

    fn exists(
        &self,
        query: &Query,
        window: &Range<u32>,
        own: &dyn Fn(EventId) -> Option<u32>,
    ) -> Result<bool, Error> {
        let window = self.clip(window);
        self.ask(|reading| Ok(Asked::new(reading, &window, Way::Backward, own).exists(query)))
    }

    fn correlates(&self, id: EventId, ordinal: u32) -> Result<bool, Error> {
        self.holds(TermKind::Correlation, id.as_bytes(), ordinal)
    }

    fn effects(&self, id: EventId) -> Result<Vec<u32>, Error> {
        self.ask_term(TermKind::Cause, id.as_bytes(), |reading, term| SealedList::of(reading, term).to_vec())
    }

    fn is_follower(&self, ordinal: u32) -> Result<bool, Error> {
        self.holds(TermKind::Follower, &[], ordinal)
    }

    fn foreign(&self, id: EventId) -> Result<Option<u32>, Error> {
        self.ask_term(TermKind::ForeignId, id.as_bytes(), |_, term| Some(term.first))
    }

    fn key(&self, key: &[u8; KEY_BYTES]) -> Result<Option<u32>, Error> {
        self.ask_term(TermKind::Key, key, |_, term| Some(term.first))
    }

    fn last_of(&self, entity: &str, up_to: u32) -> Result<Option<(u64, u32)>, Error> {
        self.ask_term(TermKind::Entity, entity.as_bytes(), |reading, term| {
            last_up_to(&versions(reading, term), &SealedList::of(reading, term), up_to)
        })
    }

    fn window_of(&self, entity: &str, wanted: &Range<u64>) -> Result<Range<u32>, Error> {
        self.ask_term(TermKind::Entity, entity.as_bytes(), |reading, term| {
            ordinals_of(&versions(reading, term), &SealedList::of(reading, term), wanted)
        })
    }

    fn listed(&self, wanted: &Wanted, window: &Range<u32>, most: usize) -> Result<Vec<Entry>, Error> {
        self.ask(|reading| Ok(listed(reading, wanted, window, most)))
    }
}

impl Lists for Reading<'_> {
    type List<'b>
        = SealedList<'b>
    where
        Self: 'b;

    fn named(&self, label: Label, name: &str) -> SealedList<'_> {
        self.list(kind_of(label), name.as_bytes())
    }

    fn correlated(&self, id: EventId) -> SealedList<'_> {
        self.list(TermKind::Correlation, id.as_bytes())
    }

    fn visit<'b>(
        &'b self,
        label: Label,
        prefix: &str,
        after: Option<&str>,
        visit: &mut dyn FnMut(&str, SealedList<'b>) -> ControlFlow<()>,
    ) {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.as_bytes()),
            _ => Bound::Included(prefix.as_bytes()),
        };
        if let Err(error) = self.visit_from(kind_of(label), prefix, start, visit) {
            self.fail(error);
        }
    }

    fn events_below(&self, ordinal: u32) -> u64 {
        to_u64(self.sealed.ordinals.below(ordinal.into()))
    }

    fn nearest(&self, ordinal: u32, way: Way) -> Option<u32> {
        nearest(&self.sealed.ordinals, ordinal, way)
    }
}

impl Reading<'_> {
    /// The list of a term; an empty one, if it is not there.
    fn list(&self, kind: TermKind, name: &[u8]) -> SealedList<'_> {
        match self.find(kind, name) {
            Ok(Some(term)) => SealedList::of(self, &term),
            Ok(None) => SealedList::empty(),
            Err(error) => self.fail_with(error, SealedList::empty()),
        }
    }

    fn visit_from<'b>(
        &'b self,
        kind: TermKind,
        prefix: &str,
        start: Bound<&[u8]>,
        visit: &mut dyn FnMut(&str, SealedList<'b>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut at = self.seek(kind, start)?;
        while at < self.terms_end() && !self.has_failed() {
            let found = self.term_at(at, 0)?;
            if found.term.kind != kind || !found.name.starts_with(prefix.as_bytes()) {
                break;
            }
            let name = std::str::from_utf8(&found.name)
                .map_err(|_| self.sealed.damaged(at, "a name in the index is not UTF-8"))?;
            if visit(name, SealedList::of(self, &found.term)).is_break() {
                break;
            }
            at = found.end;
        }
        Ok(())
    }

    /// Where the event at a slot lies, if there is one.
    fn place_at(&self, slot: usize) -> Result<Option<Place>, Error> {
        let ordinals = &self.sealed.ordinals;
        let Some(behind) = ordinals.count().checked_sub(slot).and_then(|left| left.checked_sub(1)) else {
            return Ok(None);
        };
        let offset = |slot: usize| self.number(self.sealed.layout.offsets.at(slot));
        let start = offset(slot);
        // Events of one append lie in one frame, which ends where the next begins.
        let same = gallop(behind, |next| offset(slot + 1 + next) == start);
        let next = if same < behind { offset(slot + 1 + same) } else { self.sealed.header.bound.end };
        let end = self.removed_before(next).unwrap_or(next);
        if start >= end || end > self.sealed.header.bound.end {
            let offset = self.sealed.layout.offsets.at(slot);
            return Err(self.sealed.damaged(offset, "an event of the index lies where none can"));
        }
        Ok(Some(Place { ordinal: narrow(ordinals.at(slot)), frame: start..end }))
    }

    /// Where the frames end that come before removed ones up to an offset, if there are such.
    fn removed_before(&self, offset: u32) -> Option<u32> {
        let removed = &self.sealed.layout.removed;
        let end = |at: usize| self.number(removed.at(at) + NUMBER);
        let at = point(0..removed.count, |at| end(at) < offset);
        if at == removed.count || end(at) != offset {
            return None;
        }
        Some(self.number(removed.at(at)))
    }

    /// The places of events that there are, in either order.
    fn places(&self, ordinals: &[u32]) -> Result<Vec<Place>, Error> {
        let slots: Vec<usize> =
            ordinals.iter().filter_map(|ordinal| self.sealed.ordinals.slot((*ordinal).into())).collect();
        let mut places = Vec::with_capacity(slots.len());
        let mut rest = slots.as_slice();
        while let Some(first) = rest.first() {
            // Neighbours are read at once, even where there are some others between them.
            let is_near = |pair: &[usize]| {
                pair[0].abs_diff(pair[1]) <= OFFSETS_PER_BLOCK && first.abs_diff(pair[1]) < OFFSETS_AT_ONCE
            };
            let near = 1 + rest.windows(2).take_while(|pair| is_near(pair)).count();
            let (now, later) = rest.split_at(near);
            let (one, other) = (*first, now[near - 1]);
            let behind = (one.max(other) + 2).min(self.sealed.ordinals.count());
            let offsets = &self.sealed.layout.offsets;
            self.prefetch(offsets.at(one.min(other))..offsets.at(behind))?;
            for slot in now {
                places.extend(self.place_at(*slot)?);
            }
            rest = later;
        }
        Ok(places)
    }
}

fn kind_of(label: Label) -> TermKind {
    match label {
        Label::Entity => TermKind::Entity,
        Label::Scope => TermKind::Scope,
        Label::Kind => TermKind::Kind,
        Label::Tag => TermKind::Tag,
    }
}
