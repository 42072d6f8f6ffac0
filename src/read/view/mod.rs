//! What readers may see: the segments with their indexes, and how far the log is published.
//!
//! The writer publishes a group under short locks; a reader takes a snapshot of the segment list
//! and the head, and holds no lock while it reads.
//! Invariant: the head is moved only after everything up to it is in the indexes.
//! Row: view.

mod cursors;
mod tail;
mod search;
mod segment;
mod wake;

use std::ops::Range;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::format::{Hash, SegmentId};
use crate::log::{Block, Effect, LogEnd};
use crate::read::segment_cache::SealedSegment;
use crate::types::{Error, Position, Version};

pub(crate) use cursors::SubscriptionCursor;
use cursors::SubscriptionCursors;
use tail::TailCache;
pub(crate) use search::{SelfCorrelations, first_match};
pub(crate) use segment::Segment;
use segment::{Entity, Key};
use wake::Watchers;
pub(crate) use wake::{CloseReason, Visibility, WakerId, wake};

/// A place in the log and the chain hash there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChainPosition {
    pub(crate) position: Position,
    pub(crate) chain: Hash,
}

impl From<ChainPosition> for (Position, Hash) {
    fn from(point: ChainPosition) -> (Position, Hash) {
        (point.position, point.chain)
    }
}

impl From<&LogEnd> for ChainPosition {
    fn from(tip: &LogEnd) -> ChainPosition {
        ChainPosition { position: tip.position.into(), chain: tip.chain }
    }
}

pub(crate) struct LogView {
    published: RwLock<Snapshot>,
    tail: Arc<TailCache>,
    watchers: Watchers,
    cursors: SubscriptionCursors,
}

/// One consistent state of the view.
#[derive(Clone)]
pub(crate) struct Snapshot {
    /// In order of position; never empty. (A store read beside a writer that has acknowledged nothing has none.)
    pub(crate) segments: Arc<Vec<Arc<Segment>>>,
    pub(crate) head: ChainPosition,
    pub(crate) durable: ChainPosition,
    /// MANIFEST's history revision: what was folded from another one is void.
    pub(crate) history: u64,
    tail: Arc<TailCache>,
}

impl LogView {
    /// A view that keeps up to `recent_bytes_max` of what is published in memory.
    pub(crate) fn new(segments: Vec<Arc<Segment>>, head: ChainPosition, recent_bytes_max: usize) -> LogView {
        let tail = Arc::new(TailCache::new(recent_bytes_max));
        let segments = Arc::new(segments);
        LogView {
            published: RwLock::new(Snapshot {
                segments,
                head,
                durable: head,
                history: 0,
                tail: tail.clone(),
            }),
            tail,
            watchers: Watchers::default(),
            cursors: SubscriptionCursors::default(),
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.published.read().clone()
    }

    /// The newest position within reach.
    pub(crate) fn head_at(&self, visibility: Visibility) -> Position {
        let published = self.published.read();
        match visibility {
            Visibility::Published => published.head.position,
            Visibility::Durable => published.durable.position,
        }
    }

    /// If the last segment has events of all these entities, or there is no other: the position before its first. A
    /// writer that knows that segment need not be told of them.
    pub(crate) fn end_has_all<'a>(&self, entities: impl Iterator<Item = &'a str>) -> Option<Position> {
        let published = self.published.read();
        let last = published.segments.last()?;
        let known = published.segments.len() == 1 || last.has_all(entities);
        known.then(|| last.first_position().saturating_sub(1).into())
    }

    /// Lets readers see up to `head`; whatever lies before it was inserted into its index before.
    pub(crate) fn publish(&self, head: ChainPosition, durable: ChainPosition) {
        let mut published = self.published.write();
        (published.head, published.durable) = (head, durable);
    }

    /// Keeps the bytes of a group that was written to `segment` at `start`, and is published next.
    pub(crate) fn keep(&self, segment: &Segment, start: u32, group: &[u8]) {
        self.tail.add(segment.id(), start, group);
    }

    /// Begins again with what recovery found.
    pub(crate) fn replace(&self, segments: Vec<Arc<Segment>>, head: ChainPosition) {
        let (segments, tail) = (Arc::new(segments), self.tail.clone());
        let mut published = self.published.write();
        // Of what was published recovery may have cut what was not durable.
        tail.clear();
        *published = Snapshot { segments, head, durable: head, history: published.history, tail };
    }

    /// The history revision is this one, or was raised to it. In the latter case wake those who fold.
    pub(crate) fn set_history(&self, history: u64) {
        self.published.write().history = history;
    }

    pub(crate) fn history(&self) -> u64 {
        self.published.read().history
    }

