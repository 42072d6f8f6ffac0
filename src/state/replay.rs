//! Checks that folding an entity's events again gives the same state.

use std::fmt;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::past::Diff;
use super::projection::{Projection, fold, panicked, shape};
use crate::event::{DomainEvent, RecordedEvent, Value};
use crate::read::Listing;
use crate::store::{Folded, Store};
use crate::types::{Error, ErrorKind, EventId, Position, Version, counted, to_u64, visible};

/// The number of events between two reports of progress.
const EVENTS_PER_REPORT: u64 = 4096;

impl Store {
    /// Checks that a projection gives the same state whenever the same events are folded.
    ///
    /// Each entity is folded twice from its first event. The check compares both states, and compares them
    /// with the states in memory and in the file. A difference means one of two things. Either the
    /// projection's code changed and its [`REVISION`](Projection::REVISION) did not, or the projection
    /// depends on more than its events. Run the check in a test over a copy of real data, or at night on the
    /// store itself.
    ///
    /// States are compared as serde shows them. The order in which a `HashMap` gives its entries does not
    /// matter. The order of a `HashSet` does, so use a `BTreeSet` in states.
    ///
    /// A panic of the projection is reported as [`DivergenceKind::Failed`].
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
    /// let store = Store::in_memory()?;
    /// store.append("account:alice", &Deposited { cents: 500 })?;
    /// let report = store.replay_check::<Account>().run()?;
    /// assert!(report.is_clean(), "{report}");
    /// assert_eq!((report.entities, report.events), (1, 1));
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn replay_check<P: Projection>(&self) -> ReplayCheck<P> {
        ReplayCheck {
            store: self.clone(),
            scope: CheckedEntities::All,
            callback: None,
            projection: PhantomData,
        }
    }
}

/// A check of a projection that can be configured and then run; see [`Store::replay_check`].
#[must_use = "a check does nothing until it is run"]
pub struct ReplayCheck<P> {
    store: Store,
    scope: CheckedEntities,
    callback: Option<ReplayCallback>,
    projection: PhantomData<fn() -> P>,
}

type ReplayCallback = Box<dyn FnMut(&ReplayProgress) -> ControlFlow<()>>;

enum CheckedEntities {
    All,
    Prefix(String),
    One(String),
}

/// The progress of a replay check; see [`ReplayCheck::on_progress`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayProgress {
    /// Entities that are checked.
    pub entities: u64,
    /// Events folded so far, each counted once.
    pub events: u64,
    /// Events of all entities that the check will fold.
    pub events_total: u64,
    /// Time since the check began.
    pub elapsed: Duration,
}

impl ReplayProgress {
    /// The time that the rest takes at the same rate; `None` before the first event was folded.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let rest = self.events_total.saturating_sub(self.events);
        let nanos = self.elapsed.as_nanos().checked_mul(rest.into())?.checked_div(self.events.into())?;
        u64::try_from(nanos).ok().map(Duration::from_nanos)
    }
}

/// The result of a replay check.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ReplayReport {
    /// Entities that were folded.
    pub entities: u64,
    /// Events that were folded, each counted once.
    pub events: u64,
    /// States from memory or the file that were compared.
    pub kept: u64,
    /// Entities that were left out because the projection does not know the kind of their first event.
    pub skipped: u64,
    /// The first divergence of each entity that has one, in the order of the entities' names.
    pub divergences: Vec<Divergence>,
}

/// Two states of an entity that should be the same, and are not.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Divergence {
    /// The entity.
    pub entity: String,
    /// The first event after which the states were different.
    pub event: EventId,
    /// The version of that event.
    pub version: Version,
    /// The position of that event.
    pub position: Position,
    /// Which states were compared.
    pub kind: DivergenceKind,
    /// The difference, from the earlier state to the state that was folded now.
    pub diff: Diff,
}

/// The states that a [`Divergence`] compares.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DivergenceKind {
    /// Two folds of the same events: the projection depends on more than its events.
    Folds,
    /// The state in memory, and the state folded now.
    Memory,
    /// The state in the file, and the state folded now.
    File,
    /// The projection failed or panicked at the event.
    Failed(Error),
}

impl<P: Projection> ReplayCheck<P> {
    /// Checks this entity only (default: all entities).
    pub fn entity(mut self, entity: impl Into<String>) -> ReplayCheck<P> {
        self.scope = CheckedEntities::One(entity.into());
        self
    }

    /// Checks only the entities whose names begin with `prefix`.
    pub fn entity_prefix(mut self, prefix: impl Into<String>) -> ReplayCheck<P> {
        self.scope = CheckedEntities::Prefix(prefix.into());
        self
    }

