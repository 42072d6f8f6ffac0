//! The thread of a read model: it takes events, folds them, shows the state and saves it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::event::{RecordedEvent, codec};
use crate::read::Subscription;
use crate::state::projection::{Projection, fold, pack, panicked, unpack};
use crate::store::{Folded, Key, ModelLease, Reached, Saving, WeakStore};
use crate::threads::WorkerThread;
use crate::types::{Error, ErrorKind, Position, Query, Version};

/// The time between two states shown while there are more events to fold, unless copying takes long.
const SHOW_EVERY: Duration = Duration::from_millis(10);
/// Copying a state to show it takes at most one part in ten of the time.
const SHOW_SHARE: u32 = 10;
/// The time between two saves while the state changes, unless encoding takes long.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Encoding a state to save it takes at most one part in twenty of the time.
const SAVE_SHARE: u32 = 20;
/// The thread reads the clock once in so many events.
const EVENTS_PER_LOOK: u64 = 64;
/// How long closing a store waits for a thread that is folding an event.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(1);

/// The part of a read model that its thread and its handle share.
pub(super) struct SharedModel<P> {
    pub(super) view: Mutex<ModelView<P>>,
    /// Notified when the view changes, and when the thread ends.
    pub(super) changed: Condvar,
    pub(super) requests: Mutex<ModelRequests>,
    pub(super) thread: WorkerThread,
}

/// The part of a read model that its handle shows.
pub(super) struct ModelView<P> {
    pub(super) shown: Folded<Arc<P>>,
    /// The state shown holds all matching events up to this position.
    pub(super) cursor: Position,
    pub(super) phase: Phase,
    pub(super) progress: FoldProgress,
    /// How many callers wait for the state shown to advance.
    pub(super) waiting: usize,
    /// The thread has given up the model's name.
    pub(super) has_ended: bool,
}

/// The life of a read model's thread.
#[derive(Clone)]
pub(super) enum Phase {
    /// Folds the events that were there when it began, and shows the state so far.
    CatchingUp,
    /// Folds all events anew. The state from before is shown until it is done.
    Rebuilding,
    /// Folds events as they come.
    Following,
    Failed(Position, Error),
    Stopped,
    Closed,
}

/// How far the thread is, and how fast it went.
#[derive(Clone, Copy)]
pub(super) struct FoldProgress {
    pub(super) began: Instant,
    /// Positions passed since `began`.
    pub(super) passed: u64,
    pub(super) position: Position,
    pub(super) behind: u64,
}

impl<P> SharedModel<P> {
    /// Leaves a request to the thread, and wakes it.
    pub(super) fn request(&self, change: impl FnOnce(&mut ModelRequests)) {
        change(&mut self.requests.lock());
        self.thread.signal().notify();
    }

    /// Ends the thread because the store is being closed. Waits for its end at most [`CLOSE_WAIT_MAX`].
    pub(super) fn close(&self) {
        self.request(|requests| requests.end_with(Phase::Closed));
        let deadline = Instant::now() + CLOSE_WAIT_MAX;
        let mut view = self.view.lock();
        while !view.has_ended {
            if self.thread.is_current() || self.changed.wait_until(&mut view, deadline).timed_out() {
                return;
            }
        }
    }
}

impl Phase {
    /// Why the state shown will not advance any more.
    pub(super) fn error(&self) -> Option<Error> {
        match self {
            Phase::CatchingUp | Phase::Rebuilding | Phase::Following => None,
            Phase::Failed(_, error) => Some(error.clone()),
            Phase::Stopped => Some(Error::new(ErrorKind::Closed, "the read model was stopped")),
            Phase::Closed => Some(Error::closed()),
        }
    }
}

impl FoldProgress {
    pub(super) fn from(position: Position, behind: u64) -> FoldProgress {
        FoldProgress { began: Instant::now(), passed: 0, position, behind }
    }
}

/// What other threads asked of the thread, and it has not done yet.
#[derive(Default)]
pub(super) struct ModelRequests {
    pub(super) rebuild: bool,
    /// The phase in which the thread is to end.
    end: Option<Phase>,
}

/// The state that the thread folds.
pub(super) struct FoldingState<P> {
    pub(super) folded: Folded<Arc<P>>,
    /// Whether it is rebuilt beside the state shown.
    pub(super) is_beside: bool,
    /// The history that it is folded from. When the store's history is another one, the fold begins anew.
    pub(super) history: u64,
}

pub(super) struct ModelRunner<P> {
    shared: Arc<SharedModel<P>>,
    lease: ModelLease,
    store: WeakStore,
    query: Query,
    digest: [u8; 32],
    work: FoldingState<P>,
    shown: Periodic,
    saved: Periodic,
}

/// Something that is done from time to time: showing or saving.
struct Periodic {
    /// Events folded since the last time.
    events: u64,
    last: Instant,
    /// How long the last time took.
    cost: Duration,
}

