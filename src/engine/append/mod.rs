//! The builder of an append: what users call, and then what only the crate may do with an append.
//!
//! Everything here runs on the caller's thread. `draft` holds the append while it is built, and `encode`
//! turns it into the writer's [`Request`]. `proposed` is what gates see.

mod draft;
mod encode;
mod proposed;

use std::any::Any;
use std::time::SystemTime;

use serde::Serialize;

use crate::event::{Raw, RecordedEvent, codec};
#[cfg(feature = "jsonl")]
use crate::format::Hash;
use crate::format::record;
use crate::types::system::gate::BYPASSED;
use crate::types::{
    AppendCondition, Cause, ClockFn, Coordinate, Durability, Error, ErrorKind, EventData, EventId, Expected,
    KIND_BYTES_CAP, Limits, SYSTEM_SCOPE, TAG_BYTES_CAP, check_name, micros_of, options,
};

use draft::{AppendDraft, Attributes, NewEvent};
pub(crate) use draft::{CommandHash, Keyed};
pub(crate) use encode::{Brought, Request, Salts};
pub use proposed::{Proposed, ProposedEvent};

/// One atomic append: one event or many, to one entity or several.
///
/// Attributes before the first [`Append::event`] hold for every event; attributes after an event hold for
/// that event. The append keeps its first error (a bad name, a value that does not encode), and
/// [`Append::commit`] returns it. So the calls chain without `?`.
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
    /// What the caller built so far, or the first error.
    draft: Result<AppendDraft, Error>,
}

// `commit`, `submit` and `try_submit` need a `Store`, and `timer` a `Timer`. Rooms use only rooms above them,
// so these four methods are in store/mod.rs and consume/timer/mod.rs.

impl Append {
    /// Begins an append to an entity: `"account:alice"`, or `("account:alice", "tenant:acme")` with a scope.
    pub fn to<A>(address: A) -> Append
    where
        A: TryInto<Coordinate, Error: Into<Error>>,
    {
        Append { draft: Ok(AppendDraft::new()) }.and_to(address)
    }

    /// Directs the events that follow to another entity, in the same atomic append.
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

    /// Adds an event to the last named entity.
    pub fn event<E: EventData + ?Sized>(self, event: &E) -> Append {
        self.with(|draft| {
            let kind = event.kind();
            check_name("kind", kind, KIND_BYTES_CAP)?;
            let mut new = draft.encode_event(draft.target, kind, event)?;
            new.scope = draft.scope.clone();
            new.attributes = draft.common.clone();
            draft.events.push(new);
            Ok(())
        })
    }

    /// Appends only if the stream of the last named entity is at the expected version. The default is
    /// [`Expected::Any`]. The store checks the expectation against the stream before this append.
    pub fn expect(self, expected: impl Into<Expected>) -> Append {
        self.with(|draft| {
            draft.targets[draft.target].expected = expected.into();
            Ok(())
        })
    }

    /// Appends only if no event matches a query, or none after a position. An append may have several
    /// conditions; all must hold.
    ///
    /// The store checks conditions after the expectations, just before it writes the append: of two appends
    /// that rule each other out, one is refused.
    pub fn condition(self, condition: AppendCondition) -> Append {
        self.with(|draft| {
            condition.check()?;
            draft.conditions.get_or_insert_default().all.push(condition);
            Ok(())
        })
    }

    /// Makes the append idempotent: the same append with the same key is written once, and a retry returns
    /// the receipt of the first.
    ///
    /// This holds while the store remembers the key ([`KeyWindow`](crate::KeyWindow)). "Same" means
    /// everything the caller gave, except metadata and durability. A key has at least 1 byte; the store keeps
    /// 16 bytes of its BLAKE3 hash.
    pub fn key(self, key: impl AsRef<[u8]>) -> Append {
        self.with(|draft| {
            draft.key = Some(Keyed::by(key.as_ref())?.key);
            Ok(())
        })
    }

