//! An append while its caller builds it: streams, events, attributes, and the key that names the append.
//!
//! An event is encoded when it is added; names and sizes are checked by encode.rs.
//!
//! The trace of a command stands beside the key. The private part of a record begins with 16 salt bytes. In
//! an append with a key and a command, ten of them are random, and six follow from these ten, the key and the
//! command. So the trace costs no room, cannot be told from random bytes, and disappears when the record is
//! erased.

use std::any::Any;
use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Range;

use serde::Serialize;

use crate::engine::decide::{KeyHash, StreamHead, StreamTarget};
use crate::event::codec;
use crate::format::{Hash, Record, SALT, array};
use crate::types::{
    AppendCondition, Cause, Durability, Error, ErrorKind, EventData, EventId, Expected, FailedCondition,
    Position,
};

/// An append that is being built.
pub(crate) struct AppendDraft {
    pub(super) targets: Vec<StreamTarget>,
    /// The index of each entity's target; empty while the targets are few.
    pub(super) target_by_entity: HashMap<Box<str>, usize>,
    /// The target of the next event.
    pub(super) target: usize,
    /// The scope of the next event.
    pub(super) scope: Option<String>,
    /// Attributes that were given before the first event; every event gets them.
    pub(super) common: Option<Box<Attributes>>,
    /// A system event before all others: the checkpoint of a reaction.
    pub(super) lead: Option<Box<NewEvent>>,
    pub(super) events: Vec<NewEvent>,
    /// System events after all others. Indices within the append do not count them.
    pub(super) system: Vec<NewEvent>,
    /// The kinds and payloads of all events, one after the other.
    pub(super) bytes: Vec<u8>,
    pub(super) key: Option<KeyHash>,
    pub(super) command: Option<CommandHash>,
    pub(super) conditions: Option<Box<Conditions>>,
    pub(super) durability: Option<Durability>,
    /// `None` for most appends.
    pub(super) for_gates: Option<Box<ForGates>>,
    /// How many events at the end record that gates were bypassed.
    pub(super) bypass_events: u16,
}

/// The conditions that must hold when the append is decided.
#[derive(Default)]
pub(crate) struct Conditions {
    pub(crate) all: Vec<AppendCondition>,
    /// The position up to which the caller looked for matches.
    pub(crate) looked_up_to: Position,
    /// The first condition that does not hold there.
    pub(crate) violated: Option<FailedCondition>,
}

/// What a caller says to gates. It is not stored.
#[derive(Default)]
pub(super) struct ForGates {
    pub(super) contexts: Vec<Box<dyn Any + Send + Sync>>,
    pub(super) bypass: Option<String>,
}

/// An event of the append, with its place in [`AppendDraft::bytes`].
pub(super) struct NewEvent {
    pub(super) target: usize,
    pub(super) scope: Option<String>,
    pub(super) kind: Range<usize>,
    pub(super) schema_version: u16,
    pub(super) payload: Range<usize>,
    /// Whether the event occurs when the append is handed over, by the store's clock. A timer counts from
    /// there.
    pub(super) is_timed: bool,
    pub(super) attributes: Option<Box<Attributes>>,
}

/// What an event says beside its payload.
#[derive(Clone, Default)]
pub(super) struct Attributes {
    /// Each tag with its length before it.
    pub(super) tags: Vec<u8>,
    pub(super) tag_count: usize,
    pub(super) metadata: Vec<u8>,
    pub(super) correlation: Option<EventId>,
    pub(super) cause: Option<Cause>,
    pub(super) occurred_at: Option<i64>,
    pub(super) foreign_id: Option<EventId>,
    /// The hash of the private part, for an imported event that was erased where it comes from.
    pub(super) erased: Option<Hash>,
}

/// The attributes of most events.
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

/// Up to this many targets, a linear search finds an entity.
const FEW_TARGETS: usize = 16;

/// Fits an event of common size, so that the buffer need not grow.
const COMMON_BYTES: usize = 256;

impl AppendDraft {
    pub(super) fn new() -> AppendDraft {
        AppendDraft {
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
            bypass_events: 0,
        }
    }