/// Why the thread leaves its loop.
enum Interrupt {
    Rebuild,
    End(Phase),
    Failed(Position, Error),
}

impl ModelRequests {
    /// Asks the thread to end. The first such request counts.
    pub(super) fn end_with(&mut self, phase: Phase) {
        self.end.get_or_insert(phase);
    }

    /// Takes the request that interrupts the fold, if there is one. An end comes before a rebuild.
    fn take_interrupt(&mut self) -> Option<Interrupt> {
        if let Some(phase) = &self.end {
            return Some(Interrupt::End(phase.clone()));
        }
        std::mem::take(&mut self.rebuild).then_some(Interrupt::Rebuild)
    }
}

impl<P: Projection> ModelRunner<P> {
    pub(super) fn new(
        shared: Arc<SharedModel<P>>,
        lease: ModelLease,
        store: WeakStore,
        query: Query,
        digest: [u8; 32],
        work: FoldingState<P>,
    ) -> ModelRunner<P> {
        let shown = Periodic::new();
        let saved = Periodic::new();
        ModelRunner { shared, lease, store, query, digest, work, shown, saved }
    }

    pub(super) fn run(mut self) {
        let phase = loop {
            match self.follow() {
                Interrupt::End(phase) => break phase,
                Interrupt::Rebuild => self.begin_anew(),
                Interrupt::Failed(position, error) => {
                    tracing::error!(%error, %position, projection = P::NAME, "a read model stopped at an event");
                    self.enter(Phase::Failed(position, error));
                    match self.wait_for_request() {
                        Interrupt::End(phase) => break phase,
                        _ => self.begin_anew(),
                    }
                }
            }
        };
        // A failed read model keeps its error, and its half-folded state must be neither shown nor saved.
        let is_failed = matches!(self.shared.view.lock().phase, Phase::Failed(..));
        if !is_failed {
            self.show(None);
            self.save();
            self.shared.view.lock().phase = phase;
        }
        let ModelRunner { shared, lease, .. } = self;
        // The name is free before the thread counts as over: the caller may project again at once.
        drop(lease);
        shared.view.lock().has_ended = true;
        shared.changed.notify_all();
    }

    fn wait_for_request(&self) -> Interrupt {
        loop {
            if let Some(interrupt) = self.shared.requests.lock().take_interrupt() {
                return interrupt;
            }
            self.shared.thread.signal().wait(None);
        }
    }

    fn begin_anew(&mut self) {
        let history = self.lease.history();
        self.work = FoldingState { folded: Folded::default(), is_beside: true, history };
        self.shown = Periodic::new();
        self.saved = Periodic::new();
        let mut view = self.shared.view.lock();
        view.cursor = Position::START;
        view.phase = Phase::Rebuilding;
        view.progress = FoldProgress::from(Position::START, 0);
    }

    fn enter(&self, phase: Phase) {
        self.shared.view.lock().phase = phase;
        self.shared.changed.notify_all();
    }

    /// Folds the events that are there and those that come, until it is interrupted.
    fn follow(&mut self) -> Interrupt {
        let Some(store) = self.store.upgrade() else { return Interrupt::End(Phase::Closed) };
        let mut events = store.subscribe(self.query.clone()).after(self.work.folded.reached.position);
        drop(store);
        self.publish_progress(&events);
        let waker = self.shared.thread.signal().waker();
        let mut context = Context::from_waker(&waker);
        loop {
            if let Some(interrupt) = self.shared.requests.lock().take_interrupt() {
                return interrupt;
            }
            if self.lease.history() != self.work.history {
                return Interrupt::Rebuild;
            }
            match events.poll_next(&mut context) {
                Poll::Ready(Some(Ok(event))) => {
                    if let Err(error) = self.fold_event(&event) {
                        return Interrupt::Failed(event.position(), error);
                    }
                    if self.shown.events.is_multiple_of(EVENTS_PER_LOOK) {
                        self.look_at_clock(&events);
                    }
                }
                Poll::Ready(Some(Err(error))) => return Interrupt::Failed(events.position(), error),
                Poll::Ready(None) => return Interrupt::End(Phase::Closed),
                Poll::Pending => self.rest(&events),
            }
        }
    }

    /// Folds one event. After an error the state may be half folded, and is not used any more.
    fn fold_event(&mut self, event: &RecordedEvent) -> Result<(), Error> {
        let Folded { state, reached } = &mut self.work.folded;
        let is_shown = Arc::strong_count(state) > 1;
        let began = is_shown.then(Instant::now);
        let folded = catch_unwind(AssertUnwindSafe(|| {
            // Copies the state if it is the one shown; the copy counts as the cost of showing.
            let state = Arc::make_mut(state);
            let copied = began.map(|began| began.elapsed());
            fold(state, event).map(|()| copied)
        }));
        let copied = folded.unwrap_or_else(|panic| Err(panicked::<P>(event, panic.as_ref())))?;
        self.shown.cost = copied.unwrap_or(self.shown.cost);
        let version = Version::from(reached.version.get() + 1);
        *reached = Reached { version, ..Reached::at(event) };
        self.shown.events += 1;
        self.saved.events += 1;
        Ok(())
    }