    /// Says which command the append carries out. A retry with the same key must have the same command, or it
    /// is [`ErrorKind::KeyReused`]. Needs a [`Append::key`].
    ///
    /// For [`Store::execute_with`](crate::Store::execute_with), which answers a known key without a new
    /// decision. The store compares commands as they serialize, so a command must serialize the same way each
    /// time; a `HashMap` does not. The store keeps a trace of the command that takes no room and cannot be
    /// read. Erasing the first event removes the trace: then any command counts as the same.
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
            draft.command = Some(CommandHash::of(command)?);
            Ok(())
        })
    }

    /// Adds a tag of 1 to 255 bytes to the event; before the first event, to all. Tags are indexed.
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

    /// Keeps a value beside the payload: a user, an address, a trace. Metadata is not indexed, and is erased
    /// with the payload. The store refuses a value that serde cannot read back as any type, as for
    /// [`Raw`](crate::Raw).
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

    /// Names the cause of the event.
    pub fn cause(self, cause: Cause) -> Append {
        self.with_attributes(|attributes| {
            attributes.cause = Some(cause);
            Ok(())
        })
    }

    /// Names another event as the cause, and takes over its correlation.
    pub fn caused_by(self, event: &RecordedEvent) -> Append {
        self.cause(Cause::Event(event.id())).correlation(event.correlation())
    }

    /// Gives the event a correlation id. The default is the id of the append's first event.
    pub fn correlation(self, id: impl Into<EventId>) -> Append {
        self.with_attributes(|attributes| {
            attributes.correlation = Some(id.into());
            Ok(())
        })
    }

    /// Says when the event occurred. By default, an event has no such time.
    pub fn occurred_at(self, time: SystemTime) -> Append {
        self.with_attributes(|attributes| {
            attributes.occurred_at = Some(micros_of(time));
            Ok(())
        })
    }

    /// Gives the event an id from another system, for imports that keep their ids. [`RecordedEvent::id`]
    /// shows the id, and every look-up by id finds the event.
    ///
    /// An id names one event. If another event of the store or of this append has the id, the append is
    /// [`ErrorKind::Invalid`] and nothing is written. So an event that is imported twice goes in once. The
    /// check costs a look into the filter of each segment.
    pub fn foreign_id(self, id: impl Into<EventId>) -> Append {
        self.with_attributes(|attributes| {
            attributes.foreign_id = Some(id.into());
            Ok(())
        })
    }

    /// Sets how durable the append is when it is acknowledged. The default is the store's durability.
    pub fn durability(self, durability: Durability) -> Append {
        self.with(|draft| {
            draft.durability = Some(durability);
            Ok(())
        })
    }

    /// Tells the store's gates who asks: a user, with rights, in a session. The value is not stored.
    ///
    /// A caller may give several values of different types. See [`Proposed::context`].
    pub fn context<T: Any + Send + Sync>(self, value: T) -> Append {
        self.with(|draft| {
            draft.for_gates.get_or_insert_default().contexts.push(Box::new(value));
            Ok(())
        })
    }

    /// Appends without asking the store's gates, for a reason that is recorded.
    ///
    /// The same append adds an event `$gate.bypassed` with the reason to the stream `$gate/<name>` of each
    /// gate: a bypass without a trace is not possible. The receipt does not count these events.
    ///
    /// ```
    /// use annals::{Append, Denial, GateDecision, Proposed, Raw, Store, disk::MemDisk};
    ///
    /// fn closed(_: &Proposed<'_>, _: &Store) -> Result<GateDecision, Denial> {
    ///     Err(Denial::new("after hours"))
    /// }
    /// let store = Store::on(MemDisk::new()).gate("hours", closed).open()?;
    /// let append = || Append::to("account:alice").event(&Raw("account.frozen", &()));
    /// assert!(append().commit(&store).is_err());
    ///
    /// let receipt = append().bypass_gates("court order 12/7").commit(&store)?;
    /// assert_eq!((receipt.events(), receipt.version().get()), (1, 1));
    /// assert_eq!(store.stream("$gate/hours").next().unwrap()?.kind(), "$gate.bypassed");
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn bypass_gates(self, reason: impl Into<String>) -> Append {
        self.with(|draft| {
            let reason = reason.into();
            if reason.is_empty() {
                return Err(Error::invalid("the gates are bypassed for no reason; give one"));
            }
            draft.for_gates.get_or_insert_default().bypass = Some(reason);
            Ok(())
        })
    }

    fn with(mut self, change: impl FnOnce(&mut AppendDraft) -> Result<(), Error>) -> Append {
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
}

/// The payload of an event that records a bypassed gate.
#[derive(Serialize)]
struct Bypassed<'a> {
    reason: &'a str,
}

// Appends of the store itself, and what the crate may do with an append that users may not.
impl Append {
    /// An append without an entity, to add others to.
    pub(crate) fn empty() -> Append {
        Append { draft: Ok(AppendDraft::new()) }
    }

    /// An append of one system event.
    pub(crate) fn of_system<E: EventData>(entity: &str, expected: Expected, event: &E) -> Append {
        Append::empty().system_event(entity, expected, event)
    }

    /// An append that begins with a system event, for others to be added to.
    pub(crate) fn led_by<E: EventData>(entity: &str, expected: Expected, event: &E) -> Append {
        Append::empty().with(|draft| {
            draft.lead = Some(Box::new(system_event(draft, entity, expected, event)?));
            Ok(())
        })
    }

