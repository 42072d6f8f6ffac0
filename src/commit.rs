//! Decides what happens to each append: accepted, seen before, or in conflict.
//!
//! Pure: no I/O, no locks, no clock. Within a group a later append sees the effect of the earlier
//! ones that were accepted; if the group is not written after all, [`Ledger::discard`] forgets it.
//! In this version the ledger knows every head and every key in the window, so it decides alone; once
//! heads live in sealed indexes, callers bring what they found and the ledger checks what came later.
//! Row: commit. Tested exhaustively in commit/tests.rs.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use foldhash::{HashMap, HashMapExt};

use crate::error::{Conflict, FailedCondition};
use crate::options::KeyWindow;
use crate::version::{Expected, Position, Version};

/// The hash an idempotency key is stored as.
pub(crate) type KeyHash = [u8; 16];

/// Where a stream stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) version: Version,
    pub(crate) last: Position,
}

/// A stream an append adds to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) entity: Box<str>,
    pub(crate) expected: Expected,
}

/// What of an append the decision depends on.
pub(crate) struct Proposal<'a> {
    pub(crate) targets: &'a [Target],
    /// The target of each event; empty if there is only one target.
    pub(crate) target_of: &'a [u16],
    pub(crate) events: u16,
    pub(crate) key: Option<KeyHash>,
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
}

/// Every head and key the decisions rest on: those published, and those of the group being decided.
pub(crate) struct Ledger {
    /// Where each entity's head is in `heads`.
    entities: HashMap<Box<str>, usize>,
    heads: Vec<Head>,
    /// What staging replaced in `heads`, oldest first.
    replaced: Vec<(usize, Head)>,
    keys: HashMap<KeyHash, Position>,
    staged_keys: HashMap<KeyHash, Position>,
    /// Keys in the order of their positions, to forget those that leave the window.
    key_order: VecDeque<(Position, KeyHash)>,
    window: KeyWindow,
}

impl Ledger {
    pub(crate) fn new(window: KeyWindow) -> Ledger {
        Ledger {
            entities: HashMap::new(),
            heads: Vec::new(),
            replaced: Vec::new(),
            keys: HashMap::new(),
            staged_keys: HashMap::new(),
            key_order: VecDeque::new(),
            window,
        }
    }

    /// How many entities there are.
    pub(crate) fn entities(&self) -> usize {
        self.heads.len()
    }

    /// Decides an append whose first event would get position `next`; an accepted one is staged.
    ///
    /// The key comes first: a retry's expectation is stale by nature. Conditions come last, they cost most.
    pub(crate) fn decide(
        &mut self,
        proposal: &Proposal<'_>,
        next: Position,
        unmet: impl FnOnce() -> Option<FailedCondition>,
    ) -> Decision {
        if let Some(position) = proposal.key.and_then(|key| self.key(&key, next)) {
            return Decision::Seen(position);
        }
        for target in proposal.targets {
            if target.expected == Expected::Any {
                continue;
            }
            let actual = self.head(&target.entity);
            if !target.expected.accepts(actual.version) {
                let (entity, expected) = (target.entity.to_string(), target.expected);
                return Decision::Conflict(Conflict {
                    entity,
                    expected,
                    actual: actual.version,
                    last: actual.last,
                });
            }
        }
        if let Some(failed) = unmet() {
            return Decision::Unmet(failed);
        }
        let accepted = match proposal.targets {
            [only] => self.stage_one(&only.entity, proposal.events, next),
            several => self.stage_several(several, proposal.target_of, next),
        };
        if let Some(key) = proposal.key {
            self.staged_keys.insert(key, next);
        }
        accepted
    }

    fn stage_one(&mut self, entity: &str, events: u16, next: Position) -> Decision {
        let slot = self.slot(entity);
        let before = self.heads[slot].version;
        let count = u64::from(events);
        self.stage(slot, Head { version: before.plus(count), last: next.plus(count - 1) });
        Decision::Accepted { first_version: before.plus(1), version_table: Vec::new() }
    }

