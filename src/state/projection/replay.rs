//! Whether folding again gives the same: twice from the first event, and against what is kept.
//!
//! Row: app.

use std::fmt;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::diff::Diff;
use super::load::shape;
use super::tree::Tree;
use super::{Projection, fold, panicked};
use crate::event::{DomainEvent, RecordedEvent};
use crate::read::Listing;
use crate::store::{Folded, Store};
use crate::types::{Error, ErrorKind, EventId, Position, Version, counted, to_u64, visible};

/// Progress is told after so many events.
const TELL_EVERY: u64 = 4096;

impl Store {
    /// Checks that a projection does what it must: the same events give the same state, whenever they are folded.
    ///
    /// Each entity is folded twice from its first event. Both states are compared, and with what is kept in memory and in the file:
    /// if a kept state is another one, the projection's code changed without its [`REVISION`](Projection::REVISION), or it does not depend on its events
    /// alone. Run it in a test over a copy of real data, or now and then by night.
    ///
    /// States are compared as serde shows them; in which order a `HashMap` gives its entries makes no difference, but that of a `HashSet`
    /// does: take a `BTreeSet`.
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
        ReplayCheck { store: self.clone(), asked: Asked::All, tell: None, projection: PhantomData }
    }
}

/// Folding again, and comparing; see [`Store::replay_check`].
#[must_use = "a check does nothing until it is run"]
pub struct ReplayCheck<P> {
    store: Store,
    asked: Asked,
    tell: Option<Tell>,
    projection: PhantomData<fn() -> P>,
}

type Tell = Box<dyn FnMut(&ReplayProgress) -> ControlFlow<()>>;

enum Asked {
    All,
    Prefix(String),
    Entity(String),
}

/// How far a check is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayProgress {
    /// Entities that are through.
    pub entities: u64,
    /// Events folded, each counted once.
    pub events: u64,
    /// Events there are of the entities that were asked for.
    pub events_total: u64,
    /// Since it began.
    pub elapsed: Duration,
}

impl ReplayProgress {
    /// How long the rest takes if it goes on like this; `None` before anything was folded.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let rest = self.events_total.saturating_sub(self.events);
        let nanos = self.elapsed.as_nanos().checked_mul(rest.into())?.checked_div(self.events.into())?;
        u64::try_from(nanos).ok().map(Duration::from_nanos)
    }
}

/// What a check found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ReplayReport {
    /// Entities that were folded.
    pub entities: u64,
    /// Events that were folded, each counted once.
    pub events: u64,
    /// Kept states that were compared.
    pub kept: u64,
    /// Entities left out, because the projection does not know the kind of their first event.
    pub skipped: u64,
    /// Where states part, in the order of the entities' names; one for each entity.
    pub departures: Vec<Divergence>,
}

/// Where the states of an entity part.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Divergence {
    /// The entity.
    pub entity: String,
    /// The first event after which the states were seen to be different.
    pub event: EventId,
    /// Its version.
    pub version: Version,
    /// Its position.
    pub position: Position,
    /// What parted from what.
    pub parted: DivergenceKind,
    /// From the state as it was first, to the one folded now.
    pub diff: Diff,
}

/// What parted from what.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DivergenceKind {
    /// Two folds of the same events: the projection depends on something else.
    Folds,
    /// The state that was in memory, and one folded now.
    Memory,
    /// The state that was in the file, and one folded now.
    File,
    /// The event could not be folded.
    Failed(Error),
}

impl<P: Projection> ReplayCheck<P> {
    /// Only this entity (default: all).
    pub fn entity(mut self, entity: impl Into<String>) -> ReplayCheck<P> {
        self.asked = Asked::Entity(entity.into());
        self
    }

    /// Only entities whose name begins so.
    pub fn entity_prefix(mut self, prefix: impl Into<String>) -> ReplayCheck<P> {
        self.asked = Asked::Prefix(prefix.into());
        self
    }

