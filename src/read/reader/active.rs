//! A read in progress: its plan, the snapshot, the current segment, and the window that was looked up.
//!
//! A read begins by checking that the log still has the position that the read begins after.

use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::time::SystemTime;

use crate::event::RecordedEvent;
use crate::index::{Direction, EventLocation};
use crate::log::Block;
use crate::read::segment::SelfCorrelations;
use crate::read::view::{LogView, Snapshot};
use crate::types::{Effort, Error, ErrorKind, Position, Query, ResumeToken, micros_of};

use super::batch::{EventBatch, joined};
use super::cursor::{CheckedEvent, CheckedFrame, FIRST_WINDOW, RUN_BYTES_MAX, SequentialCursor};
use super::lookup::{by_either_id, event_at, position_at_time, self_correlations};

/// The widest window. Its matches are kept in memory, and the index is locked while it is asked.
const WINDOW_MAX: u32 = 16 << 10;
/// The widest window of a query that looks up many lists for each window: wider, so that there are few
/// windows.
const WIDE_WINDOW_MAX: u32 = 256 << 10;

/// What a read reads.
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
    /// Reads the frame of each event whole: the caller asks the events for others of their append.
    pub(super) whole_appends: bool,
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

/// A read that has begun.
pub(super) struct ActiveRead {
    snapshot: Snapshot,
    own: SelfCorrelations,
    /// Positions that may still come, half-open.
    positions: Range<u64>,
    /// The current segment, as an index into the snapshot's.
    segment: usize,
    /// Its ordinals that may still come.
    ordinals: Range<u32>,
    /// The size of the next window, in ordinals or in matches. Grows fourfold within a segment.
    window: u32,
    /// The matches of the window, in the order they come.
    locations: std::vec::IntoIter<EventLocation>,
    /// The bytes of the current segment that were read last.
    block: Option<Block>,
    /// The frame in the block that was checked last.
    frame: CheckedFrame,
    /// Events that were read alone, into a block of their own.
    batch: EventBatch,
    found: CheckedEvent,
    /// Whether the event that was found last lies in the block of the batch.
    is_in_batch: bool,
    /// Set if all events come in order: they need no index to be found.
    sequential: Option<SequentialCursor>,
    /// The events that may still come under the limit.
    left: u64,
}

impl ActiveRead {
    /// Takes a snapshot and enters the first segment.
    pub(super) fn begin(plan: &mut ReadPlan) -> Result<ActiveRead, Error> {
        let snapshot = plan.view.clone()?.snapshot();
        plan.origin.check(plan.after, &snapshot)?;
        if plan.query.asks_correlation() {
            plan.query = by_either_id(&snapshot, plan.query.clone())?;
        }
        let head = plan.up_to.map_or(snapshot.head.position, |up_to| up_to.min(snapshot.head.position));
        let mut positions = plan.after.get().saturating_add(1)..head.get() + 1;
        if let Some(times) = &plan.between {
            let start = position_at_time(&snapshot, times.start)?;
            let end = position_at_time(&snapshot, times.end)?;
            positions = positions.start.max(start)..positions.end.min(end);
        }
        let first = if plan.backwards { positions.end.saturating_sub(1) } else { positions.start };
        let later = snapshot.segments.partition_point(|segment| segment.first_position() <= first);
        let mut active = ActiveRead {
            segment: later.saturating_sub(1),
            own: self_correlations(&snapshot, &plan.query, &positions)?,
            snapshot,
            positions,
            ordinals: 0..0,
            window: FIRST_WINDOW,
            locations: Vec::new().into_iter(),
            block: None,
            frame: CheckedFrame::default(),
            batch: EventBatch::default(),
            found: CheckedEvent::default(),
            is_in_batch: false,
            sequential: plan.is_sequential().then(SequentialCursor::default),
            left: plan.limit,
        };
        active.enter(plan)?;
        Ok(active)
    }

