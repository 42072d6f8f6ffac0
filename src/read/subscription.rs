//! Following the store: what is there, then what comes.
//!
//! Catching up and following are one read, repeated: after the cursor, up to the head; then sleep
//! until the head has moved. A subscription holds the view and nothing of the engine, so it keeps no
//! store open and no writer waiting.
//! Invariant: everything that matches up to the cursor was handed out, once, in order.
//! Row: subscription.

use std::future::Future;
use std::iter::FusedIterator;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::event::RecordedEvent;
use crate::read::reader::{Origin, Read, token_at};
use crate::read::view::{Cursor, End, Reach, Slot, View};
use crate::types::{Error, Position, Query, ResumeToken};

/// The events a query matches, those that are there and those that come: each once, in order.
///
/// It pulls from the log at its own pace: it can be slow, and holds up nobody. As an iterator it
/// waits for the next event, and ends when the store is closed and everything was handed out. If the
/// store fails, what was published still comes, then one
/// [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned), then the end. An error of reading (damage, for
/// one) also ends the iterator; the other calls try again.
///
/// To go on later, keep the [`ResumeToken`] of the last event, or [`Subscription::resume_token`], and begin
/// with [`Subscription::resume`]. A program that keeps it across restarts of a store with buffered appends
/// asks for [`Subscription::durable`], so that no power cut takes back what it has seen.
///
/// ```
/// use annals::{Query, Raw, Store};
///
/// let store = Store::in_memory()?;
/// store.append("account:alice", &Raw("account.deposited", &500))?;
/// let mut deposits = store.subscribe(Query::all().kind("account.deposited"));
/// let follower = std::thread::spawn(move || {
///     deposits.take(2).map(|event| event?.decode::<u64>()).sum::<Result<u64, annals::Error>>()
/// });
/// store.append("account:bob", &Raw("account.deposited", &700))?;
/// assert_eq!(follower.join().unwrap()?, 1200);
/// # Ok::<(), annals::Error>(())
/// ```
#[must_use = "a subscription does nothing until it is asked"]
pub struct Subscription {
    view: Result<Arc<View>, Error>,
    reach: Reach,
    read: Read,
    /// The read at hand goes up to here; `None` if it is through.
    reading_to: Option<Position>,
    cursor: Position,
    /// What is still to be made sure of before anything is read after the cursor.
    origin: Option<Origin>,
    /// The cursor as others see it.
    shown: Option<Arc<Cursor>>,
    /// Of the waker that was registered last.
    slot: Option<Slot>,
    has_ended: bool,
}

/// Waits for an event, and takes with it those that are there, up to `max`: for subscriptions and
/// consumers. An error behind the first event is left to the next call.
pub(crate) fn next_batch<S>(
    source: &mut S,
    max: usize,
    wait: impl Fn(&mut S) -> Result<Option<RecordedEvent>, Error>,
    try_next: impl Fn(&mut S) -> Result<Option<RecordedEvent>, Error>,
) -> Result<Vec<RecordedEvent>, Error> {
    let mut batch = Vec::new();
    if max > 0 {
        batch.extend(wait(source)?);
    }
    while batch.len() < max
        && let Ok(Some(event)) = try_next(source)
    {
        batch.push(event);
    }
    Ok(batch)
}

enum Step {
    Event(RecordedEvent),
    Nothing,
    Ended(End),
}

impl Subscription {
    pub(crate) fn new(view: Result<Arc<View>, Error>, query: Query) -> Subscription {
        let shown = view.as_ref().ok().map(|view| view.add_follower(query.to_string()));
        Subscription {
            shown,
            read: Read::new(view.clone(), query),
            view,
            reach: Reach::Published,
            reading_to: None,
            cursor: Position::START,
            origin: None,
            slot: None,
            has_ended: false,
        }
    }

    /// Only events after this position (default: [`Position::START`], all). One beyond the head is of another
    /// history: an [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack) comes instead of events then,
    /// unless [`Subscription::allow_beyond_head`] is said. [`Subscription::resume`] sees more.
    pub fn after(self, position: Position) -> Subscription {
        self.begin_after(position, None)
    }

