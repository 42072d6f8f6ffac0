//! States and the places up to which they were folded; the recently used ones, in memory.
//!
//! A state that a thread folds on is taken out and reserved. So the thread owns it alone, and nothing is
//! copied. Other threads wait for it a moment, and then fold for themselves: the application's code runs
//! meantime and may take any time.
//!
//! No code of the application runs under the lock: states are cloned, encoded and dropped outside.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::{Condvar, Mutex};

use crate::event::RecordedEvent;
use crate::format::Hash;
use crate::types::{ClockFn, Error, Position, Version, check_visible, options};

/// How long a thread waits for a state that another thread folds on.
const PATIENCE: Duration = Duration::from_millis(100);
/// About what a state costs besides its own bytes.
const SLOT_BYTES: usize = 256;
/// A state is saved after this many events: finding it in the file costs about as much as folding them.
pub(crate) const WORTH_SAVING: u64 = 32;
/// States that are evicted before they were saved are kept until then, up to this part of the budget.
const LEAVING_SHARE: usize = 4;
/// A state is measured again when it has grown by this many events, or by a quarter.
const WEIGH_EVERY: u64 = 64;

/// A state of any type.
pub(crate) type AnyState = Arc<dyn Any + Send + Sync>;

/// What the cache knows of a projection.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) of: TypeId,
    pub(crate) type_name: &'static str,
    pub(crate) name: &'static str,
    pub(crate) revision: u32,
    /// Encodes a state; `None` if that fails. Panics of the application's code are caught.
    pub(crate) encode: fn(&(dyn Any + Send + Sync)) -> Option<Vec<u8>>,
}

/// The last event that was folded into a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) version: Version,
    pub(crate) position: Position,
    pub(crate) chain: Hash,
}

impl Reached {
    pub(crate) fn at(event: &RecordedEvent) -> Reached {
        Reached { version: event.version(), position: event.position(), chain: event.chain() }
    }
}

/// A state, and the last event folded into it.
#[derive(Clone, Default)]
pub(crate) struct Folded<S> {
    pub(crate) state: S,
    pub(crate) reached: Reached,
}

impl Folded<AnyState> {
    /// The state as its own type.
    pub(crate) fn typed<P: Send + Sync + 'static>(self) -> Option<Folded<Arc<P>>> {
        let state = self.state.downcast::<P>().ok()?;
        Some(Folded { state, reached: self.reached })
    }
}

/// States in memory, up to a budget in bytes; the least recently used go first.
pub(crate) struct Memory {
    budget: usize,
    hasher: foldhash::fast::RandomState,
    state: Mutex<MemoryInner>,
    put_back: Condvar,
    /// The age of a state is measured by the store's clock.
    clock: ClockFn,
}

struct MemoryInner {
    /// By a hash of type and entity. Two entities with one hash replace each other.
    slots: LruCache<u64, StateSlot, foldhash::fast::RandomState>,
    bytes: usize,
    /// Which projection has which name.
    names: HashMap<&'static str, Shape>,
    /// Keys of slots with states to save.
    unsaved: Vec<u64>,
    /// States that were evicted before they were saved.
    leaving: Vec<Unsaved>,
    leaving_bytes: usize,
    dropped: u64,
    /// Only states of this history are kept.
    history: u64,
}

struct StateSlot {
    shape: Shape,
    entity: Box<str>,
    held: SlotState,
    bytes: usize,
    /// The version at which the state was measured.
    weighed: Version,
    /// The version that was saved last.
    saved: Version,
    /// Whether the slot's key is in `unsaved`.
    is_listed: bool,
}

/// A state to save.
pub(crate) struct Unsaved {
    pub(crate) shape: Shape,
    pub(crate) entity: Box<str>,
    pub(crate) folded: Folded<AnyState>,
}

enum SlotState {
    Present {
        folded: Folded<AnyState>,
        /// The entity has no further events up to here.
        seen: Position,
        /// In microseconds since 1970.
        looked_at: u64,
    },
    /// This thread has taken the state out.
    Reserved(ThreadId),
    Absent,
}

/// A copy of a state in memory.
pub(crate) struct KnownState {
    pub(crate) folded: Folded<AnyState>,
    pub(crate) seen: Position,
    /// In microseconds since 1970.
    pub(crate) looked_at: u64,
    /// The history from which it was folded.
    pub(crate) history: u64,
}

/// The right to fold a state on. Dropped without being filled, the state is forgotten: it may be folded half
/// way.
pub(crate) struct Reservation<'a> {
    memory: &'a Memory,
    shape: Shape,
    key: u64,
    entity: &'a str,
    weight: (usize, Version),
    saved: Version,
    is_filled: bool,
}

/// The answer to a request for a state to fold on.
pub(crate) enum Reserve<'a> {
    /// The right to fold, and the state if it is present.
    Granted(Reservation<'a>, Option<Folded<AnyState>>),
    /// Another thread has the state, and did not put it back in time.
    Busy,
}

impl Memory {
    pub(crate) fn new(budget: usize, history: u64, clock: ClockFn) -> Memory {
        Memory {
            budget,
            hasher: foldhash::fast::RandomState::default(),
            state: Mutex::new(MemoryInner::new(history)),
            put_back: Condvar::new(),
            clock,
        }
    }

