//! Typed events: what a payload is to the program that reads it.
//!
//! A kind and a version say what the bytes are; the Rust type says what they are to become. Whatever
//! reads events as a type comes through `DomainEvent::from_recorded`, so that upcasters are never passed by.
//! Row: bytes. Touches no store.

pub mod derive;
mod known;
mod meta;

use crate::event::recorded::RecordedEvent;
use crate::types::{Error, EventData};

pub use known::KnownKind;
pub use meta::Meta;

/// An event type of an application: what can be appended, and read back as what it was.
///
/// Derive it, together with serde's traits:
///
/// ```
/// use annals::{DomainEvent, Store};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, DomainEvent)]
/// #[event(prefix = "account")]
/// enum AccountEvent {
///     Opened { owner: String },     // account.opened
///     Deposited { cents: u64 },     // account.deposited
///     Closed,                       // account.closed
/// }
///
/// let store = Store::in_memory()?;
/// store.append("account:alice", &AccountEvent::Opened { owner: "Alice".to_owned() })?;
/// store.append("account:alice", &AccountEvent::Deposited { cents: 500 })?;
///
/// let mut balance = 0;
/// for event in store.stream("account:alice") {
///     match event?.to::<AccountEvent>()? {
///         AccountEvent::Deposited { cents } => balance += cents,
///         AccountEvent::Opened { .. } | AccountEvent::Closed => {}
///     }
/// }
/// assert_eq!(balance, 500);
/// # Ok::<(), annals::Error>(())
/// ```
///
/// # What is stored
///
/// The **kind** is the prefix, a dot, and the variant in snake case; `#[event(kind = "..")]` names another. It never
/// comes from the name of the type or its path, which can be renamed freely. A variant can be renamed once its
/// kind is written out.
///
/// The payload is the variant's **fields only**, as MessagePack with field names: what stands in a struct with these
/// fields would be stored the same. So a variant and a struct of the same kind read each other's events. Every
/// attribute of serde's works on fields and variants (`rename`, `default`, `with`, `flatten`, `skip_serializing_if` ...); what
/// names the variant in another way (`tag`, `untagged`) is refused. An event type owns its data, so
/// it has no type parameters and no lifetimes.
///
/// To serde payloads are human-readable: identities, addresses and times are stored as their texts, as in JSON.
///
/// **What is appended can be read.** An event is read back before it is appended, written again, and compared.
/// One that does not come back is [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), with the field in the
/// error: an integer of 128 bits inside flatten, a `Some(None)`, a value that `try_from` refuses, more than 127
/// levels of lists and maps. That costs about as much as reading the event and writing it once more. SPEC.md
/// 1.13 has the rules.
///
/// # Attributes
///
/// | where | attribute | means |
/// |---|---|---|
/// | enum | `prefix = "account"` | what the kinds of its variants begin with |
/// | struct, variant | `kind = "account.opened"` | the kind; a struct needs it |
/// | struct, variant | `version = 2` | the payload's shape is the second one (default: 1) |
/// | struct, variant | `upcast(1 = "path::to::function")` | makes a payload of version 1 one of version 2; one for each old version |
/// | struct, variant | `alias = "account.created"` | events of this former kind are read as this one; their versions are this one's |
/// | struct, variant | `alias(kind = "account.created", upcast(1 = "path"), to = 2)` | events of this former kind are made version 2 of this one by upcasters of their own |
/// | enum, struct | `crate = "path::to::annals"` | where annals is, if not at `::annals` |
///
/// # When a type changes
///
/// SealedSegment events stay as they are. Raise the version, and say how to read the old one; that is done whenever
/// such an event is read as this type, by projections and reactors, too. The upcaster is a
/// `fn(Value) -> Result<Value, E>`, where `E` is anything that prints; see [`Value`](crate::Value).
///
/// ```
/// use annals::{DomainEvent, Error, Raw, Store, Value};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize, DomainEvent)]
/// #[event(prefix = "customer")]
/// enum CustomerEvent {
///     #[event(version = 3, upcast(1 = "split_name", 2 = "Value::unchanged"))]
///     Registered { first: String, last: String, #[serde(default)] country: Option<String> },
///     #[event(alias = "customer.relocated")]
///     Moved { to: String },
/// }
///
/// /// Version 1 had one name.
/// fn split_name(mut event: Value) -> Result<Value, Error> {
///     let name: String = event.take("name")?;
///     let (first, last) = name.split_once(' ').unwrap_or((&name, ""));
///     event.set("first", first)?;
///     event.set("last", last)?;
///     Ok(event)
/// }
///
/// #[derive(Serialize)]
/// struct Version1 { name: String }
/// #[derive(Serialize)]
/// struct Relocated { to: String }
///
/// let store = Store::in_memory()?;
/// store.append("customer:7", &Raw("customer.registered", &Version1 { name: "Ada Lovelace".to_owned() }))?;
/// store.append("customer:7", &Raw("customer.relocated", &Relocated { to: "London".to_owned() }))?;
///
/// let events: Vec<CustomerEvent> = store.stream("customer:7").map(|event| event?.to()).collect::<Result<_, _>>()?;
/// assert_eq!(events, [
///     CustomerEvent::Registered { first: "Ada".to_owned(), last: "Lovelace".to_owned(), country: None },
///     CustomerEvent::Moved { to: "London".to_owned() },
/// ]);
/// # Ok::<(), Error>(())
/// ```
///
/// | to | do |
/// |---|---|
/// | add a field | raise the version; `Value::unchanged` if the field has a serde default, else an upcaster that sets it |
/// | drop a field | raise the version; `Value::unchanged` |
/// | rename, split or merge fields, change a type | raise the version; an upcaster |
/// | rename a variant | write its old kind out with `kind` |
/// | rename a kind | the new `kind`, and the old one as `alias` |
/// | merge two kinds | one variant, and the other kind as `alias(..)` with upcasters of its own |
/// | split one event into two | add the two, and keep the old variant for what is stored, with `#[serde(skip_serializing)]`: one stored event is read as one event |
///
/// `EventsLock` of the feature `test-kit` is a test of one line that fails when a shape changes and the version does not.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no event type",
    label = "this is no event type",
    note = "write #[derive(serde::Serialize, serde::Deserialize, annals::DomainEvent)] and #[event(prefix = \"..\")] above it"
)]
pub trait DomainEvent: EventData + Sized {
    /// The kinds it reads: its own, each followed by the former ones that became it. Empty where the trait is
    /// implemented by hand; `test::EventsLock` needs it.
    const KINDS: &'static [KnownKind] = &[];

    /// Whether events of this kind are values of this type.
    fn knows(kind: &str) -> bool;

    /// Reads an event back.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Undecodable`](crate::ErrorKind::Undecodable) if its kind is not one of this type's, its version is newer, its
    /// bytes do not fit, or an upcaster refuses it; [`Error::undecodable`] has the particulars.
    /// [`ErrorKind::Erased`](crate::ErrorKind::Erased) if its payload was erased.
    fn from_recorded(event: &RecordedEvent) -> Result<Self, Error>;
}

impl RecordedEvent {
    /// Reads the event as a type, upcasters included.
    ///
    /// [`RecordedEvent::decode`] is for payloads of any type; it looks at neither kind nor version.
    ///
    /// # Errors
    ///
    /// As [`DomainEvent::from_recorded`].
    pub fn to<E: DomainEvent>(&self) -> Result<E, Error> {
        E::from_recorded(self)
    }
}
