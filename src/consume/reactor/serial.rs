//! A reactor: takes an event, calls the [`Reactor`], appends its [`Reaction`] together with the checkpoint.
//!
//! After any failure the runner goes back to the checkpoint and takes the event again. There is no other way
//! to repeat an event.
//!
//! Invariant: the outputs of an event and the checkpoint behind it are in one append, whose expected version
//! is that of the append before. So a reaction that is in the store is never made again, and none is made out
//! of order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::consume::consumer::record;
use crate::engine::{Append, Ticket};
use crate::event::RecordedEvent;
use crate::store::{Store, Trouble};
use crate::types::{Coordinate, Error, ErrorKind, EventData, Position, to_u64};

use super::runner::{
    ConsumerRunner, EventProcessor, FailureCounts, HandlerError, HandlerFailure, Retry, UNWRITTEN_PAUSE,
    call_handler,
};
use super::worker::StopReason;

/// Turns an event into further events. Every closure with this signature is a reactor.
///
/// A reactor is called on a thread of its own, for one event after the other in order of position. It may
/// read the store ([`Reaction::store`]).
///
/// **The events it adds to the reaction are appended exactly once**, also after a crash. They are in one
/// append with the checkpoint behind the handled event. Other effects, such as a mail or a request, happen at
/// least once. The reactor is called again if the process ends before the append, or if the append meets a
/// conflict. Give such an effect an identity that stays the same, for example the id of the event.
pub trait Reactor: Send + 'static {
    /// Handles an event.
    ///
    /// # Errors
    ///
    /// Any error means that the event is not handled. Then nothing of the reaction is appended, and the event
    /// is tried again ([`Retry`](crate::Retry)). After the last attempt the consumer is halted at this event,
    /// durably, with this error. A panic counts as an error. The reactor is called again as it is, so a panic
    /// must not leave its own fields half changed.
    fn react(
        &mut self,
        event: &RecordedEvent,
        reaction: &mut Reaction<'_>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

impl<F> Reactor for F
where
    F: FnMut(&RecordedEvent, &mut Reaction<'_>) -> Result<(), HandlerError> + Send + 'static,
{
    fn react(&mut self, event: &RecordedEvent, reaction: &mut Reaction<'_>) -> Result<(), HandlerError> {
        self(event, reaction)
    }
}

/// The outputs of one event: handed to a [`Reactor`] together with the event.
///
/// The outputs are appended in **one append** with the checkpoint behind the event: all of them once, or
/// none. Unless an output says otherwise, it is caused by the event and has the event's correlation. With
/// buffered appends a power cut that takes back a reaction takes back its checkpoint, too.
///
/// ```
/// use annals::{Append, Expected, Query, Raw, Reaction, RecordedEvent, Store};
/// # use std::time::Duration;
///
/// let store = Store::in_memory()?;
/// let placed = Query::all().kind("order.placed");
/// store.react("billing", placed, |order: &RecordedEvent, reaction: &mut Reaction<'_>| {
///     let number: u32 = order.decode()?;
///     reaction.append(format!("payment:{number}"), &Raw("payment.requested", &number));
///     let stock = Append::to("stock").event(&Raw("stock.reserved", &number)).tag(order.entity());
///     reaction.add(stock);
///     Ok(())
/// })?;
/// let order = store.append("order:1", &Raw("order.placed", &1))?;
/// assert!(store.wait_for("billing", order.position(), Duration::from_secs(10))?);
/// assert_eq!(store.version("payment:1")?.get() + store.version("stock")?.get(), 2);
/// # Ok::<(), annals::Error>(())
/// ```
pub struct Reaction<'a> {
    store: &'a Store,
    attempt: u32,
    output: Option<Append>,
}

impl<'a> Reaction<'a> {
    pub(crate) fn new(store: &'a Store, attempt: u32) -> Reaction<'a> {
        Reaction { store, attempt, output: None }
    }

    /// Adds one event to an entity.
    ///
    /// A bad name, or a value that does not encode, fails the whole reaction, like an error of the reactor.
    pub fn append<A, E>(&mut self, address: A, event: &E)
    where
        A: TryInto<Coordinate, Error: Into<Error>>,
        E: EventData + ?Sized,
    {
        self.add(Append::to(address).event(event));
    }

    /// Adds an append: events of one entity or several, with tags, expectations and conditions of its own.
    ///
    /// All appends of a reaction become one. Of one entity only one version can be expected. The
    /// [context](Append::context) of an added append is that of the whole reaction.
    ///
    /// If an expectation or a condition does not hold, nothing of the reaction is appended. The reactor is
    /// called again, to decide on the current state: three times without a delay, then after 1 ms to 100 ms.
    /// The 20th conflict in a row counts as a failure. While the disk or the queue is full, the reactor is
    /// called again without end, and the consumer is shown as [stuck](crate::ConsumerState::Stuck).
    ///
    /// A key or a durability of its own fails the reaction. The checkpoint already makes sure that an event
    /// is handled once, and the store sets the durability.
    pub fn add(&mut self, append: Append) {
        self.output = Some(match self.output.take() {
            None => Append::empty().and(append),
            Some(output) => output.and(append),
        });
    }

    /// The store, to read from.
    ///
    /// An event that the reactor appends to it directly is not part of the reaction. It stays if the reaction
    /// fails, and is appended again when the event is handled again. A clone of this handle does not keep the
    /// store open.
    #[must_use]
    pub fn store(&self) -> &'a Store {
        self.store
    }

    /// The number of this attempt at the event: 1 for the first. A restart of the process begins at 1 again.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The collected outputs, if there are any.
    pub(crate) fn into_output(self) -> Option<Append> {
        self.output
    }
}

/// What a reactor does with events that it has itself brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnEvents {
    Ignored,
    Handled,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ReactorOptions {
    pub(super) retry: Retry,
    pub(super) own_events: OwnEvents,
    pub(super) depth_max: u32,
    pub(super) in_flight_max: usize,
}

pub(super) struct SerialProcessor<R> {
    reactor: R,
    options: ReactorOptions,
    /// Handled events whose append is not known to be in the store, oldest first.
    in_flight: VecDeque<InFlight>,
    failures: FailureCounts,
    /// Nothing is tried before this time.
    retry_at: Option<Instant>,
}

struct InFlight {
    event: RecordedEvent,
    /// `None` if the event has no outputs.
    ticket: Option<Ticket>,
}

/// Which of the events in flight are in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    /// All of them.
    All,
    /// Those before one that the store refused. The runner has gone back to that one.
    BeforeRefused,
}

