//! The parts of an append: event data, causes, conditions.

use std::time::{Duration, SystemTime};

use crate::types::error::Error;
use crate::types::query::Query;
use crate::types::version::{EventId, Position};

/// A value that can be appended as an event: it has a kind, and encodes its payload.
///
/// Derive [`DomainEvent`](crate::DomainEvent) for an event type. [`Raw`](crate::Raw) makes any serde value an
/// event of any kind.
///
/// ```
/// use annals::{Error, EventData, Raw};
/// use serde::Serialize;
///
/// #[derive(Serialize)]
/// struct Deposited { cents: u64 }
///
/// impl EventData for Deposited {
///     fn kind(&self) -> &str { "account.deposited" }
///     fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> { Raw(self.kind(), self).encode(out) }
/// }
///
/// let store = annals::Store::in_memory()?;
/// store.append("account:alice", &Deposited { cents: 500 })?;
/// # Ok::<(), Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no event",
    label = "this cannot be appended",
    note = "derive annals::DomainEvent for it, or give it a kind by hand: annals::Raw(\"account.opened\", &value)"
)]
pub trait EventData {
    /// The stable, dotted name of the kind of event (`order.placed`), 1 to 255 bytes. The store keeps it, so
    /// a new name of the Rust type must not change it.
    fn kind(&self) -> &str;

    /// The version of the payload's shape (default: 1). Raise it when the shape changes.
    fn schema_version(&self) -> u16 {
        1
    }

    /// Appends the payload to `out`.
    ///
    /// The types of annals write MessagePack with field names. The bytes are stored as they are, so the
    /// implementation must be able to read them.
    ///
    /// # Errors
    ///
    /// The reason why the value does not encode. Nothing is appended to the store then.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error>;
}

/// The cause of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The event with this id.
    Event(EventId),
    /// The event at this index (from 0) of the same append.
    InAppend(u16),
    /// The event before this one in its stream.
    PreviousInStream,
}

/// "No event matches this query after this position". It is the consistency boundary of a decision that rests
/// on the events of a query, in one stream or in many.
///
/// Note the head, read the events of the query, decide, and append under the condition that no new event
/// matches. If one does, the append fails with [`ErrorKind::Conflict`](crate::ErrorKind::Conflict). Then read
/// on from `after`, and decide again. Without [`AppendCondition::after`] the query must match no event at
/// all.
///
/// This is the condition of stores with a "dynamic consistency boundary" (DCB), by Sara Pellegrini and
/// others: <https://dcb.events>.
///
/// ```
/// use annals::{Append, AppendCondition, ErrorKind, Query, Raw, Store};
///
/// let store = Store::in_memory()?;
/// let claim = |user: &str| {
///     let taken = Query::all().kind("email.claimed").tag("email:a@example.com");
///     Append::to(user)
///         .event(&Raw("email.claimed", &"a@example.com"))
///         .tag("email:a@example.com")
///         .condition(AppendCondition::none(taken))
///         .commit(&store)
/// };
/// claim("user:1")?;
/// let refused = claim("user:2").unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::Conflict);
/// assert_eq!(refused.failed_condition().unwrap().first_match.get(), 1);
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendCondition {
    pub(crate) query: Query,
    pub(crate) after: Position,
}

impl AppendCondition {
    /// The condition that no event matches the query. The query may ask for entities, prefixes, scopes, kinds
    /// and tags, joined by [`Query::or`], but not for a correlation.
    #[must_use]
    pub fn none(query: Query) -> AppendCondition {
        AppendCondition { query, after: Position::START }
    }

    /// Counts only events after this position: the head before the events were read.
    ///
    /// If the log does not reach the position when the append is decided, the position is of another history,
    /// and the append fails with [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack).
    #[must_use]
    pub fn after(self, position: Position) -> AppendCondition {
        AppendCondition { after: position, ..self }
    }

    /// Refuses a query for a correlation. The correlation of an event may be its own id, which no index
    /// holds.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.query.asks_correlation() {
            return Err(Error::invalid(
                "a condition cannot ask for a correlation; ask for entities, scopes, kinds or tags",
            ));
        }
        Ok(())
    }
}

/// A time as it is stored: microseconds since 1970, negative before.
///
/// The range is 290,000 years before and after 1970. A time outside becomes the nearest time inside.
pub(crate) fn micros_of(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
    }
}

/// The time at `micros` microseconds since 1970.
pub(crate) fn time_of(micros: i64) -> SystemTime {
    let distance = Duration::from_micros(micros.unsigned_abs());
    let time = if micros < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}