    /// Tells how far it is, after each entity and every few thousand events; what it returns says whether to go on.
    pub fn on_progress(
        mut self,
        tell: impl FnMut(&ReplayProgress) -> ControlFlow<()> + 'static,
    ) -> ReplayCheck<P> {
        self.tell = Some(Box::new(tell));
        self
    }

    /// Runs it.
    ///
    /// # Errors
    ///
    /// Those of reading; [`ErrorKind::Cancelled`] if it was broken off. That states part is not an error but in the report.
    pub fn run(mut self) -> Result<ReplayReport, Error> {
        let mut run =
            Run { report: ReplayReport::default(), total: 0, began: Instant::now(), tell: self.tell.take() };
        if let Asked::Entity(entity) = &self.asked {
            run.total = self.store.version(entity)?.get();
            run.check::<P>(&self.store, entity)?;
            return Ok(run.report);
        }
        for listed in self.listing() {
            run.total += listed?.events;
        }
        for listed in self.listing() {
            run.check::<P>(&self.store, &listed?.name)?;
        }
        Ok(run.report)
    }

    fn listing(&self) -> Listing {
        match &self.asked {
            Asked::Prefix(prefix) => self.store.entities().prefix(prefix),
            _ => self.store.entities(),
        }
    }
}

struct Run {
    report: ReplayReport,
    total: u64,
    began: Instant,
    tell: Option<Tell>,
}

/// How folding an entity went.
enum Outcome {
    Same,
    /// It is not of this projection.
    Skipped,
    Departed(Divergence),
}

impl Run {
    fn check<P: Projection>(&mut self, store: &Store, entity: &str) -> Result<(), Error> {
        match self.compare::<P>(store, entity)? {
            Outcome::Skipped => self.report.skipped += 1,
            Outcome::Same => self.report.entities += 1,
            Outcome::Departed(departure) => {
                self.report.entities += 1;
                self.report.departures.push(departure);
            }
        }
        self.tell()
    }

    fn compare<P: Projection>(&mut self, store: &Store, entity: &str) -> Result<Outcome, Error> {
        let mut kept = kept::<P>(store, entity)?;
        // What comes meanwhile is for the next check.
        let version = store.version(entity)?;
        kept.retain(|(_, folded)| folded.reached.version <= version);
        self.report.kept += to_u64(kept.len());
        let mut once = P::default();
        let mut last = None;
        for event in store.stream(entity).versions(..=version.get()) {
            let event = event?;
            if event.version().get() == 1 && !P::Event::knows(event.kind()) && knows_not(&once, &event) {
                return Ok(Outcome::Skipped);
            }
            if let Err(error) = folded(&mut once, &event) {
                return Ok(Outcome::Departed(Divergence::at(
                    &event,
                    DivergenceKind::Failed(error),
                    Diff::default(),
                )));
            }
            for (source, kept) in kept.extract_if(.., |(_, kept)| kept.reached.version == event.version()) {
                let diff = Diff::of(&Tree::of(kept.state.as_ref())?, &Tree::of(&once)?);
                if !diff.is_empty() {
                    return Ok(Outcome::Departed(Divergence::at(&event, source, diff)));
                }
            }
            last = Some(event);
            self.count()?;
        }
        let Some(last) = last else { return Ok(Outcome::Same) };
        let twice = match refolded::<P>(store, entity, version)? {
            Ok(twice) => Tree::of(&twice)?,
            Err(departure) => return Ok(Outcome::Departed(*departure)),
        };
        let diff = Diff::of(&Tree::of(&once)?, &twice);
        if diff.is_empty() {
            return Ok(Outcome::Same);
        }
        let first = first_departure::<P>(store, entity, version)?;
        Ok(Outcome::Departed(first.unwrap_or_else(|| Divergence::at(&last, DivergenceKind::Folds, diff))))
    }

    fn count(&mut self) -> Result<(), Error> {
        self.report.events += 1;
        if self.report.events.is_multiple_of(TELL_EVERY) { self.tell() } else { Ok(()) }
    }