    /// Only events after the place of a token. If the log has other events there now, or ends before it, an
    /// [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack) comes instead of events: what was made of them
    /// is of another history.
    ///
    /// ```
    /// use annals::{ErrorKind, Query, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// let token = store.append("account:alice", &Raw("account.deposited", &500))?.resume_token();
    /// assert!(store.subscribe(Query::all()).resume(token).try_next()?.is_none());
    ///
    /// // Another store, as one that was restored: there an event stands at this position, but another one.
    /// let other = Store::in_memory()?;
    /// other.append("account:alice", &Raw("account.deposited", &700))?;
    /// let error = other.subscribe(Query::all()).resume(token).try_next().unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::RolledBack);
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn resume(self, token: ResumeToken) -> Subscription {
        self.begin_after(token.position(), Some(token))
    }

    /// A position beyond the head is no error (default: it is). What is appended up to it is left out when it
    /// comes; the chain hash of a token is looked at once the log is so far. For places of events that are
    /// not visible here yet: of buffered appends, in a store opened to read.
    pub fn allow_beyond_head(mut self) -> Subscription {
        self.origin.get_or_insert_default().may_be_ahead = true;
        self
    }

    fn begin_after(mut self, position: Position, token: Option<ResumeToken>) -> Subscription {
        self.reading_to = None;
        self.origin = Some(Origin { token, ..self.origin.unwrap_or_default() });
        self.move_to(position);
        self
    }

    /// Only events that are not there yet: after the head of this moment.
    ///
    /// ```
    /// use annals::{Query, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// store.append("account:alice", &Raw("account.deposited", &500))?;
    /// let mut new = store.subscribe(Query::all()).after_head();
    /// assert!(new.try_next()?.is_none());
    /// store.append("account:alice", &Raw("account.deposited", &700))?;
    /// assert_eq!(new.try_next()?.unwrap().position().get(), 2);
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn after_head(self) -> Subscription {
        let head = self.view.as_ref().map_or(Position::START, |view| view.reaches(Reach::Published));
        self.after(head)
    }

    /// Only events that survive a power cut (default: whatever can be read). With
    /// [`Durability::Synced`](crate::Durability::Synced) that is the same; buffered events come only
    /// once they are synced, so later.
    pub fn durable(mut self) -> Subscription {
        self.reach = Reach::Durable;
        self
    }

    /// Everything that matches up to here was handed out: the position of the last event, or, if
    /// nothing more matched, the head it was looked for up to.
    #[must_use]
    pub fn position(&self) -> Position {
        self.cursor
    }

    /// The same as a token, to be kept elsewhere; see [`ResumeToken`]. Looks up one event, unless the cursor
    /// is at the head.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack) if the cursor lies beyond the head; those of
    /// [`Store::at`](crate::Store::at).
    pub fn resume_token(&self) -> Result<ResumeToken, Error> {
        token_at(&self.view.clone()?, self.cursor)
    }

    /// How many positions the head (the durable head, if only durable events come) is ahead. Not all
    /// of them need match.
    #[must_use]
    pub fn behind(&self) -> u64 {
        let head = self.view.as_ref().map_or(Position::START, |view| view.reaches(self.reach));
        head.get().saturating_sub(self.cursor.get())
    }

