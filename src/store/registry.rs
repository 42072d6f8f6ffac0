//! The consumers that run in this process: at most one runner for each name, its position, and a signal to
//! wake it.
//!
//! The durable part of a consumer is in the log (`consume/consumer/`). No lock here is held during another
//! call.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Wake;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::threads::Signal;
use crate::types::Position;

/// The runners of a store, by name.
#[derive(Default)]
pub(crate) struct Registry {
    by_name: Mutex<HashMap<String, Arc<RunnerState>>>,
    /// Counts every change that a waiting caller may want to see.
    changes: Mutex<u64>,
    changed: Condvar,
}

/// One runner, as other threads see it.
pub(crate) struct RunnerState {
    inner: Mutex<RunnerInner>,
    /// Notified when the runner has something to look at.
    signal: Signal,
    registry: Arc<Registry>,
}

struct RunnerInner {
    command: RunnerCommand,
    /// Another caller may have moved the checkpoint, and the runner has not read it again.
    checkpoint_may_have_moved: bool,
    /// The checkpoint was moved, and the runner has not begun at the new position. Until then `handled` is
    /// wrong.
    handled_is_stale: bool,
    /// How many callers are about to move the checkpoint.
    moves_in_progress: usize,
    handled: Position,
    pace: SpeedSamples,
    trouble: Option<Trouble>,
}

/// What the runner is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunnerCommand {
    Go,
    Stop,
    /// End, because the store was closed.
    End,
}

/// An event that a consumer cannot get past.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) at: Position,
    pub(crate) attempts: u32,
    pub(crate) reason: String,
}

/// Two samples of the position, from which the speed is computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpeedSamples {
    pub(crate) earlier: SpeedSample,
    pub(crate) later: SpeedSample,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct SpeedSample {
    pub(crate) at: Instant,
    pub(crate) handled: Position,
    pub(crate) head: Position,
}

/// The least time between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Exclusive use of a consumer's name. Released on drop.
pub(crate) struct NameLease {
    name: String,
    live: Arc<RunnerState>,
}

impl Registry {
    /// Leases a name; `None` if another runner has it.
    pub(crate) fn claim(self: &Arc<Self>, name: &str) -> Option<NameLease> {
        let mut by_name = self.by_name.lock();
        if by_name.contains_key(name) {
            return None;
        }
        let live = Arc::new(RunnerState::new(self.clone()));
        by_name.insert(name.to_owned(), live.clone());
        Some(NameLease { name: name.to_owned(), live })
    }

    /// The runner that has a name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<RunnerState>> {
        self.by_name.lock().get(name).cloned()
    }

    /// Tells all runners that the store was closed, and wakes them.
    pub(crate) fn end(&self) {
        let all: Vec<Arc<RunnerState>> = self.by_name.lock().values().cloned().collect();
        all.iter().for_each(|runner| runner.call(RunnerCommand::End));
        self.note_change();
    }

    /// The count of changes, to pass to [`Registry::wait`].
    pub(crate) fn changes(&self) -> u64 {
        *self.changes.lock()
    }

    /// Waits until the count differs from `seen`; `false` if the deadline came first.
    pub(crate) fn wait(&self, seen: u64, deadline: Option<Instant>) -> bool {
        let mut changes = self.changes.lock();
        while *changes == seen {
            match deadline {
                None => self.changed.wait(&mut changes),
                Some(deadline) if self.changed.wait_until(&mut changes, deadline).timed_out() => {
                    return *changes != seen;
                }
                Some(_) => {}
            }
        }
        true
    }

    /// Counts a change, and wakes the callers that wait for one.
    pub(crate) fn note_change(&self) {
        *self.changes.lock() += 1;
        self.changed.notify_all();
    }
}

impl RunnerState {
    fn new(registry: Arc<Registry>) -> RunnerState {
        let sample = SpeedSample { at: Instant::now(), handled: Position::START, head: Position::START };
        let inner = RunnerInner {
            command: RunnerCommand::Go,
            checkpoint_may_have_moved: false,
            handled_is_stale: false,
            moves_in_progress: 0,
            handled: Position::START,
            pace: SpeedSamples { earlier: sample, later: sample },
            trouble: None,
        };
        RunnerState { inner: Mutex::new(inner), signal: Signal::default(), registry }
    }

