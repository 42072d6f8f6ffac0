//! Decides each append: accepted, already written under its key, or refused.
//!
//! Pure: no I/O, no locks, no clock. Within a group, a later append sees the effect of the earlier ones that
//! were accepted. If the group is not written, [`Heads::discard`] undoes all of them.
//!
//! [`Heads`] holds what the newest two segments added, and no more, however long the log is. A caller looks
//! up the rest in the published segments and says up to which position it has looked ([`LookedUp`]). Tested
//! exhaustively in tests.rs.

#[cfg(test)]
mod tests;

use foldhash::{HashMap, HashMapExt};

use crate::types::{Conflict, Error, EventId, Expected, FailedCondition, KeyWindow, Position, Version};

/// The stored form of an idempotency key.
pub(crate) type KeyHash = [u8; 16];

/// The end of a stream: the version and the position of its last event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamHead {
    pub(crate) version: Version,
    pub(crate) last: Position,
}

/// A stream an append adds to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamTarget {
    pub(crate) entity: Box<str>,
    pub(crate) expected: Expected,
    /// The end of the stream, as the caller saw it.
    pub(crate) head: StreamHead,
}

/// How far a caller has looked, and what it found. The default has looked at nothing: [`Heads`] must know
/// all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LookedUp {
    pub(crate) up_to: Position,
    /// First position of the append that has the same key, if the caller found one.
    pub(crate) key: Option<Position>,
}

/// The part of an append that the decision depends on.
pub(crate) struct Proposal<'a> {
    pub(crate) targets: &'a [StreamTarget],
    /// The target of each event; empty if there is only one target.
    pub(crate) target_of: &'a [u16],
    pub(crate) events: u16,
    pub(crate) key: Option<KeyHash>,
    /// The foreign ids of the events, each with the index of its event.
    pub(crate) ids: &'a [(u16, EventId)],
    /// Must reach to the first position that [`Heads`] has: see [`Heads::covers`].
    pub(crate) known: LookedUp,
}

/// What becomes of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It gets this version for its first event, and a version for each event if there are several targets.
    Accepted { first_version: Version, versions: Vec<u8> },
    /// An append with this key exists; its first event is at this position.
    KeyKnown(Position),
    /// A stream is not at the expected version.
    Conflict(Conflict),
    /// A condition does not hold.
    ConditionFailed(FailedCondition),
    /// An event of the same group already has one of the foreign ids.
    IdTaken(EventId, Position),
}

/// The stream heads and keys of the newest two segments, and those of the group being decided.
pub(crate) struct Heads {
    recent: SegmentHeads,
    /// Of the segment before. Every head and key from its first position on is in one of the two.
    earlier: SegmentHeads,
    /// The heads that staging replaced, oldest first.
    replaced: Vec<(usize, StreamHead)>,
    /// How many recent heads there were before the group.
    committed: usize,
    staged_keys: HashMap<KeyHash, Position>,
    /// The foreign ids of staged events. Those of written events are in the index.
    staged_ids: HashMap<EventId, Position>,
    /// Streams that began since opening.
    streams_created: u64,
    /// Streams that begin with the staged group.
    streams_staged: u64,
    window: KeyWindow,
}

/// The heads and keys that one segment added.
#[derive(Default)]
struct SegmentHeads {
    /// Its first position.
    since: Position,
    /// The slot of each entity in `heads`.
    entities: HashMap<Box<str>, usize>,
    heads: Vec<StreamHead>,
    keys: HashMap<KeyHash, Position>,
}

impl SegmentHeads {
    fn head(&self, entity: &str) -> Option<StreamHead> {
        self.entities.get(entity).map(|slot| self.heads[*slot])
    }
}

impl Heads {
    /// Without any head or key; complete for a log whose events from `since` on are loaded next.
    pub(crate) fn new(window: KeyWindow, since: Position) -> Heads {
        Heads {
            recent: SegmentHeads { since, ..SegmentHeads::default() },
            earlier: SegmentHeads { since, ..SegmentHeads::default() },
            replaced: Vec::new(),
            committed: 0,
            staged_keys: HashMap::new(),
            staged_ids: HashMap::new(),
            streams_created: 0,
            streams_staged: 0,
            window,
        }
    }

    /// How many streams began since opening.
    pub(crate) fn streams_created(&self) -> u64 {
        self.streams_created
    }

    /// Whether the caller looked far enough: everything after `up_to` is known here.
    pub(crate) fn covers(&self, up_to: Position) -> bool {
        up_to.plus(1) >= self.earlier.since
    }

    /// Begins a new segment at this position, and forgets the segment before the last. Nothing may be staged.
    pub(crate) fn rotate(&mut self, since: Position) {
        let next = SegmentHeads { since, ..SegmentHeads::default() };
        self.earlier = std::mem::replace(&mut self.recent, next);
        self.committed = 0;
    }

