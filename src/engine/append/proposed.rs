//! What gates are shown of an append, and what a caller tells them beside it.
//!
//! Events of the store's own that travel with an append (checkpoints) are nobody's to judge: they are not shown.
//! Row: append.

use std::any::Any;
use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::engine::decide::KeyHash;
use crate::event::{Raw, codec};
use crate::format::record;
use crate::types::system::gate::BYPASSED;
use crate::types::{
    Cause, DEFAULT_SCOPE, Durability, Error, ErrorKind, EventData, EventId, Expected, is_system, time_of,
};

use super::draft::{Draft, NewEvent};
use super::{Append, Command};

/// What a caller says to gates.
#[derive(Default)]
pub(super) struct ForGates {
    contexts: Vec<Box<dyn Any + Send + Sync>>,
    bypass: Option<String>,
}

impl ForGates {
    /// What another append says that becomes one with this. The first reason to pass by counts for all of it.
    pub(super) fn and(&mut self, other: ForGates) {
        self.contexts.extend(other.contexts);
        self.bypass = self.bypass.take().or(other.bypass);
    }
}

/// Its payload.
#[derive(Serialize)]
struct Bypassed<'a> {
    reason: &'a str,
}

/// By what an append that was made before is found.
#[derive(Clone, Copy)]
pub(crate) struct Keyed {
    pub(crate) key: KeyHash,
    pub(crate) command: Option<Command>,
    pub(crate) durability: Option<Durability>,
}

impl Keyed {
    /// By its key.
    pub(crate) fn by(key: &[u8]) -> Result<Keyed, Error> {
        if key.is_empty() {
            return Err(Error::invalid("the idempotency key is empty; leave it out, or give one"));
        }
        let key = crate::format::array(blake3::hash(key).as_bytes(), 0);
        Ok(Keyed { key, command: None, durability: None })
    }

    /// And by what it was asked for.
    pub(crate) fn and_by<C: Serialize + ?Sized>(self, command: &C) -> Result<Keyed, Error> {
        Ok(Keyed { command: Some(Command::of(command)?), ..self })
    }
}

/// An append as a [`Gate`](crate::Gate) sees it, before anything of it is sent.
///
/// ```
/// use annals::{Append, Denial, Permit, Proposed, Raw, Store, disk::MemDisk};
///
/// struct Clerk { limit: u64 }
///
/// let store = Store::on(MemDisk::new())
///     .gate("limit", |proposed: &Proposed<'_>, _: &Store| {
///         let limit = proposed.context::<Clerk>().map_or(0, |clerk| clerk.limit);
///         for event in proposed.events().filter(|event| event.kind() == "account.withdrawn") {
///             let cents: u64 = event.decode()?;
///             if cents > limit {
///                 return Err(Denial::new(format!("{cents} is more than {limit}")));
///             }
///         }
///         Ok(GateDecision::always())
///     })
///     .open()?;
///
/// let withdraw = |cents: u64| Append::to("account:alice").event(&Raw("account.withdrawn", &cents));
/// withdraw(500).context(Clerk { limit: 1_000 }).commit(&store)?;
/// let error = withdraw(5_000).context(Clerk { limit: 1_000 }).commit(&store).unwrap_err();
/// assert_eq!(error.denial().unwrap().reason, "5000 is more than 1000");
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Proposed<'a> {
    draft: &'a Draft,
}

/// One event of a [`Proposed`] append. It has no position, version, time or id yet.
#[derive(Clone, Copy)]
pub struct ProposedEvent<'a> {
    draft: &'a Draft,
    event: &'a NewEvent,
}

impl<'a> Proposed<'a> {
    /// The events, in the order of the append.
    pub fn events(&self) -> impl Iterator<Item = ProposedEvent<'a>> + Clone + use<'a> {
        let draft = self.draft;
        draft.events.iter().map(move |event| ProposedEvent { draft, event })
    }

    /// The entities it is addressed to, each with what is expected of its stream.
    pub fn expectations(&self) -> impl Iterator<Item = (&'a str, Expected)> + Clone + use<'a> {
        let targets = self.draft.targets.iter().filter(|target| !is_system(&target.entity));
        targets.map(|target| (&*target.entity, target.expected))
    }

    /// Whether it has an idempotency key.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.draft.key.is_some()
    }

    /// What the caller gave with [`Append::context`]: of several of one type the last.
    #[must_use]
    pub fn context<T: Any>(&self) -> Option<&'a T> {
        let contexts = &self.draft.for_gates.as_ref()?.contexts;
        contexts.iter().rev().find_map(|context| context.downcast_ref())
    }
}

