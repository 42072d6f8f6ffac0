//! Typed events: the Rust type that a payload is read as.
//!
//! Kind and version of an event say what the bytes are; the type says what they become. Every reader of typed
//! events calls [`DomainEvent::from_recorded`], so that no reader misses an upcaster.

pub mod derive;

use std::time::SystemTime;

use serde::Deserialize;

use crate::event::recorded::RecordedEvent;
use crate::types::{Cause, Coordinate, Error, EventData, EventId, Position, Version};

#[cfg(feature = "test-kit")]
pub(crate) use derive::Form;
pub use derive::KnownKind;
pub(crate) use derive::unknown_kind;

/// An event type of an application: its values can be appended, and events can be read back as its values.
///
/// Derive it together with serde's traits:
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
/// The **kind** is the prefix, a dot, and the variant in snake case; `#[event(kind = "..")]` names another
/// kind. The kind never comes from the name or path of the type, which can be renamed freely. A variant can
/// be renamed once its kind is written out.
///
/// The **payload** is the fields only, as MessagePack with field names:
///
/// | variant, struct | payload |
/// |---|---|
/// | `Opened { owner: String }` | a map with the entry `owner` |
/// | `Named(String)` | the string |
/// | `Moved(i32, i32)` | an array of two |
/// | `Closed`, `Closed {}` | a map without entries; also read from nil, an empty array, or any map |
///
/// - A variant and a struct of the same kind read each other's events.
/// - Every serde attribute works on fields and variants (`rename`, `default`, `with`, `flatten` ...).
///   Attributes that name the variant in another way (`tag`, `untagged`) are refused.
/// - A struct that goes through another type in serde (`from`, `into`) is stored as that type.
/// - Fields that the type does not know are ignored. A unit struct inside a payload is nil.
/// - For serde, payloads are human-readable: identities, addresses and times are stored as texts, as in JSON.
///   A UUID takes 38 bytes, as text, instead of 18.
/// - An event type owns its data, so it has no type parameters and no lifetimes.
///
/// # What is appended can be read
///
/// annals reads an event back before it appends it, encodes it again, and compares. An event that does not
/// come back is [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), and the error names the field. This costs
/// about as much as reading the event and encoding it once more.
///
/// - A field is refused that the type does not read back, or reads back with other fields. Examples are an
///   integer of 128 bits inside flatten, and a value that `try_from` refuses.
/// - Refused in every event are `Some(None)`, `Some(())`, more than 127 nested levels, and a `Serialize` that
///   gives more or fewer values than it announced.
/// - The bytes are compared. If they differ, the keys and the kinds of values are compared, in any order. A
///   value that comes back as another value of the same kind is not noticed.
/// - A type that is encoded differently each time (encrypted with a nonce) is not compared.
///
/// # Attributes
///
/// | where | attribute | means |
/// |---|---|---|
/// | enum | `prefix = "account"` | the beginning of its variants' kinds |
/// | struct, variant | `kind = "account.opened"` | the kind; a struct needs it |
/// | struct, variant | `version = 2` | the version of the payload's shape (default: 1) |
/// | struct, variant | `upcast(1 = "path::function")` | the upcaster from version 1 to 2; one a version |
/// | struct, variant | `alias = "account.created"` | a former kind, with the versions of the new kind |
/// | struct, variant | `alias(kind = "..", upcast(1 = "path"), to = 2)` | a former kind with upcasters |
/// | enum, struct | `crate = "path::to::annals"` | the path of annals, if it is not `::annals` |
///
/// The upcasters of a former kind lead to the version `to` of the new kind, whose own upcasters then follow.
///
/// # When a type changes
///
/// Stored events stay as they are. Raise the version, and name an upcaster for the old version. The upcaster
/// is called each time an old event is read as this type, also by projections and reactors.
///
/// An upcaster is a `fn(Value) -> Result<Value, E>`, where `E` implements `Display`; see
/// [`Value`](crate::Value). It runs on the thread that reads. A panic in it is a panic of that thread, and an
/// error is [`ErrorKind::Undecodable`](crate::ErrorKind::Undecodable).
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
/// let stream = store.stream("customer:7");
/// let events: Vec<CustomerEvent> = stream.map(|event| event?.to()).collect::<Result<_, _>>()?;
/// assert_eq!(events, [
///     CustomerEvent::Registered { first: "Ada".to_owned(), last: "Lovelace".to_owned(), country: None },
///     CustomerEvent::Moved { to: "London".to_owned() },
/// ]);
/// # Ok::<(), Error>(())
/// ```
///
/// | to | do |
/// |---|---|
/// | add a field | raise the version; `Value::unchanged` if it has a serde default, else an upcaster |
/// | drop a field | raise the version; `Value::unchanged` |
/// | rename, split or merge fields, change a type | raise the version; an upcaster |
/// | rename a variant | write its old kind out with `kind` |
/// | rename a kind | the new `kind`, and the old one as `alias` |
/// | merge two kinds | one variant, and the other kind as `alias(..)` with upcasters of its own |
/// | split one event into two | add the two, and keep the old variant with `#[serde(skip_serializing)]` |
///
/// One stored event is always read as one event. `annals::test::EventsLock` (feature `test-kit`) is a test of
/// one line. It fails if a shape changes and its version does not.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no event type",
    label = "this is no event type",
    note = "write #[derive(serde::Serialize, serde::Deserialize, annals::DomainEvent)] and #[event(prefix = \"..\")] above it"
)]
pub trait DomainEvent: EventData + Sized {
    /// The kinds that the type reads: each of its own, followed by the former kinds that became it. Empty if
    /// the trait is implemented by hand. `annals::test::EventsLock` (feature `test-kit`) needs it.
    const KINDS: &'static [KnownKind] = &[];