impl<R: Reactor> SerialProcessor<R> {
    pub(super) fn new(reactor: R, options: ReactorOptions) -> SerialProcessor<R> {
        SerialProcessor {
            reactor,
            options,
            in_flight: VecDeque::new(),
            failures: FailureCounts::default(),
            retry_at: None,
        }
    }

    /// Calls the reactor. Returns the append of its outputs, `None` if there are none.
    fn react(
        &mut self,
        runner: &ConsumerRunner,
        store: &Store,
        event: &RecordedEvent,
    ) -> Result<Option<Append>, HandlerFailure> {
        let attempt = self.failures.failures(event.position()).saturating_add(1);
        let mut reaction = Reaction::new(store, attempt);
        call_handler(|| self.reactor.react(event, &mut reaction))?;
        let Some(output) = reaction.into_output() else { return Ok(None) };
        let depth = record::depth_of(event).saturating_add(1);
        let depth_max = self.options.depth_max;
        if depth > depth_max {
            return Err(HandlerFailure {
                reason: format!(
                    "it would be reaction {depth} of a chain, more than the {depth_max} that depth_max allows; \
                     do reactors answer each other?"
                ),
                panicked: false,
                is_final: true,
            });
        }
        let appends_ahead = self.in_flight.iter().filter(|other| other.ticket.is_some()).count();
        let appends_ahead = to_u64(appends_ahead);
        let reaction = runner.checkpoint.reaction_to(event, depth, appends_ahead);
        Ok(Some(reaction.and(output.inherit(event))))
    }

