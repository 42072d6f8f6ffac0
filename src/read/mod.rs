//! Reading: snapshots of what is published, the segment cache, the reader, listings, causes, subscriptions.

pub(crate) mod causality;
mod listing;
mod notification;
pub(crate) mod reader;
mod segment_cache;
pub(crate) mod story;
mod subscription;
mod view;

pub(crate) use causality::cause_of;
pub use causality::{Ancestors, Descendants};
pub use listing::{Listing, NameCount};
pub(crate) use notification::Listeners;
pub use notification::{NextNotice, Notice, Notification, Notifications};
pub(crate) use reader::AtHand;
pub use reader::{Read, ReadAhead};
pub(crate) use reader::{by_either_id, event_at, token_at};
pub(crate) use segment_cache::{Budgets, SealedMeta, SealedSegment, SegmentCache};
pub(crate) use segment_cache::{build_last_index, index_is_pending, settle};
pub use story::{Story, StoryEvent};
pub(crate) use subscription::next_batch;
pub use subscription::{NextEvent, Subscription};
pub(crate) use view::{End, Point, Reach, Segment, Snapshot, View, first_match};
