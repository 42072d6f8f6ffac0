//! Which consumers run in this process: one runner a name, how far it is, and a bell to wake it.
//!
//! What is durable of a consumer is in the log (`consumer/`); this is only what the process knows besides.
//! No lock here is held while anything else is called.
//! Row: engine.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Wake;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::threads::Signal;
use crate::types::Position;

/// The consumers that run, by name.
#[derive(Default)]
pub(crate) struct Registry {
    by_name: Mutex<HashMap<String, Arc<RunnerState>>>,
    /// Counts what whoever waits for a consumer may want to know.
    progress: Mutex<u64>,
    progressed: Condvar,
}

/// A consumer that runs.
pub(crate) struct RunnerState {
    state: Mutex<RunnerInner>,
    /// Rung when something is to be looked at.
    bell: Signal,
    running: Arc<Registry>,
}

struct RunnerInner {
    call: RunnerCommand,
    /// Its checkpoint was moved by somebody else, and it has not looked where to ...
    is_moved: bool,
    /// ... or not begun there.
    is_stale: bool,
    /// How many are about to move its checkpoint.
    movers: usize,
    handled: Position,
    pace: Pace,
    trouble: Option<Trouble>,
}

/// What a runner is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunnerCommand {
    Go,
    Stop,
    /// The store was closed.
    End,
}

/// What keeps a consumer at its next event.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) at: Position,
    pub(crate) attempts: u32,
    pub(crate) reason: String,
}

/// How far it was, lately: what its speed is computed from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) earlier: Sample,
    pub(crate) later: Sample,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Instant,
    pub(crate) handled: Position,
    pub(crate) head: Position,
}

/// The time between two samples, at least.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// The right to run under a name, as long as it lives.
pub(crate) struct NameLease {
    name: String,
    live: Arc<RunnerState>,
}

impl Registry {
    /// Takes a name; `None` if it is taken.
    pub(crate) fn claim(self: &Arc<Self>, name: &str) -> Option<NameLease> {
        let mut by_name = self.by_name.lock();
        if by_name.contains_key(name) {
            return None;
        }
        let live = Arc::new(RunnerState::new(self.clone()));
        by_name.insert(name.to_owned(), live.clone());
        Some(NameLease { name: name.to_owned(), live })
    }

    /// The runner of a name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<RunnerState>> {
        self.by_name.lock().get(name).cloned()
    }

    /// The store was closed: whoever runs is woken to see it.
    pub(crate) fn end(&self) {
        let all: Vec<Arc<RunnerState>> = self.by_name.lock().values().cloned().collect();
        all.iter().for_each(|live| live.call(RunnerCommand::End));
        self.progress();
    }

    /// A count to wait by: see [`Registry::wait`].
    pub(crate) fn mark(&self) -> u64 {
        *self.progress.lock()
    }

    /// Waits until something was handled, or changed otherwise, after the mark was taken; `false` if the
    /// deadline came first.
    pub(crate) fn wait(&self, mark: u64, deadline: Option<Instant>) -> bool {
        let mut progress = self.progress.lock();
        while *progress == mark {
            match deadline {
                None => self.progressed.wait(&mut progress),
                Some(deadline) if self.progressed.wait_until(&mut progress, deadline).timed_out() => {
                    return *progress != mark;
                }
                Some(_) => {}
            }
        }
        true
    }

    pub(crate) fn progress(&self) {
        *self.progress.lock() += 1;
        self.progressed.notify_all();
    }
}

impl RunnerState {
    fn new(running: Arc<Registry>) -> RunnerState {
        let sample = Sample { at: Instant::now(), handled: Position::START, head: Position::START };
        let state = RunnerInner {
            call: RunnerCommand::Go,
            is_moved: false,
            is_stale: false,
            movers: 0,
            handled: Position::START,
            pace: Pace { earlier: sample, later: sample },
            trouble: None,
        };
        RunnerState { state: Mutex::new(state), bell: Signal::default(), running }
    }

    /// Wakes the runner, or keeps it from sleeping the next time.
    pub(crate) fn notify(&self) {
        self.bell.notify();
    }

    /// Sleeps until it is rung; `false` if the deadline came first.
    pub(crate) fn sleep(&self, deadline: Option<Instant>) -> bool {
        self.bell.wait(deadline)
    }

    /// Asks the runner to stop, or tells it that the store was closed. What was asked first stays.
    pub(crate) fn call(&self, call: RunnerCommand) {
        let mut state = self.state.lock();
        if state.call == RunnerCommand::Go {
            state.call = call;
        }
        drop(state);
        self.notify();
    }

    pub(crate) fn called(&self) -> RunnerCommand {
        self.state.lock().call
    }

    /// Whether its checkpoint was moved since this was asked last.
    pub(crate) fn take_moved(&self) -> bool {
        std::mem::take(&mut self.state.lock().is_moved)
    }

    /// Whether somebody is about to move its checkpoint: then it had better wait.
    pub(crate) fn is_being_moved(&self) -> bool {
        self.state.lock().movers > 0
    }

    /// Everything that matches up to here was handled.
    pub(crate) fn set_handled(&self, handled: Position, head: Position) {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.handled = handled;
        state.trouble = None;
        let sample = Sample { at: now, handled, head };
        if state.pace.later.at + SAMPLE_EVERY <= now {
            state.pace = Pace { earlier: state.pace.later, later: sample };
        }
        drop(state);
        self.running.progress();
    }

    /// It begins here, or goes on here after its checkpoint was moved.
    pub(crate) fn begin(&self, handled: Position, head: Position) {
        let sample = Sample { at: Instant::now(), handled, head };
        let mut state = self.state.lock();
        (state.handled, state.is_stale, state.trouble) = (handled, false, None);
        state.pace = Pace { earlier: sample, later: sample };
        drop(state);
        self.running.progress();
    }

    /// How far it is; `None` while it has to find out that it was moved.
    pub(crate) fn handled(&self) -> Option<Position> {
        let state = self.state.lock();
        (!state.is_stale).then_some(state.handled)
    }

    pub(crate) fn pace(&self) -> Pace {
        self.state.lock().pace
    }

    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.state.lock().trouble.clone()
    }

    pub(crate) fn set_trouble(&self, trouble: Trouble) {
        self.state.lock().trouble = Some(trouble);
    }

    /// Holds the runner back while its checkpoint is moved.
    pub(crate) fn mover(self: Arc<Self>) -> MoveGuard {
        self.state.lock().movers += 1;
        MoveGuard(self)
    }
}

/// Somebody who moves a checkpoint; when it is dropped, the runner goes on from wherever that is now.
pub(crate) struct MoveGuard(Arc<RunnerState>);

impl MoveGuard {
    /// It was moved to another position.
    pub(crate) fn moved(&self) {
        self.0.state.lock().is_stale = true;
    }
}

impl Drop for MoveGuard {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.movers -= 1;
        state.is_moved = true;
        drop(state);
        self.0.notify();
        self.0.running.progress();
    }
}

/// New events, or the end of the store.
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
        self.live.running.by_name.lock().remove(&self.name);
        self.live.running.progress();
    }
}
