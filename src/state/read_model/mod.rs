//! Read models: the state of all events that match a query, kept up to date by a thread of its own.
//!
//! The thread (`runner.rs`) folds a state that no other thread sees, and publishes it from time to time. A
//! caller gets the state that was published last, and waits for no fold. The thread follows the log, never
//! notifications. Each save holds state and position together.
//! Invariant: the state shown was folded from exactly the matching events up to its position.

mod runner;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::projection::{Loaded, Projection, shape};
use crate::read::event_at;
use crate::store::{Folded, StateKey, Store};
use crate::threads::WorkerThread;
use crate::types::{Error, Position, Query};
use runner::{FoldProgress, FoldingState, ModelRunner, ModelView, Phase, SharedModel, decoded, digest_of};

/// The state of all events that match a query, kept up to date; see [`Store::project`].
///
/// Dropping it ends its thread after the event that the thread is folding. Closing the store does the same.
#[must_use = "a read model ends when it is dropped"]
pub struct ReadModel<P> {
    shared: Arc<SharedModel<P>>,
}

/// The status of a read model; see [`ReadModel::status`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReadModelStatus {
    /// The state shown holds all matching events up to the head.
    Idle,
    /// It folds the events that were there when it began, and shows the state so far.
    CatchingUp(CatchUp),
    /// It folds all events anew, and shows the state from before until it is done. The reason is a new
    /// [`REVISION`](Projection::REVISION), a new query, or [`ReadModel::rebuild`].
    Rebuilding(CatchUp),
    /// It had caught up once, and is behind the head again.
    Lagging {
        /// How many positions the head is ahead. Not all of their events need match the query.
        behind: u64,
    },
    /// It stopped at an event that it could not fold or read, and still shows the state from before. Fix the
    /// cause, then call [`ReadModel::rebuild`], or drop it and project again.
    Failed {
        /// The position of the event; if reading failed, the last position that was read.
        position: Position,
        /// The error.
        error: Error,
    },
    /// The caller stopped it.
    Stopped,
    /// The store was closed.
    Closed,
}

/// The progress of a read model that catches up.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct CatchUp {
    /// All matching events up to this position were folded.
    pub position: Position,
    /// How many positions the head is ahead. Not all of their events need match the query.
    pub behind: u64,
    /// Positions passed per second since it began.
    pub rate: f64,
    /// The time until it has caught up at this rate; `None` before the rate is known.
    pub remaining: Option<Duration>,
}

