//! Growing sequences of numbers that mostly follow one another.
//!
//! The ordinals of a segment and the versions of a stream are such sequences. They have gaps only where
//! frames were removed on purpose, so only the numbers behind a gap (jumps) take memory.

use crate::types::to_u64;

use super::postings::partition_point;

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