    fn key(&self, of: TypeId, entity: &str) -> u64 {
        self.hasher.hash_one((of, entity))
    }

    /// The state of an entity, if it is present.
    pub(crate) fn look(&self, of: TypeId, entity: &str) -> Option<KnownState> {
        let key = self.key(of, entity);
        let mut state = self.state.lock();
        let history = state.history;
        match state.slots.get(&key) {
            Some(slot) if slot.belongs_to(of, entity) => match &slot.held {
                SlotState::Present { folded, seen, looked_at } => {
                    Some(KnownState { folded: folded.clone(), seen: *seen, looked_at: *looked_at, history })
                }
                SlotState::Reserved(_) | SlotState::Absent => None,
            },
            _ => None,
        }
    }

    /// Notes that the entity has no events up to `seen` that its state does not know.
    pub(crate) fn confirm(&self, of: TypeId, entity: &str, reached: &Reached, seen: Position) {
        let key = self.key(of, entity);
        let now = options::read(&self.clock);
        if let Some(slot) = self.state.lock().slots.peek_mut(&key)
            && slot.belongs_to(of, entity)
            && let SlotState::Present { folded, seen: own, looked_at } = &mut slot.held
            && folded.reached == *reached
        {
            *own = seen.max(*own);
            *looked_at = now;
        }
    }

    /// Takes the state of an entity out, to fold it on.
    pub(crate) fn reserve<'a>(&'a self, shape: Shape, entity: &'a str) -> Result<Reserve<'a>, Error> {
        let key = self.key(shape.of, entity);
        let me = std::thread::current().id();
        let mut state = self.state.lock();
        state.claim_name(shape)?;
        let mut deadline = None;
        while let Some(StateSlot { held: SlotState::Reserved(folder), .. }) = state.slots.peek(&key) {
            // A thread that loads an entity while it folds that entity would wait for itself.
            let is_own = *folder == me;
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
            if is_own || self.put_back.wait_until(&mut state, deadline).timed_out() {
                return Ok(Reserve::Busy);
            }
        }
        let mut reservation = Reservation {
            memory: self,
            shape,
            key,
            entity,
            weight: (0, Version::EMPTY),
            saved: Version::EMPTY,
            is_filled: false,
        };
        let found = match state.slots.get_mut(&key) {
            Some(slot) if slot.belongs_to(shape.of, entity) => {
                reservation.weight = (slot.bytes, slot.weighed);
                reservation.saved = slot.saved;
                std::mem::replace(&mut slot.held, SlotState::Reserved(me)).into_folded()
            }
            _ => {
                let slot = StateSlot::reserved(shape, entity, me);
                state.bytes += slot.bytes;
                let replaced = state.slots.put(key, slot);
                state.bytes -= replaced.as_ref().map_or(0, |slot| slot.bytes);
                drop(state);
                drop(replaced);
                None
            }
        };
        Ok(Reserve::Granted(reservation, found))
    }

    /// Forgets all states, because history has changed. A reserved state is not put back.
    pub(crate) fn void(&self, history: u64) {
        let mut state = self.state.lock();
        let names = std::mem::take(&mut state.names);
        let dropped = state.dropped;
        let before =
            std::mem::replace(&mut *state, MemoryInner { names, dropped, ..MemoryInner::new(history) });
        drop(state);
        self.put_back.notify_all();
        drop(before);
    }

    /// Takes the states to save; they count as saved from here on. A reserved state is saved the next time.
    pub(crate) fn take_unsaved(&self) -> Vec<Unsaved> {
        let mut state = self.state.lock();
        let MemoryInner { slots, unsaved, leaving, leaving_bytes, .. } = &mut *state;
        *leaving_bytes = 0;
        let mut found = std::mem::take(leaving);
        unsaved.retain(|key| {
            let Some(slot) = slots.peek_mut(key) else { return false };
            let SlotState::Present { folded, .. } = &slot.held else { return true };
            let unsaved = Unsaved { shape: slot.shape, entity: slot.entity.clone(), folded: folded.clone() };
            slot.saved = unsaved.folded.reached.version;
            slot.is_listed = false;
            found.push(unsaved);
            false
        });
        found
    }

    /// Whether states wait to be saved: those that were reserved.
    pub(crate) fn has_unsaved(&self) -> bool {
        !self.state.lock().unsaved.is_empty()
    }

    /// How many states there are, their bytes, and how many were evicted.
    pub(crate) fn held(&self) -> (usize, usize, u64) {
        let state = self.state.lock();
        (state.slots.len(), state.bytes, state.dropped)
    }
}