    /// Encodes an event for a target. The caller asks the event for its kind once, checks it, and passes it
    /// on: a second answer could differ.
    pub(super) fn encode_event<E: EventData + ?Sized>(
        &mut self,
        target: usize,
        kind: &str,
        event: &E,
    ) -> Result<NewEvent, Error> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(kind.as_bytes());
        let kind = start..self.bytes.len();
        encode_into(event, &mut self.bytes)?;
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

    /// How many events an index within the append may name: all but the system events at the end.
    pub(super) fn numbered(&self) -> usize {
        usize::from(self.lead.is_some()) + self.events.len()
    }

    /// How many events there are.
    pub(super) fn count(&self) -> usize {
        self.numbered() + self.system.len()
    }

    /// The index of the entity's target, which is added if there is none. An entity that is named again keeps
    /// its target, so every stream has one expectation.
    pub(super) fn target(&mut self, entity: Box<str>) -> usize {
        let known = match self.targets.len() {
            ..=FEW_TARGETS => self.targets.iter().position(|target| target.entity == entity),
            _ => self.target_by_entity.get(&entity).copied(),
        };
        known.unwrap_or_else(|| self.add_target(entity))
    }

    fn add_target(&mut self, entity: Box<str>) -> usize {
        self.targets.push(StreamTarget { entity, expected: Expected::Any, head: StreamHead::default() });
        if self.targets.len() > FEW_TARGETS {
            for at in self.target_by_entity.len()..self.targets.len() {
                self.target_by_entity.insert(self.targets[at].entity.clone(), at);
            }
        }
        self.targets.len() - 1
    }

    /// Adds another draft behind this one. Each stream has one expectation, checked before the first event of
    /// both.
    ///
    /// # Errors
    ///
    /// If the other has a key or a durability, which hold for one append only; if expectations differ.
    pub(super) fn absorb(&mut self, other: AppendDraft) -> Result<(), Error> {
        if other.key.is_some() || other.command.is_some() {
            return Err(Error::invalid(
                "one of several appends that become one has an idempotency key; leave it out",
            ));
        }
        if other.durability.is_some() {
            return Err(Error::invalid(
                "one of several appends that become one asks for a durability; leave it out",
            ));
        }
        let mut targets = Vec::with_capacity(other.targets.len());
        for target in other.targets {
            targets.push(self.expect_also(target.entity, target.expected)?);
        }
        let bytes_before = self.bytes.len();
        let events_before = self.numbered();
        self.bytes.extend_from_slice(&other.bytes);
        for mut event in other.events {
            event.target = targets[event.target];
            event.shift(bytes_before, events_before);
            self.events.push(event);
        }
        for mut event in other.system {
            event.target = targets[event.target];
            event.shift(bytes_before, events_before);
            self.system.push(event);
        }
        if let Some(conditions) = other.conditions {
            self.conditions.get_or_insert_default().all.extend(conditions.all);
        }
        if let Some(for_gates) = other.for_gates {
            let own = self.for_gates.get_or_insert_default();
            own.contexts.extend(for_gates.contexts);
            // One reason to bypass the gates holds for the whole append: the first.
            own.bypass = own.bypass.take().or(for_gates.bypass);
        }
        Ok(())
    }

    /// The entity's target, with one more expectation.
    fn expect_also(&mut self, entity: Box<str>, expected: Expected) -> Result<usize, Error> {
        let at = self.target(entity);
        let target = &mut self.targets[at];
        if target.expected == Expected::Any {
            target.expected = expected;
        } else if expected != Expected::Any && expected != target.expected {
            return Err(Error::invalid(format!(
                "{} is expected at {} and at {expected} in one append; both are checked before its first event",
                target.entity, target.expected
            )));
        }
        Ok(at)
    }

    pub(super) fn kind(&self, event: &NewEvent) -> &str {
        std::str::from_utf8(&self.bytes[event.kind.clone()]).expect("a kind is a string")
    }

    /// Whether it has system events.
    pub(crate) fn has_system_events(&self) -> bool {
        !self.system.is_empty()
    }

    /// Whether it has a key, a condition or an expectation.
    pub(crate) fn is_conditional(&self) -> bool {
        let expects = |target: &StreamTarget| target.expected != Expected::Any;
        self.key.is_some() || self.conditions.is_some() || self.targets.iter().any(expects)
    }
}

