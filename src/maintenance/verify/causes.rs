//! Checks in bounded memory that the causes which events name by id exist.
//!
//! Ids met lately are remembered. Other causes are looked for by reading the log again, a whole batch at once
//! (`reread.rs`). The events decide: no index is asked. Tested by tests/it/verify_causes.rs.

use foldhash::{HashMap, HashSet, HashSetExt};

use crate::format::Frame;
use crate::types::{Cause, EventId};

/// How many missing causes a report lists.
pub(super) const LISTED_MAX: usize = 10_000;

/// How much is remembered, which bounds the memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CauseLimits {
    /// Ids remembered, in each of two halves.
    pub(super) recent: usize,
    /// Events whose causes are looked for at once.
    pub(super) wanted: usize,
}

/// Some 70 MB.
pub(super) const CAUSE_LIMITS: CauseLimits = CauseLimits { recent: 250_000, wanted: 500_000 };

pub(super) struct Causes {
    /// The ids met last, and those met before them.
    recent: [HashSet<EventId>; 2],
    wanted: WantedCauses,
    /// The first event whose cause found no place in `wanted`.
    rest: Option<u64>,
    /// Causes of events before this position are settled.
    since: u64,
    pub(super) compared: u64,
    room: CauseLimits,
}

/// Causes to look for, each with the events that name it: position and entity.
#[derive(Default)]
pub(super) struct WantedCauses {
    pub(super) named_by: HashMap<EventId, Vec<(u64, Box<str>)>>,
    pub(super) events: usize,
}

impl Causes {
    pub(super) fn new(room: CauseLimits) -> Causes {
        Causes {
            recent: [HashSet::new(), HashSet::new()],
            wanted: WantedCauses::default(),
            rest: None,
            since: 0,
            compared: 0,
            room,
        }
    }

    /// Notes the events of a whole frame, and the causes that they name.
    pub(super) fn note_frame(&mut self, frame: &Frame<'_>, first: u64) {
        if self.since == u64::MAX {
            return;
        }
        ids(frame, first).for_each(|id| self.add(id));
        let whole = frame.records().map_while(Result::ok);
        for (position, record) in (first..).zip(whole) {
            if let Some(Cause::Event(id)) = record.cause()
                && position >= self.since
            {
                self.look_for(id, position, record.entity());
            }
        }
    }

    fn add(&mut self, id: EventId) {
        self.wanted.resolve(id);
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

    /// Prepares another pass over the log. Returns what it looks for.
    pub(super) fn begin_pass(&mut self) -> Option<WantedCauses> {
        let wanted = std::mem::take(&mut self.wanted);
        let rest = self.rest.take();
        self.since = rest.unwrap_or(u64::MAX);
        self.recent.iter_mut().for_each(HashSet::clear);
        (wanted.events > 0 || rest.is_some()).then_some(wanted)
    }
}

impl WantedCauses {
    /// Notes that an event with this id exists.
    pub(super) fn resolve(&mut self, id: EventId) {
        if let Some(events) = self.named_by.remove(&id) {
            self.events -= events.len();
        }
    }
}

/// The ids of a frame's events: the store's own, and the foreign ones.
pub(super) fn ids<'a>(frame: &'a Frame<'_>, first: u64) -> impl Iterator<Item = EventId> + 'a {
    let whole = frame.records().map_while(Result::ok);
    (first..).zip(whole).flat_map(|(position, record)| {
        [Some(frame.header.event_id(position.into())), record.foreign_id()].into_iter().flatten()
    })
}
