//! The state of an entity: what is known of it, and the events that came since.
//!
//! Row: app.

use std::any::{Any, TypeId};
use std::sync::Arc;
use std::time::Duration;

use super::{Loaded, Projection, fold, saved};
use crate::read::{Snapshot, event_at};
use crate::store::{AnyState, Folded, KnownState, Reached, Reservation, Reserve, Shape, StateOrigin, Store};
use crate::types::{Error, options};

/// How new a loaded state must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Freshness {
    /// It knows every event that can be read when it is asked for. The default.
    #[default]
    Consistent,
    /// It knew every event at some time within this long ago, by the store's clock
    /// ([`Builder::clock`](crate::Builder::clock)), as far as it is in memory; else it is loaded. Saves
    /// looking whether there are new events: about 0.1 us, and in a store opened to read a look at its
    /// writer.
    MaxStale(Duration),
}

impl Store {
    /// The state of an entity: what was folded before, and the events since.
    ///
    /// States used recently are kept in memory. One that has not changed costs a look, one with a new event that event; see SPEC.md 1.14
    /// for what is kept where. A store closed and opened again finds what was saved in `cache/`, and reads only
    /// the events since.
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
    /// store.append("account:alice", &Deposited { cents: 700 })?;
    /// let alice = store.load::<Account>("account:alice")?;
    /// assert_eq!((alice.cents, alice.version().get()), (1200, 2));
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of reading, and whatever keeps an event from being folded: one that does not decode, a kind that the projection
    /// does not know. [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if another projection has the same name.
    ///
    /// # Panics
    ///
    /// If the projection's own code does; nothing half folded is kept.
    pub fn load<P: Projection>(&self, entity: impl AsRef<str>) -> Result<Loaded<P>, Error> {
        self.load_with(entity, Freshness::Consistent)
    }

    /// The state of an entity, as new as asked for.
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
    /// use annals::Freshness;
    /// use std::time::Duration;
    ///
    /// let store = Store::in_memory()?;
    /// store.append("account:alice", &Deposited { cents: 500 })?;
    /// store.load::<Account>("account:alice")?;
    /// store.append("account:alice", &Deposited { cents: 700 })?;
    /// // Good enough for a screen that is drawn ten times a second.
    /// let stale = Freshness::MaxStale(Duration::from_secs(60));
    /// assert_eq!(store.load_with::<Account>("account:alice", stale)?.cents, 500);
    /// assert_eq!(store.load_with::<Account>("account:alice", Freshness::Consistent)?.cents, 1200);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Store::load`].
    pub fn load_with<P: Projection>(
        &self,
        entity: impl AsRef<str>,
        freshness: Freshness,
    ) -> Result<Loaded<P>, Error> {
        let entity = entity.as_ref();
        let (shape, memory) = (shape::<P>(), self.cache().memory());
        let known = memory.look(shape.of, entity);
        if let (Freshness::MaxStale(most), Some(KnownState { folded, looked_at, .. })) = (freshness, &known)
            && self.is_fresh(*looked_at, most)
        {
            self.engine().check_open()?;
            self.cache().count(StateOrigin::Memory);
            return Ok(loaded(folded.clone()));
        }
        let snapshot = self.engine().snapshot()?;
        self.cache().keep_up(snapshot.history);
        let known = known.filter(|known| known.history == snapshot.history);
        if let Some(known) = known
            && is_current(&known, entity, &snapshot)?
        {
            memory.confirm(shape.of, entity, &known.folded.reached, snapshot.head.position);
            self.cache().count(StateOrigin::Memory);
            return Ok(loaded(known.folded));
        }
        match memory.reserve(shape, entity)? {
            Reserve::Granted(reservation, found) => self.load_into(reservation, found, entity, &snapshot),
            Reserve::Busy => {
                let saved = self.saved(&shape, entity, &snapshot);
                self.cache().count(if saved.is_some() { StateOrigin::File } else { StateOrigin::Log });
                self.fold_from(saved, entity, &snapshot).map(Loaded::from)
            }
        }
    }

    /// Whether a state that was looked at then is no older than asked for. One that was looked at later than
    /// now, by a clock that was set back since, is of no known age.
    fn is_fresh(&self, looked_at: u64, most: Duration) -> bool {
        let age = options::read(&self.engine().options.clock).checked_sub(looked_at);
        !most.is_zero() && age.is_some_and(|age| Duration::from_micros(age) <= most)
    }

