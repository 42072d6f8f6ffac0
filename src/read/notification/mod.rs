//! Notifications: lossy hints about appended events, which the writer filters and sends.
//!
//! The writer calls [`Listeners::notify`] once per group, after its replies, and never waits for a receiver.
//! Each receiver has a channel of its own, which holds a bounded number of events and counts those that do
//! not fit.

mod channel;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::iter::FusedIterator;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::event::{EventIds, belongs_to, matches};
use crate::format::Frame;
use crate::types::{Error, Position, Query, to_u64};

use super::view::LogView;
use super::watch::{CloseReason, Visibility};
use channel::{ChannelCore, ChannelReceiver, ChannelSender, ChannelStep, channel};

pub use channel::{Notice, Notification};

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

/// The writer's ends of all channels.
#[derive(Default)]
pub(crate) struct Listeners {
    count: AtomicUsize,
    senders: Mutex<Senders>,
}

#[derive(Default)]
struct Senders {
    /// The writer takes a copy of the list, and holds no lock while it matches and sends.
    list: Arc<Vec<Arc<ChannelSender>>>,
    has_ended: bool,
}

/// The number of events sent and of events that did not fit, counted once per receiver.
#[derive(Clone, Copy, Default)]
pub(crate) struct NotifiedCounts {
    pub(crate) sent: u64,
    pub(crate) missed: u64,
}

impl Listeners {
    /// The number of receivers. A group without receivers costs this one load.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Adds a receiver of all events after the current head.
    fn add(&self, mut sender: ChannelSender, view: &LogView) {
        let mut senders = self.senders.lock();
        if !senders.has_ended {
            // Before the look at the head. The writer moves the head before it reads the count, so a group is
            // either sent to this receiver or lies before `after`.
            self.count.store(senders.list.len() + 1, Ordering::Relaxed);
            sender.after = view.head_at(Visibility::Published);
            Arc::make_mut(&mut senders.list).push(Arc::new(sender));
        }
    }

    fn remove(&self, core: &Arc<ChannelCore>) {
        let mut senders = self.senders.lock();
        Arc::make_mut(&mut senders.list).retain(|sender| !Arc::ptr_eq(&sender.core, core));
        self.count.store(senders.list.len(), Ordering::Relaxed);
    }

    /// Ends all channels. The view must have the close reason by now.
    pub(crate) fn end(&self) {
        let mut senders = self.senders.lock();
        senders.has_ended = true;
        let list = std::mem::take(&mut senders.list);
        self.count.store(0, Ordering::Relaxed);
        drop(senders);
        let core: Vec<Arc<ChannelCore>> = list.iter().map(|sender| sender.core.clone()).collect();
        // Before the wake-ups: a receiver sees the end because the writer's end is gone.
        drop(list);
        core.iter().for_each(|core| core.wake());
    }

    /// Sends the events of a group to every receiver whose query they match. Each frame comes with the
    /// position of its first event.
    pub(crate) fn notify<'a>(&self, frames: impl Iterator<Item = (Position, Frame<'a>)>) -> NotifiedCounts {
        let list = self.senders.lock().list.clone();
        let mut batches: Vec<ReceiverBatch<'_>> =
            list.iter().map(|sender| ReceiverBatch::new(sender)).collect();
        for (first, frame) in frames {
            let header = frame.header;
            for record in frame.records() {
                let (index, record) = record.expect("a record that was just encoded can be read");
                let belongs = |id| belongs_to(id, &record, || EventIds::of_first(&frame, first));
                let mut made = None;
                for batch in &mut batches {
                    let is_new = first > batch.sender.after;
                    if is_new && matches(&batch.sender.core.query, &record, belongs) {
                        batch.add(first.plus(u64::from(index)), || {
                            made.get_or_insert_with(|| Notification::new(&header, first, index, &record))
                                .clone()
                        });
                    }
                }
            }
        }
        batches.into_iter().fold(NotifiedCounts::default(), ReceiverBatch::send)
    }
}

/// The events of a group for one receiver.
struct ReceiverBatch<'a> {
    sender: &'a ChannelSender,
    /// `None` for a full channel: its notifications are counted and not made.
    events: Option<Vec<Notification>>,
    count: usize,
    first: Position,
}

impl<'a> ReceiverBatch<'a> {
    fn new(sender: &'a ChannelSender) -> ReceiverBatch<'a> {
        let events = (!sender.is_full()).then(Vec::new);
        ReceiverBatch { sender, events, count: 0, first: Position::START }
    }

    fn add(&mut self, position: Position, notification: impl FnOnce() -> Notification) {
        if self.count == 0 {
            self.first = position;
        }
        self.count += 1;
        if let Some(events) = &mut self.events {
            events.push(notification());
        }
    }

    fn send(counts: NotifiedCounts, batch: ReceiverBatch<'_>) -> NotifiedCounts {
        if batch.count == 0 {
            return counts;
        }
        let events = to_u64(batch.count);
        if batch.sender.send(batch.events, batch.count, batch.first) {
            NotifiedCounts { sent: counts.sent + events, ..counts }
        } else {
            NotifiedCounts { missed: counts.missed + events, ..counts }
        }
    }
}
