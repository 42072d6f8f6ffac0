//! When a handler that failed is called again, and when not.
//!
//! Row: app.

use std::time::Duration;

use crate::types::Position;

/// How often, and how soon, an event is tried again that could not be handled.
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
    /// How often an event is tried before the consumer is halted: 8. The first time counts; 0 is taken for 1.
    pub attempts: u32,
    /// The time before the second attempt: 100 ms. Before each further one it is twice as long.
    pub first: Duration,
    /// The longest time between two attempts: 10 s.
    pub longest: Duration,
}

impl Default for Retry {
    /// Eight attempts within 13 seconds.
    fn default() -> Retry {
        Retry { attempts: 8, first: Duration::from_millis(100), longest: Duration::from_secs(10) }
    }
}

impl Retry {
    /// The time to wait after so many attempts; `None` if there is to be no other.
    pub(super) fn delay_after(&self, attempts: u32) -> Option<Duration> {
        (attempts < self.attempts).then(|| self.backoff(attempts))
    }

    fn backoff(&self, attempts: u32) -> Duration {
        let doubled = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(doubled).min(self.longest)
    }
}

/// Other appends were first so often, one after the other; then it counts as a failure.
const CONFLICTS_MAX: u32 = 20;
/// Up to so many conflicts it is tried again at once: one is what others doing their work looks like.
const CONFLICTS_AT_ONCE: u32 = 3;
/// The longest time between attempts that conflicts, or a full disk or queue, are the reason for.
const PATIENCE: Retry =
    Retry { attempts: u32::MAX, first: Duration::from_millis(1), longest: Duration::from_millis(100) };

/// What went wrong so far with the event that is tried.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    at: Position,
    failures: u32,
    conflicts: u32,
    refusals: u32,
}

impl Attempts {
    /// How often an event was tried and failed.
    pub(super) fn failures(&self, at: Position) -> u32 {
        if at == self.at { self.failures } else { 0 }
    }

    /// It failed once more; says how often it has.
    pub(super) fn fail(&mut self, at: Position) -> u32 {
        let attempts = self.of(at);
        attempts.failures = attempts.failures.saturating_add(1);
        attempts.failures
    }

    /// Its outputs met others once more. `None`: too often.
    pub(super) fn conflict(&mut self, at: Position) -> Option<Duration> {
        let attempts = self.of(at);
        attempts.conflicts = attempts.conflicts.saturating_add(1);
        match attempts.conflicts {
            ..=CONFLICTS_AT_ONCE => Some(Duration::ZERO),
            CONFLICTS_MAX.. => None,
            conflicts => Some(PATIENCE.backoff(conflicts - CONFLICTS_AT_ONCE)),
        }
    }

    /// The store takes nothing just now, once more; says how often so far, and how long to wait.
    pub(super) fn refuse(&mut self, at: Position) -> (u32, Duration) {
        let attempts = self.of(at);
        attempts.refusals = attempts.refusals.saturating_add(1);
        (attempts.refusals, PATIENCE.backoff(attempts.refusals))
    }

    /// Nothing went wrong.
    pub(super) fn is_clear(&self) -> bool {
        self.failures == 0 && self.conflicts == 0 && self.refusals == 0
    }

    /// An event went through, or somebody decided what becomes of it.
    pub(super) fn clear(&mut self) {
        *self = Attempts::default();
    }

    fn of(&mut self, at: Position) -> &mut Attempts {
        if self.at != at {
            *self = Attempts { at, ..Attempts::default() };
        }
        self
    }
}
