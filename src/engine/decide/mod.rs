//! Decides what happens to each append: accepted, seen before, or in conflict.
//!
//! Pure: no I/O, no locks, no clock. Within a group a later append sees the effect of the earlier
//! ones that were accepted; if the group is not written after all, [`Heads::discard`] forgets it.
//! The ledger knows what the last two segments added, and no more, however long the log is: callers bring
//! what they found in what is published, and say up to where they looked ([`Known`]); whatever came later
//! is in the ledger.
//! Row: commit. Tested exhaustively in commit/tests.rs.

#[cfg(test)]
mod tests;

use foldhash::{HashMap, HashMapExt};

use crate::types::{Conflict, Error, EventId, Expected, FailedCondition, KeyWindow, Position, Version};

/// The hash an idempotency key is stored as.
pub(crate) type KeyHash = [u8; 16];

/// Where a stream stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamHead {
    pub(crate) version: Version,
    pub(crate) last: Position,
}

/// A stream an append adds to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) entity: Box<str>,
    pub(crate) expected: Expected,
    /// Where it stands in what the caller has looked at.
    pub(crate) head: StreamHead,
}

/// What a caller has looked at: everything up to a position. One that has looked at nothing relies on the ledger alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) up_to: Position,
    /// Where the append with the same key begins, if there is one.
    pub(crate) key: Option<Position>,
}

/// What of an append the decision depends on.
pub(crate) struct Proposal<'a> {
    pub(crate) targets: &'a [Target],
    /// The target of each event; empty if there is only one target.
    pub(crate) target_of: &'a [u16],
    pub(crate) events: u16,
    pub(crate) key: Option<KeyHash>,
    /// The ids that events bring along, each with the index of its event.
    pub(crate) ids: &'a [(u16, EventId)],
    /// Reaches at least as far as what the ledger knows begins: see [`Heads::suffices`].
    pub(crate) known: Known,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The version of the first event, and of each one if there are several targets.
    Accepted { first_version: Version, version_table: Vec<u8> },
    /// An append with this key is already there, beginning at this position.
    Seen(Position),
    /// A target is not as expected.
    Conflict(Conflict),
    /// A condition does not hold.
    Unmet(FailedCondition),
    /// An event of the same group has an id that one of these brings along.
    Taken(EventId, Position),
}

/// The heads and keys that the last two segments brought, and those of the group being decided.
pub(crate) struct Heads {
    recent: Recent,
    /// Of the segment before: from its first position on every head and key is in one of the two.
    earlier: Recent,
    /// What staging replaced among the recent heads, oldest first, and how many of these there were before.
    replaced: Vec<(usize, StreamHead)>,
    settled: usize,
    staged_keys: HashMap<KeyHash, Position>,
    /// The ids that staged events brought along; those of written ones are in the index.
    staged_ids: HashMap<EventId, Position>,
    /// Streams that began since opening, and among those that are staged.
    born: u64,
    staged_born: u64,
    window: KeyWindow,
}

/// What one segment brought.
#[derive(Default)]
struct Recent {
    /// Its first position.
    since: Position,
    /// Where each entity's head is in `heads`.
    entities: HashMap<Box<str>, usize>,
    heads: Vec<StreamHead>,
    keys: HashMap<KeyHash, Position>,
}

impl Recent {
    fn head(&self, entity: &str) -> Option<StreamHead> {
        self.entities.get(entity).map(|slot| self.heads[*slot])
    }
}

impl Heads {
    /// One that will be told of everything from a position on.
    pub(crate) fn new(window: KeyWindow, since: Position) -> Heads {
        Heads {
            recent: Recent { since, ..Recent::default() },
            earlier: Recent { since, ..Recent::default() },
            replaced: Vec::new(),
            settled: 0,
            staged_keys: HashMap::new(),
            staged_ids: HashMap::new(),
            born: 0,
            staged_born: 0,
            window,
        }
    }

    /// How many streams began since opening.
    pub(crate) fn born(&self) -> u64 {
        self.born
    }

    /// Whether somebody who has looked at everything up to a position needs to know no more than is known here.
    pub(crate) fn suffices(&self, up_to: Position) -> bool {
        up_to.plus(1) >= self.earlier.since
    }

    /// The log goes on in a new segment, at this position; nothing is staged. What the segment before the
    /// last brought is forgotten.
    pub(crate) fn turn(&mut self, since: Position) {
        let next = Recent { since, ..Recent::default() };
        self.earlier = std::mem::replace(&mut self.recent, next);
        self.settled = 0;
    }