impl<'a> ProposedEvent<'a> {
    /// The entity it tells about.
    #[must_use]
    pub fn entity(&self) -> &'a str {
        &self.draft.targets[self.event.target].entity
    }

    /// The scope it happened in.
    #[must_use]
    pub fn scope(&self) -> &'a str {
        self.event.scope.as_deref().unwrap_or(DEFAULT_SCOPE)
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> &'a str {
        self.draft.kind(self.event)
    }

    /// The version of the payload's shape.
    #[must_use]
    pub fn schema_version(&self) -> u16 {
        self.event.schema_version
    }

    /// The tags, in the order they were given.
    pub fn tags(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        record::tags(&self.event.attributes().tags)
    }

    /// What it belongs to, if the caller said so.
    #[must_use]
    pub fn correlation(&self) -> Option<EventId> {
        self.event.attributes().correlation
    }

    /// What brought it about, if the caller said so.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.event.attributes().cause
    }

    /// When it happened, if the caller said so.
    #[must_use]
    pub fn occurred_at(&self) -> Option<SystemTime> {
        self.event.attributes().occurred_at.map(time_of)
    }

    /// The payload's bytes.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.draft.bytes[self.event.payload.clone()]
    }

    /// Decodes the payload; the value may borrow from the append.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the payload is not of this type. With `?` a gate denies what it cannot read.
    pub fn decode<T: Deserialize<'a>>(&self) -> Result<T, Error> {
        self.decoded("payload", self.payload())
    }

    /// Decodes the metadata, if there is any.
    ///
    /// # Errors
    ///
    /// As [`ProposedEvent::decode`].
    pub fn metadata<T: Deserialize<'a>>(&self) -> Result<Option<T>, Error> {
        match self.event.attributes().metadata.as_slice() {
            [] => Ok(None),
            bytes => self.decoded("metadata", bytes).map(Some),
        }
    }

    fn decoded<T: Deserialize<'a>>(&self, what: &str, bytes: &'a [u8]) -> Result<T, Error> {
        codec::decode(bytes).map_err(|error| {
            let text = format!(
                "{} for {}: the {what} does not decode as {}: {error}",
                self.kind(),
                self.entity(),
                std::any::type_name::<T>()
            );
            Error::with_source(ErrorKind::Invalid, text, error)
        })
    }
}

impl Append {
    /// Tells the store's gates something: who asks, with which rights, in which session. It is not stored.
    /// Several values of different types may be given. See [`Proposed::context`].
    pub fn context<T: Any + Send + Sync>(self, value: T) -> Append {
        self.with(|draft| {
            draft.for_gates.get_or_insert_default().contexts.push(Box::new(value));
            Ok(())
        })
    }

    /// Appends without asking the store's gates. In the same append each gate gets an event
    /// `$gate.bypassed` with the reason in its stream `$gate/<name>`: who passes by leaves a trace, or nothing.
    /// The receipt does not count these events.
    ///
    /// ```
    /// use annals::{Append, Denial, Permit, Proposed, Raw, Store, disk::MemDisk};
    ///
    /// let closed = |_: &Proposed<'_>, _: &Store| -> Result<Permit, Denial> { Err(Denial::new("after hours")) };
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

    /// What gates are to judge: nothing, if it has no events of a user's, or cannot be appended anyway.
    pub(crate) fn proposed(&self) -> Option<Proposed<'_>> {
        let draft = self.draft.as_ref().ok()?;
        draft.events.first().map(|_| Proposed { draft })
    }

    /// Whether the gates are not to be asked.
    pub(crate) fn is_bypassing(&self) -> bool {
        self.bypass().is_some()
    }

    fn bypass(&self) -> Option<&String> {
        self.draft.as_ref().ok()?.for_gates.as_ref()?.bypass.as_ref()
    }

    /// Records in a gate's stream that it was not asked, and why. The receipt does not count this event.
    pub(crate) fn record_bypass(self, stream: &str) -> Append {
        let Some(reason) = self.bypass().cloned() else { return self };
        let append = self.system_event(stream, Expected::Any, &Raw(BYPASSED, &Bypassed { reason: &reason }));
        append.with(|draft| {
            draft.remarks = draft.remarks.saturating_add(1);
            Ok(())
        })
    }

    /// By what it is found if it was made before.
    pub(crate) fn keyed(&self) -> Result<Option<Keyed>, Error> {
        let draft = self.draft.as_ref().map_err(Error::clone)?;
        Ok(draft.key.map(|key| Keyed { key, command: draft.command, durability: draft.durability }))
    }

    /// Gives it a key.
    pub(crate) fn keyed_by(self, keyed: Keyed) -> Append {
        self.with(|draft| {
            (draft.key, draft.command) = (Some(keyed.key), keyed.command);
            Ok(())
        })
    }

    /// An append of the store's own that is never written, and found by the key if that is known.
    pub(crate) fn probe<E: EventData>(entity: &str, event: &E, keyed: Keyed) -> Append {
        Append::of_system(entity, Expected::StreamExists, event).with(|draft| {
            (draft.key, draft.command) = (Some(keyed.key), keyed.command);
            draft.durability = keyed.durability;
            Ok(())
        })
    }

    /// Lets the append be answered by its key, or not at all: no stream is ever so long.
    pub(crate) fn only_as_replay(self) -> Append {
        self.with(|draft| {
            draft.targets.iter_mut().for_each(|target| target.expected = Expected::exact(u64::MAX));
            Ok(())
        })
    }
}

impl fmt::Debug for Proposed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.events()).finish()
    }
}

impl fmt::Debug for ProposedEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProposedEvent")
            .field("entity", &self.entity())
            .field("scope", &self.scope())
            .field("kind", &self.kind())
            .finish_non_exhaustive()
    }
}
