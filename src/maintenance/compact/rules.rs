//! Which events a compaction removes.
//!
//! Three kinds never go:
//! - the store's own events, except acknowledgements that a later one replaces, if the caller asks for that;
//! - events of an append whose idempotency key is still recognised;
//! - the last event of each stream, which keeps the stream's version.
//!
//! Of the last two payload and metadata go. Of an event that goes while another one of its append stays, the
//! hash of its record is left.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::RangeInclusive;

use crate::engine::Engine;
use crate::event::{RecordedEvent, matches};
use crate::log::{Candidate, Fate, Judge};
use crate::read::{Read, Snapshot};
use crate::types::{
    CompactionPlan, CompactionShare, Error, KeyWindow, Position, Query, SYSTEM_SCOPE, Unhandled, text,
};

use super::RewriteThrottle;

/// Whose newest events [`Compaction::keep_newest`](crate::Compaction::keep_newest) keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GroupBy {
    /// The newest of each entity, by version.
    Entity,
    /// The newest of each kind.
    Kind,
    /// The newest of each scope.
    Scope,
}

/// The application's own rule: whether an event goes.
pub(crate) type Predicate<'a> = Box<dyn FnMut(&RecordedEvent) -> bool + 'a>;

/// Which events go: those that satisfy every rule that is set.
#[derive(Default)]
pub(crate) struct Rules<'a> {
    pub(crate) query: Option<Query>,
    pub(crate) predicate: Option<Predicate<'a>>,
    /// In microseconds since 1970.
    pub(crate) recorded_before: Option<u64>,
    pub(crate) before: Option<Position>,
    pub(crate) newest: Vec<(u64, GroupBy)>,
    pub(crate) leaves: Remainder,
    /// System events of this kind go once their stream has a later event.
    pub(crate) replaced: Option<&'static str>,
}

/// What is left of an event that goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Remainder {
    /// Nothing but an attestation, or the hash of a record.
    #[default]
    Nothing,
    /// Everything but payload and metadata.
    Tombstone,
}

impl Rules<'_> {
    /// Whether the rules name any event of the application.
    fn names_events(&self) -> bool {
        let Rules { query, predicate, recorded_before, before, newest, .. } = self;
        let is_narrowed = recorded_before.is_some() || before.is_some() || !newest.is_empty();
        query.is_some() || predicate.is_some() || is_narrowed
    }

    /// Whether the rules name any event.
    pub(crate) fn name_anything(&self) -> bool {
        self.names_events() || self.replaced.is_some()
    }
}

/// The rules as one line, for the ledger.
impl fmt::Display for Rules<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rules { query, predicate, recorded_before, before, newest, leaves, replaced } = self;
        let mut rules = Vec::new();
        rules.extend(query.as_ref().map(|query| format!("remove {query}")));
        rules.extend(predicate.as_ref().map(|_| "that the application names".to_owned()));
        rules.extend(recorded_before.map(|limit| format!("recorded before {limit} us")));
        rules.extend(before.map(|before| format!("before position {before}")));
        for (count, per) in newest {
            rules.push(format!("but the newest {count} per {}", format!("{per:?}").to_lowercase()));
        }
        rules.extend((*leaves == Remainder::Tombstone).then(|| "leave tombstones".to_owned()));
        rules.extend(replaced.map(|kind| format!("replaced {kind}")));
        f.write_str(text::cut(&rules.join(", "), RULES_BYTES_MAX))
    }
}

/// How much of the rules as text is kept, in bytes.
const RULES_BYTES_MAX: usize = 1000;

/// A consumer that must have handled an event before it goes.
pub(crate) struct Watcher {
    pub(crate) name: String,
    pub(crate) position: Position,
    pub(crate) query: Query,
}

/// The events that go: how many, and how many bytes of each kind and scope.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) removed: u64,
    pub(super) erased: u64,
    kinds: BTreeMap<String, CompactionShare>,
    scopes: BTreeMap<String, CompactionShare>,
    /// By index of the consumer: how many events it has not handled, and the first position of them.
    unhandled: BTreeMap<usize, (u64, u64)>,
}

impl Tally {
    /// Whether a segment of this length is worth rewriting: something goes, and its new length is shorter by
    /// at least this percentage.
    pub(super) fn is_worth(&self, percent: u8, length: u64, rewritten: u64) -> bool {
        let shorter = length.saturating_sub(rewritten);
        let is_enough = shorter.saturating_mul(100) >= length.saturating_mul(percent.into());
        self.removed + self.erased > 0 && is_enough
    }