    fn stage_several(&mut self, targets: &[Target], target_of: &[u16], next: Position) -> Decision {
        let slots: Vec<usize> = targets.iter().map(|target| self.slot(&target.entity)).collect();
        let mut version_table = Vec::with_capacity(target_of.len() * 8);
        let mut first_version = Version::EMPTY;
        for (offset, target) in (0_u64..).zip(target_of) {
            let slot = slots[usize::from(*target)];
            let version = self.heads[slot].version.plus(1);
            self.stage(slot, Head { version, last: next.plus(offset) });
            version_table.extend_from_slice(&version.get().to_le_bytes());
            if offset == 0 {
                first_version = version;
            }
        }
        Decision::Accepted { first_version, version_table }
    }

    /// Where an entity's head is; a new one gets an empty head.
    fn slot(&mut self, entity: &str) -> usize {
        if let Some(slot) = self.entities.get(entity) {
            return *slot;
        }
        self.entities.insert(entity.into(), self.heads.len());
        self.heads.push(Head::default());
        self.heads.len() - 1
    }

    fn stage(&mut self, slot: usize, head: Head) {
        self.replaced.push((slot, self.heads[slot]));
        self.heads[slot] = head;
    }

    fn head(&self, entity: &str) -> Head {
        self.entities.get(entity).map(|slot| self.heads[*slot]).unwrap_or_default()
    }

    fn key(&self, key: &KeyHash, next: Position) -> Option<Position> {
        let position = *self.staged_keys.get(key).or_else(|| self.keys.get(key))?;
        self.remembers(position, next).then_some(position)
    }

    fn remembers(&self, position: Position, next: Position) -> bool {
        match self.window {
            KeyWindow::Unlimited => true,
            KeyWindow::Positions(window) => next.get() - position.get() <= window,
        }
    }

    /// What is staged was written: it becomes what later groups see.
    pub(crate) fn settle(&mut self, next: Position) {
        self.replaced.clear();
        if self.staged_keys.is_empty() && self.key_order.is_empty() {
            return;
        }
        let mut keys: Vec<_> = self.staged_keys.drain().collect();
        keys.sort_unstable_by_key(|(_, position)| *position);
        for (key, position) in keys {
            self.remember(key, position);
        }
        self.forget_old_keys(next);
    }

    /// What is staged was not written: it never happened.
    pub(crate) fn discard(&mut self) {
        while let Some((slot, head)) = self.replaced.pop() {
            self.heads[slot] = head;
        }
        // Entities that came with the group stand at the end, empty again.
        let kept =
            self.heads.iter().rposition(|head| head.version > Version::EMPTY).map_or(0, |last| last + 1);
        if kept < self.heads.len() {
            self.heads.truncate(kept);
            self.entities.retain(|_, slot| *slot < kept);
        }
        self.staged_keys.clear();
    }

    fn remember(&mut self, key: KeyHash, position: Position) {
        self.keys.insert(key, position);
        if self.window != KeyWindow::Unlimited {
            self.key_order.push_back((position, key));
        }
    }

    fn forget_old_keys(&mut self, next: Position) {
        while let Some((position, key)) = self.key_order.front().copied() {
            if self.remembers(position, next) {
                break;
            }
            self.key_order.pop_front();
            // The key may have been used again since, at a later position.
            if self.keys.get(&key) == Some(&position) {
                self.keys.remove(&key);
            }
        }
    }

    /// Learns, while opening, of an event that is in the log; gives its stream's version before it.
    pub(crate) fn learn(&mut self, entity: &str, version: Version, position: Position) -> Version {
        let slot = self.slot(entity);
        std::mem::replace(&mut self.heads[slot], Head { version, last: position }).version
    }

    /// Learns, while opening, of a key that is in the log.
    pub(crate) fn learn_key(&mut self, key: KeyHash, position: Position) {
        self.remember(key, position);
        self.forget_old_keys(position.plus(1));
    }
}