    /// Whether the type reads events of this kind.
    fn knows(kind: &str) -> bool;

    /// Reads an event back.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Undecodable`](crate::ErrorKind::Undecodable) if the type does not know the event's kind
    /// or version, if the bytes are of another type, or if an upcaster fails. [`Error::undecodable`] has the
    /// details. [`ErrorKind::Erased`](crate::ErrorKind::Erased) if the payload was erased.
    fn from_recorded(event: &RecordedEvent) -> Result<Self, Error>;
}

impl RecordedEvent {
    /// Reads the event as an event type, after its upcasters.
    ///
    /// [`RecordedEvent::decode`] reads a payload as any type, and checks neither kind nor version.
    ///
    /// # Errors
    ///
    /// The errors of [`DomainEvent::from_recorded`].
    pub fn to<E: DomainEvent>(&self) -> Result<E, Error> {
        E::from_recorded(self)
    }
}

/// A recorded event without its payload: position, version, names, times and causality.
#[derive(Clone, Copy, Debug)]
pub struct Meta<'a> {
    event: &'a RecordedEvent,
}

impl<'a> Meta<'a> {
    /// The metadata of an event.
    #[must_use]
    pub fn of(event: &'a RecordedEvent) -> Meta<'a> {
        Meta { event }
    }

    /// The id of the event.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.event.id()
    }

    /// The position of the event in the store.
    #[must_use]
    pub fn position(&self) -> Position {
        self.event.position()
    }

    /// The version of the event in its stream.
    #[must_use]
    pub fn version(&self) -> Version {
        self.event.version()
    }

    /// The entity of the event.
    #[must_use]
    pub fn entity(&self) -> &'a str {
        self.event.entity()
    }

    /// The scope of the event.
    #[must_use]
    pub fn scope(&self) -> &'a str {
        self.event.scope()
    }

    /// Entity and scope.
    #[must_use]
    pub fn coordinate(&self) -> Coordinate {
        self.event.coordinate()
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> &'a str {
        self.event.kind()
    }

    /// The version of the payload's shape that it was stored with.
    #[must_use]
    pub fn schema_version(&self) -> u16 {
        self.event.schema_version()
    }

    /// The tags, in the order in which they were given.
    pub fn tags(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        self.event.tags()
    }

    /// The time at which the store recorded the event.
    #[must_use]
    pub fn recorded_at(&self) -> SystemTime {
        self.event.recorded_at()
    }

    /// The time at which the event happened, if the application gave it.
    #[must_use]
    pub fn occurred_at(&self) -> Option<SystemTime> {
        self.event.occurred_at()
    }

    /// The correlation id; see [`RecordedEvent::correlation`].
    #[must_use]
    pub fn correlation(&self) -> EventId {
        self.event.correlation()
    }

    /// The cause, if the application gave one.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.event.cause()
    }

    /// Decodes the metadata, if there is any.
    ///
    /// # Errors
    ///
    /// The errors of [`RecordedEvent::metadata`].
    pub fn metadata<T: Deserialize<'a>>(&self) -> Result<Option<T>, Error> {
        self.event.metadata()
    }

    /// The recorded event.
    #[must_use]
    pub fn event(&self) -> &'a RecordedEvent {
        self.event
    }
}
