//! Projections: how events fold into state, and how a state is loaded and saved.
//!
//! To load a state, the store takes a state that was folded before, and folds the events after it.
//!
//! A saved state carries a fingerprint of all that serde shows of it. Code that has other fields may read old
//! bytes without an error, because serde fills one field in and passes over another. The state it reads then
//! has another fingerprint, and is not used.

use std::any::{Any, TypeId};
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::event::{DomainEvent, Meta, RecordedEvent, codec, unknown_kind};
use crate::read::{Snapshot, event_at};
use crate::store::{AnyState, Folded, KnownState, Reached, Reservation, Reserve, Shape, StateOrigin, Store};
use crate::types::{Error, ErrorKind, Position, Version, options, text};

/// State that is folded from events.
///
/// # What is saved
///
/// annals saves states so that later loads fold fewer events. A state must come back from its encoded form
/// (serde, MessagePack) as it was: a field that serde skips (`#[serde(skip)]`) is lost.
///
/// Each saved state has a fingerprint of everything serde shows. That is the names of fields, also of those
/// left out, the variants, the types of numbers, and the contents. The order of entries in lists and maps
/// does not matter. A saved state whose fingerprint is another one today is folded anew from its first event.
///
/// The fingerprint does not show a new meaning of the same fields, or a field that serde always skips. Nor
/// does it show a change of a type inside empty lists, maps and options. Raise [`Projection::REVISION`] for
/// these.
pub trait Projection: Default + Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The events it folds.
    type Event: DomainEvent;

    /// The stable name under which its states are saved. Each projection of a store needs a name of its own.
    const NAME: &'static str;

    /// The revision of the projection's code (default: 1). Raise it when the same events give another state
    /// of the same shape: states that were saved under another revision are folded anew.
    ///
    /// Fields that were added, removed, renamed or given another type are noticed without it.
    const REVISION: u32 = 1;

    /// Folds one event into the state.
    ///
    /// The result must depend on the state, the event and its `meta` alone. It must not depend on a clock, on
    /// randomness, or on the order of a `HashMap`.
    fn apply(&mut self, event: Self::Event, meta: &Meta<'_>);

    /// Folds an event whose payload was erased (default: the state stays as it is).
    fn erased(&mut self, meta: &Meta<'_>) {
        let _ = meta;
    }

    /// Folds an event whose kind [`Projection::Event`] does not know.
    ///
    /// The default is an error, so that no event is passed over by accident.
    ///
    /// # Errors
    ///
    /// An error ends the fold, and the caller of the load gets it.
    fn unknown(&mut self, event: &RecordedEvent) -> Result<(), Error> {
        Err(unknown_kind::<Self::Event>(event))
    }
}

/// A folded state, and the last event that it was folded from.
#[derive(Clone, Debug)]
pub struct Loaded<P> {
    state: Arc<P>,
    version: Version,
    position: Position,
}

impl<P> Loaded<P> {
    pub(crate) fn new(state: impl Into<Arc<P>>, version: Version, position: Position) -> Loaded<P> {
        Loaded { state: state.into(), version, position }
    }

    /// The version of the entity's stream that the state was folded up to; [`Version::EMPTY`] if the stream
    /// has no events.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The position of the last event that was folded.
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

impl<P> From<Folded<Arc<P>>> for Loaded<P> {
    fn from(folded: Folded<Arc<P>>) -> Loaded<P> {
        let Reached { version, position, .. } = folded.reached;
        Loaded::new(folded.state, version, position)
    }
}

/// How recent a loaded state must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Freshness {
    /// The state holds every event that can be read at the time of the call. The default.
    #[default]
    Consistent,
    /// A state in memory is enough if it was up to date within this duration before the call, by the store's
    /// clock ([`Builder::clock`](crate::Builder::clock)). Otherwise the state is loaded as by
    /// [`Freshness::Consistent`].
    ///
    /// A state that was checked at a later time than the clock shows now, because the clock was set back,
    /// does not count. The saving is the check for new events: about 0.1 us, and in a store opened to read a
    /// look at the writer's files.
    MaxStale(Duration),
}

