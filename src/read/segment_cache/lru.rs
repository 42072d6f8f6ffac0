//! Values that cost memory or a descriptor, kept within a budget; the least recently used are evicted.
//!
//! Using a value takes a read lock of its slot and writes one number, so looking through hundreds of values
//! is cheap. The least recently used value is searched for only when a new value needs its room.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};

use crate::disk::{Access, Disk, DiskFile};

/// A slot for one value, which the pool may evict. A value that is in use lives on in its `Arc`.
pub(super) struct LruSlot<T> {
    held: RwLock<Option<Arc<T>>>,
    /// When the value was last used, by the clock of the pool.
    used: AtomicU64,
    /// Held while the value is made, so that it is made once.
    making: Mutex<()>,
}

impl<T> Default for LruSlot<T> {
    fn default() -> LruSlot<T> {
        LruSlot { held: RwLock::new(None), used: AtomicU64::new(0), making: Mutex::new(()) }
    }
}

impl<T> LruSlot<T> {
    /// Looks at the value, which does not count as a use.
    pub(super) fn peek<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
        self.held.read().as_deref().map(look)
    }
}

/// A pool of values up to a total size, in the unit its user chooses. The least recently used value is
/// evicted first.
pub(super) struct LruPool<T> {
    size_max: u64,
    /// Advances when a value is added: values used since the last one count as equally recent.
    clock: AtomicU64,
    residents: Mutex<Residents<T>>,
}

/// The slots that hold a value, each with the value's size.
struct Residents<T> {
    total: u64,
    slots: Vec<(Arc<LruSlot<T>>, u64)>,
}

impl<T> LruPool<T> {
    pub(super) fn new(size_max: u64) -> LruPool<T> {
        LruPool {
            size_max,
            clock: AtomicU64::new(0),
            residents: Mutex::new(Residents { total: 0, slots: Vec::new() }),
        }
    }

    /// Whether the pool is large enough for a value of this size.
    pub(super) fn could_hold(&self, size: u64) -> bool {
        size <= self.size_max
    }

    /// Whether a value of this size fits without an eviction.
    pub(super) fn has_room(&self, size: u64) -> bool {
        self.residents.lock().total.saturating_add(size) <= self.size_max
    }

    /// Advances the clock, and returns the new time: later uses have at least this time.
    pub(super) fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether a value of this size fits if only values that were not used since `since` are evicted.
    pub(super) fn has_room_beside_used(&self, size: u64, since: u64) -> bool {
        let residents = self.residents.lock();
        let is_used = |slot: &LruSlot<T>| slot.used.load(Ordering::Relaxed) >= since;
        let used: u64 = residents.slots.iter().filter(|(slot, _)| is_used(slot)).map(|(_, size)| size).sum();
        used.saturating_add(size) <= self.size_max
    }

    /// The value of a slot.
    pub(super) fn get(&self, slot: &LruSlot<T>) -> Option<Arc<T>> {
        self.look(slot, Arc::clone)
    }

    /// Looks at the value of a slot, without holding it longer.
    pub(super) fn look<R>(&self, slot: &LruSlot<T>, look: impl FnOnce(&Arc<T>) -> R) -> Option<R> {
        let held = slot.held.read();
        let seen = look(held.as_ref()?);
        // One relaxed store, no lock of the pool: looking through hundreds of values must stay cheap.
        slot.used.store(self.clock.load(Ordering::Relaxed), Ordering::Relaxed);
        Some(seen)
    }

    /// The value of a slot. An empty slot gets the value that `make` returns with its size; concurrent
    /// callers wait for it.
    ///
    /// # Errors
    ///
    /// Those of `make`.
    pub(super) fn get_or_make<E>(
        &self,
        slot: &Arc<LruSlot<T>>,
        make: impl FnOnce() -> Result<(T, u64), E>,
    ) -> Result<Arc<T>, E> {
        if let Some(held) = self.get(slot) {
            return Ok(held);
        }
        let _making = slot.making.lock();
        if let Some(held) = self.get(slot) {
            return Ok(held);
        }
        let (made, size) = make()?;
        Ok(self.put(slot, Arc::new(made), size))
    }

    /// Puts a value into its slot, and evicts others until it fits. A value larger than the whole pool is
    /// returned but not kept.
    pub(super) fn put(&self, slot: &Arc<LruSlot<T>>, value: Arc<T>, size: u64) -> Arc<T> {
        let mut residents = self.residents.lock();
        residents.evict(slot);
        if !self.could_hold(size) {
            return value;
        }
        while residents.total + size > self.size_max && residents.evict_oldest() {}
        slot.used.store(self.tick(), Ordering::Relaxed);
        *slot.held.write() = Some(value.clone());
        residents.total += size;
        residents.slots.push((slot.clone(), size));
        value
    }

    /// Evicts the value of a slot.
    pub(super) fn clear(&self, slot: &Arc<LruSlot<T>>) {
        self.residents.lock().evict(slot);
    }
}

impl<T> Residents<T> {
    fn evict(&mut self, slot: &Arc<LruSlot<T>>) {
        if let Some(at) = self.slots.iter().position(|(other, _)| Arc::ptr_eq(other, slot)) {
            self.remove(at);
        }
    }

    /// Evicts the least recently used value; `false` if the pool is empty.
    fn evict_oldest(&mut self) -> bool {
        let slots = self.slots.iter().enumerate();
        let oldest = slots.min_by_key(|(_, (slot, _))| slot.used.load(Ordering::Relaxed));
        let Some(at) = oldest.map(|(at, _)| at) else { return false };
        self.remove(at);
        true
    }

    fn remove(&mut self, at: usize) {
        let (slot, size) = self.slots.swap_remove(at);
        *slot.held.write() = None;
        self.total -= size;
    }
}

/// A file that is opened when it is read, and closed when its descriptor is evicted. Its bytes never change.
pub(super) struct LazyFile {
    disk: Arc<dyn Disk>,
    path: String,
    slot: Arc<LruSlot<Box<dyn DiskFile>>>,
    descriptors: Arc<LruPool<Box<dyn DiskFile>>>,
    pinned: PinnedFile,
}

/// An open file, once it is set, that stays open after its name is removed.
pub(super) type PinnedFile = Arc<OnceLock<Arc<Box<dyn DiskFile>>>>;

impl LazyFile {
    /// A file at `path` that takes its descriptor from a pool. Once `pinned` is set, it reads from that one
    /// instead.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        path: String,
        descriptors: Arc<LruPool<Box<dyn DiskFile>>>,
        pinned: PinnedFile,
    ) -> LazyFile {
        LazyFile { disk, path, slot: Arc::default(), descriptors, pinned }
    }

    fn file(&self) -> io::Result<Arc<Box<dyn DiskFile>>> {
        if let Some(pinned) = self.pinned.get() {
            return Ok(pinned.clone());
        }
        let opened =
            self.descriptors.get_or_make(&self.slot, || Ok((self.disk.open(&self.path, Access::Read)?, 1)));
        // The file may have been pinned, and its name removed, since the look above.
        opened.or_else(|error| self.pinned.get().cloned().ok_or(error))
    }
}

impl Drop for LazyFile {
    fn drop(&mut self) {
        self.descriptors.clear(&self.slot);
    }
}

impl DiskFile for LazyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file()?.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.file()?.write_at(bytes, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.file()?.length()
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.file()?.set_length(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.file()?.sync()
    }

    fn drop_cache(&self, offset: u64) -> io::Result<()> {
        self.file()?.drop_cache(offset)
    }
}
