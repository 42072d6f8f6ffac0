//! The states that were used last, in memory.
//!
//! A state that is being folded on is taken out and reserved, so that its folder is the only one who holds it
//! and nothing need be copied. Whoever wants it meanwhile waits for a moment, and then does without: code of
//! users runs while it is out, and nothing here may depend on that coming to an end.
//! Invariant: no code of users runs under the lock: states are cloned, encoded and dropped outside.
//! Row: cache.

use std::any::TypeId;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::{Condvar, Mutex};

use super::{Erased, Folded, Reached, Shape};
use crate::types::{ClockFn, Error, Position, Version, check_visible, options};

/// How long somebody waits for a state that another thread is folding.
const PATIENCE: Duration = Duration::from_millis(100);
/// What a state costs besides its own bytes, about.
const SLOT_BYTES: usize = 256;
/// A state is saved once so many events would have to be folded without: to find it on the disk costs as much.
pub(crate) const WORTH_SAVING: u64 = 32;
/// States that leave before they were saved are kept until then, up to this part of the budget.
const LEAVING_SHARE: usize = 4;
/// A state is weighed again when it has grown by so many events, or by a quarter.
const WEIGH_EVERY: u64 = 64;

/// States in memory, up to a budget in bytes; those used least recently go first.
pub(crate) struct Memory {
    budget: usize,
    hasher: foldhash::fast::RandomState,
    state: Mutex<State>,
    put_back: Condvar,
    /// How old a state is goes by the store's clock.
    clock: ClockFn,
}

struct State {
    /// By a hash of type and entity. Two that share one take turns.
    slots: LruCache<u64, Slot, foldhash::fast::RandomState>,
    bytes: usize,
    /// Whose name is whose.
    names: HashMap<&'static str, Shape>,
    /// Slots that have something to be saved.
    unsaved: Vec<u64>,
    /// States that had to go before they were saved, and their bytes.
    leaving: Vec<Unsaved>,
    leaving_bytes: usize,
    dropped: u64,
    /// Only states of this history are kept.
    history: u64,
}

struct Slot {
    shape: Shape,
    entity: Box<str>,
    held: Held,
    bytes: usize,
    /// At which version it was weighed.
    weighed: Version,
    /// The version that was saved.
    saved: Version,
    /// Whether it is among the unsaved.
    is_listed: bool,
}

/// A state to be saved.
pub(crate) struct Unsaved {
    pub(crate) shape: Shape,
    pub(crate) entity: Box<str>,
    pub(crate) folded: Folded<Erased>,
}

enum Held {
    Here {
        folded: Folded<Erased>,
        /// Up to here there are no other events of the entity.
        seen: Position,
        /// In microseconds since 1970.
        looked_at: u64,
    },
    /// A thread has taken it out.
    Elsewhere(ThreadId),
    Nowhere,
}

/// A state as it was found.
pub(crate) struct Known {
    pub(crate) folded: Folded<Erased>,
    pub(crate) seen: Position,
    /// In microseconds since 1970.
    pub(crate) looked_at: u64,
    /// What it was folded from.
    pub(crate) history: u64,
}

/// The right to fold a state on. Dropped without being filled, the state is forgotten: it may be half folded.
pub(crate) struct Reservation<'a> {
    memory: &'a Memory,
    shape: Shape,
    key: u64,
    entity: &'a str,
    weight: (usize, Version),
    saved: Version,
    is_filled: bool,
}

/// What came of asking for a state to fold on.
pub(crate) enum Reserve<'a> {
    /// The state, if there is one.
    Ours(Reservation<'a>, Option<Folded<Erased>>),
    /// Another thread has it, and did not put it back in time.
    Elsewhere,
}

impl Memory {
    pub(crate) fn new(budget: usize, history: u64, clock: ClockFn) -> Memory {
        Memory {
            budget,
            hasher: foldhash::fast::RandomState::default(),
            state: Mutex::new(State::new(history)),
            put_back: Condvar::new(),
            clock,
        }
    }

