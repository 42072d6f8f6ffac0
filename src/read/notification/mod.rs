//! Notifications: lossy hints about appended events, which the writer filters and sends.
//!
//! The writer calls [`Listeners::notify`] once per group, after its replies, and never waits for a receiver.
//! Each receiver has a channel of its own, which holds a bounded number of events and counts those that do
//! not fit.

mod channel;
mod listeners;
mod notice;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::iter::FusedIterator;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::types::{Error, Query};

use super::view::LogView;
use super::watch::CloseReason;
use channel::{ChannelReceiver, ChannelStep, channel};

pub(crate) use listeners::Listeners;
pub use notice::{Notice, Notification};

/// Lossy hints about future events that match a query.
///
/// The writer sends them after it has answered the appends, and never waits for a receiver. Events that do
/// not fit into the channel are lost, counted, and reported ([`Notice::Lagged`]). For every event without
/// loss use [`Store::subscribe`](crate::Store::subscribe). As an iterator it waits for the next notice and
/// ends when the store is closed. If the store fails, one [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned)
/// comes first.
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
#[must_use = "notifications that are not received are made for nothing"]
pub struct Notifications {
    receiver: Result<ChannelReceiver, Error>,
    listeners: Arc<Listeners>,
    has_ended: bool,
}

impl Notifications {
    pub(crate) fn new(
        view: Result<Arc<LogView>, Error>,
        listeners: &Arc<Listeners>,
        query: Query,
    ) -> Notifications {
        let receiver = view.map(|view| {
            let (sender, receiver) = channel(query, view.clone());
            listeners.add(sender, &view);
            receiver
        });
        Notifications { receiver, listeners: listeners.clone(), has_ended: false }
    }

    /// The most events that wait for this receiver (default: 1,024). More events bridge longer pauses of the
    /// receiver, and cost about 100 bytes each while they wait. The events of one group always fit into an
    /// empty channel.
    pub fn capacity(self, events: usize) -> Notifications {
        if let Ok(receiver) = &self.receiver {
            receiver.core.set_capacity(events);
        }
        self
    }

    /// Waits for the next notice; `None` if none came within `timeout`.
    ///
    /// # Errors
    ///
    /// Once every notice was returned: [`ErrorKind::Closed`](crate::ErrorKind::Closed),
    /// [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned);
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the store was opened to salvage.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Notice>, Error> {
        // A deadline that no instant can express is none.
        let deadline = Instant::now().checked_add(timeout);
        self.receiver.as_mut().map_err(|error| error.clone())?.wait(deadline).into_result()
    }

    /// The next notice, if it has come already.
    ///
    /// # Errors
    ///
    /// Those of [`Notifications::next_timeout`].
    pub fn try_next(&mut self) -> Result<Option<Notice>, Error> {
        self.receiver.as_mut().map_err(|error| error.clone())?.step().into_result()
    }

    /// The next notice. If there is none yet, the task is woken when one comes or the store closes. Ends as
    /// the iterator does.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Notice, Error>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        match &mut self.receiver {
            Err(_) => Poll::Ready(self.item(ChannelStep::Empty)),
            Ok(receiver) => match receiver.poll(context.waker()) {
                ChannelStep::Empty => Poll::Pending,
                step => Poll::Ready(self.item(step)),
            },
        }
    }

    /// The next notice, for async code, under any executor. Dropping the future loses no notice.
    pub fn next_async(&mut self) -> NextNotice<'_> {
        NextNotice(self)
    }

    /// A step as the iterator returns it. All but a notice end the iterator.
    fn item(&mut self, step: ChannelStep) -> Option<Result<Notice, Error>> {
        let item = match (step, &self.receiver) {
            (ChannelStep::Notice(notice), _) => return Some(Ok(notice)),
            (
                ChannelStep::Ended(failed @ (CloseReason::WriterFailed(_) | CloseReason::FollowerFailed(_))),
                _,
            ) => Some(Err(failed.into_error())),
            (_, Err(refused)) => Some(Err(refused.clone())),
            (ChannelStep::Empty | ChannelStep::Ended(CloseReason::Closed), Ok(_)) => None,
        };
        self.has_ended = true;
        item
    }
}

impl Iterator for Notifications {
    type Item = Result<Notice, Error>;

    fn next(&mut self) -> Option<Result<Notice, Error>> {
        if self.has_ended {
            return None;
        }
        let step = self.receiver.as_mut().map_or(ChannelStep::Empty, |receiver| receiver.wait(None));
        self.item(step)
    }
}

impl FusedIterator for Notifications {}

impl Drop for Notifications {
    fn drop(&mut self) {
        if let Ok(receiver) = &self.receiver {
            self.listeners.remove(&receiver.core);
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
