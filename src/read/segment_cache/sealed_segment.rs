//! A sealed segment: its file and its index, both opened on demand, and its bytes in memory if it is read
//! often.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::MutexGuard;

use crate::disk::{Access, DiskFile};
use crate::index::{Bound, SealedIndex, SegmentIndex, TermHash};
use crate::log::{Block, SegmentFile, damaged, missing};
use crate::threads::once;
use crate::types::{Error, to_u32, to_u64, to_usize};

use super::{
    LazyFile, LruSlot, PinnedFile, SealedMeta, SegmentCache, encode_index_of, walk, write_index_file,
};

/// A segment that does not change any more, or the part of one that an index file covers. Opens its file and
/// its index when they are first used.
pub(crate) struct SealedSegment {
    cache: Arc<SegmentCache>,
    meta: SealedMeta,
    file: OnceLock<Arc<SegmentFile>>,
    /// The index file of a part. It stays open, because the writer gives its name to other index files.
    index_file: Option<Arc<dyn DiskFile>>,
    index: Arc<LruSlot<SealedIndex>>,
    resident: ResidentSegment,
    /// Set once the segment was rewritten and the names of its files are removed.
    retired: PinnedFile,
}

impl SealedSegment {
    /// A segment whose file and index are not open yet.
    pub(crate) fn new(cache: Arc<SegmentCache>, meta: SealedMeta) -> SealedSegment {
        SealedSegment {
            cache,
            meta,
            file: OnceLock::new(),
            index_file: None,
            index: Arc::default(),
            resident: ResidentSegment::default(),
            retired: PinnedFile::default(),
        }
    }

    /// The part of a segment that an index file covers. Both files are open.
    pub(crate) fn with_files(
        cache: Arc<SegmentCache>,
        meta: SealedMeta,
        file: Arc<SegmentFile>,
        index_file: Arc<dyn DiskFile>,
    ) -> SealedSegment {
        let mut part = SealedSegment::new(cache, meta);
        part.file = OnceLock::from(file);
        part.index_file = Some(index_file);
        part
    }

    /// A segment whose index was just encoded to `bytes`. The cache keeps the index like any other.
    pub(crate) fn with_index(
        cache: Arc<SegmentCache>,
        meta: SealedMeta,
        bytes: Option<Vec<u8>>,
    ) -> SealedSegment {
        let sealed = SealedSegment::new(cache, meta);
        let bound = &sealed.meta.bound;
        let path = bound.segment.index_path();
        if let Some(Ok(index)) = bytes.map(|bytes| SealedIndex::whole(bytes.into(), &path, bound)) {
            let bytes = index_size(&index);
            sealed.cache.indexes.put(&sealed.index, Arc::new(index), bytes);
        }
        sealed
    }

    /// Whether this is a whole segment, and not a part of one that is still written to.
    pub(crate) fn is_whole(&self) -> bool {
        self.meta.file_bytes.is_some()
    }

    /// The bytes of memory that the index takes.
    pub(crate) fn index_bytes(&self) -> u64 {
        self.index.peek(index_size).unwrap_or(0)
    }

    /// The store id with which the terms of the index are hashed.
    pub(crate) fn origin(&self) -> &[u8; 16] {
        self.cache.origin()
    }

    pub(crate) fn meta(&self) -> &SealedMeta {
        &self.meta
    }

