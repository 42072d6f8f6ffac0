//! The channel between the writer and one receiver: bounded in events, and honest about losses.
//!
//! Both ends keep a count of the events in it under one lock. Under the same lock a loss is noted and
//! collected, so it cannot change places with what was sent before it or after it.
//! Row: notification.

use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use flume::{Receiver, RecvTimeoutError, Sender};
use parking_lot::Mutex;

use super::{Notice, Notification, Step};
use crate::read::view::{View, wake};
use crate::types::{Position, Query, to_u64};

/// How many events a channel holds unless told otherwise.
const CAPACITY: usize = 1024;

/// What did not fit.
#[derive(Clone, Copy)]
pub(super) struct Loss {
    pub(super) missed: u64,
    pub(super) resume_at: Position,
}

/// What travels in a channel. One of the two is there.
struct Item {
    lost_before: Option<Loss>,
    events: Vec<Notification>,
}

/// What both ends keep.
pub(super) struct Shared {
    pub(super) query: Query,
    state: Mutex<State>,
}

struct State {
    capacity: usize,
    /// Events in the channel.
    queued: usize,
    /// Not told yet; all of it is newer than what is in the channel, which is not empty.
    loss: Option<Loss>,
    /// Of the task that waits.
    waker: Option<Waker>,
}

impl State {
    fn fits(&self, events: usize) -> bool {
        self.queued == 0 || self.queued.saturating_add(events) <= self.capacity
    }

    fn lose(&mut self, events: usize, first: Position) {
        let before = Position::from(first.get() - 1);
        let loss = self.loss.get_or_insert(Loss { missed: 0, resume_at: before });
        loss.missed += to_u64(events);
    }
}

impl Shared {
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
pub(super) struct Outlet {
    /// Events up to here were there before the receiver was.
    pub(super) after: Position,
    sender: Sender<Item>,
    pub(super) shared: Arc<Shared>,
}

impl Outlet {
    /// Whether not even one event fits.
    pub(super) fn is_full(&self) -> bool {
        !self.shared.state.lock().fits(1)
    }

    /// Sends the `count` events of a group, the first of them at `first`, or notes that they were lost:
    /// `None` are events that were not made because the channel was full. Whether they were sent.
    pub(super) fn send(&self, events: Option<Vec<Notification>>, count: usize, first: Position) -> bool {
        let mut state = self.shared.state.lock();
        let sent = events.filter(|_| state.fits(count));
        let has_sent = sent.is_some();
        if has_sent {
            state.queued += count;
        } else {
            state.lose(count, first);
            // Else the receiver learns of the loss when it has emptied the channel.
            if state.queued > 0 {
                return false;
            }
        }
        let item = Item { lost_before: state.loss.take(), events: sent.unwrap_or_default() };
        // A receiver that is just being dropped asks for nothing more.
        let _ = self.sender.try_send(item);
        drop(state);
        self.shared.wake();
        has_sent
    }
}

/// The receiver's end.
pub(super) struct Inlet {
    receiver: Receiver<Item>,
    pub(super) shared: Arc<Shared>,
    view: Arc<View>,
    /// What came behind the loss that was told last.
    behind_loss: Vec<Notification>,
}

/// Both ends. The view tells the receiver how the store ended, once the writer's end is gone.
pub(super) fn channel(query: Query, view: Arc<View>) -> (Outlet, Inlet) {
    // Bounded by the count of events, which the writer looks at before it sends.
    let (sender, receiver) = flume::unbounded();
    let state = State { capacity: CAPACITY, queued: 0, loss: None, waker: None };
    let shared = Arc::new(Shared { query, state: Mutex::new(state) });
    let outlet = Outlet { after: Position::START, sender, shared: shared.clone() };
    (outlet, Inlet { receiver, shared, view, behind_loss: Vec::new() })
}

impl Inlet {
    /// The next notice, if it is there.
    pub(super) fn step(&mut self) -> Step {
        if !self.behind_loss.is_empty() {
            return Step::Notice(Notice::Events(std::mem::take(&mut self.behind_loss)));
        }
        // Once the store has ended nothing is sent, even if the writer's end is still there. Asked for
        // first: what was sent before the end must not be missed.
        let end = self.view.ended();
        let mut state = self.shared.state.lock();
        let received = self.receiver.try_recv();
        // What is in the channel came before the loss.
        let loss = if received.is_err() { state.loss.take() } else { None };
        drop(state);
        match (received, loss) {
            (Ok(item), _) => Step::Notice(self.open(item)),
            (Err(_), Some(loss)) => Step::Notice(loss.into()),
            (Err(_), None) => end.map_or(Step::Nothing, Step::Ended),
        }
    }

    /// Waits for the next notice until the deadline, if there is one.
    pub(super) fn wait(&mut self, deadline: Option<Instant>) -> Step {
        loop {
            match self.step() {
                Step::Nothing => {}
                step => return step,
            }
            // Here the channel is empty, so whatever comes next fits, and is sent: no loss is slept over.
            let received = match deadline {
                None => self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(deadline) => self.receiver.recv_deadline(deadline),
            };
            match received {
                Ok(item) => return Step::Notice(self.open(item)),
                Err(RecvTimeoutError::Timeout) => return Step::Nothing,
                Err(RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    /// The next notice; if there is none, `waker` is called once there is.
    pub(super) fn poll(&mut self, waker: &Waker) -> Step {
        loop {
            match self.step() {
                Step::Nothing => {}
                step => return step,
            }
            let waker = waker.clone();
            let mut state = self.shared.state.lock();
            if self.receiver.is_empty() && !self.receiver.is_disconnected() && state.loss.is_none() {
                let replaced = state.waker.replace(waker);
                drop(state);
                drop(replaced);
                return Step::Nothing;
            }
        }
    }

    fn open(&mut self, item: Item) -> Notice {
        self.shared.state.lock().queued -= item.events.len();
        match item.lost_before {
            None => Notice::Events(item.events),
            Some(loss) => {
                self.behind_loss = item.events;
                loss.into()
            }
        }
    }
}
