//! What to append, put together and encoded on the caller's thread.
//!
//! Everything that costs time per byte happens here: encoding, hashing, the checksum. The writer
//! only copies the result.
//! Row: append.

mod salts;
mod scratch;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Instant, SystemTime};

use serde::Serialize;

use crate::codec;
use crate::commit::{KeyHash, Target};
use crate::condition::AppendCondition;
use crate::coordinate::{Coordinate, DEFAULT_SCOPE, KIND_BYTES_CAP, TAG_BYTES_CAP, check_name};
use crate::error::{Error, ErrorKind, FailedCondition};
use crate::event::{Cause, EventData, EventId, micros_of};
use crate::format::chain::{Hash, body_content};
use crate::format::record::{self, Fields, NewRecord};
use crate::format::{BODY_BYTES_MAX, aligned, checksum};
use crate::options::{Durability, Limits};
use crate::recorded::RecordedEvent;
use crate::version::{Expected, Position};

pub(crate) use salts::Salts;
use scratch::encode_apart;

/// One atomic append: one event or many, to one entity or several.
///
/// What is said before the first [`Append::event`] holds for every event; what is said after an
/// event holds for that event. The first error (a bad name, a value that does not encode) is kept
/// and comes out of [`Append::commit`], so the calls chain without `?`.
///
/// ```
/// use annals::{Append, Expected, Raw, Store};
///
/// let store = Store::in_memory()?;
/// let receipt = Append::to("account:alice")
///     .key("transfer-17")
///     .event(&Raw("account.withdrawn", &500))
///     .tag("transfer:17")
///     .and_to("account:bob")
///     .expect(Expected::NoStream)
///     .event(&Raw("account.opened", &()))
///     .event(&Raw("account.deposited", &500))
///     .commit(&store)?;
/// assert_eq!((receipt.position().get(), receipt.events()), (3, 3));
/// # Ok::<(), annals::Error>(())
/// ```
#[must_use = "an append does nothing until it is committed or submitted"]
pub struct Append {
    draft: Result<Draft, Error>,
}

struct Draft {
    targets: Vec<Target>,
    /// Where each entity stands among the targets; empty while they are few.
    target_by_entity: HashMap<Box<str>, usize>,
    /// The target and the scope of the events that follow.
    target: usize,
    scope: Option<String>,
    /// What was said before the first event.
    common: Option<Box<Attributes>>,
    events: Vec<NewEvent>,
    /// Kinds and payloads, one after the other.
    bytes: Vec<u8>,
    key: Option<KeyHash>,
    conditions: Option<Box<Conditions>>,
    durability: Option<Durability>,
}

struct NewEvent {
    target: usize,
    scope: Option<String>,
    kind: Range<usize>,
    schema_version: u16,
    payload: Range<usize>,
    attributes: Option<Box<Attributes>>,
}

#[derive(Clone, Default)]
struct Attributes {
    /// Each with its length before it.
    tags: Vec<u8>,
    tag_count: usize,
    metadata: Vec<u8>,
    correlation: Option<EventId>,
    cause: Option<Cause>,
    occurred_at: Option<i64>,
    foreign_id: Option<EventId>,
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
};

/// Room for an event of common size, so that its buffers need not grow.
const COMMON_BYTES: usize = 256;

impl Append {
    /// An append to an entity: `"account:alice"`, or `("account:alice", "tenant:acme")` with a scope.
    pub fn to<A>(address: A) -> Append
    where
        A: TryInto<Coordinate, Error: Into<Error>>,
    {
        let draft = Draft {
            targets: Vec::with_capacity(1),
            target_by_entity: HashMap::new(),
            target: 0,
            scope: None,
            common: None,
            events: Vec::with_capacity(1),
            bytes: Vec::with_capacity(COMMON_BYTES),
            key: None,
            conditions: None,
            durability: None,
        };
        Append { draft: Ok(draft) }.and_to(address)
    }