    /// Adds the events of a later segment.
    pub(super) fn add(&mut self, other: Tally) {
        self.removed += other.removed;
        self.erased += other.erased;
        for (shares, others) in [(&mut self.kinds, other.kinds), (&mut self.scopes, other.scopes)] {
            for (name, share) in others {
                let sum = shares.entry(name).or_default();
                sum.removed += share.removed;
                sum.erased += share.erased;
                sum.bytes += share.bytes;
            }
        }
        for (watcher, (events, first)) in other.unhandled {
            self.unhandled.entry(watcher).or_insert((0, first)).0 += events;
        }
    }

    pub(super) fn fill(self, watchers: &[Watcher], plan: &mut CompactionPlan) {
        plan.removed = self.removed;
        plan.erased = self.erased;
        plan.kinds = self.kinds;
        plan.scopes = self.scopes;
        let unhandled = self.unhandled.into_iter().filter_map(|(watcher, (events, first))| {
            let consumer = watchers.get(watcher)?.name.clone();
            Some(Unhandled { consumer, events, first: first.into() })
        });
        plan.unhandled = unhandled.collect();
    }
}

/// Applies the rules, and counts.
pub(super) struct Compactor<'a, 'r, 'p> {
    engine: &'a Engine,
    snapshot: Snapshot,
    /// The rules see the log up to here. Later appends change no answer.
    head: Position,
    rules: &'a mut Rules<'r>,
    watchers: &'a [Watcher],
    throttle: &'a mut RewriteThrottle<'p>,
    /// Keys of appends from this position on are still recognised.
    keys_since: u64,
    /// Version and position of the last event of streams in this segment.
    heads: HashMap<Box<str>, (u64, u64)>,
    /// For kinds and scopes: the position of the oldest event among the newest.
    limits: HashMap<(u64, GroupBy, Box<str>), u64>,
    /// Positions of segments from which nothing goes.
    spared: Vec<RangeInclusive<u64>>,
    tally: Tally,
}

/// How many heads of streams are remembered. More are looked up again.
const HEADS_MAX: usize = 1 << 16;

