//! Folding events into state.
//!
//! Row: app. Uses nothing a user could not use.

mod diff;
mod load;
mod model;
mod past;
mod replay;
mod saved;
mod tree;

use std::any::Any;
use std::ops::Deref;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::event::{DomainEvent, Meta, RecordedEvent, unknown_kind};
use crate::types::{Error, ErrorKind, Position, Version, text};

pub use diff::{Change, Diff, diff};
pub use load::Freshness;
pub use model::{CatchUp, ReadModel, ReadModelStatus};
pub use past::{At, History, StateAt};
pub use replay::{Divergence, DivergenceKind, ReplayCheck, ReplayProgress, ReplayReport};

/// State that is folded from events.
pub trait Projection: Default + Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The events it folds.
    type Event: DomainEvent;

    /// Its stable name: what its cached states are kept under. Unique among the projections of a store.
    const NAME: &'static str;

    /// To be raised when the same events mean another state of the same shape (default: 1): states that were cached
    /// with another revision are folded anew. Fields that were added, removed, renamed or given another type are
    /// seen without it.
    const REVISION: u32 = 1;

    /// Takes in one event. Must depend on nothing but the state, the event and what is known of it:
    /// no clock, no randomness, no order of a `HashMap`.
    fn apply(&mut self, event: Self::Event, meta: &Meta<'_>);

    /// Takes in that an event's payload was erased (default: nothing).
    fn erased(&mut self, meta: &Meta<'_>) {
        let _ = meta;
    }

    /// Decides about an event whose kind [`Projection::Event`] does not know (default: an error, so that
    /// nothing is passed over by accident).
    ///
    /// # Errors
    ///
    /// Whatever is to end the fold; by default that the kind is not known.
    fn unknown(&mut self, event: &RecordedEvent) -> Result<(), Error> {
        Err(unknown_kind::<Self::Event>(event))
    }
}

/// State as it was folded, and how far.
#[derive(Clone, Debug)]
pub struct Loaded<P> {
    state: Arc<P>,
    version: Version,
    position: Position,
}

impl<P> Loaded<P> {
    pub(crate) fn new(state: P, version: Version, position: Position) -> Loaded<P> {
        Loaded { state: Arc::new(state), version, position }
    }

    /// The version of the entity's stream it stands at; [`Version::EMPTY`] if there are no events.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The position of the last event it was folded from.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The state itself.
    #[must_use]
    pub fn state(&self) -> &Arc<P> {
        &self.state
    }
}

impl<P> Deref for Loaded<P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.state
    }
}

/// Takes one event into a state.
pub(crate) fn fold<P: Projection>(state: &mut P, event: &RecordedEvent) -> Result<(), Error> {
    if !P::Event::knows(event.kind()) {
        return state.unknown(event);
    }
    match P::Event::from_recorded(event) {
        Ok(value) => state.apply(value, &Meta::of(event)),
        Err(error) if error.kind() == ErrorKind::Erased => state.erased(&Meta::of(event)),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// What is told of a projection that panicked.
fn panicked<P: Projection>(event: &RecordedEvent, panic: &(dyn Any + Send)) -> Error {
    let text = text::of_panic(panic).unwrap_or("without a text");
    let (name, kind, position) = (P::NAME, event.kind(), event.position());
    Error::invalid(format!("projection {name} panicked at position {position} ({kind}): {text}"))
}
