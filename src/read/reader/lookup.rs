//! Looks up in a snapshot without a read: single events, how many events match, the first and the newest.
//!
//! Single events are found by position, id or time, and read. The other answers come from the indexes and
//! read no event, with one exception. The index does not know whether a lone event is its own correlation, so
//! that event is read. All hold for the head of the snapshot.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use crate::event::RecordedEvent;
use crate::format::{Frame, HEADER_BYTES_MAX};
use crate::index::{Direction, EventLocation};
use crate::log::Block;
use crate::read::segment::{Segment, SelfCorrelations};
use crate::read::view::Snapshot;
use crate::types::{Error, EventId, Item, Position, Query, to_u32};

use super::batch::read_one;
use super::cursor::CheckedFrame;

/// Looks up single events, and keeps the frame it read last. Events that cause one another are often in one
/// append, which may be large; a caller that looks up several of them keeps the lookup.
#[derive(Default)]
pub(crate) struct EventLookup {
    read: Option<(Arc<Segment>, Block)>,
    frame: CheckedFrame,
}

impl EventLookup {
    /// The event at a position, if it is published.
    pub(crate) fn event_at(
        &mut self,
        snapshot: &Snapshot,
        position: Position,
    ) -> Result<Option<RecordedEvent>, Error> {
        if position == Position::START || position > snapshot.head.position {
            return Ok(None);
        }
        let Some(segment) = snapshot.segment_of(position) else { return Ok(None) };
        let Some(location) = segment.locate(position)? else { return Ok(None) };
        self.event_in(snapshot, segment, &location).map(Some)
    }

    /// The event with this id: derived, or given by an import.
    pub(crate) fn event_with(
        &mut self,
        snapshot: &Snapshot,
        id: EventId,
    ) -> Result<Option<RecordedEvent>, Error> {
        if let Some(event) = self.event_at(snapshot, id.claimed_position())?
            && event.derived_id() == id
        {
            return Ok(Some(event));
        }
        match snapshot.foreign_since(id, Position::START)? {
            Some(position) => self.event_at(snapshot, position),
            None => Ok(None),
        }
    }

    fn event_in(
        &mut self,
        snapshot: &Snapshot,
        segment: &Arc<Segment>,
        location: &EventLocation,
    ) -> Result<RecordedEvent, Error> {
        let block = match &mut self.read {
            Some((own, block)) if Arc::ptr_eq(own, segment) && block.holds(&location.frame) => block,
            read => {
                self.frame.forget();
                let block = match snapshot.block_in_memory(segment, &location.frame, &location.frame) {
                    Some(block) => block,
                    None => match read_one(segment, location)? {
                        Some(event) => return Ok(event),
                        None => segment.block(&location.frame, None)?,
                    },
                };
                &mut read.insert((segment.clone(), block)).1
            }
        };
        self.frame.find(segment, block, location).map(|found| found.in_block(&block.bytes))
    }
}

/// The event at a position, if it is published.
pub(crate) fn event_at(snapshot: &Snapshot, position: Position) -> Result<Option<RecordedEvent>, Error> {
    EventLookup::default().event_at(snapshot, position)
}

/// The event with this id: derived, or given by an import.
pub(crate) fn event_with(snapshot: &Snapshot, id: EventId) -> Result<Option<RecordedEvent>, Error> {
    EventLookup::default().event_with(snapshot, id)
}

