//! Who fires timers: on a thread of its own, or once on the caller's.
//!
//! Firing appends the events and `$timer.fired` in one frame, under the version that the timer's stream
//! had when it was looked at. Whoever comes second meets a conflict, and learns what happened from the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::engine::Append;
use crate::event::{Raw, RecordedEvent};
use crate::read::Subscription;
use crate::store::{Store, WeakStore};
use crate::threads::Signal;
use crate::types::{AppendCondition, Cause, Error, ErrorKind, Expected, Position, Query, is_system, options};

use super::kept::append_of;
use super::schedule::{Entry, Schedule};
use super::{Ended, Set, entity_of};
use crate::types::system::timer::{CANCELLED, FAILED, FIRED, PREFIX};

/// The longest that nobody looks at the clock while a timer is pending: it may be set forward.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Before a full disk or a full queue is tried again.
const PATIENCE: Duration = Duration::from_millis(100);

/// The thread that fires timers. Dropping this stops nothing: the thread goes on until the store is closed.
pub struct Timers {
    bell: Arc<Signal>,
    is_stopped: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), Error>>,
}

impl Store {
    /// Fires timers from now on, on a thread of its own: at once those that are due already.
    ///
    /// The thread does not keep the store open; it ends when the store is closed.
    ///
    /// # Errors
    ///
    /// If the operating system has no thread to give, or the store is closed or read-only.
    pub fn run_timers(&self) -> Result<Timers, Error> {
        self.engine().check_writable()?;
        let (bell, is_stopped) = (Signal::new(), Arc::<AtomicBool>::default());
        let runner = Runner {
            store: self.downgrade(),
            events: self.subscribe(Query::entity_prefix(PREFIX)).durable(),
            schedule: Schedule::default(),
            bell: bell.clone(),
            is_stopped: is_stopped.clone(),
        };
        let thread = std::thread::Builder::new().name("annals-timers".to_owned()).spawn(|| runner.run());
        let thread = thread.map_err(|error| Error::io("cannot start", "the timers' thread", error))?;
        Ok(Timers { bell, is_stopped, thread })
    }

    /// Fires the timers that are due, on this thread, and says how many fired.
    ///
    /// # Errors
    ///
    /// What keeps an append from being made, unless it is the timer's own fault: see
    /// [`TimerStatus::failure`](crate::TimerStatus::failure).
    pub fn fire_timers(&self) -> Result<u64, Error> {
        let mut schedule = Schedule::of(self)?;
        let mut fired = 0;
        while let Some((name, entry)) = schedule.take_due(now(self)) {
            fired += u64::from(fire(self, &name, &entry)?);
        }
        Ok(fired)
    }
}

impl Timers {
    /// Has the thread look at the clock now: for clocks that are moved by hand.
    pub fn check(&self) {
        self.bell.notify();
    }

    /// Whether the thread still fires timers: it does until it is stopped, the store is closed, or it failed.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Stops the thread and waits for it. A timer that is firing is fired first.
    ///
    /// # Errors
    ///
    /// What it had stopped for by itself, if it was not the end of the store:
    /// [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned), [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt).
    pub fn stop(self) -> Result<(), Error> {
        self.is_stopped.store(true, Ordering::Release);
        self.bell.notify();
        // A thread cannot join itself: a gate that runs on it may hold this.
        if self.thread.thread().id() == std::thread::current().id() {
            return Ok(());
        }
        self.thread
            .join()
            .unwrap_or_else(|_| Err(Error::invalid("the timers' thread panicked; run timers again")))
    }
}

struct Runner {
    store: WeakStore,
    events: Subscription,
    schedule: Schedule,
    bell: Arc<Signal>,
    is_stopped: Arc<AtomicBool>,
}

