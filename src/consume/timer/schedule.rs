//! Which timers are pending, and which is due next: what the events of the timers' streams come to.

use std::collections::{BTreeSet, HashMap};

use crate::event::RecordedEvent;
use crate::store::Store;
use crate::types::{Error, Position, Query, Version, time_of};

use super::{Ended, Set, TimerStatus, due_of};
use crate::types::system::timer::{FAILED, PREFIX, SET};

/// Timers by name, and in the order in which they are due.
#[derive(Default)]
pub(super) struct Schedule {
    timers: HashMap<String, Entry>,
    /// Those that can fire: when due, then by name.
    pending: BTreeSet<(i64, String)>,
}

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) due: i64,
    /// The event that set it, and the version of the timer's stream.
    pub(super) set_at: Position,
    pub(super) version: Version,
    failure: Option<String>,
}

impl Schedule {
    /// Everything that is in a store's timers now.
    pub(super) fn of(store: &Store) -> Result<Schedule, Error> {
        let mut schedule = Schedule::default();
        for event in store.read(Query::entity_prefix(PREFIX)) {
            schedule.take(&event?)?;
        }
        Ok(schedule)
    }

    /// Takes in the next event of a timer's stream.
    pub(super) fn take(&mut self, event: &RecordedEvent) -> Result<(), Error> {
        let name = event.entity().strip_prefix(PREFIX).unwrap_or_default();
        let before = self.forget(name);
        match (event.kind(), before) {
            (SET, _) => {
                let due = due_of(event.decode::<Set>()?.due, event);
                let entry = Entry { due, set_at: event.position(), version: event.version(), failure: None };
                self.put_back(name.to_owned(), entry);
            }
            (FAILED, Some(before)) => {
                let failure = event.decode::<Ended>()?.reason;
                let entry = Entry { version: event.version(), failure, ..before };
                self.timers.insert(name.to_owned(), entry);
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes out the timer that is due next, if it is due by now.
    pub(super) fn take_due(&mut self, now: i64) -> Option<(String, Entry)> {
        let (_, name) = self.pending.first().filter(|(due, _)| *due <= now)?;
        let name = name.clone();
        self.forget(&name).map(|entry| (name, entry))
    }

    /// Puts back what was taken out, and did not come to anything.
    pub(super) fn put_back(&mut self, name: String, entry: Entry) {
        self.pending.insert((entry.due, name.clone()));
        self.timers.insert(name, entry);
    }

    /// When the next timer is due.
    pub(super) fn next_due(&self) -> Option<i64> {
        self.pending.first().map(|(due, _)| *due)
    }

    pub(super) fn into_statuses(self) -> Vec<TimerStatus> {
        let mut entries: Vec<(String, Entry)> = self.timers.into_iter().collect();
        entries.sort_by(|(one, a), (other, b)| (a.due, one).cmp(&(b.due, other)));
        let statuses = entries.into_iter().map(|(name, entry)| TimerStatus {
            name,
            due: time_of(entry.due),
            set_at: entry.set_at,
            failure: entry.failure,
        });
        statuses.collect()
    }

    fn forget(&mut self, name: &str) -> Option<Entry> {
        let (name, entry) = self.timers.remove_entry(name)?;
        self.pending.remove(&(entry.due, name));
        Some(entry)
    }
}
