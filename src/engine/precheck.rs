//! What an append's decision rests on: looked up by the caller, looked at again by the writer.
//!
//! The caller answers from the indexes up to the published head, on its own thread: where its streams
//! stand, whether its key is known, whether its conditions hold. The writer answers for what came since:
//! published meanwhile, or staged in the group it is deciding. That it has in memory. Events are only ever
//! added, so what the caller found stays found.
//! Row: append. Tested by tests/it/condition.rs.

use crate::engine::append::{Brought, Request};
use crate::engine::decide::{Known, StreamHead};
use crate::event::{Ids, belongs_to, matches};
use crate::format::{Frame, Record, records};
use crate::read::{LogView, Snapshot, first_match};
use crate::types::{Error, ErrorKind, EventId, FailedCondition, KeyWindow, Position, Query};

/// On the caller's thread: how things stand in what is published.
///
/// # Errors
///
/// If a segment that must be looked into cannot be read; then nothing can be decided.
pub(crate) fn resolve(request: &mut Request, snapshot: &Snapshot, window: KeyWindow) -> Result<(), Error> {
    let head = snapshot.head.position;
    request.known = Known::default();
    // What lies in the segment that is written to the writer knows itself, and if that is all nobody need look.
    if snapshot.segments.len() > 1 {
        request.known.up_to = head;
        for target in &mut request.targets {
            let (version, last) = snapshot.stream_head(&target.entity)?;
            target.head = StreamHead { version, last };
        }
        if let Some(key) = &request.key {
            request.known.key = snapshot.key(key, oldest(window, head))?;
        }
    }
    if let Some(brought) = &mut request.brought {
        (brought.resolved, brought.taken) = (head, None);
        for (_, id) in &brought.ids {
            if let Some(position) = known_as(*id, snapshot)? {
                brought.taken = Some((*id, position));
                break;
            }
        }
    }
    let Some(conditions) = &mut request.conditions else { return Ok(()) };
    (conditions.resolved, conditions.unmet) = (head, None);
    for condition in &conditions.all {
        let found = first_match(&snapshot.segments, &condition.query, condition.after, head)?;
        if let Some(first_match) = found {
            let (query, after) = (condition.query.clone(), condition.after);
            conditions.unmet = Some(FailedCondition { query, after, first_match });
            break;
        }
    }
    Ok(())
}

/// What the caller found to keep the append from going in. A key comes before that, and only the writer knows
/// all keys.
pub(crate) fn refusal(request: &Request) -> Option<Error> {
    let unmet = request.conditions.as_ref().and_then(|conditions| conditions.unmet.clone());
    let taken = request.brought.as_ref().and_then(|brought| brought.taken);
    let refusal = unmet.map(Error::condition_failed).or_else(|| taken.map(|(id, at)| id_taken(id, at)));
    refusal.filter(|_| request.key.is_none())
}

/// The position of the event that an id finds.
fn known_as(id: EventId, snapshot: &Snapshot) -> Result<Option<Position>, Error> {
    let claimed = id.claimed_position();
    match derived_at(claimed, snapshot) {
        Ok(derived) if derived == Some(id) => Ok(Some(claimed)),
        // An event that is damaged is found by no id, and keeps no append from going in.
        Err(error) if error.kind() != ErrorKind::Corrupt => Err(error),
        _ => snapshot.foreign_since(id, Position::START),
    }
}

/// The id that the store derived for the event at a position, if there is one.
fn derived_at(position: Position, snapshot: &Snapshot) -> Result<Option<EventId>, Error> {
    if position == Position::START || position > snapshot.head.position {
        return Ok(None);
    }
    let Some(segment) = snapshot.segment_of(position) else { return Ok(None) };
    let Some(place) = segment.locate(position)? else { return Ok(None) };
    let block = snapshot.block(segment, &place.frame)?;
    Ok(Some(block.header(segment.file()?, place.frame.start)?.event_id(position)))
}

