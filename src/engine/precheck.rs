//! The look-ups behind an append's decision: the caller does most of them, the writer only the rest.
//!
//! On its own thread, the caller looks into the indexes up to the published head. It finds the ends of its
//! streams, whether its key is known, and whether its conditions hold. The writer looks at the events since:
//! published later, or staged in the group it is deciding. These are in memory. Events are only ever added,
//! so a match that the caller found stays a match. Tested by tests/it/condition.rs.

use crate::engine::append::{Brought, Keyed, Request};
use crate::engine::decide::{KeyHash, LookedUp, StreamHead};
use crate::event::{EventIds, belongs_to, matches};
use crate::format::{Frame, Record};
use crate::read::{LogView, Snapshot, first_match, reader};
use crate::types::{Durability, Error, ErrorKind, EventId, FailedCondition, KeyWindow, Position, Query};

/// On the caller's thread: looks up what the writer does not know, and refuses an append that cannot go in.
///
/// # Errors
///
/// A condition that does not hold, or an id that is taken; an error of reading a segment that must be looked
/// into.
pub(crate) fn precheck(request: &mut Request, view: &LogView, window: KeyWindow) -> Result<(), Error> {
    let is_plain = request.key.is_none() && request.conditions.is_none() && request.brought.is_none();
    if is_plain {
        // The common case takes no snapshot: the writer knows the streams if they are in the newest segment.
        let known = view.last_segment_has_all(request.targets.iter().map(|target| &*target.entity));
        request.known = LookedUp { up_to: known.unwrap_or_default(), key: None };
        if known.is_some() {
            return Ok(());
        }
    }
    look_up(request, &view.snapshot(), window)?;
    // The writer decides about an append with a key: if the key is known, nothing else counts.
    if request.key.is_some() {
        return Ok(());
    }
    if let Some(conditions) = &request.conditions
        && let Some(failed) = &conditions.violated
    {
        return Err(Error::condition_failed(failed.clone()));
    }
    if let Some(brought) = &request.brought
        && let Some((id, position)) = brought.taken
    {
        return Err(id_taken(id, position));
    }
    Ok(())
}

/// Looks up everything the append's decision depends on, as far as it is published.
///
/// # Errors
///
/// If a segment that must be looked into cannot be read; then nothing can be decided.
pub(crate) fn look_up(request: &mut Request, snapshot: &Snapshot, window: KeyWindow) -> Result<(), Error> {
    let head = snapshot.head.position;
    request.known = look_up_key(request.key.as_ref(), snapshot, window)?;
    if snapshot.segments.len() > 1 {
        for target in &mut request.targets {
            let (version, last) = snapshot.stream_head(&target.entity)?;
            target.head = StreamHead { version, last };
        }
    }
    if let Some(brought) = &mut request.brought {
        brought.looked_up_to = head;
        brought.taken = None;
        for (_, id) in &brought.ids {
            if let Some(position) = event_with_id(*id, snapshot)? {
                brought.taken = Some((*id, position));
                break;
            }
        }
    }
    let Some(conditions) = &mut request.conditions else { return Ok(()) };
    conditions.looked_up_to = head;
    conditions.violated = None;
    for condition in &conditions.all {
        let found = first_match(&snapshot.segments, &condition.query, condition.after, head)?;
        if let Some(first_match) = found {
            let query = condition.query.clone();
            conditions.violated = Some(FailedCondition { query, after: condition.after, first_match });
            break;
        }
    }
    Ok(())
}

/// Looks for a key in the published segments. With only the newest segment, the writer knows all keys itself.
fn look_up_key(key: Option<&KeyHash>, snapshot: &Snapshot, window: KeyWindow) -> Result<LookedUp, Error> {
    if snapshot.segments.len() <= 1 {
        return Ok(LookedUp::default());
    }
    let head = snapshot.head.position;
    // Keys before this position no longer count.
    let oldest = match window {
        KeyWindow::Unlimited => Position::START,
        KeyWindow::Positions(window) => head.get().saturating_sub(window).into(),
    };
    let key = key.map(|key| snapshot.key(key, oldest)).transpose()?.flatten();
    Ok(LookedUp { up_to: head, key })
}

/// A search for the append that has a key. Only the writer knows all keys.
pub(crate) struct KeyLookup {
    pub(crate) key: KeyHash,
    /// What the published segments know of the key.
    pub(crate) known: LookedUp,
    /// How durable the append must be before the reply.
    pub(crate) durability: Option<Durability>,
}

