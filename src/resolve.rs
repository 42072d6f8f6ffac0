//! Whether an append's conditions hold: looked up by the caller, looked at again by the writer.
//!
//! The caller answers from the indexes up to the published head, on its own thread. The writer answers
//! for what came since: published meanwhile, or staged in the group it is deciding. Neither reads an
//! event from the disk. Events are only ever added, so what the caller found stays found.
//! Row: append. Tested by tests/it/condition.rs.

use std::sync::Arc;

use crate::append::Conditions;
use crate::error::FailedCondition;
use crate::format::frame::Frame;
use crate::format::record::{Record, records};
use crate::matching::matches;
use crate::query::Query;
use crate::version::Position;
use crate::view::{Segment, Snapshot, first_match};

/// On the caller's thread: how things stand in what is published.
pub(crate) fn resolve(conditions: &mut Conditions, snapshot: &Snapshot) {
    let head = snapshot.head.position;
    conditions.resolved = head;
    conditions.unmet = conditions.all.iter().find_map(|condition| {
        let first_match = first_match(&snapshot.segments, &condition.query, condition.after, head)?;
        Some(FailedCondition { query: condition.query.clone(), after: condition.after, first_match })
    });
}

/// On the writer: what keeps the append from going in. `segments` are known up to `written`; `staged` are
/// the frames behind that, each with its first position.
pub(crate) fn unmet<'a>(
    conditions: &Conditions,
    segments: &[Arc<Segment>],
    written: Position,
    staged: impl Iterator<Item = (Position, Frame<'a>)> + Clone,
) -> Option<FailedCondition> {
    if conditions.unmet.is_some() {
        return conditions.unmet.clone();
    }
    conditions.all.iter().find_map(|condition| {
        let since = condition.after.max(conditions.resolved);
        let first_match = first_match(segments, &condition.query, since, written).or_else(|| {
            staged.clone().find_map(|(first, frame)| first_in(&frame, first, &condition.query, since))
        })?;
        Some(FailedCondition { query: condition.query.clone(), after: condition.after, first_match })
    })
}

/// The first event of a frame, which begins at `first`, that matches after a position.
fn first_in(frame: &Frame<'_>, first: Position, query: &Query, after: Position) -> Option<Position> {
    let header = &frame.header;
    let shared = || header.event_id(first);
    let is_match =
        |record: &Record<'_>| matches(query, record, || record.correlation().unwrap_or_else(shared));
    let events = (0..).zip(records(frame.body, header.events()));
    let positions = events.filter(|(_, record)| record.as_ref().is_ok_and(is_match));
    positions.map(|(index, _)| first.plus(index)).find(|position| *position > after)
}
