//! A submitted append: its caller waits for the outcome, polls it, or awaits it.
//!
//! Uses the reader to compare a retry with the append that its key belongs to.

use std::future::{Future, IntoFuture};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use oneshot::{AsyncReceiver, Receiver, RecvTimeoutError};

use crate::engine::append::{CommandHash, Keyed, Request};
use crate::engine::decide::KeyHash;
use crate::engine::queue::{Answer, Queue, Reply, unanswered};
use crate::event::Appended;
use crate::format::{AnyRecord, BodyLayout, Frame, Record, RecordFields, all_records};
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
    resolver: Resolver,
}

/// Turns the writer's reply into the caller's result.
struct Resolver {
    view: Arc<LogView>,
    queue: Arc<Queue>,
}

impl Ticket {
    pub(crate) fn new(reply: Receiver<Reply>, view: Arc<LogView>, queue: Arc<Queue>) -> Ticket {
        Ticket { reply, resolver: Resolver { view, queue } }
    }

    /// Waits for the outcome.
    ///
    /// # Errors
    ///
    /// Those of [`Append::commit`](crate::Append::commit).
    pub fn wait(self) -> Result<Appended, Error> {
        self.check_process()?;
        let reply = self.reply.recv();
        self.resolver.resolve(reply.ok())
    }

    /// Waits for the outcome up to a timeout. Without an outcome by then, returns the ticket.
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
            reply => Ok(self.resolver.resolve(reply.ok())),
        }
    }

    /// Fails in a process that was forked after the append was submitted: it would wait for ever.
    fn check_process(&self) -> Result<(), Error> {
        if self.is_done() { Ok(()) } else { self.resolver.queue.check_process() }
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
        Pending { reply: self.reply.into_future(), resolver: self.resolver }
    }
}

/// The future of a [`Ticket`].
pub struct Pending {
    reply: AsyncReceiver<Reply>,
    resolver: Resolver,
}

impl Future for Pending {
    type Output = Result<Appended, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Appended, Error>> {
        let waker = Waker::from(Arc::new(Caught(context.waker().clone())));
        let reply = Pin::new(&mut self.reply).poll(&mut Context::from_waker(&waker));
        reply.map(|reply| self.resolver.resolve(reply.ok()))
    }
}

/// A waker whose panics are caught. It runs on the writer thread, inside the reply channel: neither would
/// survive a panic.
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
        // Without a reply the writer is gone, and dropped the append.
        let Some(Reply { answer, request }) = reply else { return Err(unanswered(self.queue.poisoned())) };
        match answer {
            Answer::Done(done) => done.map(|receipt| {
                let brought = request.brought.map(|brought| brought.ids).unwrap_or_default();
                receipt.bringing(brought).without_last(request.system_events)
            }),
            Answer::KeyKnown(position) => replayed(&self.view, position, &request),
        }
    }
}

/// The result of a retry: the receipt of the append at a position, if the retry repeats it.
fn replayed(view: &LogView, position: Position, request: &Request) -> Result<Appended, Error> {
    let is_same = |first: &GivenEvents<'_>| {
        first.is_same(&GivenEvents::of_request(request)) && first.may_be_of(request.key, request.command)
    };
    receipt_if(view, position, is_same)?.ok_or_else(|| key_of_other_append(position))
}

/// The receipt of the append at a position, whose key is `keyed`.
///
/// # Errors
///
/// If the append carries out another command.
pub(crate) fn receipt_of(view: &LogView, position: Position, keyed: &Keyed) -> Result<Appended, Error> {
    let is_same = |first: &GivenEvents<'_>| first.may_be_of(Some(keyed.key), keyed.command);
    receipt_if(view, position, is_same)?.ok_or_else(|| key_of_other_command(position))
}

