//! What is to be read, and whether the log still has the place to go on from.
//!
//! Row: reader.

use std::ops::{Bound, Range};
use std::sync::Arc;

use crate::index::Direction;
use crate::read::view::{Snapshot, LogView};
use crate::types::{Error, ErrorKind, Position, Query, ResumeToken};

use super::{Read, event_at};

pub(super) struct Plan {
    pub(super) view: Result<Arc<LogView>, Error>,
    pub(super) query: Query,
    pub(super) after: Position,
    pub(super) origin: Origin,
    pub(super) up_to: Option<Position>,
    pub(super) versions: Option<Range<u64>>,
    /// Recorded-at, half-open, in microseconds.
    pub(super) between: Option<Range<i64>>,
    /// In microseconds. No half-open range holds the last one there is.
    pub(super) occurred: Option<(Bound<i64>, Bound<i64>)>,
    pub(super) backwards: bool,
    pub(super) limit: u64,
}

impl Plan {
    /// Whether all events come, as they lie.
    pub(super) fn is_in_order(&self) -> bool {
        self.query.asks_nothing() && !self.backwards
    }

    pub(super) fn direction(&self) -> Direction {
        if self.backwards { Direction::Backward } else { Direction::Forward }
    }
}

/// What is known of a place to go on from, and what is to be made sure of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The chain hash must be this one's.
    pub(crate) token: Option<ResumeToken>,
    /// It may lie beyond the head.
    pub(crate) may_be_ahead: bool,
}

impl Origin {
    /// Of a place that was found in this very log.
    pub(crate) const KNOWN: Origin = Origin { token: None, may_be_ahead: true };

    /// That a place is one of this log. It costs a read of one event where there is a token, else nothing.
    ///
    /// Where events were removed on purpose nothing is left to be compared, and a token that names one of
    /// them is taken at its word.
    ///
    /// # Errors
    ///
    /// `RolledBack` if it is not; those of reading.
    pub(crate) fn check(self, after: Position, snapshot: &Snapshot) -> Result<(), Error> {
        let head = snapshot.head.position;
        if after > head {
            return if self.may_be_ahead { Ok(()) } else { Err(beyond(after, head)) };
        }
        let Some(token) = self.token else { return Ok(()) };
        if after == head {
            return if token.meets(&snapshot.head.chain) { Ok(()) } else { Err(other(token)) };
        }
        match event_at(snapshot, after)? {
            Some(event) if !token.meets(&event.chain()) => Err(other(token)),
            _ => Ok(()),
        }
    }
}

/// The token of a position: of the last event up to there, if that one was removed.
///
/// # Errors
///
/// `RolledBack` if it lies beyond the head; those of reading.
pub(crate) fn token_at(view: &Arc<LogView>, position: Position) -> Result<ResumeToken, Error> {
    let snapshot = view.snapshot();
    Origin::default().check(position, &snapshot)?;
    if position == snapshot.head.position {
        return Ok(ResumeToken::new(position, &snapshot.head.chain));
    }
    if let Some(event) = event_at(&snapshot, position)? {
        return Ok(event.resume_token());
    }
    let everything = Query::all().or(Query::entity_prefix("$"));
    let mut before = Read::new(Ok(view.clone()), everything).backwards();
    before.again(Position::START, position);
    Ok(before.next().transpose()?.map_or(ResumeToken::START, |event| event.resume_token()))
}

fn beyond(after: Position, head: Position) -> Error {
    let text = format!(
        "the log ends at position {head}, and position {after} lies beyond it: the store was restored, set back, or lost what \
         was not durable; begin again, or from a place that is still right (if such events are still to come, \
         allow_beyond_head() waits for them)"
    );
    Error::new(ErrorKind::RolledBack, text)
}

fn other(token: ResumeToken) -> Error {
    let text = format!(
        "the resume token {token} is of another history: the store was restored, set back, or lost what was not durable, \
         and other events stand at position {} now; undo what was made of the events, and begin again from a place that \
         is still right",
        token.position()
    );
    Error::new(ErrorKind::RolledBack, text)
}