    /// Finds the next event; `false` if there is none.
    #[inline(always)]
    pub(super) fn find(&mut self, plan: &ReadPlan) -> Result<bool, Error> {
        while self.left > 0 {
            if !self.find_in_window(plan)? {
                if !self.find_more(plan)? {
                    return Ok(false);
                }
            } else if plan.occurred.as_ref().is_none_or(|times| self.occurred_in(times)) {
                self.left -= 1;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Finds the next event of the window that was looked up, or of the sequential read; `false` at its end.
    #[inline(always)]
    fn find_in_window(&mut self, plan: &ReadPlan) -> Result<bool, Error> {
        let Some(cursor) = &mut self.sequential else {
            let Some(location) = self.locations.next() else { return Ok(false) };
            return self.find_at(plan, &location).map(|()| true);
        };
        // A store read beside a writer that has acknowledged nothing yet has no segment.
        let Some(segment) = self.snapshot.segments.get(self.segment) else { return Ok(false) };
        cursor.find(&self.snapshot, segment, &mut self.block, &mut self.ordinals, self.left, &mut self.found)
    }

    /// The event that was found last.
    #[inline(always)]
    pub(super) fn event(&self) -> RecordedEvent {
        if self.is_in_batch {
            return self.found.in_block(self.batch.block());
        }
        let block = self.block.as_ref().expect("a found event lies in a block");
        self.found.in_block(&block.bytes)
    }

    #[cold]
    fn occurred_in(&self, times: &(Bound<i64>, Bound<i64>)) -> bool {
        self.event().occurred_at().is_some_and(|occurred| times.contains(&micros_of(occurred)))
    }

    /// Looks up the next window, or enters the next segment; `false` if there is none.
    fn find_more(&mut self, plan: &ReadPlan) -> Result<bool, Error> {
        if self.ordinals.is_empty() {
            return self.enter_next(plan);
        }
        self.look_up(plan)?;
        Ok(true)
    }

    /// Begins to read the current segment: sets the ordinals that may come.
    fn enter(&mut self, plan: &ReadPlan) -> Result<(), Error> {
        // A store read beside a writer that has acknowledged nothing yet has no segment.
        let Some(segment) = self.snapshot.segments.get(self.segment) else { return Ok(()) };
        let mut ordinals = segment.clip(&self.positions);
        if let (Some(versions), Some(entity)) = (&plan.versions, plan.query.single_stream()) {
            let window = segment.ask(|index| index.window_of(entity, versions))?;
            ordinals = ordinals.start.max(window.start)..ordinals.end.min(window.end);
        }
        self.ordinals = ordinals;
        self.window = FIRST_WINDOW;
        self.block = None;
        self.frame.forget();
        self.batch.leave_segment();
        if let Some(cursor) = &mut self.sequential {
            cursor.leave_segment();
        }
        Ok(())
    }

    /// Enters the next segment; `false` if there is none.
    fn enter_next(&mut self, plan: &ReadPlan) -> Result<bool, Error> {
        let next = if plan.backwards { self.segment.checked_sub(1) } else { self.segment.checked_add(1) };
        let Some(next) = next.filter(|next| *next < self.snapshot.segments.len()) else { return Ok(false) };
        self.segment = next;
        self.enter(plan)?;
        Ok(true)
    }

    /// Asks the index for the matches of the next window. The window limits the ordinals if the index must
    /// compare them one by one, and the matches if it can skip to each match.
    fn look_up(&mut self, plan: &ReadPlan) -> Result<(), Error> {
        let direction = plan.direction();
        let effort = plan.query.effort();
        let wanted = if plan.occurred.is_none() { self.left } else { u64::MAX };
        let (width, most) = match effort {
            Effort::Compare => (self.window, wanted),
            Effort::Take | Effort::ManyLists => (u32::MAX, wanted.min(self.window.into())),
        };
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let window = first_of(&self.ordinals, width, direction);
        let locations = self.snapshot.segments[self.segment].matching(
            &plan.query,
            &self.own,
            &window,
            direction,
            most,
        )?;
        let seen = match locations.last() {
            Some(last) if locations.len() == most => up_to(&window, last.ordinal, direction),
            _ => window,
        };
        self.ordinals = match direction {
            Direction::Forward => seen.end..self.ordinals.end,
            Direction::Backward => self.ordinals.start..seen.start,
        };
        let widest = if effort == Effort::ManyLists { WIDE_WINDOW_MAX } else { WINDOW_MAX };
        self.window = self.window.saturating_mul(4).min(widest);
        self.locations = locations.into_iter();
        Ok(())
    }

    /// Finds the event at a location: in memory, among the events that were read alone, or by reading it,
    /// with those that follow.
    #[inline(always)]
    fn find_at(&mut self, plan: &ReadPlan, location: &EventLocation) -> Result<(), Error> {
        if let Some(event) = self.batch.next(location.ordinal) {
            self.found = event;
            self.is_in_batch = true;
            return Ok(());
        }
        let segment = &self.snapshot.segments[self.segment];
        if !self.block.as_ref().is_some_and(|block| block.holds(&location.frame)) {
            let others = self.locations.as_slice();
            let run = run_of(location, others);
            self.frame.forget();
            let old = self.block.take();
            self.block = self.snapshot.block_in_memory(segment, &location.frame, &run);
            if self.block.is_none() && !plan.whole_appends {
                self.batch.fill(segment, location, others)?;
                if let Some(event) = self.batch.next(location.ordinal) {
                    self.found = event;
                    self.is_in_batch = true;
                    return Ok(());
                }
            }
            if self.block.is_none() {
                self.block = Some(segment.block(&run, old)?);
            }
        }
        let block = self.block.as_ref().expect("it was just read");
        self.found = self.frame.find(segment, block, location)?;
        self.is_in_batch = false;
        Ok(())
    }
}

/// The bytes to read next: an event's frame, and those of the following events that lie close.
fn run_of(first: &EventLocation, others: &[EventLocation]) -> Range<u32> {
    let mut run = first.frame.clone();
    for EventLocation { frame, .. } in others {
        match joined(&run, frame) {
            Some(both) if both.end - both.start <= RUN_BYTES_MAX => run = both,
            _ => break,
        }
    }
    run
}

/// The first `width` ordinals of a range, in `direction`.
fn first_of(ordinals: &Range<u32>, width: u32, direction: Direction) -> Range<u32> {
    let Range { start, end } = *ordinals;
    match direction {
        Direction::Forward => start..start.saturating_add(width).min(end),
        Direction::Backward => end.saturating_sub(width).max(start)..end,
    }
}

/// The part of a window up to and including its `last` ordinal, in `direction`.
fn up_to(window: &Range<u32>, last: u32, direction: Direction) -> Range<u32> {
    match direction {
        Direction::Forward => window.start..last + 1,
        Direction::Backward => last..window.end,
    }
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
