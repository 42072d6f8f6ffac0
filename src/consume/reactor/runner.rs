//! The thread of a reactor or of a partitioned consumer: one loop that takes events and obeys commands.
//!
//! [`ConsumerRunner`] owns the checkpoint, the events behind it, and the status that [`Worker`] reports. An
//! [`EventProcessor`] owns the handlers and the events in work. Both kinds of worker run this loop.
//!
//! A handler that fails is called again: [`Retry`] says when and how often, and [`FailureCounts`] counts.
//!
//! Invariant: the checkpoint is read again, or set to halted, only while no event is in work.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::consume::consumer::{CheckpointChange, ConsumerCheckpoint, Halt, PendingEvents};
use crate::event::RecordedEvent;
use crate::store::{RunnerCommand, Store, WeakStore};
use crate::threads::WorkerThread;
use crate::types::{Error, ErrorKind, Position, text};

use super::worker::{StopReason, Worker, WorkerStatus};

/// The time until a checkpoint is written again that the store did not take, for a full disk for example.
pub(super) const UNWRITTEN_PAUSE: Duration = Duration::from_millis(100);

/// What an [`EventProcessor`] needs of the runner that calls it.
pub(super) struct ConsumerRunner {
    store: WeakStore,
    pub(super) checkpoint: ConsumerCheckpoint,
    pub(super) events: PendingEvents,
    status: Arc<WorkerStatus>,
    /// An append of this runner has found that its checkpoint was moved. The checkpoint is to be read again.
    is_moved: bool,
}

/// Handles the events that a runner takes, in its own way. `Err` is the end of the runner.
pub(super) trait EventProcessor: Send + 'static {
    /// Takes in the results that are there, and advances the checkpoint.
    fn collect(&mut self, runner: &mut ConsumerRunner) -> Result<(), StopReason>;

    /// Halts the consumer if an event has failed for good. Returns false if none has.
    fn halt_if_failed(&mut self, runner: &mut ConsumerRunner) -> Result<bool, StopReason>;

    /// Whether there are events behind the checkpoint whose result is not known.
    fn has_work(&self) -> bool;

    /// Waits until no event is in work. Events that no handler has begun with may be dropped.
    fn drain(&mut self, runner: &mut ConsumerRunner) -> Result<(), StopReason>;

    /// Waits for results of events in work. Called when there is no other event to handle.
    fn wait_for_results(&mut self, runner: &mut ConsumerRunner) -> Result<(), StopReason>;

    /// Whether the next event may be taken now. If not, this has slept until that may have changed.
    fn is_ready(&mut self, runner: &mut ConsumerRunner) -> Result<bool, StopReason>;

    /// Handles an event, or hands it to a thread that does.
    fn handle(&mut self, runner: &mut ConsumerRunner, event: RecordedEvent) -> Result<(), StopReason>;

    /// Forgets all events. The next one is the first behind the checkpoint.
    fn reset(&mut self);
}

/// Why a handler did not handle an event.
#[derive(Debug)]
pub(super) struct HandlerFailure {
    pub(super) reason: String,
    pub(super) panicked: bool,
    /// Another attempt would fail in the same way.
    pub(super) is_final: bool,
}

impl HandlerFailure {
    pub(super) fn of_append(error: &Error) -> HandlerFailure {
        HandlerFailure { reason: error.to_string(), panicked: false, is_final: false }
    }
}

/// The error of a handler: any error.
pub(super) type HandlerError = Box<dyn std::error::Error + Send + Sync>;

/// Calls a handler, and turns its panic into a failure.
pub(super) fn call_handler(handler: impl FnOnce() -> Result<(), HandlerError>) -> Result<(), HandlerFailure> {
    let (reason, panicked) = match catch_unwind(AssertUnwindSafe(handler)) {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => (error.to_string(), false),
        Err(panic) => {
            let said = text::of_panic(panic.as_ref()).unwrap_or("a panic that said nothing");
            (said.to_owned(), true)
        }
    };
    Err(HandlerFailure { reason, panicked, is_final: false })
}

/// How often, and how soon, an event is tried again after its handler has failed.
///
/// ```
/// use std::time::Duration;
/// use annals::Retry;
///
/// let patient = Retry { attempts: 20, longest: Duration::from_secs(60), ..Retry::default() };
/// # let _ = patient;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The number of attempts before the consumer is halted, the first one included (default: 8). 0 counts as
    /// 1.
    pub attempts: u32,
    /// The time before the second attempt (default: 100 ms). It doubles before each further one.
    pub first: Duration,
    /// The longest time between two attempts (default: 10 s).
    pub longest: Duration,
}

