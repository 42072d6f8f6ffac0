//! What an append is while it is put together: names, payloads, and what belongs to each event.
//!
//! Row: append.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::engine::decide::{KeyHash, StreamHead, Target};
use crate::format::{Fields, Hash, NewRecord, record};
use crate::types::{
    Cause, DEFAULT_SCOPE, Durability, Error, ErrorKind, EventData, EventId, Expected, Limits, Position,
    is_system,
};

use super::proposed::ForGates;
use super::scratch::encode_apart;
use super::{Brought, Command, Conditions};

pub(crate) struct Draft {
    pub(super) targets: Vec<Target>,
    /// Where each entity stands among the targets; empty while they are few.
    pub(super) target_by_entity: HashMap<Box<str>, usize>,
    /// The target and the scope of the events that follow.
    pub(super) target: usize,
    pub(super) scope: Option<String>,
    /// What was said before the first event.
    pub(super) common: Option<Box<Attributes>>,
    /// The store's own event that stands before all others: what a reaction is told by.
    pub(super) lead: Option<Box<NewEvent>>,
    pub(super) events: Vec<NewEvent>,
    /// The store's own, which stand behind all others: no index within the append counts them.
    pub(super) system: Vec<NewEvent>,
    /// Kinds and payloads, one after the other.
    pub(super) bytes: Vec<u8>,
    pub(super) key: Option<KeyHash>,
    pub(super) command: Option<Command>,
    pub(super) conditions: Option<Box<Conditions>>,
    pub(super) durability: Option<Durability>,
    /// Most appends say nothing to gates.
    pub(super) for_gates: Option<Box<ForGates>>,
    /// How many events at the end were added by gates.
    pub(super) remarks: u16,
}

pub(super) struct NewEvent {
    pub(super) target: usize,
    pub(super) scope: Option<String>,
    pub(super) kind: Range<usize>,
    pub(super) schema_version: u16,
    pub(super) payload: Range<usize>,
    /// Whether it occurs when it is handed over, by the store's clock: a timer counts from there.
    pub(super) is_timed: bool,
    pub(super) attributes: Option<Box<Attributes>>,
}

#[derive(Clone, Default)]
pub(super) struct Attributes {
    /// Each with its length before it.
    pub(super) tags: Vec<u8>,
    pub(super) tag_count: usize,
    pub(super) metadata: Vec<u8>,
    pub(super) correlation: Option<EventId>,
    pub(super) cause: Option<Cause>,
    pub(super) occurred_at: Option<i64>,
    pub(super) foreign_id: Option<EventId>,
    /// Of an event that comes from elsewhere and was erased there: the hash of what it held.
    pub(super) erased: Option<Hash>,
}

/// What most events have.
const NO_ATTRIBUTES: &Attributes = &Attributes {
    tags: Vec::new(),
    tag_count: 0,
    metadata: Vec::new(),
    correlation: None,
    cause: None,
    occurred_at: None,
    foreign_id: None,
    erased: None,
};

/// Up to this many targets are searched one by one.
const FEW_TARGETS: usize = 16;

/// Room for an event of common size, so that its buffers need not grow.
const COMMON_BYTES: usize = 256;

impl Draft {
    pub(super) fn new() -> Draft {
        Draft {
            targets: Vec::with_capacity(1),
            target_by_entity: HashMap::new(),
            target: 0,
            scope: None,
            common: None,
            lead: None,
            events: Vec::with_capacity(1),
            system: Vec::new(),
            bytes: Vec::with_capacity(COMMON_BYTES),
            key: None,
            command: None,
            conditions: None,
            durability: None,
            for_gates: None,
            remarks: 0,
        }
    }

