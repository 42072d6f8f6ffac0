//! All changes of a simulated disk. A test can stop the disk at any of them and look at what it holds then.
//!
//! An image replays the changes through the same [`Medium`] that the disk itself uses, so the two cannot
//! disagree.

use std::sync::Arc;

use super::SimDisk;
use super::faults::SeededRandom;
use super::medium::{Medium, MediumChange};
use crate::types::to_u64;

/// What becomes of unsynced changes when a [`Trace`] is stopped.
#[derive(Clone, Copy, Debug)]
pub enum CrashMode {
    /// Only the process dies. All written bytes are there, but no more durable than before, so a later power
    /// failure may still take them. Bytes that a failed sync lost are there until
    /// [`drop_cache`](crate::disk::DiskFile::drop_cache).
    Keep,
    /// The power fails, and no unsynced change survives: no bytes, lengths or names.
    Drop,
    /// The power fails while unsynced changes are on their way. Any 512-byte sectors of each write survive,
    /// in any order and rarely in part. Each file has an older length, the newest one, or one between; it has
    /// zeros where bytes did not survive. Each change of a name survives or not. The seed decides.
    Torn(u64),
}

/// A record of the operations that changed a [`SimDisk`], and of the notes taken between them.
///
/// These operations are recorded: creating, renaming and removing names, writing, setting a length, syncing
/// (also when it fails) and dropping the cache. Other operations that failed, and those that only read, are
/// not. A *point* is a number of operations from the beginning, so there is one more point than operations:
/// `0..=trace.len()`.
///
/// A clone is cheap. A trace is a snapshot: it does not grow.
#[derive(Clone)]
pub struct Trace {
    seed: u64,
    base: Arc<Medium>,
    changes: Arc<Vec<MediumChange>>,
    /// Each note with the point at which it was taken, sorted by the points.
    notes: Arc<Vec<(usize, u64)>>,
}

impl Trace {
    /// The number of operations: the last point.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there is no operation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The notes taken before the operation that follows `point`, the oldest first. A test compares them with
    /// the [`image`](Trace::image) of that point.
    pub fn notes_before(&self, point: usize) -> impl Iterator<Item = u64> {
        self.notes.iter().take_while(move |(taken_at, _)| *taken_at <= point).map(|(_, note)| *note)
    }

    /// The disk as a restart could find it if the machine, or only the process, had stopped right after the
    /// first `point` operations.
    ///
    /// The new disk is not locked, has no faults and no limit of its capacity. After a power failure no
    /// change is pending on it. It has a trace of its own that starts empty, so it can be stopped again. The
    /// same trace, point and mode give the same disk, bit for bit.
    ///
    /// # Panics
    ///
    /// If `point` is greater than [`len`](Trace::len).
    #[must_use]
    pub fn image(&self, point: usize, mode: CrashMode) -> SimDisk {
        let mut medium = Medium::clone(&self.base);
        self.changes[..point].iter().for_each(|change| medium.apply(change));
        let mut random = SeededRandom::new(self.image_seed(point, mode));
        match mode {
            CrashMode::Keep => {}
            CrashMode::Drop => medium.lose(),
            CrashMode::Torn(_) => medium.tear(&mut random),
        }
        SimDisk::from_medium(medium, random.next())
    }

    pub(super) fn new(base: Arc<Medium>, seed: u64) -> Trace {
        Trace { seed, base, changes: Arc::default(), notes: Arc::default() }
    }

    pub(super) fn push(&mut self, change: MediumChange) {
        Arc::make_mut(&mut self.changes).push(change);
    }

    pub(super) fn note(&mut self, value: u64) {
        let point = self.len();
        Arc::make_mut(&mut self.notes).push((point, value));
    }

    /// Starts anew from `base`. All notes so far come before the first operation.
    pub(super) fn restart(&mut self, base: Arc<Medium>) {
        let notes = self.notes.iter().map(|(_, note)| (0, *note)).collect();
        *self = Trace { notes: Arc::new(notes), ..Trace::new(base, self.seed) };
    }

    /// Differs for every image. A salt drawn before the stop must not be drawn again after it. One seed must
    /// not tear the same way at every point.
    fn image_seed(&self, point: usize, mode: CrashMode) -> u64 {
        let (kind, torn) = match mode {
            CrashMode::Keep => (0, 0),
            CrashMode::Drop => (1, 0),
            CrashMode::Torn(seed) => (2, seed),
        };
        let point = to_u64(point);
        SeededRandom::seed_of(&[self.seed, point, kind, torn])
    }
}
