//! Checks the header and the seal of the sealed segments that opening did not read, while the store is open.
//!
//! The check runs on the background thread, in slices, oldest segments first. Damage stops appends: the writer
//! treats it like a failed sync. Tested by tests/it/open_checked.rs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::queue::Queue;
use crate::log::HEADERS_CHECKED_MAX;
use crate::read::{SealedSegment, Segment, View};
use crate::threads::BackgroundThread;
use crate::types::{Error, ErrorKind};

/// How long closing, and other jobs of the background thread, wait for a slice at most.
const SLICE: Duration = Duration::from_millis(5);
/// A segment that cannot be read after this many tries counts as damaged.
const TRIES: u32 = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// Starts the check of the segments that opening skipped, if there are any.
pub(crate) fn check_older_segments(view: &Arc<View>, queue: &Arc<Queue>, background: &BackgroundThread) {
    let snapshot = view.snapshot();
    let listed: Vec<&Arc<Segment>> =
        snapshot.segments.iter().take_while(|segment| is_sealed(segment)).collect();
    let Some(newest) = listed.len().checked_sub(HEADERS_CHECKED_MAX).filter(|rest| *rest > 0) else { return };
    let end = listed.get(newest).map_or(u64::MAX, |segment| segment.first_position());
    let mut check = SegmentCheck { view: view.clone(), queue: queue.clone(), next: 0, end, tries: 0 };
    background.run_in(Duration::ZERO, Box::new(move || check.run_slice()));
}

fn is_sealed(segment: &Segment) -> bool {
    segment.as_stored().is_some_and(SealedSegment::is_whole)
}

struct SegmentCheck {
    view: Arc<View>,
    queue: Arc<Queue>,
    /// Segments that begin before this position are checked.
    next: u64,
    /// Segments that begin here or later were checked by opening.
    end: u64,
    /// How often the next segment could not be read.
    tries: u32,
}

impl SegmentCheck {
    /// Checks segments for a while. Returns the delay before the next slice, `None` when the check has ended.
    fn run_slice(&mut self) -> Option<Duration> {
        let began = Instant::now();
        let segments = self.view.snapshot().segments;
        let next = segments.partition_point(|segment| segment.first_position() < self.next);
        for segment in segments.iter().skip(next) {
            if segment.first_position() >= self.end {
                return None;
            }
            let checked = segment.as_stored().map_or(Ok(()), SealedSegment::check);
            if let Err(error) = checked
                && self.is_current(segment)
            {
                return self.handle_error(segment, error);
            }
            self.next = segment.first_position().saturating_add(1);
            self.tries = 0;
            if began.elapsed() >= SLICE {
                return Some(Duration::ZERO);
            }
        }
        None
    }

    /// Whether the segment was not rewritten since. A rewrite removes a file only after readers have the new one.
    fn is_current(&self, segment: &Segment) -> bool {
        let segments = self.view.snapshot().segments;
        let found = segments.binary_search_by_key(&segment.first_position(), |other| other.first_position());
        found.ok().and_then(|at| segments.get(at)).is_some_and(|other| other.id() == segment.id())
    }

    /// Tries again after an error of reading. Damage poisons the store; the writer finishes earlier appends.
    fn handle_error(&mut self, segment: &Segment, error: Error) -> Option<Duration> {
        self.tries = self.tries.saturating_add(1);
        let reason = match error.kind() {
            ErrorKind::Io if self.tries < TRIES => return Some(BETWEEN_TRIES),
            ErrorKind::Io => Error::corrupt(&segment.path(), 0, format_args!("it cannot be read: {error}")),
            _ => error,
        };
        match self.queue.send_poison(reason) {
            Err(error) if error.kind() == ErrorKind::Busy => Some(BETWEEN_TRIES),
            _ => None,
        }
    }
}
