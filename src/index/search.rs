//! Searches in what is sorted, by asking about one item at a time.
//!
//! Invariant: that the item behind the answer does not fulfil `holds` was asked, unless there is none. So a
//! cursor gets on even where damaged bytes are not sorted at all.
//! Row: index.

use std::ops::Range;

/// The first of `items` that does not fulfil `holds`, which no later one does once one does not; the end, if
/// all do.
#[inline]
pub(super) fn point(items: Range<usize>, holds: impl Fn(usize) -> bool) -> usize {
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

/// The same among the first `count` items; cheap when the answer is near.
///
/// Doubles its step until it is past the last, then halves (Bentley and Yao, 1976): it costs the
/// logarithm of the answer, not of the list.
#[inline]
pub(super) fn gallop(count: usize, holds: impl Fn(usize) -> bool) -> usize {
    let mut step = 1;
    while step < count && holds(step) {
        step *= 2;
    }
    let known = if step == 1 { 0 } else { step / 2 + 1 };
    point(known..count.min(step), holds)
}
