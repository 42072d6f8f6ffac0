//! Sorted numbers: posting lists, cursors over them from either end, and the searches that they share.
//!
//! Cursors join and intersect lists one ordinal at a time. Nothing is computed before it is asked for: the
//! first match costs no more than finding it. Cursors work on ranks, which are ordinals in the order in which
//! they come, so that one code serves both directions.
//!
//! The ordinals of a segment and the versions of a stream mostly follow one another. They have gaps only
//! where frames were removed on purpose, so only the numbers behind a gap (jumps) take memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::ops::Range;

use crate::types::to_u64;

/// Where an event lies in its segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventLocation {
    pub(crate) ordinal: u32,
    /// The bytes of its frame in the segment.
    pub(crate) frame: Range<u32>,
}

/// Sorted ordinals: a slice of the live index, bytes of an index file, or consecutive numbers.
pub(crate) trait PostingList {
    fn len(&self) -> usize;

    /// The ordinal at a slot below the length.
    fn at(&self, slot: usize) -> u32;

    /// Keeps only the ordinals at these slots.
    fn keep(&mut self, slots: Range<usize>);

    /// The number of ordinals less than `ordinal`.
    fn below(&self, ordinal: u32) -> usize {
        partition_point(0..self.len(), |slot| self.at(slot) < ordinal)
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn first(&self) -> Option<u32> {
        (!self.is_empty()).then(|| self.at(0))
    }

    fn last(&self) -> Option<u32> {
        self.len().checked_sub(1).map(|last| self.at(last))
    }

    fn holds(&self, ordinal: u32) -> bool {
        let slot = self.below(ordinal);
        slot < self.len() && self.at(slot) == ordinal
    }

    fn to_vec(&self) -> Vec<u32> {
        (0..self.len()).map(|slot| self.at(slot)).collect()
    }

    /// The part of the list that lies in the window.
    fn cut(mut self, window: &Range<u32>) -> Self
    where
        Self: Sized,
    {
        let start = self.below(window.start);
        self.keep(start..self.len());
        let length = self.below(window.end);
        self.keep(0..length);
        self
    }
}

impl PostingList for &[u32] {
    #[inline]
    fn len(&self) -> usize {
        <[u32]>::len(self)
    }

    #[inline]
    fn at(&self, slot: usize) -> u32 {
        self[slot]
    }

    #[inline]
    fn keep(&mut self, slots: Range<usize>) {
        *self = &self[slots];
    }

