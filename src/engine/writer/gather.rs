//! Waiting for those who were just answered, so that their next appends share a sync with those that came meanwhile.
//!
//! A few callers who append, wait and append again fall into two parts: one is synced while the other is answered, and
//! each pays for a sync of its own. A moment after the answers all of them are there. Many callers need none of it: to answer
//! them takes longer than a sync. Whoever has other things to do does not come back at once, and is not waited for again and again.
//! Row: writer.

use std::time::{Duration, Instant};

/// More callers than this are not waited for.
const CALLERS_MAX: usize = 16;
/// Longer than this nobody is, nor longer than three quarters of what the sync took.
const PATIENCE_MAX: Duration = Duration::from_micros(150);
/// After waiting in vain so many groups at most go by without.
const PASSED_BY_MAX: u32 = 1024;

/// A synced group that was answered.
#[derive(Clone, Copy)]
pub(super) struct Answered {
    /// Those who were answered, and those who were queued by then.
    pub(super) callers: usize,
    /// How long the sync took.
    pub(super) sync: Duration,
}

/// Whether it was worth it lately.
#[derive(Default)]
pub(super) struct Gathering {
    /// So many groups still go by without.
    pass_by: u32,
    /// So many went by after it was last in vain.
    passed_by: u32,
}

impl Gathering {
    /// Waits, if it may be worth it, until so many are `queued`.
    pub(super) fn wait(&mut self, answered: Answered, queued: impl Fn() -> usize) {
        let Some(patience) = self.patience(answered) else { return };
        let began = Instant::now();
        while queued() < answered.callers && began.elapsed() < patience {
            // They need the processor more than this thread does.
            std::thread::yield_now();
        }
        // It may have been away for long: then somebody computes, who should not be given the processor.
        self.ended(began.elapsed() < patience);
    }

    fn patience(&mut self, answered: Answered) -> Option<Duration> {
        if !(2..=CALLERS_MAX).contains(&answered.callers) {
            return None;
        }
        if self.pass_by > 0 {
            self.pass_by -= 1;
            return None;
        }
        Some(PATIENCE_MAX.min(answered.sync * 3 / 4))
    }

    fn ended(&mut self, was_worth_it: bool) {
        self.passed_by =
            if was_worth_it { self.passed_by / 2 } else { (2 * self.passed_by).clamp(1, PASSED_BY_MAX) };
        self.pass_by = if was_worth_it { 0 } else { self.passed_by };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC: Duration = Duration::from_micros(100);

    fn after(callers: usize, sync: Duration) -> Answered {
        Answered { callers, sync }
    }

    #[test]
    fn a_few_callers_are_waited_for_as_long_as_it_can_be_worth_it() {
        let table = [
            (1, SYNC, None),
            (2, SYNC, Some(75)),
            (16, SYNC, Some(75)),
            (17, SYNC, None),
            (8, 10 * SYNC, Some(150)),
            (8, Duration::ZERO, Some(0)),
        ];
        for (callers, sync, expected) in table {
            let patience = Gathering::default().patience(after(callers, sync));
            assert_eq!(patience, expected.map(Duration::from_micros), "{callers} callers, {sync:?}");
        }
    }

    /// How many groups go by until the next are waited for.
    fn passed_by(gathering: &mut Gathering) -> u32 {
        let mut groups = 0;
        while gathering.patience(after(8, SYNC)).is_none() {
            groups += 1;
        }
        groups
    }

    #[test]
    fn those_who_do_not_come_are_waited_for_more_and_more_rarely() {
        let mut gathering = Gathering::default();
        for expected in [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024] {
            assert_eq!(passed_by(&mut gathering), expected);
            gathering.ended(false);
        }
        assert_eq!(passed_by(&mut gathering), 1024);
        // Once they come they are waited for again, and it takes a while until all is forgiven.
        gathering.ended(true);
        assert_eq!(passed_by(&mut gathering), 0);
        gathering.ended(false);
        assert_eq!(passed_by(&mut gathering), 1024);
        (0..11).for_each(|_| gathering.ended(true));
        gathering.ended(false);
        assert_eq!(passed_by(&mut gathering), 1);
    }
}
