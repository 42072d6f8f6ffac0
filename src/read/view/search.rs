//! Answers from the indexes of the segments, without reading events.
//!
//! An index may already hold events that are not published: whoever asks says up to where.
//! Row: view.

use std::ops::Range;
use std::sync::Arc;

use crate::index::{NameSummary, EventLocation, NameFilter, Direction};
use crate::types::{Error, EventId, Position, Query};

use super::segment::ForeignId;
use super::{Segment, Snapshot};

/// Which events correlations find by the event's own id: the id, and the position of its event.
///
/// A lone event without a correlation has its own id as one, which is not in the index; only the
/// event knows. An id without an entry has no such event.
pub(crate) type SelfCorrelations = Vec<(EventId, Position)>;

impl Segment {
    /// The ordinals of these positions, as far as its index knows them.
    pub(crate) fn clip(&self, positions: &Range<u64>) -> Range<u32> {
        let known = self.ordinals();
        let clip = |position: u64| self.ordinal(position.max(self.first_position())).unwrap_or(u32::MAX);
        clip(positions.start)..clip(positions.end).min(known.end)
    }

    /// The places of at most `most` matching events in a window of ordinals, the first ones of their way.
    pub(crate) fn matching(
        &self,
        query: &Query,
        own: &SelfCorrelations,
        window: &Range<u32>,
        direction: Direction,
        most: usize,
    ) -> Result<Vec<EventLocation>, Error> {
        if window.is_empty() {
            return Ok(Vec::new());
        }
        self.ask(|index| index.matching(query, window, direction, &|id| self.own(own, id), most))
    }

    /// The position of the first matching event in a window of ordinals, by its way.
    pub(crate) fn first_matching(
        &self,
        query: &Query,
        own: &SelfCorrelations,
        window: &Range<u32>,
        direction: Direction,
    ) -> Result<Option<Position>, Error> {
        let found = self.matching(query, own, window, direction, 1)?;
        Ok(found.first().map(|place| self.position(place.ordinal).into()))
    }

    /// How many events in a window of ordinals match.
    pub(crate) fn count(&self, query: &Query, own: &SelfCorrelations, window: &Range<u32>) -> Result<u64, Error> {
        self.ask(|index| index.count(query, window, &|id| self.own(own, id)))
    }

    /// Whether any event in a window of ordinals matches.
    pub(crate) fn exists(&self, query: &Query, own: &SelfCorrelations, window: &Range<u32>) -> Result<bool, Error> {
        self.ask(|index| index.exists(query, window, &|id| self.own(own, id)))
    }

    /// Whether the index itself knows that an event belongs to a correlation.
    pub(crate) fn correlates(&self, id: EventId, position: Position) -> Result<bool, Error> {
        match self.ordinal(position.get()) {
            Some(ordinal) => self.ask(|index| index.correlates(id, ordinal)),
            None => Ok(false),
        }
    }

    /// At most `most` names that have events in a window of ordinals, in order.
    pub(crate) fn listed(
        &self,
        wanted: &NameFilter,
        window: &Range<u32>,
        most: usize,
    ) -> Result<Vec<NameSummary>, Error> {
        self.ask(|index| index.listed(wanted, window, most))
    }

    fn own(&self, own: &SelfCorrelations, id: EventId) -> Option<u32> {
        let (_, position) = own.iter().find(|(known, _)| *known == id)?;
        self.ordinal(position.get())
    }
}

/// What caused what, as far as the indexes know it.
impl Snapshot {
    /// The positions of the events that name this id as their cause.
    pub(crate) fn effects_of(&self, id: EventId) -> Result<Vec<Position>, Error> {
        let mut effects = Vec::new();
        for segment in self.segments.iter() {
            let found = segment.ask(|index| index.effects(id))?;
            let positions = found.into_iter().map(|ordinal| segment.position(ordinal));
            let published = positions.take_while(|position| *position <= self.head.position.get());
            effects.extend(published.map(Position::from));
        }
        Ok(effects)
    }

    /// The position of the next event of a stream, if its cause is the one before.
    pub(crate) fn follower_of(&self, entity: &str, position: Position) -> Result<Option<Position>, Error> {
        let query = Query::entity(entity);
        let Some(next) = first_match(&self.segments, &query, position, self.head.position)? else {
            return Ok(None);
        };
        let found = self.segment_of(next).and_then(|segment| Some((segment, segment.ordinal(next.get())?)));
        let Some((segment, ordinal)) = found else { return Ok(None) };
        Ok(segment.ask(|index| index.is_follower(ordinal))?.then_some(next))
    }

    /// The position of the first event that brought this id along.
    pub(crate) fn foreign(&self, id: EventId) -> Result<Option<Position>, Error> {
        self.foreign_since(id, Position::START)
    }

    /// The same, of the segments that have events after a position.
    pub(crate) fn foreign_since(&self, id: EventId, since: Position) -> Result<Option<Position>, Error> {
        let id = ForeignId::new(id);
        let later = self.segments.partition_point(|segment| segment.first_position() <= since.get());
        for segment in self.segments.get(later.saturating_sub(1)..).unwrap_or_default() {
            if let Some(position) = segment.foreign(&id)? {
                return Ok(Some(position).filter(|position| *position <= self.head.position));
            }
        }
        Ok(None)
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
///
/// # Errors
///
/// If there is no index on the disk, and the segment cannot be read.
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
        if let Some(found) = segment.first_matching(query, &SelfCorrelations::new(), &window, Direction::Forward)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