    fn load_into<P: Projection>(
        &self,
        mut reservation: Reservation<'_>,
        found: Option<Folded<AnyState>>,
        entity: &str,
        snapshot: &Snapshot,
    ) -> Result<Loaded<P>, Error> {
        let (from, source) = match found.and_then(Folded::typed) {
            Some(found) => (Some(found), StateOrigin::Memory),
            None => match self.saved(&shape::<P>(), entity, snapshot) {
                Some(saved) => {
                    reservation.was_saved_at(saved.reached.version);
                    (Some(saved), StateOrigin::File)
                }
                None => (None, StateOrigin::Log),
            },
        };
        self.cache().count(source);
        let folded: Folded<Arc<P>> = self.fold_from(from, entity, snapshot)?;
        let erased: Folded<AnyState> = Folded { state: folded.state.clone(), reached: folded.reached };
        self.cache().fill(reservation, erased, snapshot.head.position, snapshot.history);
        Ok(folded.into())
    }

    /// What was saved of an entity, if the log agrees: the state's last event must be there as it was. What
    /// was saved by code of another shape is as if it were not there.
    pub(super) fn saved<P: Projection>(
        &self,
        shape: &Shape,
        entity: &str,
        snapshot: &Snapshot,
    ) -> Option<Folded<Arc<P>>> {
        let (version, _) = snapshot.stream_head(entity).ok()?;
        let Folded { state, reached } = self.cache().saved(shape, entity, version)?;
        let event = event_at(snapshot, reached.position).ok().flatten()?;
        if event.entity() != entity || Reached::at(&event) != reached {
            return None;
        }
        let state = Arc::new(saved::unpack::<P>(&state)?);
        Some(Folded { state, reached })
    }

    /// Folds the events behind a state, or all, up to the version the stream has in the snapshot, or further.
    fn fold_from<P: Projection>(
        &self,
        from: Option<Folded<Arc<P>>>,
        entity: &str,
        snapshot: &Snapshot,
    ) -> Result<Folded<Arc<P>>, Error> {
        let mut folded = from.unwrap_or_default();
        let (version, position) = snapshot.stream_head(entity)?;
        let new = version.get().saturating_sub(folded.reached.version.get());
        if new == 0 {
            return Ok(folded);
        }
        // Copies it, if somebody else looks at it; not if it is only here.
        let state = Arc::make_mut(&mut folded.state);
        // A read plans and looks further: for one event that is half of the time.
        if new == 1
            && let Some(event) = event_at(snapshot, position)?
        {
            fold(state, &event)?;
            folded.reached = Reached::at(&event);
            return Ok(folded);
        }
        let mut last = None;
        for event in self.stream(entity).after(folded.reached.position).limit(new) {
            let event = event?;
            fold(state, &event)?;
            last = Some(event);
        }
        folded.reached = last.map_or(folded.reached, |last| Reached::at(&last));
        Ok(folded)
    }
}

/// Whether no event came since.
fn is_current(known: &KnownState, entity: &str, snapshot: &Snapshot) -> Result<bool, Error> {
    if known.seen >= snapshot.head.position {
        return Ok(true);
    }
    let newest = snapshot.stream_head_since(entity, known.seen)?;
    Ok(newest.is_none_or(|(version, _)| version <= known.folded.reached.version))
}

/// What a projection is to the cache.
pub(super) fn shape<P: Projection>() -> Shape {
    Shape {
        of: TypeId::of::<P>(),
        type_name: std::any::type_name::<P>(),
        name: P::NAME,
        revision: P::REVISION,
        encode: encoded::<P>,
    }
}

fn encoded<P: Projection>(state: &(dyn Any + Send + Sync)) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    saved::pack(state.downcast_ref::<P>()?, &mut bytes)?;
    Some(bytes)
}

fn loaded<P: Projection>(folded: Folded<AnyState>) -> Loaded<P> {
    folded.typed().expect("states are kept by their type").into()
}

impl<P> From<Folded<Arc<P>>> for Loaded<P> {
    fn from(folded: Folded<Arc<P>>) -> Loaded<P> {
        let Reached { version, position, .. } = folded.reached;
        Loaded { state: folded.state, version, position }
    }
}
