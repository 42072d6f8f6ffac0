//! An append on its way: wait for it, poll it, or await it.
//!
//! Row: ticket. Uses the reader to compare a retried append with the one its key belongs to.

use std::future::{Future, IntoFuture};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use oneshot::{AsyncReceiver, Receiver, RecvTimeoutError};

use crate::engine::append::Request;
use crate::engine::queue::{Outcome, Queue, Reply, poisoned};
use crate::event::Appended;
use crate::format::{Fields, Record, records};
use crate::read::{LogView, reader};
use crate::types::system::gate::BYPASSED;
use crate::types::{Error, ErrorKind, EventId, Position, SYSTEM_SCOPE};

/// An append that was submitted.
///
/// Many may be in flight at once; the store decides them in the order they were submitted.
/// Dropping a ticket does not cancel the append. A ticket is also a future's source: `ticket.await`
/// works under any executor.
///
/// ```
/// use annals::{Append, Raw, Store};
///
/// let store = Store::in_memory()?;
/// let tickets: Vec<_> = (0..100)
///     .map(|n| Append::to("sensor:7").event(&Raw("sensor.read", &n)).submit(&store))
///     .collect::<Result<_, _>>()?;
/// for ticket in tickets {
///     ticket.wait()?;
/// }
/// assert_eq!(store.version("sensor:7")?.get(), 100);
/// # Ok::<(), annals::Error>(())
/// ```
#[must_use = "a dropped ticket leaves it open whether the append went through"]
pub struct Ticket {
    reply: Receiver<Reply>,
    receiver: Resolver,
}

/// What is needed to turn the writer's reply into the caller's result.
struct Resolver {
    view: Arc<LogView>,
    queue: Arc<Queue>,
}

impl Ticket {
    pub(crate) fn new(reply: Receiver<Reply>, view: Arc<LogView>, queue: Arc<Queue>) -> Ticket {
        Ticket { reply, receiver: Resolver { view, queue } }
    }

    /// Waits for the outcome.
    ///
    /// # Errors
    ///
    /// Whatever [`Append::commit`](crate::Append::commit) may answer.
    pub fn wait(self) -> Result<Appended, Error> {
        self.check_process()?;
        let reply = self.reply.recv();
        self.receiver.resolve(reply.ok())
    }

    /// Waits at most so long; gives the ticket back if there is no outcome yet.
    ///
    /// # Errors
    ///
    /// The outer error is the ticket itself; the inner result is that of [`Ticket::wait`].
    pub fn wait_timeout(self, timeout: Duration) -> Result<Result<Appended, Error>, Ticket> {
        if let Err(error) = self.check_process() {
            return Ok(Err(error));
        }
        let Some(deadline) = Instant::now().checked_add(timeout) else { return Ok(self.wait()) };
        match self.reply.recv_deadline(deadline) {
            Err(RecvTimeoutError::Timeout) => Err(self),
            reply => Ok(self.receiver.resolve(reply.ok())),
        }
    }

    /// The receipt of the append whose key this one has; `None` if it was refused for anything else.
    /// `Busy` after the deadline: nothing is ever written of it.
    pub(crate) fn wait_for_key(self, deadline: Option<Duration>) -> Result<Option<Appended>, Error> {
        self.check_process()?;
        let reply = match deadline.and_then(|deadline| Instant::now().checked_add(deadline)) {
            None => self.reply.recv().ok(),
            Some(deadline) => match self.reply.recv_deadline(deadline) {
                Err(RecvTimeoutError::Timeout) => return Err(unlooked()),
                reply => reply.ok(),
            },
        };
        let Reply { outcome, request } = reply.ok_or_else(|| self.receiver.unanswered())?;
        match outcome {
            Outcome::Seen(position) => {
                let is_it = |first: &Given<'_>| first.may_be_asked_for_by(&request);
                first_receipt(&self.receiver.view, position, is_it)?
                    .map(Some)
                    .ok_or_else(|| other_command(position))
            }
            Outcome::Done(Err(error)) if error.kind() == ErrorKind::Conflict => Ok(None),
            Outcome::Done(done) => done.map(|_| None),
        }
    }

    /// A process that was forked meanwhile would wait for ever.
    fn check_process(&self) -> Result<(), Error> {
        if self.is_done() { Ok(()) } else { self.receiver.queue.check_process() }
    }

    /// Whether [`Ticket::wait`] would return at once.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.reply.has_message() || self.reply.is_closed()
    }
}

impl IntoFuture for Ticket {
    type Output = Result<Appended, Error>;
    type IntoFuture = Pending;

    fn into_future(self) -> Pending {
        Pending { reply: self.reply.into_future(), receiver: self.receiver }
    }
}

/// The future of a [`Ticket`].
pub struct Pending {
    reply: AsyncReceiver<Reply>,
    receiver: Resolver,
}

impl Future for Pending {
    type Output = Result<Appended, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Appended, Error>> {
        let waker = Waker::from(Arc::new(Caught(context.waker().clone())));
        let reply = Pin::new(&mut self.reply).poll(&mut Context::from_waker(&waker));
        reply.map(|reply| self.receiver.resolve(reply.ok()))
    }
}

/// A waker that keeps its panics to itself. It is called on the writer thread, and in the middle of
/// the reply channel, which would not survive them either.
struct Caught(Waker);

impl Wake for Caught {
    fn wake(self: Arc<Caught>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Caught>) {
        if catch_unwind(AssertUnwindSafe(|| self.0.wake_by_ref())).is_err() {
            tracing::error!("the waker of an awaited append panicked");
        }
    }
}

