//! What to append, put together and encoded on the caller's thread.
//!
//! Everything that costs time per byte happens here: encoding, hashing, the checksum. The writer
//! only copies the result.
//! Row: append.

mod caller;
mod command;
mod draft;
mod merge;
mod proposed;
mod salts;
mod scratch;
#[cfg(test)]
mod tests;

use std::time::{Instant, SystemTime};

use serde::Serialize;

use crate::engine::decide::{KeyHash, Known, Target};
use crate::event::{RecordedEvent, codec};
use crate::format::{BODY_BYTES_MAX, Hash, aligned, body_content, checksum, record};
use crate::types::{
    AppendCondition, Cause, ClockFn, Coordinate, Durability, Error, ErrorKind, EventData, EventId, Expected,
    FailedCondition, KIND_BYTES_CAP, Limits, Position, SYSTEM_SCOPE, TAG_BYTES_CAP, check_name, micros_of,
    options,
};

pub(crate) use caller::Caller;
pub(crate) use command::Command;
pub(crate) use draft::Draft;
use draft::{Attributes, NewEvent, narrow};
pub(crate) use proposed::Keyed;
pub use proposed::{Proposed, ProposedEvent};
pub(crate) use salts::Salts;

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

impl Append {
    /// An append to an entity: `"account:alice"`, or `("account:alice", "tenant:acme")` with a scope.
    pub fn to<A>(address: A) -> Append
    where
        A: TryInto<Coordinate, Error: Into<Error>>,
    {
        Append::empty().and_to(address)
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
            let (scope, attributes) = (draft.scope.clone(), draft.common.clone());
            let new = draft.encoded(draft.target, kind, event)?;
            draft.events.push(NewEvent { scope, attributes, ..new });
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
            condition.check()?;
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
            draft.key = Some(Keyed::by(key.as_ref())?.key);
            Ok(())
        })
    }

    /// Says which command is carried out, where the events follow from more than that: if the key comes
    /// again, the command must be the same, or it is [`ErrorKind::KeyReused`]. Needs a [`Append::key`].
    ///
    /// For [`Store::execute_with`](crate::Store::execute_with), which answers by a known key without deciding
    /// again. The command is compared as it serializes, so it must do so alike each time (a `HashMap` does
    /// not). A trace of it is stored that takes no room, cannot be read, and goes when the first event is
    /// erased: then any command counts as the same.
    ///
    /// ```
    /// use annals::{Append, ErrorKind, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// let withdraw = |cents: u64| {
    ///     let append = Append::to("account:alice").key("req-17").command(&("withdraw", cents));
    ///     append.event(&Raw("account.frozen", &())).commit(&store)
    /// };
    /// withdraw(500)?;
    /// assert!(withdraw(500)?.replayed());
    /// assert_eq!(withdraw(700).unwrap_err().kind(), ErrorKind::KeyReused);
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn command<C: Serialize + ?Sized>(self, command: &C) -> Append {
        self.with(|draft| {
            draft.command = Some(Command::of(command)?);
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
    /// is erased with the payload. What serde cannot read back as any type is refused, as of a [`Raw`](crate::Raw).
    pub fn metadata<M: Serialize + ?Sized>(self, metadata: &M) -> Append {
        self.with_attributes(|attributes| {
            attributes.metadata.clear();
            codec::encode_for_any(metadata, &mut attributes.metadata).map_err(|error| {
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

    /// Gives the event an id from elsewhere, for imports that keep theirs: [`RecordedEvent::id`] shows it,
    /// and everything that takes an id finds the event by it.
    ///
    /// An id names one event. If one of the store has it, or another one of this append, the append is
    /// [`ErrorKind::Invalid`], and nothing is written. So what comes twice from elsewhere goes in once. To
    /// find out costs a look at the filter of each segment.
    pub fn foreign_id(self, id: impl Into<EventId>) -> Append {
        self.with_attributes(|attributes| {
            attributes.foreign_id = Some(id.into());
            Ok(())
        })
    }

    /// Metadata that was encoded before; none if there are no bytes.
    #[cfg(feature = "jsonl")]
    pub(crate) fn encoded_metadata(self, metadata: Vec<u8>) -> Append {
        self.with_attributes(|attributes| {
            attributes.metadata = metadata;
            Ok(())
        })
    }

    /// Says that the event was erased where it comes from, and what its private part's hash was.
    #[cfg(feature = "jsonl")]
    pub(crate) fn erased(self, hash: Hash) -> Append {
        self.with_attributes(|attributes| {
            attributes.erased = Some(hash);
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

    /// Adds an event of the store's own: to an entity, of a kind, that begin with `$`.
    pub(crate) fn system_event<E: EventData>(self, entity: &str, expected: Expected, event: &E) -> Append {
        self.with(|draft| {
            let target = draft.target(entity.into());
            draft.targets[target].expected = expected;
            let new = draft.encoded(target, event.kind(), event)?;
            draft.system.push(NewEvent { scope: Some(SYSTEM_SCOPE.to_owned()), ..new });
            Ok(())
        })
    }

    /// Of the event of the store's own that was added last: it occurs when the append is handed over, by the
    /// store's clock.
    pub(crate) fn timed(self) -> Append {
        self.with(|draft| {
            draft.system.iter_mut().last().into_iter().for_each(|event| event.is_timed = true);
            Ok(())
        })
    }

    /// It is handed over now.
    pub(crate) fn at(self, clock: &ClockFn) -> Append {
        self.with(|draft| {
            if !draft.system.iter().any(|event| event.is_timed) {
                return Ok(());
            }
            let now = i64::try_from(options::read(clock)).unwrap_or(i64::MAX);
            for event in draft.system.iter_mut().filter(|event| event.is_timed) {
                event.attributes.get_or_insert_default().occurred_at = Some(now);
            }
            Ok(())
        })
    }

    /// An append that begins with an event of the store's own, for others to be added to.
    pub(crate) fn led_by<E: EventData>(entity: &str, expected: Expected, event: &E) -> Append {
        Append::empty().with(|draft| {
            let target = draft.target(entity.into());
            draft.targets[target].expected = expected;
            let lead = draft.encoded(target, event.kind(), event)?;
            draft.lead = Some(Box::new(NewEvent { scope: Some(SYSTEM_SCOPE.to_owned()), ..lead }));
            Ok(())
        })
    }

    /// An append of the store's own.
    pub(crate) fn of_system<E: EventData>(entity: &str, expected: Expected, event: &E) -> Append {
        Append::empty().system_event(entity, expected, event)
    }

    /// What it is so far.
    pub(crate) fn draft(&self) -> Result<&Draft, Error> {
        self.draft.as_ref().map_err(Error::clone)
    }

    /// Goes on with an error, unless there was one before.
    pub(crate) fn and_failed(self, error: Error) -> Append {
        self.with(|_| Err(error))
    }

    /// Says of every event that says nothing else that another one brought it about, and that it belongs to
    /// whatever that one belongs to.
    pub(crate) fn inherit(self, from: &RecordedEvent) -> Append {
        self.belonging(Some(Cause::Event(from.id())), Some(from.correlation()))
    }

    /// Says of every event that says nothing else what brought it about, and what it belongs to.
    pub(crate) fn belonging(self, cause: Option<Cause>, correlation: Option<EventId>) -> Append {
        self.with(|draft| {
            for event in draft.events.iter_mut().chain(&mut draft.system) {
                let attributes = event.attributes.get_or_insert_default();
                attributes.cause = attributes.cause.or(cause);
                attributes.correlation = attributes.correlation.or(correlation);
            }
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
        let command = draft.command_of_key()?;
        let mut body = Vec::with_capacity(draft.bytes.len() + 128 * draft.count());
        let mut contents = Vec::with_capacity(draft.count());
        for event in draft.all() {
            let start = body.len();
            draft.write(event, &mut body)?;
            let command = command.as_ref().filter(|_| start == 0);
            contents.push(seal_record(event, &mut body, start, salts, command));
        }
        body.resize(aligned(body.len()), 0);
        if body.len() > BODY_BYTES_MAX {
            return Err(Error::too_large("the append", body.len(), "the format", BODY_BYTES_MAX));
        }
        let brought = draft.brought()?;
        let target_of = match draft.targets.len() {
            1 => Vec::new(),
            _ => draft.all().map(|event| narrow(event.target)).collect(),
        };
        Ok(Request {
            events: narrow(draft.count()),
            system_events: narrow(draft.system.len()),
            remarks: draft.remarks,
            targets: draft.targets,
            target_of,
            key: draft.key,
            command: draft.command,
            known: Known::default(),
            conditions: draft.conditions,
            durability: draft.durability,
            caller: None,
            encoded_at: is_sample(&body).then(Instant::now),
            brought,
            body_checksum: checksum(&[&body]),
            content: body_content(&contents),
            body,
        })
    }
}

/// Fills in what the record that was written at `start` begins its private part with, and says what the chain takes of it.
fn seal_record(
    event: &NewEvent,
    body: &mut Vec<u8>,
    start: usize,
    salts: &Salts,
    command: Option<&(KeyHash, Command)>,
) -> Hash {
    if let Some(hash) = &event.attributes().erased {
        record::leave_hash(body, start, hash);
        return record::read(body, start).expect("written just before").content();
    }
    let salt = record::salt_place(body, start);
    salts.fill(&mut body[salt.clone()]);
    if let Some((key, command)) = command {
        command.sign(key, &mut body[salt]);
    }
    record::content(&body[start..])
}

/// One append in sixteen, by its first random byte.
fn is_sample(body: &[u8]) -> bool {
    body.get(record::salt_place(body, 0).start).is_some_and(|random| *random < 16)
}

/// What must still hold when an append is decided.
#[derive(Default)]
pub(crate) struct Conditions {
    pub(crate) all: Vec<AppendCondition>,
    /// Up to where the caller has looked at them, and what it found.
    pub(crate) resolved: Position,
    pub(crate) unmet: Option<FailedCondition>,
}

/// The ids that events bring along, of which no other event may have one.
pub(crate) struct Brought {
    /// Each with the index of its event, in their order.
    pub(crate) ids: Vec<(u16, EventId)>,
    /// Up to where the caller has looked for them, and what it found.
    pub(crate) resolved: Position,
    pub(crate) taken: Option<(EventId, Position)>,
}

/// An append, encoded: what the writer gets.
pub(crate) struct Request {
    pub(crate) targets: Vec<Target>,
    /// The target of each event; empty if there is only one target.
    pub(crate) target_of: Vec<u16>,
    pub(crate) events: u16,
    /// How many of them, the last ones, are the store's own, and no part of the receipt.
    pub(crate) system_events: u16,
    /// How many of these, the last ones, are no part of what the caller gave either.
    pub(crate) remarks: u16,
    pub(crate) key: Option<KeyHash>,
    /// What it was asked for by, if a key that comes again is to be compared with that.
    pub(crate) command: Option<Command>,
    /// What the caller has looked at; where its targets stand there, they say themselves.
    pub(crate) known: Known,
    /// Most appends have none.
    pub(crate) conditions: Option<Box<Conditions>>,
    /// Most appends bring no ids.
    pub(crate) brought: Option<Box<Brought>>,
    pub(crate) durability: Option<Durability>,
    /// The thread that waits for it, if one does.
    pub(crate) caller: Option<Caller>,
    /// When it was encoded, of some: a look at the clock costs as much as a good part of encoding.
    pub(crate) encoded_at: Option<Instant>,
    pub(crate) body: Vec<u8>,
    pub(crate) body_checksum: u32,
    pub(crate) content: Hash,
}