    fn tell(&mut self) -> Result<(), Error> {
        let Some(tell) = &mut self.tell else { return Ok(()) };
        let progress = ReplayProgress {
            entities: self.report.entities + self.report.skipped,
            events: self.report.events,
            events_total: self.total,
            elapsed: self.began.elapsed(),
        };
        match tell(&progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                Err(Error::new(ErrorKind::Cancelled, "the replay check was broken off, as asked"))
            }
        }
    }
}

/// Where a state is kept, and the state.
type Kept<P> = (DivergenceKind, Folded<Arc<P>>);

/// The states that are kept of an entity, and where.
fn kept<P: Projection>(store: &Store, entity: &str) -> Result<Vec<Kept<P>>, Error> {
    let (shape, snapshot) = (shape::<P>(), store.engine().snapshot()?);
    store.cache().keep_up(snapshot.history);
    let memory = store.cache().memory().look(shape.of, entity).and_then(|known| known.folded.typed());
    let file = store.saved(&shape, entity, &snapshot);
    let kept = [(DivergenceKind::Memory, memory), (DivergenceKind::File, file)];
    Ok(kept.into_iter().filter_map(|(source, folded)| Some((source, folded?))).collect())
}

/// Folds an event; a panic of the projection is an error here.
fn folded<P: Projection>(state: &mut P, event: &RecordedEvent) -> Result<(), Error> {
    let folded = catch_unwind(AssertUnwindSafe(|| fold(state, event)));
    folded.unwrap_or_else(|panic| Err(panicked::<P>(event, panic.as_ref())))
}

/// Whether the projection refuses an event whose kind it does not know.
fn knows_not<P: Projection>(state: &P, event: &RecordedEvent) -> bool {
    folded(&mut state.clone(), event).is_err()
}

/// The state, folded once more; or where that failed, which it did not before.
fn refolded<P: Projection>(
    store: &Store,
    entity: &str,
    version: Version,
) -> Result<Result<P, Box<Divergence>>, Error> {
    let mut state = P::default();
    for event in store.stream(entity).versions(..=version.get()) {
        let event = event?;
        if let Err(error) = folded(&mut state, &event) {
            return Ok(Err(Box::new(Divergence::at(&event, DivergenceKind::Failed(error), Diff::default()))));
        }
    }
    Ok(Ok(state))
}

/// Folds twice side by side, and stops where the states part, if they do so again.
fn first_departure<P: Projection>(
    store: &Store,
    entity: &str,
    version: Version,
) -> Result<Option<Divergence>, Error> {
    let (mut one, mut other) = (P::default(), P::default());
    for event in store.stream(entity).versions(..=version.get()) {
        let event = event?;
        if let Err(error) = folded(&mut one, &event).and_then(|()| folded(&mut other, &event)) {
            return Ok(Some(Divergence::at(&event, DivergenceKind::Failed(error), Diff::default())));
        }
        let diff = Diff::of(&Tree::of(&one)?, &Tree::of(&other)?);
        if !diff.is_empty() {
            return Ok(Some(Divergence::at(&event, DivergenceKind::Folds, diff)));
        }
    }
    Ok(None)
}

impl Divergence {
    fn at(event: &RecordedEvent, parted: DivergenceKind, diff: Diff) -> Divergence {
        Divergence {
            entity: event.entity().to_owned(),
            event: event.id(),
            version: event.version(),
            position: event.position(),
            parted,
            diff,
        }
    }
}

impl ReplayReport {
    /// Whether no states parted.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.departures.is_empty()
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
        self.departures.iter().try_for_each(|departure| write!(f, "\n{departure}"))
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Divergence { entity, version, position, diff, .. } = self;
        write!(f, "{} at version {version}, position {position}: ", visible(entity))?;
        match &self.parted {
            DivergenceKind::Folds => write!(f, "two folds give two states: {diff}"),
            DivergenceKind::Memory => write!(f, "the state in memory is another one: {diff}"),
            DivergenceKind::File => write!(f, "the state in the file is another one: {diff}"),
            DivergenceKind::Failed(error) => write!(f, "{error}"),
        }
    }
}
