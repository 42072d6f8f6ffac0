//! The thread of a reactor: take an event, ask the reactor, append its outputs together with the checkpoint.
//!
//! Whatever goes wrong with an event, the thread goes back to its checkpoint and takes the event again: there is one
//! way to handle an event, and no other way to repeat one.
//! Invariant: an event's outputs and the checkpoint behind it are in one append, whose expected version is that of the
//! append before. So a reaction that is in the store is never made again, and none is made out of order.
//! Row: app.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::consume::consumer::{ConsumerCheckpoint, Feed, Found, Halt, record};
use crate::engine::{Append, Ticket};
use crate::event::RecordedEvent;
use crate::store::{RunnerCommand, Store, Trouble, WeakStore};
use crate::types::{Error, ErrorKind, Position, text};

use super::reaction::Reaction;
use super::retry::Attempts;
use super::worker::{Outcome, StopReason, end_by, ended_as_asked};
use super::{Options, Own, Reactor};

pub(super) struct Run<R> {
    store: WeakStore,
    checkpoint: ConsumerCheckpoint,
    feed: Feed,
    reactor: R,
    options: Options,
    outcome: Arc<Outcome>,
    /// Handled and not known to be in the store, oldest first.
    in_flight: VecDeque<InFlight>,
    attempts: Attempts,
    /// Nothing is tried before this.
    pause: Option<Instant>,
}

struct InFlight {
    event: RecordedEvent,
    /// `None` if it brought nothing about.
    ticket: Option<Ticket>,
}

/// What became of what was in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    /// All of it went in.
    AllIn,
    /// Something did not, and the feed goes on behind what did.
    Back,
}

/// Why a handler did not handle an event.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) reason: String,
    pub(super) panicked: bool,
    /// Trying again would not help.
    is_final: bool,
}

/// How long a checkpoint that the store does not take waits for the next try.
const UNWRITTEN_PAUSE: Duration = Duration::from_millis(100);

impl<R: Reactor> Run<R> {
    pub(super) fn new(
        store: &Store,
        checkpoint: ConsumerCheckpoint,
        feed: Feed,
        reactor: R,
        options: Options,
        outcome: Arc<Outcome>,
    ) -> Run<R> {
        Run {
            store: store.downgrade(),
            checkpoint,
            feed,
            reactor,
            options,
            outcome,
            in_flight: VecDeque::new(),
            attempts: Attempts::default(),
            pause: None,
        }
    }

    pub(super) fn run(&mut self) -> StopReason {
        loop {
            if let Err(ended) = self.turn() {
                return ended;
            }
        }
    }

    /// One look at everything it may be waiting for; `Err` is the end.
    fn turn(&mut self) -> Result<(), StopReason> {
        match self.checkpoint.live().called() {
            RunnerCommand::Go => {}
            RunnerCommand::Stop => return Err(self.stop()),
            RunnerCommand::End => return Err(StopReason::StoreClosed),
        }
        if self.checkpoint.live().is_being_moved() {
            self.settle_all()?;
            self.sleep(None);
            return Ok(());
        }
        if self.checkpoint.live().take_moved() {
            self.settle_all()?;
            return self.look_again();
        }
        if let Some(halt) = self.checkpoint.halt() {
            self.outcome.set_halted(Some(Halt::from(halt).into()));
            self.sleep(None);
            return Ok(());
        }
        if self.pause.is_some_and(|until| Instant::now() < until) {
            self.sleep(self.pause);
            return Ok(());
        }
        self.pause = None;
        match self.feed.next() {
            Ok(Some(event)) => self.handle(event),
            Ok(None) => self.rest(),
            Err(error) => Err(end_by(&error).unwrap_or(StopReason::StoreFailed(error))),
        }
    }

    fn sleep(&self, until: Option<Instant>) {
        self.checkpoint.live().sleep(until);
    }

    fn store(&self) -> Result<Store, StopReason> {
        self.store.upgrade().ok_or(StopReason::StoreClosed)
    }

    /// There is nothing to handle just now.
    fn rest(&mut self) -> Result<(), StopReason> {
        if !self.in_flight.is_empty() {
            self.settle_all()?;
            return Ok(());
        }
        let store = self.store()?;
        let written =
            self.checkpoint.pass(&store, self.feed.position()).and_then(|()| self.checkpoint.write(&store));
        match written {
            Ok(()) => self.sleep(None),
            Err(error) if error.is_retryable() => self.sleep(Instant::now().checked_add(UNWRITTEN_PAUSE)),
            Err(error) => return self.store_said(&error),
        }
        Ok(())
    }

