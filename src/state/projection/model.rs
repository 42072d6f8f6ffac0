//! Read models: the state of everything a query matches, kept up by a thread of its own.
//!
//! The thread folds a state that only it holds, and shows it now and then; whoever looks has the one that was shown last, and
//! waits for nobody. It follows the log itself (never notifications), and what it has saved is state and position in one.
//! Invariant: what is shown was folded from all events that match up to its position, and no others.
//! Row: app.

mod runner;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::load::shape;
use super::{Loaded, Projection};
use crate::read::event_at;
use crate::store::{Folded, StateKey, Store};
use crate::threads::WorkerThread;
use crate::types::{Error, ErrorKind, Position, Query};
use runner::{ModelRequests, Runner, Work, decoded, digest_of};

/// How long closing a store waits for a projection that is in the middle of an event.
const PATIENCE: Duration = Duration::from_secs(1);

/// The state of everything a query matches, kept up with the store; see [`Store::project`].
///
/// Dropping it ends its thread, once the event at hand is through; so does closing the store.
#[must_use = "dropped, it ends"]
pub struct ReadModel<P> {
    shared: Arc<Shared<P>>,
}

/// What the thread and its handle share.
struct Shared<P> {
    state: Mutex<State<P>>,
    changed: Condvar,
    requests: Mutex<ModelRequests>,
    thread: WorkerThread,
}

struct State<P> {
    shown: Folded<Arc<P>>,
    /// Everything that matches up to here is in what is shown.
    cursor: Position,
    phase: Phase,
    progress: Progress,
    /// How many wait for what is shown to go on.
    waiting: usize,
    /// The thread has let go of the name.
    has_ended: bool,
}

/// What the thread does.
#[derive(Clone)]
enum Phase {
    /// Folds what there is; `true` beside what is shown.
    CatchingUp(bool),
    RunnerState,
    Failed(Position, Error),
    Stopped,
    Closed,
}

/// How far folding is, and since when.
#[derive(Clone, Copy)]
struct Progress {
    began: Instant,
    /// Positions gone past since then.
    passed: u64,
    position: Position,
    behind: u64,
}

/// What a read model is doing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReadModelStatus {
    /// It shows everything that matches up to the head.
    Idle,
    /// It folds what was there when it began, and shows what it has so far.
    CatchingUp(CatchUp),
    /// It folds everything anew, beside the state it shows until then: its [`REVISION`](Projection::REVISION) or its query is another one than it was, or
    /// [`ReadModel::rebuild`] was called.
    Rebuilding(CatchUp),
    /// It had caught up, and is this many positions behind now.
    Lagging {
        /// How many positions the head is ahead; not all of them need match.
        behind: u64,
    },
    /// It stands still: this event could not be folded, or not be read. The state from before is still shown. Mend what is wrong and
    /// project again, or rebuild.
    Failed {
        /// Of the event, or, if reading failed, up to where everything was folded.
        position: Position,
        /// Why.
        error: Error,
    },
    /// It was stopped.
    Stopped,
    /// The store was closed.
    Closed,
}

/// How far catching up is.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct CatchUp {
    /// Everything that matches up to here was folded.
    pub position: Position,
    /// How many positions the head is ahead; not all of them need match.
    pub behind: u64,
    /// Positions passed per second, since it began.
    pub rate: f64,
    /// How long it takes at that rate; `None` before there is one.
    pub remaining: Option<Duration>,
}