    /// The segment's file. The first call opens it and checks its header.
    ///
    /// # Errors
    ///
    /// If the file is missing, cannot be read, or is not the segment that is listed.
    pub(crate) fn file(&self) -> Result<&Arc<SegmentFile>, Error> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let opened = self.open_file()?;
        Ok(self.file.get_or_init(|| Arc::new(opened)))
    }

    /// Prepares for the removal of the segment's files, after the segment was rewritten. Readers that still
    /// hold it keep the file open as long as they need it; the cache evicts everything else.
    pub(crate) fn retire(&self) {
        let _ = self.file();
        match self.cache.disk.open(&self.meta.bound.segment.path(), Access::Read) {
            Ok(file) => drop(self.retired.set(Arc::new(file))),
            // Only a warning: a descriptor that is open already serves the readers as well.
            Err(error) => tracing::warn!(%error, "a rewritten segment cannot be kept open for its readers"),
        }
        self.cache.indexes.clear(&self.index);
        self.resident.clear(&self.cache);
    }

    fn is_retired(&self) -> bool {
        self.retired.get().is_some()
    }

    fn open_file(&self) -> Result<SegmentFile, Error> {
        let outline = self.meta.outline();
        let path = outline.id.path();
        let descriptors = self.cache.descriptors.clone();
        let file = LazyFile::new(self.cache.disk.clone(), path.clone(), descriptors, self.retired.clone());
        let length = file.length().map_err(|error| match error.kind() {
            // The writer's own rewrites retire a segment first, so its file is lost. A reader beside the
            // writer gets the plain error: the writer may have rewritten the segment just now, and the reader
            // loads the list again.
            std::io::ErrorKind::NotFound if self.cache.writes => missing(outline.id),
            _ => Error::io("cannot open", &path, error),
        })?;
        let file = SegmentFile::from_file(Box::new(file), path)?;
        outline.check_header(&file, |store_id| self.cache.knows(store_id))?;
        if self.is_whole() {
            outline.check_length(length)?;
        }
        Ok(file)
    }

    /// Checks the length, the header and the seal of a whole segment, from a file it opens for this.
    ///
    /// # Errors
    ///
    /// If the file is not the segment that is listed, or cannot be read.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !self.is_whole() {
            return Ok(());
        }
        let outline = self.meta.outline();
        let file = SegmentFile::open(self.cache.disk.as_ref(), outline.id, Access::Read)?;
        outline.check_length(file.length()?)?;
        outline.check(&file, |store_id| self.cache.knows(store_id))
    }

    /// A block that holds `run`: the whole segment if it is resident, otherwise the run from the file. The
    /// memory of `old` is reused if no event holds it.
    ///
    /// # Errors
    ///
    /// Those of [`SealedSegment::file`], and of reading.
    pub(crate) fn block(&self, run: &Range<u32>, old: Option<Block>) -> Result<Block, Error> {
        if let Some(block) = self.resident_block() {
            return Ok(block);
        }
        let file = self.file()?;
        let block = file.block_over(old, run.clone())?;
        self.record_read(run.end - run.start, file);
        Ok(block)
    }

    /// The whole segment, if it is resident.
    pub(crate) fn resident_block(&self) -> Option<Block> {
        self.resident.block(&self.cache)
    }

    /// Reads bytes of the file that must be there.
    ///
    /// # Errors
    ///
    /// Those of [`SealedSegment::file`], and of reading.
    pub(crate) fn read_at(&self, offset: u32, bytes: &mut [u8]) -> Result<(), Error> {
        let file = self.file()?;
        file.read_at(offset, bytes)?;
        self.record_read(to_u32(bytes.len()), file);
        Ok(())
    }

    fn record_read(&self, bytes: u32, file: &Arc<SegmentFile>) {
        if !self.is_retired() {
            self.resident.record_read(bytes, &self.cache, file, &self.meta.bound);
        }
    }

    /// The bytes of the segment that are in memory.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.resident.bytes()
    }

    /// Puts a question to the index. An index that turns out to be damaged is built again, and asked again.
    ///
    /// # Errors
    ///
    /// If the segment itself is damaged or cannot be read.
    pub(crate) fn ask<T>(&self, ask: impl Fn(&dyn SegmentIndex) -> Result<T, Error>) -> Result<T, Error> {
        let index = self.index()?;
        let answer = match ask(index.as_ref()) {
            Err(error) if !index.is_whole() => {
                tracing::warn!(%error, "an index is built again from its segment");
                return ask(self.rebuild()?.as_ref());
            }
            answer => answer?,
        };
        if !index.is_whole() && is_read_often(&index) {
            self.load(&index)?;
        }
        Ok(answer)
    }

    /// Whether the index may have a term. `false` is certain.
    ///
    /// # Errors
    ///
    /// Those of [`SealedSegment::ask`].
    pub(crate) fn may_have(&self, term: TermHash) -> Result<bool, Error> {
        let seen = self.cache.indexes.look(&self.index, |index| index.may_have(term));
        seen.map_or_else(|| Ok(self.index()?.may_have(term)), Ok)
    }

    /// The index: from memory, from its file, or built from the segment.
    ///
    /// # Errors
    ///
    /// Those of [`SealedSegment::ask`].
    pub(crate) fn index(&self) -> Result<Arc<SealedIndex>, Error> {
        self.cache.indexes.get_or_make(&self.index, || {
            let path = self.meta.bound.segment.index_path();
            let lazy = || {
                let descriptors = self.cache.descriptors.clone();
                LazyFile::new(self.cache.disk.clone(), path.clone(), descriptors, PinnedFile::default())
            };
            let file = self.index_file.clone().unwrap_or_else(|| Arc::new(lazy()));
            let index = match SealedIndex::open(file, &path, &self.meta.bound) {
                Ok(Ok(index)) if index.whole_bytes() <= READ_WHOLE_MAX => index.load()?.unwrap_or(index),
                Ok(Ok(index)) => index,
                Ok(Err(damage)) => {
                    tracing::info!(path, %damage, "an index is built from its segment");
                    self.build()?
                }
                Err(error) => {
                    tracing::info!(path, %error, "an index is built from its segment");
                    self.build()?
                }
            };
            self.check_counts(&index)?;
            let bytes = index_size(&index);
            Ok((index, bytes))
        })
    }

    /// The counts of the index prove that the segment holds what MANIFEST says, before anything is answered.
    fn check_counts(&self, index: &SealedIndex) -> Result<(), Error> {
        let SealedMeta { frames, events, bound, .. } = &self.meta;
        if (index.frames(), index.events()) == (*frames, *events) {
            return Ok(());
        }
        let what = "the segment does not hold as many events as MANIFEST says";
        Err(Error::corrupt(&bound.segment.path(), bound.end.into(), what))
    }

    /// Reads the whole index file into memory, if the cache is large enough for it.
    fn load(&self, index: &SealedIndex) -> Result<(), Error> {
        if !self.cache.indexes.could_hold(to_u64(index.whole_bytes())) {
            return Ok(());
        }
        match index.load()? {
            Ok(whole) => {
                let bytes = index_size(&whole);
                self.cache.indexes.put(&self.index, Arc::new(whole), bytes);
            }
            Err(_) => drop(self.rebuild()?),
        }
        Ok(())
    }

    /// Builds the index from the segment, even if there is an index file.
    ///
    /// # Errors
    ///
    /// Those of [`SealedSegment::ask`].
    pub(crate) fn rebuild(&self) -> Result<Arc<SealedIndex>, Error> {
        Ok(self.keep(self.build()?))
    }

    /// Builds the index of a part of a segment that is still written to, and writes its file. The caller
    /// holds the lock of [`SegmentCache::lock_index_builds`]: otherwise the whole segment's index could be
    /// written to the same file first.
    ///
    /// # Errors
    ///
    /// Those of [`SealedSegment::ask`].
    pub(crate) fn rebuild_part(&self, _alone: &MutexGuard<'_, ()>) -> Result<Arc<SealedIndex>, Error> {
        let bytes = encode_index_of(self.file()?, &self.meta.bound)?;
        if self.cache.writes {
            write_index_file(self.cache.disk.as_ref(), self.meta.bound.segment, &bytes);
        }
        Ok(self.keep(self.read_built(bytes)?))
    }

    /// Puts the index into the cache.
    fn keep(&self, index: SealedIndex) -> Arc<SealedIndex> {
        let bytes = index_size(&index);
        self.cache.indexes.put(&self.index, Arc::new(index), bytes)
    }

    /// Builds the index from the segment, and writes the file if the store may be written to.
    fn build(&self) -> Result<SealedIndex, Error> {
        let bytes = encode_index_of(self.file()?, &self.meta.bound)?;
        // Not for a part of a segment: its index file may by now be the one of the whole segment.
        if self.cache.writes && self.is_whole() && !self.is_retired() {
            write_index_file(self.cache.disk.as_ref(), self.meta.bound.segment, &bytes);
        }
        self.read_built(bytes)
    }

    fn read_built(&self, bytes: Vec<u8>) -> Result<SealedIndex, Error> {
        let path = self.meta.bound.segment.index_path();
        SealedIndex::whole(bytes.into(), &path, &self.meta.bound).map_err(|damage| damaged(&path, 0, &damage))
    }
}