    /// Ends as asked, and leaves as little as possible to do again.
    fn stop(&mut self) -> StopReason {
        if let Err(ended) = self.settle_all() {
            return ended;
        }
        ended_as_asked(&self.store, &mut self.checkpoint)
    }

    fn handle(&mut self, event: RecordedEvent) -> Result<(), StopReason> {
        let store = self.store()?;
        let is_own = || record::is_reaction_of(&event, self.checkpoint.entity());
        if self.options.own == Own::PassedOver && is_own() {
            return self.submitted(&store, InFlight { event, ticket: None });
        }
        match self.react(&store, &event) {
            Ok(None) => self.submitted(&store, InFlight { event, ticket: None }),
            Ok(Some(append)) => match append.submit(&store) {
                Ok(ticket) => self.submitted(&store, InFlight { event, ticket: Some(ticket) }),
                Err(error) => match self.settle_all()? {
                    Settled::AllIn => self.refused(event.position(), &error),
                    Settled::Back => Ok(()),
                },
            },
            Err(failed) => match self.settle_all()? {
                Settled::AllIn => self.failed(event.position(), &failed),
                // What went wrong before it comes first.
                Settled::Back => Ok(()),
            },
        }
    }

    /// Asks the reactor; gives the append that is to go in, if any.
    fn react(&mut self, store: &Store, event: &RecordedEvent) -> Result<Option<Append>, Failed> {
        let mut reaction = Reaction::new(store, self.attempts.failures(event.position()).saturating_add(1));
        called(|| self.reactor.react(event, &mut reaction))?;
        let Some(output) = reaction.into_output() else { return Ok(None) };
        let depth = record::depth_of(event).saturating_add(1);
        if depth > self.options.depth_max {
            return Err(Failed {
                reason: format!(
                    "it would be reaction {depth} of a chain, more than the {} that depth_max allows; \
                     do reactors answer each other?",
                    self.options.depth_max
                ),
                panicked: false,
                is_final: true,
            });
        }
        let ahead = self.in_flight.iter().filter(|other| other.ticket.is_some()).count();
        let ahead = u64::try_from(ahead).expect("a count fits 64 bits");
        Ok(Some(self.checkpoint.reaction_to(event, depth, ahead).and(output.inherit(event))))
    }

    /// Takes note of what was handled, and waits if too much is in flight.
    fn submitted(&mut self, store: &Store, handled: InFlight) -> Result<(), StopReason> {
        if handled.ticket.is_none() && self.in_flight.is_empty() {
            let noted = self
                .checkpoint
                .note(store, handled.event.position())
                .and_then(|()| self.checkpoint.write_if_due(store));
            self.attempts.clear();
            return noted.or_else(|error| self.store_said(&error));
        }
        self.in_flight.push_back(handled);
        // What has met with trouble goes alone, so that others need not be repeated with it.
        let max = if self.attempts.is_clear() { self.options.in_flight_max } else { 1 };
        while self.in_flight.len() >= max {
            if self.settle()? == Settled::Back {
                break;
            }
        }
        Ok(())
    }

    fn settle_all(&mut self) -> Result<Settled, StopReason> {
        while !self.in_flight.is_empty() {
            if self.settle()? == Settled::Back {
                return Ok(Settled::Back);
            }
        }
        Ok(Settled::AllIn)
    }

    /// Waits for the oldest of what is in flight.
    fn settle(&mut self) -> Result<Settled, StopReason> {
        let Some(InFlight { event, ticket }) = self.in_flight.pop_front() else { return Ok(Settled::AllIn) };
        let store = self.store()?;
        let outcome = match ticket {
            Some(ticket) => match ticket.wait() {
                Ok(_) => self.checkpoint.reacted(&store, &event),
                Err(error) => {
                    self.give_up_in_flight();
                    self.refused(event.position(), &error)?;
                    return Ok(Settled::Back);
                }
            },
            None => self.checkpoint.note(&store, event.position()),
        };
        self.attempts.clear();
        match outcome {
            Ok(()) => Ok(Settled::AllIn),
            Err(error) => Err(end_by(&error).unwrap_or(StopReason::StoreFailed(error))),
        }
    }