impl Runner {
    fn run(mut self) -> Result<(), Error> {
        while !self.is_stopped.load(Ordering::Acquire) && self.catch_up()? {
            match self.fire_next() {
                Ok(wait) => self.sleep(wait),
                Err(error) if error.kind() == ErrorKind::Closed => break,
                // If it was written after all, the next try meets a conflict.
                Err(error) if error.is_retryable() || error.kind() == ErrorKind::CommitUnknown => {
                    self.sleep(Some(PATIENCE));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes in what is there; whether more may come. Leaves the bell to be rung by what does.
    fn catch_up(&mut self) -> Result<bool, Error> {
        let waker = self.bell.waker();
        loop {
            match self.events.poll_next(&mut Context::from_waker(&waker)) {
                Poll::Ready(Some(event)) => self.schedule.take(&event?)?,
                Poll::Ready(None) => return Ok(false),
                Poll::Pending => return Ok(true),
            }
        }
    }

    /// Fires the next timer if it is due. Says how long to sleep; without a timer, until one is set.
    fn fire_next(&mut self) -> Result<Option<Duration>, Error> {
        let store = self.store.upgrade().ok_or_else(Error::closed)?;
        let now = now(&store);
        let Some((name, entry)) = self.schedule.take_due(now) else {
            let early = self.schedule.next_due().map(|due| due.saturating_sub(now).unsigned_abs());
            return Ok(early.map(|early| Duration::from_micros(early).min(LOOK_EVERY)));
        };
        match fire(&store, &name, &entry) {
            Ok(_) => Ok(Some(Duration::ZERO)),
            Err(error) => {
                self.schedule.put_back(name, entry);
                Err(error)
            }
        }
    }

    fn sleep(&self, wait: Option<Duration>) {
        let deadline = wait.and_then(|wait| Instant::now().checked_add(wait));
        self.bell.wait(deadline);
    }
}

fn now(store: &Store) -> i64 {
    i64::try_from(options::read(&store.engine().options.clock)).unwrap_or(i64::MAX)
}

/// Fires a timer, or records why not. Whether it fired.
fn fire(store: &Store, name: &str, entry: &Entry) -> Result<bool, Error> {
    let set = store.at(entry.set_at)?.ok_or_else(|| {
        Error::invalid(format!(
            "the setting of timer {name} at position {} is not in the store",
            entry.set_at
        ))
    })?;
    let plan: Set = set.decode()?;
    let (stream, expected) = (entity_of(name), Expected::Exact(entry.version));
    let append = append_of(&plan.events).belonging(cause_of(&set), Some(set.correlation()));
    let since = since(store, &set)?;
    let append = plan
        .unless
        .into_iter()
        .fold(append, |append, query| append.condition(AppendCondition::none(query).after(since)));
    let fired = Raw(FIRED, &Ended { by: None, reason: None });
    let refused = match append.system_event(&stream, expected, &fired).commit(store) {
        Ok(_) => return Ok(true),
        Err(refused) => refused,
    };
    let (kind, ended) = match refused.kind() {
        // Somebody else has fired, cancelled or set it.
        ErrorKind::Conflict if refused.conflict().is_some() => return Ok(false),
        ErrorKind::Conflict => {
            let by = refused.failed_condition().map(|failed| failed.first_match);
            (CANCELLED, Ended { by, reason: None })
        }
        ErrorKind::Denied | ErrorKind::Invalid | ErrorKind::TooLarge => {
            (FAILED, Ended { by: None, reason: Some(refused.to_string()) })
        }
        _ => return Err(refused),
    };
    match Append::of_system(&stream, expected, &Raw(kind, &ended)).commit(store) {
        Err(error) if error.conflict().is_some() => Ok(false),
        done => done.map(|_| false),
    }
}

/// What brought a timer's setting about: what it names, or else the first event of the append that set it.
fn cause_of(set: &RecordedEvent) -> Option<Cause> {
    if set.cause().is_some() {
        return set.cause();
    }
    let first = set.first_of_append().filter(|first| !is_system(first.entity()));
    first.map(|first| Cause::Event(first.id()))
}

/// What has come after this is too late for a timer. A reaction sets its timer some time after the event that it
/// reacts to: what came in between was not known when that happened either.
fn since(store: &Store, set: &RecordedEvent) -> Result<Position, Error> {
    match set.cause() {
        Some(Cause::Event(id)) => Ok(store.get(id)?.map_or(set.position(), |cause| cause.position())),
        _ => Ok(set.position()),
    }
}