impl Reservation<'_> {
    /// Notes the version at which the state was saved.
    pub(crate) fn was_saved_at(&mut self, version: Version) {
        self.saved = version;
    }

    /// Puts back a state that was folded from a history. The entity has no further events up to `seen`. Says
    /// whether there is something to save now.
    pub(crate) fn fill(mut self, folded: Folded<AnyState>, seen: Position, history: u64) -> bool {
        let (bytes, weighed) = self.weigh(&folded);
        let unsaved = folded.reached.version.get().saturating_sub(self.saved.get());
        let looked_at = options::read(&self.memory.clock);
        let held = SlotState::Present { folded, seen, looked_at };
        let mut state = self.memory.state.lock();
        if state.history != history {
            drop(state);
            return false;
        }
        self.is_filled = true;
        let mut replaced = None;
        let mut is_listed = false;
        let MemoryInner { slots, unsaved: list, .. } = &mut *state;
        if let Some(slot) = slots.get_mut(&self.key)
            && slot.is_ours(&self)
        {
            if unsaved >= WORTH_SAVING && !slot.is_listed {
                list.push(self.key);
                slot.is_listed = true;
                is_listed = true;
            }
            slot.weighed = weighed;
            slot.saved = self.saved;
            let before = std::mem::replace(&mut slot.bytes, bytes);
            replaced = Some(std::mem::replace(&mut slot.held, held));
            state.bytes = state.bytes - before + bytes;
        }
        let unused = state.make_room(self.memory.budget);
        drop(state);
        self.memory.put_back.notify_all();
        drop((replaced, unused));
        is_listed
    }

    /// The bytes of a state, and the version at which it was measured. Encoding costs in proportion to the
    /// size, so it happens only once the state may have grown.
    fn weigh(&self, folded: &Folded<AnyState>) -> (usize, Version) {
        let (bytes, weighed) = self.weight;
        let version = folded.reached.version.get();
        let grown = version.saturating_sub(weighed.get());
        if weighed > Version::EMPTY && grown < WEIGH_EVERY.max(weighed.get() / 4) {
            return (bytes, weighed);
        }
        let encoded = (self.shape.encode)(folded.state.as_ref());
        let own = encoded.map_or(0, |encoded| encoded.len());
        (own + SLOT_BYTES + self.entity.len(), folded.reached.version)
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.is_filled {
            return;
        }
        let mut state = self.memory.state.lock();
        if state.slots.peek(&self.key).is_some_and(|slot| slot.is_ours(self))
            && let Some(slot) = state.slots.pop(&self.key)
        {
            state.bytes -= slot.bytes;
        }
        drop(state);
        self.memory.put_back.notify_all();
    }
}

impl MemoryInner {
    fn new(history: u64) -> MemoryInner {
        MemoryInner {
            slots: LruCache::unbounded_with_hasher(foldhash::fast::RandomState::default()),
            bytes: 0,
            names: HashMap::new(),
            unsaved: Vec::new(),
            leaving: Vec::new(),
            leaving_bytes: 0,
            dropped: 0,
            history,
        }
    }

    /// Evicts the least recently used states until the rest fits. The caller drops them outside the lock.
    fn make_room(&mut self, budget: usize) -> Vec<StateSlot> {
        let mut unused = Vec::new();
        while self.bytes > budget
            && let Some((_, mut slot)) = self.slots.pop_lru()
        {
            self.bytes -= slot.bytes;
            self.dropped += 1;
            if slot.is_listed
                && self.leaving_bytes.saturating_add(slot.bytes) <= budget / LEAVING_SHARE
                && let Some(folded) = std::mem::replace(&mut slot.held, SlotState::Absent).into_folded()
            {
                self.leaving_bytes += slot.bytes;
                self.leaving.push(Unsaved { shape: slot.shape, entity: slot.entity.clone(), folded });
            }
            unused.push(slot);
        }
        unused
    }

    /// Refuses a second type with the same name: each would take the other's saved states for its own.
    fn claim_name(&mut self, shape: Shape) -> Result<(), Error> {
        if !self.names.contains_key(shape.name) {
            check_visible("name of the projection", shape.name)?;
        }
        let owner = self.names.entry(shape.name).or_insert(shape);
        if owner.of == shape.of {
            return Ok(());
        }
        let one = owner.type_name;
        let Shape { type_name: other, name, .. } = shape;
        Err(Error::invalid(format!("{one} and {other} are both projections named {name:?}; rename one")))
    }
}

impl StateSlot {
    fn reserved(shape: Shape, entity: &str, by: ThreadId) -> StateSlot {
        StateSlot {
            shape,
            entity: entity.into(),
            held: SlotState::Reserved(by),
            bytes: SLOT_BYTES + entity.len(),
            weighed: Version::EMPTY,
            saved: Version::EMPTY,
            is_listed: false,
        }
    }

    fn belongs_to(&self, of: TypeId, entity: &str) -> bool {
        self.shape.of == of && *self.entity == *entity
    }

    /// Whether this thread reserved the slot.
    fn is_ours(&self, reservation: &Reservation<'_>) -> bool {
        self.belongs_to(reservation.shape.of, reservation.entity)
            && matches!(self.held, SlotState::Reserved(folder) if folder == std::thread::current().id())
    }
}

impl SlotState {
    fn into_folded(self) -> Option<Folded<AnyState>> {
        match self {
            SlotState::Present { folded, .. } => Some(folded),
            SlotState::Reserved(_) | SlotState::Absent => None,
        }
    }
}