    fn key(&self, of: TypeId, entity: &str) -> u64 {
        self.hasher.hash_one((of, entity))
    }

    /// The state of an entity, if it is here.
    pub(crate) fn look(&self, of: TypeId, entity: &str) -> Option<Known> {
        let key = self.key(of, entity);
        let mut state = self.state.lock();
        let history = state.history;
        match state.slots.get(&key) {
            Some(slot) if slot.is_of(of, entity) => match &slot.held {
                Held::Here { folded, seen, looked_at } => {
                    Some(Known { folded: folded.clone(), seen: *seen, looked_at: *looked_at, history })
                }
                Held::Elsewhere(_) | Held::Nowhere => None,
            },
            _ => None,
        }
    }

    /// Up to `seen` there are no events of the entity that its state does not know.
    pub(crate) fn confirm(&self, of: TypeId, entity: &str, reached: &Reached, seen: Position) {
        let key = self.key(of, entity);
        let now = options::read(&self.clock);
        if let Some(slot) = self.state.lock().slots.peek_mut(&key)
            && slot.is_of(of, entity)
            && let Held::Here { folded, seen: own, looked_at } = &mut slot.held
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
        while let Some(Slot { held: Held::Elsewhere(folder), .. }) = state.slots.peek(&key) {
            // Whoever loads an entity while it folds that entity would wait for itself.
            let is_own = *folder == me;
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
            if is_own || self.put_back.wait_until(&mut state, deadline).timed_out() {
                return Ok(Reserve::Elsewhere);
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
            Some(slot) if slot.is_of(shape.of, entity) => {
                (reservation.weight, reservation.saved) = ((slot.bytes, slot.weighed), slot.saved);
                std::mem::replace(&mut slot.held, Held::Elsewhere(me)).into_folded()
            }
            _ => {
                let slot = Slot::reserved(shape, entity, me);
                state.bytes += slot.bytes;
                let replaced = state.slots.put(key, slot);
                state.bytes -= replaced.as_ref().map_or(0, |slot| slot.bytes);
                drop(state);
                drop(replaced);
                None
            }
        };
        Ok(Reserve::Ours(reservation, found))
    }

    /// History is another one from now on: forgets everything. What is being folded is not taken back.
    pub(crate) fn void(&self, history: u64) {
        let mut state = self.state.lock();
        let names = std::mem::take(&mut state.names);
        let dropped = state.dropped;
        let before = std::mem::replace(&mut *state, State { names, dropped, ..State::new(history) });
        drop(state);
        self.put_back.notify_all();
        drop(before);
    }

    /// What is to be saved; from here on it counts as saved. What is being folded comes next time.
    pub(crate) fn take_unsaved(&self) -> Vec<Unsaved> {
        let mut state = self.state.lock();
        let State { slots, unsaved, leaving, leaving_bytes, .. } = &mut *state;
        *leaving_bytes = 0;
        let mut found = std::mem::take(leaving);
        unsaved.retain(|key| {
            let Some(slot) = slots.peek_mut(key) else { return false };
            let Held::Here { folded, .. } = &slot.held else { return true };
            let (shape, entity, folded) = (slot.shape, slot.entity.clone(), folded.clone());
            (slot.saved, slot.is_listed) = (folded.reached.version, false);
            found.push(Unsaved { shape, entity, folded });
            false
        });
        found
    }

    /// Whether there is more to be saved: what was being folded.
    pub(crate) fn has_unsaved(&self) -> bool {
        !self.state.lock().unsaved.is_empty()
    }

    /// States, their bytes, and how many were dropped to make room.
    pub(crate) fn held(&self) -> (usize, usize, u64) {
        let state = self.state.lock();
        (state.slots.len(), state.bytes, state.dropped)
    }
}

impl Reservation<'_> {
    /// The state that is folded on was saved at this version.
    pub(crate) fn was_saved_at(&mut self, version: Version) {
        self.saved = version;
    }

