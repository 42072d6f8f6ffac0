//! Events in and out: the payload codec, typed events and upcasters, recorded events, receipts.

mod appended;
pub(crate) mod codec;
mod recorded;
mod tree;
mod typed;

pub use appended::Appended;
pub(crate) use codec::Node;
pub use codec::{Raw, Value};
pub use recorded::RecordedEvent;
pub(crate) use recorded::{EventIds, belongs_to, matches};
pub use tree::{TreeHead, TreeLeaf, TreeProof};
#[cfg(feature = "test-kit")]
pub(crate) use typed::Form;
#[doc(hidden)]
pub use typed::derive;
pub(crate) use typed::unknown_kind;
pub use typed::{DomainEvent, KnownKind, Meta};