/// The receipt of the append at a position, if its events are the right ones.
fn receipt_if(
    view: &LogView,
    position: Position,
    is_right: impl FnOnce(&GivenEvents<'_>) -> bool,
) -> Result<Option<Appended>, Error> {
    let found = reader::with_frame(&view.snapshot(), position, |frame| {
        let events = GivenEvents::of_frame(frame);
        if !is_right(&events) {
            return None;
        }
        let receipt = Appended::new(&frame.header, position, frame.versions()).bringing(foreign_ids(frame));
        Some(receipt.into_replayed().without_last(events.system))
    })?;
    Ok(found.flatten())
}

/// The key belongs to an append with other content.
fn key_of_other_append(position: Position) -> Error {
    let text = format!(
        "the idempotency key belongs to another append, at position {position}; use a new key for new content"
    );
    Error::new(ErrorKind::KeyReused, text)
}

/// The key belongs to an append that carries out another command.
fn key_of_other_command(position: Position) -> Error {
    let text = format!(
        "the idempotency key belongs to another command, whose append is at position {position}; use a new key for a new command"
    );
    Error::new(ErrorKind::KeyReused, text)
}

/// The foreign ids of an append's events, each with the index of its event.
fn foreign_ids(frame: &Frame<'_>) -> Vec<(u16, EventId)> {
    let whole = frame.records().filter_map(Result::ok);
    whole.filter_map(|(index, record)| Some((index, record.foreign_id()?))).collect()
}

/// The events of an append. The last ones may record bypassed gates: they are no part of what the caller
/// gave, and a retry may bypass other gates.
struct GivenEvents<'a> {
    body: &'a [u8],
    layout: BodyLayout,
    /// How many events at the end are system events.
    system: u16,
    /// How many of these record bypassed gates.
    bypass: u16,
}

impl<'a> GivenEvents<'a> {
    fn of_request(request: &'a Request) -> GivenEvents<'a> {
        GivenEvents {
            body: &request.body,
            layout: request.layout(),
            system: request.system_events,
            bypass: request.bypass_events,
        }
    }

    fn of_frame(frame: &Frame<'a>) -> GivenEvents<'a> {
        let mut system = 0_u16;
        let mut bypass = 0_u16;
        for record in frame.all_records() {
            let record = record.ok().and_then(AnyRecord::event);
            let (is_system, is_bypass) = match record {
                Some(record) if record.scope() == SYSTEM_SCOPE => (true, record.kind() == BYPASSED),
                _ => (false, false),
            };
            // Only those at the end count: another event in between starts the count again.
            system = if is_system { system.saturating_add(1) } else { 0 };
            bypass = if is_bypass { bypass.saturating_add(1) } else { 0 };
        }
        GivenEvents { body: frame.body, layout: frame.header.layout(), system, bypass }
    }

    /// How many events the caller gave.
    fn given(&self) -> u16 {
        self.layout.events.saturating_sub(self.bypass)
    }

    /// Whether this append may carry out the command of another append with its key, if that one has a
    /// command.
    fn may_be_of(&self, key: Option<KeyHash>, command: Option<CommandHash>) -> bool {
        let Some((command, key)) = command.zip(key) else { return true };
        self.records().next().flatten().is_some_and(|first| command.may_be_of(&key, &first))
    }

    /// The records in order. `None` for one that is gone: nothing is left to compare.
    fn records(&self) -> impl Iterator<Item = Option<Record<'a>>> + use<'a> {
        all_records(self.body, self.layout).map(|record| record.ok()?.event())
    }

    fn is_same(&self, other: &GivenEvents<'_>) -> bool {
        let pairs = self.records().zip(other.records());
        self.given() == other.given()
            && pairs
                .take(self.given().into())
                .all(|pair| matches!(pair, (Some(one), Some(other)) if is_same(&one, &other)))
    }
}

/// Whether two records say the same.
///
/// Salts differ by nature, metadata may differ between tries, and the store sets the time of a timer. An
/// erased event has only its public part left to compare: erasure removed its salt on purpose.
fn is_same(one: &Record<'_>, other: &Record<'_>) -> bool {
    let fields = one.fields();
    let mut other_fields = RecordFields { has_metadata: fields.has_metadata, ..other.fields() };
    if fields.scope == SYSTEM_SCOPE {
        other_fields.occurred_at = fields.occurred_at;
    }
    fields == other_fields && one.payload().is_none_or(|payload| other.payload() == Some(payload))
}