impl Store {
    /// Keeps the state of everything a query matches, on a thread of its own: a read model.
    ///
    /// It begins with what was saved under the projection's name, then folds the events behind that, then those that come. One of a name
    /// runs on a store at a time. State and position are saved together (every second or so, once the events are durable; not in a store opened to read),
    /// so after a restart every event is in it exactly once. The state is one value in memory: it is copied to be shown and encoded to be saved, more
    /// seldom the longer that takes. What it does besides folding it would do again after a restart: a projection has no effects.
    ///
    /// If the projection's [`REVISION`](Projection::REVISION) or the query is another one than what was saved, everything is folded anew beside the saved
    /// state, which is shown meanwhile if it still decodes.
    ///
    /// ```
    /// # use annals::{DomainEvent, Meta, Projection, Store};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize, DomainEvent)]
    /// # #[event(kind = "account.deposited")]
    /// # struct Deposited { cents: u64 }
    /// # #[derive(Clone, Default, Serialize, Deserialize)]
    /// # struct Account { cents: u64 }
    /// # impl Projection for Account {
    /// #     type Event = Deposited;
    /// #     const NAME: &'static str = "account";
    /// #     fn apply(&mut self, event: Deposited, _: &Meta<'_>) { self.cents += event.cents; }
    /// # }
    /// use annals::Query;
    /// use std::time::Duration;
    ///
    /// let store = Store::in_memory()?;
    /// let total = store.project::<Account>(Query::entity_prefix("account:"))?;
    /// store.append("account:alice", &Deposited { cents: 500 })?;
    /// let receipt = store.append("account:bob", &Deposited { cents: 700 })?;
    /// assert!(total.wait_for(receipt.position(), Duration::from_secs(10))?);
    /// assert_eq!(total.state().cents, 1200);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if a projection of this name runs already;
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed); [`ErrorKind::Io`](crate::ErrorKind::Io) if there is no thread to be had.
    pub fn project<P: Projection>(&self, query: Query) -> Result<ReadModel<P>, Error> {
        let digest = digest_of::<P>(&query)?;
        let (shown, work) = self.beginning::<P>(&digest)?;
        let state = State {
            cursor: shown.reached.position,
            shown,
            phase: Phase::CatchingUp(work.is_beside),
            progress: Progress::from(work.folded.reached.position, 0),
            waiting: 0,
            has_ended: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            requests: Mutex::default(),
            thread: WorkerThread::new("annals-project"),
        });
        if work.is_beside {
            // Nothing of the new state is shown yet.
            shared.state.lock().cursor = Position::START;
        }
        let own = shared.clone();
        let claim = self.cache().claim(P::NAME, Arc::new(move || own.end()))?;
        let runner = Runner::new(shared.clone(), claim, self.downgrade(), query, digest, work);
        let started = shared.thread.start(move || runner.run());
        started.map_err(|error| Error::io("cannot start", "a thread for a projection", error))?;
        Ok(ReadModel { shared })
    }

    /// What is shown first, and what there is to go on from.
    fn beginning<P: Projection>(&self, digest: &[u8; 32]) -> Result<(Folded<Arc<P>>, Work<P>), Error> {
        let history = self.engine().snapshot()?.history;
        self.cache().keep_up(history);
        let live = self.saved_under::<P>("live")?;
        if let Some((folded, _)) = live.clone().filter(|(_, own)| own == digest) {
            let work = Work { folded: folded.clone(), is_beside: false, history };
            return Ok((folded, work));
        }
        let next = self.saved_under::<P>("next")?.filter(|(_, own)| own == digest);
        let folded = next.map(|(folded, _)| folded).unwrap_or_default();
        let is_beside = live.is_some();
        let shown = live.map(|(folded, _)| folded).unwrap_or_default();
        Ok((shown, Work { folded, is_beside, history }))
    }

    /// What was saved, if the log agrees and it decodes, and what it was folded by.
    fn saved_under<P: Projection>(&self, role: &str) -> Result<Option<Saved<P>>, Error> {
        let snapshot = self.engine().snapshot()?;
        let shape = shape::<P>();
        let Some(Folded { state, reached }) = self.cache().read(&StateKey::of_query(shape.name, role)) else {
            return Ok(None);
        };
        let event = event_at(&snapshot, reached.position).ok().flatten();
        if event.is_none_or(|event| event.chain() != reached.chain) {
            return Ok(None);
        }
        Ok(decoded(&state).map(|(state, digest)| (Folded { state: Arc::new(state), reached }, digest)))
    }
}

/// A state that was saved, and the digest of what it was folded by.
type Saved<P> = (Folded<Arc<P>>, [u8; 32]);

impl<P: Projection> ReadModel<P> {
    /// The state as it was shown last. [`Loaded::version`] is the number of events it was folded from, [`Loaded::position`] that of the last of them.
    ///
    /// It waits for nobody. To see an event that was just appended, [`ReadModel::wait_for`] it first.
    #[must_use]
    pub fn state(&self) -> Loaded<P> {
        self.shared.state.lock().shown.clone().into()
    }

