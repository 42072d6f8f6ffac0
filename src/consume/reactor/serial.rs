//! A reactor: takes an event, calls the handler, appends its outputs together with the checkpoint.
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
use crate::types::{Error, ErrorKind, Position, to_u64};

use super::reaction::{Reaction, Reactor};
use super::runner::{
    ConsumerRunner, EventProcessor, FailureCounts, HandlerFailure, Retry, UNWRITTEN_PAUSE, call_handler,
};
use super::worker::StopReason;

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
