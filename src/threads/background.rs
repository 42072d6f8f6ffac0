//! Background threads that run boxed jobs and know none of them: one for what is soon done, one for what takes long, one for the zeros ahead of the log.
//!
//! Each is started by its first job, sleeps while there is nothing to do, and ends when it is closed: the job at
//! hand is waited for, those that wait are dropped. Jobs hold no store, but while they run; what takes long asks whether to go on.
//! Row: housekeeper.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flume::{Receiver, RecvTimeoutError, Sender};
use parking_lot::Mutex;

/// Does a piece of work, and says when it wants to be run again, if so.
pub(crate) type Job = Box<dyn FnMut() -> Option<Duration> + Send>;

/// A job that is run once.
pub(crate) fn once(work: impl FnOnce() + Send + 'static) -> Job {
    let mut work = Some(work);
    Box::new(move || {
        if let Some(work) = work.take() {
            work();
        }
        None
    })
}

pub(crate) struct BackgroundThread {
    /// The thread's name.
    name: &'static str,
    state: Mutex<State>,
}

impl Default for BackgroundThread {
    fn default() -> BackgroundThread {
        BackgroundThread::new("annals-housekeeper")
    }
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Running {
        jobs: Sender<Due>,
        thread: JoinHandle<()>,
        /// Where the thread runs: a process that was forked from that one has none.
        process: u32,
    },
    Closed,
}

/// A job and when it is to be run.
struct Due(Instant, Job);

impl BackgroundThread {
    /// One without a thread yet.
    pub(crate) fn new(name: &'static str) -> BackgroundThread {
        BackgroundThread { name, state: Mutex::default() }
    }

    /// Runs a job in a while. After closing, jobs are dropped.
    pub(crate) fn run_in(&self, delay: Duration, job: Job) {
        let due = Due(Instant::now() + delay, job);
        let mut state = self.state.lock();
        if let State::Idle = *state {
            *state = match start(self.name) {
                Ok(running) => running,
                Err(error) => {
                    tracing::warn!(%error, "the housekeeping thread cannot be started");
                    return;
                }
            };
        }
        if let State::Running { jobs, .. } = &*state {
            // It ends only once this sender is gone.
            let _ = jobs.send(due);
        }
    }

    /// Whether a job that takes long is to go on: not once this was closed.
    pub(crate) fn go_on(&self) -> ControlFlow<()> {
        match *self.state.lock() {
            State::Closed => ControlFlow::Break(()),
            State::Idle | State::Running { .. } => ControlFlow::Continue(()),
        }
    }

    /// Ends the thread, unless this is it, or it is one of another process.
    pub(crate) fn close(&self) {
        let before = std::mem::replace(&mut *self.state.lock(), State::Closed);
        if let State::Running { jobs, thread, process } = before {
            drop(jobs);
            let is_here =
                process == std::process::id() && thread.thread().id() != std::thread::current().id();
            if is_here && thread.join().is_err() {
                tracing::error!("the housekeeping thread panicked");
            }
        }
    }
}

fn start(name: &str) -> std::io::Result<State> {
    let (sender, jobs) = flume::unbounded();
    let thread = std::thread::Builder::new().name(name.to_owned());
    let thread = thread.spawn(move || run(&jobs))?;
    Ok(State::Running { jobs: sender, thread, process: std::process::id() })
}

fn run(jobs: &Receiver<Due>) {
    let mut waiting: Vec<Due> = Vec::new();
    loop {
        let next = waiting.iter().enumerate().min_by_key(|(_, Due(at, _))| *at).map(|(place, _)| place);
        let received = match next {
            None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(next) => jobs.recv_deadline(waiting[next].0),
        };
        match (received, next) {
            (Ok(due), _) => waiting.push(due),
            (Err(RecvTimeoutError::Timeout), Some(next)) => {
                let again = worked(waiting.swap_remove(next));
                waiting.extend(again);
            }
            (Err(_), _) => return,
        }
    }
}

/// Runs a job, and gives it back if it wants to be run again.
fn worked(Due(_, mut job): Due) -> Option<Due> {
    match catch_unwind(AssertUnwindSafe(&mut job)) {
        Ok(again) => again.map(|delay| Due(Instant::now() + delay, job)),
        Err(_) => {
            tracing::error!("a housekeeping job panicked");
            None
        }
    }
}
