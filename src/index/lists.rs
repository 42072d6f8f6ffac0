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

use super::list::PostingList;
use super::search::gallop;

/// Which end comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

impl Direction {
    /// Smaller for what comes earlier. 64 bits, so that there is one behind the last.
    fn rank(self, ordinal: u32) -> u64 {
        match self {
            Direction::Forward => ordinal.into(),
            Direction::Backward => (u32::MAX - ordinal).into(),
        }
    }

    fn ordinal(self, rank: u64) -> u32 {
        let ordinal = u32::try_from(rank).expect("cursors stand at ordinals");
        match self {
            Direction::Forward => ordinal,
            Direction::Backward => u32::MAX - ordinal,
        }
    }
}

/// A place in a sequence of ranks.
pub(super) enum PostingCursor<L> {
    /// All of them, half-open.
    Window(Range<u64>),
    /// A sorted list of ordinals: what is left of it.
    List(L, Direction),
    /// What is in any.
    Any(Box<Union<L>>),
    /// What is in all.
    All(Vec<PostingCursor<L>>),
    /// What is in the first, and not in the list.
    Without(Box<PostingCursor<L>>, L, Direction),
}

/// Each rank once, whatever number of cursors have it.
pub(super) struct Union<L> {
    cursors: Vec<PostingCursor<L>>,
    /// The rank each cursor stands at, the earliest on top; those at their end are out.
    heads: BinaryHeap<Reverse<(u64, usize)>>,
}

impl<L: PostingList> PostingCursor<L> {
    pub(super) fn window(ordinals: &Range<u32>, direction: Direction) -> PostingCursor<L> {
        match ordinals.end.checked_sub(1).filter(|last| ordinals.start <= *last) {
            None => PostingCursor::Window(0..0),
            Some(last) => {
                let (one, other) = (direction.rank(ordinals.start), direction.rank(last));
                PostingCursor::Window(one.min(other)..one.max(other) + 1)
            }
        }
    }

    pub(super) fn any(mut cursors: Vec<PostingCursor<L>>) -> PostingCursor<L> {
        if let [_] = cursors.as_slice() {
            return cursors.remove(0);
        }
        let heads = cursors.iter_mut().enumerate();
        let heads = heads.filter_map(|(at, cursor)| Some(Reverse((cursor.head()?, at)))).collect();
        PostingCursor::Any(Box::new(Union { cursors, heads }))
    }

    /// What is in all of these, of which there is at least one.
    pub(super) fn all(mut cursors: Vec<PostingCursor<L>>) -> PostingCursor<L> {
        if let [_] = cursors.as_slice() {
            return cursors.remove(0);
        }
        cursors.sort_by_key(PostingCursor::at_most);
        PostingCursor::All(cursors)
    }

    /// What is in a cursor and not in a sorted list of ordinals.
    pub(super) fn without(self, list: L, direction: Direction) -> PostingCursor<L> {
        if list.is_empty() { self } else { PostingCursor::Without(Box::new(self), list, direction) }
    }

    /// How many ranks are left: exact for windows, lists, and unions of these that share nothing;
    /// otherwise there may be fewer.
    pub(super) fn at_most(&self) -> u64 {
        match self {
            PostingCursor::Window(ranks) => ranks.end - ranks.start,
            PostingCursor::List(list, _) => u64::try_from(list.len()).expect("a length fits 64 bits"),
            PostingCursor::Any(union) => union.cursors.iter().map(PostingCursor::at_most).sum(),
            PostingCursor::All(cursors) => cursors.iter().map(PostingCursor::at_most).min().unwrap_or(0),
            PostingCursor::Without(cursor, ..) => cursor.at_most(),
        }
    }

    /// The rank it stands at.
    fn head(&mut self) -> Option<u64> {
        match self {
            PostingCursor::Window(ranks) => (!ranks.is_empty()).then_some(ranks.start),
            PostingCursor::List(list, direction) => match direction {
                Direction::Forward => list.first().map(|first| direction.rank(first)),
                Direction::Backward => list.last().map(|last| direction.rank(last)),
            },
            PostingCursor::Any(union) => union.heads.peek().map(|Reverse((rank, _))| *rank),
            PostingCursor::All(cursors) => in_all(cursors),
            PostingCursor::Without(cursor, list, direction) => without(cursor, list, *direction),
        }
    }

    /// Passes over all ranks before this one.
    fn advance_to(&mut self, rank: u64) {
        match self {
            PostingCursor::Window(ranks) => ranks.start = ranks.start.max(rank).min(ranks.end),
            PostingCursor::List(list, direction) => {
                let length = list.len();
                match direction {
                    Direction::Forward => {
                        let passed = gallop(length, |slot| direction.rank(list.at(slot)) < rank);
                        list.keep(passed..length);
                    }
                    Direction::Backward => {
                        let passed = gallop(length, |slot| direction.rank(list.at(length - 1 - slot)) < rank);
                        list.keep(0..length - passed);
                    }
                }
            }
            PostingCursor::Any(union) => union.advance_to(rank),
            // The others follow when the head is asked for.
            PostingCursor::All(cursors) => cursors[0].advance_to(rank),
            PostingCursor::Without(cursor, ..) => cursor.advance_to(rank),
        }
    }
}

impl<L: PostingList> Union<L> {
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
fn in_all<L: PostingList>(cursors: &mut [PostingCursor<L>]) -> Option<u64> {
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
fn without<L: PostingList>(cursor: &mut PostingCursor<L>, list: &L, direction: Direction) -> Option<u64> {
    loop {
        let rank = cursor.head()?;
        if !list.holds(direction.ordinal(rank)) {
            return Some(rank);
        }
        cursor.advance_to(rank + 1);
    }
}

/// Ordinals that match, in order, once each.
pub(crate) struct Matches<L> {
    pub(super) cursor: PostingCursor<L>,
    pub(super) direction: Direction,
}

impl<L: PostingList> Matches<L> {
    /// The ordinals that match and have an event. `nearest` gives an ordinal's own event, or the next one of
    /// the way: so what was removed is passed over at once, however much it is.
    pub(super) fn events(mut self, nearest: impl Fn(u32) -> Option<u32>) -> impl Iterator<Item = u32> {
        std::iter::from_fn(move || {
            loop {
                let rank = self.cursor.head()?;
                let event = self.direction.rank(nearest(self.direction.ordinal(rank))?);
                if event == rank {
                    self.cursor.advance_to(rank + 1);
                    return Some(self.direction.ordinal(rank));
                }
                self.cursor.advance_to(event.max(rank + 1));
            }
        })
    }
}

impl<L: PostingList> Iterator for Matches<L> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let rank = self.cursor.head()?;
        self.cursor.advance_to(rank + 1);
        Some(self.direction.ordinal(rank))
    }
}
