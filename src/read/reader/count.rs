//! Answers from the indexes: how many events match, whether any does, which is the first or the newest.
//!
//! They hold for the head of the snapshot, and read no event, with one exception. The index does not know
//! whether a lone event is its own correlation, so that event is read.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use crate::event::RecordedEvent;
use crate::index::Direction;
use crate::types::{Error, Item, Position, Query};

use super::single::{event_at, event_with};
use crate::read::segment::{Segment, SelfCorrelations};
use crate::read::snapshot::Snapshot;

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
