//! Group-commit delay: after a synced group, the writer waits briefly for the same callers to append again.
//!
//! A few callers that append, wait and append again fall into two halves: the writer syncs one half while the
//! other hears its replies, and each half pays for a sync of its own. A moment after the replies, all of them are
//! there, and one sync covers them. Many callers need no delay: to reply to them takes longer than a sync. Callers
//! that do other work between their appends do not come back at once, and the writer waits for them less and less
//! often.

use std::time::{Duration, Instant};

/// The writer does not wait for more callers than this.
const CALLERS_MAX: usize = 16;
/// The longest delay. A delay is also at most three quarters of what the sync took.
const DELAY_MAX: Duration = Duration::from_micros(150);
/// After a delay in vain, the writer skips at most this many groups.
const SKIP_MAX: u32 = 1024;

/// A synced group whose callers have their replies.
#[derive(Clone, Copy)]
pub(super) struct AnsweredGroup {
    /// The callers of the group, and those that were queued by the end of it.
    pub(super) callers: usize,
    /// How long the sync took.
    pub(super) sync: Duration,
}

/// Decides when a delay pays, by whether the last ones did.
#[derive(Default)]
pub(super) struct GroupDelay {
    /// How many groups go without a delay from now on.
    skip: u32,
    /// How many groups went without after the last delay in vain.
    skipped: u32,
}

impl GroupDelay {
    /// Waits until all callers of the group are queued again, if that may pay.
    pub(super) fn wait(&mut self, answered: AnsweredGroup, queued: impl Fn() -> usize) {
        let Some(delay) = self.delay(answered) else { return };
        let began = Instant::now();
        while queued() < answered.callers && began.elapsed() < delay {
            // The callers need the processor more than this thread does.
            std::thread::yield_now();
        }
        // After a yield this thread may be away for long: a caller computes. Then the delay was in vain, even if
        // all callers are queued by now.
        self.note(began.elapsed() < delay);
    }

    /// How long to wait for the group's callers, if at all.
    fn delay(&mut self, answered: AnsweredGroup) -> Option<Duration> {
        if !(2..=CALLERS_MAX).contains(&answered.callers) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        Some(DELAY_MAX.min(answered.sync * 3 / 4))
    }

    /// Notes whether a delay paid: each one in vain doubles how many groups are skipped.
    fn note(&mut self, has_paid: bool) {
        if has_paid {
            self.skipped /= 2;
            self.skip = 0;
        } else {
            self.skipped = (2 * self.skipped).clamp(1, SKIP_MAX);
            self.skip = self.skipped;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC: Duration = Duration::from_micros(100);

    fn after(callers: usize, sync: Duration) -> AnsweredGroup {
        AnsweredGroup { callers, sync }
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
            let delay = GroupDelay::default().delay(after(callers, sync));
            assert_eq!(delay, expected.map(Duration::from_micros), "{callers} callers, {sync:?}");
        }
    }

    /// How many groups are skipped before the next delay.
    fn skipped(group_delay: &mut GroupDelay) -> u32 {
        let mut groups = 0;
        while group_delay.delay(after(8, SYNC)).is_none() {
            groups += 1;
        }
        groups
    }

    #[test]
    fn those_who_do_not_come_are_waited_for_more_and_more_rarely() {
        let mut group_delay = GroupDelay::default();
        for expected in [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024] {
            assert_eq!(skipped(&mut group_delay), expected);
            group_delay.note(false);
        }
        assert_eq!(skipped(&mut group_delay), 1024);
        // Once a delay pays, none is skipped; it takes a while until the delays in vain are forgotten.
        group_delay.note(true);
        assert_eq!(skipped(&mut group_delay), 0);
        group_delay.note(false);
        assert_eq!(skipped(&mut group_delay), 1024);
        (0..11).for_each(|_| group_delay.note(true));
        group_delay.note(false);
        assert_eq!(skipped(&mut group_delay), 1);
    }
}