impl Store {
    /// Loads the state of an entity, up to its last event.
    ///
    /// Recently used states are kept in memory. States are also saved in the store's directory `cache/`;
    /// [`Builder::cache_disk_bytes`](crate::Builder::cache_disk_bytes) says when. A load starts at such a
    /// state and folds only the events after it. It folds from the first event if there is no such state.
    ///
    /// One thread at a time folds the state of an entity. Other callers wait for it up to 100 ms, and then
    /// fold for themselves.
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
    /// - The errors of reading.
    /// - [`ErrorKind::Undecodable`](crate::ErrorKind::Undecodable): an event does not decode, or the
    ///   projection does not know its kind.
    /// - [`ErrorKind::Invalid`](crate::ErrorKind::Invalid): another projection has the same name.
    ///
    /// # Panics
    ///
    /// If the projection's code panics. The half-folded state is dropped.
    pub fn load<P: Projection>(&self, entity: impl AsRef<str>) -> Result<Loaded<P>, Error> {
        self.load_with(entity, Freshness::Consistent)
    }

    /// Loads the state of an entity, as recent as `freshness` demands.
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
    /// The errors of [`Store::load`].
    pub fn load_with<P: Projection>(
        &self,
        entity: impl AsRef<str>,
        freshness: Freshness,
    ) -> Result<Loaded<P>, Error> {
        let entity = entity.as_ref();
        let shape = shape::<P>();
        let memory = self.cache().memory();
        let known = memory.look(shape.of, entity);
        if let Freshness::MaxStale(most) = freshness
            && let Some(KnownState { folded, looked_at, .. }) = &known
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

    /// Whether a state that was up to date at `looked_at` is no older than `most`. If the clock was set back
    /// since, the age is not known, and the state is not fresh.
    fn is_fresh(&self, looked_at: u64, most: Duration) -> bool {
        let age = options::read(&self.engine().options.clock).checked_sub(looked_at);
        !most.is_zero() && age.is_some_and(|age| Duration::from_micros(age) <= most)
    }

    /// Folds the state that this thread has reserved, and puts it into the cache.
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

    /// The saved state of an entity. It counts only if the log still holds its last event as it was, and if
    /// today's code decodes it to the same fingerprint.
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
        let state = Arc::new(unpack::<P>(&state)?);
        Some(Folded { state, reached })
    }

    /// Folds the events after `from`, or all events if there is no `from`, at least up to the stream's
    /// version in the snapshot.
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
        // Copies the state if the cache or a caller holds it, too.
        let state = Arc::make_mut(&mut folded.state);
        // For one event, planning a read would be half of the time.
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

/// Whether the entity has no event after the known state.
fn is_current(known: &KnownState, entity: &str, snapshot: &Snapshot) -> Result<bool, Error> {
    if known.seen >= snapshot.head.position {
        return Ok(true);
    }
    let newest = snapshot.stream_head_since(entity, known.seen)?;
    Ok(newest.is_none_or(|(version, _)| version <= known.folded.reached.version))
}

/// The projection as the cache sees it.
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
    pack(state.downcast_ref::<P>()?, &mut bytes)?;
    Some(bytes)
}

fn loaded<P: Projection>(folded: Folded<AnyState>) -> Loaded<P> {
    folded.typed().expect("the cache finds states by their type").into()
}

/// Folds one event into a state.
pub(super) fn fold<P: Projection>(state: &mut P, event: &RecordedEvent) -> Result<(), Error> {
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

/// The error that a projection panicked while it folded an event.
pub(super) fn panicked<P: Projection>(event: &RecordedEvent, panic: &(dyn Any + Send)) -> Error {
    let text = text::of_panic(panic).unwrap_or("without a text");
    let name = P::NAME;
    let kind = event.kind();
    let position = event.position();
    Error::invalid(format!("projection {name} panicked at position {position} ({kind}): {text}"))
}

/// Appends the fingerprint and the bytes of a state; `None` if the state does not encode, or its code panics.
pub(super) fn pack<P: Projection>(state: &P, out: &mut Vec<u8>) -> Option<()> {
    let pack = || {
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        // Encoding comes first: it refuses a state that is nested too deeply for the fingerprint's recursion.
        codec::encode(state, out).ok()?;
        out[start..start + 8].copy_from_slice(&codec::fingerprint_of(state)?.to_le_bytes());
        Some(())
    };
    catch_unwind(AssertUnwindSafe(pack)).ok().flatten()
}

/// Reads a packed state; `None` if it does not decode, or decodes to a state with another fingerprint.
pub(super) fn unpack<P: Projection>(bytes: &[u8]) -> Option<P> {
    let (fingerprint, bytes) = bytes.split_first_chunk()?;
    let unpack = || {
        let state: P = codec::decode(bytes).ok()?;
        let is_same = codec::fingerprint_of(&state)? == u64::from_le_bytes(*fingerprint);
        if !is_same {
            tracing::debug!(
                projection = P::NAME,
                "the projection has changed; its saved state is folded anew"
            );
        }
        is_same.then_some(state)
    };
    catch_unwind(unpack).ok().flatten()
}
