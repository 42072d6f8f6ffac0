//! Replies: they wait for their group, and are sent after the writer lock is released.

use oneshot::Sender;

use crate::engine::append::Request;
use crate::engine::counters::Accepted;
use crate::engine::queue::{Answer, Reply, durability_unknown, poisoned};
use crate::event::Appended;
use crate::format::Frame;
use crate::log::Log;
use crate::read::LogView;
use crate::types::{Error, Position, to_u64};

/// The reply to a decided command, which waits until the group is committed.
pub(super) enum PendingReply {
    /// The append is staged; its frame begins at `offset`.
    Accepted { offset: u32, receipt: Appended, requester: Requester },
    /// The append is not written, or was written before.
    Answered(Answer, Requester),
    /// The position of the append that has a key.
    Key(Result<Option<Position>, Error>, Sender<Result<Option<Position>, Error>>),
    /// The group's sync makes everything before it durable.
    Synced(Sender<Result<Position, Error>>),
}

/// An append and the channel to its caller.
pub(super) struct Requester {
    pub(super) request: Box<Request>,
    pub(super) reply: Sender<Reply>,
}

impl Requester {
    /// The pending reply of an append that does not go in.
    pub(super) fn refused(self, error: Error) -> PendingReply {
        PendingReply::Answered(Answer::Done(Err(error)), self)
    }

    /// Sends the answer. A caller that gave up waiting does not hear it.
    fn answer(self, answer: Answer) {
        let _ = self.reply.send(Reply { answer, request: self.request });
    }
}

/// The frames of the staged appends, each with its first position.
pub(super) fn staged_frames<'a>(
    pending: &'a [PendingReply],
    log: &'a Log,
) -> impl Iterator<Item = (Position, Frame<'a>)> + Clone {
    pending.iter().filter_map(|pending| match pending {
        PendingReply::Accepted { offset, receipt, .. } => {
            Some((receipt.first(), log.frame_in_memory(*offset)))
        }
        _ => None,
    })
}

/// What the accepted appends add to the counters.
pub(super) fn accepted(pending: &[PendingReply]) -> Accepted {
    let mut all = Accepted::default();
    for pending in pending {
        if let PendingReply::Accepted { receipt, requester, .. } = pending {
            let request = &requester.request;
            all.appends += 1;
            all.events += u64::try_from(receipt.events()).expect("at most 65,535");
            all.event_bytes += to_u64(request.body.len());
            all.latencies.extend(request.encoded_at.map(|encoded| encoded.elapsed()));
        }
    }
    all
}

/// How a group failed.
#[derive(Clone, Copy)]
pub(super) enum Refusal {
    /// Nothing of the group was written.
    Refused,
    /// The group may have been written, and the writer takes no more appends.
    Poisoned,
    /// The group may have been written, and the writer recovers the store.
    Panicked,
}

impl PendingReply {
    /// The offset of the frame, if the append is staged.
    pub(super) fn offset(&self) -> Option<u32> {
        match self {
            PendingReply::Accepted { offset, .. } => Some(*offset),
            _ => None,
        }
    }

    /// The reply after the group was committed.
    pub(super) fn committed(self, durable: Position, poison: Option<&Error>) -> OutgoingReply {
        match self {
            PendingReply::Accepted { receipt, requester, .. } => {
                OutgoingReply::Append(Answer::Done(Ok(receipt)), requester)
            }
            PendingReply::Answered(answer, requester) => OutgoingReply::Append(answer, requester),
            PendingReply::Key(found, reply) => OutgoingReply::Key(found, reply),
            PendingReply::Synced(reply) => {
                OutgoingReply::Synced(poison.map_or(Ok(durable), |reason| Err(poisoned(reason))), reply)
            }
        }
    }

    /// Replies that the group failed. An append that was refused for another reason hears it too: the reason
    /// may be an event of the group.
    pub(super) fn refuse(self, refusal: Refusal, error: &Error) {
        // An append that may be in the log must not hear that it is not, and neither must its retry.
        let may_be_written = match &self {
            PendingReply::Accepted { .. } | PendingReply::Synced(_) => true,
            PendingReply::Answered(answer, _) => matches!(answer, Answer::KeyKnown(_)),
            PendingReply::Key(found, _) => matches!(found, Ok(Some(_))),
        };
        let error = match refusal {
            Refusal::Refused => error.clone(),
            Refusal::Panicked => durability_unknown(error),
            Refusal::Poisoned if may_be_written => durability_unknown(error),
            Refusal::Poisoned => poisoned(error),
        };
        match self {
            PendingReply::Accepted { requester, .. } | PendingReply::Answered(_, requester) => {
                requester.answer(Answer::Done(Err(error)));
            }
            PendingReply::Key(_, reply) => drop(reply.send(Err(error))),
            PendingReply::Synced(reply) => drop(reply.send(Err(error))),
        }
    }
}

/// A reply that is ready to be sent.
pub(super) enum OutgoingReply {
    Append(Answer, Requester),
    Key(Result<Option<Position>, Error>, Sender<Result<Option<Position>, Error>>),
    Synced(Result<Position, Error>, Sender<Result<Position, Error>>),
}

impl OutgoingReply {
    pub(super) fn send(self) {
        match self {
            OutgoingReply::Append(answer, requester) => requester.answer(answer),
            OutgoingReply::Key(found, reply) => drop(reply.send(found)),
            OutgoingReply::Synced(durable, reply) => drop(reply.send(durable)),
        }
    }
}

/// Replies and wake-ups to send after the writer lock is released.
#[derive(Default)]
pub(super) struct Outbox {
    pub(super) replies: Vec<OutgoingReply>,
    /// The heads may have moved, and readers may wait for that.
    pub(super) is_published: bool,
}

impl Outbox {
    /// Sends the replies first: their callers wait, and followers may do more work.
    pub(super) fn send(self, view: &LogView) {
        self.replies.into_iter().for_each(OutgoingReply::send);
        if self.is_published {
            view.wake();
        }
    }
}
