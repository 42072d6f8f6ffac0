//! The store's own threads: a signal to sleep on, a named worker thread, and a background thread for jobs.
//!
//! Invariants:
//! - Every thread of the library is started here, by [`WorkerThread::start`], and has a name.
//! - A thread never waits for its own end. Wakers and handlers of the application run on these threads, and
//!   may close the store or drop the owner.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// What one thread sleeps on and other threads wake it by.
///
/// A notification stays until the sleeping thread takes it, so none is lost between two sleeps. The signal
/// can be handed out as a [`Waker`]; notifying takes one short lock, so the writer thread may do it.
#[derive(Default)]
pub(crate) struct Signal {
    flags: Mutex<SignalFlags>,
    changed: Condvar,
}

#[derive(Default)]
struct SignalFlags {
    is_notified: bool,
    is_stopped: bool,
}

impl Signal {
    pub(crate) fn waker(self: &Arc<Signal>) -> Waker {
        Waker::from(self.clone())
    }

    /// Wakes the thread, or keeps it from falling asleep the next time.
    pub(crate) fn notify(&self) {
        self.flags.lock().is_notified = true;
        self.changed.notify_all();
    }

    /// Asks the thread to end, and wakes it. This cannot be taken back.
    pub(crate) fn stop(&self) {
        self.flags.lock().is_stopped = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.flags.lock().is_stopped
    }

