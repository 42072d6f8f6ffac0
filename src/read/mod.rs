//! Reading: snapshots of the published log, the segment cache, the reader, listings, causality, subscriptions
//! and notifications.
//!
//! A reader takes a snapshot from the view and holds no lock while it reads; it never waits for the writer.

pub(crate) mod causality;
mod index_builder;
mod listing;
mod notification;
mod part_index;
pub(crate) mod reader;
mod segment;
mod segment_cache;
pub(crate) mod story;
mod subscription;
mod tail_cache;
mod view;
mod watch;

#[cfg(feature = "jsonl")]
pub(crate) use causality::cause_of;
pub use causality::{Ancestors, Descendants};
pub(crate) use index_builder::{build_last_index, build_pending_indexes, index_is_pending};
pub use listing::{Listing, NameCount};
pub(crate) use notification::Listeners;
pub use notification::{NextNotice, Notice, Notification, Notifications};
pub(crate) use part_index::PartIndexer;
#[cfg(feature = "jsonl")]
pub(crate) use reader::EventLookup;
pub use reader::{Read, ReadAhead};
pub(crate) use reader::{by_either_id, event_at, token_at};
pub(crate) use segment::Segment;
pub(crate) use segment_cache::{Budgets, SealedMeta, SealedSegment, SegmentCache};
pub use story::{Story, StoryEvent};
pub(crate) use subscription::next_batch;
pub use subscription::{NextEvent, Subscription};
pub(crate) use view::{ChainPosition, LogView, Snapshot, first_match};
pub(crate) use watch::{CloseReason, Visibility};
