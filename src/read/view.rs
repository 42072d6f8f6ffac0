//! The live view of the log: the writer publishes to it, readers take snapshots of it and wait on it.
//!
//! The writer publishes a group under short locks. Invariant: the head moves only after everything up to it
//! is in the indexes.

use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use parking_lot::RwLock;

use crate::format::SegmentId;
use crate::log::Effect;
use crate::types::{Position, SubscriptionLag};

use super::segment::Segment;
use super::snapshot::{ChainPosition, Snapshot};
use super::tail_cache::TailCache;
use super::watch::{CloseReason, SubscriptionCursor, SubscriptionCursors, Visibility, WakerId, Watchers};

pub(crate) struct LogView {
    published: RwLock<Snapshot>,
    tail: Arc<TailCache>,
    watchers: Watchers,
    cursors: SubscriptionCursors,
}

impl LogView {
    /// A view that keeps up to `tail_bytes_max` of what is published in memory.
    pub(crate) fn new(segments: Vec<Arc<Segment>>, head: ChainPosition, tail_bytes_max: usize) -> LogView {
        let tail = Arc::new(TailCache::new(tail_bytes_max));
        let segments = Arc::new(segments);
        let snapshot = Snapshot { segments, head, durable: head, history: 0, tail: tail.clone() };
        LogView {
            published: RwLock::new(snapshot),
            tail,
            watchers: Watchers::default(),
            cursors: SubscriptionCursors::default(),
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.published.read().clone()
    }

    /// The published or the durable head.
    pub(crate) fn head_at(&self, visibility: Visibility) -> Position {
        let published = self.published.read();
        match visibility {
            Visibility::Published => published.head.position,
            Visibility::Durable => published.durable.position,
        }
    }

    /// The position before the last segment's first, if that segment has events of all these entities or is
    /// the only one. The writer knows the last segment, so an append to these entities needs no look into
    /// earlier ones.
    pub(crate) fn last_segment_has_all<'a>(
        &self,
        entities: impl Iterator<Item = &'a str>,
    ) -> Option<Position> {
        let published = self.published.read();
        let last = published.segments.last()?;
        let known = published.segments.len() == 1 || last.has_all(entities);
        known.then(|| last.first_position().saturating_sub(1).into())
    }

    /// Moves the heads. The caller has inserted everything up to `head` into the indexes.
    pub(crate) fn publish(&self, head: ChainPosition, durable: ChainPosition) {
        let mut published = self.published.write();
        published.head = head;
        published.durable = durable;
    }

    /// Keeps the bytes of a group that was written to `segment` at `start`. The caller publishes the group
    /// next.
    pub(crate) fn keep(&self, segment: &Segment, start: u32, group: &[u8]) {
        self.tail.add(segment.id(), start, group);
    }

    /// Replaces everything with the result of a recovery.
    pub(crate) fn replace(&self, segments: Vec<Arc<Segment>>, head: ChainPosition) {
        let segments = Arc::new(segments);
        let tail = self.tail.clone();
        let mut published = self.published.write();
        // Recovery may have truncated published events that were not durable, so the tail may hold bytes that
        // the files have no more. Under the lock: no snapshot pairs the new segments with the old bytes.
        tail.clear();
        *published = Snapshot { segments, head, durable: head, history: published.history, tail };
    }

    /// Sets the history revision. The caller wakes the subscriptions if the revision was raised.
    pub(crate) fn set_history(&self, history: u64) {
        self.published.write().history = history;
    }

    pub(crate) fn history(&self) -> u64 {
        self.published.read().history
    }

    /// Puts a rewritten segment in the place of the files it was made of, and returns their segments. Readers
    /// that hold a snapshot continue with the old ones.
    pub(crate) fn replace_rewritten(
        &self,
        old: &[SegmentId],
        new: Arc<Segment>,
        effect: Effect,
    ) -> Vec<Arc<Segment>> {
        let mut published = self.published.write();
        if effect == Effect::History {
            // The tail may hold the events that were removed.
            self.tail.clear();
        }
        let is_old = |segment: &Arc<Segment>| old.contains(&segment.id());
        let Some(first) = published.segments.iter().position(is_old) else { return Vec::new() };
        let segments = Arc::make_mut(&mut published.segments);
        let count = segments.iter().skip(first).take_while(|segment| is_old(segment)).count();
        segments.splice(first..first + count, [new]).collect()
    }

    /// Adds the segment that is written to next.
    pub(crate) fn add_segment(&self, segment: Arc<Segment>) {
        let mut published = self.published.write();
        Arc::make_mut(&mut published.segments).push(segment);
    }

    /// Puts one segment in the place of consecutive parts that hold the same events. Readers that hold a
    /// snapshot continue with the parts.
    pub(crate) fn replace_parts(&self, parts: &[Arc<Segment>], whole: Arc<Segment>) {
        let mut published = self.published.write();
        let is_first =
            |segment: &Arc<Segment>| parts.first().is_some_and(|first| Arc::ptr_eq(first, segment));
        let Some(first) = published.segments.iter().position(is_first) else { return };
        let segments = Arc::make_mut(&mut published.segments);
        segments.splice(first..first + parts.len(), [whole]);
    }
}

/// Waiting for the heads. The view knows the heads; `watch.rs` has the rules that lose no wake-up.
impl LogView {
    /// Waits until the head is behind `seen`, or the store has closed. `false` if the deadline came first.
    pub(crate) fn wait(&self, visibility: Visibility, seen: Position, deadline: Option<Instant>) -> bool {
        self.watchers.wait(visibility, deadline, || self.head_at(visibility) > seen)
    }

    /// Registers a waker to be called once, when the head is behind `seen` or the store has closed. `false`,
    /// and no call, if that is so already. Replaces the waker that was registered under `id` before.
    pub(crate) fn register(
        &self,
        visibility: Visibility,
        seen: Position,
        id: &mut Option<WakerId>,
        waker: Waker,
    ) -> bool {
        self.watchers.register(visibility, id, waker, || self.head_at(visibility) > seen)
    }

    pub(crate) fn unregister(&self, id: WakerId) {
        self.watchers.unregister(id);
    }

    /// Records why the store closed; the first reason stays. [`LogView::wake`] then wakes all that wait.
    pub(crate) fn close(&self, reason: CloseReason) {
        self.watchers.close(reason);
    }

    /// Why the store closed, if it has.
    pub(crate) fn close_reason(&self) -> Option<CloseReason> {
        self.watchers.close_reason()
    }

    /// Wakes those that wait for a head that has moved, or all of them once the store has closed.
    pub(crate) fn wake(&self) {
        self.watchers.wake(|visibility| self.head_at(visibility));
    }

    /// Lists a subscription until the returned cursor is dropped.
    pub(crate) fn add_subscription(&self, query: String) -> Arc<SubscriptionCursor> {
        self.cursors.add(query)
    }

    /// How far each subscription is behind the published head.
    pub(crate) fn subscription_lags(&self) -> Vec<SubscriptionLag> {
        self.cursors.lags(self.head_at(Visibility::Published))
    }
}
