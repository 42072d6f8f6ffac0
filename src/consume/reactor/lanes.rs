//! The threads of a partitioned consumer: each handles the events of its entities, one after the other.
//!
//! Every event that is dispatched comes back as a [`Verdict`], whatever happens.
//! Row: app.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use flume::{Receiver, Sender, TrySendError};
use parking_lot::{Condvar, Mutex};

use crate::event::RecordedEvent;
use crate::store::{RunnerState, Trouble};
use crate::types::{Error, Position};

use super::retry::Retry;
use super::run::{Failed, called};
use super::worker::Outcome;
use super::{Failure, Handler};

/// How many events wait for one thread at most.
const LANE_EVENTS_MAX: usize = 64;

/// What became of an event.
#[derive(Debug)]
pub(super) enum Verdict {
    Handled,
    Failed(Failed),
    /// It was not tried, or not tried again: the work was called off.
    Dropped,
}

pub(super) struct Lanes {
    senders: Vec<Sender<RecordedEvent>>,
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

struct Shared {
    handler: Box<Handler>,
    retry: Retry,
    /// Rung when there is a verdict.
    live: Arc<RunnerState>,
    state: Mutex<State>,
    called_off: Condvar,
}

#[derive(Default)]
struct State {
    verdicts: Vec<(Position, Verdict)>,
    /// Of each thread, what keeps it from its next event.
    troubles: Vec<Option<Trouble>>,
    /// Events after this are not to be tried.
    limit: Option<Position>,
}

impl Lanes {
    pub(super) fn start(
        name: &str,
        threads: usize,
        retry: Retry,
        live: &Arc<RunnerState>,
        outcome: &Arc<Outcome>,
        handler: impl Fn(&RecordedEvent) -> Result<(), Failure> + Send + Sync + 'static,
    ) -> Result<Lanes, Error> {
        let state = State { troubles: vec![None; threads], ..State::default() };
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            retry,
            live: live.clone(),
            state: Mutex::new(state),
            called_off: Condvar::new(),
        });
        let mut lanes = Lanes { senders: Vec::new(), threads: Vec::new(), shared: shared.clone() };
        for lane in 0..threads {
            let (sender, receiver) = flume::bounded(LANE_EVENTS_MAX);
            let (shared, outcome) = (shared.clone(), outcome.clone());
            let thread = std::thread::Builder::new().name(format!("{name}/{lane}"));
            let thread = thread.spawn(move || {
                outcome.enter();
                shared.work(lane, &receiver);
            });
            lanes.senders.push(sender);
            lanes.threads.push(
                thread.map_err(|error| {
                    Error::io("cannot start", "a thread of a partitioned consumer", error)
                })?,
            );
        }
        Ok(lanes)
    }

    /// Hands an event to the thread of its entity; gives it back if that has enough to do.
    pub(super) fn dispatch(&self, event: RecordedEvent) -> Result<(), RecordedEvent> {
        let mut hasher = DefaultHasher::new();
        event.entity().hash(&mut hasher);
        let lanes = u64::try_from(self.senders.len()).expect("a count fits 64 bits");
        let lane = usize::try_from(hasher.finish() % lanes).expect("less than a count");
        self.senders[lane].try_send(event).map_err(|refused| match refused {
            TrySendError::Full(event) | TrySendError::Disconnected(event) => event,
        })
    }

    /// What has been decided since this was asked last.
    pub(super) fn verdicts(&self) -> Vec<(Position, Verdict)> {
        std::mem::take(&mut self.shared.state.lock().verdicts)
    }

    /// What holds up the earliest event that is being tried again.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        let state = self.shared.state.lock();
        state.troubles.iter().flatten().min_by_key(|trouble| trouble.at).cloned()
    }

    /// Events after this are not tried any more, but dropped; `None`: all are tried again.
    pub(super) fn set_limit(&self, limit: Option<Position>) {
        self.shared.state.lock().limit = limit;
        self.shared.called_off.notify_all();
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.set_limit(Some(Position::START));
        self.senders.clear();
        for thread in self.threads.drain(..) {
            // Panics of the handler are caught, so there is nothing to learn.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn work(&self, lane: usize, events: &Receiver<RecordedEvent>) {
        for event in events {
            let verdict = self.handle(lane, &event);
            let mut state = self.state.lock();
            state.troubles[lane] = None;
            state.verdicts.push((event.position(), verdict));
            drop(state);
            self.live.notify();
        }
    }

    fn handle(&self, lane: usize, event: &RecordedEvent) -> Verdict {
        let mut attempts = 0;
        while !self.state.lock().is_called_off(event) {
            let Err(failed) = called(|| (self.handler)(event)) else { return Verdict::Handled };
            attempts += 1;
            let Some(delay) = self.retry.delay_after(attempts) else { return Verdict::Failed(failed) };
            let until = Instant::now().checked_add(delay);
            let trouble = Trouble { at: event.position(), attempts, reason: failed.reason };
            let mut state = self.state.lock();
            state.troubles[lane] = Some(trouble);
            self.live.notify();
            while !state.is_called_off(event) && until.is_none_or(|until| Instant::now() < until) {
                match until {
                    Some(until) => drop(self.called_off.wait_until(&mut state, until)),
                    None => self.called_off.wait(&mut state),
                }
            }
        }
        Verdict::Dropped
    }
}

impl State {
    fn is_called_off(&self, event: &RecordedEvent) -> bool {
        self.limit.is_some_and(|limit| event.position() > limit)
    }
}