    /// Encodes an event for a target. Its kind was asked for once, and checked: another answer would not be.
    pub(super) fn encoded<E: EventData + ?Sized>(
        &mut self,
        target: usize,
        kind: &str,
        event: &E,
    ) -> Result<NewEvent, Error> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(kind.as_bytes());
        let kind = start..self.bytes.len();
        encode_apart(event, &mut self.bytes)?;
        Ok(NewEvent {
            target,
            scope: None,
            schema_version: event.schema_version(),
            payload: kind.end..self.bytes.len(),
            kind,
            is_timed: false,
            attributes: None,
        })
    }

    /// Every event, in the order in which they are written.
    pub(super) fn all(&self) -> impl Iterator<Item = &NewEvent> + Clone {
        self.lead.as_deref().into_iter().chain(&self.events).chain(&self.system)
    }

    /// How many there are before the store's own at the end: what an index within the append may name.
    pub(super) fn numbered(&self) -> usize {
        usize::from(self.lead.is_some()) + self.events.len()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.numbered() + self.system.len()
    }

    /// The target an entity is. Every target has one expectation, so an entity named again is the
    /// same target.
    pub(super) fn target(&mut self, entity: Box<str>) -> usize {
        let known = match self.targets.len() {
            ..=FEW_TARGETS => self.targets.iter().position(|target| target.entity == entity),
            _ => self.target_by_entity.get(&entity).copied(),
        };
        known.unwrap_or_else(|| self.add_target(entity))
    }

    fn add_target(&mut self, entity: Box<str>) -> usize {
        self.targets.push(Target { entity, expected: Expected::Any, head: StreamHead::default() });
        if self.targets.len() > FEW_TARGETS {
            for at in self.target_by_entity.len()..self.targets.len() {
                self.target_by_entity.insert(self.targets[at].entity.clone(), at);
            }
        }
        self.targets.len() - 1
    }

    /// An entity that got no event is still checked if something was expected of it; without
    /// either it was named for nothing.
    pub(super) fn check_targets_used(&self) -> Result<(), Error> {
        if self.targets.len() == 1 && self.count() > 0 {
            return Ok(());
        }
        let mut used = vec![false; self.targets.len()];
        self.all().for_each(|event| used[event.target] = true);
        match (0..used.len()).find(|at| !used[*at] && self.targets[*at].expected == Expected::Any) {
            _ if self.count() == 0 => Err(Error::invalid("the append has no event; add one")),
            Some(at) => Err(Error::invalid(format!(
                "{} gets no event in this append; add one",
                self.targets[at].entity
            ))),
            None => Ok(()),
        }
    }

    pub(super) fn check(&self, limits: &Limits) -> Result<(), Error> {
        let over = |what: &str, size: usize, limit: &str, max: usize| {
            if size > max { Err(Error::too_large(what, size, limit, max)) } else { Ok(()) }
        };
        let count = self.count().max(self.targets.len());
        if count > limits.events_per_append_max {
            let max = limits.events_per_append_max;
            let text = format!(
                "the append has {count} events, more than the {max} that events_per_append_max allows"
            );
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        // What the store itself appends must not fail for a limit that was set for others.
        for target in self.targets.iter().filter(|target| !is_system(&target.entity)) {
            over("the entity", target.entity.len(), "entity_bytes_max", limits.entity_bytes_max)?;
        }
        for event in &self.events {
            let attributes = event.attributes();
            over(
                "the scope",
                event.scope.as_deref().map_or(0, str::len),
                "scope_bytes_max",
                limits.scope_bytes_max,
            )?;
            over("the kind", event.kind.len(), "kind_bytes_max", limits.kind_bytes_max)?;
            for tag in record::tags(&attributes.tags) {
                over("a tag", tag.len(), "tag_bytes_max", limits.tag_bytes_max)?;
            }
            if attributes.tag_count > limits.tags_max {
                let text = format!(
                    "the event has {} tags, more than the {} that tags_max allows",
                    attributes.tag_count, limits.tags_max
                );
                return Err(Error::new(ErrorKind::TooLarge, text));
            }
            let private = event.payload.len() + attributes.metadata.len();
            over("the payload", private, "payload_bytes_max", limits.payload_bytes_max)?;
            self.check_cause(event)?;
        }
        Ok(())
    }

    fn check_cause(&self, event: &NewEvent) -> Result<(), Error> {
        match event.attributes().cause {
            Some(Cause::InAppend(index)) if usize::from(index) >= self.numbered() => Err(Error::invalid(
                format!("the cause is event {index} of an append that has {}", self.numbered()),
            )),
            _ => Ok(()),
        }
    }

    /// The command that is told by the key.
    pub(super) fn command_of_key(&self) -> Result<Option<(KeyHash, Command)>, Error> {
        match (self.key, self.command) {
            (None, Some(_)) => {
                Err(Error::invalid("the append has a command and no idempotency key; give it a key, too"))
            }
            (key, command) => Ok(key.zip(command)),
        }
    }

    /// The ids that events bring along; `None` if they bring none.
    pub(super) fn brought(&self) -> Result<Option<Box<Brought>>, Error> {
        let ids = self.all().map(|event| event.attributes().foreign_id).zip(0..);
        let ids: Vec<(u16, EventId)> = ids.filter_map(|(id, index)| Some((index, id?))).collect();
        let mut known = HashSet::with_capacity(ids.len());
        match ids.iter().find(|(_, id)| !known.insert(*id)) {
            Some((_, id)) => Err(Error::invalid(format!(
                "two events of the append bring the id {id} along; an id names one event, so give one of them another"
            ))),
            None if ids.is_empty() => Ok(None),
            None => Ok(Some(Box::new(Brought { ids, resolved: Position::START, taken: None }))),
        }
    }

    pub(super) fn kind(&self, event: &NewEvent) -> &str {
        std::str::from_utf8(&self.bytes[event.kind.clone()]).expect("a kind is a string")
    }

    pub(super) fn write(&self, event: &NewEvent, body: &mut Vec<u8>) -> Result<(), Error> {
        let attributes = event.attributes();
        let new = NewRecord {
            fields: Fields {
                schema_version: event.schema_version,
                entity: &self.targets[event.target].entity,
                scope: event.scope.as_deref().filter(|scope| *scope != DEFAULT_SCOPE).unwrap_or_default(),
                kind: self.kind(event),
                tag_bytes: &attributes.tags,
                correlation: attributes.correlation,
                occurred_at: attributes.occurred_at,
                foreign_id: attributes.foreign_id,
                cause: attributes.cause,
                has_metadata: !attributes.metadata.is_empty(),
            },
            metadata: &attributes.metadata,
            payload: &self.bytes[event.payload.clone()],
        };
        record::write(body, &new)
            .map_err(|long| Error::too_large(long.what, long.bytes, "the format", long.max))
    }
}

impl Draft {
    /// Whether it has events of the store's own.
    pub(crate) fn has_system_events(&self) -> bool {
        !self.system.is_empty()
    }

    /// Whether it asks for anything that is looked at when it is decided.
    pub(crate) fn is_conditional(&self) -> bool {
        let expects = |target: &Target| target.expected != Expected::Any;
        self.key.is_some() || self.conditions.is_some() || self.targets.iter().any(expects)
    }
}

impl NewEvent {
    pub(super) fn attributes(&self) -> &Attributes {
        self.attributes.as_deref().unwrap_or(NO_ATTRIBUTES)
    }
}

/// Events and targets were checked against `events_per_append_max`.
pub(super) fn narrow(count: usize) -> u16 {
    u16::try_from(count).expect("checked against 65,535")
}
