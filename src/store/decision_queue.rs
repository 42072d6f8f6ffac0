//! A fair queue for callers that decide about the same subject at the same time.
//!
//! A decision is appended only if its subject did not change in between, so one of several callers wins and
//! the others decide again. A caller that lost joins a queue and waits for its turn, and so does every caller
//! that comes later. So no caller starves, and few decisions are made in vain. The queue is no lock: a turn
//! lasts 50 ms at most, and the writer checks every append in any case. Tested by tests/it/decide.rs.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::types::Error;

/// How long a caller waits for the one ahead of it.
const TURN_MAX: Duration = Duration::from_millis(50);
/// How many conflicts a decision may meet before it fails with the last one.
const CONFLICTS_MAX: u32 = 1_000;

/// The queues of a store, one for each subject in dispute.
#[derive(Default)]
pub(crate) struct DecisionQueue {
    /// The number of queues. While it is 0, a decision takes no lock.
    count: AtomicUsize,
    queues: Mutex<Queues>,
}

#[derive(Default)]
struct Queues {
    /// By subject; no queue is empty.
    by_subject: HashMap<Box<str>, VecDeque<Waiter>>,
    last_place: u64,
}

struct Waiter {
    place: u64,
    thread: Thread,
}

thread_local! {
    /// How many queues this thread is in. A decision within a decision must not wait for itself.
    static QUEUED: Cell<u32> = const { Cell::new(0) };
}

/// The attempts of one decision. Dropped, it leaves the queue.
pub(crate) struct Attempt<'a> {
    queue: &'a DecisionQueue,
    subject: &'a str,
    place: Option<u64>,
    conflicts: u32,
    last: Option<Error>,
}

impl DecisionQueue {
    /// Begins a decision. Waits if other callers queue for the subject.
    pub(crate) fn attempt<'a>(&'a self, subject: &'a str) -> Attempt<'a> {
        let mut attempt = Attempt { queue: self, subject, place: None, conflicts: 0, last: None };
        if self.count.load(Ordering::Relaxed) > 0 && self.queues.lock().by_subject.contains_key(subject) {
            attempt.wait();
        }
        attempt
    }
}

impl Attempt<'_> {
    /// How many conflicts the decision has met.
    pub(crate) fn conflicts(&self) -> u32 {
        self.conflicts
    }

    /// Waits after a conflict for the turn to decide again.
    ///
    /// # Errors
    ///
    /// The conflict itself, if there were too many, or if it equals the one before: then another attempt
    /// changes nothing.
    pub(crate) fn retry_after(&mut self, conflict: Error) -> Result<(), Error> {
        self.conflicts += 1;
        let is_same = |last: &Error| {
            last.conflict() == conflict.conflict() && last.failed_condition() == conflict.failed_condition()
        };
        if self.conflicts >= CONFLICTS_MAX || self.last.as_ref().is_some_and(is_same) {
            return Err(conflict);
        }
        self.last = Some(conflict);
        self.wait();
        Ok(())
    }

    fn wait(&mut self) {
        if self.place.is_none() && QUEUED.get() > 0 {
            return;
        }
        let mut watched = None;
        while let Some(ahead) = self.ahead(watched) {
            let now = Instant::now();
            let since = watched.filter(|(place, _)| *place == ahead).map_or(now, |(_, since)| since);
            watched = Some((ahead, since));
            thread::park_timeout(TURN_MAX.saturating_sub(now.duration_since(since)));
        }
    }

    /// The caller to wait for, unless it is this one's turn. A caller that was watched for [`TURN_MAX`] is
    /// passed.
    fn ahead(&mut self, watched: Option<(u64, Instant)>) -> Option<u64> {
        let mut queues = self.queue.queues.lock();
        let Queues { by_subject, last_place } = &mut *queues;
        let queue = by_subject.entry(self.subject.into()).or_default();
        if queue.is_empty() {
            self.queue.count.fetch_add(1, Ordering::Relaxed);
        }
        let own = *self.place.get_or_insert_with(|| {
            QUEUED.set(QUEUED.get() + 1);
            *last_place += 1;
            *last_place
        });
        if queue.iter().all(|waiter| waiter.place != own) {
            queue.push_back(Waiter { place: own, thread: thread::current() });
        }
        let is_over =
            |front: u64| watched.is_some_and(|(place, since)| place == front && since.elapsed() >= TURN_MAX);
        let front = queue.front().map(|waiter| waiter.place)?;
        if front != own && is_over(front) {
            queue.pop_front();
            queue.front().inspect(|next| next.thread.unpark());
        }
        queue.front().map(|waiter| waiter.place).filter(|front| *front != own)
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let Some(own) = self.place else { return };
        QUEUED.set(QUEUED.get().saturating_sub(1));
        let mut queues = self.queue.queues.lock();
        let Some(queue) = queues.by_subject.get_mut(self.subject) else { return };
        queue.retain(|waiter| waiter.place != own);
        match queue.front() {
            Some(next) => next.thread.unpark(),
            None => {
                queues.by_subject.remove(self.subject);
                self.queue.count.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}
