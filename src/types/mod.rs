//! Values: names, versions, positions, ids, queries, conditions, options, reports, errors.
//!
//! Plain data and the checks on it. Nothing here touches a file, a thread or a lock.

mod condition;
mod coordinate;
mod error;
mod event;
mod event_id;
mod head;
mod lengths;
pub(crate) mod options;
mod query;
mod report;
pub(crate) mod system;
pub(crate) mod text;
mod version;

pub use condition::AppendCondition;
pub use coordinate::{Coordinate, DEFAULT_SCOPE};
pub(crate) use coordinate::{ENTITY_BYTES_CAP, KIND_BYTES_CAP, TAG_BYTES_CAP, check_name, check_visible};
pub use error::Holder;
pub(crate) use error::UnsafePath;
pub use error::{Conflict, Denial, Error, ErrorKind, FailedCondition, Undecodable, UndecodableReason};
pub use event::{Cause, EventData};
pub(crate) use event::{micros_of, time_of};
pub use event_id::EventId;
pub use head::{Head, ResumeToken};
pub(crate) use lengths::{to_u32, to_u64, to_usize};
pub(crate) use options::{Clock, OpenWatcher, Options};
pub use options::{Durability, KeyWindow, Limits, RestartPolicy};
pub use query::Query;
pub(crate) use query::{Effort, Item, Name};
pub(crate) use report::RECORDED_AHEAD_MAX;
pub use report::{
    CacheStats, Compacted, CompactionPlan, CompactionShare, CompactionStats, CopyProgress, Description,
    Erasure, Finding, IndexFlaw, IndexProgress, MissingCause, OpenProgress, OpenReport, RewriteProgress,
    ScrubStats, Stats, StoreFile, SubscriptionLag, TruncatedTail, Unhandled, VerifyProgress, VerifyReport,
    WriterState,
};
pub(crate) use system::{SYSTEM_SCOPE, is_system};
pub(crate) use text::counted;
pub use text::{visible, visible_json};
pub use version::{Expected, Position, Version};
