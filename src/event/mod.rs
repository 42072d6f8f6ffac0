//! Events in and out: payload codec, typed events, upcasters, events as they are read, receipts.

mod appended;
pub(crate) mod codec;
mod matching;
mod recorded;
mod typed;

pub use appended::Appended;
pub use codec::{Raw, Value};
pub(crate) use matching::{Ids, belongs_to, matches};
pub use recorded::RecordedEvent;
#[doc(hidden)]
pub use typed::derive;
pub(crate) use typed::derive::{Form, unknown_kind};
pub use typed::{DomainEvent, KnownKind, Meta};
