//! A snapshot: the segments and the heads that were published at one moment, and what their indexes answer.
//!
//! A reader holds a snapshot and no lock while it reads. An index may already hold events that are not
//! published; every answer here is limited by the snapshot's head.

use std::ops::Range;
use std::sync::Arc;

use crate::format::Hash;
use crate::index::{Direction, TermHash};
use crate::log::{Block, LogEnd};
use crate::read::segment_cache::SealedSegment;
use crate::types::{Error, EventId, Position, Query, Version};

use super::segment::{Segment, SelfCorrelations, TermLookup};
use super::tail_cache::TailCache;

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
    pub(super) tail: Arc<TailCache>,
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
