//! A sorted list of ordinals, wherever it lies.
//!
//! Row: index.

use std::ops::Range;

use super::search::point;

/// Sorted ordinals: a slice of the live index, bytes of an index file, or numbers that follow each other.
pub(crate) trait PostingList {
    fn len(&self) -> usize;

    /// The ordinal at a slot below the length.
    fn at(&self, slot: usize) -> u32;

    /// Leaves only these.
    fn keep(&mut self, slots: Range<usize>);

    /// How many are less than `ordinal`.
    fn below(&self, ordinal: u32) -> usize {
        point(0..self.len(), |slot| self.at(slot) < ordinal)
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

    /// The part that lies in the window.
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