impl Resolver {
    fn resolve(&self, reply: Option<Reply>) -> Result<Appended, Error> {
        let Some(Reply { outcome, request }) = reply else { return Err(self.unanswered()) };
        match outcome {
            Outcome::Done(done) => done.map(|receipt| {
                let brought = request.brought.map(|brought| brought.ids).unwrap_or_default();
                receipt.bringing(brought).without_last(request.system_events)
            }),
            Outcome::Seen(position) => replayed(&self.view, position, &request),
        }
    }

    /// The writer is gone, and took the append with it.
    fn unanswered(&self) -> Error {
        let why = self.queue.verdict().map_or_else(|| "the writer ended".to_owned(), Error::to_string);
        let text = format!(
            "it is not known whether this append was written ({why}); reopen the store and read back, or retry with its key"
        );
        Error::new(ErrorKind::CommitUnknown, text)
    }
}

/// The answer to an append whose key is known: the receipt of the first one, if it is the same.
fn replayed(view: &LogView, position: Position, request: &Request) -> Result<Appended, Error> {
    let is_it =
        |first: &Given<'_>| first.is_same(&Given::of_request(request)) && first.may_be_asked_for_by(request);
    first_receipt(view, position, is_it)?.ok_or_else(|| {
        let text = format!("the idempotency key belongs to another append, at position {position}; use a new key for new content");
        Error::new(ErrorKind::KeyReused, text)
    })
}

/// The receipt of the append at a position, if it is the one that is looked for.
fn first_receipt(
    view: &LogView,
    position: Position,
    is_it: impl FnOnce(&Given<'_>) -> bool,
) -> Result<Option<Appended>, Error> {
    let found = reader::with_frame(&view.snapshot(), position, |header, body| {
        let given = Given::of_frame(body, header.events());
        let receipt = || Appended::new(header, position).bringing(brought_in(body, header.events()));
        is_it(&given).then(|| receipt().into_replayed().without_last(given.system))
    })?;
    Ok(found.flatten())
}

/// The ids that the events of an append brought along, each with the index of its event.
fn brought_in(body: &[u8], events: u16) -> Vec<(u16, EventId)> {
    let ids = records(body, events).map(|record| record.ok()?.foreign_id());
    ids.zip(0..).filter_map(|(id, index)| Some((index, id?))).collect()
}

/// The events of an append, of which the last may be remarks: no part of what its caller gave. A retry need not
/// bring the same ones, it may find other gates to pass by.
struct Given<'a> {
    body: &'a [u8],
    events: u16,
    /// How many of the last are the store's own, and how many of these are remarks.
    system: u16,
    remarks: u16,
}

impl<'a> Given<'a> {
    fn of_request(request: &'a Request) -> Given<'a> {
        Given {
            body: &request.body,
            events: request.events,
            system: request.system_events,
            remarks: request.remarks,
        }
    }

    fn of_frame(body: &'a [u8], events: u16) -> Given<'a> {
        let last = |is_so: fn(&Record<'_>) -> bool| {
            records(body, events).fold(0_u16, |last, record| match record {
                Ok(record) if is_so(&record) => last.saturating_add(1),
                _ => 0,
            })
        };
        let system = last(|record| record.scope() == SYSTEM_SCOPE);
        let remarks = last(|record| record.scope() == SYSTEM_SCOPE && record.kind() == BYPASSED);
        Given { body, events, system, remarks }
    }

    fn own(&self) -> u16 {
        self.events.saturating_sub(self.remarks)
    }

    /// Whether the append may have been asked for by the command of another with its key, if that has one.
    fn may_be_asked_for_by(&self, request: &Request) -> bool {
        let Some((command, key)) = request.command.zip(request.key) else { return true };
        let first = records(self.body, self.events).next();
        first.is_some_and(|first| first.is_ok_and(|first| command.may_be_of(&key, &first)))
    }

    fn is_same(&self, other: &Given<'_>) -> bool {
        let pairs = records(self.body, self.events).zip(records(other.body, other.events));
        self.own() == other.own()
            && pairs
                .take(self.own().into())
                .all(|pair| matches!(pair, (Ok(one), Ok(other)) if is_same(&one, &other)))
    }
}

/// Salts differ by nature, metadata from try to try, and when a timer is set is not said by the caller. Of an
/// erased event only the public part is left to compare: its salt went on purpose with what it salted.
fn is_same(one: &Record<'_>, other: &Record<'_>) -> bool {
    let fields = one.fields();
    let mut other_fields = Fields { has_metadata: fields.has_metadata, ..other.fields() };
    if fields.scope == SYSTEM_SCOPE {
        other_fields.occurred_at = fields.occurred_at;
    }
    fields == other_fields && one.payload().is_none_or(|payload| other.payload() == Some(payload))
}

/// What an append is told that was not answered within the deadline for acknowledgements.
pub(crate) fn late(deadline: Duration) -> Error {
    let text = format!(
        "the append was not acknowledged within {deadline:?}; it may still be written: read back, or retry with its key"
    );
    Error::new(ErrorKind::CommitUnknown, text)
}

fn unlooked() -> Error {
    let text = "the idempotency key was not looked up within the deadline for acknowledgements; nothing was written, try again later";
    Error::new(ErrorKind::Busy, text)
}

/// What a command is told whose key belongs to another one.
fn other_command(position: Position) -> Error {
    let text = format!(
        "the idempotency key belongs to another command, whose append is at position {position}; use a new key for a new command"
    );
    Error::new(ErrorKind::KeyReused, text)
}

/// What everybody is told once the writer has failed.
pub(crate) fn refused(queue: &Queue) -> Option<Error> {
    queue.verdict().map(poisoned)
}