    /// Puts a state back that was folded from what was there in a history. Up to `seen` there are no other events of the
    /// entity. Says whether there is something to be saved now.
    pub(crate) fn fill(mut self, folded: Folded<Erased>, seen: Position, history: u64) -> bool {
        let (bytes, weighed) = self.weigh(&folded);
        let unsaved = folded.reached.version.get().saturating_sub(self.saved.get());
        let looked_at = options::read(&self.memory.clock);
        let held = Held::Here { folded, seen, looked_at };
        let mut state = self.memory.state.lock();
        if state.history != history {
            drop(state);
            return false;
        }
        self.is_filled = true;
        let mut replaced = None;
        let mut is_listed = false;
        let State { slots, unsaved: list, .. } = &mut *state;
        if let Some(slot) = slots.get_mut(&self.key)
            && slot.is_ours(&self)
        {
            if unsaved >= WORTH_SAVING && !slot.is_listed {
                list.push(self.key);
                (slot.is_listed, is_listed) = (true, true);
            }
            (slot.weighed, slot.saved) = (weighed, self.saved);
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

    /// The bytes of a state, as of some version: encoding it costs as much as it is large, so that is done
    /// only once it may have grown.
    fn weigh(&self, folded: &Folded<Erased>) -> (usize, Version) {
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

impl State {
    fn new(history: u64) -> State {
        State {
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

    /// Takes out what was used least recently, until the rest fits. To be dropped outside the lock.
    fn make_room(&mut self, budget: usize) -> Vec<Slot> {
        let mut unused = Vec::new();
        while self.bytes > budget
            && let Some((_, mut slot)) = self.slots.pop_lru()
        {
            self.bytes -= slot.bytes;
            self.dropped += 1;
            if slot.is_listed
                && self.leaving_bytes.saturating_add(slot.bytes) <= budget / LEAVING_SHARE
                && let Some(folded) = std::mem::replace(&mut slot.held, Held::Nowhere).into_folded()
            {
                self.leaving_bytes += slot.bytes;
                self.leaving.push(Unsaved { shape: slot.shape, entity: slot.entity.clone(), folded });
            }
            unused.push(slot);
        }
        unused
    }

    /// Two types of one name would take each other's saved states for their own.
    fn claim_name(&mut self, shape: Shape) -> Result<(), Error> {
        if !self.names.contains_key(shape.name) {
            check_visible("name of the projection", shape.name)?;
        }
        let owner = self.names.entry(shape.name).or_insert(shape);
        if owner.of == shape.of {
            return Ok(());
        }
        let (one, other, name) = (owner.type_name, shape.type_name, shape.name);
        Err(Error::invalid(format!("{one} and {other} are both projections named {name:?}; rename one")))
    }
}

impl Slot {
    fn reserved(shape: Shape, entity: &str, by: ThreadId) -> Slot {
        Slot {
            shape,
            entity: entity.into(),
            held: Held::Elsewhere(by),
            bytes: SLOT_BYTES + entity.len(),
            weighed: Version::EMPTY,
            saved: Version::EMPTY,
            is_listed: false,
        }
    }

    fn is_of(&self, of: TypeId, entity: &str) -> bool {
        self.shape.of == of && *self.entity == *entity
    }

    /// Whether it is the reservation of this thread.
    fn is_ours(&self, reservation: &Reservation<'_>) -> bool {
        self.is_of(reservation.shape.of, reservation.entity)
            && matches!(self.held, Held::Elsewhere(folder) if folder == std::thread::current().id())
    }
}

impl Held {
    fn into_folded(self) -> Option<Folded<Erased>> {
        match self {
            Held::Here { folded, .. } => Some(folded),
            Held::Elsewhere(_) | Held::Nowhere => None,
        }
    }
}