    /// What it is doing.
    #[must_use]
    pub fn status(&self) -> ReadModelStatus {
        let state = self.shared.state.lock();
        match &state.phase {
            Phase::CatchingUp(false) => ReadModelStatus::CatchingUp(state.progress.catch_up()),
            Phase::CatchingUp(true) => ReadModelStatus::Rebuilding(state.progress.catch_up()),
            Phase::RunnerState if state.progress.behind == 0 => ReadModelStatus::Idle,
            Phase::RunnerState => ReadModelStatus::Lagging { behind: state.progress.behind },
            Phase::Failed(position, error) => {
                ReadModelStatus::Failed { position: *position, error: error.clone() }
            }
            Phase::Stopped => ReadModelStatus::Stopped,
            Phase::Closed => ReadModelStatus::Closed,
        }
    }

    /// Waits until everything that matches up to a position is in the state shown, at most so long; `false` if it is not by
    /// then. While it is rebuilt, that is once the new state is shown.
    ///
    /// # Errors
    ///
    /// Why it stands still: what kept an event from being folded, [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn wait_for(&self, position: Position, timeout: Duration) -> Result<bool, Error> {
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.shared.state.lock();
        state.waiting += 1;
        self.shared.thread.signal().notify();
        let outcome = loop {
            if state.cursor >= position {
                break Ok(true);
            }
            if let Some(error) = state.phase.error() {
                break Err(error);
            }
            match deadline {
                None => self.shared.changed.wait(&mut state),
                Some(deadline) if self.shared.changed.wait_until(&mut state, deadline).timed_out() => {
                    break Ok(state.cursor >= position);
                }
                Some(_) => {}
            }
        };
        state.waiting -= 1;
        outcome
    }

    /// Folds everything anew from the first event, beside the state that is shown, which stands still until the new one takes
    /// its place. Also makes one that has failed try again. Returns at once; [`ReadModel::status`] has the progress.
    pub fn rebuild(&self) {
        self.shared.request(|requests| requests.rebuild = true);
    }

    /// Ends it: saves what it has, and joins its thread. The last state stays.
    pub fn stop(self) -> Loaded<P> {
        self.join();
        self.state()
    }
}

impl<P> ReadModel<P> {
    fn join(&self) {
        self.shared.request(|requests| requests.end_with(Phase::Stopped));
        if let Some(Err(_)) = self.shared.thread.join() {
            tracing::error!("the thread of a projection panicked");
        }
    }
}

impl<P> Drop for ReadModel<P> {
    fn drop(&mut self) {
        self.join();
    }
}

impl<P: fmt::Debug> fmt::Debug for ReadModel<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let position = self.shared.state.lock().cursor;
        f.debug_struct("ReadModel").field("position", &position.get()).finish_non_exhaustive()
    }
}

impl<P> Shared<P> {
    /// Leaves a request to the thread, and wakes it.
    fn request(&self, change: impl FnOnce(&mut ModelRequests)) {
        change(&mut self.requests.lock());
        self.thread.signal().notify();
    }

    /// The store is being closed: ends the thread, and waits until it has, for a while.
    fn end(&self) {
        self.request(|requests| requests.end_with(Phase::Closed));
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.lock();
        while !state.has_ended {
            if self.thread.is_current() || self.changed.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
    }
}

impl Phase {
    fn error(&self) -> Option<Error> {
        match self {
            Phase::CatchingUp(_) | Phase::RunnerState => None,
            Phase::Failed(_, error) => Some(error.clone()),
            Phase::Stopped => Some(Error::new(ErrorKind::Closed, "the read model was stopped")),
            Phase::Closed => Some(Error::closed()),
        }
    }
}

impl Progress {
    fn from(position: Position, behind: u64) -> Progress {
        Progress { began: Instant::now(), passed: 0, position, behind }
    }

    fn catch_up(&self) -> CatchUp {
        let seconds = self.began.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let (passed, behind) = (self.passed as f64, self.behind as f64);
        let rate = if seconds > 0.0 { passed / seconds } else { 0.0 };
        let remaining = Duration::try_from_secs_f64(behind / rate).ok();
        CatchUp { position: self.position, behind: self.behind, rate, remaining }
    }
}
