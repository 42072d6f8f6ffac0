//! A partitioned consumer: the events of one entity on one thread in order, different entities side by side.
//!
//! The runner's thread takes the events and hands each to the lane of its entity, which is one thread. Every
//! event comes back from its lane as one [`LaneResult`].
//!
//! Invariant: the one checkpoint lies before every event that is not handled.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use flume::{Receiver, Sender, TrySendError};
use parking_lot::{Condvar, Mutex};

use crate::event::RecordedEvent;
use crate::store::{RunnerState, Trouble};
use crate::threads::WorkerThread;
use crate::types::{Error, Position, to_u64};

use super::runner::{
    ConsumerRunner, EventProcessor, HandlerError, HandlerFailure, Retry, UNWRITTEN_PAUSE, call_handler,
};
use super::worker::StopReason;

/// How many events may be dispatched and behind the checkpoint: those come again after a crash.
const DISPATCHED_MAX: usize = 4096;
/// How many events may wait for one lane.
const LANE_EVENTS_MAX: usize = 64;

pub(super) struct PartitionedProcessor {
    lanes: Lanes,
    /// The dispatched events behind the checkpoint, in order of position.
    dispatched: VecDeque<Dispatched>,
    /// How many of the dispatched events have not come back.
    outstanding: usize,
    /// The next event, if its lane had no room for it.
    held: Option<RecordedEvent>,
    /// The first event that could not be handled.
    failed: Option<(Position, HandlerFailure)>,
}

struct Dispatched {
    position: Position,
    is_handled: bool,
}

impl PartitionedProcessor {
    pub(super) fn new(lanes: Lanes) -> PartitionedProcessor {
        PartitionedProcessor { lanes, dispatched: VecDeque::new(), outstanding: 0, held: None, failed: None }
    }
}

impl EventProcessor for PartitionedProcessor {
    fn collect(&mut self, runner: &mut ConsumerRunner) -> Result<(), StopReason> {
        for (position, result) in self.lanes.take_results() {
            self.outstanding -= 1;
            match result {
                LaneResult::Handled => {
                    let index = self.dispatched.partition_point(|other| other.position < position);
                    self.dispatched[index].is_handled = true;
                }
                LaneResult::Failed(failure) if self.failed.as_ref().is_none_or(|(at, _)| position < *at) => {
                    self.failed = Some((position, failure));
                }
                LaneResult::Failed(_) | LaneResult::Dropped => {}
            }
        }
        let store = runner.store()?;
        while let Some(first) = self.dispatched.front()
            && first.is_handled
        {
            let advanced = runner.checkpoint.advance(&store, first.position);
            self.dispatched.pop_front();
            advanced.or_else(|error| runner.take_store_error(&error))?;
        }
        if let Some(trouble) = self.lanes.trouble() {
            runner.checkpoint.live().set_trouble(trouble);
        }
        match runner.checkpoint.write_if_due(&store) {
            // It is due again with the next event.
            Err(error) if error.is_retryable() => Ok(()),
            written => written.or_else(|error| runner.take_store_error(&error)),
        }
    }

    fn halt_if_failed(&mut self, runner: &mut ConsumerRunner) -> Result<bool, StopReason> {
        let Some((position, failure)) = &self.failed else { return Ok(false) };
        // Events before the failed one are still handled, so that an operator who skips it skips no other.
        self.lanes.set_limit(Some(*position));
        if self.outstanding > 0 {
            runner.sleep(None);
            return Ok(true);
        }
        let name = runner.checkpoint.name();
        let reason = failure.reason.as_str();
        tracing::error!(consumer = name, position = position.get(), reason, "halted");
        let store = runner.store()?;
        let halted = runner.checkpoint.halt_at(&store, *position, reason, failure.panicked);
        if let Err(error) = &halted
            && error.is_retryable()
        {
            runner.sleep(Instant::now().checked_add(UNWRITTEN_PAUSE));
            return Ok(true);
        }
        self.reset();
        runner.go_back();
        halted.or_else(|error| runner.take_store_error(&error))?;
        Ok(true)
    }

    fn has_work(&self) -> bool {
        self.outstanding > 0
    }

    fn drain(&mut self, runner: &mut ConsumerRunner) -> Result<(), StopReason> {
        self.lanes.set_limit(Some(Position::START));
        while self.outstanding > 0 {
            runner.sleep(None);
            self.collect(runner)?;
        }
        Ok(())
    }

    fn wait_for_results(&mut self, runner: &mut ConsumerRunner) -> Result<(), StopReason> {
        runner.sleep(None);
        Ok(())
    }

    fn is_ready(&mut self, runner: &mut ConsumerRunner) -> Result<bool, StopReason> {
        if self.dispatched.len() >= DISPATCHED_MAX {
            runner.sleep(None);
            return Ok(false);
        }
        match self.held.take() {
            None => Ok(true),
            Some(event) => self.handle(runner, event).map(|()| false),
        }
    }

