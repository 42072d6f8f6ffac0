//! Events in and out: the payload codec, typed events and upcasters, recorded events, receipts.

mod appended;
pub(crate) mod codec;
mod recorded;
mod typed;

pub use appended::Appended;
pub(crate) use codec::Node;
pub use codec::{Raw, Value};
pub use recorded::RecordedEvent;
pub(crate) use recorded::{Ids, belongs_to, matches};
#[doc(hidden)]
pub use typed::derive;
pub use typed::{DomainEvent, KnownKind, Meta};
pub(crate) use typed::{Form, unknown_kind};
