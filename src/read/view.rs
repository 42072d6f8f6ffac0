//! The published log: the view that the writer publishes to, and the snapshots that readers take of it.
//!
//! The writer publishes a group under short locks. Invariant: the head moves only after everything up to it
//! is in the indexes.
//!
//! A reader holds a snapshot and no lock while it reads. An index may already hold events that are not
//! published; every answer of a snapshot is limited by the snapshot's head.

use std::ops::Range;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use parking_lot::RwLock;

use crate::format::{Hash, SegmentId};
use crate::index::{Direction, TermHash};
use crate::log::{Block, Effect, LogEnd};
use crate::types::{Error, EventId, Position, Query, SubscriptionLag, Version};

use super::segment::{Segment, SelfCorrelations, TermLookup};
use super::segment_cache::SealedSegment;
use super::tail_cache::TailCache;
use super::watch::{CloseReason, SubscriptionCursor, SubscriptionCursors, Visibility, WakerId, Watchers};

/// A position, and the chain hash there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChainPosition {
    pub(crate) position: Position,
    pub(crate) chain: Hash,
}

impl From<ChainPosition> for (Position, Hash) {
    fn from(at: ChainPosition) -> (Position, Hash) {
        (at.position, at.chain)
    }
}

impl From<&LogEnd> for ChainPosition {
    fn from(end: &LogEnd) -> ChainPosition {
        ChainPosition { position: end.position.into(), chain: end.chain }
    }
}

/// One consistent state of the published log.
#[derive(Clone)]
pub(crate) struct Snapshot {
    /// In order of position. Empty only in a store read beside a writer that has acknowledged nothing.
    pub(crate) segments: Arc<Vec<Arc<Segment>>>,
    pub(crate) head: ChainPosition,
    pub(crate) durable: ChainPosition,
    /// MANIFEST's history revision. State that was folded at another revision is void.
    pub(crate) history: u64,
    tail: Arc<TailCache>,
}

impl Snapshot {
    /// The number of segment files.
    pub(crate) fn files(&self) -> usize {
        self.segments.iter().filter(|segment| segment.begins_a_file()).count()
    }

    /// The bytes of all segment files, up to their last frames.
    pub(crate) fn bytes(&self) -> u64 {
        let last_parts = self
            .segments
            .iter()
            .enumerate()
            .filter(|(index, _)| self.segments.get(index + 1).is_none_or(|next| next.begins_a_file()));
        last_parts.map(|(_, segment)| u64::from(segment.end())).sum()
    }

    /// The bytes of memory that the indexes of sealed segments take.
    pub(crate) fn index_bytes(&self) -> u64 {
        self.segments.iter().filter_map(|segment| segment.as_sealed()).map(SealedSegment::index_bytes).sum()
    }

