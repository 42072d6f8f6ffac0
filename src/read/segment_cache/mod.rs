//! What is kept open and in memory of the segments that are written to no more: descriptors, indexes, and whole
//! segments.
//!
//! None of it is needed: a file is opened or read again, and an index that is missing, damaged or of another
//! time is built again from its segment. So each has a budget, and memory does not grow with the log.
//! Row: shelf. Tested by tests/it/scale.rs.

mod build;
mod index_builder;
mod lazy_file;
mod lru;
mod resident;
mod sealed_segment;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::disk::{Disk, DiskFile};
use crate::index::{Bound, LiveIndex, SealedIndex};
use crate::log::Block;
use crate::threads::BackgroundThread;

use build::write;
use lru::LruPool;

pub(crate) use index_builder::{build_last_index, index_is_pending, build_pending_indexes};
pub(crate) use sealed_segment::{SealedMeta, SealedSegment};

/// Open files of sealed segments and their indexes.
const DESCRIPTORS_MAX: u64 = 64;

/// The budgets of one store, and what they are spent on.
pub(crate) struct SegmentCache {
    disk: Arc<dyn Disk>,
    /// The stores that the log's segments may belong to: the first began it, the last is this one.
    stores: Vec<[u8; 16]>,
    /// Whether index files may be written.
    writes: bool,
    descriptors: Arc<LruPool<Box<dyn DiskFile>>>,
    indexes: LruPool<SealedIndex>,
    segments: LruPool<Block>,
    lock_index_builds: Mutex<()>,
    background: Arc<BackgroundThread>,
}

/// How much a shelf may hold.
#[derive(Clone, Copy)]
pub(crate) struct Budgets {
    pub(crate) index_bytes: u64,
    pub(crate) segment_bytes: u64,
}

impl SegmentCache {
    /// An empty one; `stores` are the store's lineage, oldest first, and itself.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        stores: Vec<[u8; 16]>,
        writes: bool,
        budgets: Budgets,
        background: Arc<BackgroundThread>,
    ) -> SegmentCache {
        SegmentCache {
            disk,
            stores,
            writes,
            descriptors: Arc::new(LruPool::new(DESCRIPTORS_MAX)),
            indexes: LruPool::new(budgets.index_bytes),
            segments: LruPool::new(budgets.segment_bytes),
            lock_index_builds: Mutex::new(()),
            background,
        }
    }

    /// For what may wait.
    pub(crate) fn background(&self) -> &Arc<BackgroundThread> {
        &self.background
    }

    /// The store that the log began in: terms are hashed with its id, in all that was forked from it.
    pub(crate) fn origin(&self) -> &[u8; 16] {
        self.stores.first().expect("a log belongs to a store")
    }

    /// Held by whoever writes indexes of segments that were just sealed, so that nobody does the same.
    pub(crate) fn lock_index_builds(&self) -> MutexGuard<'_, ()> {
        self.lock_index_builds.lock()
    }

    /// Writes the index of a part beside its segment, if that is allowed, and gives its bytes. What goes wrong
    /// costs time later, and nothing else.
    pub(crate) fn write_index(&self, index: &LiveIndex, bound: &Bound) -> Option<Vec<u8>> {
        let bytes = index.encode(bound);
        match &bytes {
            Some(bytes) if self.writes => write(self.disk.as_ref(), bound.segment, bytes),
            Some(_) => {}
            None => tracing::warn!(segment = bound.segment.path(), "its index is too large for a file"),
        }
        bytes
    }

    fn knows(&self, store_id: &[u8; 16]) -> bool {
        self.stores.contains(store_id)
    }
}