impl Default for Retry {
    /// Eight attempts within 13 seconds.
    fn default() -> Retry {
        Retry { attempts: 8, first: Duration::from_millis(100), longest: Duration::from_secs(10) }
    }
}

impl Retry {
    /// The time until the next attempt, after a number of failed ones. `None`: there is no further attempt.
    pub(super) fn delay_after(&self, attempts: u32) -> Option<Duration> {
        (attempts < self.attempts).then(|| self.backoff(attempts))
    }

    fn backoff(&self, attempts: u32) -> Duration {
        let doubled = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(doubled).min(self.longest)
    }
}

/// After this many conflicts in a row an event counts as failed.
const CONFLICTS_MAX: u32 = 20;
/// Up to this many conflicts there is no delay: one conflict is usual while others append.
const CONFLICTS_AT_ONCE: u32 = 3;
/// The delays after a conflict, or while the disk or the queue is full.
const STORE_RETRY: Retry =
    Retry { attempts: u32::MAX, first: Duration::from_millis(1), longest: Duration::from_millis(100) };

/// The failed attempts at one event, by their cause.
#[derive(Debug, Default)]
pub(super) struct FailureCounts {
    position: Position,
    failures: u32,
    conflicts: u32,
    refusals: u32,
}

impl FailureCounts {
    /// How often the handler of the event has failed.
    pub(super) fn failures(&self, position: Position) -> u32 {
        if position == self.position { self.failures } else { 0 }
    }

    /// Counts a failure of the handler; returns the count.
    pub(super) fn add_failure(&mut self, position: Position) -> u32 {
        let counts = self.of(position);
        counts.failures = counts.failures.saturating_add(1);
        counts.failures
    }

    /// Counts a conflict of the outputs; returns the delay until the next attempt, `None` after too many.
    pub(super) fn add_conflict(&mut self, position: Position) -> Option<Duration> {
        let counts = self.of(position);
        counts.conflicts = counts.conflicts.saturating_add(1);
        match counts.conflicts {
            ..=CONFLICTS_AT_ONCE => Some(Duration::ZERO),
            CONFLICTS_MAX.. => None,
            conflicts => Some(STORE_RETRY.backoff(conflicts - CONFLICTS_AT_ONCE)),
        }
    }

    /// Counts a refusal by a store that takes no appends now; returns the count, and the delay until the
    /// next.
    pub(super) fn add_refusal(&mut self, position: Position) -> (u32, Duration) {
        let counts = self.of(position);
        counts.refusals = counts.refusals.saturating_add(1);
        (counts.refusals, STORE_RETRY.backoff(counts.refusals))
    }

    pub(super) fn is_clear(&self) -> bool {
        self.failures == 0 && self.conflicts == 0 && self.refusals == 0
    }

    /// Begins anew: an event was handled, or an operator has moved the checkpoint.
    pub(super) fn clear(&mut self) {
        *self = FailureCounts::default();
    }

    fn of(&mut self, position: Position) -> &mut FailureCounts {
        if self.position != position {
            *self = FailureCounts { position, ..FailureCounts::default() };
        }
        self
    }
}

/// Starts the thread of a runner. `helpers` are further threads that call the handler.
pub(super) fn start(
    runner: ConsumerRunner,
    processor: impl EventProcessor,
    helpers: &[Arc<WorkerThread>],
) -> Result<Worker, Error> {
    let name = runner.checkpoint.name().to_owned();
    let store = runner.store.clone();
    let state = runner.checkpoint.live().clone();
    let status = runner.status.clone();
    let thread = Arc::new(WorkerThread::new(name.clone()));
    let mut work = RunnerThread { processor, runner };
    let reported = status.clone();
    let started = thread.start(move || {
        let reason = catch_unwind(AssertUnwindSafe(|| work.run())).unwrap_or_else(|_| {
            // Panics of handlers are caught where handlers are called, so this would be a bug of annals.
            let text = "the thread of the consumer panicked";
            StopReason::StoreFailed(Error::new(ErrorKind::CommitUnknown, text))
        });
        // The application may have made what is dropped here.
        if catch_unwind(AssertUnwindSafe(|| drop(work))).is_err() {
            tracing::error!("a handler panicked when it was dropped");
        }
        // Reported after the name is released: a caller that waits for the end may run the name at once.
        reported.set_ended(reason);
    });
    started.map_err(|error| Error::io("cannot start", "the thread of a consumer", error))?;
    let threads = helpers.iter().cloned().chain([thread]).collect();
    Ok(Worker::new(name, store, state, status, threads))
}

struct RunnerThread<P> {
    // Dropped before the runner, which holds the name: no handler may be at work when the name is free.
    processor: P,
    runner: ConsumerRunner,
}

