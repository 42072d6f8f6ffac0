//! The thread of a read model: takes events, folds, shows, saves.
//!
//! Row: app.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::{Phase, Progress, Shared};
use crate::event::{RecordedEvent, codec};
use crate::read::Subscription;
use crate::state::projection::{Projection, fold, panicked, saved};
use crate::store::{Folded, ModelLease, Reached, Saving, StateKey, WeakStore};
use crate::types::{Error, Position, Query, Version};

/// How often a state is shown at least while there is more to fold, unless copying it takes long.
const SHOW_EVERY: Duration = Duration::from_millis(10);
/// Copying a state to show it may take so large a part of the time: one in ten.
const SHOW_SHARE: u32 = 10;
/// How often a state is saved at least while it changes, unless encoding it takes long.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Encoding may take one part in twenty.
const SAVE_SHARE: u32 = 20;
/// The clock is looked at after so many events.
const LOOK_EVERY: u64 = 64;

/// What the thread was asked to do, and has not done yet.
#[derive(Default)]
pub(super) struct ModelRequests {
    pub(super) rebuild: bool,
    /// How it is to end.
    end: Option<Phase>,
}

/// A state to fold on, and whether that is done beside the one shown.
pub(super) struct Work<P> {
    pub(super) folded: Folded<Arc<P>>,
    pub(super) is_beside: bool,
    /// What it is folded from: once that is another one, all of it is folded anew.
    pub(super) history: u64,
}

pub(super) struct Runner<P> {
    shared: Arc<Shared<P>>,
    claim: ModelLease,
    store: WeakStore,
    query: Query,
    digest: [u8; 32],
    work: Work<P>,
    /// Events folded since it was shown, or saved; how long that took, and when it was.
    shown: Turn,
    saved: Turn,
}

/// Something that is done now and then.
struct Turn {
    events: u64,
    last: Instant,
    cost: Duration,
}

/// Why the thread stops folding.
enum Break {
    Rebuild,
    End(Phase),
    Failed(Position, Error),
}

impl ModelRequests {
    /// Asks it to end; the first of several such requests counts.
    pub(super) fn end_with(&mut self, phase: Phase) {
        self.end.get_or_insert(phase);
    }

    /// The request to follow next: the end comes before a rebuild.
    fn take(&mut self) -> Option<Break> {
        if let Some(phase) = &self.end {
            return Some(Break::End(phase.clone()));
        }
        std::mem::take(&mut self.rebuild).then_some(Break::Rebuild)
    }
}

impl<P: Projection> Runner<P> {
    pub(super) fn new(
        shared: Arc<Shared<P>>,
        claim: ModelLease,
        store: WeakStore,
        query: Query,
        digest: [u8; 32],
        work: Work<P>,
    ) -> Runner<P> {
        Runner { shared, claim, store, query, digest, work, shown: Turn::new(), saved: Turn::new() }
    }

    pub(super) fn run(mut self) {
        let phase = loop {
            match self.follow() {
                Break::End(phase) => break phase,
                Break::Rebuild => self.begin_anew(),
                Break::Failed(position, error) => {
                    tracing::error!(%error, %position, projection = P::NAME, "a projection stands still");
                    self.enter(Phase::Failed(position, error));
                    match self.wait() {
                        Break::End(phase) => break phase,
                        _ => self.begin_anew(),
                    }
                }
            }
        };
        let is_failed = matches!(self.shared.state.lock().phase, Phase::Failed(..));
        if !is_failed {
            self.show(None);
            self.save();
            self.shared.state.lock().phase = phase;
        }
        let Runner { shared, claim, .. } = self;
        drop(claim);
        shared.state.lock().has_ended = true;
        shared.changed.notify_all();
    }

    /// Until it is asked for something.
    fn wait(&self) -> Break {
        loop {
            if let Some(request) = self.shared.requests.lock().take() {
                return request;
            }
            self.shared.thread.signal().wait(None);
        }
    }

    fn begin_anew(&mut self) {
        let history = self.claim.history();
        self.work = Work { folded: Folded::default(), is_beside: true, history };
        (self.shown, self.saved) = (Turn::new(), Turn::new());
        let mut state = self.shared.state.lock();
        state.cursor = Position::START;
        state.phase = Phase::CatchingUp(true);
        state.progress = Progress::from(Position::START, 0);
    }

    fn enter(&self, phase: Phase) {
        self.shared.state.lock().phase = phase;
        self.shared.changed.notify_all();
    }

    /// Folds what is there and what comes, until something is in the way.
    fn follow(&mut self) -> Break {
        let Some(store) = self.store.upgrade() else { return Break::End(Phase::Closed) };
        let mut events = store.subscribe(self.query.clone()).after(self.work.folded.reached.position);
        drop(store);
        self.progress(&events);
        let waker = self.shared.thread.signal().waker();
        let mut context = Context::from_waker(&waker);
        loop {
            if let Some(request) = self.shared.requests.lock().take() {
                return request;
            }
            if self.claim.history() != self.work.history {
                return Break::Rebuild;
            }
            match events.poll_next(&mut context) {
                Poll::Ready(Some(Ok(event))) => {
                    if let Err(error) = self.take(&event) {
                        return Break::Failed(event.position(), error);
                    }
                    if self.shown.events.is_multiple_of(LOOK_EVERY) {
                        self.look(&events);
                    }
                }
                Poll::Ready(Some(Err(error))) => return Break::Failed(events.position(), error),
                Poll::Ready(None) => return Break::End(Phase::Closed),
                Poll::Pending => self.rest(&events),
            }
        }
    }

