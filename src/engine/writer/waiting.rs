//! Who waits for the writer, and what each is told.
//!
//! Row: writer.

use oneshot::Sender;

use crate::engine::append::Request;
use crate::engine::counters::Accepted;
use crate::engine::precheck::unmet;
use crate::engine::queue::{Outcome, Reply, poisoned};
use crate::event::Appended;
use crate::format::Frame;
use crate::log::Log;
use crate::read::LogView;
use crate::types::{Error, ErrorKind, FailedCondition, Position};

/// Somebody who is answered once the group is through.
pub(super) enum Waiting {
    /// The frame begins at `offset`.
    Accepted {
        offset: u32,
        receipt: Appended,
        asker: Asker,
    },
    Answered(Outcome, Asker),
    Synced(Sender<Result<Position, Error>>),
}

/// Who asked for an append, and what for.
pub(super) struct Asker {
    pub(super) request: Box<Request>,
    pub(super) reply: Sender<Reply>,
}

/// The frames of those whose append was accepted, each with its first position.
fn staged<'a>(waiting: &'a [Waiting], log: &'a Log) -> impl Iterator<Item = (Position, Frame<'a>)> + Clone {
    waiting.iter().filter_map(|waiting| match waiting {
        Waiting::Accepted { offset, receipt, .. } => Some((receipt.first(), log.frame_in_memory(*offset))),
        _ => None,
    })
}

/// The condition that keeps an append from going in, by what came since its caller looked.
pub(super) fn unmet_condition(
    request: &Request,
    view: &LogView,
    log: &Log,
    waiting: &[Waiting],
) -> Result<Option<FailedCondition>, Error> {
    if request.conditions.is_none() && request.brought.is_none() {
        return Ok(None);
    }
    unmet(request, &view.snapshot(), log.written().position.into(), staged(waiting, log))
}

/// What those whose append was accepted add to the counters.
pub(super) fn accepted(waiting: &[Waiting]) -> Accepted {
    let mut all = Accepted::default();
    for waiting in waiting {
        if let Waiting::Accepted { receipt, asker, .. } = waiting {
            all.appends += 1;
            all.events += u64::try_from(receipt.events()).expect("at most 65,535");
            all.event_bytes += u64::try_from(asker.request.body.len()).expect("a length fits 64 bits");
            all.latencies.extend(asker.request.encoded_at.map(|encoded| encoded.elapsed()));
        }
    }
    all
}

impl Asker {
    /// Whoever gave up waiting does not hear it.
    fn answer(self, outcome: Outcome) {
        let _ = self.reply.send(Reply { outcome, request: self.request });
    }
}

/// What somebody is to be told.
pub(super) enum Answer {
    Append(Outcome, Asker),
    Synced(Result<Position, Error>, Sender<Result<Position, Error>>),
}

impl Answer {
    pub(super) fn send(self) {
        match self {
            Answer::Append(outcome, asker) => asker.answer(outcome),
            Answer::Synced(outcome, reply) => drop(reply.send(outcome)),
        }
    }
}

/// What is said once the role is free again: to those who asked, and then to those who follow.
#[derive(Default)]
pub(super) struct Unsaid {
    pub(super) answers: Vec<Answer>,
    /// Somebody may be waiting for where the heads are now.
    pub(super) is_published: bool,
}

impl Unsaid {
    pub(super) fn say(self, view: &LogView) {
        self.answers.into_iter().for_each(Answer::send);
        if self.is_published {
            view.wake();
        }
    }
}

/// How a group failed.
#[derive(Clone, Copy)]
pub(super) enum Refusal {
    /// Nothing of it was written.
    Refused,
    /// It may have been written, and the store takes no more.
    Poisoned,
    /// It may have been written, and the writer begins again.
    Panicked,
}

impl Waiting {
    /// Where the frame of an accepted append begins.
    pub(super) fn offset(&self) -> Option<u32> {
        match self {
            Waiting::Accepted { offset, .. } => Some(*offset),
            _ => None,
        }
    }

    /// The group went through.
    pub(super) fn answer(self, durable: Position, poison: Option<&Error>) -> Answer {
        match self {
            Waiting::Accepted { receipt, asker, .. } => Answer::Append(Outcome::Done(Ok(receipt)), asker),
            Waiting::Answered(outcome, asker) => Answer::Append(outcome, asker),
            Waiting::Synced(reply) => {
                Answer::Synced(poison.map_or(Ok(durable), |reason| Err(poisoned(reason))), reply)
            }
        }
    }

    /// The group failed. What was refused for reasons of its own may have rested on what the group
    /// would have written, so it hears of the failure, too.
    pub(super) fn refuse(self, refusal: Refusal, error: &Error) {
        let error = match (refusal, &self) {
            (Refusal::Refused, _) => error.clone(),
            (Refusal::Panicked, _) => unknown(error),
            (Refusal::Poisoned, Waiting::Accepted { .. } | Waiting::Synced(_)) => unknown(error),
            // What was seen may have been a part of the group.
            (Refusal::Poisoned, Waiting::Answered(Outcome::Seen(_), _)) => unknown(error),
            (Refusal::Poisoned, Waiting::Answered(Outcome::Done(_), _)) => poisoned(error),
        };
        match self {
            Waiting::Accepted { asker, .. } | Waiting::Answered(_, asker) => {
                asker.answer(Outcome::Done(Err(error)))
            }
            Waiting::Synced(reply) => drop(reply.send(Err(error))),
        }
    }
}

fn unknown(reason: &Error) -> Error {
    let text = format!(
        "it is not known whether this append is durable ({reason}); reopen the store and read back, or retry with its key"
    );
    Error::with_source(ErrorKind::CommitUnknown, text, reason.clone())
}
