//! The address of an event: its entity and its scope.
//!
//! Names are checked here, once. All other code may rely on the check.

use std::fmt;

use crate::types::error::Error;
use crate::types::system::is_system;
use crate::types::text::{is_hidden, visible};

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
