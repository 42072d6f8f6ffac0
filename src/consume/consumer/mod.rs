//! Consumers: subscriptions with a name, whose checkpoint is in the log.
//!
//! [`Consumer`] is pulled by its owner; the threads of `reactor/` rest on the same [`ConsumerCheckpoint`] and [`Feed`].
//! Row: app.

mod checkpoint;
mod control;
mod feed;
pub(crate) mod record;
mod status;
#[cfg(test)]
mod tests;

use std::iter::FusedIterator;
use std::time::{Duration, Instant};

use crate::event::RecordedEvent;
use crate::read::token_at;
use crate::store::{Store, WeakStore};
use crate::types::{Error, ErrorKind, Position, Query, ResumeToken};

pub(crate) use checkpoint::{ConsumerCheckpoint, Found};
pub use control::ConsumerControl;
pub(crate) use feed::Feed;
pub use record::Halt;
pub(crate) use status::status;
pub use status::{ConsumerState, ConsumerStatus};

/// The events a query matches, from where this name left off: a [`Subscription`](crate::Subscription) whose place is
/// kept in the store.
///
/// Each event comes in order, at least once: those that were not [acknowledged](Consumer::ack) before the
/// process ended come again. A program that must not do a thing twice takes a
/// [`Subscription`](crate::Subscription), and keeps the [`ResumeToken`] of the last event together with what
/// was done, in one transaction; or a [`Reactor`](crate::Reactor), whose outputs are exactly once.
///
/// Only what survives a power cut comes. As an iterator it waits for the next event, and ends when the store is closed,
/// or after an error; the other calls try again. A consumer keeps no store open. One handle at a time runs a
/// name.
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
    feed: Feed,
    /// The last event that was handed out.
    given: Position,
    has_ended: bool,
}

impl Store {
    /// A consumer of this name (1 to 255 bytes): the events a query matches, from where the name left off; from the
    /// beginning if it is new. A query that differs from the last one is recorded, and holds for the events
    /// after the checkpoint.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Locked`]: the name is run by another handle.
    /// - [`ErrorKind::RolledBack`]: what it has handled is not in the store any more.
    /// - [`ErrorKind::Invalid`]: the name is none, or the store was opened to read.
    /// - Those of [`Append::commit`](crate::Append::commit) and of reading: a new name is registered.
    pub fn consumer(&self, name: &str, query: Query) -> Result<Consumer, Error> {
        let checkpoint = ConsumerCheckpoint::take(self, name, &query)?;
        let feed = Feed::new(self, query, checkpoint.handled(), checkpoint.live());
        let given = checkpoint.handled();
        Ok(Consumer { store: self.downgrade(), checkpoint, feed, given, has_ended: false })
    }
}

impl Consumer {
    /// Begins behind what is there now, if the name is new: it has handled nothing, and was never moved. Else changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// Those of [`Append::commit`](crate::Append::commit).
    pub fn only_new(mut self) -> Result<Consumer, Error> {
        let store = self.store()?;
        self.checkpoint.only_new(&store)?;
        self.go_on_from_checkpoint();
        Ok(self)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.checkpoint.name()
    }

    /// Everything that matches up to here was acknowledged.
    #[must_use]
    pub fn position(&self) -> Position {
        self.checkpoint.handled()
    }

    /// The same as a token, to be kept elsewhere; see [`ResumeToken`]. Looks up one event.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`]; those of [`Store::at`].
    pub fn resume_token(&self) -> Result<ResumeToken, Error> {
        token_at(&self.store()?.engine().readable()?, self.position())
    }

    /// Waits for the next event, at most so long; `None` if none came.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Halted`]: somebody halted it. Comes each time until it is resumed.
    /// - [`ErrorKind::Locked`]: the name was taken over.
    /// - Once everything was handed out: [`ErrorKind::Closed`], [`ErrorKind::Poisoned`].
    /// - Those of reading: [`ErrorKind::Corrupt`], [`ErrorKind::Io`].
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<RecordedEvent>, Error> {
        // Too far away for an instant is for ever.
        self.wait(Instant::now().checked_add(timeout))
    }