    /// One did not go in, so those after it did not either: each expects the checkpoint of the one before.
    fn give_up_in_flight(&mut self) {
        for ticket in self.in_flight.drain(..).filter_map(|other| other.ticket) {
            drop(ticket.wait());
        }
    }

    /// The store did not take a reaction to the event at `at`; nothing is in flight.
    fn refused(&mut self, at: Position, error: &Error) -> Result<(), StopReason> {
        if self.checkpoint.is_moved(error) {
            return self.look_again();
        }
        let (attempts, delay) = match error.kind() {
            ErrorKind::Conflict => match self.attempts.conflict(at) {
                Some(delay) => return self.go_back(delay),
                None => return self.failed(at, &Failed::of(error)),
            },
            ErrorKind::Closed | ErrorKind::CommitUnknown | ErrorKind::Poisoned | ErrorKind::Forked => {
                return self.store_said(error);
            }
            _ if error.is_retryable() => self.attempts.refuse(at),
            _ => return self.failed(at, &Failed::of(error)),
        };
        self.show_trouble(at, attempts, &error.to_string());
        self.go_back(delay)
    }

    /// The event at `at` could not be handled; nothing is in flight.
    fn failed(&mut self, at: Position, failed: &Failed) -> Result<(), StopReason> {
        let attempts = self.attempts.fail(at);
        let delay = self.options.retry.delay_after(attempts).filter(|_| !failed.is_final);
        let name = self.checkpoint.name();
        let reason = failed.reason.as_str();
        if let Some(delay) = delay {
            tracing::warn!(consumer = name, position = at.get(), attempts, reason, "will be tried again");
            self.show_trouble(at, attempts, reason);
            return self.go_back(delay);
        }
        tracing::error!(consumer = name, position = at.get(), attempts, reason, "halted");
        let store = self.store()?;
        match self.checkpoint.halt_at(&store, at, reason, failed.panicked) {
            Ok(()) => {
                self.attempts.clear();
                self.go_back(Duration::ZERO)
            }
            Err(error) => {
                self.show_trouble(at, attempts, reason);
                self.go_back(UNWRITTEN_PAUSE)?;
                self.store_said(&error)
            }
        }
    }

    fn show_trouble(&self, at: Position, attempts: u32, reason: &str) {
        self.checkpoint.live().set_trouble(Trouble { at, attempts, reason: record::shortened(reason) });
    }

    /// Goes on behind what was handled, after a while.
    fn go_back(&mut self, delay: Duration) -> Result<(), StopReason> {
        self.feed.go_to(self.checkpoint.handled());
        self.pause = Instant::now().checked_add(delay);
        Ok(())
    }

    /// What an error means that no event is the reason for.
    fn store_said(&mut self, error: &Error) -> Result<(), StopReason> {
        if self.checkpoint.is_moved(error) {
            return self.look_again();
        }
        end_by(error).map_or(Ok(()), Err)
    }

    /// Somebody moved the checkpoint; nothing is in flight.
    fn look_again(&mut self) -> Result<(), StopReason> {
        let store = self.store()?;
        let found = self.checkpoint.look_again(&store);
        match found.map_err(|error| end_by(&error).unwrap_or(StopReason::StoreFailed(error)))? {
            Found::Other => Err(StopReason::TakenOver),
            Found::Same | Found::Moved => {
                self.outcome.set_halted(None);
                self.attempts.clear();
                self.go_back(Duration::ZERO)
            }
        }
    }
}

impl Failed {
    fn of(error: &Error) -> Failed {
        Failed { reason: error.to_string(), panicked: false, is_final: false }
    }
}

/// Calls a handler, and keeps its panics from the thread.
pub(super) fn called(handler: impl FnOnce() -> Result<(), super::Failure>) -> Result<(), Failed> {
    let failed = match catch_unwind(AssertUnwindSafe(handler)) {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => (error.to_string(), false),
        Err(panic) => {
            (text::of_panic(panic.as_ref()).unwrap_or("a panic that said nothing").to_owned(), true)
        }
    };
    Err(Failed { reason: failed.0, panicked: failed.1, is_final: false })
}