impl Drop for SealedSegment {
    fn drop(&mut self) {
        self.cache.indexes.clear(&self.index);
        self.resident.clear(&self.cache);
    }
}

/// An index file up to this size is read whole when it is opened.
const READ_WHOLE_MAX: usize = 64 << 10;

/// Whether the reads so far have cost as much as reading the whole file. To load it then costs at most twice
/// what the best choice in advance had cost.
fn is_read_often(index: &SealedIndex) -> bool {
    const PIECE: u64 = 4096;
    index.pieces_read().saturating_mul(PIECE) >= to_u64(index.whole_bytes())
}

fn index_size(index: &SealedIndex) -> u64 {
    to_u64(index.bytes())
}

/// A whole segment in memory, for segments that are read often: checked once, then an event is a slice.
///
/// The background thread loads a segment once the reads of it have cost as much as loading it. If the cache
/// is full, only segments that were not used in that time are evicted. If all are read alike, the loaded ones
/// stay: loading them in turns would help none of them.
#[derive(Default)]
struct ResidentSegment {
    slot: Arc<LruSlot<Block>>,
    /// The weighted bytes read from the file since the segment was last considered for loading.
    read: AtomicU64,
    /// When that count began, by the clock of the pool.
    since: AtomicU64,
}

/// A read longer than this is part of a sequential read.
const RANDOM_READ_MAX: u32 = 16 << 10;
/// The weight of a random read while the cache has room: a quarter of the segment is read before it is
/// loaded.
const WEIGHT_WITH_ROOM: u64 = 4;
/// Sequential reads are cheap without the cache: this many bytes count as one, and they evict no other
/// segment.
const SEQUENTIAL_BYTES_PER_WEIGHT: u64 = 2;

