//! Firing timers: on a thread of its own, or once on the caller's thread.
//!
//! Invariant: the events of a timer and `$timer.fired` are one append, which expects the version that the
//! timer's stream had before. So a timer fires once with any number of runners. A second one meets a
//! conflict, and reads from the log what the first has done.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::engine::Append;
use crate::event::{Raw, RecordedEvent};
use crate::read::Subscription;
use crate::store::{Store, WeakStore};
use crate::threads::{Signal, WorkerThread};
use crate::types::system::timer::{CANCELLED, FAILED, FIRED, PREFIX};
use crate::types::{AppendCondition, Cause, Error, ErrorKind, Expected, Position, Query, is_system, options};

use super::schedule::{ScheduledTimer, TimerEnd, TimerSchedule, TimerSetting, append_of, entity_of};

/// While a timer is pending, the thread reads the clock at least this often: the clock may be set forward.
const CLOCK_READ_EVERY: Duration = Duration::from_secs(1);
/// The pause after a full disk or a full queue.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The thread that fires timers. Dropping this handle stops nothing: the thread runs until the store is
/// closed.
pub struct Timers {
    thread: WorkerThread<Result<(), Error>>,
}

impl Store {
    /// Starts a thread that fires timers when they are due; those that are due already at once.
    ///
    /// Timers fire in the order in which they are due. Each fires once, however many such threads run. For
    /// `$timer.fired` is in the same append as the timer's events, and expects the version of the timer's
    /// stream. While the disk or the queue is full, the thread waits.
    ///
    /// The thread does not keep the store open; it ends when the store is closed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the operating system refuses a thread;
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed); [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if
    /// the store was opened to read.
    pub fn run_timers(&self) -> Result<Timers, Error> {
        self.engine().check_writable()?;
        let thread = WorkerThread::new("annals-timers");
        let runner = TimerRunner {
            store: self.downgrade(),
            events: self.subscribe(Query::entity_prefix(PREFIX)).durable(),
            schedule: TimerSchedule::default(),
            signal: thread.signal().clone(),
        };
        let started = thread.start(|| runner.run());
        started.map_err(|error| Error::io("cannot start", "the timers' thread", error))?;
        Ok(Timers { thread })
    }

    /// Fires the timers that are due now, on the caller's thread, in the order in which they are due. Returns
    /// how many have fired. As with [`Store::run_timers`], each timer fires once.
    ///
    /// # Errors
    ///
    /// Those of [`Append::commit`], unless they are due to the timer itself: those go to
    /// [`TimerStatus::failure`](crate::TimerStatus::failure).
    pub fn fire_timers(&self) -> Result<u64, Error> {
        let mut schedule = TimerSchedule::of(self)?;
        let mut fired = 0;
        while let Some((name, timer)) = schedule.take_due(now(self)) {
            fired += u64::from(fire(self, &name, &timer)?);
        }
        Ok(fired)
    }
}

impl Timers {
    /// Makes the thread read the clock now, for a clock that the program sets itself.
    ///
    /// Otherwise the thread reads the clock when the next timer is due, and at least each second while one is
    /// pending.
    pub fn check(&self) {
        self.thread.signal().notify();
    }

    /// True until the thread is stopped, the store is closed, or firing has failed.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.is_running()
    }

    /// Stops the thread and waits for it. A timer that is firing is fired first.
    ///
    /// # Errors
    ///
    /// Why the thread had ended before, unless the store was closed:
    /// [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned),
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt).
    pub fn stop(self) -> Result<(), Error> {
        self.thread.signal().stop();
        match self.thread.join() {
            // Called on the thread itself, by a gate for example: it ends after the current timer.
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(Error::invalid("the timers' thread panicked; run timers again")),
        }
    }
}

struct TimerRunner {
    store: WeakStore,
    events: Subscription,
    schedule: TimerSchedule,
    signal: Arc<Signal>,
}