    fn handle(&mut self, runner: &mut ConsumerRunner, event: RecordedEvent) -> Result<(), StopReason> {
        let position = event.position();
        match self.lanes.dispatch(event) {
            Ok(()) => {
                self.dispatched.push_back(Dispatched { position, is_handled: false });
                self.outstanding += 1;
            }
            Err(event) => {
                self.held = Some(event);
                runner.sleep(None);
            }
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.dispatched.clear();
        self.held = None;
        self.failed = None;
        self.lanes.set_limit(None);
    }
}

/// How a lane has dealt with an event.
#[derive(Debug)]
enum LaneResult {
    Handled,
    Failed(HandlerFailure),
    /// The event is beyond the limit, so it was not tried, or not tried again.
    Dropped,
}

/// The threads that call the handler.
pub(super) struct Lanes {
    senders: Vec<Sender<RecordedEvent>>,
    threads: Vec<Arc<WorkerThread>>,
    shared: Arc<LanesShared>,
}

type LaneHandler = dyn Fn(&RecordedEvent) -> Result<(), HandlerError> + Send + Sync;

struct LanesShared {
    handler: Box<LaneHandler>,
    retry: Retry,
    /// Notified of each result.
    runner: Arc<RunnerState>,
    progress: Mutex<LaneProgress>,
    limit_changed: Condvar,
}

#[derive(Default)]
struct LaneProgress {
    results: Vec<(Position, LaneResult)>,
    /// For each lane the failure after which its event is tried again.
    troubles: Vec<Option<Trouble>>,
    /// Events beyond this position are not tried.
    limit: Option<Position>,
}

impl Lanes {
    pub(super) fn start(
        name: &str,
        threads: usize,
        retry: Retry,
        runner: &Arc<RunnerState>,
        handler: impl Fn(&RecordedEvent) -> Result<(), HandlerError> + Send + Sync + 'static,
    ) -> Result<Lanes, Error> {
        let progress = LaneProgress { troubles: vec![None; threads], ..LaneProgress::default() };
        let shared = Arc::new(LanesShared {
            handler: Box::new(handler),
            retry,
            runner: runner.clone(),
            progress: Mutex::new(progress),
            limit_changed: Condvar::new(),
        });
        let mut lanes = Lanes { senders: Vec::new(), threads: Vec::new(), shared };
        for lane in 0..threads {
            let (sender, receiver) = flume::bounded(LANE_EVENTS_MAX);
            let shared = lanes.shared.clone();
            let thread = Arc::new(WorkerThread::new(format!("{name}/{lane}")));
            let started = thread.start(move || shared.run(lane, &receiver));
            started
                .map_err(|error| Error::io("cannot start", "a thread of a partitioned consumer", error))?;
            lanes.senders.push(sender);
            lanes.threads.push(thread);
        }
        Ok(lanes)
    }

    pub(super) fn threads(&self) -> &[Arc<WorkerThread>] {
        &self.threads
    }

    /// Hands an event to the lane of its entity; gives the event back if the lane has no room.
    fn dispatch(&self, event: RecordedEvent) -> Result<(), RecordedEvent> {
        let mut hasher = DefaultHasher::new();
        event.entity().hash(&mut hasher);
        let lanes = to_u64(self.senders.len());
        let lane = usize::try_from(hasher.finish() % lanes).expect("less than a count");
        self.senders[lane].try_send(event).map_err(|refused| match refused {
            TrySendError::Full(event) | TrySendError::Disconnected(event) => event,
        })
    }

    fn take_results(&self) -> Vec<(Position, LaneResult)> {
        std::mem::take(&mut self.shared.progress.lock().results)
    }

    /// The failure that holds up the earliest event that is tried again.
    fn trouble(&self) -> Option<Trouble> {
        let progress = self.shared.progress.lock();
        progress.troubles.iter().flatten().min_by_key(|trouble| trouble.at).cloned()
    }

    /// From now on the lanes drop events beyond `limit`; with `None` they try all events.
    fn set_limit(&self, limit: Option<Position>) {
        self.shared.progress.lock().limit = limit;
        self.shared.limit_changed.notify_all();
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.set_limit(Some(Position::START));
        self.senders.clear();
        for thread in self.threads.drain(..) {
            // Panics of the handler are caught, so there is no panic to pass on.
            drop(thread.join());
        }
    }
}

impl LanesShared {
    /// The thread of a lane. It ends when the sender of the lane is dropped.
    fn run(&self, lane: usize, events: &Receiver<RecordedEvent>) {
        for event in events {
            let result = self.handle(lane, &event);
            let mut progress = self.progress.lock();
            progress.troubles[lane] = None;
            progress.results.push((event.position(), result));
            drop(progress);
            self.runner.notify();
        }
    }

    fn handle(&self, lane: usize, event: &RecordedEvent) -> LaneResult {
        let mut attempts = 0;
        while !self.progress.lock().is_beyond_limit(event) {
            let Err(failure) = call_handler(|| (self.handler)(event)) else { return LaneResult::Handled };
            attempts += 1;
            let Some(delay) = self.retry.delay_after(attempts) else { return LaneResult::Failed(failure) };
            let retry_at = Instant::now().checked_add(delay);
            let trouble = Trouble { at: event.position(), attempts, reason: failure.reason };
            let mut progress = self.progress.lock();
            progress.troubles[lane] = Some(trouble);
            self.runner.notify();
            while !progress.is_beyond_limit(event) && retry_at.is_none_or(|at| Instant::now() < at) {
                match retry_at {
                    Some(retry_at) => drop(self.limit_changed.wait_until(&mut progress, retry_at)),
                    None => self.limit_changed.wait(&mut progress),
                }
            }
        }
        LaneResult::Dropped
    }
}

impl LaneProgress {
    fn is_beyond_limit(&self, event: &RecordedEvent) -> bool {
        self.limit.is_some_and(|limit| event.position() > limit)
    }
}