/// Reads the frame of the event at `position` and gives it to `look`.
pub(crate) fn with_frame<T>(
    snapshot: &Snapshot,
    position: Position,
    look: impl FnOnce(&Frame<'_>) -> T,
) -> Result<Option<T>, Error> {
    let Some(segment) = snapshot.segment_of(position) else { return Ok(None) };
    let Some(location) = segment.locate(position)? else { return Ok(None) };
    let block = snapshot.block(segment, &location.frame)?;
    let frame = block.frame(segment.file()?, location.frame.start)?;
    Ok(Some(look(&frame)))
}

/// The first position recorded at `micros` or later; behind the head if there is none. Recorded times never
/// go back, so this is a binary search: over the segments, then over one segment's frames.
pub(super) fn position_at_time(snapshot: &Snapshot, micros: i64) -> Result<u64, Error> {
    let Ok(micros) = u64::try_from(micros) else { return Ok(0) };
    let later = snapshot.segments.partition_point(|segment| segment.recorded_before() < micros);
    let Some(segment) = later.checked_sub(1).and_then(|last| snapshot.segments.get(last)) else {
        return Ok(0);
    };
    let Range { start: mut low, end: mut high } = segment.ordinals();
    while low < high {
        let middle = low + (high - low) / 2;
        if recorded_at(snapshot, segment, middle)? < micros {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(segment.position(low))
}

/// The bytes of a frame's header, or a few more.
pub(crate) fn header_of(frame: &Range<u32>) -> Range<u32> {
    frame.start..frame.end.min(frame.start.saturating_add(to_u32(HEADER_BYTES_MAX)))
}

/// When the first event at or behind `ordinal` was recorded, in microseconds.
fn recorded_at(snapshot: &Snapshot, segment: &Segment, ordinal: u32) -> Result<u64, Error> {
    let Some(location) = segment.ask(|index| index.locate_from(ordinal))? else { return Ok(u64::MAX) };
    let block = snapshot.block(segment, &header_of(&location.frame))?;
    Ok(block.header(segment.file()?, location.frame.start)?.recorded_at())
}

/// The query, extended so that it finds an event's correlation by either of the event's ids. A derived id and
/// an imported one name the same correlation.
pub(crate) fn by_either_id(snapshot: &Snapshot, mut query: Query) -> Result<Query, Error> {
    for at in 0..query.items.len() {
        let item = &query.items[at];
        let Some(id) = item.correlation else { continue };
        let Some(other) = event_with(snapshot, id)?.and_then(|event| event.other_id(id)) else { continue };
        let same = Item { correlation: Some(other), ..item.clone() };
        if !query.items.contains(&same) {
            query.items.push(same);
        }
    }
    Ok(query)
}

/// [`by_either_id`] without a copy for the many queries that have no correlation.
fn with_either_id<'q>(snapshot: &Snapshot, query: &'q Query) -> Result<Cow<'q, Query>, Error> {
    if query.asks_correlation() {
        by_either_id(snapshot, query.clone()).map(Cow::Owned)
    } else {
        Ok(Cow::Borrowed(query))
    }
}

/// The events in `positions` that the query's correlations find by the event's own id.
pub(super) fn self_correlations(
    snapshot: &Snapshot,
    query: &Query,
    positions: &Range<u64>,
) -> Result<SelfCorrelations, Error> {
    let mut own = SelfCorrelations::new();
    for id in query.items.iter().filter_map(|item| item.correlation) {
        let position = id.claimed_position();
        if !positions.contains(&position.get()) || own.iter().any(|(known, _)| *known == id) {
            continue;
        }
        let Some(segment) = snapshot.segment_of(position) else { continue };
        let Some(ordinal) = segment.ordinal(position.get()) else { continue };
        let is_known = segment.ask(|index| index.correlates(id, ordinal))?;
        if !is_known && event_at(snapshot, position)?.is_some_and(|event| event.belongs_to(id)) {
            own.push((id, position));
        }
    }
    Ok(own)
}

/// The number of published events that match, after one position and up to another.
pub(crate) fn count_in(
    snapshot: &Snapshot,
    query: &Query,
    after: Position,
    up_to: Position,
) -> Result<u64, Error> {
    let positions = positions_in(snapshot, after, up_to);
    let query = &*with_either_id(snapshot, query)?;
    let own = self_correlations(snapshot, query, &positions)?;
    let counts = snapshot.segments.iter().map(|segment| {
        let window = segment.clip(&positions);
        segment.ask(|index| index.count(query, &window, &|id| segment.own_ordinal(&own, id)))
    });
    counts.sum()
}

/// The position of the first published event that matches, after one position and up to another.
pub(crate) fn first_in(
    snapshot: &Snapshot,
    query: &Query,
    after: Position,
    up_to: Position,
) -> Result<Option<Position>, Error> {
    let positions = positions_in(snapshot, after, up_to);
    let query = &*with_either_id(snapshot, query)?;
    let own = self_correlations(snapshot, query, &positions)?;
    let first = |segment: &Arc<Segment>| {
        segment.first_matching(query, &own, &segment.clip(&positions), Direction::Forward).transpose()
    };
    snapshot.segments.iter().find_map(first).transpose()
}

/// The published positions after one position and up to another.
fn positions_in(snapshot: &Snapshot, after: Position, up_to: Position) -> Range<u64> {
    let published = snapshot.positions();
    let start = published.start.max(after.get().saturating_add(1));
    start..published.end.min(up_to.get().saturating_add(1)).max(start)
}

/// Whether any published event matches.
pub(crate) fn exists(snapshot: &Snapshot, query: &Query) -> Result<bool, Error> {
    let positions = snapshot.positions();
    let query = &*with_either_id(snapshot, query)?;
    let own = self_correlations(snapshot, query, &positions)?;
    for segment in snapshot.segments.iter().rev() {
        let window = segment.clip(&positions);
        if segment.ask(|index| index.exists(query, &window, &|id| segment.own_ordinal(&own, id)))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The newest published event that matches.
pub(crate) fn last(snapshot: &Snapshot, query: &Query) -> Result<Option<RecordedEvent>, Error> {
    match newest(snapshot, query)? {
        Some(position) => event_at(snapshot, position),
        None => Ok(None),
    }
}

/// The position of the newest published event that matches.
fn newest(snapshot: &Snapshot, query: &Query) -> Result<Option<Position>, Error> {
    let positions = snapshot.positions();
    let query = &*with_either_id(snapshot, query)?;
    let own = self_correlations(snapshot, query, &positions)?;
    let last = |segment: &Arc<Segment>| {
        segment.first_matching(query, &own, &segment.clip(&positions), Direction::Backward).transpose()
    };
    snapshot.segments.iter().rev().find_map(last).transpose()
}
