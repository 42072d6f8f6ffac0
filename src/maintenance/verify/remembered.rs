//! What the walk remembers of entities and events, in bounded memory: versions and causes.
//!
//! The last version of each entity is remembered under a 128-bit hash of its name. When too many are
//! remembered, all are forgotten, and the index is asked instead. An event of an entity that no index knows
//! is accepted and counted.
//!
//! Ids met lately are remembered. Causes that are not among them are looked for by reading the log again, a
//! whole batch at once (`cross_checks.rs`). The events decide: no index is asked. Tested by
//! tests/it/verify_causes.rs.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::ops::RangeInclusive;

use foldhash::quality::RandomState;
use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};

use crate::format::{Attestation, Frame, Record};
use crate::types::{Cause, Error, EventId, Position, SYSTEM_SCOPE, system};

/// Some 50 MB of memory.
const ENTITIES_MAX: usize = 1_800_000;

/// The version of an entity's last event up to a position, from the index.
pub(super) type VersionLookup<'a> = &'a dyn Fn(&str, u64) -> Result<u64, Error>;

/// A step between two versions of an entity that do not follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VersionStep {
    pub(super) last: u64,
    pub(super) version: u64,
}

pub(super) struct VersionChecks<'a> {
    last: HashMap<(u64, u64), u64>,
    hashes: (RandomState, RandomState),
    entities_max: usize,
    /// Whether every entity since the first event of the log is remembered.
    is_complete: bool,
    known: Option<VersionLookup<'a>>,
    /// How many events are missing: removed on purpose, or hidden by a break.
    missing: u64,
    /// Events that were accepted without a check.
    pub(super) unchecked: u64,
}

impl<'a> VersionChecks<'a> {
    pub(super) fn new(known: Option<VersionLookup<'a>>) -> VersionChecks<'a> {
        VersionChecks {
            last: HashMap::new(),
            hashes: Default::default(),
            entities_max: ENTITIES_MAX,
            is_complete: true,
            known,
            missing: 0,
            unchecked: 0,
        }
    }

    #[cfg(test)]
    pub(super) fn remembering(mut self, entities: usize) -> VersionChecks<'a> {
        self.entities_max = entities;
        self
    }

    /// Begins behind skipped segments: the entities before are not known.
    pub(super) fn begin_in_the_middle(&mut self) {
        self.is_complete = false;
    }

    /// Notes that this many events are missing, and known to be.
    pub(super) fn note_missing(&mut self, events: u64) {
        self.missing = self.missing.saturating_add(events);
    }

    /// Notes an event. Returns the step if its version does not follow the entity's last one.
    pub(super) fn note_event(&mut self, entity: &[u8], version: u64, position: u64) -> Option<VersionStep> {
        let key = (self.hashes.0.hash_one(entity), self.hashes.1.hash_one(entity));
        let last = match self.last.get_mut(&key) {
            Some(last) => std::mem::replace(last, version),
            None => self.note_unknown(key, entity, version, position)?,
        };
        (last.checked_add(1) != Some(version)).then_some(VersionStep { last, version })
    }

    fn note_unknown(&mut self, key: (u64, u64), entity: &[u8], version: u64, position: u64) -> Option<u64> {
        let last = self.before(entity, position);
        if self.last.len() >= self.entities_max {
            self.last.clear();
            self.is_complete = false;
        }
        self.last.insert(key, version);
        self.unchecked = self.unchecked.saturating_add(last.is_none().into());
        last
    }

    /// The last version of an entity that is not remembered.
    fn before(&self, entity: &[u8], position: u64) -> Option<u64> {
        if self.is_complete {
            return Some(0);
        }
        let entity = std::str::from_utf8(entity).expect("checked when the record was read");
        self.known.and_then(|known| known(entity, position.saturating_sub(1)).ok())
    }

    /// Whether a step goes back, or skips more versions than events are known to be missing.
    pub(super) fn is_wrong(&self, step: &VersionStep) -> bool {
        !step.version.checked_sub(step.last).is_some_and(|steps| steps >= 1 && steps - 1 <= self.missing)
    }
}

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
        event_ids(frame, first).for_each(|id| self.add(id));
        for (index, record) in frame.records().map_while(Result::ok) {
            let position = first.saturating_add(index.into());
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
pub(super) fn event_ids<'a>(frame: &'a Frame<'_>, first: u64) -> impl Iterator<Item = EventId> + 'a {
    let whole = frame.records().map_while(Result::ok);
    whole.flat_map(move |(index, record)| {
        let position = first.saturating_add(index.into());
        [Some(frame.header.event_id(position.into())), record.foreign_id()].into_iter().flatten()
    })
}

/// Removed positions, and the events that ordered their removal.
#[derive(Default)]
pub(super) struct Removals {
    /// The positions of the events that order removals.
    orders: BTreeSet<u64>,
    /// By the position that attestations name as their order.
    runs: BTreeMap<u64, Vec<RangeInclusive<u64>>>,
}

/// How many runs are remembered for each order.
const RUNS_MAX: usize = 100;

impl Removals {
    /// Notes an event if it orders a removal.
    pub(super) fn note_event(&mut self, position: u64, record: &Record<'_>) {
        if record.scope() == SYSTEM_SCOPE && record.kind() == system::ledger::COMPACTING {
            self.orders.insert(position);
        }
    }

    pub(super) fn note_attestation(&mut self, attestation: &Attestation) {
        let runs = self.runs.entry(attestation.order).or_default();
        if runs.len() < RUNS_MAX {
            runs.push(attestation.first_position()..=attestation.last_position());
        }
    }

    /// The runs whose order is none, in a log that ends at this position. An order behind the end is unknown.
    pub(super) fn without_order(&self, end: u64) -> Vec<RangeInclusive<Position>> {
        let known = self.runs.iter().filter(|(order, _)| **order <= end);
        let mut runs: Vec<RangeInclusive<Position>> = known
            .flat_map(|(order, runs)| runs.iter().map(move |run| (order, run)))
            .filter(|(order, run)| !self.orders.contains(order) || *order <= run.end())
            .map(|(_, run)| Position::from(*run.start())..=Position::from(*run.end()))
            .collect();
        runs.sort_by_key(|run| *run.start());
        runs
    }
}
