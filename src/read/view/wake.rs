//! Who waits for the heads to move or for the store to end, and how it ended.
//!
//! No wake-up is lost: whoever waits counts itself before it looks at the heads, and looks at them
//! under the lock that waking takes. The writer moves a head first and looks at the count then; the
//! lock of what is published lies between, so one of the two sees the other.
//! Wakers are code of others: they are called, cloned and dropped outside the lock, and their panics
//! are caught.
//! Row: view.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::LogView;
use crate::types::{Error, ErrorKind, Position};

/// How far somebody wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visibility {
    /// Up to the head.
    Published,
    /// Up to the durable head.
    Durable,
}

/// How a store ended.
#[derive(Clone, Debug)]
pub(crate) enum CloseReason {
    Closed,
    /// The writer failed, for this reason; nothing will be published any more.
    WriterFailed(Error),
    /// A store opened to read cannot follow its writer any more, for this reason.
    FollowerFailed(Error),
}

impl CloseReason {
    /// What those who follow are told.
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

/// Those who wait.
#[derive(Default)]
pub(super) struct Watchers {
    /// Threads that sleep, or are about to, and wakers.
    count: AtomicUsize,
    state: Mutex<State>,
    published: Condvar,
    durable: Condvar,
}

#[derive(Default)]
struct State {
    wakers: Vec<Registered>,
    last_slot: u64,
    /// The heads when somebody was last woken.
    published: Position,
    durable: Position,
    end: Option<CloseReason>,
}

struct Registered {
    slot: WakerId,
    visibility: Visibility,
    waker: Waker,
}

/// Tells one registered waker from the others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct WakerId(u64);

impl LogView {
    /// Waits until there is more to see than up to `passed`, or the store has ended. `false` if the
    /// deadline came first.
    pub(crate) fn wait(&self, visibility: Visibility, passed: Position, deadline: Option<Instant>) -> bool {
        let watchers = &self.watchers;
        let _counted = Counted::new(&watchers.count);
        let mut state = watchers.state.lock();
        while self.head_at(visibility) <= passed && state.end.is_none() {
            let changed = match visibility {
                Visibility::Published => &watchers.published,
                Visibility::Durable => &watchers.durable,
            };
            match deadline {
                None => changed.wait(&mut state),
                Some(deadline) if changed.wait_until(&mut state, deadline).timed_out() => {
                    return self.head_at(visibility) > passed || state.end.is_some();
                }
                Some(_) => {}
            }
        }
        true
    }

    /// Has `waker` called, once, when there is more to see than up to `passed`, or the store has
    /// ended. `false` if that is so already, and then nothing is called. A waker registered in `slot`
    /// before is replaced.
    pub(crate) fn register(
        &self,
        visibility: Visibility,
        passed: Position,
        slot: &mut Option<WakerId>,
        waker: Waker,
    ) -> bool {
        let watchers = &self.watchers;
        let counted = Counted::new(&watchers.count);
        let mut state = watchers.state.lock();
        let replaced = state.take(*slot);
        let waits = self.head_at(visibility) <= passed && state.end.is_none();
        // Whichever waker is not kept is dropped after the lock is free.
        let unused = if waits {
            state.last_slot += 1;
            let new = WakerId(state.last_slot);
            state.wakers.push(Registered { slot: new, visibility, waker });
            *slot = Some(new);
            counted.keep();
            None
        } else {
            *slot = None;
            Some(waker)
        };
        drop(state);
        watchers.count.fetch_sub(replaced.iter().count(), Ordering::Relaxed);
        drop((replaced, unused));
        waits
    }

    /// Whoever registered in `slot` is not interested any more.
    pub(crate) fn forget(&self, slot: WakerId) {
        let forgotten = self.watchers.state.lock().take(Some(slot));
        self.watchers.count.fetch_sub(forgotten.iter().count(), Ordering::Relaxed);
    }

    /// The store ends so; the first end stays. [`LogView::wake`] tells those who wait.
    pub(crate) fn close(&self, end: CloseReason) {
        self.watchers.state.lock().end.get_or_insert(end);
    }

    /// How the store ended, if it has.
    pub(crate) fn close_reason(&self) -> Option<CloseReason> {
        self.watchers.state.lock().end.clone()
    }

    /// Wakes those for whom something has changed.
    pub(crate) fn wake(&self) {
        let watchers = &self.watchers;
        if watchers.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let (published, durable) = (self.head_at(Visibility::Published), self.head_at(Visibility::Durable));
        let mut state = watchers.state.lock();
        let is_over = state.end.is_some();
        let moved = (is_over || published > state.published, is_over || durable > state.durable);
        (state.published, state.durable) = (published, durable);
        let concerns = |registered: &mut Registered| match registered.visibility {
            Visibility::Published => moved.0,
            Visibility::Durable => moved.1,
        };
        let woken: Vec<Registered> = state.wakers.extract_if(.., concerns).collect();
        drop(state);
        watchers.count.fetch_sub(woken.len(), Ordering::Relaxed);
        if moved.0 {
            watchers.published.notify_all();
        }
        if moved.1 {
            watchers.durable.notify_all();
        }
        woken.into_iter().for_each(|registered| wake(registered.waker));
    }
}

impl State {
    fn take(&mut self, slot: Option<WakerId>) -> Option<Registered> {
        let place = self.wakers.iter().position(|registered| Some(registered.slot) == slot)?;
        Some(self.wakers.swap_remove(place))
    }
}

/// One more in the count, as long as this lives.
struct Counted<'a>(&'a AtomicUsize);

impl Counted<'_> {
    fn new(count: &AtomicUsize) -> Counted<'_> {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(count)
    }

    /// Leaves it counted.
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Calls a waker, and keeps its panics from the thread it is called on.
pub(crate) fn wake(waker: Waker) {
    if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
        tracing::error!("the waker of somebody who follows panicked");
    }
}
