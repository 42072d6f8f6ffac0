//! Waiting for the heads to move or the store to close, and the cursors of all subscriptions.
//!
//! No wake-up is lost. A waiter counts itself before it reads the head, and reads the head under the lock
//! that waking takes. The writer moves the head before it reads the count. The lock of the heads lies
//! between, so one of the two sees the other. Wakers are the caller's code: they are called, cloned and
//! dropped outside the lock, and their panics are caught.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::types::{Error, ErrorKind, Position, SubscriptionLag};

/// Which events a reader wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visibility {
    /// Up to the head.
    Published,
    /// Up to the durable head.
    Durable,
}

/// Why no more events come.
#[derive(Clone, Debug)]
pub(crate) enum CloseReason {
    Closed,
    /// The writer failed with this error.
    WriterFailed(Error),
    /// A store opened to read cannot follow its writer any more.
    FollowerFailed(Error),
}

impl CloseReason {
    /// The error that a subscription returns.
    pub(crate) fn into_error(self) -> Error {
        match self {
            CloseReason::Closed => Error::closed(),
            CloseReason::FollowerFailed(reason) => reason,
            CloseReason::WriterFailed(reason) => {
                let text = format!("the writer failed ({reason}); no more events come, reopen the store");
                Error::with_source(ErrorKind::Poisoned, text, reason)
            }
        }
    }
}

/// The threads and tasks that wait.
#[derive(Default)]
pub(super) struct Watchers {
    /// Threads that sleep or are about to, and registered wakers.
    count: AtomicUsize,
    state: Mutex<WatchState>,
    published: Condvar,
    durable: Condvar,
}

#[derive(Default)]
struct WatchState {
    wakers: Vec<RegisteredWaker>,
    last_id: u64,
    /// The heads of the last wake-up.
    published: Position,
    durable: Position,
    closed: Option<CloseReason>,
}

struct RegisteredWaker {
    id: WakerId,
    visibility: Visibility,
    waker: Waker,
}

/// Identifies a registered waker.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct WakerId(u64);

impl Watchers {
    /// Waits until `is_ready`, or the store has closed. `false` if the deadline came first.
    pub(super) fn wait(
        &self,
        visibility: Visibility,
        deadline: Option<Instant>,
        is_ready: impl Fn() -> bool,
    ) -> bool {
        // Before the first look at the head; see the header.
        let _counted = CountGuard::new(&self.count);
        let mut state = self.state.lock();
        while !is_ready() && state.closed.is_none() {
            let changed = match visibility {
                Visibility::Published => &self.published,
                Visibility::Durable => &self.durable,
            };
            match deadline {
                None => changed.wait(&mut state),
                Some(deadline) if changed.wait_until(&mut state, deadline).timed_out() => {
                    return is_ready() || state.closed.is_some();
                }
                Some(_) => {}
            }
        }
        true
    }

    /// Registers a waker, unless `is_ready` or the store has closed. Returns whether it did. Replaces the
    /// waker that was registered under `id` before.
    pub(super) fn register(
        &self,
        visibility: Visibility,
        id: &mut Option<WakerId>,
        waker: Waker,
        is_ready: impl Fn() -> bool,
    ) -> bool {
        // Before the look at the head; see the header.
        let counted = CountGuard::new(&self.count);
        let mut state = self.state.lock();
        let replaced = state.take(*id);
        let waits = !is_ready() && state.closed.is_none();
        let unused = if waits {
            state.last_id += 1;
            let new = WakerId(state.last_id);
            state.wakers.push(RegisteredWaker { id: new, visibility, waker });
            *id = Some(new);
            counted.keep();
            None
        } else {
            *id = None;
            Some(waker)
        };
        drop(state);
        self.count.fetch_sub(replaced.iter().count(), Ordering::Relaxed);
        // Only now that the lock is free: dropping a waker runs the caller's code.
        drop(replaced);
        drop(unused);
        waits
    }

    pub(super) fn unregister(&self, id: WakerId) {
        let removed = self.state.lock().take(Some(id));
        self.count.fetch_sub(removed.iter().count(), Ordering::Relaxed);
    }

    /// Records why the store closed; the first reason stays.
    pub(super) fn close(&self, reason: CloseReason) {
        self.state.lock().closed.get_or_insert(reason);
    }

    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        self.state.lock().closed.clone()
    }

    /// Wakes those that wait for a head that has moved since the last wake-up, or all once the store has
    /// closed. Costs one load of the count if there are none.
    pub(super) fn wake(&self, head: impl Fn(Visibility) -> Position) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let published = head(Visibility::Published);
        let durable = head(Visibility::Durable);
        let mut state = self.state.lock();
        let is_closed = state.closed.is_some();
        let published_moved = is_closed || published > state.published;
        let durable_moved = is_closed || durable > state.durable;
        state.published = published;
        state.durable = durable;
        let concerns = |registered: &mut RegisteredWaker| match registered.visibility {
            Visibility::Published => published_moved,
            Visibility::Durable => durable_moved,
        };
        let woken: Vec<RegisteredWaker> = state.wakers.extract_if(.., concerns).collect();
        drop(state);
        self.count.fetch_sub(woken.len(), Ordering::Relaxed);
        if published_moved {
            self.published.notify_all();
        }
        if durable_moved {
            self.durable.notify_all();
        }
        woken.into_iter().for_each(|registered| wake(registered.waker));
    }
}

impl WatchState {
    fn take(&mut self, id: Option<WakerId>) -> Option<RegisteredWaker> {
        let at = self.wakers.iter().position(|registered| Some(registered.id) == id)?;
        Some(self.wakers.swap_remove(at))
    }
}

/// Adds one to a count for as long as it lives.
struct CountGuard<'a>(&'a AtomicUsize);

impl CountGuard<'_> {
    fn new(count: &AtomicUsize) -> CountGuard<'_> {
        count.fetch_add(1, Ordering::Relaxed);
        CountGuard(count)
    }

    /// Leaves the count as it is.
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for CountGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Calls a waker. A panic of the waker does not reach the calling thread.
pub(crate) fn wake(waker: Waker) {
    if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
        tracing::error!("the waker of a subscription or a notification panicked");
    }
}

/// The cursors of all subscriptions, for statistics.
#[derive(Default)]
pub(super) struct SubscriptionCursors(Mutex<Vec<Weak<SubscriptionCursor>>>);

/// The position of one subscription: written by the subscription, read for statistics.
pub(crate) struct SubscriptionCursor {
    query: String,
    position: AtomicU64,
}

impl SubscriptionCursor {
    pub(crate) fn set(&self, position: Position) {
        self.position.store(position.get(), Ordering::Relaxed);
    }
}

impl SubscriptionCursors {
    /// Lists a subscription until the returned cursor is dropped.
    pub(super) fn add(&self, query: String) -> Arc<SubscriptionCursor> {
        let cursor = Arc::new(SubscriptionCursor { query, position: AtomicU64::new(0) });
        let mut cursors = self.0.lock();
        cursors.retain(|known| known.strong_count() > 0);
        cursors.push(Arc::downgrade(&cursor));
        cursor
    }

    /// How far each subscription is behind `head`.
    pub(super) fn lags(&self, head: Position) -> Vec<SubscriptionLag> {
        let cursors = self.0.lock();
        let alive = cursors.iter().filter_map(Weak::upgrade);
        let lags = alive.map(|cursor| {
            let position = Position::from(cursor.position.load(Ordering::Relaxed));
            let behind = head.get().saturating_sub(position.get());
            SubscriptionLag { query: cursor.query.clone(), position, behind }
        });
        lags.collect()
    }
}