    /// Goes on with another entity, in the same atomic append.
    pub fn and_to<A>(self, address: A) -> Append
    where
        A: TryInto<Coordinate, Error: Into<Error>>,
    {
        self.with(|draft| {
            let (entity, scope) = address.try_into().map_err(Into::into)?.into_parts();
            draft.scope = scope;
            draft.target = draft.target(entity.into());
            Ok(())
        })
    }

    /// Adds an event to the entity named last.
    pub fn event<E: EventData + ?Sized>(self, event: &E) -> Append {
        self.with(|draft| {
            let kind = event.kind();
            check_name("kind", kind, KIND_BYTES_CAP)?;
            let start = draft.bytes.len();
            draft.bytes.extend_from_slice(kind.as_bytes());
            let kind = start..draft.bytes.len();
            encode_apart(event, &mut draft.bytes)?;
            draft.events.push(NewEvent {
                target: draft.target,
                scope: draft.scope.clone(),
                schema_version: event.schema_version(),
                payload: kind.end..draft.bytes.len(),
                kind,
                attributes: draft.common.clone(),
            });
            Ok(())
        })
    }

    /// Appends only if the stream of the entity named last is as expected (default:
    /// [`Expected::Any`]). Checked before any event of this append.
    pub fn expect(self, expected: impl Into<Expected>) -> Append {
        self.with(|draft| {
            draft.targets[draft.target].expected = expected.into();
            Ok(())
        })
    }

    /// Appends only if no event matches a query, or no new one; ask again for more, and all must hold.
    /// Looked at after the expectations, and just before the append goes in: of two appends that
    /// rule each other out one is refused, wherever they come from.
    pub fn condition(self, condition: AppendCondition) -> Append {
        self.with(|draft| {
            if condition.query.asks_correlation() {
                return Err(Error::invalid(
                    "a condition cannot ask for a correlation; ask for entities, scopes, kinds or tags",
                ));
            }
            draft.conditions.get_or_insert_default().all.push(condition);
            Ok(())
        })
    }

    /// Makes the append idempotent: while the key is remembered ([`KeyWindow`](crate::KeyWindow)),
    /// the same append with the same key is written once, and its receipt returned again. "Same"
    /// means everything the caller gave except metadata and durability. Keys are 1 byte or longer; 16 bytes of
    /// their BLAKE3 hash are stored.
    pub fn key(self, key: impl AsRef<[u8]>) -> Append {
        self.with(|draft| {
            if key.as_ref().is_empty() {
                return Err(Error::invalid("the idempotency key is empty; leave it out, or give one"));
            }
            draft.key = Some(crate::format::array(blake3::hash(key.as_ref()).as_bytes(), 0));
            Ok(())
        })
    }

    /// Labels the event (or all, before the first) with a tag, 1 to 255 bytes. Tags are indexed.
    pub fn tag(self, tag: impl AsRef<str>) -> Append {
        let tag = tag.as_ref();
        self.with_attributes(|attributes| {
            check_name("tag", tag, TAG_BYTES_CAP)?;
            if record::tags(&attributes.tags).all(|known| known != tag) {
                attributes.tags.push(u8::try_from(tag.len()).expect("checked against 255 bytes"));
                attributes.tags.extend_from_slice(tag.as_bytes());
                attributes.tag_count += 1;
            }
            Ok(())
        })
    }

    /// Keeps a value beside the payload: who asked, from where, a trace. It is not indexed, and it
    /// is erased with the payload.
    pub fn metadata<M: Serialize + ?Sized>(self, metadata: &M) -> Append {
        self.with_attributes(|attributes| {
            attributes.metadata.clear();
            codec::encode(metadata, &mut attributes.metadata).map_err(|error| {
                Error::with_source(
                    ErrorKind::Invalid,
                    format!("the metadata does not encode: {error}"),
                    error,
                )
            })
        })
    }

