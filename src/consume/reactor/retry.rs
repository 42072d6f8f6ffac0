//! When a failed event is tried again, and how often.

use std::time::Duration;

use crate::types::Position;

/// How often, and how soon, an event is tried again after its handler has failed.
///
/// ```
/// use std::time::Duration;
/// use annals::Retry;
///
/// let patient = Retry { attempts: 20, longest: Duration::from_secs(60), ..Retry::default() };
/// # let _ = patient;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The number of attempts before the consumer is halted, the first one included (default: 8). 0 counts as
    /// 1.
    pub attempts: u32,
    /// The time before the second attempt (default: 100 ms). It doubles before each further one.
    pub first: Duration,
    /// The longest time between two attempts (default: 10 s).
    pub longest: Duration,
}

impl Default for Retry {
    /// Eight attempts within 13 seconds.
    fn default() -> Retry {
        Retry { attempts: 8, first: Duration::from_millis(100), longest: Duration::from_secs(10) }
    }
}

impl Retry {
    /// The time until the next attempt, after a number of failed ones. `None`: there is no further attempt.
    pub(super) fn delay_after(&self, attempts: u32) -> Option<Duration> {
        (attempts < self.attempts).then(|| self.backoff(attempts))
    }

    fn backoff(&self, attempts: u32) -> Duration {
        let doubled = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(doubled).min(self.longest)
    }
}

/// After this many conflicts in a row an event counts as failed.
const CONFLICTS_MAX: u32 = 20;
/// Up to this many conflicts there is no delay: one conflict is usual while others append.
const CONFLICTS_AT_ONCE: u32 = 3;
/// The delays after a conflict, or while the disk or the queue is full.
const STORE_RETRY: Retry =
    Retry { attempts: u32::MAX, first: Duration::from_millis(1), longest: Duration::from_millis(100) };

/// The failed attempts at one event, by their cause.
#[derive(Debug, Default)]
pub(super) struct FailureCounts {
    position: Position,
    failures: u32,
    conflicts: u32,
    refusals: u32,
}

impl FailureCounts {
    /// How often the handler of the event has failed.
    pub(super) fn failures(&self, position: Position) -> u32 {
        if position == self.position { self.failures } else { 0 }
    }

    /// Counts a failure of the handler; returns the count.
    pub(super) fn add_failure(&mut self, position: Position) -> u32 {
        let counts = self.of(position);
        counts.failures = counts.failures.saturating_add(1);
        counts.failures
    }

    /// Counts a conflict of the outputs; returns the delay until the next attempt, `None` after too many.
    pub(super) fn add_conflict(&mut self, position: Position) -> Option<Duration> {
        let counts = self.of(position);
        counts.conflicts = counts.conflicts.saturating_add(1);
        match counts.conflicts {
            ..=CONFLICTS_AT_ONCE => Some(Duration::ZERO),
            CONFLICTS_MAX.. => None,
            conflicts => Some(STORE_RETRY.backoff(conflicts - CONFLICTS_AT_ONCE)),
        }
    }

    /// Counts a refusal by a store that takes no appends now; returns the count, and the delay until the
    /// next.
    pub(super) fn add_refusal(&mut self, position: Position) -> (u32, Duration) {
        let counts = self.of(position);
        counts.refusals = counts.refusals.saturating_add(1);
        (counts.refusals, STORE_RETRY.backoff(counts.refusals))
    }

    pub(super) fn is_clear(&self) -> bool {
        self.failures == 0 && self.conflicts == 0 && self.refusals == 0
    }

    /// Begins anew: an event was handled, or an operator has moved the checkpoint.
    pub(super) fn clear(&mut self) {
        *self = FailureCounts::default();
    }

    fn of(&mut self, position: Position) -> &mut FailureCounts {
        if self.position != position {
            *self = FailureCounts { position, ..FailureCounts::default() };
        }
        self
    }
}
