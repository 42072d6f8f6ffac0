//! A consumer on several threads: the events of an entity in order, one checkpoint.
//!
//! One thread takes the events and gives each to the thread of its entity. Invariant: the checkpoint lies before every
//! event that is not handled.
//! Row: app.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::consume::consumer::{ConsumerCheckpoint, Feed, Found, Halt};
use crate::event::RecordedEvent;
use crate::store::{RunnerCommand, Store, WeakStore};
use crate::types::{Error, Position};

use super::lanes::{Lanes, Verdict};
use super::run::Failed;
use super::worker::{Outcome, StopReason, end_by, ended_as_asked};

pub(super) struct Partitioned {
    // Dropped first: the name is held until no handler is at work any more.
    lanes: Lanes,
    store: WeakStore,
    checkpoint: ConsumerCheckpoint,
    feed: Feed,
    outcome: Arc<Outcome>,
    /// Dispatched and behind the checkpoint, in order; whether each is through.
    dispatched: VecDeque<(Position, bool)>,
    /// How many of them are not.
    left: usize,
    /// No lane had room for it.
    held: Option<RecordedEvent>,
    /// The first event that could not be handled.
    failed: Option<(Position, Failed)>,
    /// The checkpoint could not be written because somebody moved it.
    is_moved: bool,
}

/// How long a checkpoint that the store does not take waits for the next try.
const UNWRITTEN_PAUSE: Duration = Duration::from_millis(100);
/// How many events may be through behind one that is not: those come again after a crash.
const DISPATCHED_MAX: usize = 4096;

