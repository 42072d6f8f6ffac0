//! Hints about what was appended: filtered and sent by the writer, lost rather than waited for.
//!
//! The writer calls [`Listeners::tell`] once per group, after its replies. Each receiver has a channel of
//! its own (`channel.rs`), which holds so many events and counts those that do not fit.
//! Row: notification.

mod channel;
mod listeners;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::iter::FusedIterator;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::format::{FrameHeader, Record};
use crate::read::view::{CloseReason, LogView};
use crate::types::{Coordinate, Error, EventId, Position, Query};

use channel::{Inlet, Loss, channel};
pub(crate) use listeners::Listeners;

/// A hint that an event was appended. It carries no payload: read the event if you need it.
#[derive(Clone, PartialEq, Eq)]
pub struct Notification {
    position: Position,
    id: EventId,
    /// Entity, scope and kind, one behind the other; shared by all receivers.
    names: Arc<str>,
    /// Where the entity and the scope end.
    ends: (u16, u16),
}

impl Notification {
    fn new(header: &FrameHeader<'_>, first: Position, index: u16, record: &Record<'_>) -> Notification {
        let scope = record.scope_or_default();
        let position = first.plus(index.into());
        let short = |length| u16::try_from(length).expect("names are shorter than 5,000 bytes");
        let entity = record.entity();
        Notification {
            position,
            id: record.foreign_id().unwrap_or_else(|| header.event_id(position)),
            names: [entity, scope, record.kind()].concat().into(),
            ends: (short(entity.len()), short(entity.len() + scope.len())),
        }
    }

    /// The event's place in the order of the store.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The event's identity.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.id
    }

    /// The entity it tells about.
    #[must_use]
    pub fn entity(&self) -> &str {
        &self.names[..self.ends.0.into()]
    }

    /// The scope it happened in.
    #[must_use]
    pub fn scope(&self) -> &str {
        &self.names[self.ends.0.into()..self.ends.1.into()]
    }

    /// Entity and scope.
    #[must_use]
    pub fn coordinate(&self) -> Coordinate {
        Coordinate::sealed(self.entity(), self.scope())
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.names[self.ends.1.into()..]
    }
}

impl fmt::Debug for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notification")
            .field("position", &self.position.get())
            .field("entity", &self.entity())
            .field("scope", &self.scope())
            .field("kind", &self.kind())
            .finish_non_exhaustive()
    }
}

/// What [`Notifications`] give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// What one group of appends brought that matches, in order; at least one event.
    Events(Vec<Notification>),
    /// The receiver was too slow, and hints were lost: behind what came before this, and before what
    /// comes next.
    Lagged {
        /// How many events.
        missed: u64,
        /// Reading the query after this position finds all of them.
        resume_at: Position,
    },
}

impl From<Loss> for Notice {
    fn from(loss: Loss) -> Notice {
        Notice::Lagged { missed: loss.missed, resume_at: loss.resume_at }
    }
}

/// Lossy hints about the events a query matches, from when it was made.
///
/// The writer sends them after the appends were answered and waits for nobody: what does not fit into the
/// channel is lost, counted, and said ([`Notice::Lagged`]). For every event, whatever happens, use
/// [`Store::subscribe`](crate::Store::subscribe). As an iterator it waits for the next notice and
/// ends when the store is closed; if the store fails, one
/// [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned) comes first.
///
/// ```
/// use annals::{Notice, Query, Raw, Store};
///
/// let store = Store::in_memory()?;
/// let mut hints = store.notifications(Query::entity_prefix("account:"));
/// store.append("order:7", &Raw("order.placed", &()))?;
/// store.append("account:alice", &Raw("account.deposited", &500))?;
/// let Some(Notice::Events(events)) = hints.next().transpose()? else { panic!("nothing was missed") };
/// assert_eq!((events[0].entity(), events[0].kind()), ("account:alice", "account.deposited"));
/// assert_eq!(events[0].position().get(), 2);
/// # Ok::<(), annals::Error>(())
/// ```
#[must_use = "notifications that nobody takes are made for nothing"]
pub struct Notifications {
    inlet: Result<Inlet, Error>,
    listeners: Arc<Listeners>,
    has_ended: bool,
}

