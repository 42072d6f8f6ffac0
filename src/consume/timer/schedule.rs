//! Which timers are pending, and which of them is due next, computed from the events of the timers' streams.

use std::collections::{BTreeSet, HashMap};
use std::time::SystemTime;

use crate::event::RecordedEvent;
use crate::store::Store;
use crate::types::system::timer::{FAILED, PREFIX, SET};
use crate::types::{Error, Position, Query, Version, time_of};

use super::record::{TimerEnd, TimerSetting, due_of};

/// A timer that has neither fired nor been cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimerStatus {
    /// The name of the timer.
    pub name: String,
    /// When it is due.
    pub due: SystemTime,
    /// The position of the event that set it.
    pub set_at: Position,
    /// Why it failed, if its append was refused for good. A failed timer does not fire.
    pub failure: Option<String>,
}

/// Timers by name, and in the order in which they are due.
#[derive(Default)]
pub(super) struct TimerSchedule {
    timers: HashMap<String, ScheduledTimer>,
    /// The timers that can fire: due time, then name.
    pending: BTreeSet<(i64, String)>,
}

#[derive(Clone)]
pub(super) struct ScheduledTimer {
    /// In microseconds since 1970.
    due: i64,
    /// The position of the event that set it.
    pub(super) set_at: Position,
    /// The version of the timer's stream.
    pub(super) version: Version,
    failure: Option<String>,
}

impl TimerSchedule {
    /// All timers of a store now.
    pub(super) fn of(store: &Store) -> Result<TimerSchedule, Error> {
        let mut schedule = TimerSchedule::default();
        for event in store.read(Query::entity_prefix(PREFIX)) {
            schedule.take(&event?)?;
        }
        Ok(schedule)
    }

    /// Applies the next event of a timer's stream.
    pub(super) fn take(&mut self, event: &RecordedEvent) -> Result<(), Error> {
        let name = event.entity().strip_prefix(PREFIX).unwrap_or_default();
        let before = self.remove(name);
        match (event.kind(), before) {
            (SET, _) => {
                let timer = ScheduledTimer {
                    due: due_of(event.decode::<TimerSetting>()?.due, event),
                    set_at: event.position(),
                    version: event.version(),
                    failure: None,
                };
                self.insert(name.to_owned(), timer);
            }
            (FAILED, Some(before)) => {
                let failure = event.decode::<TimerEnd>()?.reason;
                let timer = ScheduledTimer { version: event.version(), failure, ..before };
                // Not among the pending ones: a failed timer is listed, and does not fire.
                self.timers.insert(name.to_owned(), timer);
            }
            _ => {}
        }
        Ok(())
    }

    /// Removes the timer that is due next, if its time has come.
    pub(super) fn take_due(&mut self, now: i64) -> Option<(String, ScheduledTimer)> {
        let (_, name) = self.pending.first().filter(|(due, _)| *due <= now)?;
        let name = name.clone();
        self.remove(&name).map(|timer| (name, timer))
    }

    /// Inserts a pending timer.
    pub(super) fn insert(&mut self, name: String, timer: ScheduledTimer) {
        self.pending.insert((timer.due, name.clone()));
        self.timers.insert(name, timer);
    }

    /// When the next timer is due, in microseconds since 1970.
    pub(super) fn next_due(&self) -> Option<i64> {
        self.pending.first().map(|(due, _)| *due)
    }

    pub(super) fn into_statuses(self) -> Vec<TimerStatus> {
        let mut timers: Vec<(String, ScheduledTimer)> = self.timers.into_iter().collect();
        timers.sort_by(|(name, timer), (other_name, other)| (timer.due, name).cmp(&(other.due, other_name)));
        let statuses = timers.into_iter().map(|(name, timer)| TimerStatus {
            name,
            due: time_of(timer.due),
            set_at: timer.set_at,
            failure: timer.failure,
        });
        statuses.collect()
    }

    fn remove(&mut self, name: &str) -> Option<ScheduledTimer> {
        let (name, timer) = self.timers.remove_entry(name)?;
        self.pending.remove(&(timer.due, name));
        Some(timer)
    }
}
