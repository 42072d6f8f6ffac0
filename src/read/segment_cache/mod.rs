//! The segment cache: open files, indexes, and whole segments of the log that are sealed, within budgets.
//!
//! Nothing in it is needed. A file is opened or read again; an index that is missing, damaged or stale is
//! built again from its segment. So memory does not grow with the log. Tested by tests/it/scale.rs.
//!
//! Each budget is a pool, which evicts the least recently used value. Using a value takes a read lock of its
//! slot and writes one number, so looking through hundreds of values is cheap. The least recently used value
//! is searched for only when a new value needs its room.

mod sealed_segment;
#[cfg(test)]
mod tests;
mod tree_file;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::disk::{Access, Disk, DiskFile, create_anew, write_all};
use crate::format::{Frame, Hash, SEAL_BYTES, Seal, SegmentEntry, SegmentId, TEMPORARY};
use crate::index::{Bound, LiveIndex, SealedIndex};
use crate::log::{Block, LogEnd, Outline, SegmentCursor, SegmentEnd, SegmentFile};
use crate::threads::BackgroundThread;
use crate::types::{Error, to_u32};

pub(crate) use sealed_segment::SealedSegment;
pub(crate) use tree_file::SegmentTree;

/// The most open files of sealed segments and their indexes.
const DESCRIPTORS_MAX: u64 = 64;

/// What one store keeps open and in memory of its sealed segments, within its budgets.
pub(crate) struct SegmentCache {
    disk: Arc<dyn Disk>,
    /// The ids that the log's segments may carry: the store that began the log first, this store last.
    stores: Vec<[u8; 16]>,
    /// Whether index and tree files may be written.
    writes: bool,
    /// Whether each sealed segment gets a tree file before one is asked for.
    pub(crate) has_trees: bool,
    descriptors: Arc<LruPool<Box<dyn DiskFile>>>,
    indexes: LruPool<SealedIndex>,
    segments: LruPool<Block>,
    index_builds: Mutex<()>,
    tree_builds: Mutex<()>,
    background: Arc<BackgroundThread>,
}

/// The most bytes a cache keeps in memory.
#[derive(Clone, Copy)]
pub(crate) struct Budgets {
    pub(crate) index_bytes: u64,
    pub(crate) segment_bytes: u64,
}

impl SegmentCache {
    /// An empty cache. `stores` are the ids of the store's lineage, oldest first, and its own.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        stores: Vec<[u8; 16]>,
        writes: bool,
        has_trees: bool,
        budgets: Budgets,
        background: Arc<BackgroundThread>,
    ) -> SegmentCache {
        SegmentCache {
            disk,
            stores,
            writes,
            has_trees,
            descriptors: Arc::new(LruPool::new(DESCRIPTORS_MAX)),
            indexes: LruPool::new(budgets.index_bytes),
            segments: LruPool::new(budgets.segment_bytes),
            index_builds: Mutex::new(()),
            tree_builds: Mutex::new(()),
            background,
        }
    }

    /// The thread for work that may wait.
    pub(crate) fn background(&self) -> &Arc<BackgroundThread> {
        &self.background
    }

    /// The id of the store that began the log. Its forks hash terms with the same id, so they share index
    /// files.
    pub(crate) fn origin(&self) -> &[u8; 16] {
        self.stores.first().expect("a log belongs to a store")
    }

    /// The lock for building the indexes of sealed segments: only one thread builds them at a time.
    pub(crate) fn lock_index_builds(&self) -> MutexGuard<'_, ()> {
        self.index_builds.lock()
    }

    /// Encodes an index and writes it beside its segment, if the store may be written to. Returns the bytes;
    /// `None` if they are too many for a file. A failed write only costs time later: the index is then built
    /// from the segment.
    pub(crate) fn write_index(&self, index: &LiveIndex, bound: &Bound) -> Option<Vec<u8>> {
        let bytes = index.encode(bound);
        match &bytes {
            Some(bytes) if self.writes => {
                write_side_file(self.disk.as_ref(), &bound.segment.index_path(), bytes)
            }
            Some(_) => {}
            None => tracing::warn!(segment = bound.segment.path(), "the index is too large for a file"),
        }
        bytes
    }

    /// Writes the index file of a segment, from bytes that were encoded before.
    pub(crate) fn write_index_bytes(&self, segment: SegmentId, bytes: &[u8]) {
        write_side_file(self.disk.as_ref(), &segment.index_path(), bytes);
    }

    /// The index file of a segment, if it is there and has this bound.
    pub(crate) fn open_index(&self, bound: &Bound) -> Option<SealedIndex> {
        let path = bound.segment.index_path();
        let file = self.disk.open(&path, Access::Read).ok()?;
        SealedIndex::open(Arc::from(file), &path, bound).ok()?.ok()
    }

    /// Whether a segment with this store id belongs to the log.
    fn knows(&self, store_id: &[u8; 16]) -> bool {
        self.stores.contains(store_id)
    }
}