    /// Calls `callback` after each entity and every 4,096 events. The check ends when `callback` returns
    /// [`ControlFlow::Break`].
    pub fn on_progress(
        mut self,
        callback: impl FnMut(&ReplayProgress) -> ControlFlow<()> + 'static,
    ) -> ReplayCheck<P> {
        self.callback = Some(Box::new(callback));
        self
    }

    /// Runs the check. A divergence is in the report, and is no error.
    ///
    /// # Errors
    ///
    /// The errors of reading; [`ErrorKind::Cancelled`] if the callback ended the check.
    pub fn run(mut self) -> Result<ReplayReport, Error> {
        let mut run = ReplayRun {
            report: ReplayReport::default(),
            events_total: 0,
            began: Instant::now(),
            callback: self.callback.take(),
        };
        if let CheckedEntities::One(entity) = &self.scope {
            run.events_total = self.store.version(entity)?.get();
            run.check::<P>(&self.store, entity)?;
            return Ok(run.report);
        }
        for listed in self.entities() {
            run.events_total += listed?.events;
        }
        for listed in self.entities() {
            run.check::<P>(&self.store, &listed?.name)?;
        }
        Ok(run.report)
    }

    fn entities(&self) -> Listing {
        match &self.scope {
            CheckedEntities::Prefix(prefix) => self.store.entities().prefix(prefix),
            _ => self.store.entities(),
        }
    }
}

/// A check that runs.
struct ReplayRun {
    report: ReplayReport,
    events_total: u64,
    began: Instant,
    callback: Option<ReplayCallback>,
}

/// The result of one entity.
enum EntityCheck {
    Same,
    /// The projection does not know the kind of the first event.
    Skipped,
    Diverged(Divergence),
}

impl ReplayRun {
    fn check<P: Projection>(&mut self, store: &Store, entity: &str) -> Result<(), Error> {
        match self.compare::<P>(store, entity)? {
            EntityCheck::Skipped => self.report.skipped += 1,
            EntityCheck::Same => self.report.entities += 1,
            EntityCheck::Diverged(divergence) => {
                self.report.entities += 1;
                self.report.divergences.push(divergence);
            }
        }
        self.report_progress()
    }

    fn compare<P: Projection>(&mut self, store: &Store, entity: &str) -> Result<EntityCheck, Error> {
        let mut kept = kept_states::<P>(store, entity)?;
        // Read after the kept states: one of them may already hold events that came after this version.
        let version = store.version(entity)?;
        kept.retain(|(_, folded)| folded.reached.version <= version);
        self.report.kept += to_u64(kept.len());
        let mut once = P::default();
        let mut last = None;
        for event in store.stream(entity).versions(..=version.get()) {
            let event = event?;
            if event.version().get() == 1 && !P::Event::knows(event.kind()) && refuses(&once, &event) {
                return Ok(EntityCheck::Skipped);
            }
            if let Err(error) = try_fold(&mut once, &event) {
                return Ok(EntityCheck::Diverged(Divergence::failed(&event, error)));
            }
            for (kind, kept) in kept.extract_if(.., |(_, kept)| kept.reached.version == event.version()) {
                let diff = Diff::of(&Value::of(kept.state.as_ref())?, &Value::of(&once)?);
                if !diff.is_empty() {
                    return Ok(EntityCheck::Diverged(Divergence::at(&event, kind, diff)));
                }
            }
            last = Some(event);
            self.count_event()?;
        }
        let Some(last) = last else { return Ok(EntityCheck::Same) };
        let twice = match fold_again::<P>(store, entity, version)? {
            Ok(twice) => Value::of(&twice)?,
            Err(divergence) => return Ok(EntityCheck::Diverged(*divergence)),
        };
        let diff = Diff::of(&Value::of(&once)?, &twice);
        if diff.is_empty() {
            return Ok(EntityCheck::Same);
        }
        let first = first_divergence::<P>(store, entity, version)?;
        let divergence = first.unwrap_or_else(|| Divergence::at(&last, DivergenceKind::Folds, diff));
        Ok(EntityCheck::Diverged(divergence))
    }

    fn count_event(&mut self) -> Result<(), Error> {
        self.report.events += 1;
        if self.report.events.is_multiple_of(EVENTS_PER_REPORT) {
            self.report_progress()?;
        }
        Ok(())
    }