    /// Decides an append whose first event would get position `next`; an accepted one is staged.
    ///
    /// The key comes first: a retry's expectation is stale by nature. Conditions come last, they cost most.
    ///
    /// # Errors
    ///
    /// What `unmet` gives; nothing is staged then.
    pub(crate) fn decide(
        &mut self,
        proposal: &Proposal<'_>,
        next: Position,
        unmet: impl FnOnce() -> Result<Option<FailedCondition>, Error>,
    ) -> Result<Decision, Error> {
        if let Some(position) = proposal.key.and_then(|key| self.key(&key, proposal.known.key, next)) {
            return Ok(Decision::Seen(position));
        }
        for target in proposal.targets {
            if target.expected == Expected::Any {
                continue;
            }
            let actual = self.head(target);
            if !target.expected.accepts(actual.version) {
                let (entity, expected) = (target.entity.to_string(), target.expected);
                return Ok(Decision::Conflict(Conflict {
                    entity,
                    expected,
                    actual: actual.version,
                    last: actual.last,
                }));
            }
        }
        if let Some(failed) = unmet()? {
            return Ok(Decision::Unmet(failed));
        }
        let staged = |(_, id): &(u16, EventId)| Some(Decision::Taken(*id, *self.staged_ids.get(id)?));
        if let Some(taken) = proposal.ids.iter().find_map(staged) {
            return Ok(taken);
        }
        let accepted = match proposal.targets {
            [only] => self.stage_one(only, proposal.events, next),
            several => self.stage_several(several, proposal.target_of, next),
        };
        if let Some(key) = proposal.key {
            self.staged_keys.insert(key, next);
        }
        self.staged_ids.extend(proposal.ids.iter().map(|(index, id)| (*id, next.plus(u64::from(*index)))));
        Ok(accepted)
    }

    fn stage_one(&mut self, target: &Target, events: u16, next: Position) -> Decision {
        let slot = self.slot(target);
        let before = self.recent.heads[slot].version;
        let count = u64::from(events);
        self.stage(slot, StreamHead { version: before.plus(count), last: next.plus(count - 1) });
        Decision::Accepted { first_version: before.plus(1), version_table: Vec::new() }
    }

    fn stage_several(&mut self, targets: &[Target], target_of: &[u16], next: Position) -> Decision {
        let slots: Vec<usize> = targets.iter().map(|target| self.slot(target)).collect();
        let mut version_table = Vec::with_capacity(target_of.len() * 8);
        let mut first_version = Version::EMPTY;
        for (offset, target) in (0_u64..).zip(target_of) {
            let slot = slots[usize::from(*target)];
            let version = self.recent.heads[slot].version.plus(1);
            self.stage(slot, StreamHead { version, last: next.plus(offset) });
            version_table.extend_from_slice(&version.get().to_le_bytes());
            if offset == 0 {
                first_version = version;
            }
        }
        Decision::Accepted { first_version, version_table }
    }

    /// Where an entity's recent head is; if it has none, the one it has otherwise becomes that.
    fn slot(&mut self, target: &Target) -> usize {
        if let Some(slot) = self.recent.entities.get(&target.entity) {
            return *slot;
        }
        let head = self.earlier.head(&target.entity).unwrap_or(target.head);
        self.add(&target.entity, head)
    }

    fn add(&mut self, entity: &str, head: StreamHead) -> usize {
        self.recent.entities.insert(entity.into(), self.recent.heads.len());
        self.recent.heads.push(head);
        self.recent.heads.len() - 1
    }

    fn stage(&mut self, slot: usize, head: StreamHead) {
        let before = std::mem::replace(&mut self.recent.heads[slot], head);
        self.staged_born += u64::from(before.version == Version::EMPTY);
        self.replaced.push((slot, before));
    }

    fn head(&self, target: &Target) -> StreamHead {
        let entity = &target.entity;
        self.recent.head(entity).or_else(|| self.earlier.head(entity)).unwrap_or(target.head)
    }

    fn key(&self, key: &KeyHash, known: Option<Position>, next: Position) -> Option<Position> {
        let of = |keys: &HashMap<KeyHash, Position>| keys.get(key).copied();
        let recent =
            of(&self.staged_keys).or_else(|| of(&self.recent.keys)).or_else(|| of(&self.earlier.keys));
        recent.or(known).filter(|position| self.remembers(*position, next))
    }

    fn remembers(&self, position: Position, next: Position) -> bool {
        match self.window {
            KeyWindow::Unlimited => true,
            KeyWindow::Positions(window) => next.get() - position.get() <= window,
        }
    }

    /// What is staged was written: it becomes what later groups see.
    pub(crate) fn settle(&mut self) {
        self.replaced.clear();
        self.settled = self.recent.heads.len();
        self.born += std::mem::take(&mut self.staged_born);
        if !self.staged_ids.is_empty() {
            self.staged_ids.clear();
        }
        if !self.staged_keys.is_empty() {
            self.recent.keys.extend(self.staged_keys.drain());
        }
    }

    /// What is staged was not written: it never happened.
    pub(crate) fn discard(&mut self) {
        while let Some((slot, head)) = self.replaced.pop() {
            self.recent.heads[slot] = head;
        }
        // Entities that came with the group stand at the end.
        if self.settled < self.recent.heads.len() {
            self.recent.heads.truncate(self.settled);
            self.recent.entities.retain(|_, slot| *slot < self.settled);
        }
        self.staged_keys.clear();
        self.staged_ids.clear();
        self.staged_born = 0;
    }

    /// Learns, while opening, of a stream's last event that is in the log.
    pub(crate) fn learn(&mut self, entity: &str, version: Version, last: Position) {
        let head = StreamHead { version, last };
        match self.recent.entities.get(entity) {
            Some(slot) => self.recent.heads[*slot] = head,
            None => _ = self.add(entity, head),
        }
        self.settled = self.recent.heads.len();
    }

    /// Learns, while opening, of a key that is in the log.
    pub(crate) fn learn_key(&mut self, key: KeyHash, position: Position) {
        self.recent.keys.insert(key, position);
    }
}
