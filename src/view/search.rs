//! Answers from the indexes of the segments, without reading events.
//!
//! An index may already hold events that are not published: whoever asks says up to where.
//! Row: view.

use std::ops::Range;
use std::sync::Arc;

use crate::event::EventId;
use crate::index::{Entry, Place, Wanted, Way};
use crate::query::Query;
use crate::version::Position;

use super::{Segment, Snapshot};

/// Which events correlations find by the event's own id: the id, and the position of its event.
///
/// A lone event without a correlation has its own id as one, which is not in the index; only the
/// event knows. An id without an entry has no such event.
pub(crate) type Own = Vec<(EventId, Position)>;

impl Segment {
    /// The ordinals of these positions, as far as its index knows them.
    pub(crate) fn clip(&self, positions: &Range<u64>) -> Range<u32> {
        let clip = |position: u64| self.ordinal(position.max(self.first_position())).unwrap_or(u32::MAX);
        clip(positions.start)..clip(positions.end).min(self.ordinals_end())
    }

    /// The places of at most `most` matching events in a window of ordinals, the first ones of their way.
    pub(crate) fn matching(
        &self,
        query: &Query,
        own: &Own,
        window: &Range<u32>,
        way: Way,
        most: usize,
    ) -> Vec<Place> {
        let index = self.index.read();
        let ordinals = index.matching(query, window, way, |id| self.own(own, id));
        ordinals.filter_map(|ordinal| index.place(ordinal)).take(most).collect()
    }

    /// How many events in a window of ordinals match.
    pub(crate) fn count(&self, query: &Query, own: &Own, window: &Range<u32>) -> u64 {
        self.index.read().count(query, window, |id| self.own(own, id))
    }

    /// Whether any event in a window of ordinals matches.
    pub(crate) fn exists(&self, query: &Query, own: &Own, window: &Range<u32>) -> bool {
        self.index.read().exists(query, window, |id| self.own(own, id))
    }

    /// Whether the index itself knows that an event belongs to a correlation.
    pub(crate) fn correlates(&self, id: EventId, position: Position) -> bool {
        self.ordinal(position.get()).is_some_and(|ordinal| self.index.read().correlates(id, ordinal))
    }

    /// At most `most` names that have events in a window of ordinals, in order.
    pub(crate) fn listed(&self, wanted: &Wanted, window: &Range<u32>, most: usize) -> Vec<Entry> {
        self.index.read().listed(wanted, window, most)
    }

    fn own(&self, own: &Own, id: EventId) -> Option<u32> {
        let (_, position) = own.iter().find(|(known, _)| *known == id)?;
        self.ordinal(position.get())
    }
}

/// What caused what, as far as the indexes know it.
impl Snapshot {
    /// The positions of the events that name this id as their cause.
    pub(crate) fn effects_of(&self, id: EventId) -> Vec<Position> {
        let mut effects = Vec::new();
        for segment in self.segments.iter() {
            let index = segment.index.read();
            let positions = index.effects(id).iter().map(|ordinal| segment.position(*ordinal));
            let published = positions.take_while(|position| *position <= self.head.position.get());
            effects.extend(published.map(Position::from));
        }
        effects
    }

    /// The position of the next event of a stream, if its cause is the one before.
    pub(crate) fn follower_of(&self, entity: &str, position: Position) -> Option<Position> {
        let next = first_match(&self.segments, &Query::entity(entity), position, self.head.position)?;
        let segment = self.segment_of(next)?;
        let is_follower = segment.index.read().is_follower(segment.ordinal(next.get())?);
        is_follower.then_some(next)
    }

    /// The position of the first event that brought this id along.
    pub(crate) fn foreign(&self, id: EventId) -> Option<Position> {
        let found = self.segments.iter().find_map(|segment| {
            let place = segment.foreign(id)?;
            Some(segment.position(place.ordinal))
        });
        found.map(Position::from).filter(|position| *position <= self.head.position)
    }
}

impl Snapshot {
    /// Everything published, as positions.
    pub(crate) fn positions(&self) -> Range<u64> {
        0..self.head.position.get() + 1
    }
}

/// The position of the first event after `after`, up to `up_to`, that a query without a correlation
/// matches; reads no event.
pub(crate) fn first_match(
    segments: &[Arc<Segment>],
    query: &Query,
    after: Position,
    up_to: Position,
) -> Option<Position> {
    let positions = after.get().saturating_add(1)..up_to.get().saturating_add(1);
    let first = segments.partition_point(|segment| segment.first_position() <= positions.start);
    segments[first.saturating_sub(1)..].iter().find_map(|segment| {
        let window = segment.clip(&positions);
        let found = segment.matching(query, &Own::new(), &window, Way::Forward, 1);
        Some(segment.position(found.first()?.ordinal).into())
    })
}