/// The metadata of a sealed segment, or of the sealed part of one, as MANIFEST or MARK has it. Needs no file.
#[derive(Clone, Debug)]
pub(crate) struct SealedMeta {
    pub(crate) bound: Bound,
    pub(crate) frames: u32,
    pub(crate) events: u32,
    /// The chain hash and the time of the last frame before the segment.
    pub(crate) chain_before: Hash,
    pub(crate) recorded_before: u64,
    /// The time of the last frame.
    pub(crate) last_recorded_at: u64,
    /// The length of the segment's file; `None` if the segment is still written to.
    pub(crate) file_bytes: Option<u32>,
}

impl SealedMeta {
    /// The metadata of a segment that MANIFEST lists. `chain_before` is the chain hash of the entry before.
    pub(crate) fn sealed(entry: &SegmentEntry, origin: [u8; 16], chain_before: Hash) -> SealedMeta {
        let bound = Bound {
            store_id: origin,
            segment: entry.id,
            end: entry.length.saturating_sub(to_u32(SEAL_BYTES)),
            last_position: entry.last_position,
            chain: entry.chain,
        };
        SealedMeta {
            bound,
            frames: entry.frames,
            events: entry.events,
            chain_before,
            recorded_before: entry.recorded_before,
            last_recorded_at: entry.last_recorded_at,
            file_bytes: Some(entry.length),
        }
    }

    /// The metadata of the frames of an open segment up to the end of a walk.
    pub(crate) fn up_to(end: &LogEnd, file: &SegmentFile, origin: [u8; 16]) -> SealedMeta {
        let header = &file.header;
        let bound = Bound {
            store_id: origin,
            segment: header.id,
            end: end.offset,
            last_position: end.position,
            chain: end.chain,
        };
        SealedMeta {
            bound,
            frames: end.frames,
            events: end.events,
            chain_before: header.chain_before,
            recorded_before: header.recorded_before,
            last_recorded_at: end.recorded_at,
            file_bytes: None,
        }
    }

    /// What the segment's header and seal must say. A segment that is still written to has no seal; the
    /// caller does not compare it then.
    pub(super) fn outline(&self) -> Outline {
        let SealedMeta { bound, chain_before, recorded_before, .. } = self;
        let seal = Seal {
            length: self.file_bytes.unwrap_or(0),
            last_position: bound.last_position,
            last_recorded_at: self.last_recorded_at,
            frames: self.frames,
            events: self.events,
            chain: bound.chain,
        };
        Outline { id: bound.segment, chain_before: *chain_before, recorded_before: *recorded_before, seal }
    }
}

/// Writes an index or tree file under a temporary name and renames it, so that a reader finds the old file or
/// the new one.
///
/// The file is not synced: one that does not reach the disk whole fails its checksums and is built again.
fn write_side_file(disk: &dyn Disk, path: &str, bytes: &[u8]) {
    let temporary = format!("{path}{TEMPORARY}");
    let write = || {
        let file = create_anew(disk, &temporary)?;
        write_all(file.as_ref(), bytes, 0)?;
        disk.rename(&temporary, path)
    };
    if let Err(error) = write() {
        tracing::warn!(path, %error, "the file was not written; what it holds is built again when it is needed");
        // Half a file must not take the space of a full disk.
        let _ = disk.remove(&temporary);
    }
}