impl Store {
    /// Starts a read model: a thread that keeps the state of all events that match a query.
    ///
    /// It begins with the state that was saved under the projection's name, folds the events after it, and
    /// then folds events as they come. A store runs one read model of a name at a time. A projection must
    /// have no effects besides its state, because a restart may fold an event again.
    ///
    /// **Saving.** State and position are saved together, so after a restart each event is in the state
    /// exactly once. A save happens at most once a second, and less often if encoding takes more than a
    /// twentieth of the time. It never holds an event that is not durable yet. A store opened to read saves
    /// nothing.
    ///
    /// **Showing.** The state is one value in memory. It is copied to be shown, if a caller still holds the
    /// one shown before. While there are more events to fold, copying takes at most a tenth of the time.
    ///
    /// **Rebuilding.** The read model folds all events anew if the saved state was of another
    /// [`REVISION`](Projection::REVISION) or another query. It shows the saved state until then, if that
    /// still decodes. A changed shape of the state is as if nothing were saved. A restart continues a
    /// rebuild, but forgets a [`rebuild()`](ReadModel::rebuild) of the same revision and query. A read model
    /// also folds anew when the store's history changes.
    ///
    /// Closing the store waits at most 1 s for an event that is being folded.
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
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if a read model of this name runs already;
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) if the store is closed;
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the operating system starts no thread.
    pub fn project<P: Projection>(&self, query: Query) -> Result<ReadModel<P>, Error> {
        let digest = digest_of::<P>(&query)?;
        let (shown, work) = self.beginning::<P>(&digest)?;
        let view = ModelView {
            // Of a state that is rebuilt nothing is shown yet.
            cursor: if work.is_beside { Position::START } else { shown.reached.position },
            shown,
            phase: if work.is_beside { Phase::Rebuilding } else { Phase::CatchingUp },
            progress: FoldProgress::from(work.folded.reached.position, 0),
            waiting: 0,
            has_ended: false,
        };
        let shared = Arc::new(SharedModel {
            view: Mutex::new(view),
            changed: Condvar::new(),
            requests: Mutex::default(),
            thread: WorkerThread::new("annals-project"),
        });
        let own = shared.clone();
        let lease = self.cache().claim(P::NAME, Arc::new(move || own.close()))?;
        let runner = ModelRunner::new(shared.clone(), lease, self.downgrade(), query, digest, work);
        let started = shared.thread.start(move || runner.run());
        started.map_err(|error| Error::io("cannot start", "a thread for a projection", error))?;
        Ok(ReadModel { shared })
    }

    /// The state to show first, and the state to fold on.
    fn beginning<P: Projection>(
        &self,
        digest: &[u8; 32],
    ) -> Result<(Folded<Arc<P>>, FoldingState<P>), Error> {
        let history = self.engine().snapshot()?.history;
        self.cache().keep_up(history);
        let live = self.saved_under::<P>("live")?;
        if let Some((folded, _)) = live.clone().filter(|(_, own)| own == digest) {
            let work = FoldingState { folded: folded.clone(), is_beside: false, history };
            return Ok((folded, work));
        }
        let next = self.saved_under::<P>("next")?.filter(|(_, own)| own == digest);
        let folded = next.map(|(folded, _)| folded).unwrap_or_default();
        let is_beside = live.is_some();
        let shown = live.map(|(folded, _)| folded).unwrap_or_default();
        Ok((shown, FoldingState { folded, is_beside, history }))
    }

    /// The saved state of a role, and the digest of revision and query it was folded by. A state counts only
    /// if the log still holds its last event, and if it decodes.
    fn saved_under<P: Projection>(&self, role: &str) -> Result<Option<SavedModel<P>>, Error> {
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

/// A saved state, and the digest of the revision and query that it was folded by.
type SavedModel<P> = (Folded<Arc<P>>, [u8; 32]);

impl<P: Projection> ReadModel<P> {
    /// Returns the state that was shown last, without waiting.
    ///
    /// [`Loaded::version`] is the number of events that it was folded from, and [`Loaded::position`] the
    /// position of the last of them. To see an event that was just appended, call [`ReadModel::wait_for`]
    /// first.
    #[must_use]
    pub fn state(&self) -> Loaded<P> {
        self.shared.view.lock().shown.clone().into()
    }

    /// The status just now.
    #[must_use]
    pub fn status(&self) -> ReadModelStatus {
        let view = self.shared.view.lock();
        match &view.phase {
            Phase::CatchingUp => ReadModelStatus::CatchingUp(CatchUp::from(view.progress)),
            Phase::Rebuilding => ReadModelStatus::Rebuilding(CatchUp::from(view.progress)),
            Phase::Following if view.progress.behind == 0 => ReadModelStatus::Idle,
            Phase::Following => ReadModelStatus::Lagging { behind: view.progress.behind },
            Phase::Failed(position, error) => {
                ReadModelStatus::Failed { position: *position, error: error.clone() }
            }
            Phase::Stopped => ReadModelStatus::Stopped,
            Phase::Closed => ReadModelStatus::Closed,
        }
    }

    /// Waits until the state shown holds all matching events up to `position`; `false` if it does not after
    /// `timeout`. During a rebuild the caller waits for the new state.
    ///
    /// # Errors
    ///
    /// The error at which the read model stopped; [`ErrorKind::Closed`](crate::ErrorKind::Closed) if the
    /// caller stopped it, or closed the store.
    pub fn wait_for(&self, position: Position, timeout: Duration) -> Result<bool, Error> {
        let deadline = Instant::now().checked_add(timeout);
        let mut view = self.shared.view.lock();
        // Counted before the thread wakes: it shows a half-done catch-up only while a caller waits.
        view.waiting += 1;
        self.shared.thread.signal().notify();
        let outcome = loop {
            if view.cursor >= position {
                break Ok(true);
            }
            if let Some(error) = view.phase.error() {
                break Err(error);
            }
            match deadline {
                None => self.shared.changed.wait(&mut view),
                Some(deadline) if self.shared.changed.wait_until(&mut view, deadline).timed_out() => {
                    break Ok(view.cursor >= position);
                }
                Some(_) => {}
            }
        };
        view.waiting -= 1;
        outcome
    }

    /// Folds all events anew from the first one. The state shown stays as it is until the new state takes its
    /// place. A read model that failed tries again.
    ///
    /// The call returns at once; [`ReadModel::status`] has the progress.
    pub fn rebuild(&self) {
        self.shared.request(|requests| requests.rebuild = true);
    }

    /// Saves the state, ends the thread, and returns the last state.
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
        let position = self.shared.view.lock().cursor;
        f.debug_struct("ReadModel").field("position", &position.get()).finish_non_exhaustive()
    }
}

impl CatchUp {
    fn from(progress: FoldProgress) -> CatchUp {
        let FoldProgress { began, passed, position, behind } = progress;
        let seconds = began.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let rate = if seconds > 0.0 { passed as f64 / seconds } else { 0.0 };
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let remaining = Duration::try_from_secs_f64(behind as f64 / rate).ok();
        CatchUp { position, behind, rate, remaining }
    }
}
