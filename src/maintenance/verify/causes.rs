//! Whether the causes that events name by id are in the store, in bounded memory.
//!
//! An id of an event that was met lately is known. A cause with another id is looked for by reading the log
//! again, all such causes of a batch at once: whatever an index says, the events decide.
//! Row: ops. Tested by tests/it/verify_causes.rs.

use foldhash::{HashMap, HashSet, HashSetExt};

use crate::format::{Frame, records};
use crate::types::{Cause, EventId};

/// Missing causes that are listed.
pub(super) const LISTED_MAX: usize = 10_000;

/// How much memory it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CauseLimits {
    /// Ids that are remembered, in each of two halves.
    pub(super) recent: usize,
    /// Events whose causes are looked for at once.
    pub(super) wanted: usize,
}

/// Some 70 MB.
pub(super) const CAUSE_LIMITS: CauseLimits = CauseLimits { recent: 250_000, wanted: 500_000 };

pub(super) struct Causes {
    /// Ids of the events met last, and of those before them.
    recent: [HashSet<EventId>; 2],
    wanted: Wanted,
    /// Where the events begin that found no room among the wanted.
    rest: Option<u64>,
    /// Causes of events in front of this position were looked for before.
    since: u64,
    pub(super) compared: u64,
    room: CauseLimits,
}

/// Causes to be looked for, and the events that name them: position and entity.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) named_by: HashMap<EventId, Vec<(u64, Box<str>)>>,
    pub(super) events: usize,
}

impl Causes {
    pub(super) fn new(room: CauseLimits) -> Causes {
        Causes {
            recent: [HashSet::new(), HashSet::new()],
            wanted: Wanted::default(),
            rest: None,
            since: 0,
            compared: 0,
            room,
        }
    }

    /// A whole frame: its events are there, and name causes.
    pub(super) fn meet(&mut self, frame: &Frame<'_>, first: u64) {
        if self.since == u64::MAX {
            return;
        }
        ids(frame, first).for_each(|id| self.add(id));
        let whole = records(frame.body, frame.header.events()).map_while(Result::ok);
        for (position, record) in (first..).zip(whole) {
            if let Some(Cause::Event(id)) = record.cause()
                && position >= self.since
            {
                self.look_for(id, position, record.entity());
            }
        }
    }

    fn add(&mut self, id: EventId) {
        self.wanted.found(id);
        if self.recent[0].len() >= self.room.recent {
            self.recent.swap(0, 1);
            self.recent[0].clear();
        }
        self.recent[0].insert(id);
    }

    fn look_for(&mut self, id: EventId, position: u64, entity: &str) {
        if self.rest.is_some() {
            return;
        }
        let is_recent = self.recent.iter().any(|recent| recent.contains(&id));
        if !is_recent && self.wanted.events >= self.room.wanted {
            self.rest = Some(position);
            return;
        }
        self.compared = self.compared.saturating_add(1);
        if !is_recent {
            self.wanted.named_by.entry(id).or_default().push((position, entity.into()));
            self.wanted.events += 1;
        }
    }

    /// The log is read from its beginning again. What is looked for then.
    pub(super) fn begin_again(&mut self) -> Option<Wanted> {
        let wanted = std::mem::take(&mut self.wanted);
        let rest = self.rest.take();
        self.since = rest.unwrap_or(u64::MAX);
        self.recent.iter_mut().for_each(HashSet::clear);
        (wanted.events > 0 || rest.is_some()).then_some(wanted)
    }
}

impl Wanted {
    /// An event with this id is there.
    pub(super) fn found(&mut self, id: EventId) {
        if let Some(events) = self.named_by.remove(&id) {
            self.events -= events.len();
        }
    }
}

/// The ids of a frame's events: derived, and brought along.
pub(super) fn ids<'a>(frame: &'a Frame<'_>, first: u64) -> impl Iterator<Item = EventId> + 'a {
    let whole = records(frame.body, frame.header.events()).map_while(Result::ok);
    (first..).zip(whole).flat_map(|(position, record)| {
        [Some(frame.header.event_id(position.into())), record.foreign_id()].into_iter().flatten()
    })
}
