//! The parts of an append: its address, event data, causes, conditions; the form in which times are stored.
//!
//! The names of an address are checked here, once. All other code may rely on the check.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::types::error::Error;
use crate::types::query::Query;
use crate::types::system::is_system;
use crate::types::text::{is_hidden, visible};
use crate::types::version::{EventId, Position};

/// The scope of an event whose append names none.
pub const DEFAULT_SCOPE: &str = "default";

/// The address of an event: an entity, and a scope that cuts across entities.
///
/// The **entity** (`order:42`) owns the stream: versions count within it. The **scope**
/// (`tenant:acme`) is a label, not part of the stream's identity; it is [`DEFAULT_SCOPE`] where
/// none is named. A method with an address accepts a `&str` (the entity), a pair of strings
/// (entity and scope), or a `Coordinate`.
///
/// A name is UTF-8 of 1 to 4,096 bytes (entity) or 255 bytes (scope). It has at least one visible character
/// and no control character. It does not begin with `$`, which is reserved for the store's own streams.
/// [`Limits`](crate::Limits) are lower by default.
///
/// ```
/// use annals::Coordinate;
///
/// let alice = Coordinate::new("account:alice", "tenant:acme")?;
/// assert_eq!(alice, Coordinate::try_from(("account:alice", "tenant:acme"))?);
/// assert_eq!(Coordinate::try_from("account:bob")?.scope(), "default");
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Coordinate {
    entity: String,
    scope: Option<String>,
}

impl Coordinate {
    /// Makes the coordinate of an entity and a scope.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if a name is empty, holds a control character, has
    /// no visible character, or begins with `$`; [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) if it is
    /// too long.
    pub fn new(entity: impl Into<String>, scope: impl Into<String>) -> Result<Coordinate, Error> {
        let scope = scope.into();
        check_name("scope", &scope, SCOPE_BYTES_CAP)?;
        let scope = (scope != DEFAULT_SCOPE).then_some(scope);
        Coordinate::in_scope(entity.into(), scope)
    }

    fn in_scope(entity: String, scope: Option<String>) -> Result<Coordinate, Error> {
        check_name("entity", &entity, ENTITY_BYTES_CAP)?;
        Ok(Coordinate { entity, scope })
    }

    /// Makes a coordinate of names that were checked when they were stored.
    pub(crate) fn stored(entity: &str, scope: &str) -> Coordinate {
        let scope = (scope != DEFAULT_SCOPE).then(|| scope.to_owned());
        Coordinate { entity: entity.to_owned(), scope }
    }

    /// The entity and the scope; `None` is the default scope.
    pub(crate) fn into_parts(self) -> (String, Option<String>) {
        (self.entity, self.scope)
    }

    /// The entity.
    #[must_use]
    pub fn entity(&self) -> &str {
        &self.entity
    }

    /// The scope; [`DEFAULT_SCOPE`] where none was named.
    #[must_use]
    pub fn scope(&self) -> &str {
        self.scope.as_deref().unwrap_or(DEFAULT_SCOPE)
    }
}

impl fmt::Display for Coordinate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Some(scope) => write!(f, "{} in {}", visible(&self.entity), visible(scope)),
            None => f.write_str(&visible(&self.entity)),
        }
    }
}

impl TryFrom<&str> for Coordinate {
    type Error = Error;

    fn try_from(entity: &str) -> Result<Coordinate, Error> {
        Coordinate::in_scope(entity.to_owned(), None)
    }
}

impl TryFrom<String> for Coordinate {
    type Error = Error;

    fn try_from(entity: String) -> Result<Coordinate, Error> {
        Coordinate::in_scope(entity, None)
    }
}

impl TryFrom<&String> for Coordinate {
    type Error = Error;

    fn try_from(entity: &String) -> Result<Coordinate, Error> {
        Coordinate::in_scope(entity.clone(), None)
    }
}

impl<E: Into<String>, S: Into<String>> TryFrom<(E, S)> for Coordinate {
    type Error = Error;

    fn try_from((entity, scope): (E, S)) -> Result<Coordinate, Error> {
        Coordinate::new(entity, scope)
    }
}

impl From<&Coordinate> for Coordinate {
    fn from(coordinate: &Coordinate) -> Coordinate {
        coordinate.clone()
    }
}

/// The most bytes that format 1 can hold. Limits cannot be higher.
pub(crate) const ENTITY_BYTES_CAP: usize = 4096;
pub(crate) const SCOPE_BYTES_CAP: usize = 255;
pub(crate) const KIND_BYTES_CAP: usize = 255;
pub(crate) const TAG_BYTES_CAP: usize = 255;

/// Refuses a name that the format cannot hold, that does not print on one line, or that is reserved.
pub(crate) fn check_name(what: &str, name: &str, cap: usize) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::invalid(format!("the {what} is empty; give it a name")));
    }
    if name.len() > cap {
        return Err(Error::too_large(&format!("the {what}"), name.len(), "the format", cap));
    }
    if is_system(name) {
        return Err(Error::invalid(format!(
            "the {what} {name:?} begins with `$`, which is kept for the store"
        )));
    }
    if name.chars().any(char::is_control) {
        return Err(Error::invalid(format!("the {what} {name:?} holds a control character")));
    }
    check_visible(what, name)
}

/// Refuses a name without a visible character: it would look like no name, or like every other such name.
pub(crate) fn check_visible(what: &str, name: &str) -> Result<(), Error> {
    if name.chars().any(is_visible) {
        return Ok(());
    }
    let text = name.escape_unicode();
    Err(Error::invalid(format!("the {what} \"{text}\" has no visible character; give it a name")))
}

const BLANK_OF_BRAILLE: char = '\u{2800}';

/// Whether a character is visible. annals-macros has a copy of this rule in `names.rs`; both must change
/// together.
fn is_visible(character: char) -> bool {
    !character.is_whitespace() && !is_hidden(character) && character != BLANK_OF_BRAILLE
}

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
