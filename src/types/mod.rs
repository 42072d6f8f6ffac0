//! Values: names, versions, positions, ids, queries, conditions, options, reports, errors.
//!
//! Plain data and its checks. No code here touches a file, a thread or a lock.

mod coordinate;
mod error;
mod event;
mod head;
mod lengths;
mod maintenance_report;
pub(crate) mod options;
mod query;
mod report;
pub(crate) mod system;
pub(crate) mod text;
mod version;

pub use coordinate::{Coordinate, DEFAULT_SCOPE};
pub(crate) use coordinate::{ENTITY_BYTES_CAP, KIND_BYTES_CAP, TAG_BYTES_CAP, check_name, check_visible};
pub use error::Holder;
pub(crate) use error::UnsafePath;
pub use error::{Conflict, Denial, Error, ErrorKind, FailedCondition, Undecodable, UndecodableReason};
pub use event::{AppendCondition, Cause, EventData};
pub(crate) use event::{micros_of, time_of};
pub use head::{Head, ResumeToken};
pub(crate) use lengths::{to_u32, to_u64, to_usize};
pub use maintenance_report::{
    Compacted, CompactionPlan, CompactionShare, CompactionStats, Erasure, Finding, IndexFlaw, MissingCause,
    RewriteProgress, ScrubStats, Unhandled, VerifyProgress, VerifyReport,
};
pub(crate) use options::{Clock, OpenWatcher, Options};
pub use options::{Durability, KeyWindow, Limits, RestartPolicy};
pub use query::Query;
pub(crate) use query::{Effort, Item, Name};
pub(crate) use report::RECORDED_AHEAD_MAX;
pub use report::{
    CacheStats, CopyProgress, Description, IndexProgress, OpenProgress, OpenReport, Stats, StoreFile,
    SubscriptionLag, TruncatedTail, WriterState,
};
pub(crate) use system::{SYSTEM_SCOPE, is_system};
pub(crate) use text::counted;
pub use text::{visible, visible_json};
pub use version::{EventId, Expected, Position, Version};