    /// Between two events of many: publishes the progress, and shows and saves the state if that is due.
    fn look_at_clock(&mut self, events: &Subscription) {
        let is_waited_for = self.publish_progress(events);
        if !self.work.is_beside && (is_waited_for || self.shown.is_due(SHOW_EVERY, SHOW_SHARE)) {
            self.show(Some(events.position()));
        }
        if self.saved.is_due(SAVE_EVERY, SAVE_SHARE) {
            self.save();
        }
    }

    /// Publishes the progress, and returns whether a caller waits for the state shown.
    fn publish_progress(&self, events: &Subscription) -> bool {
        let mut view = self.shared.view.lock();
        let position = events.position();
        let passed = position.get().saturating_sub(view.progress.position.get());
        view.progress.passed += passed;
        view.progress.position = position;
        view.progress.behind = events.behind();
        view.waiting > 0
    }

    /// After the last event: shows the state, and sleeps until there is more to do.
    fn rest(&mut self, events: &Subscription) {
        self.publish_progress(events);
        let was_beside = std::mem::replace(&mut self.work.is_beside, false);
        self.show(Some(events.position()));
        self.shared.view.lock().phase = Phase::Following;
        if was_beside || self.saved.is_due(SAVE_EVERY, SAVE_SHARE) {
            self.save();
        }
        let is_unsaved = self.saved.events > 0 && self.lease.has_file();
        let settled = self.lease.settle();
        let most = if is_unsaved { Some(SAVE_EVERY) } else { settled };
        self.shared.thread.signal().wait(most.and_then(|most| Instant::now().checked_add(most)));
    }

    /// Shows the state, which holds all matching events up to `position`.
    fn show(&mut self, position: Option<Position>) {
        if self.work.is_beside {
            return;
        }
        let mut view = self.shared.view.lock();
        let before = std::mem::replace(&mut view.shown, self.work.folded.clone());
        view.cursor = position.unwrap_or(view.cursor).max(self.work.folded.reached.position);
        drop(view);
        self.shared.changed.notify_all();
        // Dropped outside the lock: freeing a large state takes time, and runs code of the user.
        drop(before);
        self.shown.events = 0;
        self.shown.last = Instant::now();
    }

    /// Saves state and position, if the last event in the state is durable.
    fn save(&mut self) {
        let Folded { state, reached } = &self.work.folded;
        self.saved.last = Instant::now();
        if reached.version == Version::EMPTY
            || !self.lease.has_file()
            || !self.lease.is_durable(reached.position)
        {
            return;
        }
        let (key, removed) = match self.work.is_beside {
            true => (Key::of_query(P::NAME, "next"), Vec::new()),
            false => (Key::of_query(P::NAME, "live"), vec![Key::of_query(P::NAME, "next")]),
        };
        match encoded(state.as_ref(), &self.digest) {
            Some(bytes) => {
                let folded = Folded { state: bytes, reached: *reached };
                self.lease.save(Saving { key, folded }, &removed, self.work.history);
            }
            None => tracing::warn!(projection = P::NAME, "a state does not encode, and is not saved"),
        }
        // Reset even if nothing was saved: the state is not offered again before it has changed.
        self.saved.events = 0;
        self.saved.cost = self.saved.last.elapsed();
    }
}

impl Periodic {
    fn new() -> Periodic {
        Periodic { events: 0, last: Instant::now(), cost: Duration::ZERO }
    }

    /// Whether it is time again: at most once in `every`, and for at most one part in `share` of the time.
    fn is_due(&self, every: Duration, share: u32) -> bool {
        self.events > 0 && self.last.elapsed() >= every.max(self.cost.saturating_mul(share))
    }
}

/// The digest of the projection's revision and the query: a saved state counts only for the same two.
pub(super) fn digest_of<P: Projection>(query: &Query) -> Result<[u8; 32], Error> {
    let mut bytes = P::REVISION.to_le_bytes().to_vec();
    codec::encode(query, &mut bytes)
        .map_err(|error| Error::invalid(format!("the query does not encode: {error}")))?;
    Ok(*blake3::hash(&bytes).as_bytes())
}

/// The bytes to save: the digest, and the packed state. `None` if the state does not encode.
fn encoded<P: Projection>(state: &P, digest: &[u8; 32]) -> Option<Vec<u8>> {
    let mut bytes = digest.to_vec();
    pack(state, &mut bytes)?;
    Some(bytes)
}

/// Reads the bytes that `encoded` wrote.
pub(super) fn decoded<P: Projection>(bytes: &[u8]) -> Option<(P, [u8; 32])> {
    let (digest, state) = bytes.split_first_chunk()?;
    Some((unpack(state)?, *digest))
}
