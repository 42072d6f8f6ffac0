//! Numbers that follow one another, but for a few gaps.
//!
//! The positions of a segment and the versions of a stream are such numbers: without gaps unless
//! frames were removed on purpose. So only the gaps cost room.
//! Row: index.

use super::search::point;
use crate::types::to_u64;

/// Where a number does not follow the one before it: its slot, and the number.
pub(super) trait Jumps {
    fn len(&self) -> usize;

    /// The jump at a place below the length.
    fn jump(&self, at: usize) -> (usize, u64);
}

/// Ever larger numbers, each known by its slot: how many come before it.
#[derive(Debug, Default)]
pub(super) struct Numbers<J = Vec<(usize, u64)>> {
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

impl Numbers {
    /// Adds a number, which must be larger than the last.
    pub(super) fn push(&mut self, number: u64) {
        if self.count == 0 {
            self.first = number;
        } else if self.at(self.count) != number {
            self.jumps.push((self.count, number));
        }
        self.count += 1;
    }

    pub(super) fn jumps(&self) -> &[(usize, u64)] {
        &self.jumps
    }
}

impl<J: Jumps> Numbers<J> {
    pub(super) fn new(count: usize, first: u64, jumps: J) -> Numbers<J> {
        Numbers { count, first, jumps }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn jump_count(&self) -> usize {
        self.jumps.len()
    }

    /// The number at a slot; at the slot behind the last, the one that would follow without a gap.
    pub(super) fn at(&self, slot: usize) -> u64 {
        let (start, first) = self.run(point(0..self.jumps.len(), |at| self.jumps.jump(at).0 <= slot));
        first.saturating_add(to_u64(slot.saturating_sub(start)))
    }

    /// How many numbers are less than `number`: its slot, if it is one of them.
    pub(super) fn below(&self, number: u64) -> usize {
        let runs = point(0..self.jumps.len(), |at| self.jumps.jump(at).1 < number);
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

    /// This number, or the first one behind it that there is.
    #[inline]
    pub(super) fn next(&self, number: u64) -> Option<u64> {
        if self.is_plainly(number) {
            return Some(number);
        }
        let slot = self.below(number);
        (slot < self.count).then(|| self.at(slot))
    }

    /// This number, or the last one before it that there is.
    #[inline]
    pub(super) fn previous(&self, number: u64) -> Option<u64> {
        if self.is_plainly(number) {
            return Some(number);
        }
        let slot = self.below(number.saturating_add(1)).checked_sub(1)?;
        Some(self.at(slot))
    }

    /// Whether this is one of the numbers, as it nearly always is where there are no gaps.
    fn is_plainly(&self, number: u64) -> bool {
        let slot = number.checked_sub(self.first).and_then(|slot| usize::try_from(slot).ok());
        self.jumps.len() == 0 && slot.is_some_and(|slot| slot < self.count)
    }

    /// Slot and number where the run of numbers behind so many jumps begins.
    fn run(&self, jumps: usize) -> (usize, u64) {
        jumps.checked_sub(1).map_or((0, self.first), |last| self.jumps.jump(last))
    }
}