    /// Puts a rewritten segment in the place of the files it was made of, and gives back these. Who reads goes on
    /// with what it has. If something went, what was written lately is forgotten: it may be what had to go.
    pub(crate) fn exchange_files(
        &self,
        old: &[SegmentId],
        one: Arc<Segment>,
        effect: Effect,
    ) -> Vec<Arc<Segment>> {
        let mut published = self.published.write();
        if effect == Effect::History {
            self.tail.clear();
        }
        let is_old = |segment: &Arc<Segment>| old.contains(&segment.id());
        let Some(first) = published.segments.iter().position(is_old) else { return Vec::new() };
        let segments = Arc::make_mut(&mut published.segments);
        let count = segments.iter().skip(first).take_while(|segment| is_old(segment)).count();
        segments.splice(first..first + count, [one]).collect()
    }

    /// Adds the segment that the log goes on in.
    pub(crate) fn add_segment(&self, segment: Arc<Segment>) {
        let mut published = self.published.write();
        Arc::make_mut(&mut published.segments).push(segment);
    }

    /// Puts one segment in the place of others, which follow one another and hold the same events. Who reads
    /// goes on with those it has.
    pub(crate) fn exchange(&self, others: &[Arc<Segment>], one: Arc<Segment>) {
        let mut published = self.published.write();
        let is_first =
            |segment: &Arc<Segment>| others.first().is_some_and(|first| Arc::ptr_eq(first, segment));
        let Some(first) = published.segments.iter().position(is_first) else { return };
        let segments = Arc::make_mut(&mut published.segments);
        segments.splice(first..first + others.len(), [one]);
    }
}

impl Snapshot {
    /// How many files the segments are.
    pub(crate) fn files(&self) -> usize {
        self.segments.iter().filter(|segment| segment.begins_a_file()).count()
    }

    /// How long they are together, up to their last frames.
    pub(crate) fn bytes(&self) -> u64 {
        let ends = self
            .segments
            .iter()
            .enumerate()
            .filter(|(index, _)| self.segments.get(index + 1).is_none_or(|next| next.begins_a_file()));
        ends.map(|(_, segment)| u64::from(segment.end())).sum()
    }

    /// How many bytes of the indexes of those that change no more are in memory.
    pub(crate) fn index_bytes(&self) -> u64 {
        self.segments.iter().filter_map(|segment| segment.as_sealed()).map(SealedSegment::index_bytes).sum()
    }

    /// How many bytes of those that change no more are in memory.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.segments
            .iter()
            .filter_map(|segment| segment.as_sealed())
            .map(SealedSegment::resident_bytes)
            .sum()
    }

    /// Whether there is more than the one segment that is written to.
    pub(crate) fn has_more_than_the_end(&self) -> bool {
        self.segments.len() > 1
    }

    /// A block that holds `frame`.
    pub(crate) fn block(&self, segment: &Segment, frame: &Range<u32>) -> Result<Block, Error> {
        self.next_block(segment, frame, frame, None)
    }

    /// A block that holds `frame`: from memory if it was written lately or its segment is there, else `run`, which
    /// lies around it, from the file, in the memory of an old block if that is free.
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

    /// The segment that holds a position.
    pub(crate) fn segment_of(&self, position: Position) -> Option<&Arc<Segment>> {
        let later = self.segments.partition_point(|segment| segment.first_position() <= position.get());
        self.segments.get(later.checked_sub(1)?)
    }

    /// The version of a stream and the position of its last event.
    ///
    /// # Errors
    ///
    /// This and what follows: if an index is gone and its segment cannot be read.
    pub(crate) fn stream_head(&self, entity: &str) -> Result<(Version, Position), Error> {
        self.stream_head_at(entity, self.head.position)
    }

    /// The same, if there are events of it after `seen`; costs the segments since, not all. It may answer for
    /// earlier ones, too.
    pub(crate) fn stream_head_since(
        &self,
        entity: &str,
        seen: Position,
    ) -> Result<Option<(Version, Position)>, Error> {
        let later = self.segments.partition_point(|segment| segment.first_position() <= seen.get());
        let since = self.segments.get(later.saturating_sub(1)..).unwrap_or_default();
        newest(since, |segment| segment.head_of(&Entity::new(entity), self.head.position))
    }

    /// The same as of `head`, which is not after the snapshot's.
    pub(crate) fn stream_head_at(&self, entity: &str, head: Position) -> Result<(Version, Position), Error> {
        let entity = Entity::new(entity);
        Ok(newest(&self.segments, |segment| segment.head_of(&entity, head))?.unwrap_or_default())
    }

    /// The position of the last append with this key at or behind `since`.
    pub(crate) fn key(&self, key: &[u8; 16], since: Position) -> Result<Option<Position>, Error> {
        let key = Key::new(key);
        let later = self.segments.partition_point(|segment| segment.first_position() <= since.get());
        let within = self.segments.get(later.saturating_sub(1)..).unwrap_or_default();
        newest(within, |segment| segment.key(&key, self.head.position))
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
