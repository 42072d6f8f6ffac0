//! Checks, behind an open store's back, header and seal of the sealed segments that opening did not read.
//!
//! A slice at a time on the housekeeper, oldest segments first. Damage stops appends: the writer is told as it is told of
//! a failed sync. Row: writer. Tested by tests/it/open_checked.rs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::queue::Queue;
use crate::log::NEWEST;
use crate::read::{LogView, SealedSegment, Segment};
use crate::threads::{BackgroundThread, Job};
use crate::types::{Error, ErrorKind};

/// Closing, and other work of the housekeeper, wait for a slice.
const SLICE: Duration = Duration::from_millis(5);
/// A read that failed is repeated so often, with so much time between; then it counts as damage.
const TRIES: u32 = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// Has the segments checked that opening passed over, if there are any.
pub(crate) fn check_the_rest(view: &Arc<LogView>, queue: &Arc<Queue>, housekeeper: &BackgroundThread) {
    let snapshot = view.snapshot();
    let listed: Vec<&Arc<Segment>> =
        snapshot.segments.iter().take_while(|segment| is_sealed(segment)).collect();
    let Some(newest) = listed.len().checked_sub(NEWEST).filter(|rest| *rest > 0) else { return };
    let end = listed.get(newest).map_or(u64::MAX, |segment| segment.first_position());
    let checking = Checking { view: view.clone(), queue: queue.clone(), next: 0, end, tries: 0 };
    housekeeper.run_in(Duration::ZERO, checking.job());
}

fn is_sealed(segment: &Segment) -> bool {
    segment.as_sealed().is_some_and(SealedSegment::is_whole)
}

struct Checking {
    view: Arc<LogView>,
    queue: Arc<Queue>,
    /// Segments that begin in front of this position are checked; those that begin at `end` or behind were by opening.
    next: u64,
    end: u64,
    /// How often the next one could not be read.
    tries: u32,
}

impl Checking {
    fn job(mut self) -> Job {
        Box::new(move || self.slice())
    }

    /// Goes on for a while, and says when to go on again; `None` once that is over.
    fn slice(&mut self) -> Option<Duration> {
        let began = Instant::now();
        let segments = self.view.snapshot().segments;
        let next = segments.partition_point(|segment| segment.first_position() < self.next);
        for segment in segments.iter().skip(next) {
            if segment.first_position() >= self.end {
                return None;
            }
            let checked = segment.as_sealed().map_or(Ok(()), SealedSegment::check);
            if let Err(error) = checked
                && self.is_there(segment)
            {
                return self.stop(segment, error);
            }
            self.next = segment.first_position().saturating_add(1);
            self.tries = 0;
            if began.elapsed() >= SLICE {
                return Some(Duration::ZERO);
            }
        }
        None
    }

    /// Not one that was rewritten since: its file goes only after readers have the new one.
    fn is_there(&self, segment: &Segment) -> bool {
        let segments = self.view.snapshot().segments;
        let found = segments.binary_search_by_key(&segment.first_position(), |other| other.first_position());
        found.ok().and_then(|at| segments.get(at)).is_some_and(|other| other.id() == segment.id())
    }

    /// Has the writer take no more appends; it finishes what came before.
    fn stop(&mut self, segment: &Segment, error: Error) -> Option<Duration> {
        self.tries = self.tries.saturating_add(1);
        let reason = match error.kind() {
            ErrorKind::Io if self.tries < TRIES => return Some(BETWEEN_TRIES),
            ErrorKind::Io => Error::corrupt(&segment.path(), 0, format_args!("it cannot be read: {error}")),
            _ => error,
        };
        match self.queue.poison(reason) {
            Err(error) if error.kind() == ErrorKind::Busy => Some(BETWEEN_TRIES),
            _ => None,
        }
    }
}