impl<P: EventProcessor> RunnerThread<P> {
    fn run(&mut self) -> StopReason {
        loop {
            if let Err(reason) = self.run_once() {
                return reason;
            }
        }
    }

    /// Does the first thing that there is to do, or sleeps until there may be one.
    fn run_once(&mut self) -> Result<(), StopReason> {
        let RunnerThread { processor, runner } = self;
        processor.collect(runner)?;
        match runner.checkpoint.live().called() {
            RunnerCommand::Go => {}
            RunnerCommand::Stop => return Err(self.stop()?),
            RunnerCommand::End => return Err(StopReason::StoreClosed),
        }
        if processor.halt_if_failed(runner)? {
            return Ok(());
        }
        if runner.checkpoint.live().is_being_moved() {
            // Not both in one pass: draining may use up the notification that sleeping would wait for.
            if processor.has_work() {
                return processor.drain(runner);
            }
            runner.sleep(None);
            return Ok(());
        }
        if runner.checkpoint.live().take_moved() || runner.is_moved {
            processor.drain(runner)?;
            return self.read_checkpoint_again();
        }
        if let Some(halt) = runner.checkpoint.halt() {
            runner.status.set_halted(Some(Halt::from(halt).into()));
            runner.sleep(None);
            return Ok(());
        }
        if !processor.is_ready(runner)? {
            return Ok(());
        }
        match runner.events.next() {
            Ok(Some(event)) => processor.handle(runner, event),
            Ok(None) => self.rest(),
            Err(error) => Err(StopReason::of_read(error)),
        }
    }

    /// There is no event to take now: writes the checkpoint, and sleeps until there is one.
    fn rest(&mut self) -> Result<(), StopReason> {
        let RunnerThread { processor, runner } = self;
        if processor.has_work() {
            return processor.wait_for_results(runner);
        }
        let store = runner.store()?;
        let looked_up_to = runner.events.position();
        let passed = runner.checkpoint.pass(&store, looked_up_to);
        match passed.and_then(|()| runner.checkpoint.write(&store)) {
            Ok(()) => runner.sleep(None),
            Err(error) if error.is_retryable() => {
                runner.sleep(Instant::now().checked_add(UNWRITTEN_PAUSE));
            }
            Err(error) => return runner.take_store_error(&error),
        }
        Ok(())
    }

    /// Ends as asked. Writes the checkpoint first, so that few events are handled again.
    fn stop(&mut self) -> Result<StopReason, StopReason> {
        self.processor.drain(&mut self.runner)?;
        if self.runner.is_moved {
            self.read_checkpoint_again()?;
        }
        let checkpoint = &mut self.runner.checkpoint;
        if let Some(store) = self.runner.store.upgrade()
            && let Err(error) = checkpoint.write(&store)
        {
            let name = checkpoint.name();
            tracing::warn!(consumer = name, %error, "the checkpoint was not written; events will be handled again");
        }
        Ok(checkpoint.halt().map_or(StopReason::Stopped, |halt| Halt::from(halt).into()))
    }

    /// Continues where the checkpoint was moved to. No event may be in work.
    fn read_checkpoint_again(&mut self) -> Result<(), StopReason> {
        let RunnerThread { processor, runner } = self;
        let store = runner.store()?;
        runner.is_moved = false;
        match runner.checkpoint.read_again(&store).map_err(StopReason::of_read)? {
            CheckpointChange::TakenOver => Err(StopReason::TakenOver),
            CheckpointChange::Unchanged | CheckpointChange::Moved => {
                runner.status.set_halted(None);
                runner.go_back();
                processor.reset();
                Ok(())
            }
        }
    }
}

impl ConsumerRunner {
    pub(super) fn new(
        store: &Store,
        checkpoint: ConsumerCheckpoint,
        events: PendingEvents,
    ) -> ConsumerRunner {
        let store = store.downgrade();
        ConsumerRunner { store, checkpoint, events, status: Arc::default(), is_moved: false }
    }

    pub(super) fn store(&self) -> Result<Store, StopReason> {
        self.store.upgrade().ok_or(StopReason::StoreClosed)
    }

    /// Sleeps until a notification or the deadline.
    pub(super) fn sleep(&self, deadline: Option<Instant>) {
        self.checkpoint.live().sleep(deadline);
    }

    /// Takes the first event behind the checkpoint next.
    pub(super) fn go_back(&mut self) {
        self.events.go_to(self.checkpoint.handled());
    }

    /// Takes an error of the store that no event is the reason for: `Err` if it is the end.
    pub(super) fn take_store_error(&mut self, error: &Error) -> Result<(), StopReason> {
        if self.checkpoint.is_moved(error) {
            self.is_moved = true;
            return Ok(());
        }
        StopReason::of_store(error).map_or(Ok(()), Err)
    }
}
