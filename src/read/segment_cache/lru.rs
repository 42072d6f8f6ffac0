//! Things that cost memory or a descriptor, kept while there is room: the ones used last.
//!
//! Using a thing that is there takes a read lock of its own and writes one number, so that looking
//! through hundreds of them stays cheap. Which one was used least is searched for only when something new
//! needs the room.
//! Row: shelf.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

/// A place for one thing, which may be taken away whenever nobody uses it.
pub(super) struct LruSlot<T> {
    held: RwLock<Option<Arc<T>>>,
    /// When it was used last, by the clock of its room.
    used: AtomicU64,
    /// Held while the thing is made, so that it is made once.
    making: Mutex<()>,
}

impl<T> Default for LruSlot<T> {
    fn default() -> LruSlot<T> {
        LruSlot { held: RwLock::new(None), used: AtomicU64::new(0), making: Mutex::new(()) }
    }
}

impl<T> LruSlot<T> {
    /// Looks at what lies here, which does not count as using it.
    pub(super) fn look<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
        self.held.read().as_deref().map(look)
    }
}

/// LruPool for so many things, or so many bytes of them.
pub(super) struct LruPool<T> {
    most: u64,
    clock: AtomicU64,
    taken: Mutex<Taken<T>>,
}

struct Taken<T> {
    total: u64,
    by: Vec<(Arc<LruSlot<T>>, u64)>,
}

impl<T> LruPool<T> {
    pub(super) fn new(most: u64) -> LruPool<T> {
        LruPool { most, clock: AtomicU64::new(0), taken: Mutex::new(Taken { total: 0, by: Vec::new() }) }
    }

    /// Whether something of this size could be kept at all.
    pub(super) fn could_hold(&self, size: u64) -> bool {
        size <= self.most
    }

    /// Whether something of this size could be kept without taking anything away.
    pub(super) fn has_room(&self, size: u64) -> bool {
        self.taken.lock().total.saturating_add(size) <= self.most
    }

    /// Lets the clock go on, so that what is used from now on can be told from what was not.
    pub(super) fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether something of this size could be kept if only what was not used since then is taken away.
    pub(super) fn has_room_beside_used(&self, size: u64, since: u64) -> bool {
        let taken = self.taken.lock();
        let is_used = |place: &LruSlot<T>| place.used.load(Ordering::Relaxed) >= since;
        let used: u64 = taken.by.iter().filter(|(place, _)| is_used(place)).map(|(_, size)| size).sum();
        used.saturating_add(size) <= self.most
    }

    /// What lies in a place.
    pub(super) fn get(&self, place: &LruSlot<T>) -> Option<Arc<T>> {
        self.look(place, Arc::clone)
    }

    /// Looks at what lies in a place, without holding it any longer.
    pub(super) fn look<R>(&self, place: &LruSlot<T>, look: impl FnOnce(&Arc<T>) -> R) -> Option<R> {
        let held = place.held.read();
        let seen = look(held.as_ref()?);
        // The clock stands still until something new comes: those used since are all as good as each other.
        place.used.store(self.clock.load(Ordering::Relaxed), Ordering::Relaxed);
        Some(seen)
    }

    /// What lies in a place; if nothing does, it is made. Whoever comes meanwhile waits for that.
    ///
    /// # Errors
    ///
    /// What `make` gives.
    pub(super) fn get_or_make<E>(
        &self,
        place: &Arc<LruSlot<T>>,
        make: impl FnOnce() -> Result<(T, u64), E>,
    ) -> Result<Arc<T>, E> {
        if let Some(held) = self.get(place) {
            return Ok(held);
        }
        let _making = place.making.lock();
        if let Some(held) = self.get(place) {
            return Ok(held);
        }
        let (made, size) = make()?;
        Ok(self.put(place, Arc::new(made), size))
    }

    /// Lays a thing in its place, and takes others away until there is room. One that is larger than the
    /// whole room is only handed out.
    pub(super) fn put(&self, place: &Arc<LruSlot<T>>, thing: Arc<T>, size: u64) -> Arc<T> {
        let mut taken = self.taken.lock();
        taken.leave(place);
        if !self.could_hold(size) {
            return thing;
        }
        while taken.total + size > self.most && taken.leave_oldest() {}
        place.used.store(self.tick(), Ordering::Relaxed);
        *place.held.write() = Some(thing.clone());
        taken.total += size;
        taken.by.push((place.clone(), size));
        thing
    }

    /// Takes away what lies in a place.
    pub(super) fn clear(&self, place: &Arc<LruSlot<T>>) {
        self.taken.lock().leave(place);
    }
}

impl<T> Taken<T> {
    fn leave(&mut self, place: &Arc<LruSlot<T>>) {
        if let Some(at) = self.by.iter().position(|(other, _)| Arc::ptr_eq(other, place)) {
            self.remove(at);
        }
    }

    /// `false` if there is nothing left.
    fn leave_oldest(&mut self) -> bool {
        let used = |(place, _): &(Arc<LruSlot<T>>, u64)| place.used.load(Ordering::Relaxed);
        let oldest = self.by.iter().enumerate().min_by_key(|(_, entry)| used(entry));
        match oldest.map(|(at, _)| at) {
            Some(at) => {
                self.remove(at);
                true
            }
            None => false,
        }
    }

    fn remove(&mut self, at: usize) {
        let (place, size) = self.by.swap_remove(at);
        *place.held.write() = None;
        self.total -= size;
    }
}
