//! The handle of a thread that works for a consumer's name, and how it ended.
//!
//! Row: app.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::consume::consumer;
use crate::consume::consumer::{ConsumerCheckpoint, ConsumerStatus, Halt};
use crate::store::{RunnerCommand, RunnerState, Store, WeakStore};
use crate::types::{Error, ErrorKind, Position, visible};

/// A reactor, or a partitioned consumer, at work on threads of its own.
///
/// **Dropping it lets the work go on**: it ends with the store. [`Worker::stop`] ends it before. It keeps no store
/// open.
pub struct Worker {
    name: String,
    store: WeakStore,
    live: Arc<RunnerState>,
    outcome: Arc<Outcome>,
}

/// Why a [`Worker`] does not go on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StopReason {
    /// [`Worker::stop`] was called.
    Stopped,
    /// It is halted at this event, which it could not handle.
    /// [`resume` or `skip`](crate::ConsumerControl) has it go on.
    FailedAt {
        /// Of the event.
        position: Position,
        /// The last error.
        error: String,
    },
    /// As `FailedAt`, but the handler panicked.
    PanickedAt {
        /// Of the event.
        position: Position,
        /// What the panic said.
        error: String,
    },
    /// Somebody halted it.
    Halted(Halt),
    /// The store was closed, or its last handle dropped.
    StoreClosed,
    /// The store cannot be read, or takes no appends any more. What was under way is there or not; whoever runs the
    /// name next goes on behind it or with it, and neither loses nor repeats a reaction.
    StoreFailed(Error),
    /// Somebody else has moved the checkpoint of this name; that cannot come from this process.
    TakenOver,
}

impl Worker {
    /// The consumer's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is doing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed), and those of reading.
    pub fn status(&self) -> Result<ConsumerStatus, Error> {
        let store = self.store.upgrade().ok_or_else(Error::closed)?;
        consumer::status(&store, &self.name)
    }

    /// Ends the work, and waits until the handler has returned and what it brought about is in the store or refused. Says
    /// why it would not have gone on anyhow: [`StopReason::Stopped`] if it would have.
    ///
    /// Called by the handler itself it does not wait, and the work ends behind the event at hand.
    pub fn stop(&self) -> StopReason {
        self.live.call(RunnerCommand::Stop);
        if self.outcome.is_own_thread() {
            return StopReason::Stopped;
        }
        self.outcome.wait(|state| state.ended.clone(), None).expect("it waits for ever")
    }

    /// Waits until it does not go on: it has ended, or is halted. A halted one may go on later.
    pub fn wait(&self) -> StopReason {
        self.outcome.wait(State::standstill, None).expect("it waits for ever")
    }

    /// As [`Worker::wait`], at most so long; `None` if it still goes on.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> Option<StopReason> {
        self.outcome.wait(State::standstill, Instant::now().checked_add(timeout))
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopReason::Stopped => f.write_str("stopped"),
            StopReason::FailedAt { position, error } => {
                write!(f, "failed at {position}: {}", visible(error))
            }
            StopReason::PanickedAt { position, error } => {
                write!(f, "panicked at {position}: {}", visible(error))
            }
            StopReason::Halted(halt) => write!(f, "halted {halt}"),
            StopReason::StoreClosed => f.write_str("the store was closed"),
            StopReason::StoreFailed(error) => write!(f, "the store failed: {error}"),
            StopReason::TakenOver => f.write_str("somebody else runs this name"),
        }
    }
}

impl From<Halt> for StopReason {
    fn from(halt: Halt) -> StopReason {
        match halt.at {
            Some(position) if halt.panicked => StopReason::PanickedAt { position, error: halt.reason },
            Some(position) => StopReason::FailedAt { position, error: halt.reason },
            None => StopReason::Halted(halt),
        }
    }
}

/// What a store's error means to whoever works on it; `None` if it is not the end.
pub(super) fn end_by(error: &Error) -> Option<StopReason> {
    match error.kind() {
        ErrorKind::Closed => Some(StopReason::StoreClosed),
        _ if error.is_retryable() => None,
        _ => Some(StopReason::StoreFailed(error.clone())),
    }
}

/// Where a worker says how it is going.
#[derive(Default)]
pub(super) struct Outcome {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    halted: Option<StopReason>,
    ended: Option<StopReason>,
    /// Threads that must not wait for themselves.
    own: Vec<ThreadId>,
}

impl State {
    fn standstill(&self) -> Option<StopReason> {
        self.ended.clone().or_else(|| self.halted.clone())
    }
}

impl Outcome {
    /// It is halted for this reason, or goes on.
    pub(super) fn set_halted(&self, reason: Option<StopReason>) {
        self.state.lock().halted = reason;
        self.changed.notify_all();
    }

    /// The current thread is one that works.
    pub(super) fn enter(&self) {
        self.state.lock().own.push(std::thread::current().id());
    }

    fn is_own_thread(&self) -> bool {
        self.state.lock().own.contains(&std::thread::current().id())
    }

    fn end(&self, reason: StopReason) {
        self.state.lock().ended = Some(reason);
        self.changed.notify_all();
    }

    fn wait(
        &self,
        answer: impl Fn(&State) -> Option<StopReason>,
        deadline: Option<Instant>,
    ) -> Option<StopReason> {
        let mut state = self.state.lock();
        loop {
            if let Some(reason) = answer(&state) {
                return Some(reason);
            }
            match deadline {
                None => self.changed.wait(&mut state),
                Some(deadline) if self.changed.wait_until(&mut state, deadline).timed_out() => {
                    return answer(&state);
                }
                Some(_) => {}
            }
        }
    }
}

/// Starts the thread. `work` runs on it to its end; then it is dropped, with the name it holds, and only then is the
/// end told: so the name is free for whoever waited.
pub(super) fn start<W: Send + 'static>(
    store: &Store,
    name: &str,
    live: &Arc<RunnerState>,
    outcome: Arc<Outcome>,
    mut work: W,
    run: impl FnOnce(&mut W) -> StopReason + Send + 'static,
) -> Result<Worker, Error> {
    let told = outcome.clone();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        told.enter();
        let reason = catch_unwind(AssertUnwindSafe(|| run(&mut work))).unwrap_or_else(|_| {
            // Handlers are called where their panics are caught, so this would be a bug of annals.
            StopReason::StoreFailed(Error::new(
                ErrorKind::CommitUnknown,
                "the thread of the consumer panicked",
            ))
        });
        // What it drops may be a handler of somebody's.
        if catch_unwind(AssertUnwindSafe(|| drop(work))).is_err() {
            tracing::error!("a handler panicked when it was dropped");
        }
        told.end(reason);
    });
    thread.map_err(|error| Error::io("cannot start", "the thread of a consumer", error))?;
    Ok(Worker { name: name.to_owned(), store: store.downgrade(), live: live.clone(), outcome })
}

/// Writes down how far it is, so that as little as possible is done again, and says how it ended.
pub(super) fn ended_as_asked(store: &WeakStore, checkpoint: &mut ConsumerCheckpoint) -> StopReason {
    if let Some(store) = store.upgrade()
        && let Err(error) = checkpoint.write(&store)
    {
        let name = checkpoint.name();
        tracing::warn!(consumer = name, %error, "the checkpoint was not written; events will be handled again");
    }
    checkpoint.halt().map_or(StopReason::Stopped, |halt| Halt::from(halt).into())
}