impl ResidentSegment {
    /// The whole segment, if it is in memory.
    fn block(&self, cache: &SegmentCache) -> Option<Block> {
        cache.segments.look(&self.slot, |block| Block::clone(block))
    }

    fn bytes(&self) -> u64 {
        self.slot.peek(block_size).unwrap_or(0)
    }

    fn clear(&self, cache: &SegmentCache) {
        cache.segments.clear(&self.slot);
    }

    /// Counts a read from the file, and has the segment loaded once the reads have cost enough.
    fn record_read(&self, bytes: u32, cache: &Arc<SegmentCache>, file: &Arc<SegmentFile>, bound: &Bound) {
        let whole = u64::from(bound.end);
        if !cache.segments.could_hold(whole) {
            return;
        }
        let is_random = bytes <= RANDOM_READ_MAX;
        let weight = match (cache.segments.has_room(whole), is_random) {
            (true, true) => u64::from(bytes) * WEIGHT_WITH_ROOM,
            (true, false) => u64::from(bytes) / SEQUENTIAL_BYTES_PER_WEIGHT,
            (false, true) => u64::from(bytes),
            (false, false) => return,
        };
        let read = self.read.fetch_add(weight, Ordering::Relaxed);
        if read == 0 {
            self.since.store(cache.segments.tick(), Ordering::Relaxed);
        }
        if read + weight < whole || self.read.swap(0, Ordering::Relaxed) < whole {
            return;
        }
        if !cache.segments.has_room_beside_used(whole, self.since.load(Ordering::Relaxed)) {
            return;
        }
        let own = cache.clone();
        let file = file.clone();
        let bound = bound.clone();
        let slot = self.slot.clone();
        let load = move || match own.segments.get_or_make(&slot, || load_segment(&file, &bound)) {
            Ok(_) => tracing::debug!(segment = file.path, "loaded"),
            // Only a log line: a reader of the damaged frame gets the error itself.
            Err(error) => tracing::warn!(%error, "a segment was not loaded"),
        };
        cache.background.run_in(Duration::ZERO, once(load));
    }
}

fn block_size(block: &Block) -> u64 {
    to_u64(block.bytes.len())
}

/// Reads a segment into memory: all its frames, each checked, and zeros between them. Returns the size, too.
fn load_segment(file: &SegmentFile, bound: &Bound) -> Result<(Block, u64), Error> {
    let mut bytes = vec![0; to_usize(bound.end)];
    walk(file, bound, |offset, frame| {
        let header = frame.header.bytes();
        let body_start = to_usize(offset) + header.len();
        bytes[to_usize(offset)..body_start].copy_from_slice(header);
        bytes[body_start..body_start + frame.body.len()].copy_from_slice(frame.body);
        Ok(())
    })?;
    let block = Block::known(Arc::new(bytes), 0);
    let bytes = block_size(&block);
    Ok((block, bytes))
}
