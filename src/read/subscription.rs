//! Subscriptions: the events that are in the store, then those that come.
//!
//! Catching up and following are the same read, repeated: after the cursor, up to the head. Then the
//! subscription sleeps until the head moves. It holds the view and nothing of the engine, so it keeps no
//! store open and blocks no writer.
//! Invariant: everything that matches up to the cursor was returned, once, in order.

use std::future::Future;
use std::iter::FusedIterator;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::event::RecordedEvent;
use crate::types::{Error, Position, Query, ResumeToken};

use super::reader::{Origin, Read, token_at};
use super::view::LogView;
use super::watch::{CloseReason, SubscriptionCursor, Visibility, WakerId};

/// The events that match a query, present and future: each once, in order.
///
/// A subscription reads the log at its own pace; a slow one delays no writer and no other reader. As an
/// iterator it waits for the next event. It ends when the store is closed and every event was returned. If
/// the store fails, the published events still come, then one
/// [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned), then the end. A read error (damage, for one) also
/// ends the iterator; the other calls try again.
///
/// To continue later, keep the [`ResumeToken`] of the last event, or [`Subscription::resume_token`], and
/// begin with [`Subscription::resume`]. A program that keeps a token across restarts uses
/// [`Subscription::durable`] if appends are buffered: then no power cut removes an event it has seen.
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
    view: Result<Arc<LogView>, Error>,
    visibility: Visibility,
    read: Read,
    /// The end of the current read; `None` if that has ended.
    reading_to: Option<Position>,
    cursor: Position,
    /// How to check the cursor before anything is read after it; `None` once it is checked.
    origin: Option<Origin>,
    /// A copy of the cursor, for statistics.
    shown: Option<Arc<SubscriptionCursor>>,
    /// The waker that was registered last.
    waker: Option<WakerId>,
    has_ended: bool,
}

enum NextStep {
    Event(RecordedEvent),
    Wait,
    Ended(CloseReason),
}

impl Subscription {
    pub(crate) fn new(view: Result<Arc<LogView>, Error>, query: Query) -> Subscription {
        let shown = view.as_ref().ok().map(|view| view.add_subscription(query.to_string()));
        Subscription {
            shown,
            read: Read::new(view.clone(), query),
            view,
            visibility: Visibility::Published,
            reading_to: None,
            cursor: Position::START,
            origin: None,
            waker: None,
            has_ended: false,
        }
    }

    /// Only events after this position (default: [`Position::START`], all events).
    ///
    /// A position beyond the head belongs to another history. In place of events an
    /// [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack) comes then, unless
    /// [`Subscription::allow_beyond_head`] was called. [`Subscription::resume`] also notices a changed
    /// history before the head.
    pub fn after(self, position: Position) -> Subscription {
        self.begin_after(position, None)
    }

    /// Only events after the position of a token. If the log has other events there now, or ends before it,
    /// an [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack) comes in place of events. Results derived
    /// from the old events belong to another history.
    ///
    /// ```
    /// use annals::{ErrorKind, Query, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// let token = store.append("account:alice", &Raw("account.deposited", &500))?.resume_token();
    /// assert!(store.subscribe(Query::all()).resume(token).try_next()?.is_none());
    ///
    /// // Another store, such as a restored one: it has another event at this position.
    /// let other = Store::in_memory()?;
    /// other.append("account:alice", &Raw("account.deposited", &700))?;
    /// let error = other.subscribe(Query::all()).resume(token).try_next().unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::RolledBack);
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn resume(self, token: ResumeToken) -> Subscription {
        self.begin_after(token.position(), Some(token))
    }

    /// A position beyond the head is no error (default: it is). Events up to the position are left out when
    /// they come; the chain hash of a token is checked once the log reaches its position. For positions of
    /// events that are not visible here yet: of buffered appends, in a store opened to read.
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

