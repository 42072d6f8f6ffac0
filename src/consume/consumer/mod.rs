//! Consumers: subscriptions with a name, whose checkpoint is kept in the log.
//!
//! The application pulls events from a [`Consumer`]. The threads of `reactor/` use the same
//! [`ConsumerCheckpoint`] and [`PendingEvents`].

mod checkpoint;
mod operator;
pub(crate) mod record;
#[cfg(test)]
mod tests;

use std::iter::FusedIterator;
use std::time::{Duration, Instant};

use crate::event::RecordedEvent;
use crate::read::{next_batch, token_at};
use crate::store::{Store, WeakStore};
use crate::types::{Error, ErrorKind, Position, Query, ResumeToken};

pub(crate) use checkpoint::{CheckpointChange, ConsumerCheckpoint, PendingEvents};
pub(crate) use operator::status;
pub use operator::{ConsumerControl, ConsumerState, ConsumerStatus};
pub use record::Halt;

/// The events that a query matches, behind the checkpoint of a name: a [`Subscription`](crate::Subscription)
/// whose position the store keeps.
///
/// Events come in order, each at least once: events that were not [acknowledged](Consumer::ack) before the
/// process ended come again. A program that must not handle an event twice has two choices. It takes a
/// [`Subscription`](crate::Subscription), and keeps the [`ResumeToken`] of the last event in one transaction
/// with its own result. Or it takes a [`Reactor`](crate::Reactor), whose outputs are appended exactly once.
///
/// Only durable events come. As an iterator a consumer waits for the next event, and ends when the store is
/// closed or after an error. The other calls may be tried again after an error. A consumer keeps no store
/// open. Only one handle at a time runs a name.
///
/// ```
/// use annals::{Query, Raw, Store};
///
/// let store = Store::in_memory()?;
/// for cents in [500, 700, 900] {
///     store.append("account:alice", &Raw("account.deposited", &cents))?;
/// }
/// let deposits = Query::all().kind("account.deposited");
/// let mut consumer = store.consumer("statements", deposits.clone())?;
/// for event in consumer.next_batch(2)? {
///     println!("deposited {}", event.decode::<u64>()?);
///     consumer.ack(event.position())?;
/// }
/// drop(consumer);
///
/// let mut again = store.consumer("statements", deposits)?;
/// assert_eq!(again.try_next()?.unwrap().decode::<u64>()?, 900);
/// # Ok::<(), annals::Error>(())
/// ```
pub struct Consumer {
    store: WeakStore,
    checkpoint: ConsumerCheckpoint,
    events: PendingEvents,
    /// The last event that was returned.
    returned: Position,
    has_ended: bool,
}

impl Store {
    /// A consumer of this name (1 to 255 bytes): the events that a query matches, behind the name's
    /// checkpoint. A new name begins at the first event. A query that differs from the last one is recorded,
    /// and applies to the events behind the checkpoint.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Locked`]: another handle runs the name.
    /// - [`ErrorKind::RolledBack`]: events that the consumer has handled are no longer in the store.
    /// - [`ErrorKind::Invalid`]: the name is not a valid name, or the store was opened to read.
    /// - Those of [`Append::commit`](crate::Append::commit) and of reading: a new name is registered.
    pub fn consumer(&self, name: &str, query: Query) -> Result<Consumer, Error> {
        let checkpoint = ConsumerCheckpoint::take(self, name, &query)?;
        let events = PendingEvents::new(self, query, &checkpoint);
        let returned = checkpoint.handled();
        Ok(Consumer { store: self.downgrade(), checkpoint, events, returned, has_ended: false })
    }
}

impl Consumer {
    /// A new name begins behind the durable head of this moment. New means: it has handled nothing and was
    /// never moved. For any other name this changes nothing.
    ///
    /// # Errors
    ///
    /// Those of [`Append::commit`](crate::Append::commit).
    pub fn only_new(mut self) -> Result<Consumer, Error> {
        let store = self.store()?;
        self.checkpoint.only_new(&store)?;
        self.go_to_checkpoint();
        Ok(self)
    }

    /// The name of the consumer.
    #[must_use]
    pub fn name(&self) -> &str {
        self.checkpoint.name()
    }

    /// The checkpoint: every matching event up to here was acknowledged.
    #[must_use]
    pub fn position(&self) -> Position {
        self.checkpoint.handled()
    }

    /// The same as a [`ResumeToken`], for a program that keeps it elsewhere. Looks up one event.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`]; those of [`Store::at`].
    pub fn resume_token(&self) -> Result<ResumeToken, Error> {
        token_at(&self.store()?.engine().readable()?, self.position())
    }

    /// Waits for the next event, but no longer than `timeout`. `None` if there was none.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Halted`]: the consumer is halted. Each call returns this until it is resumed.
    /// - [`ErrorKind::Locked`]: another process has taken over the name.
    /// - After the last event: [`ErrorKind::Closed`], [`ErrorKind::Poisoned`].
    /// - Those of reading: [`ErrorKind::Corrupt`], [`ErrorKind::Io`].
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<RecordedEvent>, Error> {
        // A deadline beyond what an instant can hold is no deadline.
        self.wait(Instant::now().checked_add(timeout))
    }

