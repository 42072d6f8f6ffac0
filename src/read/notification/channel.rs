//! The channel between the writer and one receiver of notifications: what it carries, and both of its ends.
//!
//! The channel is bounded in events, and it reports losses. Both ends count the events in the channel under
//! one lock. A loss is recorded and taken under the same lock, so it keeps its place between the events
//! before it and those behind it.

use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use flume::{Receiver, RecvTimeoutError, Sender};
use parking_lot::Mutex;

use crate::format::{FrameHeader, Record};
use crate::read::view::LogView;
use crate::read::watch::{CloseReason, wake};
use crate::types::{Coordinate, Error, EventId, Position, Query, to_u64};

/// The default capacity, in events.
const CAPACITY: usize = 1024;

/// A hint that an event was appended. It carries no payload: read the event if you need it.
#[derive(Clone, PartialEq, Eq)]
pub struct Notification {
    position: Position,
    id: EventId,
    /// Entity, scope and kind, concatenated; shared by all receivers.
    names: Arc<str>,
    /// The ends of the entity and the scope in there.
    ends: (u16, u16),
}

impl Notification {
    pub(super) fn new(
        header: &FrameHeader<'_>,
        first: Position,
        index: u16,
        record: &Record<'_>,
    ) -> Notification {
        let entity = record.entity();
        let scope = record.scope_or_default();
        let position = first.plus(index.into());
        let end_of = |length| u16::try_from(length).expect("names are shorter than 5,000 bytes");
        Notification {
            position,
            id: record.foreign_id().unwrap_or_else(|| header.event_id(position)),
            names: [entity, scope, record.kind()].concat().into(),
            ends: (end_of(entity.len()), end_of(entity.len() + scope.len())),
        }
    }

    /// A notification of an event of the entity `e`, the scope `s` and the kind `k`.
    #[cfg(test)]
    pub(super) fn for_test(position: Position) -> Notification {
        Notification { position, id: EventId::from_bytes([0; 16]), names: "esk".into(), ends: (1, 2) }
    }

    /// The event's position.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The event's id.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.id
    }

    /// The event's entity.
    #[must_use]
    pub fn entity(&self) -> &str {
        &self.names[..self.ends.0.into()]
    }

    /// The event's scope.
    #[must_use]
    pub fn scope(&self) -> &str {
        &self.names[self.ends.0.into()..self.ends.1.into()]
    }

    /// The event's entity and scope.
    #[must_use]
    pub fn coordinate(&self) -> Coordinate {
        Coordinate::stored(self.entity(), self.scope())
    }

    /// The event's kind.
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

/// An item of [`Notifications`](crate::Notifications).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The matching events of one group of appends, in order; at least one event.
    Events(Vec<Notification>),
    /// The receiver was too slow, and notifications were lost between the item before this one and the next.
    Lagged {
        /// The number of lost events.
        missed: u64,
        /// Reading the query after this position finds all of them.
        resume_at: Position,
    },
}

/// Events that did not fit.
#[derive(Clone, Copy)]
struct MissedEvents {
    missed: u64,
    resume_at: Position,
}

impl From<MissedEvents> for Notice {
    fn from(loss: MissedEvents) -> Notice {
        Notice::Lagged { missed: loss.missed, resume_at: loss.resume_at }
    }
}

/// A message in the channel: a loss, events, or a loss and the events behind it.
struct Message {
    lost_before: Option<MissedEvents>,
    events: Vec<Notification>,
}

/// What the receiver gets without waiting.
pub(super) enum ChannelStep {
    Notice(Notice),
    Empty,
    Ended(CloseReason),
}

impl ChannelStep {
    pub(super) fn into_result(self) -> Result<Option<Notice>, Error> {
        match self {
            ChannelStep::Notice(notice) => Ok(Some(notice)),
            ChannelStep::Empty => Ok(None),
            ChannelStep::Ended(reason) => Err(reason.into_error()),
        }
    }
}

/// The state that both ends share.
pub(super) struct ChannelCore {
    pub(super) query: Query,
    state: Mutex<ChannelState>,
}

struct ChannelState {
    capacity: usize,
    /// The number of events in the channel.
    queued: usize,
    /// Events lost and not reported yet. They are newer than all events in the channel, which is not empty.
    loss: Option<MissedEvents>,
    /// The waker of the task that waits.
    waker: Option<Waker>,
}

impl ChannelState {
    fn fits(&self, events: usize) -> bool {
        self.queued == 0 || self.queued.saturating_add(events) <= self.capacity
    }

    fn lose(&mut self, events: usize, first: Position) {
        let before = Position::from(first.get() - 1);
        let loss = self.loss.get_or_insert(MissedEvents { missed: 0, resume_at: before });
        loss.missed += to_u64(events);
    }
}

impl ChannelCore {
    pub(super) fn set_capacity(&self, events: usize) {
        self.state.lock().capacity = events;
    }

