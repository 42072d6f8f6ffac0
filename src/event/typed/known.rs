//! The kinds that an event type reads, and the upcasters that make an old payload a new one.

use std::fmt;

use crate::event::codec::Value;

/// The form in which an event type is encoded.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// An enum: only the fields of the variant that the kind names.
    Enum,
    /// As `Enum`, for a variant that is read but not written any more.
    FormerVariant,
    /// A struct without fields.
    Unit,
    /// Any other struct: as serde encodes it.
    Struct,
}

/// A kind of event that a [`DomainEvent`](crate::DomainEvent) reads: a kind of its own, or a former kind.
///
/// ```
/// use annals::{DomainEvent, KnownKind, Query};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, DomainEvent)]
/// #[event(prefix = "account")]
/// enum AccountEvent {
///     #[event(alias = "account.created")]
///     Opened { owner: String },
///     Deposited { cents: u64 },
/// }
///
/// let kinds: Vec<&str> = AccountEvent::KINDS.iter().map(KnownKind::name).collect();
/// assert_eq!(kinds, ["account.opened", "account.created", "account.deposited"]);
/// assert_eq!(AccountEvent::KINDS[1].now(), "account.opened");
/// // All events that can be read as an AccountEvent.
/// let query = Query::all().kinds(kinds);
/// # let store = annals::Store::in_memory()?;
/// # assert_eq!(store.count(query)?, 0);
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Debug)]
pub struct KnownKind {
    name: &'static str,
    version: u16,
    form: Form,
    variant: u32,
    now: Option<&'static str>,
    upcasters: &'static [Upcaster],
}

/// An upcaster of the user, and the name of its function.
pub struct Upcaster {
    function: &'static str,
    run: fn(Value) -> Result<Value, UpcastError>,
}

/// The text of an upcaster's error.
#[derive(Debug)]
pub struct UpcastError(pub(super) String);

impl KnownKind {
    /// `upcasters[n - 1]` is the first upcaster for an event of version n.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(
        name: &'static str,
        version: u16,
        form: Form,
        variant: u32,
        now: Option<&'static str>,
        upcasters: &'static [Upcaster],
    ) -> KnownKind {
        KnownKind { name, version, form, variant, now, upcasters }
    }

    /// The kind as it is stored.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The newest version of the payload's shape that the type knows of this kind.
    #[must_use]
    pub fn version(&self) -> u16 {
        self.version
    }

    /// The kind that it is read as: the kind itself, or the kind that a former kind was renamed to or merged into.
    #[must_use]
    pub fn now(&self) -> &'static str {
        self.now.unwrap_or(self.name)
    }

    /// Whether the type writes no such events any more. The kind is an alias, or its variant has
    /// `#[serde(skip_serializing)]`.
    #[must_use]
    pub fn is_former(&self) -> bool {
        self.now.is_some() || matches!(self.form, Form::FormerVariant)
    }

    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// The number of the variant that the kind is read as; 0 for a struct.
    pub(crate) fn variant(&self) -> u32 {
        self.variant
    }

    /// The number of the variant, if the event type is an enum.
    #[cfg(feature = "test-kit")]
    pub(crate) fn variant_of_enum(&self) -> Option<u32> {
        matches!(self.form, Form::Enum | Form::FormerVariant).then_some(self.variant)
    }

    /// The upcasters for an event that was stored with a version; `None` if the type does not know the version.
    pub(crate) fn upcasters_from(&self, stored: u16) -> Option<&'static [Upcaster]> {
        match stored {
            0 => None,
            stored if stored > self.version => None,
            stored => self.upcasters.get(usize::from(stored) - 1..),
        }
    }
}

impl Upcaster {
    #[doc(hidden)]
    #[must_use]
    pub const fn new(function: &'static str, run: fn(Value) -> Result<Value, UpcastError>) -> Upcaster {
        Upcaster { function, run }
    }

    pub(super) fn function(&self) -> &'static str {
        self.function
    }

    pub(super) fn run(&self, value: Value) -> Result<Value, UpcastError> {
        (self.run)(value)
    }
}

impl fmt::Debug for Upcaster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.function)
    }
}

impl fmt::Display for UpcastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UpcastError {}
