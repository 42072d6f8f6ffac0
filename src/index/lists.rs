//! Sorted lists of ordinals, joined and intersected one ordinal at a time, from either end.
//!
//! Nothing is computed before it is asked for, so that the first or the last match costs no more
//! than finding it. Cursors speak of ranks: ordinals in the order in which they come, so that one
//! code goes both ways.
//! Row: index.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::ops::Range;

use super::list::List;
use super::search::gallop;
use crate::types::to_u64;

/// Which end comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Forward,
    Backward,
}

impl Way {
    /// Smaller for what comes earlier. 64 bits, so that there is one behind the last.
    fn rank(self, ordinal: u32) -> u64 {
        match self {
            Way::Forward => ordinal.into(),
            Way::Backward => (u32::MAX - ordinal).into(),
        }
    }

    fn ordinal(self, rank: u64) -> u32 {
        let ordinal = u32::try_from(rank).expect("cursors stand at ordinals");
        match self {
            Way::Forward => ordinal,
            Way::Backward => u32::MAX - ordinal,
        }
    }
}

/// A place in a sequence of ranks.
pub(super) enum Cursor<L> {
    /// All of them, half-open.
    Window(Range<u64>),
    /// A sorted list of ordinals: what is left of it.
    List(L, Way),
    /// What is in any.
    Any(Box<Union<L>>),
    /// What is in all.
    All(Vec<Cursor<L>>),
    /// What is in the first, and not in the list.
    Without(Box<Cursor<L>>, L, Way),
}

/// Each rank once, whatever number of cursors have it.
pub(super) struct Union<L> {
    cursors: Vec<Cursor<L>>,
    /// The rank each cursor stands at, the earliest on top; those at their end are out.
    heads: BinaryHeap<Reverse<(u64, usize)>>,
}

impl<L: List> Cursor<L> {
    pub(super) fn window(ordinals: &Range<u32>, way: Way) -> Cursor<L> {
        match ordinals.end.checked_sub(1).filter(|last| ordinals.start <= *last) {
            None => Cursor::Window(0..0),
            Some(last) => {
                let (one, other) = (way.rank(ordinals.start), way.rank(last));
                Cursor::Window(one.min(other)..one.max(other) + 1)
            }
        }
    }

    pub(super) fn any(mut cursors: Vec<Cursor<L>>) -> Cursor<L> {
        if let [_] = cursors.as_slice() {
            return cursors.remove(0);
        }
        let heads = cursors.iter_mut().enumerate();
        let heads = heads.filter_map(|(at, cursor)| Some(Reverse((cursor.head()?, at)))).collect();
        Cursor::Any(Box::new(Union { cursors, heads }))
    }

    /// What is in all of these, of which there is at least one.
    pub(super) fn all(mut cursors: Vec<Cursor<L>>) -> Cursor<L> {
        if let [_] = cursors.as_slice() {
            return cursors.remove(0);
        }
        cursors.sort_by_key(Cursor::at_most);
        Cursor::All(cursors)
    }

    /// What is in a cursor and not in a sorted list of ordinals.
    pub(super) fn without(self, list: L, way: Way) -> Cursor<L> {
        if list.is_empty() { self } else { Cursor::Without(Box::new(self), list, way) }
    }

    /// How many ranks are left: exact for windows, lists, and unions of these that share nothing;
    /// otherwise there may be fewer.
    pub(super) fn at_most(&self) -> u64 {
        match self {
            Cursor::Window(ranks) => ranks.end - ranks.start,
            Cursor::List(list, _) => to_u64(list.len()),
            Cursor::Any(union) => union.cursors.iter().map(Cursor::at_most).sum(),
            Cursor::All(cursors) => cursors.iter().map(Cursor::at_most).min().unwrap_or(0),
            Cursor::Without(cursor, ..) => cursor.at_most(),
        }
    }

    /// The rank it stands at.
    fn head(&mut self) -> Option<u64> {
        match self {
            Cursor::Window(ranks) => (!ranks.is_empty()).then_some(ranks.start),
            Cursor::List(list, way) => match way {
                Way::Forward => list.first().map(|first| way.rank(first)),
                Way::Backward => list.last().map(|last| way.rank(last)),
            },
            Cursor::Any(union) => union.heads.peek().map(|Reverse((rank, _))| *rank),
            Cursor::All(cursors) => in_all(cursors),
            Cursor::Without(cursor, list, way) => without(cursor, list, *way),
        }
    }

    /// Passes over all ranks before this one.
    fn advance_to(&mut self, rank: u64) {
        match self {
            Cursor::Window(ranks) => ranks.start = ranks.start.max(rank).min(ranks.end),
            Cursor::List(list, way) => {
                let length = list.len();
                match way {
                    Way::Forward => {
                        let passed = gallop(length, |slot| way.rank(list.at(slot)) < rank);
                        list.keep(passed..length);
                    }
                    Way::Backward => {
                        let passed = gallop(length, |slot| way.rank(list.at(length - 1 - slot)) < rank);
                        list.keep(0..length - passed);
                    }
                }
            }
            Cursor::Any(union) => union.advance_to(rank),
            // The others follow when the head is asked for.
            Cursor::All(cursors) => cursors[0].advance_to(rank),
            Cursor::Without(cursor, ..) => cursor.advance_to(rank),
        }
    }
}

impl<L: List> Union<L> {
    fn advance_to(&mut self, rank: u64) {
        while let Some(mut top) = self.heads.peek_mut() {
            let Reverse((head, at)) = *top;
            if head >= rank {
                break;
            }
            self.cursors[at].advance_to(rank);
            match self.cursors[at].head() {
                Some(head) => *top = Reverse((head, at)),
                None => drop(PeekMut::pop(top)),
            }
        }
    }
}

/// The first rank from here on that all have; the first cursor, which has the fewest, leads.
fn in_all<L: List>(cursors: &mut [Cursor<L>]) -> Option<u64> {
    let (lead, others) = cursors.split_first_mut()?;
    'candidates: loop {
        let candidate = lead.head()?;
        for other in &mut *others {
            other.advance_to(candidate);
            let head = other.head()?;
            if head > candidate {
                lead.advance_to(head);
                continue 'candidates;
            }
        }
        return Some(candidate);
    }
}

/// The first rank from here on that is not in the list.
fn without<L: List>(cursor: &mut Cursor<L>, list: &L, way: Way) -> Option<u64> {
    loop {
        let rank = cursor.head()?;
        if !list.holds(way.ordinal(rank)) {
            return Some(rank);
        }
        cursor.advance_to(rank + 1);
    }
}

/// Ordinals that match, in order, once each.
pub(crate) struct Matches<L> {
    pub(super) cursor: Cursor<L>,
    pub(super) way: Way,
}

impl<L: List> Matches<L> {
    /// The ordinals that match and have an event. `nearest` gives an ordinal's own event, or the next one of
    /// the way: so what was removed is passed over at once, however much it is.
    pub(super) fn events(mut self, nearest: impl Fn(u32) -> Option<u32>) -> impl Iterator<Item = u32> {
        std::iter::from_fn(move || {
            loop {
                let rank = self.cursor.head()?;
                let event = self.way.rank(nearest(self.way.ordinal(rank))?);
                if event == rank {
                    self.cursor.advance_to(rank + 1);
                    return Some(self.way.ordinal(rank));
                }
                self.cursor.advance_to(event.max(rank + 1));
            }
        })
    }
}

impl<L: List> Iterator for Matches<L> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let rank = self.cursor.head()?;
        self.cursor.advance_to(rank + 1);
        Some(self.way.ordinal(rank))
    }
}