    /// Takes a handled event into flight, and waits if there are too many in flight.
    fn take_in_flight(
        &mut self,
        runner: &mut ConsumerRunner,
        store: &Store,
        event: RecordedEvent,
        ticket: Option<Ticket>,
    ) -> Result<(), StopReason> {
        if ticket.is_none() && self.in_flight.is_empty() {
            let checkpoint = &mut runner.checkpoint;
            let advanced = checkpoint.advance(store, event.position());
            let written = advanced.and_then(|()| checkpoint.write_if_due(store));
            self.failures.clear();
            return written.or_else(|error| runner.take_store_error(&error));
        }
        self.in_flight.push_back(InFlight { event, ticket });
        // An event that has failed before goes alone, so that no other is repeated because of it.
        let max = if self.failures.is_clear() { self.options.in_flight_max } else { 1 };
        while self.in_flight.len() >= max {
            if self.settle_oldest(runner)? == Settled::BeforeRefused {
                break;
            }
        }
        Ok(())
    }

    fn settle_all(&mut self, runner: &mut ConsumerRunner) -> Result<Settled, StopReason> {
        while !self.in_flight.is_empty() {
            if self.settle_oldest(runner)? == Settled::BeforeRefused {
                return Ok(Settled::BeforeRefused);
            }
        }
        Ok(Settled::All)
    }

    /// Waits for the append of the oldest event in flight.
    fn settle_oldest(&mut self, runner: &mut ConsumerRunner) -> Result<Settled, StopReason> {
        let Some(InFlight { event, ticket }) = self.in_flight.pop_front() else { return Ok(Settled::All) };
        let store = runner.store()?;
        let advanced = match ticket {
            Some(ticket) => match ticket.wait() {
                Ok(_) => runner.checkpoint.reacted(&store, &event),
                Err(error) => {
                    // The appends behind it are refused as well: each expects the checkpoint of the one
                    // before.
                    for ticket in self.in_flight.drain(..).filter_map(|other| other.ticket) {
                        drop(ticket.wait());
                    }
                    self.take_refusal(runner, event.position(), &error)?;
                    return Ok(Settled::BeforeRefused);
                }
            },
            None => runner.checkpoint.advance(&store, event.position()),
        };
        self.failures.clear();
        advanced.map_err(StopReason::of_read)?;
        Ok(Settled::All)
    }

    /// The store has refused the reaction to the event at `position`. Nothing is in flight.
    fn take_refusal(
        &mut self,
        runner: &mut ConsumerRunner,
        position: Position,
        error: &Error,
    ) -> Result<(), StopReason> {
        if runner.checkpoint.is_moved(error) {
            return runner.take_store_error(error);
        }
        let (attempts, delay) = match error.kind() {
            ErrorKind::Conflict => match self.failures.add_conflict(position) {
                Some(delay) => {
                    self.retry_after(runner, delay);
                    return Ok(());
                }
                None => return self.take_failure(runner, position, &HandlerFailure::of_append(error)),
            },
            ErrorKind::Closed | ErrorKind::CommitUnknown | ErrorKind::Poisoned | ErrorKind::Forked => {
                return runner.take_store_error(error);
            }
            _ if error.is_retryable() => self.failures.add_refusal(position),
            _ => return self.take_failure(runner, position, &HandlerFailure::of_append(error)),
        };
        show_trouble(runner, position, attempts, &error.to_string());
        self.retry_after(runner, delay);
        Ok(())
    }