    /// The next event, if there is one now.
    ///
    /// # Errors
    ///
    /// Those of [`Consumer::next_timeout`].
    pub fn try_next(&mut self) -> Result<Option<RecordedEvent>, Error> {
        self.follow_if_moved()?;
        self.checkpoint.check_running()?;
        let event = self.events.next()?;
        match &event {
            Some(event) => self.returned = event.position(),
            None if self.checkpoint.handled() >= self.returned => {
                let store = self.store()?;
                self.checkpoint.pass(&store, self.events.position())?;
            }
            None => {}
        }
        Ok(event)
    }

    /// Waits for the next event, and returns it with those behind it that are there now, at most `max`
    /// events.
    ///
    /// # Errors
    ///
    /// Those of [`Consumer::next_timeout`]. An error after the first event is returned by the next call.
    pub fn next_batch(&mut self, max: usize) -> Result<Vec<RecordedEvent>, Error> {
        next_batch(self, max, |consumer| consumer.wait(None), Consumer::try_next)
    }

    /// Acknowledges all returned events up to this position: they do not come again.
    ///
    /// Acknowledgements are written together: before the consumer sleeps, after 1,024 events, after a second,
    /// and when it is dropped. [`Consumer::flush`] writes them at once. Written ones survive the end of the
    /// process. They ask for no sync of their own, so they survive a power cut after at most a second. An
    /// acknowledgement before the checkpoint, or the first one after the consumer was rewound, changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if no event was returned up to there. Those of
    /// [`Append::commit`](crate::Append::commit): then the acknowledgement is kept, and is written later.
    pub fn ack(&mut self, position: Position) -> Result<(), Error> {
        if self.follow_if_moved()? {
            return Ok(());
        }
        let returned = self.events.position();
        if position > returned {
            let text = format!(
                "consumer {} has returned events up to position {returned}, so position {position} cannot be acknowledged",
                self.name()
            );
            return Err(Error::invalid(text));
        }
        let store = self.store()?;
        self.checkpoint.advance(&store, position)?;
        let written = self.checkpoint.write_if_due(&store);
        self.follow_if_refused(written)
    }

    /// Writes the acknowledgements that are not written yet.
    ///
    /// # Errors
    ///
    /// Those of [`Append::commit`](crate::Append::commit).
    pub fn flush(&mut self) -> Result<(), Error> {
        let store = self.store()?;
        let written = self.checkpoint.write(&store);
        self.follow_if_refused(written)
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Result<Option<RecordedEvent>, Error> {
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(Some(event));
            }
            match self.flush() {
                // A full disk or queue: the checkpoint is written later, and events still come until then.
                Err(error) if error.is_retryable() => {}
                flushed => flushed?,
            }
            if !self.checkpoint.live().sleep(deadline) {
                return self.try_next();
            }
        }
    }

    fn store(&self) -> Result<Store, Error> {
        self.store.upgrade().ok_or_else(Error::closed)
    }

    /// Follows the checkpoint if an operator has moved it. True if it is at another position now.
    fn follow_if_moved(&mut self) -> Result<bool, Error> {
        if self.checkpoint.live().take_moved() { self.follow() } else { Ok(false) }
    }

    /// If a write was refused because the checkpoint was moved, the move counts, and the write is given up.
    fn follow_if_refused(&mut self, written: Result<(), Error>) -> Result<(), Error> {
        match written {
            Err(error) if self.checkpoint.is_moved(&error) => self.follow().map(drop),
            written => written,
        }
    }

    fn follow(&mut self) -> Result<bool, Error> {
        let before = self.checkpoint.handled();
        let store = self.store()?;
        if self.checkpoint.read_again(&store)? == CheckpointChange::TakenOver {
            let name = self.name();
            let text =
                format!("another process has moved the checkpoint of consumer {name}; only one may run it");
            return Err(Error::new(ErrorKind::Locked, text));
        }
        let has_moved = self.checkpoint.handled() != before;
        if has_moved {
            self.go_to_checkpoint();
        }
        Ok(has_moved)
    }

    fn go_to_checkpoint(&mut self) {
        self.returned = self.checkpoint.handled();
        self.events.go_to(self.returned);
    }
}

impl Iterator for Consumer {
    type Item = Result<RecordedEvent, Error>;

    fn next(&mut self) -> Option<Result<RecordedEvent, Error>> {
        if self.has_ended {
            return None;
        }
        let item = match self.wait(None) {
            Err(error) if error.kind() == ErrorKind::Closed => None,
            item => item.transpose(),
        };
        self.has_ended = !matches!(item, Some(Ok(_)));
        item
    }
}

impl FusedIterator for Consumer {}

impl Drop for Consumer {
    fn drop(&mut self) {
        if let Err(error) = self.flush()
            && error.kind() != ErrorKind::Closed
        {
            let name = self.name();
            tracing::warn!(consumer = name, %error, "acknowledgements were not written; events will come again");
        }
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer")
            .field("name", &self.name())
            .field("position", &self.position().get())
            .finish_non_exhaustive()
    }
}