    /// Decides an append whose first event would get position `next`. An accepted append is staged.
    ///
    /// The key comes first: a retry's expectation is stale by nature. Conditions come last: they cost most.
    ///
    /// # Errors
    ///
    /// Those of `violated_condition`; then nothing is staged.
    pub(crate) fn decide(
        &mut self,
        proposal: &Proposal<'_>,
        next: Position,
        violated_condition: impl FnOnce() -> Result<Option<FailedCondition>, Error>,
    ) -> Result<Decision, Error> {
        if let Some(position) = proposal.key.and_then(|key| self.find_key(&key, proposal.known, next)) {
            return Ok(Decision::KeyKnown(position));
        }
        for target in proposal.targets {
            if target.expected == Expected::Any {
                continue;
            }
            let actual = self.head(target);
            if !target.expected.accepts(actual.version) {
                return Ok(Decision::Conflict(Conflict {
                    entity: target.entity.to_string(),
                    expected: target.expected,
                    actual: actual.version,
                    last: actual.last,
                }));
            }
        }
        if let Some(failed) = violated_condition()? {
            return Ok(Decision::ConditionFailed(failed));
        }
        for (_, id) in proposal.ids {
            if let Some(position) = self.staged_ids.get(id) {
                return Ok(Decision::IdTaken(*id, *position));
            }
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

    fn stage_one(&mut self, target: &StreamTarget, events: u16, next: Position) -> Decision {
        let slot = self.slot(target);
        let before = self.recent.heads[slot].version;
        let count = u64::from(events);
        self.stage(slot, StreamHead { version: before.plus(count), last: next.plus(count - 1) });
        Decision::Accepted { first_version: before.plus(1), versions: Vec::new() }
    }

    fn stage_several(&mut self, targets: &[StreamTarget], target_of: &[u16], next: Position) -> Decision {
        let slots: Vec<usize> = targets.iter().map(|target| self.slot(target)).collect();
        let mut versions = Vec::with_capacity(target_of.len() * 8);
        let mut first_version = Version::EMPTY;
        for (offset, target) in (0_u64..).zip(target_of) {
            let slot = slots[usize::from(*target)];
            let version = self.recent.heads[slot].version.plus(1);
            self.stage(slot, StreamHead { version, last: next.plus(offset) });
            versions.extend_from_slice(&version.get().to_le_bytes());
            if offset == 0 {
                first_version = version;
            }
        }
        Decision::Accepted { first_version, versions }
    }

    /// The slot of the target's recent head. A stream without one gets one, from its older head.
    fn slot(&mut self, target: &StreamTarget) -> usize {
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
        self.streams_staged += u64::from(before.version == Version::EMPTY);
        self.replaced.push((slot, before));
    }

    fn head(&self, target: &StreamTarget) -> StreamHead {
        let entity = &target.entity;
        self.recent.head(entity).or_else(|| self.earlier.head(entity)).unwrap_or(target.head)
    }

    /// The first position of the append that has this key, if the key is still remembered at `next`.
    pub(crate) fn find_key(&self, key: &KeyHash, known: LookedUp, next: Position) -> Option<Position> {
        let newest = self.staged_keys.get(key);
        let newest = newest.or_else(|| self.recent.keys.get(key)).or_else(|| self.earlier.keys.get(key));
        newest.copied().or(known.key).filter(|position| self.remembers(*position, next))
    }

    fn remembers(&self, position: Position, next: Position) -> bool {
        match self.window {
            KeyWindow::Unlimited => true,
            KeyWindow::Positions(window) => next.get() - position.get() <= window,
        }
    }

    /// The staged group was written: later groups build on it.
    pub(crate) fn commit(&mut self) {
        self.replaced.clear();
        self.committed = self.recent.heads.len();
        self.streams_created += std::mem::take(&mut self.streams_staged);
        if !self.staged_ids.is_empty() {
            self.staged_ids.clear();
        }
        if !self.staged_keys.is_empty() {
            self.recent.keys.extend(self.staged_keys.drain());
        }
    }

    /// The staged group was not written: restores everything as it was before the group.
    pub(crate) fn discard(&mut self) {
        // Newest first: a head that the group replaced twice ends as it was before the group.
        while let Some((slot, head)) = self.replaced.pop() {
            self.recent.heads[slot] = head;
        }
        // Entities that came with the group have the last slots.
        if self.committed < self.recent.heads.len() {
            self.recent.heads.truncate(self.committed);
            self.recent.entities.retain(|_, slot| *slot < self.committed);
        }
        self.staged_keys.clear();
        self.staged_ids.clear();
        self.streams_staged = 0;
    }

    /// Adds the head of a stream in the log, while the store opens.
    pub(crate) fn load(&mut self, entity: &str, version: Version, last: Position) {
        let head = StreamHead { version, last };
        match self.recent.entities.get(entity) {
            Some(slot) => self.recent.heads[*slot] = head,
            None => _ = self.add(entity, head),
        }
        self.committed = self.recent.heads.len();
    }

    /// Adds a key in the log, while the store opens.
    pub(crate) fn load_key(&mut self, key: KeyHash, position: Position) {
        self.recent.keys.insert(key, position);
    }
}