    /// The event at `position` was not handled. Nothing is in flight.
    fn take_failure(
        &mut self,
        runner: &mut ConsumerRunner,
        position: Position,
        failure: &HandlerFailure,
    ) -> Result<(), StopReason> {
        let attempts = self.failures.add_failure(position);
        let delay = self.options.retry.delay_after(attempts).filter(|_| !failure.is_final);
        let name = runner.checkpoint.name();
        let reason = failure.reason.as_str();
        if let Some(delay) = delay {
            tracing::warn!(
                consumer = name,
                position = position.get(),
                attempts,
                reason,
                "will be tried again"
            );
            show_trouble(runner, position, attempts, reason);
            self.retry_after(runner, delay);
            return Ok(());
        }
        tracing::error!(consumer = name, position = position.get(), attempts, reason, "halted");
        let store = runner.store()?;
        match runner.checkpoint.halt_at(&store, position, reason, failure.panicked) {
            Ok(()) => {
                self.failures.clear();
                self.retry_after(runner, Duration::ZERO);
                Ok(())
            }
            Err(error) => {
                show_trouble(runner, position, attempts, reason);
                self.retry_after(runner, UNWRITTEN_PAUSE);
                runner.take_store_error(&error)
            }
        }
    }

    /// Goes back to the checkpoint, and continues from there after a delay.
    fn retry_after(&mut self, runner: &mut ConsumerRunner, delay: Duration) {
        runner.go_back();
        self.retry_at = Instant::now().checked_add(delay);
    }
}

impl<R: Reactor> EventProcessor for SerialProcessor<R> {
    fn collect(&mut self, _: &mut ConsumerRunner) -> Result<(), StopReason> {
        Ok(())
    }

    fn halt_if_failed(&mut self, _: &mut ConsumerRunner) -> Result<bool, StopReason> {
        // A failed event is retried, or halts the consumer, where it fails.
        Ok(false)
    }

    fn has_work(&self) -> bool {
        !self.in_flight.is_empty()
    }

    fn drain(&mut self, runner: &mut ConsumerRunner) -> Result<(), StopReason> {
        self.settle_all(runner).map(drop)
    }

    fn wait_for_results(&mut self, runner: &mut ConsumerRunner) -> Result<(), StopReason> {
        self.settle_all(runner).map(drop)
    }

    fn is_ready(&mut self, runner: &mut ConsumerRunner) -> Result<bool, StopReason> {
        if self.retry_at.is_some_and(|retry_at| Instant::now() < retry_at) {
            runner.sleep(self.retry_at);
            return Ok(false);
        }
        self.retry_at = None;
        Ok(true)
    }

    fn handle(&mut self, runner: &mut ConsumerRunner, event: RecordedEvent) -> Result<(), StopReason> {
        let store = runner.store()?;
        if self.options.own_events == OwnEvents::Ignored
            && record::is_reaction_of(&event, runner.checkpoint.entity())
        {
            return self.take_in_flight(runner, &store, event, None);
        }
        match self.react(runner, &store, &event) {
            Ok(None) => self.take_in_flight(runner, &store, event, None),
            Ok(Some(append)) => match append.submit(&store) {
                Ok(ticket) => self.take_in_flight(runner, &store, event, Some(ticket)),
                Err(error) => match self.settle_all(runner)? {
                    Settled::All => self.take_refusal(runner, event.position(), &error),
                    Settled::BeforeRefused => Ok(()),
                },
            },
            Err(failure) => match self.settle_all(runner)? {
                Settled::All => self.take_failure(runner, event.position(), &failure),
                // The earlier event is retried first, and this one after it.
                Settled::BeforeRefused => Ok(()),
            },
        }
    }

    fn reset(&mut self) {
        self.failures.clear();
        self.retry_at = None;
    }
}

/// Shows in [`ConsumerState::Stuck`](crate::ConsumerState::Stuck) what holds up an event.
fn show_trouble(runner: &ConsumerRunner, at: Position, attempts: u32, reason: &str) {
    runner.checkpoint.live().set_trouble(Trouble { at, attempts, reason: record::shortened(reason) });
}