    /// The bytes of sealed segments that are in memory.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.segments
            .iter()
            .filter_map(|segment| segment.as_sealed())
            .map(SealedSegment::resident_bytes)
            .sum()
    }

    /// All published positions.
    pub(crate) fn positions(&self) -> Range<u64> {
        0..self.head.position.get() + 1
    }

    /// A block that holds `frame`.
    pub(crate) fn block(&self, segment: &Segment, frame: &Range<u32>) -> Result<Block, Error> {
        self.next_block(segment, frame, frame, None)
    }

    /// A block that holds `frame`. It comes from memory, if the frame was written lately or its segment is
    /// resident. Otherwise `run`, which contains the frame, is read from the file. The memory of `old` is
    /// reused if no event holds it.
    pub(crate) fn next_block(
        &self,
        segment: &Segment,
        frame: &Range<u32>,
        run: &Range<u32>,
        old: Option<Block>,
    ) -> Result<Block, Error> {
        match self.tail.block(segment.id(), frame, run) {
            Some(block) => Ok(block),
            None => segment.block(run, old),
        }
    }

    /// A block in memory that holds `frame`, and perhaps more of `run`.
    pub(crate) fn block_in_memory(
        &self,
        segment: &Segment,
        frame: &Range<u32>,
        run: &Range<u32>,
    ) -> Option<Block> {
        self.tail.block(segment.id(), frame, run).or_else(|| segment.resident())
    }

    /// The segment that holds a position.
    pub(crate) fn segment_of(&self, position: Position) -> Option<&Arc<Segment>> {
        let later = self.segments.partition_point(|segment| segment.first_position() <= position.get());
        self.segments.get(later.checked_sub(1)?)
    }

    /// The segments that may hold events after a position.
    fn segments_since(&self, position: Position) -> &[Arc<Segment>] {
        let later = self.segments.partition_point(|segment| segment.first_position() <= position.get());
        self.segments.get(later.saturating_sub(1)..).unwrap_or_default()
    }

    /// The version of a stream and the position of its last event; zeros for a stream without events.
    ///
    /// # Errors
    ///
    /// This one and those below: if an index is missing and its segment cannot be read.
    pub(crate) fn stream_head(&self, entity: &str) -> Result<(Version, Position), Error> {
        self.stream_head_at(entity, self.head.position)
    }

    /// [`Snapshot::stream_head`], if the stream has events after `seen`. Searches only the segments since
    /// then. May also answer if all events are earlier.
    pub(crate) fn stream_head_since(
        &self,
        entity: &str,
        seen: Position,
    ) -> Result<Option<(Version, Position)>, Error> {
        let lookup = TermLookup::new(entity);
        newest(self.segments_since(seen), |segment| segment.head_of(&lookup, self.head.position))
    }

    /// [`Snapshot::stream_head`] as of `head`, which is not after the snapshot's.
    pub(crate) fn stream_head_at(&self, entity: &str, head: Position) -> Result<(Version, Position), Error> {
        let lookup = TermLookup::new(entity);
        Ok(newest(&self.segments, |segment| segment.head_of(&lookup, head))?.unwrap_or_default())
    }

    /// The position of the last append with this key, searched in the segments from `since` on.
    pub(crate) fn key(&self, key: &[u8; 16], since: Position) -> Result<Option<Position>, Error> {
        let lookup = TermLookup::new(key);
        newest(self.segments_since(since), |segment| {
            if !segment.may_have(&lookup, |origin| TermHash::key(origin, key))? {
                return Ok(None);
            }
            let found = segment.ask(|index| index.key(key))?;
            let position = found.map(|ordinal| Position::from(segment.position(ordinal)));
            Ok(position.filter(|position| *position <= self.head.position))
        })
    }

    /// The positions of the events that name this id as their cause.
    pub(crate) fn effects_of(&self, id: EventId) -> Result<Vec<Position>, Error> {
        let mut effects = Vec::new();
        for segment in self.segments.iter() {
            let ordinals = segment.ask(|index| index.effects(id))?;
            let positions = ordinals.into_iter().map(|ordinal| segment.position(ordinal));
            let published = positions.take_while(|position| *position <= self.head.position.get());
            effects.extend(published.map(Position::from));
        }
        Ok(effects)
    }

    /// The position of the next event of a stream, if its cause is the event at `position`.
    pub(crate) fn follower_of(&self, entity: &str, position: Position) -> Result<Option<Position>, Error> {
        let query = Query::entity(entity);
        let Some(next) = first_match(&self.segments, &query, position, self.head.position)? else {
            return Ok(None);
        };
        let Some(segment) = self.segment_of(next) else { return Ok(None) };
        let Some(ordinal) = segment.ordinal(next.get()) else { return Ok(None) };
        Ok(segment.ask(|index| index.is_follower(ordinal))?.then_some(next))
    }

    /// The position of the first event that was imported with this id, searched in the segments that have
    /// events after `since`.
    pub(crate) fn foreign_since(&self, id: EventId, since: Position) -> Result<Option<Position>, Error> {
        let lookup = TermLookup::new(id.as_bytes());
        for segment in self.segments_since(since) {
            if !segment.may_have(&lookup, |origin| TermHash::foreign_id(origin, id.as_bytes()))? {
                continue;
            }
            if let Some(ordinal) = segment.ask(|index| index.foreign(id))? {
                let position = Position::from(segment.position(ordinal));
                return Ok(Some(position).filter(|position| *position <= self.head.position));
            }
        }
        Ok(None)
    }
}

/// The answer of the newest segment that has one.
fn newest<T>(
    segments: &[Arc<Segment>],
    ask: impl Fn(&Segment) -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    for segment in segments.iter().rev() {
        if let Some(answer) = ask(segment)? {
            return Ok(Some(answer));
        }
    }
    Ok(None)
}

/// The position of the first event after `after`, up to `up_to`, that a query without a correlation matches.
/// Reads no event.
///
/// # Errors
///
/// If an index is missing and its segment cannot be read.
pub(crate) fn first_match(
    segments: &[Arc<Segment>],
    query: &Query,
    after: Position,
    up_to: Position,
) -> Result<Option<Position>, Error> {
    let positions = after.get().saturating_add(1)..up_to.get().saturating_add(1);
    let first = segments.partition_point(|segment| segment.first_position() <= positions.start);
    for segment in &segments[first.saturating_sub(1)..] {
        if segment.first_position() >= positions.end {
            break;
        }
        let window = segment.clip(&positions);
        let found = segment.first_matching(query, &SelfCorrelations::new(), &window, Direction::Forward)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The live view of the log: the writer publishes to it, readers take snapshots of it and wait on it.
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
