//! Answers that need no events, or one: how many, whether any, which is the newest.
//!
//! The index answers, up to the head of the snapshot. Only whether a lone event is its own
//! correlation is not in the index; that one event is read.
//! Row: reader.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use crate::event::RecordedEvent;
use crate::index::Direction;
use crate::read::view::{SelfCorrelations, Segment, Snapshot};
use crate::types::{Error, Item, Position, Query};

use super::{event_at, event_with};

/// The query that also asks by the other id, wherever a correlation is one of the two ids of an event: both
/// have one story.
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

/// The same, where most queries ask for none.
fn either<'q>(snapshot: &Snapshot, query: &'q Query) -> Result<Cow<'q, Query>, Error> {
    if query.asks_correlation() {
        by_either_id(snapshot, query.clone()).map(Cow::Owned)
    } else {
        Ok(Cow::Borrowed(query))
    }
}

/// Which of the query's correlations find an event in `positions` by its own id.
pub(super) fn own(snapshot: &Snapshot, query: &Query, positions: &Range<u64>) -> Result<SelfCorrelations, Error> {
    let mut own = SelfCorrelations::new();
    for id in query.items.iter().filter_map(|item| item.correlation) {
        let position = id.claimed_position();
        if !positions.contains(&position.get()) || own.iter().any(|(known, _)| *known == id) {
            continue;
        }
        let Some(segment) = snapshot.segment_of(position) else { continue };
        let is_known = segment.correlates(id, position)?;
        if !is_known && event_at(snapshot, position)?.is_some_and(|event| event.belongs_to(id)) {
            own.push((id, position));
        }
    }
    Ok(own)
}

/// How many published events match.
pub(crate) fn count(snapshot: &Snapshot, query: &Query) -> Result<u64, Error> {
    count_in(snapshot, query, Position::START, snapshot.head.position)
}

/// How many events match after one position and up to another.
pub(crate) fn count_in(
    snapshot: &Snapshot,
    query: &Query,
    after: Position,
    up_to: Position,
) -> Result<u64, Error> {
    let positions = positions_in(snapshot, after, up_to);
    let query = &*either(snapshot, query)?;
    let own = own(snapshot, query, &positions)?;
    let counts =
        snapshot.segments.iter().map(|segment| segment.count(query, &own, &segment.clip(&positions)));
    counts.sum()
}

/// The first event that matches after one position and up to another.
pub(crate) fn first_in(
    snapshot: &Snapshot,
    query: &Query,
    after: Position,
    up_to: Position,
) -> Result<Option<Position>, Error> {
    let positions = positions_in(snapshot, after, up_to);
    let query = &*either(snapshot, query)?;
    let own = own(snapshot, query, &positions)?;
    let first = |segment: &Arc<Segment>| {
        segment.first_matching(query, &own, &segment.clip(&positions), Direction::Forward).transpose()
    };
    snapshot.segments.iter().find_map(first).transpose()
}

/// The positions after one and up to another that are published.
fn positions_in(snapshot: &Snapshot, after: Position, up_to: Position) -> Range<u64> {
    let published = snapshot.positions();
    let start = published.start.max(after.get().saturating_add(1));
    start..published.end.min(up_to.get().saturating_add(1)).max(start)
}

/// Whether any published event matches.
pub(crate) fn exists(snapshot: &Snapshot, query: &Query) -> Result<bool, Error> {
    let positions = snapshot.positions();
    let query = &*either(snapshot, query)?;
    let own = own(snapshot, query, &positions)?;
    for segment in snapshot.segments.iter().rev() {
        if segment.exists(query, &own, &segment.clip(&positions))? {
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
    let query = &*either(snapshot, query)?;
    let own = own(snapshot, query, &positions)?;
    let last = |segment: &Arc<Segment>| {
        segment.first_matching(query, &own, &segment.clip(&positions), Direction::Backward).transpose()
    };
    snapshot.segments.iter().rev().find_map(last).transpose()
}
