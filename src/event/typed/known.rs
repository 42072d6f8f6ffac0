//! The kinds an event type reads, and how an old payload becomes a new one.
//!
//! Row: bytes.

use std::fmt;

use crate::event::codec::Value;
use crate::event::typed::derive::Form;

/// A kind of event that a [`DomainEvent`](crate::DomainEvent) reads: one of its own, or a former one.
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
    steps: &'static [Step],
}

/// An upcaster, and its name.
pub struct Step {
    function: &'static str,
    run: fn(Value) -> Result<Value, StepError>,
}

/// What an upcaster said.
#[derive(Debug)]
pub struct StepError(pub(super) String);

impl KnownKind {
    /// `steps[n - 1]` is the first one an event of version n goes through.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(
        name: &'static str,
        version: u16,
        form: Form,
        variant: u32,
        now: Option<&'static str>,
        steps: &'static [Step],
    ) -> KnownKind {
        KnownKind { name, version, form, variant, now, steps }
    }

    /// The kind, as it is stored.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The newest version of the payload's shape that is known of this kind.
    #[must_use]
    pub fn version(&self) -> u16 {
        self.version
    }

    /// The kind it is read as: itself, or what a former kind was renamed to or merged into.
    #[must_use]
    pub fn now(&self) -> &'static str {
        self.now.unwrap_or(self.name)
    }

    /// Whether no such events are written any more: it is an alias, or its variant has `#[serde(skip_serializing)]`.
    #[must_use]
    pub fn is_former(&self) -> bool {
        self.now.is_some() || matches!(self.form, Form::FormerVariant)
    }

    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// The number of the variant it is read as; 0 for a struct.
    pub(crate) fn variant(&self) -> u32 {
        self.variant
    }

    /// Of an event type that is an enum.
    #[cfg(feature = "test-kit")]
    pub(crate) fn variant_of_enum(&self) -> Option<u32> {
        matches!(self.form, Form::Enum | Form::FormerVariant).then_some(self.variant)
    }

    /// What an event that was stored with a version goes through; `None` if there is no such version.
    pub(crate) fn steps_from(&self, stored: u16) -> Option<&'static [Step]> {
        match stored {
            0 => None,
            stored if stored > self.version => None,
            stored => self.steps.get(usize::from(stored) - 1..),
        }
    }
}

impl Step {
    #[doc(hidden)]
    #[must_use]
    pub const fn new(function: &'static str, run: fn(Value) -> Result<Value, StepError>) -> Step {
        Step { function, run }
    }

    pub(super) fn function(&self) -> &'static str {
        self.function
    }

    pub(super) fn run(&self, value: Value) -> Result<Value, StepError> {
        (self.run)(value)
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.function)
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StepError {}
