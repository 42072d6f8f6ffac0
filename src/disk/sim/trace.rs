//! Everything that happened to a simulated disk, to be stopped anywhere and looked at.
//!
//! An image replays the steps through the same [`Medium`] that the disk itself uses, so the two
//! cannot disagree.
//! Row: disk.

use std::sync::Arc;

use super::SimDisk;
use super::medium::{Medium, Step};
use super::random::Random;
use crate::types::to_u64;

/// What becomes of everything that was not synced when a [`Trace`] is stopped.
#[derive(Clone, Copy, Debug)]
pub enum CrashMode {
    /// Only the process dies: everything written is there, but no more durable than before, so a
    /// later power failure may still take it. Where a sync had failed, the bytes it lost are there
    /// until [`drop_cache`](crate::disk::DiskFile::drop_cache), and then are not.
    Keep,
    /// The power fails, and nothing unsynced survives, neither bytes nor lengths nor names.
    Drop,
    /// The power fails in the middle of it. Of each write any 512-byte sectors survive, in any
    /// order and rarely in part; each file has an older, the newest or a growing length, with
    /// zeros where bytes did not survive; of the names each change survives or not. The seed
    /// decides.
    Torn(u64),
}

/// A record of the operations that changed a [`SimDisk`], and of the notes taken between them.
///
/// Creating, renaming and removing names, writing, setting a length, syncing (even in vain) and
/// dropping the cache are such operations; those that failed otherwise or only looked are not. A
/// *point* is a number of operations from the beginning, so there is one more point than
/// operations: `0..=trace.len()`.
///
/// Clones are cheap and share what they hold. A trace is a snapshot: it does not grow.
#[derive(Clone)]
pub struct Trace {
    seed: u64,
    base: Arc<Medium>,
    steps: Arc<Vec<Step>>,
    /// With the point each was taken at, so sorted by it.
    notes: Arc<Vec<(usize, u64)>>,
}

impl Trace {
    /// The number of operations: the last point.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether nothing was changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The notes taken before the operation that follows `point`, the oldest first: what had been
    /// said by the time an [`image`](Trace::image) of that point shows.
    pub fn notes_before(&self, point: usize) -> impl Iterator<Item = u64> {
        self.notes.iter().take_while(move |(taken_at, _)| *taken_at <= point).map(|(_, note)| *note)
    }

    /// A disk as it could be found if the machine, or only the process, had stopped right after
    /// the first `point` operations.
    ///
    /// Unless only the process died, nothing is pending on it; nobody holds its lock, nothing will fail and there is room. It
    /// has a trace of its own that starts empty, so it can be stopped again. The same trace, point
    /// and mode give the same disk, bit for bit.
    ///
    /// # Panics
    ///
    /// If `point` is greater than [`len`](Trace::len).
    #[must_use]
    pub fn image(&self, point: usize, mode: CrashMode) -> SimDisk {
        let mut medium = Medium::clone(&self.base);
        self.steps[..point].iter().for_each(|step| medium.apply(step));
        let mut random = Random::new(self.image_seed(point, mode));
        match mode {
            CrashMode::Keep => {}
            CrashMode::Drop => medium.lose(),
            CrashMode::Torn(_) => medium.tear(&mut random),
        }
        SimDisk::from_medium(medium, random.next())
    }

    pub(super) fn new(base: Arc<Medium>, seed: u64) -> Trace {
        Trace { seed, base, steps: Arc::default(), notes: Arc::default() }
    }

    pub(super) fn push(&mut self, step: Step) {
        Arc::make_mut(&mut self.steps).push(step);
    }

    pub(super) fn note(&mut self, value: u64) {
        let point = self.len();
        Arc::make_mut(&mut self.notes).push((point, value));
    }

    /// Starts anew from `base`; what was said so far is said before the first operation.
    pub(super) fn restart(&mut self, base: Arc<Medium>) {
        let notes = self.notes.iter().map(|(_, note)| (0, *note)).collect();
        *self = Trace { notes: Arc::new(notes), ..Trace::new(base, self.seed) };
    }

    /// Differs for every image: a salt drawn before the stop must not be drawn again after it, and
    /// one seed must not tear the same way at every point.
    fn image_seed(&self, point: usize, mode: CrashMode) -> u64 {
        let (kind, torn) = match mode {
            CrashMode::Keep => (0, 0),
            CrashMode::Drop => (1, 0),
            CrashMode::Torn(seed) => (2, seed),
        };
        let point = to_u64(point);
        Random::seed_of(&[self.seed, point, kind, torn])
    }
}