    /// Only future events: those after the head at the time of this call.
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
        let head = self.view.as_ref().map_or(Position::START, |view| view.head_at(Visibility::Published));
        self.after(head)
    }

    /// Only events that survive a power cut (default: all published events). With
    /// [`Durability::Synced`](crate::Durability::Synced) both are the same; buffered events come once they
    /// are synced.
    pub fn durable(mut self) -> Subscription {
        self.visibility = Visibility::Durable;
        self
    }

    /// The position up to which every matching event was returned: that of the last event, or the head up to
    /// which no more events matched.
    #[must_use]
    pub fn position(&self) -> Position {
        self.cursor
    }

    /// [`Subscription::position`] as a token, for the caller to keep; see [`ResumeToken`]. Looks up one
    /// event, unless the position is the head.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack) if the position lies beyond the head; those of
    /// [`Store::at`](crate::Store::at).
    pub fn resume_token(&self) -> Result<ResumeToken, Error> {
        token_at(&self.view.clone()?, self.cursor)
    }

    /// The number of positions up to the head (with [`Subscription::durable`], to the durable head). Not all
    /// of their events need match.
    #[must_use]
    pub fn behind(&self) -> u64 {
        let head = self.view.as_ref().map_or(Position::START, |view| view.head_at(self.visibility));
        head.get().saturating_sub(self.cursor.get())
    }

    /// Waits for the next event; `None` if none came within `timeout`.
    ///
    /// # Errors
    ///
    /// Once every event was returned: [`ErrorKind::Closed`](crate::ErrorKind::Closed),
    /// [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned). Those of reading:
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), [`ErrorKind::Io`](crate::ErrorKind::Io).
    /// [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack), from each call, if it began at a position
    /// that the log does not have. [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the store was opened
    /// to salvage.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<RecordedEvent>, Error> {
        // A deadline that no instant can express is none.
        self.wait(Instant::now().checked_add(timeout))
    }

    /// The next event, if the store has it already.
    ///
    /// # Errors
    ///
    /// Those of [`Subscription::next_timeout`].
    pub fn try_next(&mut self) -> Result<Option<RecordedEvent>, Error> {
        match self.step()? {
            NextStep::Event(event) => Ok(Some(event)),
            NextStep::Wait => Ok(None),
            NextStep::Ended(end) => Err(end.into_error()),
        }
    }

    /// Waits for the next event, and returns it with those that follow without waiting, up to `max` events.
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
    /// Those of [`Subscription::next_timeout`]. An error behind the first event comes from the next call.
    pub fn next_batch(&mut self, max: usize) -> Result<Vec<RecordedEvent>, Error> {
        next_batch(self, max, |subscription| subscription.wait(None), Subscription::try_next)
    }

    /// The next event. If there is none yet, the task is woken when one comes or the store closes. Ends as
    /// the iterator does. Reads block for as long as the disk takes.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<RecordedEvent, Error>>> {
        loop {
            if self.has_ended {
                return Poll::Ready(None);
            }
            let step = self.step();
            if let (Ok(NextStep::Wait), Ok(view)) = (&step, &self.view) {
                let waker = context.waker().clone();
                if view.register(self.visibility, self.cursor, &mut self.waker, waker) {
                    return Poll::Pending;
                }
                continue;
            }
            return Poll::Ready(self.item(step));
        }
    }

    /// The next event, for async code, under any executor. Dropping the future loses no event.
    pub fn next_async(&mut self) -> NextEvent<'_> {
        NextEvent(self)
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Result<Option<RecordedEvent>, Error> {
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(Some(event));
            }
            if !self.view.clone()?.wait(self.visibility, self.cursor, deadline) {
                return Ok(None);
            }
        }
    }

    /// The next event, without waiting.
    #[inline(always)]
    fn step(&mut self) -> Result<NextStep, Error> {
        loop {
            if let Some(up_to) = self.reading_to {
                match self.read.next() {
                    Some(Ok(event)) => {
                        self.move_to(event.position());
                        return Ok(NextStep::Event(event));
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
            if let Some(step) = self.begin_read()? {
                return Ok(step);
            }
        }
    }

    fn move_to(&mut self, position: Position) {
        self.cursor = position;
        if let Some(shown) = &self.shown {
            shown.set(position);
        }
    }

    /// Begins the next read, or returns why there is none.
    fn begin_read(&mut self) -> Result<Option<NextStep>, Error> {
        let view = self.view.as_ref().map_err(Error::clone)?;
        // Before the head: events that are published before the store closes must not be missed.
        let closed = view.close_reason();
        let head = view.head_at(self.visibility);
        if let Some(origin) = self.origin {
            let snapshot = view.snapshot();
            origin.check(self.cursor, &snapshot)?;
            // Keep the check until the log reaches the cursor: before, there is no chain hash to compare.
            self.origin = self.origin.filter(|_| self.cursor > snapshot.head.position);
        }
        if head > self.cursor {
            self.read.restart(self.cursor, head);
            self.reading_to = Some(head);
            return Ok(None);
        }
        Ok(Some(closed.map_or(NextStep::Wait, NextStep::Ended)))
    }

    /// A step as the iterator returns it. All but an event end the iterator.
    #[inline(always)]
    fn item(&mut self, step: Result<NextStep, Error>) -> Option<Result<RecordedEvent, Error>> {
        let item = match step {
            Ok(NextStep::Event(event)) => return Some(Ok(event)),
            Ok(NextStep::Wait | NextStep::Ended(CloseReason::Closed)) => None,
            Ok(NextStep::Ended(failed @ (CloseReason::WriterFailed(_) | CloseReason::FollowerFailed(_)))) => {
                Some(Err(failed.into_error()))
            }
            Err(error) => Some(Err(error)),
        };
        self.has_ended = true;
        item
    }
}

/// Waits for an event, and returns it with those that follow without waiting, up to `max`. For subscriptions
/// and consumers. An error behind the first event comes from the next call.
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
                (Ok(NextStep::Wait), Ok(view)) => drop(view.wait(self.visibility, self.cursor, None)),
                _ => return self.item(step),
            }
        }
    }
}

impl FusedIterator for Subscription {}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let (Ok(view), Some(waker)) = (&self.view, self.waker) {
            view.unregister(waker);
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