    /// Adds a system event. Its entity and its kind begin with `$`.
    pub(crate) fn system_event<E: EventData>(self, entity: &str, expected: Expected, event: &E) -> Append {
        self.with(|draft| {
            let new = system_event(draft, entity, expected, event)?;
            draft.system.push(new);
            Ok(())
        })
    }

    /// Makes the last system event occur when the append is handed over, by the store's clock.
    pub(crate) fn timed(self) -> Append {
        self.with(|draft| {
            if let Some(event) = draft.system.last_mut() {
                event.is_timed = true;
            }
            Ok(())
        })
    }

    /// Makes this append and another one. If both expect something of a stream, both expect it before the
    /// first event.
    pub(crate) fn and(self, other: Append) -> Append {
        self.with(|draft| draft.absorb(other.draft?))
    }

    /// Records an error, keeping the first.
    pub(crate) fn and_failed(self, error: Error) -> Append {
        self.with(|_| Err(error))
    }

    /// Gives every event without a cause or a correlation those of an event that caused it.
    pub(crate) fn inherit(self, from: &RecordedEvent) -> Append {
        self.belonging(Some(Cause::Event(from.id())), Some(from.correlation()))
    }

    /// Gives every event without a cause this cause, and every event without a correlation this correlation.
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

    /// Sets metadata that is encoded already; none if there are no bytes.
    #[cfg(feature = "jsonl")]
    pub(crate) fn encoded_metadata(self, metadata: Vec<u8>) -> Append {
        self.with_attributes(|attributes| {
            attributes.metadata = metadata;
            Ok(())
        })
    }

    /// Marks the event as erased where it comes from. `hash` is the hash of its private part.
    #[cfg(feature = "jsonl")]
    pub(crate) fn erased(self, hash: Hash) -> Append {
        self.with_attributes(|attributes| {
            attributes.erased = Some(hash);
            Ok(())
        })
    }

    /// What the caller built so far.
    pub(crate) fn draft(&self) -> Result<&AppendDraft, Error> {
        self.draft.as_ref().map_err(Error::clone)
    }

    /// What gates judge. `None` if the append has no user event, or cannot be appended anyway.
    pub(crate) fn proposed(&self) -> Option<Proposed<'_>> {
        let draft = self.draft.as_ref().ok()?;
        if draft.events.is_empty() { None } else { Some(Proposed { draft }) }
    }

    /// Whether the caller bypasses the gates.
    pub(crate) fn is_bypassing(&self) -> bool {
        self.bypass_reason().is_some()
    }

    fn bypass_reason(&self) -> Option<&String> {
        self.draft.as_ref().ok()?.for_gates.as_ref()?.bypass.as_ref()
    }

    /// Records in a gate's stream that the gate was bypassed, and why. The receipt does not count this event.
    pub(crate) fn record_bypass(self, stream: &str) -> Append {
        let Some(reason) = self.bypass_reason().cloned() else { return self };
        let append = self.system_event(stream, Expected::Any, &Raw(BYPASSED, &Bypassed { reason: &reason }));
        append.with(|draft| {
            draft.bypass_events = draft.bypass_events.saturating_add(1);
            Ok(())
        })
    }

    /// What identifies the append if it was made before; `None` without a key.
    pub(crate) fn keyed(&self) -> Result<Option<Keyed>, Error> {
        let draft = self.draft()?;
        Ok(draft.key.map(|key| Keyed { key, command: draft.command, durability: draft.durability }))
    }

    /// Sets the key and the command.
    pub(crate) fn keyed_by(self, keyed: Keyed) -> Append {
        self.with(|draft| {
            draft.key = Some(keyed.key);
            draft.command = keyed.command;
            Ok(())
        })
    }

    /// Allows the append to be answered by its key only: no stream ever has the version that it expects now.
    pub(crate) fn only_as_replay(self) -> Append {
        self.with(|draft| {
            draft.targets.iter_mut().for_each(|target| target.expected = Expected::exact(u64::MAX));
            Ok(())
        })
    }

    /// Sets the time of timed events: the append is handed over now.
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

    /// Checks the append against the limits, and encodes it for the writer.
    pub(crate) fn encode(self, limits: &Limits, salts: &Salts) -> Result<Request, Error> {
        self.draft?.encode(limits, salts)
    }
}

fn system_event<E: EventData>(
    draft: &mut AppendDraft,
    entity: &str,
    expected: Expected,
    event: &E,
) -> Result<NewEvent, Error> {
    let target = draft.target(entity.into());
    draft.targets[target].expected = expected;
    let mut new = draft.encode_event(target, event.kind(), event)?;
    new.scope = Some(SYSTEM_SCOPE.to_owned());
    Ok(new)
}