    /// Folds one event. After an error, or a panic, the state may be half folded, and is not used any more.
    fn take(&mut self, event: &RecordedEvent) -> Result<(), Error> {
        let Folded { state, reached } = &mut self.work.folded;
        let is_shown = Arc::strong_count(state) > 1;
        let began = is_shown.then(Instant::now);
        let folded = catch_unwind(AssertUnwindSafe(|| {
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

    /// In the middle of many events: says how far it is, and shows and saves what is due.
    fn look(&mut self, events: &Subscription) {
        let is_waited_for = self.progress(events);
        if !self.work.is_beside && (is_waited_for || self.shown.is_due(SHOW_EVERY, SHOW_SHARE)) {
            self.show(Some(events.position()));
        }
        if self.saved.is_due(SAVE_EVERY, SAVE_SHARE) {
            self.save();
        }
    }

    /// Says how far it is; whether somebody waits for what is shown.
    fn progress(&self, events: &Subscription) -> bool {
        let mut state = self.shared.state.lock();
        let position = events.position();
        let passed = position.get().saturating_sub(state.progress.position.get());
        state.progress.passed += passed;
        (state.progress.position, state.progress.behind) = (position, events.behind());
        state.waiting > 0
    }

    /// Everything is folded: shows it, and sleeps until there is more to do.
    fn rest(&mut self, events: &Subscription) {
        self.progress(events);
        let was_beside = std::mem::replace(&mut self.work.is_beside, false);
        self.show(Some(events.position()));
        self.shared.state.lock().phase = Phase::RunnerState;
        if was_beside || self.saved.is_due(SAVE_EVERY, SAVE_SHARE) {
            self.save();
        }
        let is_unsaved = self.saved.events > 0 && self.claim.has_file();
        let settled = self.claim.settle();
        let most = if is_unsaved { Some(SAVE_EVERY) } else { settled };
        self.shared.thread.signal().wait(most.and_then(|most| Instant::now().checked_add(most)));
    }

    /// Shows the state, up to a position that everything was looked through to.
    fn show(&mut self, position: Option<Position>) {
        if self.work.is_beside {
            return;
        }
        let mut state = self.shared.state.lock();
        let before = std::mem::replace(&mut state.shown, self.work.folded.clone());
        state.cursor = position.unwrap_or(state.cursor).max(self.work.folded.reached.position);
        drop(state);
        self.shared.changed.notify_all();
        drop(before);
        (self.shown.events, self.shown.last) = (0, Instant::now());
    }

    /// Saves state and position, if no power cut can take back what they rest on.
    fn save(&mut self) {
        let Folded { state, reached } = &self.work.folded;
        self.saved.last = Instant::now();
        if reached.version == Version::EMPTY
            || !self.claim.has_file()
            || !self.claim.is_durable(reached.position)
        {
            return;
        }
        let (key, removed) = match self.work.is_beside {
            true => (StateKey::of_query(P::NAME, "next"), Vec::new()),
            false => (StateKey::of_query(P::NAME, "live"), vec![StateKey::of_query(P::NAME, "next")]),
        };
        match encoded(state.as_ref(), &self.digest) {
            Some(bytes) => {
                let folded = Folded { state: bytes, reached: *reached };
                self.claim.save(Saving { key, folded }, &removed, self.work.history);
            }
            None => tracing::warn!(projection = P::NAME, "a state does not encode, and is not saved"),
        }
        // What was not taken now is not offered again before it has changed.
        (self.saved.events, self.saved.cost) = (0, self.saved.last.elapsed());
    }
}

impl Turn {
    fn new() -> Turn {
        Turn { events: 0, last: Instant::now(), cost: Duration::ZERO }
    }

    /// Whether it is time again: not more often than said, nor for more than its share of the time.
    fn is_due(&self, every: Duration, share: u32) -> bool {
        self.events > 0 && self.last.elapsed() >= every.max(self.cost.saturating_mul(share))
    }
}

/// What makes a saved state another one's: the projection's revision and the query.
pub(super) fn digest_of<P: Projection>(query: &Query) -> Result<[u8; 32], Error> {
    let mut bytes = P::REVISION.to_le_bytes().to_vec();
    codec::encode(query, &mut bytes)
        .map_err(|error| Error::invalid(format!("the query does not encode: {error}")))?;
    Ok(*blake3::hash(&bytes).as_bytes())
}

/// A state and what it was folded by, to be saved; `None` if it does not encode.
fn encoded<P: Projection>(state: &P, digest: &[u8; 32]) -> Option<Vec<u8>> {
    let mut bytes = digest.to_vec();
    saved::pack(state, &mut bytes)?;
    Some(bytes)
}

/// The other way round.
pub(super) fn decoded<P: Projection>(bytes: &[u8]) -> Option<(P, [u8; 32])> {
    let (digest, state) = bytes.split_first_chunk()?;
    Some((saved::unpack(state)?, *digest))
}