impl NewEvent {
    pub(super) fn attributes(&self) -> &Attributes {
        self.attributes.as_deref().unwrap_or(NO_ATTRIBUTES)
    }

    /// Moves the event behind this many bytes and events of another draft.
    fn shift(&mut self, bytes: usize, events: usize) {
        for range in [&mut self.kind, &mut self.payload] {
            *range = range.start + bytes..range.end + bytes;
        }
        if let Some(attributes) = &mut self.attributes
            && let Some(Cause::InAppend(index)) = &mut attributes.cause
        {
            // An index past the last one is refused later; it must not wrap around to a valid one.
            *index = u16::try_from(usize::from(*index).saturating_add(events)).unwrap_or(u16::MAX);
        }
    }
}

thread_local! {
    /// The buffer for a user's `encode`. Taking memory for each event would cost a good part of encoding.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A thread keeps a scratch buffer of at most this size.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

/// Encodes an event into a buffer of its own, and appends its payload to `out`.
///
/// A user's `encode` may do anything to the buffer it gets, so that must not be `out`. An `encode` that
/// builds an append itself gets another buffer, and so does one that runs while its thread ends.
fn encode_into<E: EventData + ?Sized>(event: &E, out: &mut Vec<u8>) -> Result<(), Error> {
    let mut scratch = SCRATCH.try_with(Cell::take).unwrap_or_default();
    scratch.clear();
    event.encode(&mut scratch)?;
    out.extend_from_slice(&scratch);
    if scratch.capacity() <= SCRATCH_BYTES_MAX {
        let _ = SCRATCH.try_with(|kept| kept.set(scratch));
    }
    Ok(())
}

/// How many bytes of the salt are random beside a trace.
const RANDOM_BYTES: usize = 10;

/// What identifies an append that may have been made before.
#[derive(Clone, Copy)]
pub(crate) struct Keyed {
    pub(crate) key: KeyHash,
    pub(crate) command: Option<CommandHash>,
    /// How durable the earlier append must be before the caller hears of it.
    pub(crate) durability: Option<Durability>,
}

impl Keyed {
    pub(crate) fn by(key: &[u8]) -> Result<Keyed, Error> {
        if key.is_empty() {
            return Err(Error::invalid("the idempotency key is empty; leave it out, or give one"));
        }
        let key = array(blake3::hash(key).as_bytes(), 0);
        Ok(Keyed { key, command: None, durability: None })
    }

    /// The same key, for this command only.
    pub(crate) fn and_by<C: Serialize + ?Sized>(self, command: &C) -> Result<Keyed, Error> {
        Ok(Keyed { command: Some(CommandHash::of(command)?), ..self })
    }
}

/// The hash of a command's encoded form.
#[derive(Clone, Copy)]
pub(crate) struct CommandHash([u8; 32]);

impl CommandHash {
    pub(crate) fn of<C: Serialize + ?Sized>(command: &C) -> Result<CommandHash, Error> {
        let mut bytes = Vec::new();
        codec::encode(command, &mut bytes).map_err(|error| {
            Error::with_source(ErrorKind::Invalid, format!("the command does not encode: {error}"), error)
        })?;
        Ok(CommandHash(*blake3::hash(&bytes).as_bytes()))
    }

    /// Puts the trace of this command into a random salt.
    pub(super) fn sign(&self, key: &KeyHash, salt: &mut [u8]) {
        let (random, signature) = salt.split_at_mut(RANDOM_BYTES);
        signature.copy_from_slice(&self.signature(key, random)[..SALT - RANDOM_BYTES]);
    }

    /// Whether an append with this key may carry out this command; `first` is its first record. After
    /// erasure, every command may.
    pub(crate) fn may_be_of(&self, key: &KeyHash, first: &Record<'_>) -> bool {
        let Some(salt) = first.salt() else { return true };
        let (random, signature) = salt.split_at(RANDOM_BYTES);
        self.signature(key, random)[..SALT - RANDOM_BYTES] == *signature
    }

    fn signature(&self, key: &KeyHash, random: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(random).update(key);
        *hasher.finalize().as_bytes()
    }
}
