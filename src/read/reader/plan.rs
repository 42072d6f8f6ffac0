//! What a read reads, and whether the log still has the position it begins after.

use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::time::SystemTime;

use crate::index::Direction;
use crate::types::{Error, ErrorKind, Position, Query, ResumeToken, micros_of};

use super::single::event_at;
use crate::read::snapshot::Snapshot;
use crate::read::view::LogView;

pub(super) struct ReadPlan {
    pub(super) view: Result<Arc<LogView>, Error>,
    pub(super) query: Query,
    pub(super) after: Position,
    pub(super) origin: Origin,
    pub(super) up_to: Option<Position>,
    pub(super) versions: Option<Range<u64>>,
    /// Recorded-at, half-open, in microseconds.
    pub(super) between: Option<Range<i64>>,
    /// Occurred-at, in microseconds. Not half-open: such a range cannot hold the largest value.
    pub(super) occurred: Option<(Bound<i64>, Bound<i64>)>,
    pub(super) backwards: bool,
    pub(super) limit: u64,
}

impl ReadPlan {
    /// Whether all events come, in the order of the log.
    pub(super) fn is_sequential(&self) -> bool {
        self.query.asks_nothing() && !self.backwards
    }

    pub(super) fn direction(&self) -> Direction {
        if self.backwards { Direction::Backward } else { Direction::Forward }
    }
}

/// How to check the position a read begins after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The log must have this chain hash there.
    pub(crate) token: Option<ResumeToken>,
    /// The position may lie beyond the head.
    pub(crate) may_be_ahead: bool,
}

impl Origin {
    /// For a position that was found in this very log.
    pub(crate) const KNOWN: Origin = Origin { token: None, may_be_ahead: true };

    /// Checks that a position belongs to this log. Reads one event if there is a token, otherwise nothing.
    ///
    /// A token of an event that was removed on purpose is accepted: its chain hash is gone, so nothing can be
    /// compared.
    ///
    /// # Errors
    ///
    /// `RolledBack` if it does not; those of reading.
    pub(crate) fn check(self, after: Position, snapshot: &Snapshot) -> Result<(), Error> {
        let head = snapshot.head.position;
        if after > head {
            return if self.may_be_ahead { Ok(()) } else { Err(beyond_head(after, head)) };
        }
        let Some(token) = self.token else { return Ok(()) };
        if after == head {
            return if token.meets(&snapshot.head.chain) { Ok(()) } else { Err(other_history(token)) };
        }
        match event_at(snapshot, after)? {
            Some(event) if !token.meets(&event.chain()) => Err(other_history(token)),
            _ => Ok(()),
        }
    }
}

fn beyond_head(after: Position, head: Position) -> Error {
    let text = format!(
        "the log ends at position {head}, and position {after} lies beyond it: the store was restored, set back, or lost what \
         was not durable; begin again, or from a place that is still right (if such events are still to come, \
         allow_beyond_head() waits for them)"
    );
    Error::new(ErrorKind::RolledBack, text)
}

fn other_history(token: ResumeToken) -> Error {
    let text = format!(
        "the resume token {token} is of another history: the store was restored, set back, or lost what was not durable, \
         and other events stand at position {} now; undo what was made of the events, and begin again from a place that \
         is still right",
        token.position()
    );
    Error::new(ErrorKind::RolledBack, text)
}

/// The half-open range of a range with any bounds; `next` is the value behind a value.
pub(super) fn half_open<T: Copy>(
    range: &impl RangeBounds<T>,
    least: T,
    most: T,
    next: impl Fn(T) -> T,
) -> Range<T> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => next(*start),
        Bound::Unbounded => least,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => next(*end),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => most,
    };
    start..end
}

pub(super) fn half_open_micros(times: &impl RangeBounds<SystemTime>) -> Range<i64> {
    half_open(&in_micros(times), i64::MIN, i64::MAX, |micros: i64| micros.saturating_add(1))
}

pub(super) fn in_micros(times: &impl RangeBounds<SystemTime>) -> (Bound<i64>, Bound<i64>) {
    (times.start_bound().map(|time| micros_of(*time)), times.end_bound().map(|time| micros_of(*time)))
}