impl Partitioned {
    pub(super) fn new(
        store: &Store,
        checkpoint: ConsumerCheckpoint,
        feed: Feed,
        lanes: Lanes,
        outcome: Arc<Outcome>,
    ) -> Partitioned {
        Partitioned {
            lanes,
            store: store.downgrade(),
            checkpoint,
            feed,
            outcome,
            dispatched: VecDeque::new(),
            left: 0,
            held: None,
            failed: None,
            is_moved: false,
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
        self.take_verdicts()?;
        match self.checkpoint.live().called() {
            RunnerCommand::Go => {}
            RunnerCommand::Stop => return Err(self.stop()),
            RunnerCommand::End => return Err(StopReason::StoreClosed),
        }
        if let Some((at, _)) = &self.failed {
            // What lies before it is still handled, so that skipping it skips nothing else.
            self.lanes.set_limit(Some(*at));
            return if self.left > 0 { self.sleep() } else { self.halt() };
        }
        if self.checkpoint.live().is_being_moved() {
            return self.sleep();
        }
        if self.checkpoint.live().take_moved() || std::mem::take(&mut self.is_moved) {
            self.call_off()?;
            return self.look_again();
        }
        if let Some(halt) = self.checkpoint.halt() {
            self.outcome.set_halted(Some(Halt::from(halt).into()));
            return self.sleep();
        }
        if self.dispatched.len() >= DISPATCHED_MAX {
            return self.sleep();
        }
        let next = match self.held.take() {
            Some(event) => Ok(Some(event)),
            None => self.feed.next(),
        };
        match next {
            Ok(Some(event)) => self.dispatch(event),
            Ok(None) => self.rest(),
            Err(error) => Err(end_by(&error).unwrap_or(StopReason::StoreFailed(error))),
        }
    }

    fn sleep(&self) -> Result<(), StopReason> {
        self.checkpoint.live().sleep(None);
        Ok(())
    }

    fn store(&self) -> Result<Store, StopReason> {
        self.store.upgrade().ok_or(StopReason::StoreClosed)
    }

    fn dispatch(&mut self, event: RecordedEvent) -> Result<(), StopReason> {
        let position = event.position();
        match self.lanes.dispatch(event) {
            Ok(()) => {
                self.dispatched.push_back((position, false));
                self.left += 1;
                Ok(())
            }
            Err(event) => {
                self.held = Some(event);
                self.sleep()
            }
        }
    }

    /// There is nothing to dispatch just now.
    fn rest(&mut self) -> Result<(), StopReason> {
        if self.left > 0 {
            return self.sleep();
        }
        let store = self.store()?;
        let passed = self.checkpoint.pass(&store, self.feed.position());
        match passed.and_then(|()| self.checkpoint.write(&store)) {
            Ok(()) => self.sleep(),
            Err(error) if error.is_retryable() => {
                self.checkpoint.live().sleep(Instant::now().checked_add(UNWRITTEN_PAUSE));
                Ok(())
            }
            Err(error) => self.store_said(&error),
        }
    }

    /// Moves the checkpoint behind what is through.
    fn take_verdicts(&mut self) -> Result<(), StopReason> {
        for (position, verdict) in self.lanes.verdicts() {
            self.left -= 1;
            match verdict {
                Verdict::Handled => {
                    let at = self.dispatched.partition_point(|(other, _)| *other < position);
                    self.dispatched[at].1 = true;
                }
                Verdict::Failed(failed) if self.failed.as_ref().is_none_or(|(at, _)| position < *at) => {
                    self.failed = Some((position, failed));
                }
                Verdict::Failed(_) | Verdict::Dropped => {}
            }
        }
        let store = self.store()?;
        while let Some((position, true)) = self.dispatched.front() {
            let noted = self.checkpoint.note(&store, *position);
            self.dispatched.pop_front();
            noted.or_else(|error| self.store_said(&error))?;
        }
        if let Some(trouble) = self.lanes.trouble() {
            self.checkpoint.live().set_trouble(trouble);
        }
        match self.checkpoint.write_if_due(&store) {
            // It is due again with the next event.
            Err(error) if error.is_retryable() => Ok(()),
            written => written.or_else(|error| self.store_said(&error)),
        }
    }

    /// Has the lanes drop what they have not begun, and waits for the rest.
    fn call_off(&mut self) -> Result<(), StopReason> {
        self.lanes.set_limit(Some(Position::START));
        while self.left > 0 {
            self.sleep()?;
            self.take_verdicts()?;
        }
        Ok(())
    }

    /// Ends as asked, and leaves as little as possible to do again.
    fn stop(&mut self) -> StopReason {
        if let Err(ended) = self.call_off() {
            return ended;
        }
        ended_as_asked(&self.store, &mut self.checkpoint)
    }

    /// Halts at the event that could not be handled; everything before it was.
    fn halt(&mut self) -> Result<(), StopReason> {
        let Some((at, failed)) = &self.failed else { return Ok(()) };
        let (name, reason) = (self.checkpoint.name(), failed.reason.as_str());
        tracing::error!(consumer = name, position = at.get(), reason, "halted");
        let store = self.store()?;
        let halted = self.checkpoint.halt_at(&store, *at, &failed.reason, failed.panicked);
        match halted {
            Ok(()) => {
                self.go_back();
                Ok(())
            }
            Err(error) if error.is_retryable() => {
                self.checkpoint.live().sleep(Instant::now().checked_add(UNWRITTEN_PAUSE));
                Ok(())
            }
            Err(error) => {
                self.go_back();
                self.store_said(&error)
            }
        }
    }

    /// Begins anew behind the checkpoint; nothing is left in the lanes.
    fn go_back(&mut self) {
        self.dispatched.clear();
        (self.held, self.failed) = (None, None);
        self.lanes.set_limit(None);
        self.feed.go_to(self.checkpoint.handled());
    }

    /// What an error means that no event is the reason for.
    fn store_said(&mut self, error: &Error) -> Result<(), StopReason> {
        if self.checkpoint.is_moved(error) {
            self.is_moved = true;
            return Ok(());
        }
        end_by(error).map_or(Ok(()), Err)
    }

    /// Somebody moved the checkpoint; nothing is left in the lanes.
    fn look_again(&mut self) -> Result<(), StopReason> {
        let store = self.store()?;
        let found = self.checkpoint.look_again(&store);
        match found.map_err(|error| end_by(&error).unwrap_or(StopReason::StoreFailed(error)))? {
            Found::Other => Err(StopReason::TakenOver),
            Found::Same | Found::Moved => {
                self.outcome.set_halted(None);
                self.go_back();
                Ok(())
            }
        }
    }
}
