//! What gates see of an append: its user events, its expectations, and what the caller says beside it.
//!
//! Gates do not see the system events of an append, such as checkpoints.

use std::any::Any;
use std::fmt;
use std::time::SystemTime;

use serde::Deserialize;

use crate::event::codec;
use crate::format::record;
use crate::types::{Cause, DEFAULT_SCOPE, Error, ErrorKind, EventId, Expected, is_system, time_of};

use super::draft::{Draft, NewEvent};

/// An append as a [`Gate`](crate::Gate) sees it, before it is sent to the writer.
///
/// ```
/// use annals::{Append, Denial, GateDecision, Proposed, Raw, Store, disk::MemDisk};
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
    pub(super) draft: &'a Draft,
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

    /// The entities of the append, each with the expectation of its stream.
    pub fn expectations(&self) -> impl Iterator<Item = (&'a str, Expected)> + Clone + use<'a> {
        let targets = self.draft.targets.iter().filter(|target| !is_system(&target.entity));
        targets.map(|target| (&*target.entity, target.expected))
    }

    /// Whether the append has an idempotency key.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.draft.key.is_some()
    }

    /// The value of this type that the caller gave with [`Append::context`](crate::Append::context). Of several,
    /// the last.
    #[must_use]
    pub fn context<T: Any>(&self) -> Option<&'a T> {
        let contexts = &self.draft.for_gates.as_ref()?.contexts;
        contexts.iter().rev().find_map(|context| context.downcast_ref())
    }
}

impl<'a> ProposedEvent<'a> {
    /// The entity that the event belongs to.
    #[must_use]
    pub fn entity(&self) -> &'a str {
        &self.draft.targets[self.event.target].entity
    }

    /// The scope of the event.
    #[must_use]
    pub fn scope(&self) -> &'a str {
        self.event.scope.as_deref().unwrap_or(DEFAULT_SCOPE)
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> &'a str {
        self.draft.kind(self.event)
    }

    /// The schema version of the payload.
    #[must_use]
    pub fn schema_version(&self) -> u16 {
        self.event.schema_version
    }

    /// The tags, in the order in which the caller gave them.
    pub fn tags(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        record::tags(&self.event.attributes().tags)
    }

    /// The correlation id, if the caller gave one.
    #[must_use]
    pub fn correlation(&self) -> Option<EventId> {
        self.event.attributes().correlation
    }

    /// The cause, if the caller gave one.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.event.attributes().cause
    }

    /// When the event occurred, if the caller gave a time.
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
    /// [`ErrorKind::Invalid`] if the payload is not of this type. With `?`, a gate denies an append that it cannot read.
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