enum Step {
    Notice(Notice),
    Nothing,
    Ended(CloseReason),
}

impl Notifications {
    pub(crate) fn new(
        view: Result<Arc<LogView>, Error>,
        listeners: &Arc<Listeners>,
        query: Query,
    ) -> Notifications {
        let inlet = view.map(|view| {
            let (outlet, inlet) = channel(query, view.clone());
            listeners.add(outlet, &view);
            inlet
        });
        Notifications { inlet, listeners: listeners.clone(), has_ended: false }
    }

    /// How many events wait for this receiver at most (default: 1,024). More bridges longer pauses,
    /// and costs about 100 bytes an event while they wait. One group's events always fit into an
    /// empty channel, however many.
    pub fn capacity(self, events: usize) -> Notifications {
        if let Ok(inlet) = &self.inlet {
            inlet.shared.set_capacity(events);
        }
        self
    }

    /// Waits for the next notice, at most so long; `None` if none came.
    ///
    /// # Errors
    ///
    /// Once everything was handed out: [`ErrorKind::Closed`](crate::ErrorKind::Closed),
    /// [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned);
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the store is only what was salvaged.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Notice>, Error> {
        // Too far away for an instant is for ever.
        let deadline = Instant::now().checked_add(timeout);
        self.inlet.as_mut().map_err(|error| error.clone())?.wait(deadline).into_result()
    }

    /// The next notice, if it is there already.
    ///
    /// # Errors
    ///
    /// As [`Notifications::next_timeout`].
    pub fn try_next(&mut self) -> Result<Option<Notice>, Error> {
        self.inlet.as_mut().map_err(|error| error.clone())?.step().into_result()
    }

    /// The next notice, or else has the task woken when there is one or the store has ended. Comes to
    /// an end as the iterator does.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Notice, Error>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        match &mut self.inlet {
            Err(_) => Poll::Ready(self.item(Step::Nothing)),
            Ok(inlet) => match inlet.poll(context.waker()) {
                Step::Nothing => Poll::Pending,
                step => Poll::Ready(self.item(step)),
            },
        }
    }

    /// The next notice, for async code; under any executor. Dropping the future loses nothing.
    pub fn next_async(&mut self) -> NextNotice<'_> {
        NextNotice(self)
    }

    /// What the iterator makes of a step.
    fn item(&mut self, step: Step) -> Option<Result<Notice, Error>> {
        let item = match (step, &self.inlet) {
            (Step::Notice(notice), _) => return Some(Ok(notice)),
            (Step::Ended(failed @ (CloseReason::WriterFailed(_) | CloseReason::FollowerFailed(_))), _) => Some(Err(failed.into_error())),
            (_, Err(refused)) => Some(Err(refused.clone())),
            (Step::Nothing | Step::Ended(CloseReason::Closed), Ok(_)) => None,
        };
        self.has_ended = true;
        item
    }
}

impl Step {
    fn into_result(self) -> Result<Option<Notice>, Error> {
        match self {
            Step::Notice(notice) => Ok(Some(notice)),
            Step::Nothing => Ok(None),
            Step::Ended(end) => Err(end.into_error()),
        }
    }
}

impl Iterator for Notifications {
    type Item = Result<Notice, Error>;

    fn next(&mut self) -> Option<Result<Notice, Error>> {
        if self.has_ended {
            return None;
        }
        let step = self.inlet.as_mut().map_or(Step::Nothing, |inlet| inlet.wait(None));
        self.item(step)
    }
}

impl FusedIterator for Notifications {}

impl Drop for Notifications {
    fn drop(&mut self) {
        if let Ok(inlet) = &self.inlet {
            self.listeners.remove(&inlet.shared);
        }
    }
}

impl fmt::Debug for Notifications {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifications").finish_non_exhaustive()
    }
}

/// The future of [`Notifications::next_async`].
#[must_use = "a future does nothing until it is awaited"]
pub struct NextNotice<'a>(&'a mut Notifications);

impl Future for NextNotice<'_> {
    type Output = Option<Result<Notice, Error>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_next(context)
    }
}