impl TimerRunner {
    fn run(mut self) -> Result<(), Error> {
        while !self.signal.is_stopped() && self.catch_up()? {
            match self.fire_next() {
                Ok(wait) => self.sleep(wait),
                Err(error) if error.kind() == ErrorKind::Closed => break,
                // If the append did succeed after all, the next try meets a conflict.
                Err(error) if error.is_retryable() || error.kind() == ErrorKind::CommitUnknown => {
                    self.sleep(Some(RETRY_PAUSE));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes in the events of timers that are there. A later one notifies the signal. False once the store is
    /// closed.
    fn catch_up(&mut self) -> Result<bool, Error> {
        let waker = self.signal.waker();
        loop {
            match self.events.poll_next(&mut Context::from_waker(&waker)) {
                Poll::Ready(Some(event)) => self.schedule.take(&event?)?,
                Poll::Ready(None) => return Ok(false),
                Poll::Pending => return Ok(true),
            }
        }
    }

    /// Fires the next timer if it is due. Returns how long to sleep; `None` without a timer: until one is
    /// set.
    fn fire_next(&mut self) -> Result<Option<Duration>, Error> {
        let store = self.store.upgrade().ok_or_else(Error::closed)?;
        let now = now(&store);
        let Some((name, timer)) = self.schedule.take_due(now) else {
            let wait = self.schedule.next_due().map(|due| due.saturating_sub(now).unsigned_abs());
            return Ok(wait.map(|wait| Duration::from_micros(wait).min(CLOCK_READ_EVERY)));
        };
        match fire(&store, &name, &timer) {
            Ok(_) => Ok(Some(Duration::ZERO)),
            Err(error) => {
                self.schedule.insert(name, timer);
                Err(error)
            }
        }
    }

    fn sleep(&self, wait: Option<Duration>) {
        let deadline = wait.and_then(|wait| Instant::now().checked_add(wait));
        self.signal.wait(deadline);
    }
}

fn now(store: &Store) -> i64 {
    i64::try_from(options::read(&store.engine().options.clock)).unwrap_or(i64::MAX)
}

/// Fires a timer, or records why it cannot fire. True if it fired.
fn fire(store: &Store, name: &str, timer: &ScheduledTimer) -> Result<bool, Error> {
    let set_at = timer.set_at;
    let set = store.at(set_at)?.ok_or_else(|| {
        Error::invalid(format!("the setting of timer {name} at position {set_at} is not in the store"))
    })?;
    let setting: TimerSetting = set.decode()?;
    let stream = entity_of(name);
    let expected = Expected::Exact(timer.version);
    let mut append = append_of(&setting.events).belonging(cause_of(&set), Some(set.correlation()));
    if let Some(query) = setting.unless {
        append = append.condition(AppendCondition::none(query).after(unless_after(store, &set)?));
    }
    let fired = Raw(FIRED, &TimerEnd { by: None, reason: None });
    let refused = match append.system_event(&stream, expected, &fired).commit(store) {
        Ok(_) => return Ok(true),
        Err(refused) => refused,
    };
    let (kind, ended) = match refused.kind() {
        // The timer was fired, cancelled or set again by another thread.
        ErrorKind::Conflict if refused.conflict().is_some() => return Ok(false),
        ErrorKind::Conflict => {
            let by = refused.failed_condition().map(|failed| failed.first_match);
            (CANCELLED, TimerEnd { by, reason: None })
        }
        ErrorKind::Denied | ErrorKind::Invalid | ErrorKind::TooLarge => {
            (FAILED, TimerEnd { by: None, reason: Some(refused.to_string()) })
        }
        _ => return Err(refused),
    };
    match Append::of_system(&stream, expected, &Raw(kind, &ended)).commit(store) {
        Err(error) if error.conflict().is_some() => Ok(false),
        done => done.map(|_| false),
    }
}

/// The cause of a timer's events: the cause of its setting, or else the first event of the append that set
/// it.
fn cause_of(set: &RecordedEvent) -> Option<Cause> {
    if set.cause().is_some() {
        return set.cause();
    }
    if set.first_of_append().is_some_and(|first| is_system(first.entity())) {
        return None;
    }
    set.id_of_first().map(Cause::Event)
}

/// Events after this position can cancel a timer through `unless`. A reactor sets a timer some time after the
/// event that it handles, so events after that one count, too.
fn unless_after(store: &Store, set: &RecordedEvent) -> Result<Position, Error> {
    match set.cause() {
        Some(Cause::Event(id)) => Ok(store.get(id)?.map_or(set.position(), |cause| cause.position())),
        _ => Ok(set.position()),
    }
}