impl<'a, 'r, 'p> Compactor<'a, 'r, 'p> {
    pub(super) fn new(
        engine: &'a Engine,
        head: Position,
        rules: &'a mut Rules<'r>,
        watchers: &'a [Watcher],
        throttle: &'a mut RewriteThrottle<'p>,
    ) -> Result<Compactor<'a, 'r, 'p>, Error> {
        let snapshot = engine.snapshot()?;
        let keys_since = match engine.options.key_window {
            KeyWindow::Unlimited => 0,
            KeyWindow::Positions(window) => head.get().saturating_sub(window),
        };
        Ok(Compactor {
            engine,
            snapshot,
            head,
            rules,
            watchers,
            throttle,
            keys_since,
            heads: HashMap::new(),
            limits: HashMap::new(),
            spared: Vec::new(),
            tally: Tally::default(),
        })
    }

    /// Spares the events at these positions.
    pub(super) fn sparing(self, spared: Vec<RangeInclusive<u64>>) -> Self {
        Compactor { spared, ..self }
    }

    /// Reports progress at the beginning of a segment.
    pub(super) fn report(&mut self) -> Result<(), Error> {
        self.throttle.report()
    }

    pub(super) fn has_rules(&self) -> bool {
        self.rules.name_anything()
    }

    /// The counts since the last call.
    pub(super) fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Version and position of a stream's last event.
    fn head(&mut self, entity: &str) -> Result<(u64, u64), Error> {
        if let Some(head) = self.heads.get(entity) {
            return Ok(*head);
        }
        if self.heads.len() >= HEADS_MAX {
            self.heads.clear();
        }
        let (version, position) = self.snapshot.stream_head_at(entity, self.head)?;
        self.heads.insert(entity.into(), (version.get(), position.get()));
        Ok((version.get(), position.get()))
    }

    /// Whether the idempotency key of the event's append is still recognised.
    fn knows_key_of(&self, event: &Candidate<'_>) -> bool {
        event.header().key().is_some() && event.first() >= self.keys_since
    }

    /// Whether the rules name an event. The most expensive rules come last.
    fn is_selected(&mut self, event: &Candidate<'_>) -> Result<bool, Error> {
        let position = event.position();
        let record = &event.record;
        let is_old = |limit: u64| event.header().recorded_at() < limit;
        if !self.rules.names_events()
            || self.rules.before.is_some_and(|before| position >= before.get())
            || self.rules.recorded_before.is_some_and(|limit| !is_old(limit))
            || self
                .rules
                .query
                .as_ref()
                .is_some_and(|query| !matches(query, record, |id| event.belongs_to(id)))
        {
            return Ok(false);
        }
        for (count, per) in self.rules.newest.clone() {
            if self.is_newest(event, count, per)? {
                return Ok(false);
            }
        }
        Ok(self.rules.predicate.as_mut().is_none_or(|goes| goes(&event.recorded())))
    }

    fn is_newest(&mut self, event: &Candidate<'_>, count: u64, per: GroupBy) -> Result<bool, Error> {
        let record = &event.record;
        let (name, query) = match per {
            GroupBy::Entity => {
                let (last, _) = self.head(record.entity())?;
                return Ok(event.version().saturating_add(count) > last);
            }
            GroupBy::Kind => (record.kind(), Query::all().kind(record.kind())),
            GroupBy::Scope => (record.scope_or_default(), Query::all().scope(record.scope_or_default())),
        };
        let key = (count, per, Box::from(name));
        if let Some(limit) = self.limits.get(&key) {
            return Ok(event.position() >= *limit);
        }
        let mut read = Read::new(self.engine.readable(), query).backwards().limit(count);
        read.restart(Position::START, self.head);
        let mut found = 0;
        let mut limit = u64::MAX;
        for event in read {
            limit = event?.position().get();
            found += 1;
        }
        let limit = if found < count { 0 } else { limit };
        self.limits.insert(key, limit);
        Ok(event.position() >= limit)
    }

    fn note_unhandled(&mut self, event: &Candidate<'_>) {
        let position = event.position();
        let misses = |watcher: &Watcher| {
            position > watcher.position.get()
                && matches(&watcher.query, &event.record, |id| event.belongs_to(id))
        };
        for (index, _) in self.watchers.iter().enumerate().filter(|(_, watcher)| misses(watcher)) {
            let (events, _) = self.tally.unhandled.entry(index).or_insert((0, position));
            *events += 1;
        }
    }
}

impl Judge for Compactor<'_, '_, '_> {
    fn fate(&mut self, event: &Candidate<'_>) -> Result<Fate, Error> {
        let record = &event.record;
        if self.spared.iter().any(|spared| spared.contains(&event.position())) {
            return Ok(Fate::Keep);
        }
        if record.scope() == SYSTEM_SCOPE {
            let is_kind = self.rules.replaced.is_some_and(|kind| record.kind() == kind);
            let is_replaced = is_kind && self.head(record.entity())?.1 != event.position();
            return Ok(match is_replaced {
                true if self.knows_key_of(event) => Fate::Erase,
                true => Fate::Remove,
                false => Fate::Keep,
            });
        }
        if !self.is_selected(event)? {
            return Ok(Fate::Keep);
        }
        let stays = self.rules.leaves == Remainder::Tombstone
            || self.knows_key_of(event)
            || self.head(record.entity())?.1 == event.position();
        Ok(if stays { Fate::Erase } else { Fate::Remove })
    }

    fn decided(&mut self, event: &Candidate<'_>, fate: Fate, freed: u64) {
        let (removed, erased) = match fate {
            Fate::Keep => return,
            Fate::Remove | Fate::Gone => (1, 0),
            Fate::Erase => (0, 1),
        };
        let tally = &mut self.tally;
        let record = &event.record;
        tally.removed += removed;
        tally.erased += erased;
        for (shares, name) in
            [(&mut tally.kinds, record.kind()), (&mut tally.scopes, record.scope_or_default())]
        {
            let share = match shares.get_mut(name) {
                Some(share) => share,
                None => shares.entry(name.to_owned()).or_default(),
            };
            share.removed += removed;
            share.erased += erased;
            share.bytes += freed;
        }
        self.note_unhandled(event);
    }

    fn advance(&mut self, bytes: u32) -> Result<(), Error> {
        self.throttle.advance(bytes)
    }
}
