//! The state of an entity in the past: at one point, after each event, after the first event that made a
//! condition true.

use std::iter::FusedIterator;
use std::ops::Deref;
use std::sync::Arc;
use std::time::SystemTime;

use super::projection::{Loaded, Projection, fold, shape};
use crate::event::{Meta, RecordedEvent};
use crate::read::{Read, Snapshot};
use crate::store::{Folded, Reached, Store};
use crate::types::{Error, EventId, Position, Version};

/// A point in the past of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum At {
    /// After this many events of the entity.
    Version(Version),
    /// After all events up to this position.
    Position(Position),
    /// After all events that were recorded up to this time. A time in the future means now.
    Time(SystemTime),
    /// Right after this event, which may be of another entity.
    Event(EventId),
}

impl Store {
    /// Loads the state that an entity had at a point in the past.
    ///
    /// The fold starts at a cached or saved state from before that point, or else at the first event.
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
    /// use annals::{At, Version};
    ///
    /// let store = Store::in_memory()?;
    /// for cents in [500, 700, 900] {
    ///     store.append("account:alice", &Deposited { cents })?;
    /// }
    /// let before = store.load_at::<Account>("account:alice", At::Version(Version::from(2)))?;
    /// assert_eq!(before.cents, 1200);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of [`Store::load`]; [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the store does not
    /// hold the version, the position or the event.
    pub fn load_at<P: Projection>(&self, entity: impl AsRef<str>, at: At) -> Result<Loaded<P>, Error> {
        let entity = entity.as_ref();
        let snapshot = self.engine().snapshot()?;
        let target = self.version_at(&snapshot, entity, at)?;
        let mut folded: Folded<Arc<P>> = self.kept_up_to(&snapshot, entity, target).unwrap_or_default();
        if folded.reached.version < target {
            let state = Arc::make_mut(&mut folded.state);
            let versions = folded.reached.version.get() + 1..=target.get();
            for event in self.stream(entity).versions(versions) {
                let event = event?;
                fold(state, &event)?;
                folded.reached = Reached::at(&event);
            }
        }
        Ok(folded.into())
    }

    /// Iterates over the states of an entity: one after each of its events, oldest first, with the event.
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
    /// for cents in [500, 700, 900] {
    ///     store.append("account:alice", &Deposited { cents })?;
    /// }
    /// let cents: Vec<u64> = store
    ///     .history::<Account>("account:alice")
    ///     .map(|moment| Ok(moment?.cents))
    ///     .collect::<Result<_, annals::Error>>()?;
    /// assert_eq!(cents, [500, 1200, 2100]);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Panics
    ///
    /// The iterator panics if the projection's code panics.
    pub fn history<P: Projection>(&self, entity: impl AsRef<str>) -> History<P> {
        History { read: self.stream(entity.as_ref()), state: Arc::default(), has_ended: false }
    }

    /// Finds the first event of an entity after which `holds` is true of its state, and returns both; `None`
    /// if there is none.
    ///
    /// It folds from the first event and asks after each one, so the condition may become false again later.
    /// The cost is that of folding the events up to the one found.
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
    /// for cents in [500, 700, 900] {
    ///     store.append("account:alice", &Deposited { cents })?;
    /// }
    /// let rich = store.bisect::<Account>("account:alice", |account| account.cents >= 1000)?;
    /// assert_eq!(rich.unwrap().version().get(), 2);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of [`Store::load`].
    pub fn bisect<P: Projection>(
        &self,
        entity: impl AsRef<str>,
        mut holds: impl FnMut(&P) -> bool,
    ) -> Result<Option<StateAt<P>>, Error> {
        for moment in self.history::<P>(entity) {
            let moment = moment?;
            if holds(&moment) {
                return Ok(Some(moment));
            }
        }
        Ok(None)
    }

    /// The version that the entity's stream had at a point.
    fn version_at(&self, snapshot: &Snapshot, entity: &str, at: At) -> Result<Version, Error> {
        let at_position = |position| Ok(snapshot.stream_head_at(entity, position)?.0);
        match at {
            At::Version(version) => {
                let (newest, _) = snapshot.stream_head(entity)?;
                if version > newest {
                    let text = format!("{entity} is at version {newest}, and has no version {version} yet");
                    return Err(Error::invalid(text));
                }
                Ok(version)
            }
            At::Position(position) => {
                let head = snapshot.head.position;
                if position > head {
                    let text = format!("the store is at position {head}, not at {position} yet");
                    return Err(Error::invalid(text));
                }
                at_position(position)
            }
            At::Time(time) => {
                let last = self.stream(entity).between(..=time).backwards().limit(1).next();
                last.map_or(Ok(Version::EMPTY), |event| Ok(event?.version()))
            }
            At::Event(id) => match self.get(id)? {
                Some(event) => at_position(event.position().min(snapshot.head.position)),
                None => Err(Error::invalid(format!("there is no event {id}"))),
            },
        }
    }

    /// A state from memory or from the file that is not newer than `target`.
    fn kept_up_to<P: Projection>(
        &self,
        snapshot: &Snapshot,
        entity: &str,
        target: Version,
    ) -> Option<Folded<Arc<P>>> {
        let shape = shape::<P>();
        let known = self.cache().memory().look(shape.of, entity).and_then(|known| known.folded.typed());
        let is_early = |folded: &Folded<Arc<P>>| folded.reached.version <= target;
        known.filter(is_early).or_else(|| self.saved(&shape, entity, snapshot).filter(is_early))
    }
}

/// The states of an entity, one after each of its events; see [`Store::history`].
///
/// An error is the last item.
#[must_use = "a history does nothing until it is iterated"]
pub struct History<P> {
    read: Read,
    state: Arc<P>,
    has_ended: bool,
}

impl<P: Projection> Iterator for History<P> {
    type Item = Result<StateAt<P>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        // Set before user code runs: after a panic in it, the next call must not hand out a half-folded state.
        self.has_ended = true;
        let event = match self.read.next()? {
            Ok(event) => event,
            Err(error) => return Some(Err(error)),
        };
        if let Err(error) = fold(Arc::make_mut(&mut self.state), &event) {
            return Some(Err(error));
        }
        self.has_ended = false;
        Some(Ok(StateAt { state: self.state.clone(), event }))
    }
}

impl<P: Projection> FusedIterator for History<P> {}

/// The state right after an event, and the event.
///
/// It shares the state with the [`History`] it comes from. The next step of the iterator copies the state if
/// this value still exists.
#[derive(Clone, Debug)]
pub struct StateAt<P> {
    state: Arc<P>,
    event: RecordedEvent,
}

impl<P> StateAt<P> {
    /// The state after the event.
    #[must_use]
    pub fn state(&self) -> &Arc<P> {
        &self.state
    }

    /// The event.
    #[must_use]
    pub fn event(&self) -> &RecordedEvent {
        &self.event
    }

    /// The event without its payload.
    #[must_use]
    pub fn meta(&self) -> Meta<'_> {
        Meta::of(&self.event)
    }

    /// The version of the event, and so of the state.
    #[must_use]
    pub fn version(&self) -> Version {
        self.event.version()
    }
}

impl<P> Deref for StateAt<P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.state
    }
}
