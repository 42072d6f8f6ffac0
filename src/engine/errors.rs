//! What a caller hears when an append cannot be answered: one text for each case.
//!
//! The kind says what a caller can rely on. `Poisoned` and `Busy`: nothing was written. `CommitUnknown`: the
//! append may be in the log.

use std::time::Duration;

use crate::types::{Error, ErrorKind, EventId, Position};

/// The store refuses an append because the writer failed before, for `reason`.
pub(crate) fn poisoned(reason: &Error) -> Error {
    let text =
        format!("the store takes no more appends ({reason}); this one was not written; reopen the store");
    Error::with_source(ErrorKind::Poisoned, text, reason.clone())
}

/// The write or sync of the append's own group failed for `reason`.
pub(crate) fn durability_unknown(reason: &Error) -> Error {
    let text = format!(
        "it is not known whether this append is durable ({reason}); reopen the store and read back, or retry with its key"
    );
    Error::with_source(ErrorKind::CommitUnknown, text, reason.clone())
}

/// The writer ended without a reply to the append.
pub(crate) fn unanswered(reason: Option<&Error>) -> Error {
    let reason = reason.map_or_else(|| "the writer ended".to_owned(), Error::to_string);
    let text = format!(
        "it is not known whether this append was written ({reason}); reopen the store and read back, or retry with its key"
    );
    Error::new(ErrorKind::CommitUnknown, text)
}

/// The writer ended without a reply to a command that is not an append.
pub(crate) fn writer_ended() -> Error {
    Error::new(ErrorKind::CommitUnknown, "the writer ended")
}

/// A panic ended the writer's work.
pub(crate) fn writer_panicked() -> Error {
    let text = "the writer panicked; this is a bug in annals, or in the disk it was given";
    Error::new(ErrorKind::CommitUnknown, text)
}

/// The append has no reply within the deadline for acknowledgements.
pub(crate) fn not_acknowledged(deadline: Duration) -> Error {
    let text = format!(
        "the append was not acknowledged within {deadline:?}; it may still be written: read back, or retry with its key"
    );
    Error::new(ErrorKind::CommitUnknown, text)
}

/// The key has no reply within the deadline for acknowledgements.
pub(crate) fn key_not_looked_up() -> Error {
    let text = "the idempotency key was not looked up within the deadline for acknowledgements; nothing was written, try again later";
    Error::new(ErrorKind::Busy, text)
}

/// The queue is full, and the caller cannot or may no longer wait.
pub(crate) fn queue_full() -> Error {
    Error::new(ErrorKind::Busy, "the queue to the writer is full; nothing was written, try again later")
}

/// The key belongs to an append with other content.
pub(crate) fn key_of_other_append(position: Position) -> Error {
    let text = format!(
        "the idempotency key belongs to another append, at position {position}; use a new key for new content"
    );
    Error::new(ErrorKind::KeyReused, text)
}

/// The key belongs to an append that carries out another command.
pub(crate) fn key_of_other_command(position: Position) -> Error {
    let text = format!(
        "the idempotency key belongs to another command, whose append is at position {position}; use a new key for a new command"
    );
    Error::new(ErrorKind::KeyReused, text)
}

/// Another event already has a foreign id of the append.
pub(crate) fn id_taken(id: EventId, position: Position) -> Error {
    Error::invalid(format!(
        "the id {id} that an event brings along is that of the event at position {position} already; an id names one event: \
         leave out what is in the store, or give it another id"
    ))
}