    /// Says what brought the event about.
    pub fn cause(self, cause: Cause) -> Append {
        self.with_attributes(|attributes| {
            attributes.cause = Some(cause);
            Ok(())
        })
    }

    /// Says that another event brought this about, and belongs to whatever that one belongs to.
    pub fn caused_by(self, event: &RecordedEvent) -> Append {
        self.cause(Cause::Event(event.id())).correlation(event.correlation())
    }

    /// Says what the event belongs to (default: the id of the append's first event).
    pub fn correlation(self, id: impl Into<EventId>) -> Append {
        self.with_attributes(|attributes| {
            attributes.correlation = Some(id.into());
            Ok(())
        })
    }

    /// Says when it happened (default: not said).
    pub fn occurred_at(self, time: SystemTime) -> Append {
        self.with_attributes(|attributes| {
            attributes.occurred_at = Some(micros_of(time));
            Ok(())
        })
    }

    /// Gives the event an id from elsewhere, for imports that keep theirs. It is not checked for
    /// being new; [`Store::get`](crate::Store::get) finds the first event that has it.
    pub fn foreign_id(self, id: impl Into<EventId>) -> Append {
        self.with_attributes(|attributes| {
            attributes.foreign_id = Some(id.into());
            Ok(())
        })
    }

    /// When this append is acknowledged (default: as the store was told).
    pub fn durability(self, durability: Durability) -> Append {
        self.with(|draft| {
            draft.durability = Some(durability);
            Ok(())
        })
    }

    fn with(mut self, change: impl FnOnce(&mut Draft) -> Result<(), Error>) -> Append {
        if let Ok(draft) = &mut self.draft
            && let Err(error) = change(draft)
        {
            self.draft = Err(error);
        }
        self
    }

    fn with_attributes(self, change: impl FnOnce(&mut Attributes) -> Result<(), Error>) -> Append {
        self.with(|draft| {
            let attributes = draft.events.last_mut().map_or(&mut draft.common, |event| &mut event.attributes);
            change(attributes.get_or_insert_default())
        })
    }

    /// Checks the whole append against the limits, and encodes it.
    pub(crate) fn encode(self, limits: &Limits, salts: &Salts) -> Result<Request, Error> {
        let draft = self.draft?;
        draft.check_targets_used()?;
        draft.check(limits)?;
        let mut body = Vec::with_capacity(draft.bytes.len() + 128 * draft.events.len());
        let mut contents = Vec::with_capacity(draft.events.len());
        for event in &draft.events {
            let start = body.len();
            draft.write(event, &mut body)?;
            let salt = record::salt_place(&body, start);
            salts.fill(&mut body[salt]);
            contents.push(record::content(&body[start..]));
        }
        body.resize(aligned(body.len()), 0);
        if body.len() > BODY_BYTES_MAX {
            return Err(Error::too_large("the append", body.len(), "the format", BODY_BYTES_MAX));
        }
        let target_of = match draft.targets.len() {
            1 => Vec::new(),
            _ => draft.events.iter().map(|event| narrow(event.target)).collect(),
        };
        Ok(Request {
            events: narrow(draft.events.len()),
            targets: draft.targets,
            target_of,
            key: draft.key,
            conditions: draft.conditions,
            durability: draft.durability,
            encoded_at: is_sample(&body).then(Instant::now),
            body_checksum: checksum(&[&body]),
            content: body_content(&contents),
            body,
        })
    }
}

/// One append in sixteen, by its first random byte.
fn is_sample(body: &[u8]) -> bool {
    body.get(record::salt_place(body, 0).start).is_some_and(|random| *random < 16)
}

/// Up to this many targets are searched one by one.
const FEW_TARGETS: usize = 16;

impl Draft {
    /// The target an entity is. Every target has one expectation, so an entity named again is the
    /// same target.
    fn target(&mut self, entity: Box<str>) -> usize {
        let known = match self.targets.len() {
            ..=FEW_TARGETS => self.targets.iter().position(|target| target.entity == entity),
            _ => self.target_by_entity.get(&entity).copied(),
        };
        known.unwrap_or_else(|| self.add_target(entity))
    }

