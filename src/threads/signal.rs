//! What a thread of ours sleeps on that several things may wake: events, a time, or somebody who wants it to stop.
//!
//! As a waker it may be rung from the writer thread: ringing takes one short lock.
//! Row: words.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// A bell that stays rung until somebody who waits for it has heard it.
#[derive(Default)]
pub(crate) struct Signal {
    is_rung: Mutex<bool>,
    rung: Condvar,
}

impl Signal {
    /// A bell that can also be handed out as a [`Waker`].
    pub(crate) fn new() -> Arc<Signal> {
        Arc::default()
    }

    pub(crate) fn waker(self: &Arc<Signal>) -> Waker {
        Waker::from(self.clone())
    }

    pub(crate) fn notify(&self) {
        *self.is_rung.lock() = true;
        self.rung.notify_all();
    }

    /// Sleeps until it is rung, at most up to the deadline. Whether it was rung.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut is_rung = self.is_rung.lock();
        while !*is_rung {
            match deadline {
                None => self.rung.wait(&mut is_rung),
                Some(deadline) if self.rung.wait_until(&mut is_rung, deadline).timed_out() => break,
                Some(_) => {}
            }
        }
        std::mem::take(&mut *is_rung)
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Signal>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<Signal>) {
        self.notify();
    }
}