    #[inline]
    fn below(&self, ordinal: u32) -> usize {
        self.partition_point(|own| *own < ordinal)
    }
}

/// The order in which events come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

impl Direction {
    /// The rank of an ordinal: smaller for what comes earlier. 64 bits, so that there is a rank behind the
    /// last.
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

/// A cursor over a sequence of ranks.
pub(super) enum PostingCursor<L> {
    /// All ranks of a half-open range.
    Window(Range<u64>),
    /// The rest of a sorted list of ordinals.
    List(L, Direction),
    /// The ranks that any of the cursors has.
    Any(Box<Union<L>>),
    /// The ranks that all of the cursors have.
    All(Vec<PostingCursor<L>>),
    /// The ranks that the cursor has and the list has not.
    Without(Box<PostingCursor<L>>, L, Direction),
}

/// The union of cursors: each rank once, even if several cursors have it.
pub(super) struct Union<L> {
    cursors: Vec<PostingCursor<L>>,
    /// The head of each cursor, the earliest on top, with the cursor's index. Exhausted cursors are left out.
    heads: BinaryHeap<Reverse<(u64, usize)>>,
}

impl<L: PostingList> PostingCursor<L> {
    pub(super) fn window(ordinals: &Range<u32>, direction: Direction) -> PostingCursor<L> {
        match ordinals.end.checked_sub(1).filter(|last| ordinals.start <= *last) {
            None => PostingCursor::Window(0..0),
            Some(last) => {
                let one = direction.rank(ordinals.start);
                let other = direction.rank(last);
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

    /// The intersection of at least one cursor.
    pub(super) fn all(mut cursors: Vec<PostingCursor<L>>) -> PostingCursor<L> {
        if let [_] = cursors.as_slice() {
            return cursors.remove(0);
        }
        cursors.sort_by_key(PostingCursor::at_most);
        PostingCursor::All(cursors)
    }

    /// The ranks of this cursor that are not in the list.
    pub(super) fn without(self, list: L, direction: Direction) -> PostingCursor<L> {
        if list.is_empty() { self } else { PostingCursor::Without(Box::new(self), list, direction) }
    }

    /// An upper bound of the ranks that are left. Exact for windows, for lists, and for unions of disjoint
    /// ones.
    pub(super) fn at_most(&self) -> u64 {
        match self {
            PostingCursor::Window(ranks) => ranks.end - ranks.start,
            PostingCursor::List(list, _) => to_u64(list.len()),
            PostingCursor::Any(union) => union.cursors.iter().map(PostingCursor::at_most).sum(),
            PostingCursor::All(cursors) => cursors.iter().map(PostingCursor::at_most).min().unwrap_or(0),
            PostingCursor::Without(cursor, ..) => cursor.at_most(),
        }
    }

    /// The current rank of the cursor.
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

    /// Skips all ranks before this one.
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
            // Only the leader moves: `in_all` advances the others when the head is asked for.
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

/// The first rank from here on that all cursors have. The first cursor has the fewest ranks and leads.
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

/// The first rank of the cursor from here on that is not in the list.
fn without<L: PostingList>(cursor: &mut PostingCursor<L>, list: &L, direction: Direction) -> Option<u64> {
    loop {
        let rank = cursor.head()?;
        if !list.holds(direction.ordinal(rank)) {
            return Some(rank);
        }
        cursor.advance_to(rank + 1);
    }
}

impl<L: PostingList> PostingCursor<L> {
    /// The ordinals that the cursor has and at which an event lies, in `direction`. `nearest` gives the
    /// ordinal of the event at an ordinal, or of the next event in `direction`: a removed range is skipped in
    /// one step.
    pub(super) fn events(
        mut self,
        direction: Direction,
        nearest: impl Fn(u32) -> Option<u32>,
    ) -> impl Iterator<Item = u32> {
        std::iter::from_fn(move || {
            loop {
                let rank = self.head()?;
                let event = direction.rank(nearest(direction.ordinal(rank))?);
                if event == rank {
                    self.advance_to(rank + 1);
                    return Some(direction.ordinal(rank));
                }
                // A damaged file may answer with an earlier ordinal; the cursor must still advance.
                self.advance_to(event.max(rank + 1));
            }
        })
    }
}

/// The places where a number does not follow the one before it: its slot, and the number.
pub(super) trait Jumps {
    fn len(&self) -> usize;

    /// The jump at an index below the length.
    fn jump(&self, at: usize) -> (usize, u64);
}

/// Strictly growing numbers. The slot of a number is the count of numbers before it.
#[derive(Debug, Default)]
pub(super) struct GappedSequence<J = Vec<(usize, u64)>> {
    count: usize,
    /// The number at slot 0.
    first: u64,
    jumps: J,
}

impl Jumps for Vec<(usize, u64)> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn jump(&self, at: usize) -> (usize, u64) {
        self[at]
    }
}

impl Jumps for &[(usize, u64)] {
    fn len(&self) -> usize {
        <[(usize, u64)]>::len(self)
    }

    fn jump(&self, at: usize) -> (usize, u64) {
        self[at]
    }
}

impl GappedSequence {
    /// Adds a number, which must be larger than the last.
    pub(super) fn push(&mut self, number: u64) {
        if self.count == 0 {
            self.first = number;
        } else if self.at(self.count) != number {
            self.jumps.push((self.count, number));
        }
        self.count += 1;
    }

    /// Adds all numbers of another sequence, which must be larger than the last of this one.
    pub(super) fn extend(&mut self, more: &GappedSequence<impl Jumps>) {
        for slot in 0..more.count() {
            self.push(more.at(slot));
        }
    }

    pub(super) fn jumps(&self) -> &[(usize, u64)] {
        &self.jumps
    }

    /// The same sequence, borrowed.
    pub(super) fn as_borrowed(&self) -> GappedSequence<&[(usize, u64)]> {
        GappedSequence { count: self.count, first: self.first, jumps: &self.jumps }
    }
}

impl<J: Jumps> GappedSequence<J> {
    pub(super) fn new(count: usize, first: u64, jumps: J) -> GappedSequence<J> {
        GappedSequence { count, first, jumps }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn jump_count(&self) -> usize {
        self.jumps.len()
    }

    /// The number at a slot. At the slot behind the last: the number that would follow without a gap.
    pub(super) fn at(&self, slot: usize) -> u64 {
        let (start, first) =
            self.run(partition_point(0..self.jumps.len(), |at| self.jumps.jump(at).0 <= slot));
        first.saturating_add(to_u64(slot.saturating_sub(start)))
    }

    /// The count of numbers less than `number`: its slot, if it is one of them.
    pub(super) fn below(&self, number: u64) -> usize {
        let runs = partition_point(0..self.jumps.len(), |at| self.jumps.jump(at).1 < number);
        let (start, first) = self.run(runs);
        let end = if runs < self.jumps.len() { self.jumps.jump(runs).0 } else { self.count };
        let inside = usize::try_from(number.saturating_sub(first)).unwrap_or(usize::MAX);
        start.saturating_add(inside).min(end)
    }

    /// The slot of a number.
    pub(super) fn slot(&self, number: u64) -> Option<usize> {
        let slot = self.below(number);
        (slot < self.count && self.at(slot) == number).then_some(slot)
    }

    /// The first number of the sequence at or behind this one.
    #[inline]
    pub(super) fn next(&self, number: u64) -> Option<u64> {
        if self.holds_without_gaps(number) {
            return Some(number);
        }
        let slot = self.below(number);
        (slot < self.count).then(|| self.at(slot))
    }

    /// The last number of the sequence at or before this one.
    #[inline]
    pub(super) fn previous(&self, number: u64) -> Option<u64> {
        if self.holds_without_gaps(number) {
            return Some(number);
        }
        let slot = self.below(number.saturating_add(1)).checked_sub(1)?;
        Some(self.at(slot))
    }

    /// Whether the sequence has no gaps and holds this number. The common case, without a search.
    fn holds_without_gaps(&self, number: u64) -> bool {
        let slot = number.checked_sub(self.first).and_then(|slot| usize::try_from(slot).ok());
        self.jumps.len() == 0 && slot.is_some_and(|slot| slot < self.count)
    }

    /// The slot and the number where the run behind this many jumps begins.
    fn run(&self, jumps: usize) -> (usize, u64) {
        jumps.checked_sub(1).map_or((0, self.first), |last| self.jumps.jump(last))
    }
}

/// The first of `items` for which `holds` is false, or their end. `holds` must be true for all items before
/// the answer and false for all behind it.
///
/// `holds` is always asked about the answer itself, unless the answer is the end. So a cursor advances even
/// where damaged bytes are not sorted.
#[inline]
pub(super) fn partition_point(items: Range<usize>, holds: impl Fn(usize) -> bool) -> usize {
    let Range { mut start, mut end } = items;
    while start < end {
        let middle = start + (end - start) / 2;
        if holds(middle) {
            start = middle + 1;
        } else {
            end = middle;
        }
    }
    start
}

/// [`partition_point`] among the first `count` items, by galloping search (Bentley and Yao, 1976).
///
/// It doubles its step until it is past the answer, then halves. It costs the logarithm of the answer, not of
/// `count`.
#[inline]
pub(super) fn gallop(count: usize, holds: impl Fn(usize) -> bool) -> usize {
    let mut step = 1;
    while step < count && holds(step) {
        step *= 2;
    }
    let known = if step == 1 { 0 } else { step / 2 + 1 };
    partition_point(known..count.min(step), holds)
}
