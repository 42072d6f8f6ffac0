//! The handle of a reactor or a partitioned consumer, and the reason why it stopped.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::consume::consumer;
use crate::consume::consumer::{ConsumerStatus, Halt};
use crate::store::{RunnerCommand, RunnerState, WeakStore};
use crate::threads::WorkerThread;
use crate::types::{Error, ErrorKind, Position, visible};

/// A running reactor or partitioned consumer.
///
/// **Dropping the handle stops nothing**: the work ends with the store, or by [`Worker::stop`]. A worker
/// keeps no store open.
pub struct Worker {
    name: String,
    store: WeakStore,
    state: Arc<RunnerState>,
    status: Arc<WorkerStatus>,
    /// The threads that call the handler. None of them may wait for the end.
    threads: Vec<Arc<WorkerThread>>,
}

/// Why a [`Worker`] handles no more events.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StopReason {
    /// [`Worker::stop`] was called.
    Stopped,
    /// It is halted at an event that its handler failed on. [`resume` or `skip`](crate::ConsumerControl)
    /// makes it continue.
    FailedAt {
        /// The position of the event.
        position: Position,
        /// The last error.
        error: String,
    },
    /// As `FailedAt`, but the handler panicked.
    PanickedAt {
        /// The position of the event.
        position: Position,
        /// The message of the panic.
        error: String,
    },
    /// An operator halted it, by [`ConsumerControl::halt`](crate::ConsumerControl::halt).
    Halted(Halt),
    /// The store was closed, or its last handle was dropped.
    StoreClosed,
    /// The store cannot be read, or takes no more appends. A reaction that was being appended is in the store
    /// or is not. The next run of the name continues accordingly: no reaction is lost or made twice.
    StoreFailed(Error),
    /// Another process has handled events under this name.
    TakenOver,
}

impl Worker {
    /// The consumer's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How far the consumer is, and what it is doing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed), and those of reading.
    pub fn status(&self) -> Result<ConsumerStatus, Error> {
        let store = self.store.upgrade().ok_or_else(Error::closed)?;
        consumer::status(&store, &self.name)
    }

    /// Ends the work. Waits until the handler has returned and its reaction is in the store or refused.
    ///
    /// Returns [`StopReason::Stopped`], unless the work had stopped before or is halted: then the reason for
    /// that. Called by the handler itself, it does not wait, and the work ends after the current event.
    pub fn stop(&self) -> StopReason {
        self.state.call(RunnerCommand::Stop);
        if self.threads.iter().any(|thread| thread.is_current()) {
            return StopReason::Stopped;
        }
        self.status.wait(|reasons| reasons.ended.clone(), None).expect("without a deadline there is a reason")
    }

    /// Waits until the worker has ended or is halted. An operator may resume a halted one.
    pub fn wait(&self) -> StopReason {
        self.status.wait(StopReasons::current, None).expect("without a deadline there is a reason")
    }

    /// Like [`Worker::wait`], but no longer than `timeout`. `None` if the worker still handles events then.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> Option<StopReason> {
        self.status.wait(StopReasons::current, Instant::now().checked_add(timeout))
    }

    pub(super) fn new(
        name: String,
        store: WeakStore,
        state: Arc<RunnerState>,
        status: Arc<WorkerStatus>,
        threads: Vec<Arc<WorkerThread>>,
    ) -> Worker {
        Worker { name, store, state, status, threads }
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
            StopReason::TakenOver => f.write_str("another process runs this name"),
        }
    }
}

impl StopReason {
    /// What an error of an append means for a runner; `None` if the append may be tried again.
    pub(super) fn of_store(error: &Error) -> Option<StopReason> {
        match error.kind() {
            ErrorKind::Closed => Some(StopReason::StoreClosed),
            _ if error.is_retryable() => None,
            _ => Some(StopReason::StoreFailed(error.clone())),
        }
    }

    /// What an error of a read means for a runner: the end, as nothing can be handled.
    pub(super) fn of_read(error: Error) -> StopReason {
        StopReason::of_store(&error).unwrap_or(StopReason::StoreFailed(error))
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

/// Where a runner reports that it is halted or has ended, and where callers wait for that.
#[derive(Default)]
pub(super) struct WorkerStatus {
    reasons: Mutex<StopReasons>,
    changed: Condvar,
}

#[derive(Default)]
struct StopReasons {
    halted: Option<StopReason>,
    ended: Option<StopReason>,
}

impl StopReasons {
    fn current(&self) -> Option<StopReason> {
        self.ended.clone().or_else(|| self.halted.clone())
    }
}

impl WorkerStatus {
    /// Reports that the consumer is halted, or, with `None`, that it continues.
    pub(super) fn set_halted(&self, reason: Option<StopReason>) {
        self.reasons.lock().halted = reason;
        self.changed.notify_all();
    }

    pub(super) fn set_ended(&self, reason: StopReason) {
        self.reasons.lock().ended = Some(reason);
        self.changed.notify_all();
    }

    /// Waits until `choose` finds a reason. `None` only if the deadline comes first.
    fn wait(
        &self,
        choose: impl Fn(&StopReasons) -> Option<StopReason>,
        deadline: Option<Instant>,
    ) -> Option<StopReason> {
        let mut reasons = self.reasons.lock();
        loop {
            if let Some(reason) = choose(&reasons) {
                return Some(reason);
            }
            match deadline {
                None => self.changed.wait(&mut reasons),
                Some(deadline) if self.changed.wait_until(&mut reasons, deadline).timed_out() => {
                    return choose(&reasons);
                }
                Some(_) => {}
            }
        }
    }
}