    /// Wakes the task that waits, if one does.
    pub(super) fn wake(&self) {
        let waker = self.state.lock().waker.take();
        waker.into_iter().for_each(wake);
    }
}

/// The writer's end.
pub(super) struct ChannelSender {
    /// The head when the receiver was made: it gets later events only.
    pub(super) after: Position,
    messages: Sender<Message>,
    pub(super) core: Arc<ChannelCore>,
}

impl ChannelSender {
    /// Whether not even one event fits.
    pub(super) fn is_full(&self) -> bool {
        !self.core.state.lock().fits(1)
    }

    /// Sends the `count` events of a group, the first of them at `first`, or records their loss. `None` means
    /// that the events were not made, because the channel was full. Returns whether the events were sent.
    pub(super) fn send(&self, events: Option<Vec<Notification>>, count: usize, first: Position) -> bool {
        let mut state = self.core.state.lock();
        let sent = events.filter(|_| state.fits(count));
        let has_sent = sent.is_some();
        if has_sent {
            state.queued += count;
        } else {
            state.lose(count, first);
            // The receiver gets the loss when it has emptied the channel. An empty channel needs a message at
            // once: the receiver may be asleep.
            if state.queued > 0 {
                return false;
            }
        }
        let message = Message { lost_before: state.loss.take(), events: sent.unwrap_or_default() };
        // Fails only if the receiver is being dropped. Under the lock: the loss and the events keep their
        // order.
        let _ = self.messages.try_send(message);
        drop(state);
        self.core.wake();
        has_sent
    }
}

/// The receiver's end.
pub(super) struct ChannelReceiver {
    messages: Receiver<Message>,
    pub(super) core: Arc<ChannelCore>,
    /// Knows how the store closed, once the writer's end is gone.
    view: Arc<LogView>,
    /// The events behind the loss that was reported last.
    behind_loss: Vec<Notification>,
}

/// A channel for the events of a query.
pub(super) fn channel(query: Query, view: Arc<LogView>) -> (ChannelSender, ChannelReceiver) {
    // Bounded by the count of events, which the writer checks before it sends.
    let (sender, receiver) = flume::unbounded();
    let state = ChannelState { capacity: CAPACITY, queued: 0, loss: None, waker: None };
    let core = Arc::new(ChannelCore { query, state: Mutex::new(state) });
    let sender = ChannelSender { after: Position::START, messages: sender, core: core.clone() };
    (sender, ChannelReceiver { messages: receiver, core, view, behind_loss: Vec::new() })
}

impl ChannelReceiver {
    /// The next notice, without waiting.
    pub(super) fn step(&mut self) -> ChannelStep {
        if !self.behind_loss.is_empty() {
            return ChannelStep::Notice(Notice::Events(std::mem::take(&mut self.behind_loss)));
        }
        // Before the channel is read: messages sent before the store closed must not be missed. After that
        // none are sent, even if the writer's end still exists.
        let closed = self.view.close_reason();
        let mut state = self.core.state.lock();
        let received = self.messages.try_recv();
        // Messages in the channel come before the loss.
        let loss = if received.is_err() { state.loss.take() } else { None };
        drop(state);
        match (received, loss) {
            (Ok(message), _) => ChannelStep::Notice(self.open(message)),
            (Err(_), Some(loss)) => ChannelStep::Notice(loss.into()),
            (Err(_), None) => closed.map_or(ChannelStep::Empty, ChannelStep::Ended),
        }
    }

    /// Waits for the next notice until the deadline, if there is one.
    pub(super) fn wait(&mut self, deadline: Option<Instant>) -> ChannelStep {
        loop {
            match self.step() {
                ChannelStep::Empty => {}
                step => return step,
            }
            // The channel is empty, so the writer sends a message for the next events even if they do not
            // fit. The receiver does not sleep through a loss.
            let received = match deadline {
                None => self.messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(deadline) => self.messages.recv_deadline(deadline),
            };
            match received {
                Ok(message) => return ChannelStep::Notice(self.open(message)),
                Err(RecvTimeoutError::Timeout) => return ChannelStep::Empty,
                Err(RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    /// The next notice. If there is none, `waker` is called once there is.
    pub(super) fn poll(&mut self, waker: &Waker) -> ChannelStep {
        loop {
            match self.step() {
                ChannelStep::Empty => {}
                step => return step,
            }
            let waker = waker.clone();
            let mut state = self.core.state.lock();
            if self.messages.is_empty() && !self.messages.is_disconnected() && state.loss.is_none() {
                let replaced = state.waker.replace(waker);
                drop(state);
                // After the lock is free: dropping a waker runs the caller's code.
                drop(replaced);
                return ChannelStep::Empty;
            }
        }
    }

    /// The notice of a message. The events behind a loss wait for the next step.
    fn open(&mut self, message: Message) -> Notice {
        self.core.state.lock().queued -= message.events.len();
        match message.lost_before {
            None => Notice::Events(message.events),
            Some(loss) => {
                self.behind_loss = message.events;
                loss.into()
            }
        }
    }
}