    /// The next event, if it is there already.
    ///
    /// # Errors
    ///
    /// As [`Consumer::next_timeout`].
    pub fn try_next(&mut self) -> Result<Option<RecordedEvent>, Error> {
        self.look_whether_moved()?;
        self.checkpoint.check_running()?;
        let event = self.feed.next()?;
        match &event {
            Some(event) => self.given = event.position(),
            None if self.checkpoint.handled() >= self.given => {
                let store = self.store()?;
                self.checkpoint.pass(&store, self.feed.position())?;
            }
            None => {}
        }
        Ok(event)
    }

    /// Waits for the next event, and takes with it what is there, up to `max` events.
    ///
    /// # Errors
    ///
    /// As [`Consumer::next_timeout`]; an error behind the first event comes with the next call.
    pub fn next_batch(&mut self, max: usize) -> Result<Vec<RecordedEvent>, Error> {
        let mut batch = Vec::new();
        if max > 0 {
            batch.extend(self.wait(None)?);
        }
        while batch.len() < max
            && let Ok(Some(event)) = self.try_next()
        {
            batch.push(event);
        }
        Ok(batch)
    }

    /// Everything handed out up to this position was handled, and is not to come again.
    ///
    /// Acknowledgements are written together: before this consumer sleeps, after 1,024 events, after a second, and when
    /// it is dropped; [`Consumer::flush`] writes them at once. Those written survive the end of the process at once, and
    /// a power cut within a second. One that goes back, or comes after the consumer was rewound, changes nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if nothing was handed out up to there; those of
    /// [`Append::commit`](crate::Append::commit), and then the acknowledgement is kept to be written later.
    pub fn ack(&mut self, position: Position) -> Result<(), Error> {
        if self.look_whether_moved()? {
            return Ok(());
        }
        let handed_out = self.feed.position();
        if position > handed_out {
            let text = format!(
                "consumer {} was handed out events up to position {handed_out}, so position {position} cannot be acknowledged",
                self.name()
            );
            return Err(Error::invalid(text));
        }
        let store = self.store()?;
        self.checkpoint.note(&store, position)?;
        let written = self.checkpoint.write_if_due(&store);
        self.unless_moved(written)
    }

    /// Writes the acknowledgements that are not written yet.
    ///
    /// # Errors
    ///
    /// Those of [`Append::commit`](crate::Append::commit).
    pub fn flush(&mut self) -> Result<(), Error> {
        let store = self.store()?;
        let written = self.checkpoint.write(&store);
        self.unless_moved(written)
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Result<Option<RecordedEvent>, Error> {
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(Some(event));
            }
            match self.flush() {
                // It is written when the store takes appends again; until then events still come.
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

    /// Goes along if somebody moved the checkpoint.
    fn look_whether_moved(&mut self) -> Result<bool, Error> {
        if self.checkpoint.live().take_moved() { self.look_again() } else { Ok(false) }
    }

    fn look_again(&mut self) -> Result<bool, Error> {
        let before = self.checkpoint.handled();
        let store = self.store()?;
        match self.checkpoint.look_again(&store)? {
            Found::Same => return Ok(false),
            Found::Moved => {}
            Found::Other => return Err(taken_over(self.name())),
        }
        if self.checkpoint.handled() != before {
            self.go_on_from_checkpoint();
        }
        Ok(self.checkpoint.handled() != before)
    }

    fn go_on_from_checkpoint(&mut self) {
        self.given = self.checkpoint.handled();
        self.feed.go_to(self.given);
    }

    /// A checkpoint that was moved before it could be written is where it was moved to.
    fn unless_moved(&mut self, written: Result<(), Error>) -> Result<(), Error> {
        match written {
            Err(error) if self.checkpoint.is_moved(&error) => self.look_again().map(drop),
            written => written,
        }
    }
}

/// What is said when the checkpoint was moved by somebody who runs the same name.
pub(crate) fn taken_over(name: &str) -> Error {
    let text = format!("somebody else has moved the checkpoint of consumer {name}; only one may run it");
    Error::new(ErrorKind::Locked, text)
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
