//! A posting list of an index file.
//!
//! Row: index.

use std::ops::Range;

use crate::format::index_file::{JUMP, NUMBER, Term, read_jump};
use crate::format::u32_at;
use crate::index::list::List;
use crate::index::numbers::{Jumps, Numbers};
use crate::index::search::point;
use crate::types::to_usize;

use super::reading::Reading;

/// The ordinals of a term, or some of them.
pub(in crate::index) struct SealedList<'a> {
    ordinals: Ordinals<'a>,
    length: usize,
}

enum Ordinals<'a> {
    /// They follow each other, from this one on.
    Run(u32),
    /// Four bytes each.
    Bytes(&'a [u8]),
    File(InFile<'a>),
}

/// A list that is read a block at a time.
struct InFile<'a> {
    reading: &'a Reading<'a>,
    /// Where it begins in the file.
    start: usize,
    /// Its ends as the term says them, so that most questions need not read it.
    first: Option<u32>,
    last: Option<u32>,
}

impl<'a> SealedList<'a> {
    pub(super) fn empty() -> SealedList<'a> {
        SealedList { ordinals: Ordinals::Run(0), length: 0 }
    }

    /// The list of a term that was checked.
    pub(super) fn of(reading: &'a Reading<'a>, term: &Term) -> SealedList<'a> {
        let length = to_usize(term.count);
        let Some(list) = term.list else { return SealedList { ordinals: Ordinals::Run(term.first), length } };
        let start = reading.sealed.layout.lists.at(to_usize(list));
        let ordinals = match reading.whole() {
            Some(bytes) => Ordinals::Bytes(&bytes[start..start + length * NUMBER]),
            None => {
                let (first, last) = (Some(term.first), Some(term.last));
                Ordinals::File(InFile { reading, start, first, last })
            }
        };
        SealedList { ordinals, length }
    }
}

impl List for SealedList<'_> {
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
                _ => list.reading.number(list.start + slot * NUMBER),
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
        // The ends are cheap, and a window often holds the whole list or nothing of it.
        match (self.first(), self.last()) {
            (Some(first), _) if ordinal <= first => 0,
            (_, Some(last)) if last < ordinal => self.length,
            _ => point(0..self.length, |slot| self.at(slot) < ordinal),
        }
    }
}

/// Gaps in the versions of an entity.
pub(super) struct SealedJumps<'a> {
    reading: &'a Reading<'a>,
    /// Which jumps of the file.
    jumps: Range<u32>,
}

impl Jumps for SealedJumps<'_> {
    fn len(&self) -> usize {
        to_usize(self.jumps.end - self.jumps.start)
    }

    fn jump(&self, at: usize) -> (usize, u64) {
        let place = self.reading.sealed.layout.jumps.at(to_usize(self.jumps.start) + at);
        match self.reading.piece(place..place + JUMP).as_deref().map(<[u8]>::first_chunk) {
            Ok(Some(jump)) => {
                let (slot, number) = read_jump(jump);
                (to_usize(slot), number)
            }
            Ok(None) => (0, 0),
            Err(error) => {
                self.reading.fail(error.clone());
                (0, 0)
            }
        }
    }
}

/// The versions of an entity whose term was checked.
pub(super) fn versions<'a>(reading: &'a Reading<'a>, term: &Term) -> Numbers<SealedJumps<'a>> {
    let jumps = SealedJumps { reading, jumps: term.jumps.clone() };
    Numbers::new(to_usize(term.count), term.version, jumps)
}