/// What an append is told of which an event brings an id along that another one has.
pub(crate) fn id_taken(id: EventId, position: Position) -> Error {
    Error::invalid(format!(
        "the id {id} that an event brings along is that of the event at position {position} already; an id names one event: \
         leave out what is in the store, or give it another id"
    ))
}

/// On the caller's thread, for the many appends about which the writer knows all: that they bring nothing it has to be
/// told. `false` if something must be looked up.
pub(crate) fn needs_nothing(request: &mut Request, view: &LogView) -> bool {
    if request.key.is_some() || request.conditions.is_some() || request.brought.is_some() {
        return false;
    }
    let known = view.last_segment_has_all(request.targets.iter().map(|target| &*target.entity));
    request.known = Known { up_to: known.unwrap_or_default(), key: None };
    known.is_some()
}

/// The oldest position whose key may still count for an append after `head`.
fn oldest(window: KeyWindow, head: Position) -> Position {
    match window {
        KeyWindow::Unlimited => Position::START,
        KeyWindow::Positions(window) => head.get().saturating_sub(window).into(),
    }
}

/// On the writer: what keeps the append from going in. The snapshot's segments are known up to `written`;
/// `staged` are the frames behind that, each with its first position.
///
/// # Errors
///
/// As [`resolve`].
pub(crate) fn unmet<'a>(
    request: &Request,
    snapshot: &Snapshot,
    written: Position,
    staged: impl Iterator<Item = (Position, Frame<'a>)> + Clone,
) -> Result<Option<FailedCondition>, Error> {
    if let Some(brought) = &request.brought {
        check_new(brought, snapshot)?;
    }
    let Some(conditions) = &request.conditions else { return Ok(None) };
    if conditions.unmet.is_some() {
        return Ok(conditions.unmet.clone());
    }
    for condition in &conditions.all {
        check_after(condition.after, written, staged.clone())?;
        let since = condition.after.max(conditions.resolved);
        let found = match first_match(&snapshot.segments, &condition.query, since, written)? {
            None => {
                staged.clone().find_map(|(first, frame)| first_in(&frame, first, &condition.query, since))
            }
            found => found,
        };
        if let Some(first_match) = found {
            let (query, after) = (condition.query.clone(), condition.after);
            return Ok(Some(FailedCondition { query, after, first_match }));
        }
    }
    Ok(None)
}

/// That a decision rests on no position that the log does not have: it was made about another history, and events that
/// come to stand there now would be passed over.
fn check_after<'a>(
    after: Position,
    written: Position,
    staged: impl Iterator<Item = (Position, Frame<'a>)>,
) -> Result<(), Error> {
    if after <= written {
        return Ok(());
    }
    let last = staged.last().map(|(first, frame)| first.get() + u64::from(frame.header.events()) - 1);
    let end = last.map_or(written, Position::from);
    if after <= end {
        return Ok(());
    }
    let text = format!(
        "the append has a condition after position {after}, and the log ends at {end}: it was decided on another history; \
         read again, and decide again"
    );
    Err(Error::new(ErrorKind::RolledBack, text))
}

/// That no event that is written has an id that the append brings along. What is staged the ledger knows.
fn check_new(brought: &Brought, snapshot: &Snapshot) -> Result<(), Error> {
    if let Some((id, position)) = brought.taken {
        return Err(id_taken(id, position));
    }
    for (_, id) in &brought.ids {
        if let Some(position) = snapshot.foreign_since(*id, brought.resolved)? {
            return Err(id_taken(*id, position));
        }
    }
    Ok(())
}

/// The first event of a frame, which begins at `first`, that matches after a position.
fn first_in(frame: &Frame<'_>, first: Position, query: &Query, after: Position) -> Option<Position> {
    let first_ids = || Ids::of_first(frame, first);
    let is_match = |record: &Record<'_>| matches(query, record, |id| belongs_to(id, record, first_ids));
    let events = (0..).zip(records(frame.body, frame.header.events()));
    let positions = events.filter(|(_, record)| record.as_ref().is_ok_and(is_match));
    positions.map(|(index, _)| first.plus(index)).find(|position| *position > after)
}
