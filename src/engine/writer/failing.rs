//! What becomes of those who wait when something fails: a write, a sync, or the thread itself.
//!
//! Row: writer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::engine::open::{Writable, load_to_write};
use crate::engine::queue::poisoned;
use crate::log::Failure;
use crate::read::{ChainPosition, CloseReason};
use crate::types::{Error, ErrorKind, RestartPolicy};

use super::checking::check_the_rest;
use super::waiting::Refusal;
use super::{State, Writer};

const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Writer {
    /// Does some of the writer's work; a panic in it is our bug, or that of the disk we were given.
    pub(super) fn guarded(&mut self, work: impl FnOnce(&mut Writer)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_ok() {
            return;
        }
        self.log.leave();
        let may_restart = self.options.restart == RestartPolicy::Once && self.state.restarts == 0;
        if !may_restart || self.state.poison.is_some() {
            tracing::error!("the writer panicked; the store takes no more appends");
            self.give_up(panicked());
        } else if let Err(error) = self.restart() {
            tracing::error!(%error, "the writer panicked, and could not recover the store");
            self.give_up(error);
        }
    }

    /// After a panic nothing is known any more, so nothing is touched: whoever waits is answered, and
    /// whoever still comes is refused.
    fn give_up(&mut self, error: Error) {
        self.queue.condemn(error.clone());
        self.view.close(CloseReason::WriterFailed(error.clone()));
        for waiting in std::mem::take(&mut self.state.waiting) {
            waiting.refuse(Refusal::Poisoned, &error);
        }
        self.state.over = Some(error);
        self.view.wake();
        self.listeners.end();
    }

    /// After a panic, if that is wanted: forgets everything, and begins again with what opening finds. What is
    /// in the queue was not touched, and stays.
    fn restart(&mut self) -> Result<(), Error> {
        tracing::error!("the writer panicked; it recovers the store and goes on");
        for waiting in std::mem::take(&mut self.state.waiting) {
            waiting.refuse(Refusal::Panicked, &panicked());
        }
        self.queue.freed(self.state.taken);
        self.state = State { restarts: self.state.restarts + 1, ..State::new() };
        let loaded =
            catch_unwind(AssertUnwindSafe(|| load_to_write(&self.disk, &self.options, &self.housekeeper)));
        let loaded = loaded.unwrap_or_else(|_| Err(panicked()))?;
        let Writable { log, ledger, segments, shelf, entities, history, .. } = loaded;
        self.segment = segments.last().cloned().expect("the log has a segment");
        self.view.replace(segments, ChainPosition::from(log.written()));
        self.view.set_history(history);
        check_the_rest(&self.view, &self.queue, &self.housekeeper);
        (self.log, self.ledger, self.shelf, self.entities) = (log, ledger, shelf, entities);
        self.counters.lock().entities = entities;
        self.view.wake();
        Ok(())
    }

    /// That the store's files still have their names, so that nothing is acknowledged to files that are gone. After a
    /// sync two names are looked at, for some 2 % of what the sync takes; the others, and before other answers, every
    /// [`LOOK_EVERY`].
    pub(super) fn check_names(&mut self) -> Result<(), Failure> {
        let is_due = self.state.began.saturating_duration_since(self.state.looked) >= LOOK_EVERY;
        if self.state.poison.is_some() || !(is_due || self.state.sync.is_some()) {
            return Ok(());
        }
        self.log.check_names(is_due)?;
        if is_due {
            self.state.looked = self.state.began;
        }
        Ok(())
    }

    pub(super) fn refuse_if_failed(&mut self) -> Result<(), Error> {
        if let Some(reason) = &self.state.poison {
            return Err(poisoned(reason));
        }
        match &self.state.full_until {
            Some((until, error)) if until.is_none_or(|until| self.state.began < until) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Takes note of a failure, and forgets what it undid.
    pub(super) fn fail(&mut self, failure: Failure) -> (Refusal, Error) {
        self.ledger.discard();
        self.log.unstage();
        // A store that was taken away lets all kinds of calls fail. This says why.
        let failure = self.log.check_names(true).err().unwrap_or(failure);
        match failure {
            Failure::Refused(error) => {
                if error.kind() == ErrorKind::NoSpace {
                    let until = Instant::now().checked_add(self.options.space_probe_every);
                    self.state.full_until = Some((until, error.clone()));
                }
                tracing::warn!(%error, "an append was refused");
                (Refusal::Refused, error)
            }
            Failure::Poison(error) => {
                self.log.leave();
                tracing::error!(%error, "the store takes no more appends");
                self.queue.condemn(error.clone());
                self.view.close(CloseReason::WriterFailed(error.clone()));
                self.state.poison = Some(error.clone());
                (Refusal::Poisoned, error)
            }
        }
    }
}

pub(super) fn panicked() -> Error {
    let text = "the writer panicked; this is a bug in annals, or in the disk it was given";
    Error::new(ErrorKind::CommitUnknown, text)
}