    fn add_target(&mut self, entity: Box<str>) -> usize {
        self.targets.push(Target { entity, expected: Expected::Any });
        if self.targets.len() > FEW_TARGETS {
            for at in self.target_by_entity.len()..self.targets.len() {
                self.target_by_entity.insert(self.targets[at].entity.clone(), at);
            }
        }
        self.targets.len() - 1
    }

    /// An entity that got no event is still checked if something was expected of it; without
    /// either it was named for nothing.
    fn check_targets_used(&self) -> Result<(), Error> {
        if self.targets.len() == 1 && !self.events.is_empty() {
            return Ok(());
        }
        let mut used = vec![false; self.targets.len()];
        self.events.iter().for_each(|event| used[event.target] = true);
        match (0..used.len()).find(|at| !used[*at] && self.targets[*at].expected == Expected::Any) {
            _ if self.events.is_empty() => Err(Error::invalid("the append has no event; add one")),
            Some(at) => Err(Error::invalid(format!(
                "{} gets no event in this append; add one",
                self.targets[at].entity
            ))),
            None => Ok(()),
        }
    }

    fn check(&self, limits: &Limits) -> Result<(), Error> {
        let over = |what: &str, size: usize, limit: &str, max: usize| {
            if size > max { Err(Error::too_large(what, size, limit, max)) } else { Ok(()) }
        };
        let count = self.events.len().max(self.targets.len());
        if count > limits.events_per_append_max {
            let max = limits.events_per_append_max;
            let text = format!(
                "the append has {count} events, more than the {max} that events_per_append_max allows"
            );
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        for target in &self.targets {
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
            Some(Cause::InAppend(index)) if usize::from(index) >= self.events.len() => Err(Error::invalid(
                format!("the cause is event {index} of an append that has {}", self.events.len()),
            )),
            _ => Ok(()),
        }
    }

    fn write(&self, event: &NewEvent, body: &mut Vec<u8>) -> Result<(), Error> {
        let attributes = event.attributes();
        let new = NewRecord {
            fields: Fields {
                schema_version: event.schema_version,
                entity: &self.targets[event.target].entity,
                scope: event.scope.as_deref().filter(|scope| *scope != DEFAULT_SCOPE).unwrap_or_default(),
                kind: std::str::from_utf8(&self.bytes[event.kind.clone()]).expect("a kind is a string"),
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

impl NewEvent {
    fn attributes(&self) -> &Attributes {
        self.attributes.as_deref().unwrap_or(NO_ATTRIBUTES)
    }
}

/// Events and targets were checked against `events_per_append_max`.
fn narrow(count: usize) -> u16 {
    u16::try_from(count).expect("checked against 65,535")
}

/// What must still hold when an append is decided.
#[derive(Default)]
pub(crate) struct Conditions {
    pub(crate) all: Vec<AppendCondition>,
    /// Up to where the caller has looked at them, and what it found.
    pub(crate) resolved: Position,
    pub(crate) unmet: Option<FailedCondition>,
}

/// An append, encoded: what the writer gets.
pub(crate) struct Request {
    pub(crate) targets: Vec<Target>,
    /// The target of each event; empty if there is only one target.
    pub(crate) target_of: Vec<u16>,
    pub(crate) events: u16,
    pub(crate) key: Option<KeyHash>,
    /// Most appends have none.
    pub(crate) conditions: Option<Box<Conditions>>,
    pub(crate) durability: Option<Durability>,
    /// When it was encoded, of some: a look at the clock costs as much as a good part of encoding.
    pub(crate) encoded_at: Option<Instant>,
    pub(crate) body: Vec<u8>,
    pub(crate) body_checksum: u32,
    pub(crate) content: Hash,
}
