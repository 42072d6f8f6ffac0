//! Where an event belongs: the entity it tells about, and the scope it happened in.
//!
//! Names are checked here once; nothing below sees an unchecked one.
//! Row: words.

use std::fmt;

use crate::types::error::Error;
use crate::types::system::is_system;
use crate::types::text::{is_hidden, visible};

/// The scope of an event for which none was named.
pub const DEFAULT_SCOPE: &str = "default";

/// What every event is addressed to: an entity, and a scope that cuts across entities.
///
/// The **entity** (`order:42`) owns the stream: versions count within it. The **scope**
/// (`tenant:acme`) is a label, not part of the stream's identity; it is [`DEFAULT_SCOPE`] where
/// none is named. Anything that takes an address takes a `&str` (the entity), a pair of strings
/// (entity and scope), or a `Coordinate`.
///
/// Names are 1 to 4,096 (entity) or 255 (scope) bytes of UTF-8 without control characters, with at least one
/// character that is seen, and do not begin with `$`, which is kept for the store's own streams.
/// [`Limits`](crate::Limits) draws the line lower by default.
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
    /// A coordinate of an entity and a scope.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if a name is empty, holds a control character or
    /// nothing that is seen, or begins with `$`; [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) if it is
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

    /// From names that were checked when they were stored.
    pub(crate) fn stored(entity: &str, scope: &str) -> Coordinate {
        let scope = (scope != DEFAULT_SCOPE).then(|| scope.to_owned());
        Coordinate { entity: entity.to_owned(), scope }
    }

    /// Entity and scope; no scope is the default one.
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

/// The most bytes format 1 can hold, whatever the limits say.
pub(crate) const ENTITY_BYTES_CAP: usize = 4096;
pub(crate) const SCOPE_BYTES_CAP: usize = 255;
pub(crate) const KIND_BYTES_CAP: usize = 255;
pub(crate) const TAG_BYTES_CAP: usize = 255;

/// Refuses a name that could not be stored, printed on one line, or told from the store's own.
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

/// Refuses a name of which nothing is seen where it is shown: it would look like none, or like every other
/// such name.
pub(crate) fn check_visible(what: &str, name: &str) -> Result<(), Error> {
    if name.chars().any(is_visible) {
        return Ok(());
    }
    let text = name.escape_unicode();
    Err(Error::invalid(format!("the {what} \"{text}\" has no visible character; give it a name")))
}

const BLANK_OF_BRAILLE: char = '\u{2800}';

/// Whether a character leaves a mark where it is shown.
fn is_visible(character: char) -> bool {
    !character.is_whitespace() && !is_hidden(character) && character != BLANK_OF_BRAILLE
}