    /// Waits for the next event, at most so long; `None` if none came.
    ///
    /// # Errors
    ///
    /// Once everything was handed out: [`ErrorKind::Closed`](crate::ErrorKind::Closed),
    /// [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned). Else those of reading:
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), [`ErrorKind::Io`](crate::ErrorKind::Io);
    /// [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack), each time, if it was begun at a place that
    /// the log does not have. [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the store is only what was
    /// salvaged.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<RecordedEvent>, Error> {
        // Too far away for an instant is for ever.
        self.wait(Instant::now().checked_add(timeout))
    }

    /// The next event, if it is there already.
    ///
    /// # Errors
    ///
    /// As [`Subscription::next_timeout`].
    pub fn try_next(&mut self) -> Result<Option<RecordedEvent>, Error> {
        match self.step()? {
            Step::Event(event) => Ok(Some(event)),
            Step::Nothing => Ok(None),
            Step::Ended(end) => Err(end.into_error()),
        }
    }

    /// Waits for the next event, and takes with it what is there, up to `max` events.
    ///
    /// ```
    /// use annals::{Query, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// for cents in [500, 700, 900] {
    ///     store.append("account:alice", &Raw("account.deposited", &cents))?;
    /// }
    /// let mut events = store.subscribe(Query::all());
    /// assert_eq!(events.next_batch(2)?.len(), 2);
    /// assert_eq!((events.next_batch(2)?.len(), events.position().get(), events.behind()), (1, 3, 0));
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Subscription::next_timeout`]; an error behind the first event comes with the next call.
    pub fn next_batch(&mut self, max: usize) -> Result<Vec<RecordedEvent>, Error> {
        next_batch(self, max, |subscription| subscription.wait(None), Subscription::try_next)
    }

    /// The next event, or else has the task woken when there is one or the store has ended. Comes to
    /// an end as the iterator does. Reading blocks, for as long as the disk takes.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<RecordedEvent, Error>>> {
        loop {
            if self.has_ended {
                return Poll::Ready(None);
            }
            let step = self.step();
            if let (Ok(Step::Nothing), Ok(view)) = (&step, &self.view) {
                let waker = context.waker().clone();
                if view.register(self.reach, self.cursor, &mut self.slot, waker) {
                    return Poll::Pending;
                }
                continue;
            }
            return Poll::Ready(self.item(step));
        }
    }

    /// The next event, for async code; under any executor. Dropping the future loses nothing.
    pub fn next_async(&mut self) -> NextEvent<'_> {
        NextEvent(self)
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Result<Option<RecordedEvent>, Error> {
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(Some(event));
            }
            if !self.view.clone()?.wait(self.reach, self.cursor, deadline) {
                return Ok(None);
            }
        }
    }

    #[inline(always)]
    fn step(&mut self) -> Result<Step, Error> {
        loop {
            if let Some(up_to) = self.reading_to {
                match self.read.next() {
                    Some(Ok(event)) => {
                        self.move_to(event.position());
                        return Ok(Step::Event(event));
                    }
                    Some(Err(error)) => {
                        self.reading_to = None;
                        return Err(error);
                    }
                    None => {
                        self.reading_to = None;
                        self.move_to(self.cursor.max(up_to));
                    }
                }
            }
            if let Some(nothing) = self.look_ahead()? {
                return Ok(nothing);
            }
        }
    }

    fn move_to(&mut self, position: Position) {
        self.cursor = position;
        if let Some(shown) = &self.shown {
            shown.set(position);
        }
    }

    /// Begins the next read, or says why there is none.
    fn look_ahead(&mut self) -> Result<Option<Step>, Error> {
        let view = self.view.as_ref().map_err(Error::clone)?;
        // Before the head: what is published first and ends then must not be missed.
        let end = view.ended();
        let head = view.reaches(self.reach);
        if let Some(origin) = self.origin {
            let snapshot = view.snapshot();
            origin.check(self.cursor, &snapshot)?;
            // As long as the log is not so far there is nothing to compare.
            self.origin = self.origin.filter(|_| self.cursor > snapshot.head.position);
        }
        if head > self.cursor {
            self.read.again(self.cursor, head);
            self.reading_to = Some(head);
            return Ok(None);
        }
        Ok(Some(end.map_or(Step::Nothing, Step::Ended)))
    }

    /// What the iterator makes of a step.
    #[inline(always)]
    fn item(&mut self, step: Result<Step, Error>) -> Option<Result<RecordedEvent, Error>> {
        let item = match step {
            Ok(Step::Event(event)) => return Some(Ok(event)),
            Ok(Step::Nothing | Step::Ended(End::Closed)) => None,
            Ok(Step::Ended(failed @ (End::Failed(_) | End::Parted(_)))) => Some(Err(failed.into_error())),
            Err(error) => Some(Err(error)),
        };
        self.has_ended = true;
        item
    }
}

impl Iterator for Subscription {
    type Item = Result<RecordedEvent, Error>;

    #[inline(always)]
    fn next(&mut self) -> Option<Result<RecordedEvent, Error>> {
        loop {
            if self.has_ended {
                return None;
            }
            let step = self.step();
            match (&step, &self.view) {
                (Ok(Step::Nothing), Ok(view)) => drop(view.wait(self.reach, self.cursor, None)),
                _ => return self.item(step),
            }
        }
    }
}

impl FusedIterator for Subscription {}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let (Ok(view), Some(slot)) = (&self.view, self.slot) {
            view.forget(slot);
        }
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("position", &self.cursor.get()).finish_non_exhaustive()
    }
}

/// The future of [`Subscription::next_async`].
#[must_use = "a future does nothing until it is awaited"]
pub struct NextEvent<'a>(&'a mut Subscription);

impl Future for NextEvent<'_> {
    type Output = Option<Result<RecordedEvent, Error>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_next(context)
    }
}
