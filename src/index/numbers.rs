//! Numbers that follow one another, but for a few gaps.
//!
//! The positions of a segment and the versions of a stream are such numbers: without gaps unless
//! frames were removed on purpose. So only the gaps cost room.
//! Row: index.

/// Ever larger numbers, each known by its slot: how many come before it.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    count: usize,
    /// The number at slot 0.
    first: u64,
    /// Slot and number where a number does not follow the one before it.
    jumps: Vec<(usize, u64)>,
}

impl Numbers {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Adds a number, which must be larger than the last.
    pub(super) fn push(&mut self, number: u64) {
        if self.count == 0 {
            self.first = number;
        } else if self.at(self.count) != number {
            self.jumps.push((self.count, number));
        }
        self.count += 1;
    }

    /// The number at a slot; at the slot behind the last, the one that would follow without a gap.
    pub(super) fn at(&self, slot: usize) -> u64 {
        let (start, first) = self.run(self.jumps.partition_point(|(start, _)| *start <= slot));
        first.saturating_add(u64::try_from(slot - start).expect("a count fits 64 bits"))
    }

    /// How many numbers are less than `number`: its slot, if it is one of them.
    pub(super) fn below(&self, number: u64) -> usize {
        let runs = self.jumps.partition_point(|(_, first)| *first < number);
        let (start, first) = self.run(runs);
        let end = self.jumps.get(runs).map_or(self.count, |(next, _)| *next);
        let inside = usize::try_from(number.saturating_sub(first)).unwrap_or(usize::MAX);
        start.saturating_add(inside).min(end)
    }

    /// The slot of a number.
    pub(super) fn slot(&self, number: u64) -> Option<usize> {
        let slot = self.below(number);
        (slot < self.count && self.at(slot) == number).then_some(slot)
    }

    /// Slot and number where the run of numbers behind so many jumps begins.
    fn run(&self, jumps: usize) -> (usize, u64) {
        jumps.checked_sub(1).map_or((0, self.first), |last| self.jumps[last])
    }
}
