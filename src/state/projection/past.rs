//! The state as it was: at some point, after each event, after the first event that made something so.
//!
//! Row: app.

use std::iter::FusedIterator;
use std::ops::Deref;
use std::sync::Arc;
use std::time::SystemTime;

use super::load::shape;
use super::{Loaded, Projection, fold};
use crate::event::{Meta, RecordedEvent};
use crate::read::{Read, Snapshot};
use crate::store::{Folded, Store};
use crate::types::{Error, EventId, Position, Version};

/// A point in the past of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum At {
    /// After so many events of the entity.
    Version(Version),
    /// As it was when the store stood at this position.
    Position(Position),
    /// After everything recorded up to then. A time to come is now.
    Time(SystemTime),
    /// As it was right after this event, of this entity or of any other.
    Event(EventId),
}

impl Store {
    /// The state of an entity as it was.
    ///
    /// It begins at a state that is kept from before that point, if there is one, and else at the first event.
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
    /// As [`Store::load`]; [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the version, the position or the event is not there (yet).
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
                folded.reached = crate::store::Reached::at(&event);
            }
        }
        Ok(folded.into())
    }

    /// The state of an entity after each of its events, oldest first, with the event.
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
    /// While it is iterated, if the projection's own code does.
    pub fn history<P: Projection>(&self, entity: impl AsRef<str>) -> History<P> {
        History { read: self.stream(entity.as_ref()), state: Arc::default(), has_ended: false }
    }

    /// The first event of an entity after which something holds of its state, and that state; `None` if it never does.
    ///
    /// Folds once from the first event and asks after each, so it need not stay so once it holds. Costs the events up to that one.
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
    /// As [`Store::load`].
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

    /// The version an entity's stream had.
    fn version_at(&self, snapshot: &Snapshot, entity: &str, at: At) -> Result<Version, Error> {
        let at_position = |position| Ok(snapshot.stream_head_at(entity, position)?.0);
        match at {
            At::Version(version) => {
                let (newest, _) = snapshot.stream_head(entity)?;
                let missing = || {
                    Error::invalid(format!(
                        "{entity} is at version {newest}, and has no version {version} yet"
                    ))
                };
                if version <= newest { Ok(version) } else { Err(missing()) }
            }
            At::Position(position) => {
                let head = snapshot.head.position;
                let missing =
                    || Error::invalid(format!("the store is at position {head}, not at {position} yet"));
                if position <= head { at_position(position) } else { Err(missing()) }
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

    /// A state that is kept, if it is not newer than asked for.
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
/// An error comes as an item, and is the last.
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
        // Until there is a state to be handed out: a panic in user code must not be followed by half a state.
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

/// A state right after an event, and the event.
///
/// It shares the state with the [`History`] it comes from: kept while that goes on, it is copied.
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

    /// What is known of the event besides its payload.
    #[must_use]
    pub fn meta(&self) -> Meta<'_> {
        Meta::of(&self.event)
    }

    /// The event's version, and so the state's.
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