    fn report_progress(&mut self) -> Result<(), Error> {
        let Some(callback) = &mut self.callback else { return Ok(()) };
        let progress = ReplayProgress {
            entities: self.report.entities + self.report.skipped,
            events: self.report.events,
            events_total: self.events_total,
            elapsed: self.began.elapsed(),
        };
        match callback(&progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                Err(Error::new(ErrorKind::Cancelled, "the caller cancelled the replay check"))
            }
        }
    }
}

/// A state from memory or from the file.
type KeptState<P> = (DivergenceKind, Folded<Arc<P>>);

fn kept_states<P: Projection>(store: &Store, entity: &str) -> Result<Vec<KeptState<P>>, Error> {
    let shape = shape::<P>();
    let snapshot = store.engine().snapshot()?;
    store.cache().keep_up(snapshot.history);
    let memory = store.cache().memory().look(shape.of, entity).and_then(|known| known.folded.typed());
    let file = store.saved(&shape, entity, &snapshot);
    let kept = [(DivergenceKind::Memory, memory), (DivergenceKind::File, file)];
    Ok(kept.into_iter().filter_map(|(kind, folded)| Some((kind, folded?))).collect())
}

/// Folds an event. A panic of the projection is an error here.
fn try_fold<P: Projection>(state: &mut P, event: &RecordedEvent) -> Result<(), Error> {
    let folded = catch_unwind(AssertUnwindSafe(|| fold(state, event)));
    folded.unwrap_or_else(|panic| Err(panicked::<P>(event, panic.as_ref())))
}

/// Whether the projection refuses an event whose kind it does not know.
fn refuses<P: Projection>(state: &P, event: &RecordedEvent) -> bool {
    try_fold(&mut state.clone(), event).is_err()
}

/// Folds an entity a second time. A failure is a divergence, because the first fold did not fail.
fn fold_again<P: Projection>(
    store: &Store,
    entity: &str,
    version: Version,
) -> Result<Result<P, Box<Divergence>>, Error> {
    let mut state = P::default();
    for event in store.stream(entity).versions(..=version.get()) {
        let event = event?;
        if let Err(error) = try_fold(&mut state, &event) {
            return Ok(Err(Box::new(Divergence::failed(&event, error))));
        }
    }
    Ok(Ok(state))
}

/// Folds an entity twice, event by event, and finds the first event after which the states differ. They may
/// not differ this time, if the projection is random.
fn first_divergence<P: Projection>(
    store: &Store,
    entity: &str,
    version: Version,
) -> Result<Option<Divergence>, Error> {
    let mut one = P::default();
    let mut other = P::default();
    for event in store.stream(entity).versions(..=version.get()) {
        let event = event?;
        if let Err(error) = try_fold(&mut one, &event).and_then(|()| try_fold(&mut other, &event)) {
            return Ok(Some(Divergence::failed(&event, error)));
        }
        let diff = Diff::of(&Value::of(&one)?, &Value::of(&other)?);
        if !diff.is_empty() {
            return Ok(Some(Divergence::at(&event, DivergenceKind::Folds, diff)));
        }
    }
    Ok(None)
}

impl Divergence {
    fn at(event: &RecordedEvent, kind: DivergenceKind, diff: Diff) -> Divergence {
        Divergence {
            entity: event.entity().to_owned(),
            event: event.id(),
            version: event.version(),
            position: event.position(),
            kind,
            diff,
        }
    }

    fn failed(event: &RecordedEvent, error: Error) -> Divergence {
        Divergence::at(event, DivergenceKind::Failed(error), Diff::default())
    }
}

impl ReplayReport {
    /// Whether the check found no divergence.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.divergences.is_empty()
    }
}

impl fmt::Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_clean() { "the same" } else { "NOT THE SAME" };
        let ReplayReport { entities, events, kept, skipped, .. } = self;
        write!(
            f,
            "{verdict}: {} of {}, {}, {} left out",
            counted(*events, "event", "events"),
            counted(*entities, "entity", "entities"),
            counted(*kept, "kept state", "kept states"),
            counted(*skipped, "entity", "entities"),
        )?;
        self.divergences.iter().try_for_each(|divergence| write!(f, "\n{divergence}"))
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Divergence { entity, version, position, diff, .. } = self;
        write!(f, "{} at version {version}, position {position}: ", visible(entity))?;
        match &self.kind {
            DivergenceKind::Folds => write!(f, "two folds give two states: {diff}"),
            DivergenceKind::Memory => write!(f, "the state in memory is another one: {diff}"),
            DivergenceKind::File => write!(f, "the state in the file is another one: {diff}"),
            DivergenceKind::Failed(error) => write!(f, "{error}"),
        }
    }
}