impl KeyLookup {
    pub(crate) fn new(keyed: &Keyed, snapshot: &Snapshot, window: KeyWindow) -> Result<KeyLookup, Error> {
        let known = look_up_key(Some(&keyed.key), snapshot, window)?;
        Ok(KeyLookup { key: keyed.key, known, durability: keyed.durability })
    }

    /// Looks into the published segments again.
    pub(crate) fn look_up(&mut self, snapshot: &Snapshot, window: KeyWindow) -> Result<(), Error> {
        self.known = look_up_key(Some(&self.key), snapshot, window)?;
        Ok(())
    }
}

/// The position of the event that has this id.
fn event_with_id(id: EventId, snapshot: &Snapshot) -> Result<Option<Position>, Error> {
    let claimed = id.claimed_position();
    match derived_id_at(claimed, snapshot) {
        Ok(derived) if derived == Some(id) => Ok(Some(claimed)),
        // A damaged event is found by no id, and keeps no append from going in.
        Err(error) if error.kind() != ErrorKind::Corrupt => Err(error),
        _ => snapshot.foreign_since(id, Position::START),
    }
}

/// The id that the store derives for the event at a position, if there is one.
fn derived_id_at(position: Position, snapshot: &Snapshot) -> Result<Option<EventId>, Error> {
    if position == Position::START || position > snapshot.head.position {
        return Ok(None);
    }
    let Some(segment) = snapshot.segment_of(position) else { return Ok(None) };
    let Some(place) = segment.locate(position)? else { return Ok(None) };
    let block = snapshot.block(segment, &reader::header_of(&place.frame))?;
    Ok(Some(block.header(segment.file()?, place.frame.start)?.event_id(position)))
}

/// On the writer: the condition that keeps the append from going in, if there is one.
///
/// The snapshot's segments are known up to `written`. `staged` are the frames after it, each with its first
/// position.
///
/// # Errors
///
/// As [`look_up`]; also if a foreign id is taken by now, or a condition was made for another history.
pub(crate) fn violated_condition<'a>(
    request: &Request,
    snapshot: &Snapshot,
    written: Position,
    staged: impl Iterator<Item = (Position, Frame<'a>)> + Clone,
) -> Result<Option<FailedCondition>, Error> {
    if let Some(brought) = &request.brought {
        check_ids_free(brought, snapshot)?;
    }
    let Some(conditions) = &request.conditions else { return Ok(None) };
    if conditions.violated.is_some() {
        return Ok(conditions.violated.clone());
    }
    for condition in &conditions.all {
        check_same_history(condition.after, written, staged.clone())?;
        let since = condition.after.max(conditions.looked_up_to);
        let mut found = first_match(&snapshot.segments, &condition.query, since, written)?;
        if found.is_none() {
            found =
                staged.clone().find_map(|(first, frame)| first_in(&frame, first, &condition.query, since));
        }
        if let Some(first_match) = found {
            let query = condition.query.clone();
            return Ok(Some(FailedCondition { query, after: condition.after, first_match }));
        }
    }
    Ok(None)
}

/// Refuses a condition after a position that the log does not have: its caller decided on another history.
/// The check would skip the events that get these positions now.
fn check_same_history<'a>(
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

/// Refuses foreign ids that a written event has. [`Heads`](crate::engine::decide::Heads) knows the staged
/// ones.
fn check_ids_free(brought: &Brought, snapshot: &Snapshot) -> Result<(), Error> {
    if let Some((id, position)) = brought.taken {
        return Err(id_taken(id, position));
    }
    for (_, id) in &brought.ids {
        if let Some(position) = snapshot.foreign_since(*id, brought.looked_up_to)? {
            return Err(id_taken(*id, position));
        }
    }
    Ok(())
}

/// The first event of a frame that matches after a position. The frame's first event is at `first`.
fn first_in(frame: &Frame<'_>, first: Position, query: &Query, after: Position) -> Option<Position> {
    let first_ids = || EventIds::of_first(frame, first);
    let is_match = |record: &Record<'_>| matches(query, record, |id| belongs_to(id, record, first_ids));
    let events = frame.records().filter_map(Result::ok).filter(|(_, record)| is_match(record));
    events.map(|(index, _)| first.plus(index.into())).find(|position| *position > after)
}

/// Another event already has a foreign id of the append.
pub(crate) fn id_taken(id: EventId, position: Position) -> Error {
    Error::invalid(format!(
        "the id {id} that an event brings along is that of the event at position {position} already; an id names one event: \
         leave out what is in the store, or give it another id"
    ))
}