/// Builds the index of a segment from its frames, as the bytes of an index file.
fn encode_index_of(file: &Arc<SegmentFile>, bound: &Bound) -> Result<Vec<u8>, Error> {
    let mut index = LiveIndex::new(LogEnd::start(file).offset);
    walk(file, bound, |offset, frame| index.insert(file, offset, frame))?;
    index.finish(bound.end);
    let bytes = index.encode(bound);
    bytes
        .ok_or_else(|| Error::invalid(format!("{}: the segment has too many terms to be indexed", file.path)))
}

/// Walks a segment, which must end at `bound`.
fn walk(
    file: &SegmentFile,
    bound: &Bound,
    mut visit: impl FnMut(u32, &Frame<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    // The chain hash at the end, which MANIFEST or MARK has, proves all hashes before it: no frame's is
    // verified.
    let mut cursor = SegmentCursor::new(file, bound.end)?.trusting_chain();
    let segment_end = cursor.visit_frames(|offset, frame, _| visit(offset, frame))?;
    let LogEnd { offset, position, chain, .. } = *cursor.end();
    if let SegmentEnd::Invalid(damage) = &segment_end {
        return Err(file.damaged(offset.into(), damage));
    }
    if (offset, position, chain) != (bound.end, bound.last_position, bound.chain) {
        let what = "the segment is damaged: its events end here, and not where MANIFEST or MARK says";
        return Err(Error::corrupt(&file.path, offset.into(), what));
    }
    Ok(())
}

/// A slot for one value, which the pool may evict. A value that is in use lives on in its `Arc`.
struct LruSlot<T> {
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
    fn peek<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
        self.held.read().as_deref().map(look)
    }
}

/// A pool of values up to a total size, in the unit its user chooses. The least recently used value is
/// evicted first.
struct LruPool<T> {
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
    fn new(size_max: u64) -> LruPool<T> {
        LruPool {
            size_max,
            clock: AtomicU64::new(0),
            residents: Mutex::new(Residents { total: 0, slots: Vec::new() }),
        }
    }

    /// Whether the pool is large enough for a value of this size.
    fn could_hold(&self, size: u64) -> bool {
        size <= self.size_max
    }

    /// Whether a value of this size fits without an eviction.
    fn has_room(&self, size: u64) -> bool {
        self.residents.lock().total.saturating_add(size) <= self.size_max
    }

    /// Advances the clock, and returns the new time: later uses have at least this time.
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether a value of this size fits if only values that were not used since `since` are evicted.
    fn has_room_beside_used(&self, size: u64, since: u64) -> bool {
        let residents = self.residents.lock();
        let is_used = |slot: &LruSlot<T>| slot.used.load(Ordering::Relaxed) >= since;
        let used: u64 = residents.slots.iter().filter(|(slot, _)| is_used(slot)).map(|(_, size)| size).sum();
        used.saturating_add(size) <= self.size_max
    }

    /// The value of a slot.
    fn get(&self, slot: &LruSlot<T>) -> Option<Arc<T>> {
        self.look(slot, Arc::clone)
    }

    /// Looks at the value of a slot, without holding it longer.
    fn look<R>(&self, slot: &LruSlot<T>, look: impl FnOnce(&Arc<T>) -> R) -> Option<R> {
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
    fn get_or_make<E>(
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
    fn put(&self, slot: &Arc<LruSlot<T>>, value: Arc<T>, size: u64) -> Arc<T> {
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
    fn clear(&self, slot: &Arc<LruSlot<T>>) {
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
struct LazyFile {
    disk: Arc<dyn Disk>,
    path: String,
    slot: Arc<LruSlot<Box<dyn DiskFile>>>,
    descriptors: Arc<LruPool<Box<dyn DiskFile>>>,
    pinned: PinnedFile,
}

/// An open file, once it is set, that stays open after its name is removed.
type PinnedFile = Arc<OnceLock<Arc<Box<dyn DiskFile>>>>;

impl LazyFile {
    /// A file at `path` that takes its descriptor from a pool. Once `pinned` is set, it reads from that one
    /// instead.
    fn new(
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