    /// Wakes the runner, or keeps it from sleeping the next time.
    pub(crate) fn notify(&self) {
        self.signal.notify();
    }

    /// Sleeps until the runner is notified; `false` if the deadline came first.
    pub(crate) fn sleep(&self, deadline: Option<Instant>) -> bool {
        self.signal.wait(deadline)
    }

    /// Gives the runner a command. The first one other than `Go` stays.
    pub(crate) fn call(&self, command: RunnerCommand) {
        let mut inner = self.inner.lock();
        if inner.command == RunnerCommand::Go {
            inner.command = command;
        }
        drop(inner);
        self.notify();
    }

    pub(crate) fn called(&self) -> RunnerCommand {
        self.inner.lock().command
    }

    /// Whether the checkpoint may have been moved since the last call.
    pub(crate) fn take_moved(&self) -> bool {
        std::mem::take(&mut self.inner.lock().checkpoint_may_have_moved)
    }

    /// Whether another caller is about to move the checkpoint. Then the runner pauses.
    pub(crate) fn is_being_moved(&self) -> bool {
        self.inner.lock().moves_in_progress > 0
    }

    /// Notes that all matching events up to here are handled.
    pub(crate) fn set_handled(&self, handled: Position, head: Position) {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        inner.handled = handled;
        inner.trouble = None;
        let sample = SpeedSample { at: now, handled, head };
        if inner.pace.later.at + SAMPLE_EVERY <= now {
            inner.pace = SpeedSamples { earlier: inner.pace.later, later: sample };
        }
        drop(inner);
        self.registry.note_change();
    }

    /// Notes that the runner begins here: for the first time, or after its checkpoint was moved.
    pub(crate) fn begin(&self, handled: Position, head: Position) {
        let sample = SpeedSample { at: Instant::now(), handled, head };
        let mut inner = self.inner.lock();
        inner.handled = handled;
        inner.handled_is_stale = false;
        inner.trouble = None;
        inner.pace = SpeedSamples { earlier: sample, later: sample };
        drop(inner);
        self.registry.note_change();
    }

    /// The position up to which events are handled; `None` until the runner has begun behind a move.
    pub(crate) fn handled(&self) -> Option<Position> {
        let inner = self.inner.lock();
        (!inner.handled_is_stale).then_some(inner.handled)
    }

    pub(crate) fn pace(&self) -> SpeedSamples {
        self.inner.lock().pace
    }

    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.inner.lock().trouble.clone()
    }

    pub(crate) fn set_trouble(&self, trouble: Trouble) {
        self.inner.lock().trouble = Some(trouble);
    }

    /// Pauses the runner while its checkpoint is moved.
    pub(crate) fn mover(self: Arc<Self>) -> MoveGuard {
        self.inner.lock().moves_in_progress += 1;
        MoveGuard(self)
    }
}

/// Held while a checkpoint is moved. Dropped, it lets the runner read its checkpoint again and go on.
pub(crate) struct MoveGuard(Arc<RunnerState>);

impl MoveGuard {
    /// Notes that the checkpoint was moved to another position.
    pub(crate) fn moved(&self) {
        self.0.inner.lock().handled_is_stale = true;
    }
}

impl Drop for MoveGuard {
    fn drop(&mut self) {
        let mut inner = self.0.inner.lock();
        inner.moves_in_progress -= 1;
        inner.checkpoint_may_have_moved = true;
        drop(inner);
        self.0.notify();
        self.0.registry.note_change();
    }
}

/// Wakes the runner for new events, and at the end of the store.
impl Wake for RunnerState {
    fn wake(self: Arc<RunnerState>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<RunnerState>) {
        self.notify();
    }
}

impl NameLease {
    pub(crate) fn live(&self) -> &Arc<RunnerState> {
        &self.live
    }
}

impl Drop for NameLease {
    fn drop(&mut self) {
        self.live.registry.by_name.lock().remove(&self.name);
        self.live.registry.note_change();
    }
}
