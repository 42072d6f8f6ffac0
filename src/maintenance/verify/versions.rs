//! Checks in bounded memory that the versions of each entity follow one another.
//!
//! The last version of each entity is remembered under a 128-bit hash of its name. When too many are
//! remembered, all are forgotten, and the index is asked instead. An event of an entity that no index knows
//! is accepted and counted.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use foldhash::{HashMap, HashMapExt};

use crate::types::Error;

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
