//! Values: names, versions, positions, ids, queries, conditions, options, reports, errors.
//!
//! Plain data and its checks. No code here touches a file, a thread or a lock.
//!
//! The end of this file converts between lengths in memory (`usize`) and lengths on disk (`u32`, `u64`). No
//! conversion loses a bit. A length that comes from a disk is bounded before it gets here.

mod error;
mod event;
mod head;
mod maintenance_report;
pub(crate) mod options;
mod query;
mod report;
pub(crate) mod system;
pub(crate) mod text;
mod version;

pub use error::Holder;
pub(crate) use error::UnsafePath;
pub use error::{Conflict, Denial, Error, ErrorKind, FailedCondition, Undecodable, UndecodableReason};
pub use event::{AppendCondition, Cause, Coordinate, DEFAULT_SCOPE, EventData};
pub(crate) use event::{
    ENTITY_BYTES_CAP, KIND_BYTES_CAP, TAG_BYTES_CAP, check_name, check_visible, micros_of, time_of,
};
pub use head::{Head, ResumeToken};
pub use maintenance_report::{
    Compacted, CompactionPlan, CompactionShare, CompactionStats, Erasure, Finding, IndexFlaw, MissingCause,
    RewriteProgress, ScrubStats, Unhandled, VerifyProgress, VerifyReport,
};
pub(crate) use options::{ClockFn, OpenWatcher, Options};
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

/// A length in memory as 64 bits.
#[inline]
pub(crate) fn to_u64(length: usize) -> u64 {
    u64::try_from(length).expect("a length fits 64 bits")
}

/// A 32-bit length as one for slices.
#[inline]
pub(crate) fn to_usize(length: u32) -> usize {
    usize::try_from(length).expect("annals needs pointers of at least 32 bits")
}

/// A length that the caller has bounded, as 32 bits.
///
/// # Panics
///
/// If the length was not bounded.
#[inline]
pub(crate) fn to_u32(length: usize) -> u32 {
    u32::try_from(length).expect("the caller has bounded the length to 32 bits")
}