    /// Sleeps until a notification or the deadline, whichever is first; not at all once stopped. True if
    /// there was a notification.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut flags = self.flags.lock();
        while !flags.is_notified && !flags.is_stopped {
            match deadline {
                None => self.changed.wait(&mut flags),
                Some(deadline) if self.changed.wait_until(&mut flags, deadline).timed_out() => break,
                Some(_) => {}
            }
        }
        std::mem::take(&mut flags.is_notified)
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

/// A named thread that is started at most once. Its owner can wake it, stop it, and wait for its end.
///
/// Dropping it neither stops the thread nor waits for it.
pub(crate) struct WorkerThread<T = ()> {
    name: String,
    signal: Arc<Signal>,
    started: Mutex<Option<StartedThread<T>>>,
}

struct StartedThread<T> {
    id: ThreadId,
    /// The process of the thread. A process that is forked from this one has a copy of the handle, but no
    /// thread.
    process: u32,
    /// `None` once a caller waits, or has waited, for the end.
    handle: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> WorkerThread<T> {
    pub(crate) fn new(name: impl Into<String>) -> WorkerThread<T> {
        WorkerThread { name: name.into(), signal: Arc::default(), started: Mutex::new(None) }
    }

    /// Starts the thread. Does nothing if it was started or stopped before.
    pub(crate) fn start(&self, work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<()> {
        // Held until the handle is stored: the new thread may call `is_current` or `join` at once.
        let mut started = self.started.lock();
        if started.is_some() || self.signal.is_stopped() {
            return Ok(());
        }
        let handle = std::thread::Builder::new().name(self.name.clone()).spawn(work)?;
        let id = handle.thread().id();
        *started = Some(StartedThread { id, process: std::process::id(), handle: Some(handle) });
        Ok(())
    }

    /// What the thread sleeps on, if it sleeps.
    pub(crate) fn signal(&self) -> &Arc<Signal> {
        &self.signal
    }

    /// True if the caller runs on this thread.
    pub(crate) fn is_current(&self) -> bool {
        self.started.lock().as_ref().is_some_and(|thread| thread.id == std::thread::current().id())
    }

    /// True while the work has not returned. False if it was never started, or once it is joined.
    pub(crate) fn is_running(&self) -> bool {
        let started = self.started.lock();
        let handle = started.as_ref().and_then(|thread| thread.handle.as_ref());
        handle.is_some_and(|handle| !handle.is_finished())
    }

    /// True if there is nothing to join: it was never started, or another caller has joined it.
    pub(crate) fn is_joined(&self) -> bool {
        self.started.lock().as_ref().is_none_or(|thread| thread.handle.is_none())
    }

    /// Waits for the end of the thread, and gives its result or its panic.
    ///
    /// Gives `None` at once if the caller runs on this thread, or if there is nothing to join: see
    /// [`WorkerThread::is_joined`]. The same holds for a thread of the process from which this one was
    /// forked.
    pub(crate) fn join(&self) -> Option<std::thread::Result<T>> {
        // The lock is not held while waiting: the thread itself may ask for it before it ends.
        let handle = {
            let mut started = self.started.lock();
            let thread = started.as_mut()?;
            if thread.process != std::process::id() || thread.id == std::thread::current().id() {
                return None;
            }
            thread.handle.take()
        };
        handle.map(JoinHandle::join)
    }
}

/// A piece of work for a [`BackgroundThread`]. It returns the delay after which it is to run again, or
/// `None`.
pub(crate) type Job = Box<dyn FnMut() -> Option<Duration> + Send>;

/// A job that runs once.
pub(crate) fn once(work: impl FnOnce() + Send + 'static) -> Job {
    let mut work = Some(work);
    Box::new(move || {
        if let Some(work) = work.take() {
            work();
        }
        None
    })
}

/// A thread that runs jobs, each at its time, one after the other.
///
/// The first job starts the thread; without a job that is due it sleeps. A waiting job holds no store. A job
/// that takes long asks [`BackgroundThread::go_on`] whether to continue.
pub(crate) struct BackgroundThread {
    thread: WorkerThread,
    jobs: Arc<Mutex<Vec<ScheduledJob>>>,
}

struct ScheduledJob {
    due: Instant,
    job: Job,
}

impl Default for BackgroundThread {
    fn default() -> BackgroundThread {
        BackgroundThread::new("annals-housekeeper")
    }
}

impl BackgroundThread {
    /// Has no thread until the first job.
    pub(crate) fn new(name: &'static str) -> BackgroundThread {
        BackgroundThread { thread: WorkerThread::new(name), jobs: Arc::default() }
    }

    /// Runs a job after a delay. Once this is closed, or if the thread cannot be started, the job is dropped.
    pub(crate) fn run_in(&self, delay: Duration, job: Job) {
        let scheduled = ScheduledJob { due: Instant::now() + delay, job };
        let jobs = self.jobs.clone();
        let signal = self.thread.signal().clone();
        if let Err(error) = self.thread.start(move || run_jobs(&jobs, &signal)) {
            tracing::warn!(%error, "the housekeeping thread cannot be started");
            return;
        }
        let mut jobs = self.jobs.lock();
        // Checked under the lock: `close` takes the jobs after it has stopped the thread, so none is left
        // behind.
        if !self.thread.signal().is_stopped() {
            jobs.push(scheduled);
            drop(jobs);
            self.thread.signal().notify();
        }
    }

    /// Tells a job that takes long whether to continue: not after closing.
    pub(crate) fn go_on(&self) -> ControlFlow<()> {
        if self.thread.signal().is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Ends the thread: waits for the job that runs now, and drops those that wait.
    pub(crate) fn close(&self) {
        self.thread.signal().stop();
        // Dropped without the lock: a job may own what schedules another job when it is dropped.
        let waiting = std::mem::take(&mut *self.jobs.lock());
        drop(waiting);
        if let Some(Err(_)) = self.thread.join() {
            tracing::error!("the housekeeping thread panicked");
        }
    }
}

fn run_jobs(jobs: &Mutex<Vec<ScheduledJob>>, signal: &Signal) {
    while !signal.is_stopped() {
        let earliest = take_earliest_if_due(&mut jobs.lock());
        match earliest {
            Ok(scheduled) => {
                if let Some(repeated) = run_job(scheduled) {
                    let mut jobs = jobs.lock();
                    // As in `run_in`.
                    if !signal.is_stopped() {
                        jobs.push(repeated);
                    }
                }
            }
            Err(next_due) => drop(signal.wait(next_due)),
        }
    }
}

/// Takes out the job that is due first; if it is not due yet, gives the time when it is.
fn take_earliest_if_due(jobs: &mut Vec<ScheduledJob>) -> Result<ScheduledJob, Option<Instant>> {
    let earliest = jobs.iter().enumerate().min_by_key(|(_, scheduled)| scheduled.due);
    let Some((index, scheduled)) = earliest else { return Err(None) };
    if scheduled.due > Instant::now() {
        return Err(Some(scheduled.due));
    }
    Ok(jobs.swap_remove(index))
}

/// Runs a job, and gives it back if it is to run again.
fn run_job(mut scheduled: ScheduledJob) -> Option<ScheduledJob> {
    match catch_unwind(AssertUnwindSafe(&mut scheduled.job)) {
        Ok(delay) => delay.map(|delay| ScheduledJob { due: Instant::now() + delay, ..scheduled }),
        Err(_) => {
            tracing::error!("a housekeeping job panicked");
            None
        }
    }
}
